"""What the site says of a report, read from the capsule in its HTML file."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchkit.analysis.estimates import Estimate
from benchkit.analysis.summary import last_finished, summarize
from benchkit.analysis.wording import bare, bracket, lower_is_better, metric_unit
from benchkit.capsule import read_capsule
from benchkit.capsule.reading import restored
from benchkit.errors import ReportError
from benchkit.metrics import metric_of
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit.storage import encode, file_digest
from benchkit.study.checks import uses_of_settings
from benchkit.study.tree import Problems, resolve
from benchkit.verify.opening import open_report

_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """A condition's score in words: its label, the mean with its interval, the n, and its plugins as (kind, name)."""

    label: str
    score: str
    n: int
    plugins: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedStudy:
    """One study of a report: its best condition first, and `protocol`, equal where studies may stand in one table."""

    name: str
    title: str
    answer: tuple[str, ...]
    data: str
    metric: str
    devices: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    protocol: str

    @property
    def plugins(self) -> tuple[tuple[str, str], ...]:
        """Return kind and name of every plugin of its conditions, in alphabetical order."""
        return tuple(sorted({plugin for row in self.rows for plugin in row.plugins}))


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedReport:
    """A report's file, with its digest and what stands in it; `date` is the day of its last trial, empty if unknown.

    Of a page without a capsule, such as the benchmark's, nothing but the title is known.
    """

    name: str
    digest: str
    title: str
    date: str
    files: tuple[Path, ...]
    studies: tuple[PublishedStudy, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the data sets and plugins of its studies."""
        names = [study.data for study in self.studies]
        names += [name for study in self.studies for _, name in study.plugins]
        return tuple(sorted(dict.fromkeys(names)))


def read_report(path: Path) -> PublishedReport:
    """Return what the site says of a report's HTML file, and the PDF of the same name beside it.

    Raises `ReportError` for what is no HTML page, or has a damaged capsule.
    """
    if path.suffix != ".html":
        raise ReportError(f"{path}: got {path.suffix or 'no ending'}, expected the .html file of a report")
    printed = path.with_suffix(".pdf")
    files = (path, *((printed,) if printed.is_file() else ()))
    digest = file_digest(path)[:12] if path.is_file() else ""
    try:
        capsule = read_capsule(open_report(path).capsule)
    except ReportError as error:
        if "holds no capsule" not in error.what:
            raise
        found = _TITLE.search(path.read_text(encoding="utf-8"))
        title = html.unescape(found[1]).strip() if found else path.stem
        return PublishedReport(name=path.stem, digest=digest, title=title, date="", files=files)
    with restored(capsule) as results:
        studies = tuple(_study(one) for one in results)
        ended = max(last_finished(one) for one in results)
    date = datetime.fromtimestamp(ended, UTC).date().isoformat() if ended else ""
    title = " · ".join(study.title for study in studies)
    return PublishedReport(name=path.stem, digest=digest, title=title, date=date, files=files, studies=studies)


def _study(results: StudyResults) -> PublishedStudy:
    summary = summarize(results)
    metric = results.study.report.metric
    plugins = {condition.key: _plugins(condition) for condition in results.conditions}
    scored = [(one.metrics[metric], one) for one in summary.numbers.scores if metric in one.metrics]
    scored.sort(key=lambda pair: pair[0].mean if lower_is_better(metric) else -pair[0].mean)
    rows = tuple(
        ScoreRow(label=one.label, score=_words(estimate, metric), n=estimate.n, plugins=plugins.get(one.key, ()))
        for estimate, one in scored
    )
    return PublishedStudy(
        name=results.study.name,
        title=results.study.title,
        answer=summary.answer,
        data=str(results.study.settings["data"]["name"]),
        metric=metric_of(metric).words,
        devices=tuple(sorted({device.device for trial in results.trials for device in trial.devices})),
        rows=rows,
        protocol=_protocol(results, metric),
    )


def _words(estimate: Estimate, metric: str) -> str:
    """Return a mean with its interval and unit: 57.05 [56.53, 57.58] %."""
    words = (bare(metric, estimate.mean), bracket(metric, estimate.low, estimate.high), metric_unit(metric))
    return " ".join(word for word in words if word)


def _plugins(condition: Condition) -> tuple[tuple[str, str], ...]:
    """Return kind and name of each plugin of a condition, none where its settings are no longer understood."""
    settings = resolve(condition.settings, seed=0, problems=Problems())
    return tuple((use.kind, use.ref.name.partition(":")[0]) for use in uses_of_settings(settings)) if settings else ()


def _protocol(results: StudyResults, metric: str) -> str:
    """Return a text that is the same for studies whose scores may be compared: data, training and metric are equal.

    What a study's factors vary is left out.
    """
    paths = {path for factor in results.study.factors for level in factor.levels for path in level.settings}
    parts: Mapping[str, object] = {
        "data": results.study.settings.get("data"),
        "train": _without(results.study.settings.get("train", {}), "train", paths),
        "fingerprint": results.data.get("fingerprint", ""),
    }
    return f"{metric} {encode(parts)!r}"


def _without(table: Mapping[str, object], above: str, paths: set[str]) -> dict[str, object]:
    """Return a table of settings without what dotted paths name."""
    kept: dict[str, object] = {}
    for key, value in sorted(table.items()):
        at = f"{above}.{key}"
        if at not in paths:
            kept[key] = _without(value, at, paths) if isinstance(value, Mapping) else value
    return kept


def comparable(reports: Sequence[PublishedReport]) -> list[list[tuple[PublishedReport, PublishedStudy]]]:
    """Return groups of two or more studies of equal data and protocol, each study once, in the order of the reports.

    A study without a score, such as one whose trials all diverged, has nothing to compare.
    """
    groups: dict[str, list[tuple[PublishedReport, PublishedStudy]]] = {}
    for report in reports:
        for study in (study for study in report.studies if study.rows):
            groups.setdefault(study.protocol, []).append((report, study))
    return [group for group in groups.values() if len({study.name for _, study in group}) > 1]
