"""What `--profile` shows at the end of a sweep: where the time of its trials went, and the traces they left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchkit.analysis.wording import count
from benchkit.cli.app import print_note, print_table
from benchkit.sweep.messages import Event, TrialProfiled, WorkerReady
from benchkit.sweep.progress import View, ViewBeside

SHOWN = 3
"""Traces that are named."""


@dataclass(slots=True)
class Profiled:
    """Seconds by phase over all profiled trials and starts of workers, and the traces that trials left."""

    trials: int = 0
    starts: set[tuple[float, ...]] = field(default_factory=set)
    seconds: Counter[str] = field(default_factory=Counter)
    traces: list[str] = field(default_factory=list)

    def add(self, event: TrialProfiled) -> None:
        """Take in one trial."""
        self.trials += 1
        self.seconds.update(event.seconds)
        self.traces += [event.trace] if event.trace else []

    def begin(self, worker: int, event: WorkerReady) -> None:
        """Take in the start of a worker, which may tell that it is ready for several jobs."""
        start = (worker, *event.imports.values())
        if event.imports and start not in self.starts:
            self.starts.add(start)
            self.seconds.update(event.imports)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "trials": self.trials,
            "workers": len(self.starts),
            "seconds": dict(self.seconds),
            "traces": self.traces,
        }


class Profiling(ViewBeside):
    """A view that hands everything on to another, and keeps the profiles."""

    def __init__(self, view: View, profiled: Profiled) -> None:
        """Hand on to `view`, keep in `profiled`."""
        super().__init__(view)
        self._profiled = profiled

    def event(self, worker: int, event: Event) -> None:
        """Show an event, and keep a profile."""
        if isinstance(event, TrialProfiled):
            self._profiled.add(event)
        elif isinstance(event, WorkerReady):
            self._profiled.begin(worker, event)
        super().event(worker, event)


def print_profile(profiled: Profiled) -> None:
    """Print seconds and shares by phase, and name the first traces."""
    if not profiled.trials:
        print_note("nothing was trained, so there is no profile; a new --workspace trains everything again")
        return
    total = sum(profiled.seconds.values())
    rows = [(phase, f"{seconds:.2f}", f"{seconds / total:.1%}") for phase, seconds in profiled.seconds.items()]
    print_table(("where the time went", "seconds", "share"), rows)
    begun = f" and of the start of {count(len(profiled.starts), 'worker')}" if profiled.starts else ""
    print_note(f"seconds of {count(profiled.trials, 'trial')}{begun}, without the steps that were traced")
    for trace in profiled.traces[:SHOWN]:
        print_note(f"trace: {trace} (open it in ui.perfetto.dev)")
    if len(profiled.traces) > SHOWN:
        print_note(f"and {len(profiled.traces) - SHOWN} more traces beside them")
