"""What a study varies: [factors] with levels and labels, `--set`, and [search] with the points of its space.

Imports no torch.
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

from benchkit.errors import StudyError, nearest
from benchkit.metrics import epoch_metrics, goal_metrics, is_read_each_epoch, metric_of
from benchkit.study.study import Factor, Goal, Level, Search, SearchRange, Tree
from benchkit.study.tree import DEEPEST, SECTIONS, Problems, changed, fits, quoted, resolve, typed, value_at


def read_factors(table: Any, settings: Tree, seed: int, problems: Problems) -> tuple[Factor, ...]:
    """Return the factors of a study, noting every problem with them in `problems`."""
    if not isinstance(table, Mapping):
        problems.add("factors", f"got {quoted(table)}, expected a table of lists")
        return ()
    factors = []
    for path, values in table.items():
        if not isinstance(values, list) or not values:
            problems.add(
                f"factors.{path}", f"got {quoted(values)}, expected a list of levels{_in_quotes(path, values)}"
            )
            continue
        levels = read_levels(path, values, problems)
        _note_twins(path, levels, problems)
        for level in levels:
            try_changes(settings, level.settings, seed, f"factors.{path}, level {level.label!r}", problems)
        factors.append(Factor(path=path, levels=levels))
    _note_overlaps(factors, problems)
    return tuple(factors)


def _in_quotes(path: str, value: Any, ends: Set[str] = frozenset()) -> str:
    """Return what cures a dotted path without quotes, of which TOML makes tables; empty where `value` is none.

    Tables with a key of `ends` are what a path leads to.
    """
    keys = [path]
    while isinstance(value, Mapping) and len(value) == 1 and not value.keys() & ends:
        ((key, value),) = value.items()
        keys.append(key)
    return f'; a path of several names stands in quotes: "{".".join(keys)}"' if len(keys) > 1 else ""


def read_levels(path: str, values: list[Any], problems: Problems) -> tuple[Level, ...]:
    """Return a factor's levels; a level with `add` fixes all that the one before it fixes, and what it adds."""
    levels: list[Level] = []
    for value in values:
        before = levels[-1].settings if levels else {}
        levels.append(read_level(path, value, before, problems))
    return tuple(levels)


def read_level(path: str, value: Any, before: Mapping[str, Any], problems: Problems) -> Level:
    """Return one level: a value for `path`, or a table with `label` and one of `value`, `set` and `add`.

    `set` holds dotted paths and values, and may be empty; `add` holds those that come to the ones `before`.
    """
    if not isinstance(value, Mapping) or "label" not in value or not set(value) <= {"label", "value", "set", "add"}:
        return Level(label=label_of(value), settings={path: value})
    label = str(value["label"]).strip()
    if not label:
        problems.add(f"factors.{path}", "a label is empty")
    if set(value) == {"label", "value"}:
        return Level(label=label, settings={path: value["value"]})
    for key, start in (("set", {}), ("add", before)):
        if set(value) == {"label", key} and isinstance(value[key], Mapping):
            return Level(label=label, settings={**start, **value[key]})
    problems.add(
        f"factors.{path}", f"level {label!r} needs a value, or a table `set` (or `add`) of dotted paths and values"
    )
    return Level(label=label, settings={})


def label_of(value: Any) -> str:
    """Return the short text by which a setting's value is known in tables, for example `gn(groups=4)`."""
    if isinstance(value, Mapping):
        options = ", ".join(f"{key}={label_of(item)}" for key, item in value.items() if key != "name")
        return f"{value.get('name', '')}({options})" if options else str(value.get("name", ""))
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " + ".join(label_of(item) for item in value) or "none"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def try_changes(settings: Tree, changes: Mapping[str, Any], seed: int, where: str, problems: Problems) -> None:
    """Note what is wrong with the settings after some changes and was not wrong before."""
    inner = Problems()
    for path, value in changes.items():
        try:
            settings = changed(settings, {path: value})
        except StudyError as error:
            problems.add_error(where, error)
    resolve(settings, seed=seed, problems=inner)
    for line in inner.lines:
        if line not in problems:
            problems.add(where, line)


def _note_twins(path: str, levels: tuple[Level, ...], problems: Problems) -> None:
    for label, times in sorted(Counter(level.label for level in levels).items()):
        if times > 1:
            problems.add(f"factors.{path}", f"level {label!r} stands twice; give each its own label")
    first: dict[Any, Level] = {}
    for level in levels:
        other = first.setdefault(hashable(level.settings), level)
        if other.label != level.label:
            problems.add(f"factors.{path}", f"levels {other.label!r} and {level.label!r} are the same")


def hashable(value: Any) -> Any:
    """Return what equals another's exactly where two values of TOML are equal, and can be looked up at once."""
    if isinstance(value, Mapping):
        return frozenset((key, hashable(item)) for key, item in value.items())
    return tuple(hashable(item) for item in value) if isinstance(value, list | tuple) else value


def _note_overlaps(factors: list[Factor], problems: Problems) -> None:
    """Two factors that fix one path would train the same condition under several names."""
    owners: dict[str, str] = {}
    for factor in factors:
        for path in dict.fromkeys(path for level in factor.levels for path in level.settings):
            if path in owners:
                problems.add(f"factors.{factor.path}", f"fixes {path}, which the factor {owners[path]!r} fixes too")
            owners.setdefault(path, factor.path)


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""Numbers as people type them; TOML knows no `.001` and no `1.e-3`."""


def parse_value(text: str) -> Any:
    """Return the TOML value that a text spells (`5`, `0.1`, `true`, `["bn", "gn"]`), else a number, else the text.

    Raises `StudyError` for a value that is nested too deeply or has too many digits.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return float(text) if NUMBER.fullmatch(text.strip()) else text
    except RecursionError as error:
        raise StudyError(f"is nested too deeply, expected at most {DEEPEST} levels") from error
    except ValueError as error:
        raise StudyError("has a whole number of too many digits, expected at most 64 bits") from error


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Return the study's table with every `path=value` applied; what cannot be applied is noted in `problems`.

    `false` takes away a regularizer (`regularizers.ID`), a factor, a searched path, the search or the confirmation.
    """
    result = dict(table)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            problems.add(f"--set {override[:120]}", "expected KEY=VALUE, for example train.epochs=5")
            continue
        try:
            _apply(result, path.strip(), parse_value(text))
        except StudyError as error:
            problems.add_error(f"--set {override[:120]}", error)
    return result


def _apply(table: dict[str, Any], path: str, value: Any) -> None:
    first, _, rest = path.partition(".")
    if first in SECTIONS:
        sections = {key: table[key] for key in SECTIONS if key in table}
        table.update(changed(sections, {path: value}))
    elif first == "factors" and rest:
        name = rest.replace('"', "")
        if value is False or value == []:
            _remove(_table(table, "factors"), name)
        else:
            _table(table, "factors")[name] = value
    elif path.startswith("search.space."):
        space, name = _table(_table(table, "search"), "space"), path.removeprefix("search.space.").replace('"', "")
        if value is False:
            _remove(space, name)
        else:
            space[name] = value
    elif path in ("search", "confirm") and value is False:
        table.pop(path, None)
    elif rest:
        _table(table, first)[rest.replace('"', "")] = value
    else:
        table[path] = value


def _table(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a table within ours, as a copy that may be changed."""
    table = parent.get(key, {})
    if not isinstance(table, dict):
        raise StudyError(f"{key} is {quoted(table)}, not a table")
    parent[key] = dict(table)
    return parent[key]  # type: ignore[no-any-return]


def _remove(table: dict[str, Any], name: str) -> None:
    if name not in table:
        raise StudyError(f"there is no {name!r} to leave out{nearest(name, table)}")
    del table[name]


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


SMALL: Mapping[str, Any] = {
    "data.train_size": 80,
    "data.val_size": 40,
    "data.test_size": 40,
    "train.epochs": 1,
    "train.batch_size": 16,
}
"""What replaces a study's own settings, before those of its [smoke] section."""


def smoke_form(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tiny version of a study: digits in place of its data, one epoch, one repeat, two search trials.

    Paths under the table's own [smoke] replace these defaults. Levels and searches of what the tiny version fixes
    (anything under `data` but `normalize`, the number of epochs, the batch size) are left out, and so are the published
    numbers. Raises `StudyError` for a path under [smoke] that leads nowhere.
    """
    result = {key: value for key, value in table.items() if key not in ("smoke", "published")}
    data = table.get("data")
    if not isinstance(data, Mapping) or data.get("name") != "digits":
        kept = {"normalize": data["normalize"]} if isinstance(data, Mapping) and "normalize" in data else {}
        result["data"] = {"name": "digits", "image_size": 16, **kept}
    sections = {key: result[key] for key in SECTIONS if key in result}
    own = table.get("smoke")
    result.update(changed(sections, {**SMALL, **(own if isinstance(own, Mapping) else {})}))
    result["repeats"] = {"n": 1}
    if isinstance(table.get("factors"), Mapping):
        factors = {path: levels for path, levels in table["factors"].items() if not _is_fixed(path, levels)}
        result["factors"] = {path: _loosened(levels) for path, levels in factors.items()}
    if isinstance(table.get("search"), Mapping):
        _shrink_search(result)
    return result


def _is_fixed(path: str, levels: Any) -> bool:
    """Return whether a factor varies only what the tiny version fixes."""
    tables = [table for level in levels for table in _changes(level).values()] if isinstance(levels, list) else []
    paths = [inner for table in tables for inner in table] if tables else [path]
    return all(map(_fixed, paths))


def _fixed(path: str) -> bool:
    return path in SMALL or (path.startswith("data.") and path != "data.normalize")


def _changes(level: Any) -> dict[str, Mapping[str, Any]]:
    """Return a level's tables of paths, by their key."""
    if not isinstance(level, Mapping):
        return {}
    return {key: level[key] for key in ("set", "add") if isinstance(level.get(key), Mapping)}


def _loosened(levels: Any) -> Any:
    """Return a factor's levels without what the tiny version fixes.

    A level of nothing else is left out, and so is one that fixes the same as an earlier one.
    """
    if not isinstance(levels, list):
        return levels
    kept: list[Any] = []
    seen = set()
    for level in levels:
        tables = _changes(level)
        loose = {key: {p: v for p, v in table.items() if not _fixed(p)} for key, table in tables.items()}
        if any(tables[key] and not loose[key] for key in tables):
            continue
        if "set" in loose:
            key = hashable(loose["set"])
            if key in seen:
                continue
            seen.add(key)
        kept.append({**level, **loose} if tables else level)
    return kept


def _shrink_search(result: dict[str, Any]) -> None:
    search = {**result["search"], "trials": 2}
    if isinstance(search.get("space"), Mapping):
        search["space"] = {path: spanned for path, spanned in search["space"].items() if not _fixed(path)}
        if not search["space"]:
            del result["search"]
            result.pop("confirm", None)
            return
    result["search"] = search
    if result.get("confirm") != {"n": 0}:
        result["confirm"] = {"n": 1}


SAMPLERS = ("tpe", "random", "gp", "cma-es", "grid", "nsga-ii")
TOLERANCE = 1e-8
"""How far a value may be off a range's steps, in steps."""

MOST_CHOICES = 10_000
MOST_POINTS = 100_000
"""The most points of a grid search."""
MOST_STEPS = 10**9
"""The most steps that a range may have, from its lowest to its highest value."""


def read_search(table: Any, settings: Tree, seed: int, problems: Problems) -> Search | None:
    """Return the search of a study, or None when it has none, noting every problem with it in `problems`."""
    if table is None:
        return None
    if not isinstance(table, Mapping):
        problems.add("search", f"got {quoted(table)}, expected a table")
        return None
    rest = {key: value for key, value in table.items() if key not in ("goal", "space", "sampler")}
    goals = _goals(table.get("goal", "val.loss"), problems)
    space = _space(table.get("space"), settings, seed, problems)
    samplers = _samplers(table.get("sampler", "tpe"), problems)
    prunable = len(goals) == 1 and is_read_each_epoch(goals[0].metric)
    rest.setdefault("pruner", "median" if prunable and goals[0].metric in epoch_metrics() else "none")
    given: dict[str, Any] = {"goals": goals, "space": space, "samplers": samplers if len(samplers) > 1 else ()}
    if samplers:
        given["sampler"] = samplers[0]
    search = typed(Search, rest, "search", problems, also=("goal", "space", "sampler"), **given)
    if search:
        _check(search, prunable, problems)
    return search


def _check(search: Search, prunable: bool, problems: Problems) -> None:
    if not prunable and search.pruner != "none":
        problems.add(
            "search.pruner",
            f"got {search.pruner!r}: only a single goal that is read after each epoch can be pruned, such as val.loss",
        )
    for sampler in search.samplers or (search.sampler,):
        _check_sampler(sampler, search, problems)


def _check_sampler(sampler: str, search: Search, problems: Problems) -> None:
    if sampler == "cma-es" and len(search.goals) > 1:
        problems.add("search.sampler", "got 'cma-es' with several goals; it takes one (nsga-ii, tpe and gp take more)")
    if sampler == "cma-es" and all(spanned.choices for spanned in search.space):
        problems.add("search.sampler", "got 'cma-es' with nothing but choices; it needs a numeric range")
    if sampler == "grid":
        _check_grid(search, problems)


def _check_grid(search: Search, problems: Problems) -> None:
    try:
        points = grid_size(search)
    except StudyError as error:
        problems.add("", error.what)
        return
    if points > MOST_POINTS:
        problems.add("search.space", f"is a grid of {points:,} points, expected at most {MOST_POINTS:,}")


def _samplers(value: Any, problems: Problems) -> tuple[str, ...]:
    """Return the samplers that a search names, one or a list of them to compare."""
    listed = value if isinstance(value, list) else [value]
    if not listed:
        problems.add("search.sampler", "is empty: give a sampler or a list of samplers to compare")
    samplers: list[str] = []
    for name in listed:
        if name not in SAMPLERS:
            close = nearest(name, SAMPLERS) if isinstance(name, str) else ""
            problems.add("search.sampler", f"got {quoted(name)}, expected one of {', '.join(SAMPLERS)}{close}")
        elif name in samplers:
            problems.add("search.sampler", f"{name!r} stands twice")
        else:
            samplers.append(name)
    return tuple(samplers)


def _goals(value: Any, problems: Problems) -> tuple[Goal, ...]:
    metrics = value if isinstance(value, list) else [value]
    if not metrics:
        problems.add("search.goal", "is empty: give a metric or a list of metrics")
    goals: list[Goal] = []
    known = goal_metrics()
    for metric in metrics:
        if metric not in known:
            close = nearest(metric, known) if isinstance(metric, str) else ""
            expected = f"expected one of {', '.join(known)} (never test: it is read once)"
            problems.add("search.goal", f"got {quoted(metric)}{close}, {expected}")
        elif metric in [goal.metric for goal in goals]:
            problems.add("search.goal", f"{metric!r} stands twice")
        else:
            lower = metric_of(metric).lower_is_better
            goals.append(Goal(metric=metric, direction="minimize" if lower else "maximize"))
    return tuple(goals)


def _space(space: Any, settings: Tree, seed: int, problems: Problems) -> tuple[SearchRange, ...]:
    if not isinstance(space, Mapping) or not space:
        problems.add("search.space", "is missing: give at least one path a range, { low = ..., high = ... }, or a list")
        return ()
    ranges = []
    for path, value in space.items():
        where = f"search.space.{path}"
        spanned = _range(path, value, where, problems)
        if spanned is not None:
            for sample in extremes(spanned):
                try_changes(settings, {path: sample}, seed, where, problems)
            ranges.append(spanned)
    return tuple(ranges)


def _range(path: str, value: Any, where: str, problems: Problems) -> SearchRange | None:
    if isinstance(value, list) and value:
        if len(value) > MOST_CHOICES:
            problems.add(where, f"has {len(value):,} choices, expected at most {MOST_CHOICES:,}")
            return None
        if len({hashable(item) for item in value}) < len(value):
            problems.add(where, f"got {quoted(value)}: a choice stands twice")
        return SearchRange(path=path, choices=tuple(value))
    if not isinstance(value, Mapping):
        problems.add(where, f"got {quoted(value)}, expected {{ low = ..., high = ... }} or a list of choices")
        return None
    if unquoted := _in_quotes(path, value, {"low", "high"}):
        problems.add(where, f"got {quoted(value)}, expected a range or a list of choices{unquoted}")
        return None
    low: Any = value.get("low")
    high: Any = value.get("high")
    if not fits(low, float) or not fits(high, float) or not low < high:
        problems.add(where, f"got low {quoted(low)} and high {quoted(high)}, expected two numbers, low below high")
        return None
    integer = isinstance(low, int) and isinstance(high, int)
    kind = int if integer else float
    rest = {key: item for key, item in value.items() if key not in ("low", "high")}
    spanned = typed(
        SearchRange, rest, where, problems, also=("low", "high"), path=path, integer=integer, choices=(),
        low=kind(low), high=kind(high),
    )  # fmt: skip
    before = len(problems)
    if spanned is not None:
        _check_scale(spanned, where, problems)
    return spanned if len(problems) == before else None


def _check_scale(spanned: SearchRange, where: str, problems: Problems) -> None:
    low, high, step = spanned.low, spanned.high, spanned.step
    assert low is not None and high is not None
    if not math.isfinite(float(high) - float(low)):
        problems.add(where, f"got low {low!r} and high {high!r}, whose distance is no finite number")
    if spanned.log and low <= 0:
        problems.add(where, f"got low {low!r}, expected above 0 on a log scale")
    if step is None:
        return
    if spanned.log:
        problems.add(where, "has both log and step; a log scale takes no step")
    elif step <= 0 or (spanned.integer and not step.is_integer()):
        expected = "a whole number of at least 1, as low and high are whole" if spanned.integer else "a number above 0"
        problems.add(where, f"got step {step!r}, expected {expected}")
    elif not high - low <= step * MOST_STEPS:
        problems.add(where, f"got step {step!r}, expected at most {MOST_STEPS:,} steps from {low!r} to {high!r}")
    elif not _is_whole((high - low) / step):
        problems.add(where, f"got step {step!r}, which does not lead from {low!r} to {high!r}")


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), abs_tol=TOLERANCE)


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
