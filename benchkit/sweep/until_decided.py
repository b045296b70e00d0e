"""Repeats until decided: what a sweep trains beyond a study's own repeats, one planned interim analysis after another.

Nothing but the plan is written down: which analyses were made, and what they ask for, follows from the ledger's trials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from benchkit.analysis.candidates import Standing, plan_for, standing, standing_words
from benchkit.analysis.wording import count, listing
from benchkit.ledger import Ledger
from benchkit.ledger.ledger import decide, decisions_of
from benchkit.ledger.readback import results_of
from benchkit.plan import INTERIM_ANALYSES, Plan, plan_text, planned_looks
from benchkit.results import WITHOUT_FILES, StudyResults
from benchkit.study import Study
from benchkit.study.study import UNTIL_DECIDED


def begin_analyses(ledger: Ledger, study: Study, most: int, say: Callable[[str], None]) -> Mapping[str, int]:
    """Return how many repeats the interim analyses of a registered study ask for as they stand, by condition.

    They are decided now if they are not: with at most so many repeats of a condition (0: as many as the study says, or
    as is usual). What an earlier sweep came to is said.
    """
    results = results_of(ledger, study.name, upcoming=True)
    plan = planned_looks(results.decisions)
    if not plan:
        text = plan_text(plan_for(results, most or study.most or UNTIL_DECIDED))
        plan = planned_looks(
            [decide(ledger, study.name, INTERIM_ANALYSES, text, "repeats until the best condition is known")]
        )
    state = standing(results, plan)
    if state.taken and state.next:
        say(standing_words(state))
    return state.asked


def standing_of(ledger: Ledger, study: Study) -> Standing | None:
    """Return how far the interim analyses of a study are, None where none are planned."""
    plan = planned_looks(decisions_of(ledger, study.name).values())
    return standing(results_of(ledger, study.name, upcoming=True), plan) if plan else None


def _waited_words(results: StudyResults, state: Standing) -> str:
    """Return what keeps a look from being taken that this sweep can do nothing about."""
    lost = Counter(
        trial.state
        for trial in results.trials
        if trial.condition.key in state.open and trial.index < state.asked[trial.condition.key]
    )
    told = [f"{count(lost[one], 'trial')} with {one}" for one in WITHOUT_FILES if lost[one]]
    if not told:
        return "conditions that this sweep leaves out"
    return f"{listing(told)}; benchkit status says what brings them"


def train_until_decided(
    ledger: Ledger, plan: Plan, say: Callable[[str], None], train: Callable[[Plan, str], bool]
) -> Plan:
    """Train what each interim analysis asks for until none is left; return the plan with all that was asked for.

    `plan` holds the conditions of this sweep: an analysis waits for those of others. `train` trains a plan under a
    title, and returns False when the time is up.
    """
    analyses = planned_looks(decisions_of(ledger, plan.study.name).values())
    told = ""
    while True:
        results = results_of(ledger, plan.study.name, upcoming=True)
        state = standing(results, analyses)
        words = standing_words(state)
        if state.taken:
            say(words)
        plan = replace(plan, more=state.asked)
        ours = tuple(one for one in plan.conditions if one.key in state.open)
        if state.next is None or not ours:
            return plan
        if words == told:
            say(f"the next look waits for {_waited_words(results, state)}")
            return plan
        told = words
        due = replace(plan, conditions=ours)
        ledger.enqueue(due)
        title = f"look {len(state.taken) + 1} of {len(analyses)}, at {count(state.next.n, 'repeat')}"
        if not train(due, title):
            return plan
