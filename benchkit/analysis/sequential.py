"""How far a study is whose repeats are added until its best condition is known: looks that were made, what comes next.

All of it follows from the planned looks and the trials: whoever reads the same ledger or capsule comes to the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchkit.analysis.candidates import CandidateSet, candidates
from benchkit.analysis.estimates import compared
from benchkit.analysis.wording import Finding, count, listing, names, number
from benchkit.duration import duration
from benchkit.plan import LEAVES_AT, InterimAnalysis, Plan, plan_of_looks, planned_looks
from benchkit.results import FINISHED, StudyResults
from benchkit.storage import DEFAULT_WORKSPACE

UNTIL = "--until-decided"
"""The option that adds repeats."""


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
    """Return how many of the first repeats of a condition have ended, whatever became of their files."""
    under_way = ("running", "stale", "waiting")
    trials = [trial for trial in results.trials if trial.condition.key == key and trial.state not in under_way]
    return next(index for index in range(len(trials) + 1) if index not in {trial.index for trial in trials})


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """An interim analysis that was made, and which conditions it left as candidates."""

    analysis: InterimAnalysis
    candidates: CandidateSet


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLooks:
    """The looks that are planned for a study, none where its repeats are fixed, and those that were taken."""

    planned: tuple[InterimAnalysis, ...] = ()
    taken: tuple[Look, ...] = ()


def looks_of(results: StudyResults) -> StudyLooks:
    """Return the looks of a study."""
    plan = planned_looks(results.decisions)
    return StudyLooks(planned=plan, taken=standing(results, plan).taken if plan else ())


def candidates_of(results: StudyResults, metric: str) -> CandidateSet:
    """Return which conditions may be the best of a study, as its last look found it where looks are planned.

    Of another metric than the study's own, and before the first look, at the level that a look has.
    """
    looks = looks_of(results)
    if not looks.planned:
        return candidates(results, metric, LEAVES_AT)
    if looks.taken and metric == results.study.report.metric:
        return looks.taken[-1].candidates
    return candidates(results, metric, looks.planned[max(0, len(looks.taken) - 1)].alpha)


def repeats_words(results: StudyResults) -> str:
    """Return how many repeats conditions have: `3 for each condition`, or `3 to 12, until decided: look 4 of 5`."""
    looks = looks_of(results)
    if not looks.planned:
        folds = ", each of which tests on a fold of its own" if results.study.splits == "folds" else ""
        return f"{results.study.repeats} for each condition{folds}"
    first, last = looks.planned[0].n, looks.taken[-1].analysis.n if looks.taken else looks.planned[0].n
    counts = f"{first} to {last}" if last > first else str(first)
    return f"{counts}, until decided: look {len(looks.taken)} of {len(looks.planned)}"


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


def look_findings(looks: StudyLooks) -> list[Finding]:
    """Say how many looks were taken at a study whose repeats are added until decided, and how they may err."""
    if not looks.planned:
        return []
    taken, planned = len(looks.taken), len(looks.planned)
    at = f", at {listing([str(look.analysis.n) for look in looks.taken])} repeats" if taken else ""
    left = [_left_words(before, look) for before, look in zip((None, *looks.taken), looks.taken, strict=False)]
    alphas = [number(look.alpha, 3) for look in looks.planned]
    spent = f"{alphas[0]} each" if len(set(alphas)) == 1 else listing(alphas)
    return [
        Finding(
            rule="looks",
            tone="note",
            sentence=f"{count(taken, 'look')} of {planned} planned {'was' if taken == 1 else 'were'} taken{at}; "
            "after each one, only conditions that might still be the best got more repeats.",
            evidence=f"{''.join(left)}The looks test at {spent}, 0.05 in all, so that looking again makes no winner; "
            "the intervals of means are so wide that those of all looks hold together with 95 %.",
        )
    ]


def _left_words(before: Look | None, look: Look) -> str:
    """Return a sentence on the conditions that left at a look, nothing without any."""
    gone = {one.key for one in before.candidates.left} if before else set()
    labels = [one.label for one in look.candidates.left if one.key not in gone]
    return f"At look {look.analysis.number} {names(labels)} left as clearly worse. " if labels else ""


def until_decided_command(results: StudyResults) -> str:
    """Return the command that adds repeats until decided: as the sweep was started, without a time or a choice."""
    return sweep_command(results, UNTIL)


def sweep_command(results: StudyResults, *more: str, workspace: str | None = None) -> str:
    """Return the command that goes on with a study: as the sweep was started, without a time or a choice, and `more`.

    A `workspace` takes the place of the one that was given then: that of `benchkit sweep` where it is its own.
    """
    try:
        given = shlex.split(results.command)
    except ValueError:  # a ledger's text that is no command line
        given = []
    if given[:2] != ["benchkit", "sweep"]:
        given = ["benchkit", "sweep", str(results.study.path or results.study.name)]
    kept = without_options(given, ("--only", "--retry", "--hours", "--stop-by"), (UNTIL, "--json"))
    if workspace is not None:
        kept = without_options(kept, ("-w", "--workspace"), ())
        kept += ["--workspace", workspace] if workspace not in ("", DEFAULT_WORKSPACE) else []
    return shlex.join([*kept, *more])


def without_options(words: Sequence[str], valued: Sequence[str], switches: Sequence[str]) -> list[str]:
    """Return a command's words without these options; those that are `valued` go with their values."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before not in valued and word.partition("=")[0] not in (*valued, *switches)
    ]
