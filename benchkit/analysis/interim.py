"""Looking at a study while repeats are added: planned interim analyses, and the chance of error that each spends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchkit.results import Decision, StudyResults

TOTAL_ALPHA = 0.05
"""The chance of error over all looks of a plan together."""

LEAVES_AT = 0.025
"""The level at which a report of a fixed number of repeats calls a condition worse than another.

Of near ties the truly best one is called so in 0.01 to 0.05 of simulated studies, most with three repeats of very
unequal spread (tests/decision_rules.py): Welch's degrees of freedom are themselves estimated.
"""

MOST_LOOKS = 5
"""So many looks a plan has at most: each one more makes the others stricter."""


PLAN = "interim analyses"
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
    text = next((decision.value for decision in decisions if decision.name == PLAN), "")
    return plan_from(text) if text else ()


def confidence_of(results: StudyResults) -> float:
    """Return the confidence of each interval of a study's means, by which those of all looks hold together with 0.95.

    Without planned looks 0.95; else 1 - the least alpha of a look, which is enough for any of them.
    """
    plan = planned_looks(results.decisions)
    return 1 - min((look.alpha for look in plan), default=TOTAL_ALPHA)
