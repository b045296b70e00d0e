"""How far a sweep is: finished trials, running ones, the best so far, the time left. Fed by events; prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchkit.results import FINISHED, EpochRecord
from benchkit.sweep.messages import (
    EpochEnded,
    Event,
    Said,
    TrialEnded,
    TrialStarted,
    WorkerIdle,
    WorkerLost,
    WorkerReady,
)


class View:
    """Whoever watches a sweep; this one shows nothing."""

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        """Show that a stage begins, of `total` trials, some of them in a state already."""

    def event(self, worker: int, event: Event) -> None:
        """Show an event of a worker."""

    def tick(self) -> None:
        """Refresh what changes with time."""

    def say(self, words: str) -> None:
        """Show what people should know."""
        self.event(0, Said(words=words))


class ViewBeside(View):
    """A view that hands everything on to another one, and makes something of it itself."""

    def __init__(self, view: View) -> None:
        """Hand on to `view`."""
        self._view = view

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        """Pass it on."""
        self._view.stage(title, states, total)

    def event(self, worker: int, event: Event) -> None:
        """Pass it on."""
        self._view.event(worker, event)

    def tick(self) -> None:
        """Pass it on."""
        self._view.tick()


@dataclass(slots=True, kw_only=True)
class RunningTrial:
    """A trial under way, with its last epoch."""

    trial: TrialStarted
    record: EpochRecord | None = None


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a stage is. `clock` gives seconds; times count from the stage's start."""

    clock: Callable[[], float] = time.monotonic
    title: str = ""
    total: int = 0
    finished: int = 0
    before: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    running: dict[int, RunningTrial] = field(default_factory=dict)
    best: TrialEnded | None = None
    devices: dict[int, str] = field(default_factory=dict)
    started: float = 0.0

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        """Begin a stage of `total` trials, of which some are finished already."""
        self.title, self.total, self.started = title, total, self.clock()
        self.finished = self.before = sum(count for state, count in states.items() if state in FINISHED)
        self.ended = {state: count for state, count in states.items() if state in FINISHED and count}
        self.running.clear()

    def event(self, worker: int, event: Event) -> None:
        """Take in what a worker tells."""
        if isinstance(event, WorkerReady):
            self.devices[worker] = f"{event.seat.node} {event.device}".strip()
        elif isinstance(event, TrialStarted):
            self.running[worker] = RunningTrial(trial=event)
        elif isinstance(event, EpochEnded) and worker in self.running:
            self.running[worker].record = event.record
        elif isinstance(event, TrialEnded):
            self.running.pop(worker, None)
            self.finished += 1
            self.ended[event.state] = self.ended.get(event.state, 0) + 1
            accuracy = event.scores.get("val.accuracy", -1.0)
            if accuracy > (self.best.scores["val.accuracy"] if self.best else -1.0):
                self.best = event
        elif isinstance(event, WorkerIdle | WorkerLost):
            self.running.pop(worker, None)

    def elapsed(self) -> float:
        """Return the seconds since the stage began."""
        return self.clock() - self.started

    def left(self) -> float | None:
        """Return the seconds that the rest will take at the pace so far, or None while there is no pace."""
        under_way = sum(_share(one) for one in self.running.values())
        done = self.finished - self.before + under_way
        if done <= 0:
            return None
        return self.elapsed() / done * max(0.0, self.total - self.finished - under_way)


def _share(one: RunningTrial) -> float:
    """Return how much of a running trial was trained in this stage, 0..1."""
    if one.record is None:
        return 0.0
    return (one.record.epoch - one.trial.epoch) / max(1, one.trial.epochs)


def trial_name(condition: str, phase: str, index: int) -> str:
    """Return `gn repeat 2` or `gn, search trial 7`: repeats count from 0, a search's trials from 1, as in a report."""
    return f"{condition} trial {index + 1}" if phase == "search" else f"{condition} repeat {index}"
