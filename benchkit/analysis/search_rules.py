"""Rules about searches: what they found, what the winner's score was worth, whether their budgets were equal."""

from __future__ import annotations

from collections.abc import Sequence

from benchkit.analysis.findings import Evidence, Finding
from benchkit.analysis.outcome_rules import p_words
from benchkit.analysis.search import Confirmation, SearchSummary
from benchkit.analysis.wording import amount, count, listing, measured, metric_words, quoted, setting, span

UNEQUAL = 1.25
"""From this ratio between the most and the fewest epochs of two searches on, their budgets count as unequal."""


def search_gain(evidence: Evidence) -> Sequence[Finding]:
    """Say what each search found, what it spent, and what fresh repeats say of it."""
    return [_searched(search) for search in evidence.searches]


def _searched(search: SearchSummary) -> Finding:
    spent = f"{search.started} of {search.planned} trials started"
    if search.best_value is None:
        sentence = f"{the_search(search)} has no finished trial yet."
        return Finding(rule="search", tone="note", sentence=sentence, evidence=f"{spent}.", about=(search.label,))
    params = listing([f"{path} = {setting(value)}" for path, value in search.best_params.items()])
    confirmation = search.confirmation
    found = f"{metric_words(search.goal)} of {measured(search.goal, search.best_value)}"
    sentence = f"{the_search(search)} found a {found}"
    evidence = f"Trial {search.best_place}: {params}. {spent}, {search.epochs:,} epochs in all{_pruned(search)}."
    if confirmation is None or confirmation.chosen is None:
        sentence = f"{sentence}; {_unconfirmed(search)}."
        return Finding(rule="search", tone="note", sentence=sentence, evidence=evidence, about=(search.label,))
    mean = measured(search.goal, confirmation.chosen.mean)
    gives = "gives" if confirmation.chosen.n == 1 else "give"
    sentence = (
        f"{sentence}, and {count(confirmation.chosen.n, 'fresh repeat')} of these settings {gives} {mean} on average"
    )
    return Finding(
        rule="search", tone="note", sentence=f"{sentence}{_gain(search)}.", evidence=evidence, about=(search.label,)
    )


def _unconfirmed(search: SearchSummary) -> str:
    own = search.confirmation.default if search.confirmation else None
    if search.chose_default and own is not None:
        repeats = f"whose {count(own.n, 'repeat')} {'gives' if own.n == 1 else 'give'}"
        return f"no trial beat the study's own settings, {repeats} {measured(search.goal, own.mean)} on average"
    return "a search's best score is too good on average, and no fresh repeats confirm it yet"


def _pruned(search: SearchSummary) -> str:
    return "" if search.pruned_share is None else f", {100 * search.pruned_share:.0f} % of finished trials pruned"


def _gain(search: SearchSummary) -> str:
    confirmation = search.confirmation
    if confirmation is None or confirmation.gain is None:
        return ""
    gain = confirmation.gain.difference
    better = gain.mean < 0 if search.direction == "minimize" else gain.mean > 0
    words = f", {amount(search.goal, gain.mean)} {'better' if better else 'worse'} than the study's own settings"
    p = confirmation.gain.p
    if p is None:
        return f"{words} (too few pairs for a test)"
    return f"{words} (paired t test, p {p_words(p)})"


def the_search(search: SearchSummary) -> str:
    """Return the search as a sentence begins with it, with its condition where there are several."""
    return "The search" if search.whole else f"The search of {quoted(search.label)}"


def winner_bias(evidence: Evidence) -> Sequence[Finding]:
    """Say how far the score of each search's best trial was from what fresh repeats of its settings give."""
    return [
        _biased(search, search.confirmation)
        for search in evidence.searches
        if search.confirmation is not None and search.confirmation.chosen and search.confirmation.optimism is not None
    ]


def _biased(search: SearchSummary, confirmation: Confirmation) -> Finding:
    chosen, off = confirmation.chosen, confirmation.optimism
    assert chosen is not None and off is not None and search.best_value is not None
    gives = "gives" if chosen.n == 1 else "give"
    interval = "One fresh repeat has no interval."
    if chosen.low is not None and chosen.high is not None:
        interval = f"95 % t interval of the fresh repeats: {span(search.goal, chosen.low, chosen.high)}."
    return Finding(
        rule="winner-bias",
        tone="note",
        sentence=f"{the_search(search)} promised {amount(search.goal, off)} too {'much' if off > 0 else 'little'}: its "
        f"best trial has a {metric_words(search.goal)} of {measured(search.goal, search.best_value)}, and "
        f"{count(chosen.n, 'fresh repeat')} of its settings {gives} {measured(search.goal, chosen.mean)}.",
        evidence=f"The best of {count(search.states.get('done', 0), 'done trial')} was chosen for its score, so that "
        f"part of it is luck. {interval}",
        about=(search.label,),
    )


def unequal_budgets(evidence: Evidence) -> Sequence[Finding]:
    """Say when searches that stand side by side have trained unequally long."""
    rows = sorted(evidence.searches, key=lambda search: search.epochs)
    if len(rows) < 2 or rows[-1].epochs < UNEQUAL * rows[0].epochs:
        return []
    least, most = rows[0], rows[-1]
    return [
        Finding(
            rule="unequal-budgets",
            tone="note",
            sentence=f"The searches had unequal budgets: {quoted(most.label)} trained {most.epochs:,} epochs, "
            f"{quoted(least.label)} {least.epochs:,}.",
            evidence=f"Trials started: {most.started} and {least.started}; pruned: {most.states.get('pruned', 0)} and "
            f"{least.states.get('pruned', 0)}. They compare at the epochs that both had.",
            about=(most.label, least.label),
        )
    ]
