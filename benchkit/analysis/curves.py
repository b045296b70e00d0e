"""What learning curves tell: the epoch where over-fitting sets in, and how fast an accuracy is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from benchkit.analysis.readings import compared, done_repeats
from benchkit.results import EpochRecord, StudyResults

if TYPE_CHECKING:
    from benchkit.plan import Condition

RISE = 0.05
"""By how much of its minimum the validation loss must have risen for over-fitting to be stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Onset:
    """Over-fitting in a condition: the median epoch of least validation loss, and in how many repeats it was seen."""

    key: str
    label: str
    epoch: float
    epochs: float
    rise: float
    repeats: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When a condition first reached a validation accuracy: means over the `repeats` of `of` that reached it."""

    key: str
    label: str
    epochs: float | None
    seconds: float | None
    repeats: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """A validation accuracy, and when each condition first reached it, fastest in seconds first."""

    accuracy: float
    arrivals: tuple[Arrival, ...]


def overfits(history: Sequence[EpochRecord]) -> EpochRecord | None:
    """Return the record of least validation loss when over-fitting follows it, else None.

    It follows when the last validation loss is more than `RISE` above the least one while the training loss fell.
    """
    if len(history) < 3:
        return None
    least = min(history, key=lambda record: record.val_loss)
    last = history[-1]
    rose = last.val_loss > (1 + RISE) * least.val_loss
    return least if rose and last.train_loss < least.train_loss else None


def onset(results: StudyResults, condition: Condition) -> Onset | None:
    """Return when over-fitting sets in, if more than half of the condition's done repeats show it."""
    histories = [trial.history for trial in done_repeats(results, condition).values() if trial.history]
    found = [(history, least) for history in histories if (least := overfits(history)) is not None]
    if 2 * len(found) <= len(histories) or not found:
        return None
    return Onset(
        key=condition.key,
        label=condition.label,
        epoch=float(median(least.epoch for _, least in found)),
        epochs=float(median(len(history) for history, _ in found)),
        rise=fmean(history[-1].val_loss / least.val_loss - 1 for history, least in found),
        repeats=len(found),
        of=len(histories),
    )


def race(results: StudyResults) -> Race | None:
    """Return how fast conditions reach nine tenths of the best mean of final validation accuracies, in whole percent.

    None when no repeat has a history.
    """
    histories = {c.key: [t.history for t in done_repeats(results, c).values() if t.history] for c in compared(results)}
    tops = [fmean(max(r.val_accuracy for r in history) for history in found) for found in histories.values() if found]
    if not tops:
        return None
    accuracy = int(90 * max(tops)) / 100
    arrivals = [_arrival(c, histories[c.key], accuracy) for c in compared(results) if histories[c.key]]
    arrivals.sort(key=lambda arrival: (arrival.of - arrival.repeats, arrival.seconds or 0.0))
    return Race(accuracy=accuracy, arrivals=tuple(arrivals))


def _arrival(condition: Condition, histories: Sequence[Sequence[EpochRecord]], accuracy: float) -> Arrival:
    reached: list[tuple[int, float]] = []
    for history in histories:
        first = next((i for i, record in enumerate(history) if record.val_accuracy >= accuracy), None)
        if first is not None:
            reached.append((history[first].epoch, sum(record.seconds for record in history[: first + 1])))
    return Arrival(
        key=condition.key,
        label=condition.label,
        epochs=fmean(epoch for epoch, _ in reached) if reached else None,
        seconds=fmean(seconds for _, seconds in reached) if reached else None,
        repeats=len(reached),
        of=len(histories),
    )
