"""`benchkit data`: which data sets are there and prepared, preparing them, importing files, and checking them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchkit.cli.app import cell, console, line, print_facts, print_json, print_note, print_table
from benchkit.cli.options import AsJson, PluginFiles
from benchkit.errors import BenchkitError, DataError, PluginError, nearest
from benchkit.registry import Registry
from benchkit.storage import mebibytes
from benchkit.study.tree import parse_value

if TYPE_CHECKING:
    from benchkit.data.prepared import Manifest
    from benchkit.registry.registry import Entry

MOST_CLASSES = 12
"""Up to this many classes each is listed with its number of images."""

app = typer.Typer(no_args_is_help=True, help="List, prepare, import and verify data sets.")


def complete_dataset(incomplete: str) -> list[str]:
    """Return the data sets whose names start with `incomplete`."""
    return [name for name in Registry.installed().names("datasets") if name.startswith(incomplete)]


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=complete_dataset, help="A data set, for example cifar10.")
]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="OPTION=VALUE", help="Give the data set an option; repeatable.")
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Prepare again, even if it is prepared already.")]


@app.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List the data sets of all plugins, and which of them are prepared."""
    from benchkit.preparation import data_root, prepared_folders

    rows = _rows(Registry.installed().names("datasets"), prepared_folders(data_root()))
    if as_json:
        print_json({"root": str(data_root()), "datasets": rows})
        return
    print_table(
        ("data set", "state", "train", "val", "test", "classes", "size", "fingerprint", "options"), _cells(rows)
    )
    print_note(f"prepared data live in {data_root()} (BENCHKIT_DATA chooses another place)")


@app.command("prepare")
def prepare_data(
    name: NameArgument, settings: SetOption = [], replace: ReplaceOption = False, plugin: PluginFiles = []
) -> None:
    """Prepare a data set; download it first where it has to be."""
    _prepare(name, _given(settings), replace=replace, plugins=plugin)


@app.command("import")
def import_data(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, a tar, tar.gz or zip archive, or a file.")],
    partial: Annotated[bool, typer.Option("--partial", help="Accept a part of the published set; noted.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that cannot be read; noted.")
    ] = False,
    split: Annotated[
        Path | None,
        typer.Option("--split", metavar="FILE", help="Put files where this list says: columns path, split, group."),
    ] = None,
    settings: SetOption = [],
    replace: ReplaceOption = False,
    plugin: PluginFiles = [],
) -> None:
    """Prepare a data set from files that you have: torchvision's layout, or class folders of images.

    Your own images are the data set image-folder: benchkit data import image-folder PATH --set size=64
    """
    given: dict[str, Any] = {"source": str(path.expanduser().resolve())}
    if split is not None:
        given["split"] = str(split.expanduser().resolve())
    if partial:
        given["partial"] = True
    if skip_broken:
        given["skip_broken"] = True
    options = _given(settings)
    if twice := [option for option in options if option in given]:
        raise PluginError(
            f"--set {', '.join(twice)}: PATH and the options of import say this already", hint="say it once"
        )
    _prepare(name, {**options, **given}, replace=replace, plugins=plugin)


@app.command("verify")
def verify_data(name: NameArgument) -> None:
    """Read every byte of a prepared data set and compare its fingerprint; exit with 2 if it is damaged."""
    from benchkit.preparation import data_root, prepared_folders, verify

    entry = Registry.installed().find("datasets", name)
    plain = entry.name
    folders = [folder for folder in prepared_folders(data_root()) if _is_of(folder, plain)]
    if not folders:
        raise DataError(f"{plain} is not prepared in {data_root()}", hint=f"run `benchkit data prepare {plain}`")
    problems = []
    for folder in folders:
        try:
            manifest = verify(folder)
        except DataError as error:
            problems += [error.what, *error.problems]
        else:
            print_facts({"whole": folder, "sha256": manifest.fingerprint})
            _tell_maker(entry, manifest)
    if problems:
        raise DataError(f"{plain} is damaged", problems=problems, hint="prepare or import it again with --replace")


def _prepare(name: str, given: Mapping[str, Any], *, replace: bool, plugins: Sequence[Path]) -> None:
    from benchkit.data.dataset import made_by, naming
    from benchkit.preparation import data_root, find_prepared, replacing
    from benchkit.registry.options import bind_options, options_of

    registry = Registry.installed(plugins)
    if "source" in given and not registry.claims("datasets", name):
        # The name may be meant for the images: many tools ask for one here.
        raise PluginError(
            f"there is no data set {name!r}{nearest(name, registry.names('datasets'))}",
            hint=f"for images of your own, one folder a class: benchkit data import image-folder {given['source']}",
        )
    plugin: Any = registry.load("datasets", name)
    options = options_of(plugin, "datasets")
    if "source" in given and "source" not in {option.name for option in options}:
        raise PluginError(f"{name} takes no files of yours", hint=f"run `benchkit data prepare {name}`")
    bound = bind_options(options, given)
    manifest = None if replace else find_prepared(plugin, data_root(), bound)
    entry = registry.resolve("datasets", name)[0]
    if manifest is not None:
        unread = "source" in given and "source" not in manifest.options
        print_note(f"{name} is prepared already{'; PATH was not read' * unread}. Use --replace to prepare it again.")
        _tell_maker(entry, manifest)
    else:
        anew = replacing() if replace else nullcontext()
        with _shown_progress(), made_by(entry), naming(registry, name), anew:
            plugin(data_root(), **bound)
        manifest = find_prepared(plugin, data_root(), bound)
    if manifest is None:
        print_note(f"{name} does not keep prepared data; nothing is stored")
    else:
        _print_manifest(manifest)


def _tell_maker(entry: Entry, manifest: Manifest) -> None:
    """Say that a set was prepared by another source of its plugin than is here, where it was."""
    from benchkit.data.dataset import maker_warning

    if words := maker_warning(entry, manifest.made_with.get("source", "")):
        print_note(words)


def _given(settings: Sequence[str]) -> dict[str, Any]:
    given = {}
    for setting in settings:
        option, equals, text = setting.partition("=")
        if not equals or not option:
            raise PluginError(f"--set {setting}: expected OPTION=VALUE, for example size=64")
        given[option] = parse_value(text)
    return given


def _is_of(folder: Path, name: str) -> bool:
    """Return whether a prepared folder belongs to a data set, told by its path so that damaged ones count too."""
    head, _, tail = folder.name.rpartition("-")
    return folder.name == name or (head == name and len(tail) == 12)


def _rows(names: Sequence[str], folders: Mapping[Path, Manifest | DataError]) -> list[dict[str, Any]]:
    known = {name: [folder for folder in folders if _is_of(folder, name)] for name in names}
    claimed = {folder for found in known.values() for folder in found}
    others = [_row(folder.name, folder, found) for folder, found in folders.items() if folder not in claimed]
    rows = []
    for name, found in known.items():
        rows += [_row(name, folder, folders[folder]) for folder in found] or [{"name": name, "state": "not prepared"}]
    return rows + [{**row, "note": "no installed plugin has this name"} for row in others]


def _row(name: str, folder: Path, manifest: Manifest | DataError) -> dict[str, Any]:
    if isinstance(manifest, BenchkitError):
        return {"name": name, "state": "damaged", "folder": str(folder), "problem": str(manifest)}
    return {
        "name": name,
        "state": "prepared",
        "folder": str(folder),
        "counts": {split: part.count for split, part in manifest.splits.items()},
        "image_shape": list(manifest.splits["train"].shape),
        "classes": len(manifest.class_names),
        "bytes": manifest.bytes,
        "fingerprint": manifest.fingerprint,
        "options": dict(manifest.options),
        "notes": list(manifest.notes),
    }


def _cells(rows: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[object]]:
    styles = {"prepared": "green", "damaged": "bold red"}
    for row in rows:
        counts = row.get("counts", {})
        options = row.get("options", {})
        yield (
            row["name"],
            cell(row["state"], styles.get(row["state"], "dim")),
            *(f"{counts[split]:,}" if split in counts else "" for split in ("train", "val", "test")),
            row.get("classes", ""),
            mebibytes(row["bytes"]) if "bytes" in row else "",
            row.get("fingerprint", "")[:12],
            line(" ".join(f"{key}={value}" for key, value in options.items()) or row.get("problem", "")),
        )


def _print_manifest(manifest: Manifest) -> None:
    from benchkit.preparation import data_root, prepared_folder

    height, width, channels = manifest.splits["train"].shape
    print_facts(
        {
            "data set": manifest.name,
            "folder": prepared_folder(data_root(), manifest.name, manifest.options),
            "images": ", ".join(f"{part.count:,} {split}" for split, part in manifest.splits.items()),
            "shape": f"{height} x {width} pixels, {channels} channel{'s' * (channels > 1)}",
            "classes": _classes(manifest),
            "size": mebibytes(manifest.bytes),
            "sha256": manifest.fingerprint,
            "licence": manifest.licence,
            "citation": manifest.citation,
            "notes": "\n".join(manifest.notes),
        }
    )


def _classes(manifest: Manifest) -> str:
    """Return how many classes there are, with the training images of each, or of the smallest and largest of many."""
    counts = dict(zip(manifest.class_names, manifest.splits["train"].class_counts, strict=True))
    shown = [f"{name} {count:,}" for name, count in counts.items()]
    if len(counts) > MOST_CLASSES:
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        shown = [f"{counts[least]:,} ({least}) to {counts[most]:,} ({most})"]
    return f"{len(counts):,}, training images: {', '.join(shown)}"


@contextmanager
def _shown_progress() -> Iterator[None]:
    """Show progress on stderr: a bar on a terminal, else a line now and then."""
    from benchkit.preparation import listening, progress_lines

    target = console(stderr=True)
    if not target.is_terminal:
        with listening(progress_lines(print_note)):
            yield
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=target, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(line(what), total=None)
            bars.update(tasks[what], completed=done, total=total or None)

        with listening(show):
            yield
