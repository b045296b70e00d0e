"""The rule about samplers: whose search was ahead at the budget that all had, and how little that ranks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchkit.analysis.findings import Evidence, Finding
from benchkit.analysis.search import SearchSummary
from benchkit.analysis.wording import listing, measured, metric_words, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerRace:
    """The searches of one condition by several samplers: the best score of each within `epochs`, that all had spent.

    `leaders` are the samplers with the best of all, several where they are level, none where nothing was found yet.
    """

    searches: tuple[SearchSummary, ...]
    epochs: int
    bests: tuple[tuple[str, float | None], ...]
    leaders: tuple[str, ...]


def sampler_races(searches: Sequence[SearchSummary]) -> tuple[SamplerRace, ...]:
    """Return the race of every condition that several samplers searched and in which one found anything."""
    groups: dict[str, list[SearchSummary]] = {}
    for search in searches:
        if search.sampler:
            groups.setdefault(search.condition, []).append(search)
    races = (_race(group) for group in groups.values() if len(group) > 1)
    return tuple(race for race in races if race.leaders)


def _race(group: Sequence[SearchSummary]) -> SamplerRace:
    epochs = min(search.epochs for search in group)
    bests = tuple((search.sampler, search.best_within(epochs)) for search in group)
    known = [score for _, score in bests if score is not None]
    best = (min if group[0].direction == "minimize" else max)(known, default=None)
    leaders = tuple(sampler for sampler, score in bests if best is not None and score == best)
    return SamplerRace(searches=tuple(group), epochs=epochs, bests=bests, leaders=leaders)


def samplers(evidence: Evidence) -> Sequence[Finding]:
    """Say which sampler was ahead at equal budgets, and that one search by each cannot rank them."""
    races = sampler_races(evidence.searches)
    if not races:
        return []
    each = "" if races[0].searches[0].whole else " of a condition"
    return [
        Finding(
            rule="samplers",
            tone="note",
            sentence=f"{_alone(races[0]) if len(races) == 1 else _by_condition(races)}; one search{each} by each "
            "sampler does not rank samplers.",
            evidence=f"{'; '.join(_scores(race) for race in races[:6])}. Each sampler searched once: with "
            "another study seed the order may turn.",
            about=tuple(search.label for race in races for search in race.searches),
        )
    ]


def _alone(race: SamplerRace) -> str:
    first = race.searches[0]
    within = f"Within {race.epochs:,} epochs each{'' if first.whole else f' for {quoted(first.condition)}'}"
    if len(race.leaders) > 1:
        return f"{within}, {listing(race.leaders)} found the same best {metric_words(first.goal)}"
    others = [sampler for sampler, _ in race.bests if sampler not in race.leaders]
    return f"{within}, {race.leaders[0]} found a better {metric_words(first.goal)} than {listing(others)}"


def _by_condition(races: Sequence[SamplerRace]) -> str:
    ahead: dict[str, list[str]] = {}
    for race in races:
        leader = race.leaders[0] if len(race.leaders) == 1 else "no single sampler"
        ahead.setdefault(leader, []).append(quoted(race.searches[0].condition))
    parts = [f"{leader} for {listing(labels)}" for leader, labels in ahead.items()]
    metric = metric_words(races[0].searches[0].goal)
    return f"Within the epochs that all searches of a condition had, the best {metric} was found by {'; '.join(parts)}"


def _scores(race: SamplerRace) -> str:
    first = race.searches[0]
    scores = [f"{sampler} {'none' if score is None else measured(first.goal, score)}" for sampler, score in race.bests]
    where = "Best" if first.whole else f"{quoted(first.condition)}: best"
    return f"{where} {metric_words(first.goal)} within {race.epochs:,} epochs: {', '.join(scores)}"
