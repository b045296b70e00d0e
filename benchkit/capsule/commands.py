"""The commands that train and report a study again from the study file that its capsule holds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import product

from benchkit.errors import StudyError
from benchkit.plan import make_plan
from benchkit.results import StudyResults


def commands_of(results: StudyResults, file: str) -> tuple[str, ...]:
    """Return the commands that train the same conditions as the results', from the study file `file`, and report them.

    Overrides are part of that file, so that no `--set` is needed; where only some conditions were trained, `--only`
    picks them, in as few commands as it takes.
    """
    plugins = [part for name in _plugin_files(results) for part in ("--plugin", name)]
    sweeps = [["benchkit", "sweep", file, *only, *plugins] for only in _choices(results)]
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
