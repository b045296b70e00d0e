"""The live view of a sweep: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchkit.analysis.wording import duration
from benchkit.cli.app import cell, console, line
from benchkit.data.prepared import listening, progress_lines
from benchkit.sweep.messages import (
    ConcurrencyTried,
    EpochEnded,
    Event,
    Said,
    SeatsElsewhere,
    TrialEnded,
    TrialStarted,
)
from benchkit.sweep.progress import Progress, RunningTrial, View, ViewBeside, trial_name

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

EVERY = 5.0
"""Seconds between two plain lines about the same trial."""

REDRAWN = 0.5
"""Seconds between two drawings of the panel: it takes processor time from the trials."""


@contextmanager
def watching(*, quiet: bool = False) -> Iterator[View]:
    """Yield the view that fits: a live panel on a terminal, lines on standard error otherwise, nothing when quiet."""
    out = console(stderr=True)
    if quiet:
        yield Lines(write=lambda text: None)
    elif out.is_terminal:
        from rich.live import Live

        with Live(console=out, auto_refresh=False, transient=False) as live:

            def show(text: str) -> None:
                live.update(cell(text), refresh=True)

            with listening(progress_lines(show, every=REDRAWN, clock=time.monotonic)):
                yield Panel(live)
    else:

        def write(text: str) -> None:
            out.print(cell(line(text)))

        with listening(progress_lines(write)):
            yield Lines(write=write)


class Lines(View):
    """One line for each trial's start and end, and for its epochs at most every few seconds."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """Write lines with `write`."""
        self._write = write
        self._progress = Progress()
        self._last: dict[int, float] = {}

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        """Say that a stage begins."""
        self._progress.stage(title, states, total)
        if self._progress.finished < total:
            self._write(
                f"{title}: {total} trial{'' if total == 1 else 's'}, {self._progress.finished} of them finished before"
            )

    def event(self, worker: int, event: Event) -> None:
        """Say what happened, if it is worth a line."""
        running = self._progress.running.get(worker)
        self._progress.event(worker, event)
        if told := _told(event):
            self._write(told)
        elif isinstance(event, TrialStarted) and event.epoch:
            self._write(f"{_name(event)}: goes on after epoch {event.epoch}")
        elif isinstance(event, EpochEnded) and running and time.monotonic() - self._last.get(worker, 0) > EVERY:
            self._last[worker] = time.monotonic()
            self._write(f"{_name(running.trial)}: {_epoch(running)}")
        elif isinstance(event, TrialEnded):
            left = self._progress.left()
            rest = f", {duration(left, whole=True)} left" if left is not None else ""
            self._write(f"[{self._progress.finished}/{self._progress.total}{rest}] {_name(event)}: {_ending(event)}")


class Panel(View):
    """A panel that is drawn over itself: progress with time left, running trials, the best so far."""

    def __init__(self, live: Live) -> None:
        """Draw into rich's live display."""
        self._live = live
        self._progress = Progress()
        self._elsewhere: tuple[str, ...] = ()
        self._drawn_at = float("-inf")

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        """Show that a stage begins."""
        self._progress.stage(title, states, total)
        self._draw()

    def event(self, worker: int, event: Event) -> None:
        """Show an event; trials that ended badly stay on screen above the panel."""
        self._progress.event(worker, event)
        if told := _told(event):
            self._live.console.print(cell(line(told), "dim"))
            return
        if isinstance(event, SeatsElsewhere):
            self._elsewhere = event.words
        if isinstance(event, TrialEnded) and event.state in ("failed", "diverged"):
            self._live.console.print(cell(line(f"{_name(event)}: {_ending(event)}"), "yellow"))
        if isinstance(event, TrialEnded):
            self._live.update(self._drawn())  # for the last drawing, which ends the live display
        self.tick()

    def tick(self) -> None:
        """Draw the panel anew when it is time to."""
        if time.monotonic() - self._drawn_at >= REDRAWN:
            self._draw()

    def _draw(self) -> None:
        self._live.update(self._drawn(), refresh=True)
        self._drawn_at = time.monotonic()

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        progress = self._progress
        left = progress.left()
        head = Table.grid(padding=(0, 1))
        rest = f"{duration(left, whole=True)} left" if left is not None else "starting"
        ended = ", ".join(f"{count} {state}" for state, count in progress.ended.items())
        head.add_row(
            cell(progress.title.capitalize(), "bold"),
            ProgressBar(total=max(1, progress.total), completed=progress.finished, width=30),
            cell(f"{progress.finished}/{progress.total}  {duration(progress.elapsed(), whole=True)}, {rest}  {ended}"),
        )
        rows = Table(box=None, pad_edge=False, header_style="dim")
        several = len(set(progress.devices.values())) > 1
        columns = ("running", "epoch", "train loss", "val loss", "val acc.", "images/s", *(["on"] if several else []))
        for column in columns:
            rows.add_column(column, justify="left" if column in ("running", "on") else "right")
        for worker, running in sorted(progress.running.items()):
            on = (line(progress.devices.get(worker, "")),) if several else ()
            rows.add_row(*(cell(text) for text in (*_row(running), *on)))
        best = cell(
            f"best val accuracy so far: {_name(progress.best)}, {_ending(progress.best)}" if progress.best else "",
            "dim",
        )
        return Group(head, rows, *(cell(line(f"other sweep: {words}"), "dim") for words in self._elsewhere), best)


def _told(event: Event) -> str:
    """Return what an event tells in words, nothing where it tells of a trial."""
    if isinstance(event, ConcurrencyTried):
        return f"timing {event.at_once} trial{'s' if event.at_once > 1 else ''} at once"
    return event.words if isinstance(event, Said) else ""


def _name(trial: TrialStarted | TrialEnded) -> str:
    return trial_name(trial.condition, trial.phase, trial.index)


def _row(running: RunningTrial) -> tuple[str, ...]:
    name, record = line(_name(running.trial)), running.record
    if record is None:
        return name, f"{running.trial.epoch}/{running.trial.epochs}", "", "", "", ""
    return (
        name,
        f"{record.epoch}/{running.trial.epochs}",
        f"{record.train_loss:.4f}",
        f"{record.val_loss:.4f}",
        f"{record.val_accuracy:.1%}",
        f"{record.images_per_second:,.0f}",
    )


def _epoch(running: RunningTrial) -> str:
    record = running.record
    if record is None:
        return "starting"
    return (
        f"epoch {record.epoch}/{running.trial.epochs}, train loss {record.train_loss:.4f}, val loss "
        f"{record.val_loss:.4f}, val accuracy {record.val_accuracy:.1%}, {record.images_per_second:,.0f} images/s"
    )


def _ending(trial: TrialEnded) -> str:
    if trial.state != "done":
        return f"{trial.state}: {trial.reason}"
    scores = ", ".join(
        f"{split} accuracy {trial.scores[f'{split}.accuracy']:.1%}"
        for split in ("val", "test")
        if f"{split}.accuracy" in trial.scores
    )
    return f"{scores} in {duration(trial.seconds, whole=True)}"


class Overheard(ViewBeside):
    """A view that hands everything on to another, and tells each event to one who listens."""

    def __init__(self, view: View, hear: Callable[[int, Event], None]) -> None:
        """Hand on to `view`; `hear` gets each event and the number of its worker."""
        super().__init__(view)
        self._hear = hear

    def event(self, worker: int, event: Event) -> None:
        """Have it heard, and pass it on."""
        self._hear(worker, event)
        super().event(worker, event)
