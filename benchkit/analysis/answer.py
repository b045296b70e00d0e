"""The short answer of a report: who is best, the first thing to distrust, and what would decide it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchkit.analysis.interim import planned_looks
from benchkit.analysis.ranking import Ranking, winner_sentences
from benchkit.analysis.sequential import plan_for, standing, standing_words, until_decided_command
from benchkit.analysis.trials import TestReads
from benchkit.analysis.wording import Finding, count
from benchkit.duration import duration
from benchkit.results import StudyResults
from benchkit.study.study import UNTIL_DECIDED


def short_answer(
    results: StudyResults, ranking: Ranking, reads: TestReads, findings: Sequence[Finding], beside: str = ""
) -> tuple[str, ...]:
    """Return up to three sentences on who is best, what to distrust or what else was found, and what would decide it.

    `beside` is a sentence that belongs to the leader's: its balanced accuracy, of unbalanced classes.

    Distrusted is the first caution, else told is what a search gave, else that nothing is missing; of a smoke test it
    is first. An undecided study's answer ends with the command that decides it.
    """
    warnings = [finding.sentence for finding in findings if finding.tone == "warning"]
    complete = f"Nothing planned is missing: {_trials_words(results, reads)}."
    searched = [finding.sentence for finding in findings if finding.rule in ("winner-bias", "search")]
    closing = (warnings or searched[::-1] or [complete])[0]
    if results.study.smoke:
        return (closing, *winner_sentences(ranking))
    further = [deciding_words(results)] if ranking.rivals else []
    leader, *others = winner_sentences(ranking)
    return (f"{leader} {beside}".rstrip(), *others, closing, *further)


def deciding_words(results: StudyResults) -> str:
    """Return how an undecided study is decided: the command and what its next look takes, or how far its looks are."""
    planned = planned_looks(results.decisions)
    if planned:
        words = standing_words(standing(results, planned))
        return f"{words[:1].upper()}{words[1:]}."
    state = standing(results, plan_for(results, results.study.most or UNTIL_DECIDED))
    command = f"To decide: {until_decided_command(results)}"
    if state.next is None:
        return command
    time = "" if state.seconds is None else f", about {duration(state.seconds, whole=True)} one after another"
    return f"{command} (next at {count(state.next.n, 'repeat')}: {count(state.missing, 'trial')}{time})"


def _trials_words(results: StudyResults, reads: TestReads) -> str:
    states = Counter(trial.state for trial in results.trials)
    parts = [f"{states[state]} {state}" for state in ("done", "pruned", "diverged", "failed") if states[state]]
    words = f"{count(len(results.trials), 'trial')} ({', '.join(parts)})"
    if reads.trials and not reads.repeated:
        return f"{words}, and the test images were read once by each of {count(reads.trials, 'scored model')}"
    return words
