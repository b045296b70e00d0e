"""What a sweep sends to a node that lacks it: prepared data, weights, and on request the sources of plugins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from benchkit.data.dataset import located
from benchkit.plan import Plan
from benchkit.preparation import find_prepared, prepared_folder
from benchkit.registry import Registry
from benchkit.registry.options import bind_options, options_of
from benchkit.registry.registry import Entry, normalized
from benchkit.registry.sources import source_files, source_hash
from benchkit.storage import file_digest
from benchkit.study.checks import data_sets, metrics_of, uses_of_settings
from benchkit.study.settings import PluginRef
from benchkit.sweep.node_check import DataSet, Needs, NodeFacts, unlike
from benchkit.train.weights_file import weights_file

Send = Callable[[Mapping[str, Path | bytes], str], None]
"""Sends files to a node, by their names in a folder there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo:
    """What can be sent: folders of prepared data by fingerprint, files by path, files of code by their names.

    `fetched` has files that were downloaded here, by what their model's plugin calls them.
    """

    data: Mapping[str, Path] = field(default_factory=dict)
    files: Sequence[str] = ()
    code: Mapping[str, Path | bytes] = field(default_factory=dict)
    fetched: Mapping[str, Path] = field(default_factory=dict)

    def send(self, send: Send, needs: Needs, found: NodeFacts, given: set[str]) -> Needs:
        """Send a node what its answer lacks and was not `given` yet, which is noted there; return what it needs then.

        Raises `OSError` where the node cannot keep it.
        """
        sent, code, cache = dict(needs.sent), needs.code, Path(found.cache, "sent")
        for path in unlike(needs.files, found.files):
            if path in (*self.files, *self.fetched) and path not in given:
                folder = cache / needs.files[path][:16]
                file = self.fetched.get(path) or weights_file(path)
                send({file.name: file}, str(folder))
                sent[path] = str(folder / file.name)
                given.add(path)
        if self.code and not code and (unlike(needs.sources, found.sources) or found.plugins):
            code = str(cache / _digest_of(self.code))
            send(self.code, code)
            given.add(code)
        for one, words in zip(needs.data, found.data, strict=True):
            prepared = self.data.get(one.fingerprint)
            if words and prepared and one.fingerprint not in given:
                files = {path.name: path for path in sorted(prepared.iterdir())}
                send(files, str(Path(found.data_root, prepared.name)))
                given.add(one.fingerprint)
        return replace(needs, sent=sent, code=code)


def _digest_of(code: Mapping[str, Path | bytes]) -> str:
    digest = hashlib.sha256()
    for name, source in sorted(code.items()):
        digest.update(f"{name}\n".encode())
        digest.update(source if isinstance(source, bytes) else source.read_bytes())
    return digest.hexdigest()[:16]


def entries_of(plan: Plan, registry: Registry) -> dict[str, Entry]:
    """Return the plugins that the trials of a plan use, by kind/name."""
    found = {}
    for condition in plan.conditions:
        settings = plan.settings_of(condition)
        for use in (*uses_of_settings(settings), *metrics_of(plan.study, settings)):
            name = f"{use.kind}/{use.ref.name}"
            if name not in found:
                found[name] = registry.resolve(use.kind, use.ref.name)[0]
    for name, _ in plan.study.report.figures:
        found[f"figures/{name}"] = registry.resolve("figures", name)[0]
    return found


def needs_of(plan: Plan, registry: Registry, plugins: Sequence[Path], fingerprints: Sequence[str]) -> Needs:
    """Return what trials of a plan need of a node, but for its device; `fingerprints` are those of the plan's data."""
    weights = {str(condition.settings["model"].get("weights") or "") for condition in plan.conditions} - {""}
    files = [*map(str, plugins), *sorted(weights)]
    sets = [DataSet(ref=ref, fingerprint=one) for ref, one in zip(data_sets(plan), fingerprints, strict=True)]
    digests = {name: file_digest(file) for name, file in fetched_weights(plan, registry).items()}
    return Needs(
        kind="cpu",
        threads=max(plan.settings_of(condition).train.threads for condition in plan.conditions),
        data=tuple(sets),
        study_path=plan.study.path,
        sources={name: source_hash(entry) for name, entry in entries_of(plan, registry).items()},
        files={path: file_digest(weights_file(path)) for path in files} | digests,
        plugins=tuple(map(str, plugins)),
    )


def cargo_of(plan: Plan, registry: Registry, needs: Needs, root: Path, *, code: bool) -> Cargo:
    """Return what can be sent of what a plan needs: the sources of plugins only where `code` says so."""
    folders = {}
    for one in needs.data:
        folder = prepared_in(registry, one.ref, root, plan.study.path)
        if folder is not None:
            folders[one.fingerprint] = folder
    fetched = fetched_weights(plan, registry)
    files = [path for path in needs.files if path not in fetched and (code or path not in needs.plugins)]
    code_files = _code(entries_of(plan, registry).values()) if code else {}
    return Cargo(data=folders, files=files, code=code_files, fetched=fetched)


def fetched_weights(plan: Plan, registry: Registry) -> dict[str, Path]:
    """Return the pretrained weights that the plan's models start from, downloaded here unless they were before.

    Each is called as its model's plugin calls it (`sent_file`). Raises `DataError` where one cannot be had.
    """
    found = {}
    for condition in plan.conditions:
        model = plan.settings_of(condition).model.model
        if not model.options.get("pretrained"):  # to import a plugin takes seconds
            continue
        entry, variant = registry.resolve("models", model.name)
        fetch = getattr(registry.load("models", entry.qualified), "fetch", None)
        weights = fetch(**model.options, **({"variant": variant} if variant else {})) if fetch else None
        if weights is not None:
            found[weights[0]] = weights[1]
    return found


def prepared_in(registry: Registry, ref: PluginRef, root: Path, study_path: Path | None) -> Path | None:
    """Return the folder that a data set was prepared in, None for one that is made anew each time."""
    whole, _ = located(registry, ref, root, study_path)
    entry, variant = registry.resolve("datasets", whole.name)
    plugin: Any = registry.load("datasets", entry.qualified)
    given = {**whole.options, **({"variant": variant} if variant else {})}
    manifest = find_prepared(plugin, root, bind_options(options_of(plugin, "datasets"), given))
    return prepared_folder(root, manifest.name, manifest.options) if manifest else None


def _code(entries: Any) -> dict[str, Path | bytes]:
    """Return the Python files of the packages of installed plugins, and what announces them; not benchkit's own."""
    found: dict[str, Path | bytes] = {}
    for entry in entries:
        if entry.file is not None or entry.is_own:
            continue
        root, files = source_files(entry.module)
        found |= {path.relative_to(root).as_posix(): path for path in files}
        distribution = metadata.distribution(entry.distribution)
        folder = f"{normalized(entry.distribution).replace('-', '_')}-{entry.version}.dist-info"
        about = f"Metadata-Version: 2.1\nName: {entry.distribution}\nVersion: {entry.version}\n"
        found[f"{folder}/METADATA"] = about.encode()
        found[f"{folder}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    return found
