"""Who is told of a sweep beside the terminal: a live page, trackers, and whoever gets notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from benchkit.sweep import Request
    from benchkit.trackers.following import TrackersBeside
    from benchkit.trackers.notices import Notices

Track = Annotated[
    list[str],
    typer.Option(
        metavar="NAME[=ADDRESS]",
        help="Tell a tracker of each trial while it is trained: mlflow, tensorboard; a secret address is env:VARIABLE.",
    ),
]
Notify = Annotated[
    list[str],
    typer.Option(
        metavar="env:VARIABLE",
        help="Send a message to an address of apprise: done, failed, undecided after the last look, disk nearly full.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Whether a live `page` is served along, the trackers' processes, and the notices."""

    page: bool
    trackers: TrackersBeside
    notices: Notices


def told_by(request: Request, page: bool, track: Sequence[str], notify: Sequence[str]) -> Told:
    """Return who is told of a sweep; raise `BenchkitError` for addresses that cannot be used."""
    from benchkit.cli.app import print_note
    from benchkit.trackers.address import notifier_of, trackers_beside
    from benchkit.trackers.following import TrackersBeside
    from benchkit.trackers.notices import Notices

    workspace, study = request.workspace, request.study.name
    trackers = TrackersBeside(trackers_beside(workspace, track), workspace, request.storage, study, print_note)
    notices = Notices([notifier_of(one) for one in notify], study, workspace, print_note)
    return Told(page=page, trackers=trackers, notices=notices)


def outcome_of(request: Request, states: Counter[str]) -> tuple[str, str]:
    """Return what a sweep that has trained everything came to, and how many trials ended how."""
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    if any(states[state] for state in ("failed", "diverged", "missing files", "changed files")):
        return "failed", counts
    interim = interim_of(request) if request.adding else None
    undecided = interim is not None and not interim["decided"] and interim["next"] is None
    return ("undecided after the last look" if undecided else "done"), counts


def interim_of(request: Request) -> Any:
    """Return how the interim analyses stand, as `benchkit status --json` tells it."""
    from benchkit.ledger import read_results
    from benchkit.sweep.status import status_of

    results = read_results(request.workspace, request.study.name, request.storage or None, upcoming=True)
    return status_of(results).plain()["interim"]
