"""How far a study is whose repeats are added until its best condition is known: looks that were made, what comes next.

All of it follows from the planned looks and the trials: whoever reads the same ledger or capsule comes to the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchkit.analysis.candidates import LEAVES_AT, CandidateSet, candidates
from benchkit.analysis.estimates import compared
from benchkit.analysis.interim import (
    InterimAnalysis,
    Look,
    looks_taken,
    missing_repeats,
    next_look,
    plan_from,
    plan_of_looks,
)
from benchkit.analysis.wording import count, names
from benchkit.duration import duration
from benchkit.plan import Plan
from benchkit.results import FINISHED, Decision, StudyResults

UNTIL = "--until-decided"
"""The option that adds repeats."""

PLAN = "interim analyses"
"""The name of the decision that holds the plan of looks."""


def planned_looks(decisions: Iterable[Decision]) -> tuple[InterimAnalysis, ...]:
    """Return the looks among what is decided for a study, none where its repeats are fixed.

    Raises `ValueError` for a record that holds no plan.
    """
    text = next((decision.value for decision in decisions if decision.name == PLAN), "")
    return plan_from(text) if text else ()


def plan_for(results: StudyResults, most: int) -> tuple[InterimAnalysis, ...]:
    """Return the looks that a study gets which is to be trained until decided, with at most so many repeats.

    Results from which a report could have told conditions apart, which have two repeats of each, count as a look that
    was taken, whether or not somebody looked.
    """
    conditions = compared(results)
    ended = min((_ended(results, condition.key) for condition in conditions), default=0)
    first = max(results.study.repeats, ended)
    return plan_of_looks(first, max(2, first, most), already_reported=ended > 1)


def _ended(results: StudyResults, key: str) -> int:
    """Return how many of the first repeats of a condition have ended."""
    trials = [trial for trial in results.trials if trial.condition.key == key and trial.state in FINISHED]
    return next(index for index in range(len(trials) + 1) if index not in {trial.index for trial in trials})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the looks of a study are.

    `open` are the conditions that may be the best, by key and label, after the last look. By key, `shown` is the number
    of repeats that the last look at each condition had, `asked` the number that it has or needs for the next one.
    `missing` is how many of these have not ended. `seconds` is what they take one after another, as long as trials of
    their condition took so far, None where none tells.
    """

    plan: tuple[InterimAnalysis, ...]
    taken: tuple[Look, ...]
    open: Mapping[str, str]
    shown: Mapping[str, int]
    asked: Mapping[str, int]
    next: InterimAnalysis | None
    missing: int
    seconds: float | None

    @property
    def decided(self) -> bool:
        """Return whether the last look found the best condition."""
        return bool(self.taken) and self.taken[-1].candidates.decided


def standing(results: StudyResults, plan: Sequence[InterimAnalysis]) -> Standing:
    """Return how far the looks of a plan, of at least one, are; `results` hold every trial, later ones too.

    The first look waits for the searches, whose best are compared as well.
    """
    taken = () if _is_searching(results) else looks_taken(results, results.study.report.metric, plan)
    still = {one.key: one.label for one in compared(results)}
    shown = asked = dict.fromkeys(still, plan[0].n)
    for look in taken:
        shown = asked
        still = {one.key: one.label for one in look.candidates.open}
        if len(still) < 2 or look.analysis.number == len(plan):
            break
        asked = {**shown, **dict.fromkeys(still, plan[look.analysis.number].n)}
    upcoming = next_look(plan, taken) if len(still) > 1 else None
    missing = {key: len(indices) for key, indices in missing_repeats(results, plan, taken).items() if upcoming}
    return Standing(
        plan=tuple(plan),
        taken=taken,
        open=still,
        shown=shown,
        asked=asked,
        next=upcoming,
        missing=sum(missing.values()),
        seconds=_seconds(results, missing),
    )


def _is_searching(results: StudyResults) -> bool:
    """Return whether a search is under way whose best will be trained again."""
    if not results.study.confirm:
        return False
    plan = Plan(study=results.study, conditions=results.conditions)
    wanted = sum(plan.count(one) for one in plan.conditions if one.kind == "search")
    return sum(trial.state in FINISHED for trial in results.searched()) < wanted


def _seconds(results: StudyResults, missing: Mapping[str, int]) -> float | None:
    seconds: dict[str, list[float]] = {}
    for trial in results.trials:
        if trial.phase != "search" and trial.outcome and trial.outcome.cost:
            seconds.setdefault(trial.condition.key, []).append(trial.outcome.cost.seconds)
    if not seconds:
        return None
    usual = [second for found in seconds.values() for second in found]
    return sum(n * fmean(seconds.get(key, usual)) for key, n in missing.items())


def candidates_of(results: StudyResults, metric: str) -> CandidateSet:
    """Return which conditions may be the best of a study, as its last look found it where looks are planned.

    Of another metric than the study's own, and before the first look, at the level that a look has.
    """
    plan = planned_looks(results.decisions)
    if not plan:
        return candidates(results, metric, LEAVES_AT)
    taken = standing(results, plan).taken
    if taken and metric == results.study.report.metric:
        return taken[-1].candidates
    return candidates(results, metric, plan[max(0, len(taken) - 1)].alpha)


def standing_words(state: Standing) -> str:
    """Return a sentence on what is decided, what is still open, and what the next look costs."""
    looks, labels = len(state.plan), list(state.open.values())
    time = "" if state.seconds is None else f", about {duration(state.seconds, whole=True)} one after another"
    cost = f"takes {count(state.missing, 'trial')}{time}"
    if not state.taken:
        return f"no look yet: the first of {looks}, at {state.plan[0].n} repeats, {cost}"
    last = state.taken[-1].analysis
    at = f"look {last.number} of {looks}, at {count(last.n, 'repeat')}"
    if state.decided:
        return f"decided at {at}: {names(labels)} is the best"
    if len(labels) < 2:
        return f"{at}: there are no two conditions to compare"
    if state.next is None:
        return f"not decided at {at}, the last: {names(labels)} may be the best"
    return f"{at}: {names(labels)} may be the best; the next, at {state.next.n} repeats, {cost}"


def until_decided_command(results: StudyResults) -> str:
    """Return the command that adds repeats until decided: as the sweep was started, for all of its conditions."""
    given = shlex.split(results.command)
    if given[:2] != ["benchkit", "sweep"]:
        given = ["benchkit", "sweep", str(results.study.path or results.study.name)]
    for option in ("--only", "--retry"):
        while option in given:
            del given[given.index(option) : given.index(option) + 2]
    return shlex.join([*(word for word in given if word != UNTIL), UNTIL])
