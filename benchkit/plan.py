"""From a study to its conditions and trials, with their fingerprints, and when it is looked at. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

from benchkit.errors import StudyError, nearest
from benchkit.study import Factor, Level, Search, SearchRange, Study, Tree
from benchkit.study.settings import Settings
from benchkit.study.tree import Problems, changed, resolve, value_at

if TYPE_CHECKING:
    from benchkit.results import Decision

ConditionKind = Literal["grid", "search", "confirm-best"]
Phase = Literal["grid", "search", "confirm"]
PHASES: Mapping[ConditionKind, Phase] = {"grid": "grid", "search": "search", "confirm-best": "confirm"}
MOST_CONDITIONS = 20_000
MOST_TRIALS = 200_000
OPEN_ENDED = ("model.norm", "model.name", "data.name", "train.loss")
"""Factors for which `--only` may name any installed plugin, a level of the study or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One combination of levels, and after a search the chosen settings.

    `key` is the first 12 hex digits of a sha256 over everything that determines its trials but the repeat. `label` is
    short and unique within the study, `levels` maps factor paths to level labels. `kind` says whether it comes from the
    grid, is the frame of a search, or is what the confirm stage trains again; a confirm condition's `parent` is the key
    of the searched condition and `chosen` the settings that the search chose. The default that it is compared with is
    the grid condition of the same levels. `sampler` names whose search it is, where the study compares several.
    """

    key: str
    label: str
    levels: Mapping[str, str]
    settings: Tree
    kind: ConditionKind
    parent: str = ""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = ""

    @property
    def display_label(self) -> str:
        """Return the label as people read it: an undivided search is `search`, its best `best of search`."""
        if self.levels or self.kind == "grid":
            return self.label
        return f"{'search' if self.kind == 'search' else 'best of search'}{_by(self.sampler)}"

    @property
    def storage_label(self) -> str:
        """Return the label without the sampler: a study that gets a second one finds the first one's trials by it."""
        return self.label.removesuffix(_by(self.sampler))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One trial to train: a repeat of a condition, or a slot of a condition's search."""

    condition: Condition
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A study's conditions in report order: the grid, then the frames of its searches.

    `typed` holds the typed settings of each condition by its key: they are resolved once.
    `more` is the number of repeats of conditions that have others than the study says, by key. `merged` are labels of
    combinations with the very settings of an earlier one, whose label each stands beside: both are one condition.
    """

    study: Study
    conditions: tuple[Condition, ...]
    more: Mapping[str, int] = field(default_factory=dict)
    typed: dict[str, Settings] = field(default_factory=dict, compare=False, repr=False)
    merged: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)

    def settings_of(self, condition: Condition) -> Settings:
        """Return the typed settings of one of the conditions; raise `StudyError` where they cannot be trained."""
        if condition.key not in self.typed:
            self.typed[condition.key] = typed_settings(condition.settings, self.study.seed)
        return self.typed[condition.key]

    def units(self) -> tuple[Unit, ...]:
        """Return all trials in the order in which they are started: every first repeat, every second, ..., searches."""
        units: list[Unit] = []
        for kind in ("grid", "search", "confirm-best"):
            counts = [(condition, self.count(condition)) for condition in self.conditions if condition.kind == kind]
            for index in range(max((count for _, count in counts), default=0)):
                units += [Unit(condition=condition, index=index) for condition, count in counts if index < count]
        return tuple(units)

    def count(self, condition: Condition) -> int:
        """Return the total number of trials of a condition."""
        search = search_of(self.study, condition)
        if search:
            return min(search.trials, grid_size(search)) if search.sampler == "grid" else search.trials
        fixed = self.study.confirm if condition.kind == "confirm-best" else self.study.repeats
        return self.more.get(condition.key, fixed)

    def search_of(self, condition: Condition) -> Search | None:
        """Return the search that a condition is the frame of, by its own sampler alone; None for other conditions."""
        return search_of(self.study, condition)


def search_of(study: Study, condition: Condition) -> Search | None:
    """Return the search that a condition of a study is the frame of, as `Plan.search_of` does."""
    return _by_one(study.search, condition.sampler) if study.search and condition.kind == "search" else None


def _by_one(search: Search, sampler: str) -> Search:
    """Return the search by one sampler alone, as a study has it that names no other; by its only one for ""."""
    return dataclasses.replace(search, sampler=sampler or search.sampler, samplers=())


TOLERANCE = 1e-8
"""How far a value may be off a range's steps, in steps."""


def default_params(search: Search, settings: Tree) -> dict[str, Any]:
    """Return the settings that a study already has for its search space, where they lie inside their ranges."""
    own = {spanned.path: value_at(settings, spanned.path) for spanned in search.space}
    return {spanned.path: own[spanned.path] for spanned in search.space if contains(spanned, own[spanned.path])}


def contains(spanned: SearchRange, value: Any) -> bool:
    """Return whether a search of this range can choose a value."""
    if spanned.choices:
        return any(value == choice and type(value) is type(choice) for choice in spanned.choices)
    number = isinstance(value, int if spanned.integer else int | float) and not isinstance(value, bool)
    if not number or spanned.low is None or spanned.high is None or not spanned.low <= value <= spanned.high:
        return False
    return not spanned.step or abs((steps := (value - spanned.low) / spanned.step) - round(steps)) < TOLERANCE


def extremes(spanned: SearchRange) -> tuple[Any, ...]:
    """Return the values that bound a range: its lowest and highest, or all of its choices."""
    return spanned.choices or (spanned.low, spanned.high)


def grid_size(search: Search) -> int:
    """Return how many points a grid search has; raise `StudyError` for a range without a step."""
    return math.prod(_axis_size(spanned) for spanned in search.space)


def grid_points(search: Search) -> list[dict[str, Any]]:
    """Return every point of a grid search, the last path of the space varying fastest.

    Raises `StudyError` for a range without a step.
    """
    axes = [[(spanned.path, value) for value in _axis(spanned)] for spanned in search.space]
    return [dict(point) for point in itertools.product(*axes)]


def _axis_size(spanned: SearchRange) -> int:
    if spanned.choices:
        return len(spanned.choices)
    if spanned.low is None or spanned.high is None or not (spanned.step or spanned.integer):
        raise StudyError(f"search.space.{spanned.path}: a grid needs a list of choices, or a range with a step")
    return int((spanned.high - spanned.low) / (spanned.step or 1) + TOLERANCE) + 1


def _axis(spanned: SearchRange) -> tuple[Any, ...]:
    size = _axis_size(spanned)
    if spanned.choices:
        return spanned.choices
    assert spanned.low is not None and spanned.high is not None
    # Multiples of a step carry rounding errors (3 * 0.1 > 0.3), which must not lead out of the range.
    step, low, high = spanned.step or 1, spanned.low, spanned.high
    values = [min(high, float(f"{low + k * step:.12g}")) for k in range(size)]
    return tuple(int(value) for value in values) if spanned.integer else tuple(float(value) for value in values)


def make_plan(study: Study, *, only: Mapping[str, Sequence[str]] | None = None) -> Plan:
    """Return the conditions of a study, or those that `only` picks by factor and level.

    Raises `StudyError` if there are none, or more conditions or trials than one study may have.
    """
    factors = tuple(_picked(factor, (only or {}).get(factor.path)) for factor in study.factors)
    known = [factor.path for factor in study.factors]
    for path in only or {}:
        if path not in known:
            raise StudyError(
                f"--only {path}: {study.name} has no such factor{nearest(path, known)}",
                hint=f"its factors: {', '.join(known) or 'none'}",
            )
    typed: dict[str, Settings] = {}
    merged: list[tuple[str, str]] = []
    conditions = _combinations(study, factors, typed, merged)
    searches: tuple[Condition, ...] = ()
    if study.search:
        outer = tuple(factor for factor in factors if not _searched(factor, study.search))
        frames = _combinations(study, outer, typed, [])
        samplers = study.search.samplers or ("",)
        searches = tuple(_frame(study.search, condition, sampler) for condition in frames for sampler in samplers)
        typed.update({frame.key: typed[frame.parent] for frame in searches})
    plan = Plan(study=study, conditions=conditions + searches, typed=typed, merged=tuple(merged))
    _refuse_more(study, sum(plan.count(condition) for condition in plan.conditions), MOST_TRIALS, "trials")
    return plan


def parse_only(choices: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the levels asked for by factor, each once; commas inside parentheses belong to a label.

    Raises `StudyError` with every choice that is not FACTOR=LEVEL[,LEVEL].
    """
    wanted: dict[str, tuple[str, ...]] = {}
    problems = []
    for choice in choices:
        path, equals, text = choice.partition("=")
        labels = [label.strip() for label in re.split(r",(?![^()]*\))", text)]
        if not equals or not path.strip() or not all(labels):
            problems.append(f"--only {choice}: expected FACTOR=LEVEL, for example model.norm=gn or model.norm=gn,bn")
            continue
        wanted[path.strip()] = tuple(dict.fromkeys((*wanted.get(path.strip(), ()), *labels)))
    if problems:
        raise StudyError("the choice of conditions cannot be read", problems=problems)
    return wanted


def _refuse_more(study: Study, number: int, most: int, things: str) -> None:
    if number > most:
        raise StudyError(
            f"{study.name}: its factors, repeats and searches make {number:,} {things}, expected at most {most:,}",
            hint="leave out levels, or give --only FACTOR=LEVEL,LEVEL to train a part of them",
        )


def _searched(factor: Factor, search: Search) -> bool:
    """Return whether a search chooses what a factor fixes; such a factor makes no searches of its own."""
    space = {spanned.path for spanned in search.space}
    return any(path in space for level in factor.levels for path in level.settings)


def _combinations(
    study: Study, factors: tuple[Factor, ...], typed: dict[str, Settings], merged: list[tuple[str, str]]
) -> tuple[Condition, ...]:
    """Return the distinct conditions of all combinations of levels, and put their settings into `typed`.

    The label of one that is not distinct goes into `merged`, with that of the first one like it.

    Raises `StudyError` with what is wrong with any.
    """
    _refuse_more(study, math.prod(len(factor.levels) for factor in factors), MOST_CONDITIONS, "conditions")
    combined: list[tuple[Tree, tuple[str, ...]]] = [(study.settings, ())]
    for factor in factors:
        combined = [
            (changed(settings, level.settings), (*labels, level.label))
            for settings, labels in combined
            for level in factor.levels
        ]
    paths = [factor.path for factor in factors]
    endings = [_ending(path, paths) for path in paths]
    problems = Problems()
    distinct: dict[str, Condition] = {}
    for settings, labels in combined:
        resolved = resolve(settings, seed=study.seed, problems=problems)
        if resolved is None:
            continue
        label = _label(endings, labels)
        if (key := fingerprint(resolved)) in distinct:
            merged.append((label, distinct[key].label))
        else:
            levels = dict(zip(paths, labels, strict=True))
            distinct[key] = Condition(key=key, label=label, levels=levels, settings=settings, kind="grid")
            typed[key] = resolved
    if problems:
        raise StudyError(f"{study.name}: some conditions cannot be trained", problems=problems.first_lines)
    return tuple(distinct.values())


def _picked(factor: Factor, labels: Sequence[str] | None) -> Factor:
    if labels is None:
        return factor
    return dataclasses.replace(factor, levels=tuple(_level(factor, label) for label in dict.fromkeys(labels)))


def _level(factor: Factor, text: str) -> Level:
    """Return the level of that label, else the only level that is a plugin of that name, else that plugin itself."""
    by_label = {level.label: level for level in factor.levels}
    if text in by_label:
        return by_label[text]
    named = [level for level in factor.levels if _plugin_name(level.settings.get(factor.path)) == text]
    if len(named) == 1:
        return named[0]
    if named or factor.path not in OPEN_ENDED:
        what = "stands for several levels" if named else f"no such level{nearest(text, by_label)}"
        raise StudyError(f"--only {factor.path}={text}: {what}", hint=f"levels: {', '.join(by_label)}")
    return Level(label=text, settings={factor.path: text})


def _plugin_name(value: Any) -> Any:
    return value.get("name") if isinstance(value, Mapping) else value


def _label(endings: Sequence[str], labels: Sequence[str]) -> str:
    """Return `gn` for one factor, `lr=0.1, n=5` for several, each by the end of its path that no other shares."""
    if len(labels) == 1:
        return labels[0]
    return ", ".join(f"{ending}={label}" for ending, label in zip(endings, labels, strict=True)) or "default"


def _ending(path: str, paths: Iterable[str]) -> str:
    """Return the last parts of a dotted path, as few as tell it from the other paths."""
    parts = path.split(".")
    others = [other.split(".") for other in paths if other != path]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return ".".join(parts[-count:])
    return path


def _frame(search: Search, condition: Condition, sampler: str) -> Condition:
    """Return the search within a grid condition, by one of several samplers or by the only one (`sampler` "")."""
    # Left out are the total of trials and the other samplers: more of either goes on with the same search.
    key = digest({"settings": condition.key, "search": dataclasses.replace(_by_one(search, sampler), trials=0)})
    label = f"{condition.label}, search{_by(sampler)}"
    return dataclasses.replace(condition, key=key, label=label, kind="search", parent=condition.key, sampler=sampler)


def _by(sampler: str) -> str:
    return f" by {sampler}" if sampler else ""


def confirm_condition(study: Study, searched: Condition, chosen: Mapping[str, Any]) -> Condition:
    """Return the condition that trains a search's best settings again on fresh repeats."""
    settings = changed(searched.settings, chosen)
    frame, by = searched.storage_label.removesuffix("search").removesuffix(", "), _by(searched.sampler)
    return Condition(
        key=digest({"confirm": searched.key, "settings": fingerprint(typed_settings(settings, study.seed))}),
        label=f"{frame}, searched{by}" if frame else f"searched{by}",
        levels=searched.levels,
        settings=settings,
        kind="confirm-best",
        parent=searched.key,
        chosen=dict(chosen),
        sampler=searched.sampler,
    )


def typed_settings(tree: Tree, seed: int) -> Settings:
    """Return the typed settings of a tree; raise `StudyError` with every problem."""
    problems = Problems()
    settings = resolve(tree, seed=seed, problems=problems)
    if settings is None:
        raise StudyError("these settings cannot be trained", problems=problems.first_lines)
    return settings


SCHEMA = 1
"""Part of every fingerprint: raised when the engine changes what the same settings mean."""


def fingerprint(settings: Settings) -> str:
    """Return 12 hex digits of a sha256 over all settings that differ from their defaults."""
    return digest(_spoken(settings))


def digest(value: Any) -> str:
    """Return 12 hex digits of a sha256 over plain values; the order of keys, and 1 against 1.0, make no difference."""
    text = json.dumps([SCHEMA, _spoken(value)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _spoken(value: Any) -> Any:
    """Return plain values without the fields that hold their default, so that new fields keep old fingerprints."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _spoken(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spoken(item) for item in value]
    if dataclasses.is_dataclass(value):
        given = ((name, getattr(value, name), default) for name, default in _defaults(cast(Any, type(value))))
        return {name: _spoken(item) for name, item, default in given if item != default}
    return value


@cache
def _defaults(cls: Any) -> tuple[tuple[str, Any], ...]:
    """Return the fields of a dataclass with their defaults, of which factories give equal ones each time."""
    return tuple(
        (field.name, field.default if field.default_factory is dataclasses.MISSING else field.default_factory())
        for field in dataclasses.fields(cls)
    )


TOTAL_ALPHA = 0.05
"""The chance of error over all looks of a plan together."""

LEAVES_AT = 0.025
"""The level at which a report of a fixed number of repeats calls a condition worse than another.

Of near ties the truly best one is called so in 0.01 to 0.05 of simulated studies, most with three repeats of very
unequal spread (tests/decision_rules.py): Welch's degrees of freedom are themselves estimated.
"""

MOST_LOOKS = 5
"""So many looks a plan has at most: each one more makes the others stricter."""


INTERIM_ANALYSES = "interim analyses"
"""The name of the decision that holds the plan of looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterimAnalysis:
    """A planned look: its `number` from 1 on, its repeats `n`, and the chance of error `alpha` that it spends."""

    number: int
    n: int
    alpha: float

    @property
    def confidence(self) -> float:
        """Return the confidence of this look's intervals: over all looks together they hold with 0.95 or more."""
        return 1 - self.alpha


def plan_of_looks(first: int, most: int, already_reported: bool = False) -> tuple[InterimAnalysis, ...]:
    """Return up to five looks, at `first` repeats, at `most`, and at steps of equal ratio between them.

    Each spends an equal part of 0.05, and never more than the 0.025 of a report of a fixed number of repeats, so that
    by the sum of chances (Bonferroni) the best condition leaves at some look with at most 0.05. A study of which such
    a report was made at `first` repeats has had its first look, at 0.025; what is left is shared out among the others.
    A single repeat is no look. Raises `ValueError` unless 1 <= first <= most and most >= 2.
    """
    if not 1 <= first <= most or most < 2:
        raise ValueError(f"looks need 1 <= first <= most and most >= 2, got first {first} and most {most}")
    reported = already_reported and first > 1
    start = max(first, 2)
    steps = MOST_LOOKS - 1
    at = sorted({round(start * (most / start) ** (step / steps)) for step in range(MOST_LOOKS)})
    if reported:
        rest = (TOTAL_ALPHA - LEAVES_AT) / max(1, len(at) - 1)
        spent = [LEAVES_AT] + [rest] * (len(at) - 1)
    else:
        spent = [min(LEAVES_AT, TOTAL_ALPHA / len(at))] * len(at)
    return tuple(
        InterimAnalysis(number=number, n=n, alpha=alpha)
        for number, (n, alpha) in enumerate(zip(at, spent, strict=True), 1)
    )


def plan_text(plan: Sequence[InterimAnalysis]) -> str:
    """Return a plan as text, as a study's record of decisions holds it: `3: 0.025, 5: 0.00625, 8: 0.00625`."""
    return ", ".join(f"{look.n}: {look.alpha!r}" for look in plan)


def plan_from(text: str) -> tuple[InterimAnalysis, ...]:
    """Return the plan that `plan_text` wrote; raise `ValueError` for text that is none."""
    pairs = [part.split(":") for part in text.split(",")]
    plan = tuple(
        InterimAnalysis(number=number, n=int(n), alpha=float(alpha)) for number, (n, alpha) in enumerate(pairs, 1)
    )
    rising = all(one.n < other.n for one, other in pairwise(plan))
    if (
        not rising
        or not all(0 < look.alpha < 1 for look in plan)
        or sum(look.alpha for look in plan) > TOTAL_ALPHA + 1e-9
    ):
        raise ValueError(f"a plan of looks has rising repeats and spends at most {TOTAL_ALPHA} in all, got {text!r}")
    return plan


def planned_looks(decisions: Iterable[Decision]) -> tuple[InterimAnalysis, ...]:
    """Return the looks among what is decided for a study, none where its repeats are fixed.

    Raises `ValueError` for a record that holds no plan.
    """
    text = next((decision.value for decision in decisions if decision.name == INTERIM_ANALYSES), "")
    return plan_from(text) if text else ()
