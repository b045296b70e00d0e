"""From a study file's text to a `Study`: strict, every problem reported at once. The only module that reads TOML files.

The sections have modules of their own: `study_factors`, `study_search`, `study_report`; `resolve` reads data, model,
train and regularizers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchkit.errors import StudyError
from benchkit.study.factors import label_of, read_factors
from benchkit.study.overrides import apply_overrides
from benchkit.study.report import read_published, read_report
from benchkit.study.resolve import resolve
from benchkit.study.search import read_search
from benchkit.study.smoke import smoke_form
from benchkit.study.study import Study
from benchkit.study.tree import SECTIONS
from benchkit.study.typed import Problems, fits

__all__ = ["label_of", "parse_study", "read_study"]

KEYS = (
    "title", "question", "description", "seed", *SECTIONS, "factors", "search", "repeats", "confirm", "published",
    "report", "smoke",
)  # fmt: skip
MOST_REPEATS = 1000


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
    table = _smoke_table(table, overrides, problems) if smoke else apply_overrides(table, overrides, problems)
    study = _study(table, f"{name}-smoke" if smoke else name, problems, path.parent if path else None)
    if not smoke and "smoke" in table:
        _try_smoke(table, problems)
    if problems.lines:
        raise StudyError(f"{shown}: this study cannot be used", problems=problems.lines)
    return replace(study, source=text, path=path, overrides=tuple(overrides), smoke=smoke)


def _smoke_table(table: Mapping[str, Any], overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Return the tiny version of a study; `--set` has the last word, but not on its data, which are digits."""
    ours = [override for override in overrides if override.strip().startswith("data.")]
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
        problems.add("smoke", f"got {table['smoke']!r}, expected a table of dotted paths and values")
        return
    inner = Problems()
    try:
        _study(smoke_form(table), "smoke", inner)
    except StudyError as error:
        inner.add("", error.what)
    for line in inner.lines:
        if line not in problems.lines:
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
        problems.add("seed", f"got {seed!r}, expected a whole number")
        seed = 0
    settings = {key: table[key] for key in SECTIONS if key in table}
    resolve(settings, seed=seed, problems=problems)
    factors = read_factors(table.get("factors", {}), settings, seed, problems)
    search = read_search(table.get("search"), settings, seed, problems)
    repeats = _count(table, "repeats", 3, 1, problems)
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
        confirm=_count(table, "confirm", repeats if search else 0, 0, problems),
        published=read_published(table.get("published", []), factors, problems),
        report=read_report(table.get("report", {}), problems, folder),
    )


def _text(table: Mapping[str, Any], key: str, problems: Problems) -> str:
    value = table.get(key, "")
    if isinstance(value, str):
        return value
    problems.add(key, f"got {value!r}, expected text")
    return ""


def _count(table: Mapping[str, Any], key: str, default: int, least: int, problems: Problems) -> int:
    """Return n of a [repeats] or [confirm] table."""
    found = table.get(key, {"n": default})
    n = found.get("n") if isinstance(found, Mapping) and set(found) == {"n"} else None
    if isinstance(n, int) and fits(n, int) and least <= n <= MOST_REPEATS:
        return n
    problems.add(key, f"got {found!r}, expected a table with n, a whole number from {least} to {MOST_REPEATS}")
    return default
