"""This machine beside those that trained a report's trials: distributions, plugins, data sets, processor and device."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchkit.capsule.making import CapsuleStudy
from benchkit.capsule.reading import Capsule
from benchkit.data.prepared import Manifest
from benchkit.errors import PluginError
from benchkit.preparation import prepared_folders
from benchkit.registry import Registry
from benchkit.registry.kinds import KINDS
from benchkit.registry.sources import source_hash
from benchkit.results import sources_of
from benchkit.verify.check import CheckState, ReportCheck


def machine_checks(capsule: Capsule, registry: Registry, data_root: Path) -> Iterator[ReportCheck]:
    """Yield what is the same here as where the report's trials ran; what is not is told as `differs`."""
    environments = [environment for study in capsule.head.studies for environment in study.environments]
    yield _versions(environments)
    yield _plugins(environments, registry)
    yield from _data(capsule, data_root)


def version_differences(environment: Mapping[str, Any], table: str = "versions") -> list[str]:
    """Return a line for each distribution whose version here is not that of a trial's environment, and for Python."""
    named = environment.get(table)
    lines = [_version_line(str(name), str(was)) for name, was in named.items()] if isinstance(named, Mapping) else []
    python = str(environment.get("python", platform.python_version()))
    if python != platform.python_version():
        lines.insert(0, f"Python {python}, here {platform.python_version()}")
    return [line for line in lines if line]


def _version_line(name: str, was: str) -> str:
    try:
        now = importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return f"{name} {was}, not installed here"
    return "" if now == was else f"{name} {was}, here {now}"


def _versions(environments: list[Mapping[str, Any]]) -> ReportCheck:
    if not environments:
        return ReportCheck(name="versions", state="unchecked", told="no trial recorded versions")
    lines = dict.fromkeys(line for environment in environments for line in version_differences(environment))
    others = dict.fromkeys(
        line for environment in environments for line in version_differences(environment, "distributions")
    )
    rest = [line for line in others if line not in lines]
    more = f"; {len(rest)} other distributions differ too" if rest else ""
    if lines:
        words = f"other versions trained this report than are installed here{more}"
        return ReportCheck(name="versions", state="differs", told=words, problems=tuple(lines))
    return ReportCheck(
        name="versions", state="holds", told=f"Python and what shapes results are as when it was trained{more}"
    )


def plugin_differences(environment: Mapping[str, Any], registry: Registry) -> list[str]:
    """Return a line for each plugin whose source here is not that of a trial's environment."""
    lines = (_plugin_line(where, source, registry) for where, source in sources_of(environment).items())
    return [line for line in lines if line]


def _plugin_line(where: str, was: Mapping[str, str], registry: Registry) -> str:
    name, origin = was.get("name", ""), was.get("file") or f"{was.get('distribution')} {was.get('version')}"
    if was.get("kind") not in KINDS:
        return f"{where}: {name} is of no known kind"
    try:
        entry, _ = registry.resolve(was["kind"], name)
    except PluginError:
        return f"{where}: {name} of {origin} is not installed here"
    source = source_hash(entry)
    if source == was.get("source"):
        return ""
    return f"{where}: {name} of {origin} had source {was.get('source')}, here it is {source} ({entry.distribution})"


def _plugins(environments: list[Mapping[str, Any]], registry: Registry) -> ReportCheck:
    if not any(environment.get("sources") for environment in environments):
        return ReportCheck(name="plugins", state="unchecked", told="no trial recorded its plugins' sources")
    lines = dict.fromkeys(line for environment in environments for line in plugin_differences(environment, registry))
    if lines:
        return ReportCheck(
            name="plugins", state="differs", told="plugins are not those that trained it", problems=tuple(lines)
        )
    return ReportCheck(name="plugins", state="holds", told="the sources of all plugins are those that trained it")


def _data(capsule: Capsule, data_root: Path) -> Iterator[ReportCheck]:
    prepared = [manifest for manifest in prepared_folders(data_root).values() if isinstance(manifest, Manifest)]
    seen: set[tuple[str, str]] = set()
    for study, trials in zip(capsule.head.studies, capsule.trials, strict=True):
        used = {trial.data_fingerprint for trial in trials} - {""}
        for name, fingerprint in _sets(study, used):
            if (name, fingerprint) not in seen:
                seen.add((name, fingerprint))
                state, words = _data_state(name, fingerprint, prepared)
                yield ReportCheck(name=f"data {name}", state=state, told=words)
        unknown = used - {fingerprint for _, fingerprint in _sets(study, used)}
        if unknown:
            words = f"trials of {study.name} name data that the study does not describe"
            yield ReportCheck(
                name="data", state="fails", told=words, problems=tuple(sorted(digest[:12] for digest in unknown))
            )


def _sets(study: CapsuleStudy, used: set[str]) -> list[tuple[str, str]]:
    listed = study.data.get("sets") or [study.data]
    tables = [table for table in listed if isinstance(table, Mapping)] if isinstance(listed, list) else []
    return [(str(table.get("name", "")), str(table["fingerprint"])) for table in tables if table.get("fingerprint")]


def _data_state(name: str, fingerprint: str, prepared: list[Manifest]) -> tuple[CheckState, str]:
    if any(manifest.fingerprint == fingerprint for manifest in prepared):
        return "holds", f"prepared here with the same fingerprint, {fingerprint[:12]}"
    same = sorted(manifest.fingerprint[:12] for manifest in prepared if manifest.name == name)
    if same:
        return "differs", f"trained on fingerprint {fingerprint[:12]}, prepared here with {', '.join(same)}"
    return "unchecked", f"not prepared here (fingerprint {fingerprint[:12]})"
