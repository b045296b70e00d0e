"""The [[published]] and [report] sections of a study file. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.errors import StudyError, nearest
from benchkit.metrics import score_metrics
from benchkit.study.logo import logo_path
from benchkit.study.study import Factor, Published, PublishedRow, ReportSettings
from benchkit.study.typed import Problems, typed

MOST_LETTERS = 3000
"""The longest abstract: it shares the first page with the answer."""

METRICS = score_metrics()


def read_published(listed: Any, factors: Sequence[Factor], problems: Problems) -> tuple[Published, ...]:
    """Return the published tables of a study, noting every problem with them in `problems`."""
    if not isinstance(listed, list):
        problems.add("published", f"got {listed!r}, expected [[published]] tables")
        return ()
    found = []
    for at, table in enumerate(listed):
        where = f"published[{at}]"
        if not isinstance(table, Mapping):
            problems.add(where, f"got {table!r}, expected a table")
            continue
        rows = _rows(table.get("rows", []), where, factors, problems)
        rest = {key: value for key, value in table.items() if key != "rows"}
        one = typed(Published, rest, where, problems, also=("rows",), rows=rows)
        if one is not None and one.classes is not None and one.classes < 2:
            problems.add(f"{where}.classes", f"got {one.classes}, expected at least 2")
        found += [one] if one else []
    return tuple(found)


def _rows(listed: Any, where: str, factors: Sequence[Factor], problems: Problems) -> tuple[PublishedRow, ...]:
    if not isinstance(listed, list):
        problems.add(f"{where}.rows", f"got {listed!r}, expected a list of tables")
        return ()
    found = []
    for at, table in enumerate(listed):
        here = f"{where}.rows[{at}]"
        if not isinstance(table, Mapping):
            problems.add(here, f"got {table!r}, expected a table")
            continue
        row = typed(PublishedRow, table, here, problems)
        if row is not None:
            _note_metric(row.metric, f"{here}.metric", problems)
            _note_levels(row.when, f"{here}.when", factors, problems)
            found.append(row)
    return tuple(found)


def _note_levels(when: Mapping[str, Any], where: str, factors: Sequence[Factor], problems: Problems) -> None:
    """Note labels that a factor of the study does not have; what is no factor is for the report to leave out."""
    levels = {factor.path: [level.label for level in factor.levels] for factor in factors}
    for path, label in when.items():
        if path in levels and label not in levels[path]:
            close = nearest(label, levels[path]) if isinstance(label, str) else ""
            problems.add(f"{where}.{path}", f"got {label!r}{close}, expected one of {', '.join(levels[path])}")
        elif path not in levels and nearest(path, levels):
            problems.add(f"{where}.{path}", f"is no factor of the study{nearest(path, levels)}")


def _note_metric(metric: str, where: str, problems: Problems) -> None:
    if metric not in METRICS:
        problems.add(where, f"got {metric!r}{nearest(metric, METRICS)}, expected one of {', '.join(METRICS)}")


def read_report(table: Any, problems: Problems, folder: Path | None = None) -> ReportSettings:
    """Return what a study asks of its report, noting every problem in `problems`; `folder` is the study file's."""
    if not isinstance(table, Mapping):
        problems.add("report", f"got {table!r}, expected a table")
        return ReportSettings()
    figures = _figures(table.get("figures", []), problems)
    read = ("figures", "logo")
    rest = {key: value for key, value in table.items() if key not in read}
    logo = _logo(table.get("logo"), problems, folder)
    found = typed(ReportSettings, rest, "report", problems, also=read, figures=figures, logo=logo)
    if found is None:
        return ReportSettings()
    _note_metric(found.metric, "report.metric", problems)
    for key, items in (("authors", found.authors), ("keywords", found.keywords)):
        if not all(item.strip() for item in items):
            problems.add(f"report.{key}", f"got {list(items)!r}, expected no empty text")
    if len(found.abstract) > MOST_LETTERS:
        problems.add("report.abstract", f"has {len(found.abstract):,} letters, expected at most {MOST_LETTERS:,}")
    return found


def _logo(written: Any, problems: Problems, folder: Path | None) -> Path | None:
    if written is None:
        return None
    try:
        return logo_path(written, folder)
    except StudyError as error:
        problems.add("report.logo", error.what)
        return None


def _figures(listed: Any, problems: Problems) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    if not isinstance(listed, list):
        problems.add("report.figures", f"got {listed!r}, expected a list of figures")
        return ()
    figures = []
    for item in listed:
        options = dict(item) if isinstance(item, Mapping) else {"name": item}
        name = options.pop("name", None)
        if isinstance(name, str):
            figures.append((name, options))
        else:
            problems.add("report.figures", f"got {item!r}, expected a figure's name or a table with name and options")
    return tuple(figures)
