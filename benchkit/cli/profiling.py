"""What `--profile` shows at the end of a sweep: where the time of its trials went, and the traces they left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchkit.analysis.wording import count
from benchkit.cli.app import print_note, print_table
from benchkit.sweep.messages import Event, TrialProfiled, WorkerReady

SHOWN = 3
"""Traces that are named."""


@dataclass(slots=True)
class Profiled:
    """Seconds by phase over all profiled trials and starts of workers, and the traces that trials left."""

    trials: int = 0
    starts: set[tuple[float, ...]] = field(default_factory=set)
    seconds: Counter[str] = field(default_factory=Counter)
    traces: list[str] = field(default_factory=list)

    def hear(self, worker: int, event: Event) -> None:
        """Take in a trial, or the start of a worker, which may tell that it is ready for several jobs."""
        if isinstance(event, TrialProfiled):
            self.trials += 1
            self.seconds.update(event.seconds)
            self.traces += [event.trace] if event.trace else []
        elif isinstance(event, WorkerReady) and event.imports:
            start = (worker, *event.imports.values())
            if start not in self.starts:
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
