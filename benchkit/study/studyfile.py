"""From a study file's text to a `Study`: strict, every problem reported at once. The only module that reads TOML files.

`tree` reads the settings and `--set`, `origin` the source and the author's text.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchkit.errors import PluginError, StudyError, nearest, shortened
from benchkit.metrics import epoch_metrics, goal_metrics, is_read_each_epoch, metric_of, score_metrics
from benchkit.plan import TOLERANCE, extremes, grid_size
from benchkit.registry import Registry
from benchkit.study.logo import logo_path
from benchkit.study.origin import note_levels, read_author_text, read_origin
from benchkit.study.smoke import smoke_form, smoke_table
from benchkit.study.study import (
    UNTIL_DECIDED,
    Factor,
    Goal,
    Level,
    Published,
    PublishedRow,
    ReportSettings,
    Search,
    SearchRange,
    Study,
    Tree,
    section_of,
)
from benchkit.study.tree import (
    DEEPEST,
    MOST_BYTES,
    SECTIONS,
    Problems,
    apply_overrides,
    each_table,
    fits,
    hashable,
    in_quotes,
    label_of,
    note_extremes,
    quoted,
    resolve,
    try_changes,
    typed,
)

KEYS = (
    "title", "question", "description", "seed", *SECTIONS, "factors", "search", "repeats", "confirm", "source",
    "published", "report", "smoke",
)  # fmt: skip
MOST_REPEATS = 1000


def find_study(text: str, registry: Registry, *, overrides: Sequence[str] = (), smoke: bool = False) -> Study:
    """Return the study of that path or installed name, overrides applied.

    Raises `StudyError` when there is none, or where the tiny version (`smoke`) would hide that a data set is missing.
    """
    path = Path(text)
    known = f"installed studies: {', '.join(registry.names('studies'))}; or give the path of a TOML file"
    if path.suffix == ".toml" or "/" in text:
        if not os.path.isfile(text):  # which takes any text: too long, with NUL characters
            beside = (found.name for found in path.parent.glob("*.toml")) if path.parent.is_dir() else ()
            raise StudyError(f"{text}: there is no such study file{nearest(path.name, beside)}", hint=known)
    else:
        try:
            path = registry.study_file(text)
        except PluginError as error:
            near = nearest(text, registry.names("studies"))
            hint = error.hint if registry.claims("studies", text) else known
            raise StudyError(f"{text}: there is no study of that name{near}", hint=hint) from error
    study = read_study(path, overrides=overrides, smoke=smoke)
    if smoke:
        _know_data(study, registry)
    return study


def _know_data(study: Study, registry: Registry) -> None:
    """Raise `StudyError` for a data set that is not there, though the tiny version has digits in its place."""
    ours = [override for override in study.overrides if section_of(override) == "data"]
    problems, hint = Problems(), ""
    for name in _data_names(apply_overrides(tomllib.loads(study.source), ours, problems)):
        try:
            registry.resolve("datasets", name)
        except PluginError as error:
            problems.add("data.name", error.what)
            hint = error.hint
    if problems:
        raise StudyError(f"{study.path}: this study cannot be used", problems=problems.first_lines, hint=hint)


def _data_names(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the data sets that a study's table and the levels of its factors name."""
    factors = table["factors"] if isinstance(table.get("factors"), Mapping) else {}
    lists = ((path, values) for path, values in factors.items() if isinstance(values, list))
    levels = [level.settings for path, values in lists for level in read_levels(path, values, Problems())]
    for data in (table.get("data"), *(one for level in levels for one in (level.get("data"), level.get("data.name")))):
        name = data.get("name") if isinstance(data, Mapping) else data
        if isinstance(name, str):
            yield name


def read_study(path: Path, *, overrides: Sequence[str] = (), smoke: bool = False) -> Study:
    """Return the study in a TOML file; raise `StudyError` with every problem when it is not one."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")  # editors of Windows write a byte order mark
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from error
    if len(content) > MOST_BYTES:
        raise StudyError(f"{path}: has more than {MOST_BYTES:,} bytes, which is no study")
    return parse_study(text, name=path.stem, path=path, overrides=overrides, smoke=smoke)


def parse_study(
    text: str, *, name: str, path: Path | None = None, overrides: Sequence[str] = (), smoke: bool = False
) -> Study:
    """Return the study that a TOML text describes, with `--set` overrides (and the smoke form) applied.

    Raises `StudyError` with one line for each problem: key path, value, what was expected, nearest match.
    """
    shown = str(path or name)
    table = _within_limits({"its file name": name, **_parsed(text, shown)}, shown)
    del table["its file name"]
    problems = Problems()
    table = smoke_table(table, overrides, problems) if smoke else apply_overrides(table, overrides, problems)
    table = _within_limits(table, shown)
    study = _study(table, f"{name}-smoke" if smoke else name, problems, path.parent if path else None)
    if not smoke and "smoke" in table:
        _try_smoke(table, problems)
    given = (f"--set {shortened(one if one.isprintable() else ascii(one))}" for one in overrides)
    _refuse(" ".join([shown, *given]), problems)
    return replace(study, source=text, path=path, overrides=tuple(overrides), smoke=smoke)


def _parsed(text: str, shown: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{shown}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise StudyError(f"{shown}: is nested too deeply, expected at most {DEEPEST} levels") from error
    except ValueError as error:
        raise StudyError(f"{shown}: has a whole number of too many digits, expected at most 64 bits") from error


def _within_limits(table: dict[str, Any], shown: str) -> dict[str, Any]:
    problems = Problems()
    note_extremes(table, problems)
    _refuse(shown, problems)
    return table


def _refuse(shown: str, problems: Problems) -> None:
    if problems:
        raise StudyError(f"{shown}: this study cannot be used", problems=problems.first_lines)


def _try_smoke(table: Mapping[str, Any], problems: Problems) -> None:
    """Note what is wrong with the tiny version alone, so that it is known before someone needs it."""
    if not isinstance(table["smoke"], Mapping):
        problems.add("smoke", f"got {quoted(table['smoke'])}, expected a table of dotted paths and values")
        return
    inner = Problems()
    try:
        _study(smoke_form(table), "smoke", inner)
    except StudyError as error:
        inner.add("", error.what)
    for line in inner.lines:
        if line not in problems:
            problems.add("smoke", line)


def _study(table: Mapping[str, Any], name: str, problems: Problems, folder: Path | None = None) -> Study:
    for key in table:
        if key not in KEYS:
            problems.unknown("", key, KEYS)
    title, question, description = (_text(table, key, problems) for key in ("title", "question", "description"))
    if not title.strip():
        problems.add("title", "is missing: one line that names the study")
    seed = table.get("seed", 0)
    if not fits(seed, int):
        problems.add("seed", f"got {quoted(seed)}, expected a whole number")
        seed = 0
    folds = _folds(table, problems)
    settings = {key: table[key] for key in SECTIONS if key in table}
    if folds and isinstance(settings.get("data"), Mapping):
        settings["data"] = {**settings["data"], "folds": folds}
    resolve(settings, seed=seed, problems=problems)
    factors = read_factors(table.get("factors", {}), settings, seed, problems)
    search = read_search(table.get("search"), settings, seed, problems)
    levels = {factor.path: dict.fromkeys(level.label for level in factor.levels) for factor in factors}
    repeats, most = _repeats(table, problems)
    return Study(
        name=name,
        title=title,
        question=question,
        description=description,
        seed=seed,
        settings=settings,
        factors=factors,
        search=search,
        repeats=repeats,
        most=most,
        splits="folds" if folds else "fixed",
        confirm=_count(table, "confirm", repeats if search else 0, 0, problems),
        origin=read_origin(table["source"], levels, problems) if "source" in table else None,
        published=_published(table.get("published", []), levels, problems),
        report=_report(table.get("report", {}), problems, folder),
    )


def _text(table: Mapping[str, Any], key: str, problems: Problems) -> str:
    value = table.get(key, "")
    if isinstance(value, str):
        return value
    problems.add(key, f"got {quoted(value)}, expected text")
    return ""


SPLITS = ("fixed", "folds")


def _folds(table: Mapping[str, Any], problems: Problems) -> int:
    """Return the number of folds, that of the repeats, where [repeats] says that each tests on a fold of its own."""
    written = (table.get(key) for key in ("repeats", "data", "factors"))
    repeats, data, factors = (one if isinstance(one, Mapping) else {} for one in written)
    said, n = repeats.get("splits", "fixed"), repeats.get("n", 3)
    if said not in SPLITS:
        problems.add("repeats.splits", f"got {quoted(said)}, expected one of {', '.join(SPLITS)}")
    varied = [path for path in factors if path in ("data", "data.folds")]
    if (data.get("folds", 0) != (n if said == "folds" else 0) and "folds" in data) or varied:
        problems.add("data.folds", 'is written by repeats.splits = "folds", and is the number of repeats')
    if said != "folds" or not fits(n, int):
        return 0
    if n < 2 or {"most", "until"} & set(repeats):
        problems.add("repeats.splits", "folds need repeats.n of 2 or more, and neither most nor until")
    if "search" in table:
        problems.add("repeats.splits", "a search chooses settings on images that other folds test: expected no search")
    return int(n)


def _repeats(table: Mapping[str, Any], problems: Problems) -> tuple[int, int]:
    """Return n of [repeats], and most where repeats are added until it is decided which condition is best, else 0."""
    written = table.get("repeats", {"n": 3})
    if not isinstance(written, Mapping):
        return _count(table, "repeats", 3, 1, problems), 0
    fixed = {key: value for key, value in written.items() if key not in ("most", "until", "splits")}
    n = _count({"repeats": fixed} if fixed or not written else {}, "repeats", 3, 1, problems)
    if not set(written) & {"most", "until"}:
        return n, 0
    if (until := written.get("until")) != "decided":
        said = f"got {quoted(until)}" if "until" in written else "is missing beside most"
        problems.add("repeats.until", f'{said}, expected "decided"')
    most = written.get("most", max(n, UNTIL_DECIDED))
    if not fits(most, int) or not n <= most <= MOST_REPEATS:
        problems.add("repeats.most", f"got {quoted(most)}, expected a whole number from {n} (n) to {MOST_REPEATS}")
        return n, 0
    return n, most


def _count(table: Mapping[str, Any], key: str, default: int, least: int, problems: Problems) -> int:
    """Return n of a [repeats] or [confirm] table."""
    written = table.get(key, {"n": default})
    n = written.get("n") if isinstance(written, Mapping) and set(written) == {"n"} else None
    if isinstance(n, int) and fits(n, int) and least <= n <= MOST_REPEATS:
        return n
    problems.add(key, f"got {quoted(written)}, expected a table with n, a whole number from {least} to {MOST_REPEATS}")
    return default


def _published(listed: Any, levels: Mapping[str, Mapping[str, None]], problems: Problems) -> tuple[Published, ...]:
    """Return the published tables of a study; `levels` are the labels of each factor."""
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


def _note_metric(metric: str, where: str, problems: Problems) -> None:
    known = score_metrics()
    if metric not in known:
        problems.add(where, f"got {quoted(metric)}{nearest(metric, known)}, expected one of {', '.join(known)}")


MOST_LETTERS = 3000
"""The longest abstract: it shares the first page with the answer."""


def _report(table: Any, problems: Problems, folder: Path | None) -> ReportSettings:
    """Return what a study asks of its report; `folder` is the study file's."""
    if not isinstance(table, Mapping):
        problems.add("report", f"got {quoted(table)}, expected a table")
        return ReportSettings()
    figures = _figures(table.get("figures", []), problems)
    read = ("figures", "logo", "text")
    rest = {key: value for key, value in table.items() if key not in read}
    logo = _logo(table["logo"], problems, folder) if "logo" in table else None
    text = read_author_text(table["text"], problems, folder) if "text" in table else {}
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


def read_factors(table: Any, settings: Tree, seed: int, problems: Problems) -> tuple[Factor, ...]:
    """Return the factors of a study, noting every problem with them in `problems`."""
    if not isinstance(table, Mapping):
        problems.add("factors", f"got {quoted(table)}, expected a table of lists")
        return ()
    factors = []
    for path, values in table.items():
        if not isinstance(values, list) or not values:
            problems.add(f"factors.{path}", f"got {quoted(values)}, expected a list of levels{in_quotes(path, values)}")
            continue
        levels = read_levels(path, values, problems)
        _note_twins(path, levels, problems)
        for level in levels:
            try_changes(settings, level.settings, seed, f"factors.{path}, level {level.label!r}", problems)
        factors.append(Factor(path=path, levels=levels))
    _note_overlaps(factors, problems)
    return tuple(factors)


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


def _note_twins(path: str, levels: tuple[Level, ...], problems: Problems) -> None:
    for label, times in sorted(Counter(level.label for level in levels).items()):
        if times > 1:
            problems.add(f"factors.{path}", f"level {label!r} stands twice; give each its own label")
    first: dict[Any, Level] = {}
    for level in levels:
        other = first.setdefault(hashable(level.settings), level)
        if other.label != level.label:
            problems.add(f"factors.{path}", f"levels {other.label!r} and {level.label!r} are the same")


def _note_overlaps(factors: list[Factor], problems: Problems) -> None:
    """Two factors that fix one path would train the same condition under several names."""
    owners: dict[str, str] = {}
    for factor in factors:
        for path in dict.fromkeys(path for level in factor.levels for path in level.settings):
            if path in owners:
                problems.add(f"factors.{factor.path}", f"fixes {path}, which the factor {owners[path]!r} fixes too")
            owners.setdefault(path, factor.path)


SAMPLERS = ("tpe", "random", "gp", "cma-es", "grid", "nsga-ii")
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
        _check_search(search, prunable, problems)
    return search


def _check_search(search: Search, prunable: bool, problems: Problems) -> None:
    if search.goals and not prunable and search.pruner != "none":
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
    if unquoted := in_quotes(path, value, {"low", "high"}):
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
