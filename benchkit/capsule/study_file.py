"""The study file that a capsule holds, and the commands that train and report the study again from it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from benchkit.errors import StudyError
from benchkit.plan import LEAVES_AT, make_plan, planned_looks
from benchkit.results import StudyResults
from benchkit.storage import encode, to_toml
from benchkit.study import Factor, Origin, Published, Search, SearchRange, Study


def study_text(study: Study) -> str:
    """Return the study as TOML; reading it gives the same conditions, with the same keys, without any `--set`."""
    table: dict[str, Any] = {
        "title": study.title,
        "question": study.question,
        "description": study.description,
        "seed": study.seed,
        **encode(study.settings),
    }
    if study.factors:
        table["factors"] = {factor.path: _levels(factor) for factor in study.factors}
    if study.search:
        table["search"] = _search(study.search)
    table["repeats"] = {"n": study.repeats, **({"most": study.most, "until": "decided"} if study.most else {})}
    if study.splits != "fixed":
        table["repeats"]["splits"] = study.splits
    if study.search or study.confirm:
        table["confirm"] = {"n": study.confirm}
    if study.origin:
        table["source"] = _source(study.origin)
    if study.published:
        table["published"] = [_published(one) for one in study.published]
    report = study.report
    table["report"] = {
        **{key: value for key, value in encode(replace(report, logo=None)).items() if key not in SELDOM or value},
        "figures": [{"name": name, **encode(options)} if options else name for name, options in report.figures],
        "logo": _relative(report.logo, study.path),
    }
    # The order of factors, of what a level fixes and of a search's space is part of what they mean.
    return to_toml(table, ordered=("factors", "search.space"))


SELDOM = ("text", "metrics")
"""What a report is seldom asked for, and is not written down empty."""


def _relative(logo: Path | None, file: Path | None) -> str | None:
    """Return a logo's path as the study file has it; a capsule holds no other path of the machine."""
    if logo is None or not logo.is_absolute():
        return None if logo is None else logo.as_posix()
    folder = file.resolve().parent if file else logo.parent
    return (logo.relative_to(folder) if logo.is_relative_to(folder) else Path(logo.name)).as_posix()


def _levels(factor: Factor) -> list[Mapping[str, Any]]:
    return [
        {"label": level.label, "value": encode(level.settings[factor.path])}
        if set(level.settings) == {factor.path}
        else {"label": level.label, "set": encode(level.settings)}
        for level in factor.levels
    ]


def _search(search: Search) -> Mapping[str, Any]:
    return {
        "trials": search.trials,
        "goal": [goal.metric for goal in search.goals],
        "sampler": list(search.samplers) or search.sampler,
        "pruner": search.pruner,
        "space": {one.path: _range(one) for one in search.space},
    }


def _range(one: SearchRange) -> Any:
    if one.choices:
        return encode(one.choices)
    found: dict[str, Any] = {"low": one.low, "high": one.high}
    if one.log:
        found["log"] = True
    return found if one.step is None else {**found, "step": one.step}


def _published(one: Published) -> Mapping[str, Any]:
    rows = [{key: value for key, value in encode(row).items() if value is not None} for row in one.rows]
    stated = {} if one.classes is None else {"classes": one.classes}
    return {"source": one.source, "url": one.url, "note": one.note, **stated, "rows": rows}


def _source(origin: Origin) -> Mapping[str, Any]:
    """Return the [source] table; what is empty is left out, and reading it gives the same `Origin`."""
    table = _given(origin, leave_out=("states", "claims"))
    table["states"] = {
        stated.path: {"value": encode(stated.values), **_given(stated, leave_out=("path", "values"))}
        for stated in origin.states
    }
    table["claims"] = [
        {("from" if key == "start" else key): value for key, value in _given(claim).items()} for claim in origin.claims
    ]
    return table


def _given(record: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    plain = encode(record)
    return {key: value for key, value in plain.items() if key not in leave_out and value not in ("", None, [], {})}


def commands_of(results: StudyResults, file: str) -> tuple[str, ...]:
    """Return the commands that train the same conditions as the results', from the study file `file`, and report them.

    Overrides are part of that file, so that no `--set` is needed; where only some conditions were trained, `--only`
    picks them, in as few commands as it takes.
    """
    plugins = [part for name in _plugin_files(results) for part in ("--plugin", name)]
    sweeps = [["benchkit", "sweep", file, *only, *plugins] for only in _choices(results)]
    if (looks := planned_looks(results.decisions)) and not results.study.most:
        until = [*sweeps[-1], "--until-decided", "--most", str(looks[-1].n)]
        # Where the fixed repeats were a look already, they are trained by a sweep of their own.
        sweeps = [*(sweeps if looks[0].alpha == LEAVES_AT else sweeps[:-1]), until]
    name = file.removesuffix(".toml")
    return (*(shlex.join(words) for words in sweeps), shlex.join(["benchkit", "report", name]))


def _plugin_files(results: StudyResults) -> tuple[str, ...]:
    tables = [trial.outcome.environment.get("sources", {}) for trial in results.trials if trial.outcome]
    files = {str(one.get("file", "")) for table in tables for one in table.values()}
    return tuple(sorted(files - {""}))


def _choices(results: StudyResults) -> list[list[str]]:
    """Return the `--only` arguments of each command: none when all of the study's conditions were trained."""
    trained = [condition for condition in results.conditions if condition.kind == "grid"]
    try:
        planned = {condition.key for condition in make_plan(results.study).conditions if condition.kind == "grid"}
    except StudyError:
        planned = set()
    paths = [factor.path for factor in results.study.factors]
    if not paths or {condition.key for condition in trained} == planned:
        return [[]]
    levels = {path: list(dict.fromkeys(c.levels[path] for c in trained if path in c.levels)) for path in paths}
    block = set(product(*levels.values()))
    if block == {tuple(c.levels.get(path, "") for path in paths) for c in trained}:
        return [_only(levels)]
    return [_only({path: [c.levels[path]] for path in paths if path in c.levels}) for c in trained]


def _only(levels: dict[str, Sequence[str]] | dict[str, list[str]]) -> list[str]:
    return [part for path, labels in levels.items() for part in ("--only", f"{path}={','.join(labels)}")]
