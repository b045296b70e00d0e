"""What a study is: the frozen values that a study file becomes. `benchkit.study.studyfile` reads the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta

from benchkit.errors import PluginError, StudyError, nearest
from benchkit.metrics import Metric, asked_metrics, score_metrics, unknown_metrics
from benchkit.study.logo import logo_path
from benchkit.study.origin import Origin, note_levels, read_author_text
from benchkit.study.settings import Finite
from benchkit.study.tree import Problems, each_table, quoted, typed

MOST_LETTERS = 3000
"""The longest abstract: it shares the first page with the answer."""


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
    known = score_metrics()
    if metric not in known:
        problems.add(where, f"got {quoted(metric)}{nearest(metric, known)}, expected one of {', '.join(known)}")


def read_report(table: Any, problems: Problems, folder: Path | None = None) -> ReportSettings:
    """Return what a study asks of its report, noting every problem in `problems`; `folder` is the study file's."""
    if not isinstance(table, Mapping):
        problems.add("report", f"got {quoted(table)}, expected a table")
        return ReportSettings()
    figures = _figures(table.get("figures", []), problems)
    read = ("figures", "logo", "text")
    rest = {key: value for key, value in table.items() if key not in read}
    logo = _logo(table.get("logo"), problems, folder)
    text = read_author_text(table.get("text", {}), problems, folder)
    settings = typed(ReportSettings, rest, "report", problems, also=read, figures=figures, logo=logo, text=text)
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


T = TypeVar("T")

Tree = Mapping[str, Any]
"""Nested tables with string keys, as TOML gives them: the sections data, model, train and the list of regularizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One value of a factor: the dotted settings it fixes, and the label by which tables and `--only` know it."""

    label: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A setting varied on purpose: `path` is its dotted path (or a free name when its levels fix several settings)."""

    path: str
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRange:
    """What Optuna may choose for one dotted path: a numeric range, or a list of `choices`.

    A range goes from `low` to `high`, both included, on a scale that is `log` or not, and in steps of `step` where
    given.
    """

    path: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: float | None = None
    integer: bool = False
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is optimised: `metric` such as `val.loss` or `cost.seconds`, and the direction that follows from it."""

    metric: str
    direction: Literal["minimize", "maximize"]

    @property
    def sign(self) -> int:
        """Return 1 where the metric is to be small and -1 where it is to be large: their product is to be small."""
        return 1 if self.direction == "minimize" else -1

    def best(self, scored: Iterable[tuple[float | None, T]]) -> T | None:
        """Return what has the best score, the first of equals, or None where nothing has one."""
        known = [(self.sign * score, item) for score, item in scored if score is not None]
        return min(known, key=lambda pair: pair[0])[1] if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search within every condition: the total of `trials`, goals, space, sampler and `pruner` by name.

    `samplers` are those that a study compares, each with a search of its own; empty where there is one, `sampler`.
    """

    trials: Annotated[int, Meta(ge=1, le=100_000)]
    goals: tuple[Goal, ...]
    space: tuple[SearchRange, ...]
    sampler: str = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    samplers: tuple[str, ...] = ()

    def by(self, sampler: str) -> Search:
        """Return the search by one sampler alone, as a study has it that names no other; by `sampler` for ""."""
        return replace(self, sampler=sampler or self.sampler, samplers=())


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One published `value` of a `metric`: the levels that it belongs to (`when`), and the `n` it rests on if stated.

    `printed` is how the source prints it; where it does not, `derived` says from what it prints the value follows.
    `note` is printed beside it.
    """

    when: Mapping[str, str]
    metric: str
    value: Finite
    n: int | None = None
    printed: str = ""
    derived: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published table: its `source` in words, its `url`, how its protocol differs from ours (`note`), and its `rows`.

    `classes` is the number of classes that the source states, for the report to hold against the data set's.
    """

    source: str
    url: str = ""
    note: str = ""
    classes: Annotated[int, Meta(ge=2)] | None = None
    rows: tuple[PublishedRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What the study asks of its report: extra `figures` and `metrics`, the main `metric`, and front matter.

    The front matter is `authors`, `abstract` (paragraphs parted by empty lines), `keywords`, and the path of a `logo`.
    `text` is the author's Markdown by its place (`benchkit.study.origin`), `carbon` how many grams of CO2 a kWh of
    the electricity stands for.
    """

    figures: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    authors: tuple[str, ...] = ()
    abstract: str = ""
    keywords: tuple[str, ...] = ()
    logo: Path | None = None
    metric: str = "test.accuracy"
    metrics: tuple[str, ...] = ()
    text: Mapping[str, str] = field(default_factory=dict)
    carbon: Annotated[float, Meta(ge=0, le=5000)] | None = None


UNTIL_DECIDED = 20
"""The most repeats of a condition where they are added until the best is known and no other number is named."""

PROTOCOL = ("data", "model", "train", "regularizers", "factors")
"""The sections of a study file that make its protocol, which a published table was matched to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One experiment as its file describes it, overrides applied.

    `settings` is the base tree; factors and the search change it by dotted paths. `repeats` is the number of trials a
    condition, `most` up to how many are added until the best condition is known (0: none are), `confirm` the number of
    fresh repeats for the best and the default condition after a search. `origin` is the source that the study repeats,
    `source` is the file's text. `smoke` marks the tiny version, whose results are never shown as real ones.
    """

    name: str
    title: str
    question: str
    description: str = ""
    seed: int = 0
    settings: Tree
    factors: tuple[Factor, ...] = ()
    search: Search | None = None
    repeats: int = 3
    most: int = 0
    splits: Literal["fixed", "folds"] = "fixed"
    confirm: int = 0
    origin: Origin | None = None
    published: tuple[Published, ...] = ()
    report: ReportSettings = field(default_factory=ReportSettings)
    source: str = ""
    path: Path | None = None
    overrides: tuple[str, ...] = ()
    smoke: bool = False

    @property
    def asked_metrics(self) -> tuple[Metric, ...]:
        """Return the plugins' metrics that trials are to be measured by.

        Raise `PluginError` for a broken one, and where one is not here: nobody knows whether more of it is better.
        """
        if absent := unknown_metrics(self.named_metrics):
            raise PluginError(
                f"the study asks for metrics that are not installed here: {', '.join(absent)}",
                hint="install the distributions that have them, or give their file by --plugin",
            )
        return asked_metrics(self.named_metrics)

    @property
    def named_metrics(self) -> tuple[str, ...]:
        """Return the metrics that the report and the search name."""
        goals = self.search.goals if self.search else ()
        return (*self.report.metrics, self.report.metric, *(goal.metric for goal in goals))

    @property
    def changed_protocol(self) -> tuple[str, ...]:
        """Return the changes (`data.train_size=5000`) by which --set made this a variant with another protocol."""
        return tuple(change for change in self.overrides if change.partition(".")[0] in PROTOCOL)
