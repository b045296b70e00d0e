"""What a study is: the frozen values that a study file becomes. `benchkit.study.studyfile` reads the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta

from benchkit.errors import PluginError
from benchkit.metrics import Metric, asked_metrics, plugin_name, unknown_metrics
from benchkit.study.origin import Origin
from benchkit.study.settings import Finite

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


def study_name(text: str) -> str:
    """Return the name of a study that is given by it or by its file, which has the same name."""
    return text.removesuffix(".toml").rpartition("/")[2]


UNTIL_DECIDED = 20
"""The most repeats of a condition where they are added until the best is known and no other number is named."""

PROTOCOL = ("data", "model", "train", "regularizers", "factors")
"""The sections of a study file that make its protocol, which a published table was matched to."""


def section_of(change: str) -> str:
    """Return the section that a change by --set is made in: `data` of `data.train_size=80` and of `data={...}`."""
    return change.partition("=")[0].strip().partition(".")[0]


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
                f"the study asks for metrics that are not installed here: {', '.join(map(plugin_name, absent))}",
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
        return tuple(change for change in self.overrides if section_of(change) in PROTOCOL)
