"""What the ledger keeps of a study's plan: its conditions, those of earlier sweeps among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.errors import StudyError
from benchkit.plan import Condition, Plan, make_plan
from benchkit.storage import encode
from benchkit.study import Study


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
