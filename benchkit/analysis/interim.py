"""Looking at a study while repeats are added: planned interim analyses, and the chance of error that each spends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchkit.analysis.candidates import LEAVES_AT, CandidateSet, candidates
from benchkit.analysis.estimates import compared
from benchkit.results import FINISHED, StudyResults

TOTAL_ALPHA = 0.05
"""The chance of error over all looks of a plan together."""

MOST_LOOKS = 5
"""So many looks a plan has at most: each one more makes the others stricter."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """An interim analysis that was made, and which conditions it left as candidates."""

    analysis: InterimAnalysis
    candidates: CandidateSet


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


def looks_taken(results: StudyResults, metric: str, plan: Sequence[InterimAnalysis]) -> tuple[Look, ...]:
    """Return the looks of a plan for which all repeats have ended, in order, up to the one that decided.

    A look uses the repeats that it planned alone, and waits for those of the conditions that may still be the best. A
    condition that left at a look stays out, unless one with a lower mean is kept. A repeat that failed or diverged for
    good has ended: it gives no value.
    """
    taken: list[Look] = []
    waited = {condition.key for condition in compared(results)}
    among: set[str] | None = None
    for analysis in plan:
        if not waited or any(_missing(results, key, analysis.n) for key in waited):
            break
        found = candidates(results, metric, analysis.alpha, most=analysis.n, among=among)
        taken.append(Look(analysis=analysis, candidates=found))
        if found.decided:
            break
        waited = {one.key for one in found.open}
        among = {one.key for one in compared(results)} - {one.key for one in found.left}
    return tuple(taken)


def next_look(plan: Sequence[InterimAnalysis], taken: Sequence[Look]) -> InterimAnalysis | None:
    """Return the look that comes next, None after the one that decided and after the last one."""
    if taken and taken[-1].candidates.decided:
        return None
    return plan[len(taken)] if len(taken) < len(plan) else None


def missing_repeats(
    results: StudyResults, plan: Sequence[InterimAnalysis], taken: Sequence[Look]
) -> dict[str, tuple[int, ...]]:
    """Return the indices of repeats that have not ended and that the next look waits for, by condition key."""
    upcoming = next_look(plan, taken)
    if upcoming is None:
        return {}
    keys = [one.key for one in taken[-1].candidates.open] if taken else [one.key for one in compared(results)]
    missing = {key: _missing(results, key, upcoming.n) for key in keys}
    return {key: indices for key, indices in missing.items() if indices}


def _missing(results: StudyResults, key: str, n: int) -> tuple[int, ...]:
    condition = next(one for one in compared(results) if one.key == key)
    ended = {index for index, trial in results.repeats(condition).items() if trial.state in FINISHED}
    return tuple(index for index in range(n) if index not in ended)
