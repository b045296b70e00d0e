"""What a search did: how much it spent, what it found, and what fresh repeats say of that, in numbers and sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchkit.analysis.comparisons import ALPHA, PairedComparison, paired_by_repeat
from benchkit.analysis.estimates import Estimate, estimate_of, planned_trials, searched_conditions, values_by_repeat
from benchkit.analysis.wording import (
    TIE,
    Finding,
    amount,
    count,
    listing,
    measured,
    metric_words,
    p_words,
    quoted,
    setting,
    span,
)
from benchkit.plan import Condition
from benchkit.results import FINISHED, StudyResults, Trial
from benchkit.study import Goal
from benchkit.study.tree import value_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Repeats after a search: the chosen settings on fresh ones, against the study's own settings in the goal's metric.

    `optimism` is how much better the search's single best score was than the mean of the fresh repeats (positive: the
    search promised too much). `gain` is chosen minus default, paired by repeat: negative is good where the goal is
    minimised.
    """

    metric: str
    chosen: Estimate | None
    default: Estimate | None
    gain: PairedComparison | None
    optimism: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """One search: its budget as planned and as spent, the best trial so far and the confirmation.

    `label` is unique: the `condition` within which it searched and, where the study compares several, its `sampler`.
    `states` counts its trials by state. `epochs` and `seconds` are what all of them trained, so that searches are
    compared at the budget they had. `whole` says that no factor divides the search. `best_place` is the best trial's
    number as a sweep names it, from 1; `bests` are the epochs spent and the score after each trial that was better
    than all before it. `front` holds the numbers of the trials that no other beats in every goal (several goals only).
    `chose_default` says that the best trial has the study's own settings: then nothing is confirmed, as the condition's
    own repeats stand for them.
    `same_as` names the sampler whose search chose the same settings and whose fresh repeats stand for both.
    """

    key: str
    label: str
    whole: bool
    goal: str
    direction: str
    planned: int
    states: Mapping[str, int]
    epochs: int
    seconds: float
    best_place: int | None
    best_value: float | None
    best_params: Mapping[str, Any]
    front: tuple[int, ...]
    chose_default: bool
    confirmation: Confirmation | None
    condition: str = ""
    sampler: str = ""
    bests: tuple[tuple[int, float], ...] = ()
    same_as: str = ""

    def best_within(self, epochs: int) -> float | None:
        """Return the best score that the search had found when it had spent a number of epochs, or None."""
        return next((score for spent, score in reversed(self.bests) if spent <= epochs), None)

    @property
    def started(self) -> int:
        """Return how many trials have been started."""
        return sum(self.states.values()) - self.states.get("waiting", 0)

    @property
    def ended(self) -> bool:
        """Return whether every trial that was planned has ended."""
        return sum(self.states.get(state, 0) for state in FINISHED) >= self.planned

    @property
    def pruned_share(self) -> float | None:
        """Return the pruned share of the finished trials, None before any has finished."""
        finished = sum(self.states.get(state, 0) for state in FINISHED)
        return self.states.get("pruned", 0) / finished if finished else None


def search_summaries(results: StudyResults) -> tuple[SearchSummary, ...]:
    """Return the summary of every search of the study, none when it has no search."""
    search = results.study.search
    if search is None:
        return ()
    return tuple(_summary(results, condition, search.goals) for condition in searched_conditions(results))


def _summary(results: StudyResults, condition: Condition, goals: Sequence[Goal]) -> SearchSummary:
    trials = results.searched(condition)
    goal = goals[0]
    best = best_trial(trials, goal)
    score = best.value(goal.metric) if best else None
    within = condition.storage_label.removesuffix(", search") if condition.levels else "the study"
    chosen = dict(best.params) if best else {}
    confirm = _confirming(results, condition, chosen)
    return SearchSummary(
        key=condition.key,
        label=f"{within}, by {condition.sampler}" if condition.sampler else within,
        whole=not condition.levels,
        goal=goal.metric,
        direction=goal.direction,
        planned=planned_trials(results, condition),
        states=dict(Counter(trial.state for trial in trials)),
        epochs=sum(len(trial.history) for trial in trials),
        seconds=sum(record.seconds for trial in trials for record in trial.history),
        best_place=best.index + 1 if best else None,
        best_value=score,
        best_params=chosen,
        front=tuple(trials[place - 1].index + 1 for place in front(trials, goals)) if len(goals) > 1 else (),
        chose_default=best is not None
        and all(value_at(condition.settings, path) == value for path, value in chosen.items()),
        confirmation=_confirmation(results, condition, confirm, goal, score),
        condition=within,
        sampler=condition.sampler,
        bests=tuple(_bests(trials, goal)),
        same_as=confirm.sampler if confirm and confirm.parent != condition.key else "",
    )


def _bests(trials: Sequence[Trial], goal: Goal) -> Iterator[tuple[int, float]]:
    spent, best = 0, math.inf
    for trial in trials:
        spent += len(trial.history)
        value = trial.value(goal.metric) if trial.state == "done" else None
        if value is not None and goal.sign * value < best:
            best = goal.sign * value
            yield spent, value


def _confirming(results: StudyResults, condition: Condition, params: Mapping[str, Any]) -> Condition | None:
    """Return what trains a search's best settings again, its own or that of another sampler that chose the same.

    What was the best of more trials, or of ones that were lost since, says nothing of these settings.
    """
    confirms = [confirm for confirm in results.conditions if confirm.kind == "confirm-best"]
    own = (one for one in confirms if one.parent == condition.key and dict(one.chosen) in (params, {}))
    same = (one for one in confirms if dict(one.levels) == dict(condition.levels) and dict(one.chosen) == params)
    return next(own, next(same, None) if condition.sampler else None)


def best_trial(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """Return the done trial with the best score in the goal, the earlier one of equals, or None."""
    return goal.best((trial.value(goal.metric), trial) for trial in trials if trial.state == "done")


def front(trials: Sequence[Trial], goals: Sequence[Goal]) -> tuple[int, ...]:
    """Return the places, from 1, of the done trials that no other equals or beats in every goal (Pareto front)."""
    points: list[tuple[int, tuple[float, ...]]] = []
    for number, trial in enumerate(trials, 1):
        scores = [(goal.sign, trial.value(goal.metric)) for goal in goals] if trial.state == "done" else []
        point = tuple(sign * score for sign, score in scores if score is not None)
        if len(point) == len(goals):
            points.append((number, point))
    return tuple(number for number, point in points if not any(_beats(other, point) for _, other in points))


def _beats(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _confirmation(
    results: StudyResults, condition: Condition, best: Condition | None, goal: Goal, score: float | None
) -> Confirmation | None:
    default = next((c for c in results.conditions if c.kind == "grid" and c.key == condition.parent), None)
    metric = goal.metric
    if best is None and default is None:
        return None
    chosen = estimate_of(results, best, metric) if best else None
    first, second = (values_by_repeat(results, one, metric) if one else {} for one in (best, default))
    return Confirmation(
        metric=metric,
        chosen=chosen,
        default=estimate_of(results, default, metric) if default else None,
        gain=paired_by_repeat(first, second),
        optimism=goal.sign * (chosen.mean - score) if chosen and score is not None else None,
    )


ROUNDING = 1e-12
"""Below this a difference of means is that of equal scores."""
UNEQUAL = 1.25
"""From this ratio between the most and the fewest epochs of two searches on, their budgets count as unequal."""

Conclusion = Literal["unfinished", "nothing", "own", "unconfirmed", "alone", "better", "worse", "as good"]


def search_findings(searches: Sequence[SearchSummary]) -> list[Finding]:
    """Say what the searches found and promised, which sampler was ahead, and whether their budgets were equal."""
    rules = (gain_findings, winner_bias_findings, sampler_findings, budget_findings)
    return [finding for rule in rules for finding in rule(searches)]


def gain_findings(searches: Sequence[SearchSummary]) -> list[Finding]:
    """Say what each search found, what it spent, and what fresh repeats say of it; alike conclusions together."""
    alike = _grouped(searches, lambda search: (_conclusion(search), _is_open(search)))
    return [_searched(group[0]) if len(group) == 1 else _searched_alike(group) for group in alike]


def _grouped(searches: Iterable[SearchSummary], key: Callable[[SearchSummary], object]) -> list[list[SearchSummary]]:
    groups: dict[object, list[SearchSummary]] = {}
    for search in searches:
        groups.setdefault(key(search), []).append(search)
    return list(groups.values())


def _conclusion(search: SearchSummary) -> Conclusion:
    confirmation = search.confirmation
    if search.best_value is None:
        return "nothing" if search.ended else "unfinished"
    if confirmation is None or confirmation.chosen is None:
        return "own" if search.chose_default and confirmation and confirmation.default else "unconfirmed"
    if confirmation.gain is None:
        return "alone"
    gain = confirmation.gain.difference.mean
    if abs(gain) <= TIE:
        return "as good"
    return "better" if (gain < 0 if search.direction == "minimize" else gain > 0) else "worse"


def _is_open(search: SearchSummary) -> bool:
    """Return whether fresh repeats differ from those of the study's own settings by what may be chance."""
    gain = search.confirmation.gain if search.confirmation else None
    return gain is not None and abs(gain.difference.mean) > TIE and (gain.n < 2 if gain.p is None else gain.p >= ALPHA)


def _searched(search: SearchSummary) -> Finding:
    confirmation = search.confirmation
    if search.best_value is None:
        has = "ended without a score" if search.ended else "has no finished trial yet"
        sentence, evidence = f"{the_search(search)} {has}", _spent(search)
    else:
        sentence = f"{the_search(search)} found a {_best_words(search)}"
        evidence = f"Trial {search.best_place}: {_chosen(search)}. {_spent(search)}"
        if confirmation is None or confirmation.chosen is None:
            sentence += f"; {_unconfirmed(search)}"
        else:
            fresh = f"{count(confirmation.chosen.n, 'fresh repeat')} of these settings {_give(confirmation.chosen)}"
            mean = measured(search.goal, confirmation.chosen.mean)
            sentence += f", and {fresh} {mean} on average{_gain_words(search)}"
    return Finding(rule="search", sentence=f"{sentence}.", evidence=f"{evidence}.", about=(search.label,))


def _give(repeats: Estimate) -> str:
    return "gives" if repeats.n == 1 else "give"


def _best_words(search: SearchSummary) -> str:
    return f"{metric_words(search.goal)} of {measured(search.goal, search.best_value or 0.0)}"


def _chosen(search: SearchSummary) -> str:
    same = f" (as the search by {search.same_as})" if search.same_as else ""
    return f"{listing([f'{path} = {setting(value)}' for path, value in search.best_params.items()])}{same}"


def _spent(search: SearchSummary) -> str:
    """Return what a search has spent, without its epochs where nothing is finished yet."""
    spent = f"{search.started} of {search.planned} trials started"
    if search.best_value is None:
        ends = [
            f"{search.states[state]} {state}" for state in ("pruned", "diverged", "failed") if state in search.states
        ]
        return f"{spent}{f' ({listing(ends)})' if ends else ''}"
    pruned = "" if search.pruned_share is None else f", {100 * search.pruned_share:.0f} % of finished trials pruned"
    return f"{spent}, {search.epochs:,} epochs in all{pruned}"


def _unconfirmed(search: SearchSummary) -> str:
    own = search.confirmation.default if search.confirmation else None
    if search.chose_default and own is not None:
        repeats = f"{count(own.n, 'repeat')} of them {_give(own)}"
        return f"that trial has the study's own settings, and {repeats} {measured(search.goal, own.mean)} on average"
    return "a search's best score is too good on average, and no fresh repeats confirm it yet"


def _gain_words(search: SearchSummary) -> str:
    confirmation = search.confirmation
    if confirmation is None or confirmation.gain is None:
        return ""
    gain = confirmation.gain.difference
    if _conclusion(search) == "as good":
        return ", as the study's own settings do"
    by, p = amount(search.goal, gain.mean), confirmation.gain.p
    than = f"{_conclusion(search)} than the study's own settings"
    if p is None:
        return f", {by} {than} ({_untested(confirmation.gain)})"
    if p >= ALPHA:
        return f"; whether that is {than}, by {by} here, is open (paired t test, p {p_words(p)})"
    return f", {by} {than} (paired t test, p {p_words(p)})"


def _untested(gain: PairedComparison) -> str:
    return "too few pairs for a test" if gain.n < 2 else "no test, as all pairs differ alike"


def _searched_alike(group: Sequence[SearchSummary]) -> Finding:
    """Return one finding about several searches that came to the same conclusion."""
    first = group[0]
    evidence = _each(group, _spent if first.best_value is None else _found)
    if _conclusion(first) in ("better", "worse"):
        evidence += " The p values are of paired t tests, not corrected for their number."
    return Finding(
        rule="search",
        sentence=_sentence_alike(group),
        evidence=evidence,
        about=tuple(search.label for search in group),
    )


def _found(search: SearchSummary) -> str:
    return f"trial {search.best_place} with {_chosen(search)}, {_spent(search)}"


def _each(group: Sequence[SearchSummary], what: Callable[[SearchSummary], str]) -> str:
    """Return what there is to say of each of several searches; beyond six the rest is counted, as in sentences."""
    shown = [f"{which(search)}: {what(search)}" for search in group[: 6 if len(group) <= 6 else 5]]
    more = [f"{len(group) - len(shown)} more in the tables"] if len(group) > 6 else []
    return f"{'; '.join([*shown, *more])}."


def _sentence_alike(group: Sequence[SearchSummary]) -> str:
    searches, metric, conclusion = the_searches(group), metric_words(group[0].goal), _conclusion(group[0])
    if conclusion in ("unfinished", "nothing"):
        return f"{searches} {'ended without a score' if conclusion == 'nothing' else 'have no finished trial yet'}."
    lower = f"{searches[0].lower()}{searches[1:]}"
    if conclusion == "own":
        own = listing(list(dict.fromkeys(_own(search) for search in group)))
        return (
            f"In {lower} the best trial is the one with the study's own settings, whose repeats give a {metric} of "
            f"{own} on average."
        )
    if conclusion == "unconfirmed":
        best = listing([_mean(search, search.best_value or 0.0) for search in group])
        return (
            f"{searches} found a {metric} of {best}; a search's best score is too good on average, and no fresh "
            "repeats confirm these yet."
        )
    if conclusion == "alone":
        fresh = [
            _mean(search, known.chosen.mean) for search in group if (known := search.confirmation) and known.chosen
        ]
        return f"Fresh repeats of what {lower} chose give a {metric} of {listing(fresh)} on average."
    if conclusion == "as good":
        return f"On fresh repeats, what {lower} chose has on average the {metric} of the study's own settings."
    return (
        f"On fresh repeats, what {lower} chose has on average a {conclusion} {metric} than the study's own settings"
        f"{', and whether it is so beyond chance is open' if _is_open(group[0]) else ''}: "
        f"by {listing([_gain_alike(search) for search in group])}."
    )


def _own(search: SearchSummary) -> str:
    assert search.confirmation is not None and search.confirmation.default is not None
    mean = measured(search.goal, search.confirmation.default.mean)
    return mean if search.whole else f"{mean} ({quoted(search.condition)})"


def _mean(search: SearchSummary, value: float) -> str:
    return f"{measured(search.goal, value)} ({which(search)})"


def _gain_alike(search: SearchSummary) -> str:
    assert search.confirmation is not None and search.confirmation.gain is not None
    gain = search.confirmation.gain
    p = _untested(gain) if gain.p is None else f"p {p_words(gain.p)}"
    return f"{amount(search.goal, gain.difference.mean)} ({which(search)}, {p})"


def the_search(search: SearchSummary) -> str:
    """Return the search as a sentence begins with it, with its condition and sampler where there are several."""
    by = f" by {search.sampler}" if search.sampler else ""
    return f"The search{by}" if search.whole else f"The search of {quoted(search.condition)}{by}"


def the_searches(searches: Sequence[SearchSummary]) -> str:
    """Return several searches as a sentence begins with them."""
    whole = all(search.whole for search in searches)
    return f"The searches {'by' if whole else 'of'} {listing([which(search) for search in searches])}"


def which(search: SearchSummary) -> str:
    """Return which of several searches it is, in a sentence that speaks of searches: its condition, sampler or both."""
    if search.whole and search.sampler:
        return search.sampler
    return f"{quoted(search.condition)}{f' by {search.sampler}' if search.sampler else ''}"


def winner_bias_findings(searches: Sequence[SearchSummary]) -> list[Finding]:
    """Say how far the score of each search's best trial was from what fresh repeats of its settings give."""
    known = [one for one in searches if one.confirmation and one.confirmation.chosen and abs(_off(one) or 0) > TIE]
    alike = _grouped(known, lambda search: ((_off(search) or 0.0) > 0, _promised(search)))
    return [_biased(group[0]) if len(group) == 1 else _biased_alike(group) for group in alike]


def _off(search: SearchSummary) -> float | None:
    return search.confirmation.optimism if search.confirmation else None


def _promised(search: SearchSummary) -> str:
    """Return the verb: unless the interval of the fresh repeats leaves the promise out, chance may be what is off."""
    chosen, best = search.confirmation.chosen if search.confirmation else None, search.best_value
    if chosen is None or chosen.low is None or chosen.high is None or best is None:
        return "may have promised"
    return "may have promised" if chosen.low <= best <= chosen.high else "promised"


def _biased(search: SearchSummary) -> Finding:
    confirmation, off = search.confirmation, _off(search)
    assert confirmation is not None and confirmation.chosen is not None and off is not None
    chosen = confirmation.chosen
    return Finding(
        rule="winner-bias",
        sentence=f"{the_search(search)} {_promised(search)} {amount(search.goal, off)} too "
        f"{'much' if off > 0 else 'little'}: its best trial has a {_best_words(search)}, and "
        f"{count(chosen.n, 'fresh repeat')} of its settings {_give(chosen)} {measured(search.goal, chosen.mean)}.",
        evidence=f"The best of {count(search.states.get('done', 0), 'done trial')} was chosen for its score, so that "
        f"part of it is luck. {_interval(search, chosen)}",
        about=(search.label,),
    )


def _interval(search: SearchSummary, chosen: Estimate) -> str:
    if chosen.low is None or chosen.high is None:
        return "One fresh repeat has no interval."
    return f"95 % t interval of the fresh repeats: {span(search.goal, chosen.low, chosen.high)}."


def _biased_alike(group: Sequence[SearchSummary]) -> Finding:
    much = "much" if (_off(group[0]) or 0.0) > 0 else "little"
    by = listing([f"{amount(search.goal, _off(search) or 0.0)} ({which(search)})" for search in group])
    return Finding(
        rule="winner-bias",
        sentence=f"{the_searches(group)} {_promised(group[0])} too {much}: the {metric_words(group[0].goal)} of their "
        f"best trials is off from that of fresh repeats of the same settings by {by}.",
        evidence=f"Each best trial was chosen for its score, so that part of it is luck. {_each(group, _promise)}",
        about=tuple(search.label for search in group),
    )


def _promise(search: SearchSummary) -> str:
    assert search.confirmation is not None and search.confirmation.chosen is not None
    chosen, best = search.confirmation.chosen, measured(search.goal, search.best_value or 0.0)
    done = count(search.states.get("done", 0), "done trial")
    return f"{best} as the best of {done}, {measured(search.goal, chosen.mean)} over {count(chosen.n, 'fresh repeat')}"


def budget_findings(searches: Sequence[SearchSummary]) -> Iterator[Finding]:
    """Say when searches that stand side by side have trained unequally long."""
    rows = sorted(searches, key=lambda search: search.epochs)
    if len(rows) < 2 or rows[-1].epochs < UNEQUAL * rows[0].epochs:
        return
    least, most = rows[0], rows[-1]
    yield Finding(
        rule="unequal-budgets",
        sentence=f"The searches had unequal budgets: {which(most)} trained {most.epochs:,} epochs, "
        f"{which(least)} {least.epochs:,}.",
        evidence=f"Trials started: {most.started} and {least.started}; pruned: {most.states.get('pruned', 0)} and "
        f"{least.states.get('pruned', 0)}. They compare at the epochs that both had.",
        about=(most.label, least.label),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerComparison:
    """The searches of one condition by several samplers: the best score of each within `epochs`, that all had spent.

    `leaders` are the samplers with the best of all, several where they are level, none where nothing was found yet.
    """

    searches: tuple[SearchSummary, ...]
    epochs: int
    bests: tuple[tuple[str, float | None], ...]
    leaders: tuple[str, ...]


def sampler_comparisons(searches: Sequence[SearchSummary]) -> tuple[SamplerComparison, ...]:
    """Return the comparison of every condition that several samplers searched and in which one found anything."""
    groups: dict[str, list[SearchSummary]] = {}
    for search in searches:
        if search.sampler:
            groups.setdefault(search.condition, []).append(search)
    comparisons = (_compared(group) for group in groups.values() if len(group) > 1)
    return tuple(compared for compared in comparisons if compared.leaders)


def _compared(group: Sequence[SearchSummary]) -> SamplerComparison:
    epochs = min(search.epochs for search in group)
    bests = tuple((search.sampler, search.best_within(epochs)) for search in group)
    known = [score for _, score in bests if score is not None]
    best = (min if group[0].direction == "minimize" else max)(known, default=None)
    leaders = tuple(sampler for sampler, score in bests if best is not None and score == best)
    return SamplerComparison(searches=tuple(group), epochs=epochs, bests=bests, leaders=leaders)


def sampler_findings(searches: Sequence[SearchSummary]) -> Iterator[Finding]:
    """Say which sampler was ahead at equal budgets, and that one search by each cannot rank them."""
    comparisons = sampler_comparisons(searches)
    if not comparisons:
        return
    ahead = _alone(comparisons[0]) if len(comparisons) == 1 else _by_condition(comparisons)
    each = "" if comparisons[0].searches[0].whole else " of a condition"
    yield Finding(
        rule="samplers",
        sentence=f"{ahead}; one search{each} by each sampler does not rank samplers.",
        evidence=f"{'; '.join(_scores(compared) for compared in comparisons[:6])}. Each sampler searched once: "
        "with another study seed the order may turn.",
        about=tuple(search.label for compared in comparisons for search in compared.searches),
    )


def _alone(compared: SamplerComparison) -> str:
    first = compared.searches[0]
    within = f"Within {compared.epochs:,} epochs each{'' if first.whole else f' for {quoted(first.condition)}'}"
    if len(compared.leaders) > 1:
        return f"{within}, {listing(compared.leaders)} found the same best {metric_words(first.goal)}"
    others = [sampler for sampler, _ in compared.bests if sampler not in compared.leaders]
    return f"{within}, {compared.leaders[0]} found a better {metric_words(first.goal)} than {listing(others)}"


def _by_condition(comparisons: Sequence[SamplerComparison]) -> str:
    ahead: dict[str, list[str]] = {}
    for compared in comparisons:
        leader = compared.leaders[0] if len(compared.leaders) == 1 else "no single sampler"
        ahead.setdefault(leader, []).append(quoted(compared.searches[0].condition))
    parts = [f"{leader} for {listing(labels)}" for leader, labels in ahead.items()]
    metric = metric_words(comparisons[0].searches[0].goal)
    return f"Within the epochs that all searches of a condition had, the best {metric} was found by {'; '.join(parts)}"


def _scores(compared: SamplerComparison) -> str:
    first = compared.searches[0]
    scores = [
        f"{sampler} {'none' if score is None else measured(first.goal, score)}" for sampler, score in compared.bests
    ]
    where = "Best" if first.whole else f"{quoted(first.condition)}: best"
    return f"{where} {metric_words(first.goal)} within {compared.epochs:,} epochs: {', '.join(scores)}"
