"""The pages of a site of reports, and the folder that holds them.

The same reports give the same bytes: nothing of the moment or the machine is written. A report that was published
before in another version stays, with a page that says so.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jinja2

from benchkit.errors import ReportError
from benchkit.publish.reports import PublishedReport, comparable
from benchkit.registry import Registry
from benchkit.registry.description import Description, describe_all
from benchkit.registry.kinds import KIND_TABLE
from benchkit.registry.kit_record import recall
from benchkit.storage import encode, mebibytes, write_atomically

STATE = "site.json"
"""What the folder holds: for each report its versions, the newest last, each with what its page says."""
LARGE = 800 * 2**20
"""Bytes from which a site is nearly too large for free hosts, which take 1 GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A published folder: its reports, files and bytes, the largest files, and how many versions are not the newest."""

    reports: int
    files: int
    size: int
    largest: tuple[tuple[str, int], ...]
    older: int


def publish(folder: Path, reports: Sequence[PublishedReport], *, title: str, registry: Registry) -> Site:
    """Write the site of some reports, and of those that were published into the folder before; return what it holds.

    Raises `ReportError` for a folder that holds other things, two reports of one name, or what cannot be written.
    """
    _check(folder, reports)
    versions = _versions(folder)
    for report in reports:
        known = versions.setdefault(report.name, [])
        known[:] = [one for one in known if one["digest"] != report.digest]
        known.append(_plain(report))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / STATE).exists():
            write_atomically(folder / STATE, b"{}")
        for report in reports:
            place = folder / "reports" / report.name / report.digest
            place.mkdir(parents=True, exist_ok=True)
            for file in report.files:
                write_atomically(place / file.name, file.read_bytes())
        newest = {report.name: report for report in reports}
        _write(folder, versions, newest, title, registry)
    except OSError as error:
        raise ReportError(f"{folder}: cannot be written: {error}") from error
    everything = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
    return Site(
        reports=len(versions),
        files=len(everything),
        size=sum(path.stat().st_size for path in everything),
        largest=tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in everything[:3]),
        older=sum(len(known) - 1 for known in versions.values()),
    )


def _check(folder: Path, reports: Sequence[PublishedReport]) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STATE).is_file():
        raise ReportError(
            f"{folder}: holds files that are no site", hint="name a new or empty folder; nothing was changed"
        )
    by_name: dict[str, list[PublishedReport]] = defaultdict(list)
    for report in reports:
        by_name[report.name.lower()].append(report)
        if report.name.startswith("_") or ":" in report.name:
            raise ReportError(
                f"{report.files[0]}: web hosts leave out names with a leading underscore or a colon",
                hint="give the file another name",
            )
    twins = [str(one.files[0]) for same in by_name.values() if len(same) > 1 for one in same]
    if twins:
        raise ReportError(
            "reports of one name cannot stand in one site", problems=tuple(twins), hint="rename all but one"
        )


def _versions(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what was published into a folder before."""
    try:
        found: dict[str, list[dict[str, Any]]] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ReportError(f"{folder / STATE}: cannot be read: {error}", hint="publish into a new folder") from error
    return found


def _plain(report: PublishedReport) -> dict[str, Any]:
    """Return what a report's page says as JSON values."""
    sizes = {file.name: file.stat().st_size for file in report.files}
    studies = [{**encode(study), "plugins": [list(plugin) for plugin in study.plugins]} for study in report.studies]
    return {**encode(report), "files": sizes, "tags": list(report.tags), "studies": studies}


def _write(
    folder: Path,
    versions: Mapping[str, list[dict[str, Any]]],
    newest: Mapping[str, PublishedReport],
    title: str,
    registry: Registry,
) -> None:
    """Write all pages, and the state that the next publication begins with."""
    names = sorted(versions)
    latest = [versions[name][-1] for name in names]
    pages = _Pages(title)
    for name in names:
        for at, version in enumerate(versions[name]):
            newer = versions[name][-1]["digest"] if at < len(versions[name]) - 1 else ""
            earlier = [one for one in versions[name] if one is not version]
            target = folder / "reports" / name / version["digest"] / "index.html"
            pages.write(target, "report.html.j2", "../../../", report=version, newer=newer, others=earlier)
    plugins = _plugin_pages(latest, registry)
    for page in plugins:
        pages.write(folder / "plugins" / page["file"], "plugin.html.j2", "../", **page)
    groups = [
        [{"report": encode(report), "study": encode(study)} for report, study in group]
        for group in comparable([newest[name] for name in names if name in newest])
    ]
    pages.write(folder / "index.html", "index.html.j2", "", reports=latest, groups=groups, plugins=plugins)
    source = resources("benchkit_templates").joinpath("site")
    for name in ("site.css", "site.js"):
        write_atomically(folder / name, source.joinpath(name).read_bytes())
    index = [
        {
            "name": one["name"],
            "text": " ".join([one["title"], *one["tags"], *_answers(one)]).lower(),
            "data": _data(one),
        }
        for one in latest
    ]
    write_atomically(folder / "search.js", f"window.BENCHKIT_INDEX = {json.dumps(index, indent=1)};\n".encode())
    write_atomically(folder / ".nojekyll", b"")
    write_atomically(folder / STATE, json.dumps({name: versions[name] for name in names}, indent=1).encode())


def _answers(report: Mapping[str, Any]) -> list[str]:
    return [sentence for study in report["studies"] for sentence in study["answer"]]


def _data(report: Mapping[str, Any]) -> list[str]:
    return sorted({study["data"] for study in report["studies"]})


class _Pages:
    """The templates of the site, and its title."""

    def __init__(self, title: str) -> None:
        source = resources("benchkit_templates").joinpath("site")
        self._jinja = jinja2.Environment(
            loader=jinja2.FunctionLoader(lambda name: source.joinpath(name).read_text(encoding="utf-8")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._jinja.filters["mebibytes"] = mebibytes
        self._title = title

    def write(self, path: Path, template: str, top: str, **values: Any) -> None:
        """Write a page; `top` leads from it to the site's folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self._jinja.get_template(template).render(site=self._title, top=top, **values)
        write_atomically(path, text.encode())


def _plugin_pages(latest: Sequence[Mapping[str, Any]], registry: Registry) -> list[dict[str, Any]]:
    """Return what the page of each plugin says that a report's conditions use."""
    used: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for report in latest:
        for study in report["studies"]:
            for place, row in enumerate(study["rows"], 1):
                for kind, name in row["plugins"]:
                    used[kind, name].append({"report": report, "study": study, "row": row, "place": place})
    return [
        {
            "kind": KIND_TABLE[kind].word,
            "name": name,
            "file": f"{kind}-{name}.html",
            **_card(kind, name, registry),
            "uses": _several(uses),
        }
        for (kind, name), uses in sorted(used.items())
    ]


def _several(uses: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each study the best condition that uses a plugin, and how many of its conditions do."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for use in uses:
        key = use["report"]["name"], use["study"]["name"]
        first = best.setdefault(key, {**use, "count": 0})
        first["count"] += 1
    return list(best.values())


def _card(kind: str, name: str, registry: Registry) -> dict[str, Any]:
    """Return the card of a plugin and what the kit said of it here, nothing where it is not installed here."""
    entry = next((one for one in registry.entries(kind) if one.name == name), None)
    found: Description | None = describe_all([entry])[0] if entry else None
    result = recall(entry) if entry else None
    return {
        "title": found.title if found else name,
        "summary": found.summary if found else "It is not installed where this site was made.",
        "reference": found.reference if found else "",
        "checked": result.words if result else "",
    }
