"""What the ledger keeps of a study's plan: its conditions, those of earlier sweeps among them, and trials to queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.errors import StudyError
from benchkit.ledger.samplers import stored_params
from benchkit.ledger.tables import NewTrial
from benchkit.plan import Condition, Plan, make_plan
from benchkit.storage import encode
from benchkit.study import Study
from benchkit.study.search import default_params, grid_points


def whole_of(study: Study) -> tuple[Condition, ...]:
    """Return all conditions of a study, none when some cannot be trained: a sweep may leave those out."""
    try:
        return make_plan(study).conditions
    except StudyError:
        return ()


def planned(plan: Plan, conditions: Sequence[Condition], before: Mapping[str, Any]) -> list[str]:
    """Return the keys of the study's conditions in report order: those of the plan, and those planned before.

    `conditions` are all of the study. A sweep of some does not make the report forget the others, as long as the study
    still has them.
    """
    now, whole = ([one.key for one in part] for part in (plan.conditions, conditions))
    known = before.get("conditions", [])
    if before.get("study") == encode(plan.study):
        kept = {*known, *now}
    else:
        kept = {key for key in known if key in whole} | set(now)
    return [key for key in dict.fromkeys([*whole, *known, *now]) if key in kept]


def new_trial(name: str, index: int, attempt: int, given: Mapping[str, Any]) -> NewTrial:
    """Return an attempt at a trial of the Optuna study of this name."""
    attributes = {"index": index, "attempt": attempt, **({"given": dict(given)} if given else {})}
    return NewTrial(study=name, attributes=attributes, given=given)


def given_of(plan: Plan, condition: Condition, index: int) -> dict[str, Any]:
    """Return what a trial is queued with: a grid search's point, or the study's own settings as a search's first."""
    search = plan.search_of(condition)
    if search is None:
        return {}
    if search.sampler == "grid":
        return stored_params(search, grid_points(search)[index])
    return stored_params(search, default_params(search, condition.settings)) if index == 0 else {}
