"""What was planned and what came of it: done, pruned, diverged, failed, stale, running, waiting and missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchkit.analysis.readings import compared, planned_trials, repeats_of, searched_conditions
from benchkit.analysis.wording import count, quoted
from benchkit.results import State, StudyResults, Trial

STATES: tuple[State, ...] = ("done", "pruned", "diverged", "failed", "stale", "running", "waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One condition's trials by state, each repeat counted once; `missing` are planned but not in the ledger."""

    key: str
    label: str
    stage: str
    planned: int
    states: Mapping[str, int]
    missing: int

    @property
    def done(self) -> int:
        """Return the number of done trials."""
        return self.states.get("done", 0)

    @property
    def settled(self) -> int:
        """Return how many trials have a result that counts: a repeat must be done, a search may also prune or fail."""
        return self.done if self.stage != "search" else sum(self.states.get(state, 0) for state in STATES[:4])

    @property
    def complete(self) -> bool:
        """Return whether every planned trial has a result that counts."""
        return self.missing == 0 and self.settled >= self.planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A trial that did not end as done or pruned: what became of it, and after how many epochs."""

    label: str
    stage: str
    index: int
    attempt: int
    state: State
    epochs: int
    reason: str
    retried: bool

    @property
    def words(self) -> str:
        """Return which trial it is, in words."""
        which = f"trial {self.index + 1}" if self.stage == "search" else f"repeat {self.index}"
        return f"{quoted(self.label)}, {which}{f', attempt {self.attempt}' if self.attempt else ''}"


def coverage(results: StudyResults) -> tuple[Coverage, ...]:
    """Return the coverage of every condition, searches first as they ran first."""
    rows: list[Coverage] = []
    for condition in searched_conditions(results):
        counts = Counter[str](trial.state for trial in results.searched(condition))
        rows.append(_row(condition.key, condition.label, "search", planned_trials(results, condition), counts))
    for condition in compared(results):
        counts = Counter[str](trial.state for trial in repeats_of(results, condition).values())
        stage = "grid" if condition.kind == "grid" else "confirm"
        rows.append(_row(condition.key, condition.label, stage, planned_trials(results, condition), counts))
    return tuple(rows)


def _row(key: str, label: str, stage: str, planned: int, states: Mapping[str, int]) -> Coverage:
    missing = max(0, planned - sum(states.values()))
    return Coverage(key=key, label=label, stage=stage, planned=planned, states=dict(states), missing=missing)


def troubles(results: StudyResults) -> tuple[Trouble, ...]:
    """Return every trial that diverged, failed or went stale, in the order they were started."""
    standing = {
        (condition.key, index): trial
        for condition in compared(results)
        for index, trial in repeats_of(results, condition).items()
    }
    bad = [trial for trial in results.trials if trial.state in ("diverged", "failed", "stale")]
    return tuple(
        _trouble(trial, standing.get((trial.condition.key, trial.index)))
        for trial in sorted(bad, key=lambda trial: (trial.started, trial.number))
    )


def _trouble(trial: Trial, standing: Trial | None) -> Trouble:
    return Trouble(
        label=trial.condition.label,
        stage=trial.phase,
        index=trial.index,
        attempt=trial.attempt,
        state=trial.state,
        epochs=len(trial.history),
        reason=trial.reason,
        retried=trial.phase != "search" and standing is not None and standing.attempt != trial.attempt,
    )


def coverage_words(rows: Sequence[Coverage]) -> str:
    """Return how many planned trials have a result: `6 of 12 planned trials have a result`."""
    planned, settled = sum(row.planned for row in rows), sum(row.settled for row in rows)
    return f"{settled} of {count(planned, 'planned trial')} {'has' if settled == 1 else 'have'} a result"
