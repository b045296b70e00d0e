"""One trial after another from the ledger: claim, train, prune, record. Runs in a worker; every failure is a result."""

from __future__ import annotations

import errno
import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from benchkit.data.manifest import load_data
from benchkit.errors import BenchkitError, DivergedError, LedgerError
from benchkit.ledger import Ledger
from benchkit.ledger.claims import Claim, Queue, scores_of
from benchkit.plan import typed_settings
from benchkit.protocols import Splits
from benchkit.registry import Registry
from benchkit.results import Outcome, State
from benchkit.storage import write_atomically
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import PluginRef, Settings
from benchkit.study.tree import changed
from benchkit.sweep.decided import decide_training, obeying
from benchkit.sweep.messages import (
    EpochEnded,
    Event,
    Job,
    TrialEnded,
    TrialProfiled,
    TrialStarted,
    TrialTaken,
)
from benchkit.sweep.output import captured
from benchkit.sweep.provenance import environment_of, plugins_of, sources_of
from benchkit.sweep.stopping import WorkerStop
from benchkit.train.checkpoint import load_checkpoint, save_checkpoint
from benchkit.train.device import is_usable
from benchkit.train.evaluate import Finished, finish
from benchkit.train.fit import fit
from benchkit.train.observation import inspect
from benchkit.train.placement import Images, images_for
from benchkit.train.profile import Stopwatch, watch
from benchkit.train.run import Plugins, Run, build_run
from benchkit.train.weights import save_weights

logger = logging.getLogger(__name__)

CHECKPOINT_SHARE = 0.01
"""Checkpoints take at most this share of the time between them."""

CHECKPOINT_PACE = 250e6
"""Bytes a second at which checkpoints are thought to be written before one was timed."""

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""What the system says when a file cannot be written and no trial is to blame."""


@dataclass(slots=True, kw_only=True)
class WorkerContext:
    """What one worker trains with: the job, its device, the plugins, and the data set it loaded last, with its images.

    `decided` is what is decided of the study's training, by name.
    Trials of one sweep mostly use the same images, which then stay on the device from one to the next.
    """

    job: Job
    device: str
    registry: Registry
    send: Callable[[Event], None]
    decided: Mapping[str, str] = field(default_factory=dict)
    stop: WorkerStop | None = None
    loaded: dict[str, Splits] = field(default_factory=dict)
    placed: Images | None = None

    def splits(self, ref: PluginRef) -> Splits:
        """Return a data set's splits, kept until another one is asked for."""
        key = repr(ref)
        if key not in self.loaded:
            self.loaded = {key: load_data(self.registry, ref, self.job.data_root, self.job.study.path)}
        return self.loaded[key]

    def images(self, settings: Settings, splits: Splits) -> Images:
        """Return a trial's images, kept until a trial uses other ones, whose room on the device they then leave."""
        device, limit = torch.device(self.device), self.job.device_memory
        if self.placed is None or not self.placed.serve(settings, splits, device, limit):
            self.placed = None
            self.placed = images_for(settings, splits, device, limit)
        return self.placed


def train_queue(job: Job, device: str, send: Callable[[Event], None], stop: WorkerStop | None = None) -> None:
    """Train what is queued of a job's conditions, interrupted trials first, until nothing is left to claim.

    Ends the process when `stop` is asked for, after the epoch under way, which is saved.
    Ends the process when a trial leaves its device unusable: a new one trains the others.
    """
    ledger = Ledger(job.workspace, job.storage or None)
    decided = decide_training(ledger, job.study, device, f"--device {job.device}")
    queue = Queue(ledger, job.plan())
    context = WorkerContext(
        job=job,
        device=device,
        registry=Registry.installed(job.plugins, allow_shadow=job.allow_shadow),
        send=send,
        decided=decided,
        stop=stop,
    )
    while not (stop and stop.asked) and (claim := queue.next()):
        with captured(claim.folder.log):
            try:
                state = train_claim(context, claim)
            except LedgerError:
                claim.release()
                raise
            if state == "failed" and not is_usable(device):
                logger.error("%s refuses all further work of this process, which ends here", device)
                os._exit(1)  # what a usual end would tidy up, it could not


def train_claim(context: WorkerContext, claim: Claim) -> State:
    """Train one trial to its end and record it; a diverging, failing or pruned trial is recorded with its reason.

    Returns the state in which it ended. Raises `LedgerError` when the disk cannot be written: the trial is then left as
    it is, to be gone on with.
    """
    started = time.perf_counter()
    taken = TrialTaken(
        condition=claim.condition.display_label,
        phase=claim.phase,
        index=claim.index,
        key=claim.condition.key,
        number=claim.trial.number,
    )
    context.send(taken)
    outcome = claim.folder.read_outcome()
    if outcome is None:
        stopwatch = stopwatch_of(context, claim)
        with failures_as_outcomes() as ended:
            ended.outcome = train_trial(context, claim, stopwatch)
        if isinstance(stopwatch, Stopwatch):
            trace = str(claim.folder.trace) if claim.folder.trace.exists() else ""
            context.send(TrialProfiled(seconds=stopwatch.stop(), trace=trace))
        outcome = ended.outcome
        assert outcome is not None
    claim.finish(outcome)
    context.send(
        TrialEnded(
            condition=taken.condition,
            phase=taken.phase,
            index=taken.index,
            state=outcome.state,
            reason=outcome.reason,
            seconds=time.perf_counter() - started,
            scores=scores_of(outcome),
        )
    )
    return outcome.state


@dataclass(slots=True)
class Ended:
    """Where a trial's outcome is put, by its training or by what went wrong with it."""

    outcome: Outcome | None = None


@contextmanager
def failures_as_outcomes() -> Iterator[Ended]:
    """Turn whatever a trial raises into its outcome; the traceback goes to the trial's log."""
    ended = Ended()
    try:
        yield ended
    except DivergedError as error:
        ended.outcome = Outcome(state="diverged", reason=str(error))
    except (torch.OutOfMemoryError, MemoryError) as error:
        ended.outcome = _failed(f"out of memory: {first_line(error)}; try a smaller train.batch_size or --jobs")
    except BenchkitError as error:
        ended.outcome = _failed(str(error))
    except SystemExit as error:
        ended.outcome = _failed(f"a plugin called sys.exit({error.code!r}){where_raised(error)}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise LedgerError(
                f"a trial's files cannot be written: {error}",
                hint="make room; the same command then goes on where it stopped",
            ) from error
        ended.outcome = _failed(f"{type(error).__name__}: {error}{where_raised(error)}")


def _failed(reason: str) -> Outcome:
    traceback.print_exc()
    return Outcome(state="failed", reason=reason)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return str(error).partition("\n")[0] or type(error).__name__


def where_raised(error: BaseException) -> str:
    """Return the file and line that raised, without its folders."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


class Unwatched:
    """Stands in for the stopwatch of a trial that is not profiled."""

    def enter(self, phase: str) -> None:
        """Do nothing."""


def stopwatch_of(context: WorkerContext, claim: Claim) -> Stopwatch | Unwatched:
    """Return what takes a trial's time; the first repeat of a condition leaves a trace when trials are profiled."""
    if not context.job.profile:
        return Unwatched()
    return Stopwatch(torch.device(context.device), None if claim.index else claim.folder.trace)


def train_trial(context: WorkerContext, claim: Claim, stopwatch: Stopwatch | Unwatched) -> Outcome:
    """Train a trial from its checkpoint, or from the start, to its last epoch, and score it."""
    settings = typed_settings(changed(claim.condition.settings, claim.params), claim.plan.study.seed)
    settings = obeying(settings, context.decided)
    torch.set_num_threads(settings.train.threads)
    splits = context.splits(settings.data.dataset)
    run = _start(context, claim, settings, splits)
    if isinstance(stopwatch, Stopwatch):
        watch(run, stopwatch)
    plugins = {
        "plugins": plugins_of(settings, context.registry),
        "sources": sources_of(settings, context.registry),
    }
    environment = {**environment_of(context.device), **plugins}
    last_saved, saving, bookkeeping = time.perf_counter(), _saving(run), 0.0
    for record in fit(run):
        ended = time.perf_counter()
        stopwatch.enter("ledger")
        claim.folder.append_epoch(record)
        context.send(EpochEnded(record=record))
        if context.stop and context.stop.asked:
            save_checkpoint(claim.folder.checkpoint, run)
            claim.release()
            os._exit(0)
        if claim.should_prune(record):
            return Outcome(
                state="pruned",
                reason=f"given up by the pruner after epoch {record.epoch}",
                data_fingerprint=splits.fingerprint,
                start_weights=run.start_weights,
                notes=tuple(run.notes),
                environment=environment,
            )
        now = time.perf_counter()
        stopwatch.enter("checkpoint")
        if saving <= CHECKPOINT_SHARE * (now - last_saved):
            save_checkpoint(claim.folder.checkpoint, run)
            last_saved, saving = time.perf_counter(), time.perf_counter() - now
        stopwatch.enter("evaluation")
        bookkeeping += time.perf_counter() - ended
    stopwatch.enter("scoring")
    outcome = _scored(claim, run, splits.fingerprint, environment)
    return replace(outcome, cost=outcome.cost and replace(outcome.cost, bookkeeping=bookkeeping))


def _saving(run: Run) -> float:
    """Return the seconds that a checkpoint may take: weights, their moments, and the best epoch's weights.

    Without it every trial of seconds would save a large model once, for no more than those seconds.
    """
    weights: int = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    return 3 * weights / CHECKPOINT_PACE


def _start(context: WorkerContext, claim: Claim, settings: Settings, splits: Splits) -> Run:
    """Return the run, at its last saved epoch if the trial was interrupted, and tell of its start."""
    figures = [PluginRef(name=name, options=options) for name, options in claim.plan.study.report.figures]
    plugins = bind_plugins(context.registry, settings, [] if claim.phase == "search" else figures)
    run = build_run(
        settings,
        splits,
        plugins,
        seeds=trial_seeds(settings.seed, claim.phase, claim.index),
        device=context.device,
        images=context.images(settings, splits),
    )
    shared = shared_device(run.device, context.job.at_once)
    run.notes.extend(shared)
    run.shares_device = bool(shared)
    load_checkpoint(claim.folder.checkpoint, run)
    claim.folder.write_history(run.history)
    context.send(
        TrialStarted(
            condition=claim.condition.display_label,
            phase=claim.phase,
            index=claim.index,
            key=claim.condition.key,
            number=claim.trial.number,
            epochs=settings.train.epochs,
            epoch=len(run.history),
        )
    )
    return run


def shared_device(device: torch.device, at_once: int) -> tuple[str, ...]:
    """Return the note of a trial that shares its CUDA device with others; on a CPU each has threads of its own."""
    if device.type != "cuda" or at_once < 2:
        return ()
    return (f"trained with up to {at_once} trials at once on its device, which share its images/s and its energy",)


def bind_plugins(registry: Registry, settings: Settings, figures: Sequence[PluginRef] = ()) -> Plugins:
    """Return the norm, model and regularizers of a trial's settings, and the figures that observe it, ready to use."""
    return Plugins(
        norm=registry.bind("norms", settings.model.norm),
        model=registry.bind("models", settings.model.model),
        regularizers=tuple((one.id, registry.bind("regularizers", one.plugin)()) for one in settings.regularizers),
        figures=tuple((one.name, registry.bind("figures", one)()) for one in figures),
    )


def save_predictions(path: Path, finished: Finished) -> None:
    """Write logits float32 (n, K) and labels int64 (n,) of val and test, from which every metric can be recomputed."""
    arrays = {str(split): np.ascontiguousarray(logits) for split, logits in finished.logits.items()}
    arrays.update({f"{split}_labels": np.ascontiguousarray(labels) for split, labels in finished.labels.items()})
    write_atomically(path, save(arrays))


def _scored(claim: Claim, run: Run, data_fingerprint: str, environment: dict[str, object]) -> Outcome:
    """Score the selected weights on every split, test among them once; a search's trials never see the test split."""
    searching = claim.phase == "search"
    finished = finish(run, test=not searching)
    if not math.isfinite(finished.metrics["val"].loss):
        raise DivergedError(
            f"training diverged: the selected weights' validation loss is {finished.metrics['val'].loss}"
        )
    if not searching:
        save_predictions(claim.folder.predictions, finished)
        save_weights(claim.folder.weights, run)
        for figure, arrays in inspect(run).items() if claim.index == 0 else ():
            write_atomically(claim.folder.inspected(figure), save(arrays))
    return Outcome(
        state="done",
        selected_epoch=finished.selected_epoch,
        metrics=finished.metrics,
        cost=finished.cost,
        data_fingerprint=data_fingerprint,
        start_weights=run.start_weights,
        test_reads=0 if searching else 1,
        notes=finished.notes,
        environment=environment,
    )
