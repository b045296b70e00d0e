"""`benchkit sweep`: train what a study lacks."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchkit.cli import CODE, Stopped, deaf_shell, stoppable, undisturbed
from benchkit.cli.app import print_json, print_note, print_text
from benchkit.cli.options import (
    DEFAULT_WORKSPACE,
    AllowChangedPlugins,
    AllowShadow,
    DeviceMemory,
    Overrides,
    PluginFiles,
    Storage,
    StudyFile,
    Workspace,
    parse_size,
)
from benchkit.errors import StudyError
from benchkit.plan import parse_only
from benchkit.registry import Registry
from benchkit.results import REPEATED, RETRIED
from benchkit.storage import placed
from benchkit.study.studyfile import MOST_REPEATS, find_study

if TYPE_CHECKING:
    from benchkit.cli.profiling import Profiled
    from benchkit.results import State
    from benchkit.sweep.messages import Event
    from benchkit.sweep.orchestration import Request
    from benchkit.trackers.notices import Notices


RETRIES: dict[str, State] = {word: state for state, word in RETRIED.items()}
"""The states of trials that are trained again, by the words of `--retry`."""

UNFINISHED = ("running", "stale", "waiting", "missing")
"""The states of trials that a later sweep trains to their end."""

FAILED = ("failed", "diverged", "missing files", "changed files")
"""The states of trials by which a sweep has failed."""

Only = Annotated[list[str], typer.Option(metavar="FACTOR=LEVEL", help="Train only these levels of a factor.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="The tiny version of the study, on digits.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and for how long.")]
Profile = Annotated[
    bool, typer.Option("--profile", help="Say where the time went; the first repeats leave a trace for Perfetto.")
]
WatchPage = Annotated[
    bool, typer.Option("--watch", help="Serve a live page of the sweep while it lasts, as benchkit watch does.")
]
OutcomeAsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Retry = Annotated[
    list[str],
    typer.Option(
        metavar="STATE",
        help="Train failed, diverged or pruned trials again, or those with missing or changed files.",
    ),
]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", min=0, help="Trials at once; 0 fills the cores, or finds what a GPU does best.")
]
PerProcess = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Train up to N of the trials at once on a GPU in one process, in turns: no start, no context for each.",
    ),
]
Devices = Annotated[
    str,
    typer.Option(
        help="auto (every free GPU, else the CPU), cpu, mps (Apple), cuda or GPUs as nvidia-smi numbers them: cuda:0,2."
    ),
]
UntilDecided = Annotated[
    bool, typer.Option("--until-decided", help="Add repeats of what may be the best condition until it is known.")
]
Most = Annotated[int, typer.Option(min=0, help="With --until-decided: the most repeats of a condition; usually 20.")]
StopBy = Annotated[
    str,
    typer.Option(
        metavar="TIME|LENGTH",
        show_default=False,
        help="Stop at a moment (2026-11-30T08:00) or after a length of time (8h, 90min); in a Slurm job it is a minute "
        "before its end (of a short one a tenth), unless this says otherwise.",
    ),
]
Requeue = Annotated[
    bool, typer.Option("--requeue", help="In a Slurm job: give it back to the queue when it must end unfinished.")
]
Lease = Annotated[
    float,
    typer.Option(
        min=1.0, metavar="SECONDS", help="Seconds without a sign of life after which another sweep may take our trials."
    ),
]
Patient = Annotated[
    float,
    typer.Option(
        "--patience", min=0.0, metavar="SECONDS", help="How long a storage that does not answer is waited for."
    ),
]
Hours = Annotated[
    float, typer.Option(min=0.0, show_default=False, help="Stop after so many hours; the same command goes on.")
]

Cluster = Annotated[
    str,
    typer.Option(
        metavar="auto|HOST:PORT|local",
        show_default=False,
        help="Train on the Ray cluster of this machine, on the one at an address, or on one that the sweep starts.",
    ),
]
ShipCode = Annotated[
    bool, typer.Option("--ship-code", help="Send the sources of plugins to nodes of a cluster that lack them.")
]
SameHardware = Annotated[
    bool, typer.Option("--same-hardware", help="Leave out nodes of a cluster with another device or driver.")
]
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


def sweep(
    study: StudyFile,
    set_: Overrides = [],
    only: Only = [],
    smoke: Smoke = False,
    dry_run: DryRun = False,
    jobs: Jobs = 0,
    per_process: PerProcess = 1,
    device: Devices = "auto",
    device_memory: DeviceMemory = "",
    retry: Retry = [],
    plugin: PluginFiles = [],
    allow_shadow: AllowShadow = False,
    allow_changed_plugins: AllowChangedPlugins = False,
    profile: Profile = False,
    until_decided: UntilDecided = False,
    most: Most = 0,
    hours: Hours = math.inf,
    stop_by: StopBy = "",
    requeue: Requeue = False,
    cluster: Cluster = "",
    ship_code: ShipCode = False,
    same_hardware: SameHardware = False,
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    lease: Lease = 60.0,
    patience: Patient = 600.0,
    watch: WatchPage = False,
    track: Track = [],
    notify: Notify = [],
    as_json: OutcomeAsJson = False,
) -> None:
    """Train what STUDY lacks: every condition, every repeat, the search, the confirmation. Run it again to go on."""
    registry = Registry.installed(plugin, allow_shadow=allow_shadow)
    request = _request(
        study=find_study(study, registry, overrides=set_, smoke=smoke),
        workspace=workspace,
        storage=storage,
        only=parse_only(only),
        jobs=jobs,
        device=device,
        retry=_states(retry),
        plugins=tuple(path.resolve() for path in plugin),
        allow_shadow=allow_shadow,
        allow_changed_plugins=allow_changed_plugins,
        profile=profile,
        device_memory=parse_size("--device-memory", device_memory) if device_memory else None,
        until_decided=until_decided,
        most=most,
        seconds=_seconds(hours, stop_by),
        cluster=cluster,
        ship_code=ship_code,
        same_hardware=same_hardware,
        per_process=per_process,
        lease=lease,
        patience=patience,
    )
    _do(request, registry, dry_run, as_json, requeue, told_by(request, watch, track, notify))


def _request(**given: Any) -> Request:
    from benchkit.preparation import data_root
    from benchkit.sweep.orchestration import Request

    return Request(data_root=data_root(), command=shlex.join(["benchkit", *sys.argv[1:]]), **given)


def _do(request: Request, registry: Registry, dry_run: bool, as_json: bool, requeue: bool, told: Told) -> None:
    """Train, or say what would be trained."""
    _check_most(request)
    if requeue:
        from benchkit.sweep.stopping import refuse_no_requeue

        refuse_no_requeue()
    if dry_run:
        from benchkit.cli.preview import preview

        preview(request, registry, as_json=as_json)
    else:
        with told.notices or nullcontext():
            _train(request, registry, as_json, requeue, told)


def _seconds(hours: float, stop_by: str) -> float:
    """Return how long the sweep may take: as asked, and in a Slurm job until a minute before the job's end."""
    from benchkit.sweep.stopping import seconds_of_job, seconds_until

    now, left = datetime.now().astimezone(), None
    if stop_by:
        left = seconds_until("--stop-by", stop_by, now)
    elif "SLURM_JOB_ID" in os.environ:
        left = seconds_of_job(now)
    return min(3600 * hours, math.inf if left is None else left)


def _states(words: Sequence[str]) -> tuple[State, ...]:
    """Return the states of trials that the words of `--retry` mean; raise `StudyError` for another word."""
    for word in words:
        if word not in RETRIES:
            raise StudyError(f"--retry {word}: expected one of {', '.join(RETRIES)}")
    return tuple(RETRIES[word] for word in words)


def _check_most(request: Request) -> None:
    """Raise `StudyError` for a greatest number of repeats that is below the study's own, or of no effect."""
    most, least = request.most, request.study.repeats
    if request.adding and request.study.splits == "folds":
        raise StudyError(
            "--until-decided: the repeats are folds, of which there are no more",
            hint="leave it out, or take fixed splits",
        )
    if most and not request.adding:
        raise StudyError(f"--most {most} has no effect without --until-decided", hint="add it, or leave --most out")
    if most and not max(least, 2) <= most <= MOST_REPEATS:
        start = f"{least} (repeats.n)" if least > 1 else "2"
        raise StudyError(f"--most {most}: expected a whole number from {start} to {MOST_REPEATS}")


def _train(request: Request, registry: Registry, as_json: bool, requeue: bool, told: Told) -> None:
    """Sweep under a live view, and conclude; Ctrl-C ends it with a word on how to go on."""
    from benchkit.cli.live import Overheard, watching
    from benchkit.cli.profiling import Profiled
    from benchkit.cli.watch import watching_beside
    from benchkit.sweep.messages import EpochEnded
    from benchkit.sweep.orchestration import sweep as run_sweep
    from benchkit.sweep.stopping import refuse_in_vain

    first = Path("/proc/1/comm")
    if shell := deaf_shell(os.getppid(), first.read_text() if first.exists() else ""):
        print_note(
            f"process 1 is {shell}, which keeps signals from this sweep: start it with `exec benchkit sweep ...`"
        )
    profiled = Profiled()
    epochs = 0

    def hear(worker: int, event: Event) -> None:
        nonlocal epochs
        epochs += isinstance(event, EpochEnded)
        profiled.hear(worker, event)

    try:
        live = watching_beside(request, quiet=as_json) if told.page else watching(quiet=as_json)
        with stoppable(), told.trackers, live as view:
            listened = request.profile or requeue
            states = run_sweep(request, registry, Overheard(view, hear) if listened else view)
    except KeyboardInterrupt as stopped:
        by = f" by {stopped.name}" if isinstance(stopped, Stopped) else ""
        print_note(f"stopped{by}; nothing is lost, the same command goes on: {request.command}")
        if requeue and by and not _unfinished_code(requeue):
            raise typer.Exit(0) from stopped
        raise
    _conclude(request, states, profiled, as_json)
    if told.notices and not any(states[state] for state in UNFINISHED):
        told.notices.tell(*outcome_of(request, states))
    if request.seconds < math.inf and any(states[state] for state in UNFINISHED):
        if requeue and not epochs:
            refuse_in_vain(request.seconds)
        raise typer.Exit(_unfinished_code(requeue))
    if any(states[state] for state in FAILED):
        raise typer.Exit(1)


def _unfinished_code(requeue: bool) -> int:
    """Return the exit code of a sweep that goes on later: 0 where Slurm has taken its job back, so that it does."""
    from benchkit.sweep.stopping import requeue as give_back

    if not requeue:
        return CODE
    with undisturbed():  # Slurm ends what is left of a job as soon as it has taken it back
        if why_not := give_back(print_note):
            print_note(f"the job does not come back: {why_not}")
    return CODE if why_not else 0


def _conclude(request: Request, states: Counter[str], profiled: Profiled, as_json: bool) -> None:
    """Tell how a sweep ended and what to do next."""
    from benchkit.cli.profiling import print_profile

    name = request.study.name
    if as_json:
        more: dict[str, object] = {"profile": profiled.plain()} if request.profile else {}
        more |= {"interim": interim_of(request)} if request.adding else {}
        print_json({"study": name, "states": dict(states), **more})
        return
    if request.profile:
        print_profile(profiled)
    print_text(f"{name}: {_counts(states) or 'nothing to train'}")
    if request.seconds < math.inf and any(states[state] for state in UNFINISHED):
        from benchkit.analysis.wording import duration

        hours = duration(request.seconds, whole=True)
        print_note(f"stopped after {hours}, as asked; the same command goes on: {request.command}")
    named = shlex.join([name, *placed(request.workspace, request.plugins)])
    if set(+states) != {"failed"}:
        print_note(f"next: benchkit report {named}{' --allow-shadow' if request.allow_shadow else ''}")
    if elsewhere := states["files elsewhere"]:
        print_note(f"{elsewhere} trials ended on other machines: benchkit merge brings their files here")
    if again := [state for state in REPEATED if states[state]]:
        retry = " ".join(f"--retry {RETRIED[state]}" for state in again)
        print_note(f"to train what counts as {' or '.join(again)} again, add {retry}")
    if any(states[state] for state in FAILED):
        print_note(f"reasons: benchkit status {named}")


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items() if count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Whether a live `page` is served along, the trackers' processes, and the notices, if any are asked for."""

    page: bool
    trackers: AbstractContextManager[object]
    notices: Notices | None


def told_by(request: Request, page: bool, track: Sequence[str], notify: Sequence[str]) -> Told:
    """Return who is told of a sweep; raise `BenchkitError` for addresses that cannot be used."""
    from benchkit.trackers.address import FILE, notifier_of, trackers_told

    workspace, study = request.workspace, request.study.name
    trackers: AbstractContextManager[object] = nullcontext()
    beside = workspace.resolve().parent / FILE
    if (track or beside.is_file()) and (addresses := trackers_told(track, beside)):
        from benchkit.trackers.following import TrackersBeside

        trackers = TrackersBeside(addresses, workspace, request.storage, study, print_note, request.plugins)
    notices = None
    if notify:
        from benchkit.trackers.notices import Notices

        notices = Notices([notifier_of(one) for one in notify], study, workspace, print_note)
    return Told(page=page, trackers=trackers, notices=notices)


def outcome_of(request: Request, states: Counter[str]) -> tuple[str, str]:
    """Return what a sweep that has trained everything came to, and how many trials ended how."""
    counts = _counts(states)
    if any(states[state] for state in FAILED):
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
