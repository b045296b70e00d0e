"""From a study's data sets to their images: where relative paths lead, and what a report says of a set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from benchkit.errors import DataError
from benchkit.protocols import Splits
from benchkit.registry import Registry
from benchkit.registry.options import bind_options, options_of
from benchkit.study.settings import PluginRef


def load_data(registry: Registry, ref: PluginRef, root: Path, study_file: Path | None = None) -> Splits:
    """Return a data set's splits, preparing it under `root` when that has not been done.

    Options that are relative paths are told from the folder of the study's file (see `located`).
    """
    return cast(Splits, registry.bind("datasets", located(registry, ref, root, study_file)[0])(root))


def located(
    registry: Registry, ref: PluginRef, root: Path, study_file: Path | None
) -> tuple[PluginRef, Mapping[str, tuple[Path, ...]]]:
    """Return a data set's reference with its relative paths made whole, and by option the paths tried in vain.

    A relative path is told from the folder of the study's file, else from the current one where only that has it; with
    nothing there, it is the path of which the set is prepared, if any.
    """
    from benchkit.preparation import find_prepared

    plugin = cast(Callable[..., Any], registry.load("datasets", ref.name))
    options, given, missing = options_of(plugin, "datasets"), dict(ref.options), {}
    for option in options:
        value = given.get(option.name)
        if "path" not in option.type.split(" | ") or not isinstance(value, str | Path):
            continue
        written = Path(value).expanduser()
        folders = (study_file.absolute().parent, Path.cwd()) if study_file else (Path.cwd(),)
        tried = tuple(dict.fromkeys(folder / written for folder in folders))
        there = [path for path in tried if path.exists()] or [
            path
            for path in tried
            if find_prepared(plugin, root, bind_options(options, {**given, option.name: str(path)}))
        ]
        if not there:
            missing[option.name] = tried
        given[option.name] = str((there or tried)[0])
    return PluginRef(name=ref.name, options=given), missing


def check_data(registry: Registry, refs: Iterable[PluginRef], study_file: Path | None) -> None:
    """Raise `DataError` with every path of a data set that is neither there nor of a set that is prepared."""
    problems = []
    for ref in refs:
        if any(isinstance(value, str) for value in ref.options.values()):
            from benchkit.preparation import data_root

            _, missing = located(registry, ref, data_root(), study_file)
            problems += [
                f"data.{name} = {str(ref.options[name])!r}: {' and '.join(map(str, tried))} "
                f"{'do' if len(tried) > 1 else 'does'} not exist"
                for name, tried in missing.items()
            ]
    if problems:
        raise DataError(
            "the study's images cannot be found",
            problems=problems,
            hint="relative paths are told from the folder of the study's file",
        )


def facts_of(ref: PluginRef, splits: Splits) -> dict[str, Any]:
    """Return the facts of a prepared data set as plain values; counts are those of the whole splits."""
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {
        "name": ref.name,
        "options": {key: str(value) for key, value in ref.options.items()},
        "counts": {name: len(split.labels) for name, split in named.items() if split is not None},
        "image_shape": list(splits.train.images.shape[1:]),
        "class_names": list(splits.class_names),
        "licence": splits.licence,
        "citation": splits.citation,
        "notes": list(splits.notes),
        "fingerprint": splits.fingerprint,
    }
