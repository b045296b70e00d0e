"""From a study file's text to a `Study`: strict, every problem reported at once. The only module that knows TOML."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchkit.errors import StudyError
from benchkit.overrides import apply_overrides
from benchkit.resolve import resolve
from benchkit.study import (
    Factor,
    Goal,
    Level,
    Published,
    PublishedRow,
    ReportSettings,
    Search,
    SearchRange,
    Study,
)
from benchkit.tree import SECTIONS, changed, value_at
from benchkit.typed import Problems, fits, typed

KEYS = (
    "title", "question", "description", "seed", *SECTIONS, "factors", "search", "repeats", "confirm", "published",
    "report", "smoke",
)  # fmt: skip
SAMPLERS = ("tpe", "random", "gp", "cma-es", "grid", "nsga-ii")
PRUNERS = ("median", "hyperband", "none")
MAXIMIZED = ("accuracy", "micro_f1", "macro_f1")
MINIMIZED = ("loss", "calibration_error")
COSTS = ("seconds", "parameters", "flops", "peak_memory")


def read_study(path: Path, *, overrides: Sequence[str] = (), smoke: bool = False) -> Study:
    """Return the study in a TOML file; raise `StudyError` with every problem when it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from error
    return parse_study(text, name=path.stem, path=path, overrides=overrides, smoke=smoke)


def parse_study(
    text: str, *, name: str, path: Path | None = None, overrides: Sequence[str] = (), smoke: bool = False
) -> Study:
    """Return the study that a TOML text describes, with `--set` overrides (and the smoke form) applied.

    Raises `StudyError` with one line for each problem: key path, value, what was expected, nearest match.
    """
    shown = str(path or name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{shown}: not valid TOML: {error}") from error
    problems = Problems()
    table = apply_overrides(table, overrides, problems)
    if smoke:
        table = smoke_form(table)
    study = _study(table, f"{name}-smoke" if smoke else name, problems)
    if study is None or problems.lines:
        raise StudyError(f"{shown}: this study cannot be used", problems=problems.lines)
    return replace(study, source=text, path=path, overrides=tuple(overrides), smoke=smoke)


def smoke_form(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tiny version of a study: digits in place of its data, one epoch, one repeat, two search trials.

    Paths under the table's own [smoke] replace these defaults.
    """
    small: dict[str, Any] = {
        "data.train_size": 80, "data.val_size": 40, "data.test_size": 40, "train.epochs": 1, "train.batch_size": 16,
    }  # fmt: skip
    result = {key: value for key, value in table.items() if key != "smoke"}
    data = table.get("data", {})
    if not isinstance(data, Mapping) or data.get("name") != "digits":
        result["data"] = {"name": "digits", "image_size": 16}
    sections = {key: result[key] for key in SECTIONS if key in result}
    own = table.get("smoke", {})
    result.update(changed(sections, {**small, **(own if isinstance(own, Mapping) else {})}))
    result["repeats"] = {"n": 1}
    if isinstance(result.get("search"), Mapping):
        result["search"] = {**result["search"], "trials": 2}
        result["confirm"] = {"n": 1}
    return result


def _study(table: Mapping[str, Any], name: str, problems: Problems) -> Study | None:
    for key in table:
        if key not in KEYS:
            problems.unknown("", key, KEYS)
    text = {key: _value(table, key, str, "", problems) for key in ("title", "question", "description")}
    if not text["title"]:
        problems.add("title", "is missing: one line that names the study")
    seed = _value(table, "seed", int, 0, problems)
    settings = {key: table[key] for key in SECTIONS if key in table}
    resolve(settings, seed=seed, problems=problems)
    search = _search(table.get("search"), settings, problems)
    repeats = _count(table, "repeats", 3, problems)
    return Study(
        name=name, **text, seed=seed, settings=settings,
        factors=_factors(table.get("factors", {}), settings, seed, problems),
        search=search, repeats=repeats,
        confirm=_count(table, "confirm", repeats if search else 0, problems),
        published=_published(table.get("published", []), problems),
        report=_report(table.get("report", {}), problems),
    )  # fmt: skip


def _value(table: Mapping[str, Any], key: str, kind: type, default: Any, problems: Problems, where: str = "") -> Any:
    value = table.get(key, default)
    if not fits(value, kind):
        problems.add(f"{where}{key}", f"got {value!r}, expected {'text' if kind is str else 'a whole number'}")
        return default
    return value


def _count(table: Mapping[str, Any], key: str, default: int, problems: Problems) -> int:
    """Return n of a [repeats] or [confirm] table."""
    found = table.get(key, {"n": default})
    if (
        not isinstance(found, Mapping)
        or set(found) != {"n"}
        or not fits(found["n"], int)
        or not 1 <= found["n"] <= 1000
    ):
        if found != {"n": 0} or key == "repeats":
            problems.add(key, f"got {found!r}, expected a table with n, a whole number from 1 to 1000")
        return default if found != {"n": 0} else 0
    return int(found["n"])


def _factors(table: Any, settings: Mapping[str, Any], seed: int, problems: Problems) -> tuple[Factor, ...]:
    if not isinstance(table, Mapping):
        problems.add("factors", f"got {table!r}, expected a table of lists")
        return ()
    found = []
    for path, values in table.items():
        if not isinstance(values, list) or not values:
            problems.add(f"factors.{path}", f"got {values!r}, expected a list of levels")
            continue
        levels = tuple(level(path, value, problems) for value in values)
        labels = [one.label for one in levels]
        for twice in sorted({label for label in labels if labels.count(label) > 1}):
            problems.add(f"factors.{path}", f"level {twice!r} stands twice; give each its own label")
        for one in levels:
            _try(settings, one.settings, seed, f"factors.{path}, level {one.label!r}", problems)
        found.append(Factor(path=path, levels=levels))
    return tuple(found)


def level(path: str, value: Any, problems: Problems) -> Level:
    """Return one level of a factor: a plain value for `path`, or a table with label and value or label and set."""
    if isinstance(value, Mapping) and "label" in value and set(value) <= {"label", "value", "set"}:
        if isinstance(value.get("set"), Mapping):
            return Level(label=str(value["label"]), settings=dict(value["set"]))
        if "value" in value:
            return Level(label=str(value["label"]), settings={path: value["value"]})
        problems.add(f"factors.{path}", f"level {value['label']!r} needs a value, or a table `set` of paths")
        return Level(label=str(value["label"]), settings={})
    return Level(label=label_of(value), settings={path: value})


def label_of(value: Any) -> str:
    """Return the short text by which a setting's value is known in tables."""
    if isinstance(value, Mapping):
        options = ", ".join(f"{key}={label_of(item)}" for key, item in value.items() if key != "name")
        return f"{value.get('name', '')}({options})" if options else str(value.get("name", ""))
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " + ".join(label_of(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _try(settings: Mapping[str, Any], changes: Mapping[str, Any], seed: int, where: str, problems: Problems) -> None:
    """Note what is wrong with the settings after some changes and was not wrong before."""
    inner = Problems()
    try:
        resolve(changed(settings, changes), seed=seed, problems=inner)
    except StudyError as error:
        problems.add(where, error.what)
        return
    for line in inner.lines:
        if line not in problems.lines:
            problems.add(where, line)


def _search(table: Any, settings: Mapping[str, Any], problems: Problems) -> Search | None:
    if table is None:
        return None
    if not isinstance(table, Mapping):
        problems.add("search", f"got {table!r}, expected a table")
        return None
    rest = {key: value for key, value in table.items() if key not in ("goal", "space")}
    goals = _goals(table.get("goal", "val.loss"), problems)
    pruner = "none" if len(goals) > 1 else "median"
    found = typed(
        Search, {"pruner": pruner, **rest}, "search", problems, goals=goals, space=_space(table, settings, problems)
    )
    if found is None:
        return None
    for key, value, known in (("sampler", found.sampler, SAMPLERS), ("pruner", found.pruner, PRUNERS)):
        if value not in known:
            problems.add(f"search.{key}", f"got {value!r}, expected one of {', '.join(known)}")
    if found.trials < 1:
        problems.add("search.trials", f"got {found.trials}, expected at least 1")
    if len(goals) > 1 and found.pruner != "none":
        problems.add("search.pruner", f"got {found.pruner!r} with {len(goals)} goals; only one goal can be pruned")
    return found


def _goals(value: Any, problems: Problems) -> tuple[Goal, ...]:
    known = [f"val.{name}" for name in (*MINIMIZED, *MAXIMIZED)] + [f"cost.{name}" for name in COSTS]
    metrics = value if isinstance(value, list) else [value]
    goals = []
    for metric in metrics:
        if metric not in known:
            problems.add(
                "search.goal", f"got {metric!r}, expected one of {', '.join(known)} (never test: it is read once)"
            )
            continue
        goals.append(Goal(metric=metric, direction="maximize" if metric.split(".")[1] in MAXIMIZED else "minimize"))
    return tuple(goals)


def _space(table: Mapping[str, Any], settings: Mapping[str, Any], problems: Problems) -> tuple[SearchRange, ...]:
    space = table.get("space")
    if not isinstance(space, Mapping) or not space:
        problems.add("search.space", "is missing: give at least one path a range, { low = ..., high = ... }, or a list")
        return ()
    found = []
    for path, value in space.items():
        where = f"search.space.{path}"
        one = _range(path, value, where, problems)
        if one is None:
            continue
        sample = one.choices[0] if one.choices else one.low
        _try(settings, {path: sample}, 0, where, problems)
        found.append(one)
    return tuple(found)


def _range(path: str, value: Any, where: str, problems: Problems) -> SearchRange | None:
    if isinstance(value, list) and value:
        return SearchRange(path=path, choices=tuple(value))
    if not isinstance(value, Mapping):
        problems.add(where, f"got {value!r}, expected {{ low = ..., high = ... }} or a list of choices")
        return None
    low, high = value.get("low"), value.get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not -math.inf < low < high < math.inf:
        problems.add(where, f"got low {low!r} and high {high!r}, expected two numbers, low below high")
        return None
    if value.get("log") and low <= 0:
        problems.add(where, f"got low {low!r}, expected above 0 on a log scale")
        return None
    integer = isinstance(low, int) and isinstance(high, int)
    return typed(SearchRange, dict(value), where, problems, path=path, integer=integer, choices=())


def _published(listed: Any, problems: Problems) -> tuple[Published, ...]:
    if not isinstance(listed, list):
        problems.add("published", f"got {listed!r}, expected [[published]] tables")
        return ()
    found = []
    for at, table in enumerate(listed):
        where = f"published[{at}]"
        rows = [
            typed(PublishedRow, {**row, "value": float(row["value"])} if fits(row.get("value"), float) else row,
                  f"{where}.rows[{k}]", problems)
            for k, row in enumerate(table.get("rows", []))
        ]  # fmt: skip
        rest = {key: value for key, value in table.items() if key != "rows"}
        one = typed(Published, rest, where, problems, rows=tuple(row for row in rows if row))
        found += [one] if one else []
    return tuple(found)


def _report(table: Any, problems: Problems) -> ReportSettings:
    if not isinstance(table, Mapping):
        problems.add("report", f"got {table!r}, expected a table")
        return ReportSettings()
    figures = []
    for item in table.get("figures", []):
        options = dict(item) if isinstance(item, Mapping) else {"name": item}
        name = options.pop("name", None)
        if not isinstance(name, str):
            problems.add("report.figures", f"got {item!r}, expected a figure's name or a table with name and options")
        else:
            figures.append((name, options))
    rest = {key: value for key, value in table.items() if key != "figures"}
    found = typed(ReportSettings, rest, "report", problems, figures=tuple(figures))
    return found or ReportSettings()


__all__ = ["label_of", "level", "parse_study", "read_study", "smoke_form", "value_at"]
