"""The [[published]] and [report] sections of a study file. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.errors import StudyError, nearest
from benchkit.metrics import score_metrics
from benchkit.study.logo import logo_path
from benchkit.study.origin import note_levels
from benchkit.study.study import Factor, Published, PublishedRow, ReportSettings
from benchkit.study.tree import Problems, each_table, quoted, typed

MOST_LETTERS = 3000
"""The longest abstract: it shares the first page with the answer."""

METRICS = score_metrics()


def read_published(listed: Any, factors: Sequence[Factor], problems: Problems) -> tuple[Published, ...]:
    """Return the published tables of a study, noting every problem with them in `problems`."""
    levels = labels_of(factors)
    tables = []
    for where, table in each_table(listed, "published", problems):
        rows = []
        for place, written in each_table(table.get("rows", []), f"{where}.rows", problems):
            row = typed(PublishedRow, written, place, problems)
            if row is not None:
                _note_metric(row.metric, f"{place}.metric", problems)
                note_levels(row.when, f"{place}.when", levels, problems)
                rows.append(row)
        rest = {key: value for key, value in table.items() if key != "rows"}
        published = typed(Published, rest, where, problems, also=("rows",), rows=tuple(rows))
        tables += [published] if published else []
    return tuple(tables)


def labels_of(factors: Sequence[Factor]) -> dict[str, dict[str, None]]:
    """Return the labels of each factor's levels by its path."""
    return {factor.path: dict.fromkeys(level.label for level in factor.levels) for factor in factors}


def _note_metric(metric: str, where: str, problems: Problems) -> None:
    if metric not in METRICS:
        problems.add(where, f"got {quoted(metric)}{nearest(metric, METRICS)}, expected one of {', '.join(METRICS)}")


def read_report(table: Any, problems: Problems, folder: Path | None = None) -> ReportSettings:
    """Return what a study asks of its report, noting every problem in `problems`; `folder` is the study file's."""
    if not isinstance(table, Mapping):
        problems.add("report", f"got {quoted(table)}, expected a table")
        return ReportSettings()
    figures = _figures(table.get("figures", []), problems)
    read = ("figures", "logo")
    rest = {key: value for key, value in table.items() if key not in read}
    logo = _logo(table.get("logo"), problems, folder)
    settings = typed(ReportSettings, rest, "report", problems, also=read, figures=figures, logo=logo)
    if settings is None:
        return ReportSettings()
    _note_metric(settings.metric, "report.metric", problems)
    for key, items in (("authors", settings.authors), ("keywords", settings.keywords)):
        if not all(item.strip() for item in items):
            problems.add(f"report.{key}", f"got {list(items)!r}, expected no empty text")
    if len(settings.abstract) > MOST_LETTERS:
        problems.add("report.abstract", f"has {len(settings.abstract):,} letters, expected at most {MOST_LETTERS:,}")
    return settings


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
        problems.add("report.figures", f"got {quoted(listed)}, expected a list of figures")
        return ()
    figures = []
    for item in listed:
        options = dict(item) if isinstance(item, Mapping) else {"name": item}
        name = options.pop("name", None)
        if isinstance(name, str):
            figures.append((name, options))
        else:
            what = "expected a figure's name or a table with name and options"
            problems.add("report.figures", f"got {quoted(item)}, {what}")
    return tuple(figures)
