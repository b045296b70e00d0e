"""From a study file's text to a `Study`: strict, every problem reported at once. The only module that reads TOML files.

`factors` reads what is varied, factors and search, `tree` the settings, `origin` the source and the author's text.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchkit.errors import PluginError, StudyError, nearest, shortened
from benchkit.metrics import score_metrics
from benchkit.registry import Registry
from benchkit.study.factors import apply_overrides, read_factors, read_levels, read_search, smoke_form
from benchkit.study.logo import logo_path
from benchkit.study.origin import note_levels, read_author_text, read_origin
from benchkit.study.study import UNTIL_DECIDED, Published, PublishedRow, ReportSettings, Study, section_of
from benchkit.study.tree import (
    DEEPEST,
    MOST_BYTES,
    SECTIONS,
    Problems,
    each_table,
    fits,
    note_extremes,
    quoted,
    resolve,
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
            raise StudyError(f"{text}: there is no study of that name{near}", hint=error.hint or known) from error
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
    table = _smoke_table(table, overrides, problems) if smoke else apply_overrides(table, overrides, problems)
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


def _smoke_table(table: Mapping[str, Any], overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Return the tiny version of a study; `--set` has the last word, but not on its data, which are digits."""
    ours = [override for override in overrides if section_of(override) == "data"]
    changed = apply_overrides(table, ours, problems)
    try:
        small = smoke_form(changed)
    except StudyError as error:
        problems.add("smoke", error.what)
        small = {key: value for key, value in changed.items() if key != "smoke"}
    return apply_overrides(small, [override for override in overrides if override not in ours], problems)


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
