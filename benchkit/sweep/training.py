"""One trial, from what the sweep hands out to its end. Runs in a worker, which knows neither ledger nor workspace.

Training is a generator of what there is to tell; whoever drives it passes the sweep's answers back. Every failure is a
result.
"""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from safetensors.numpy import save

from benchkit.data.dataset import load_data
from benchkit.errors import BenchkitError, DivergedError, PluginError, first_line, where_raised
from benchkit.metrics import asked_metrics, epoch_readings
from benchkit.plan import typed_settings
from benchkit.protocols import Splits, misfit
from benchkit.registry import Registry
from benchkit.registry.kinds import kind_word
from benchkit.results import PREDICTIONS, WEIGHTS, Outcome, inspected_name
from benchkit.study.checks import OWN_KINDS, metrics_of, uses_of_settings
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import OWN_NAMES, USUAL_LOSS, OptimizerSettings, PluginRef, ScheduleSettings, Settings
from benchkit.sweep.machine_faults import Fault, fault_of
from benchkit.sweep.messages import (
    CheckpointTaken,
    EpochEnded,
    Event,
    FileFinished,
    Job,
    Train,
    TrialAnswer,
    TrialBegan,
    TrialFinished,
    TrialGivenBack,
    TrialProfiled,
    WorkerEnds,
)
from benchkit.sweep.provenance import trained_with
from benchkit.sweep.stopping import WorkerStop
from benchkit.sweep.training_decisions import obeying
from benchkit.train.checkpoint import checkpoint_of, restore_checkpoint
from benchkit.train.device import ProcessorUse, device_use, is_usable, now
from benchkit.train.evaluate import Finished, finish, inspect
from benchkit.train.fit import Pause, fit, fit_in_turns
from benchkit.train.placement import Images, images_for
from benchkit.train.profile import Stopwatch, watch
from benchkit.train.run import Plugins, Run, build_run
from benchkit.train.steps.executor import executor_for
from benchkit.train.weights import weights_of

logger = logging.getLogger(__name__)

CHECKPOINT_SHARE = 0.01
"""Checkpoints take at most this share of the time between them."""

SCORING_ALONE = 0.2
"""Seconds of training that are trained again rather than saved where nothing but scoring follows."""

CHECKPOINT_PACE = 250e6
"""Bytes a second at which checkpoints are thought to be written before one was timed."""

IN_TURNS = "trained in turns with up to"
"""What the note of a trial that shares a process begins with."""

ALLOCATION = "can't allocate memory"
"""What PyTorch says in a RuntimeError where the CPU's memory does not suffice."""

Telling = Generator[Event | Pause, TrialAnswer | None, None]
"""What a worker tells while it does something: a checkpoint is answered and, where a trial asks, an epoch's end.

Pauses come of trials that share a process alone.
"""


@dataclass(slots=True, kw_only=True)
class WorkerContext:
    """What one worker trains with: the job, its device, the plugins, and the data set it loaded last, with its images.

    Trials of one sweep mostly use the same images, which then stay on the device from one to the next.
    """

    job: Job
    device: str
    registry: Registry
    stop: WorkerStop | None = None
    loaded: dict[str, Splits] = field(default_factory=dict)
    known: dict[str, dict[str, object]] = field(default_factory=dict)
    placed: Images | None = None

    def splits(self, ref: PluginRef) -> Splits:
        """Return a data set's splits, kept until another one is asked for."""
        key = repr(ref)
        if key not in self.loaded:
            self.loaded = {key: load_data(self.registry, ref, self.job.data_root, self.job.study.path)}
        return self.loaded[key]

    def images(self, settings: Settings, splits: Splits, repeat: int) -> Images:
        """Return a trial's images, kept until a trial uses other ones, whose room on the device they then leave."""
        device, limit = torch.device(self.device), self.job.device_memory
        if self.placed is None or not self.placed.serve(settings, splits, device, limit, repeat):
            self.placed = None
            self.placed = images_for(settings, splits, device, limit, repeat)
            now(device)  # the streams of other trials read them, too
        return self.placed


def train_trial(context: WorkerContext, order: Train) -> Telling:
    """Tell of one trial from its checkpoint, or from the start, to its end: a diverging or failing one ends as such.

    Ends the process when the trial leaves its device unusable: a new one trains the others.
    """
    named = {"trial": order.trial, "lease": order.lease}
    with TemporaryDirectory() if context.job.profile else nullcontext("") as scratch:
        stopwatch = stopwatch_of(context, order, Path(scratch, "trace.json.gz"))
        try:
            ended = Ended(outcome=(yield from trained(context, order, stopwatch)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugins raise whatever they like
            ended = failure_of(error)
        if isinstance(stopwatch, Stopwatch):
            seconds, trace = stopwatch.stop(), stopwatch.trace
            if trace is not None and trace.exists():
                yield FileFinished(**named, name=trace.name, content=trace.read_bytes())
            else:
                trace = None
            yield TrialProfiled(**named, seconds=seconds, trace=trace.name if trace else "")
    if ended.fault is not None:
        fault = ended.fault
        if fault.scope == "pinned memory":
            yield WorkerEnds()
        yield TrialGivenBack(trial=order.trial, lease=order.lease, why=fault.words, scope=fault.scope)
        if fault.scope == "pinned memory":
            os._exit(1)  # CUDA would tell the next kernel of it
    if ended.outcome is None:
        return
    broken = ended.outcome.state == "failed" and not is_usable(context.device)
    memory = "device" if broken else ended.memory
    if broken:
        yield WorkerEnds()
    yield TrialFinished(trial=order.trial, lease=order.lease, outcome=ended.outcome, memory=memory)
    if broken:
        logger.error("%s refuses all further work of this process, which ends here", context.device)
        os._exit(1)  # what a usual end would tidy up, it could not


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial's outcome, None where somebody else goes on with it; or what is wrong with its machine.

    `memory` is that which did not suffice, if any.
    """

    outcome: Outcome | None = None
    memory: Literal["", "node", "device"] = ""
    fault: Fault | None = None


def failure_of(error: Exception | SystemExit) -> Ended:
    """Return what an error makes of its trial, unless its machine is to blame; the traceback goes to its log."""
    if isinstance(error, DivergedError):
        return Ended(outcome=Outcome(state="diverged", reason=str(error)))
    traceback.print_exc()
    if (fault := fault_of(error)) is not None:
        return Ended(fault=fault)
    memory = lacking(error)
    if isinstance(error, SystemExit):
        reason = f"a plugin called sys.exit({error.code!r}){where_raised(error)}"
    elif memory:
        reason = f"out of memory: {first_line(error)}; try a smaller train.batch_size or --jobs"
    elif isinstance(error, BenchkitError):
        reason = str(error)
    else:
        reason = f"{type(error).__name__}: {error}{where_raised(error)}"
    return Ended(outcome=Outcome(state="failed", reason=reason), memory=memory)


def lacking(error: BaseException) -> Literal["", "node", "device"]:
    """Return which memory an error says did not suffice, if any."""
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    lacks = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and ALLOCATION in str(error))
    return "node" if lacks else ""


class Unwatched:
    """Stands in for the stopwatch of a trial that is not profiled."""

    def enter(self, phase: str) -> None:
        """Do nothing."""


def stopwatch_of(context: WorkerContext, order: Train, trace: Path) -> Stopwatch | Unwatched:
    """Return what takes a trial's time; the first repeat of a condition leaves a trace when trials are profiled."""
    if not context.job.profile:
        return Unwatched()
    return Stopwatch(torch.device(context.device), None if order.index else trace)


def trained(
    context: WorkerContext, order: Train, stopwatch: Stopwatch | Unwatched
) -> Generator[Event | Pause, TrialAnswer | None, Outcome | None]:
    """Tell of a trial's training; return its outcome, None where somebody else is to go on with it."""
    settings = obeying(typed_settings(order.settings, context.job.study.seed), order.decided)
    torch.set_num_threads(settings.train.threads)
    splits = context.splits(settings.data.dataset)
    run = _start(context, order, settings, splits)
    if order.compiles:
        yield compiled_alone(run, order)
        return None
    if isinstance(stopwatch, Stopwatch):
        watch(run, stopwatch)
    named, history = {"trial": order.trial, "lease": order.lease}, tuple(run.history)
    yield TrialBegan(**named, epochs=settings.train.epochs, history=history)
    environment = _trained_with(context, run, splits.source)
    last_saved, saving, bookkeeping, use = time.perf_counter(), _saving(run), 0.0, ProcessorUse()
    end, longest = time.monotonic() + order.seconds, max((record.seconds for record in history), default=0.0)
    if history and time.monotonic() + longest > end:
        yield TrialGivenBack(trial=order.trial, lease=order.lease, late=True)
        return None
    for record in fit_in_turns(run) if run.takes_turns else fit(run):
        if isinstance(record, Pause):
            yield record
            continue
        ended = time.perf_counter()
        stopwatch.enter("ledger")
        answer = yield EpochEnded(**named, record=record, processor=use.cores(), device_use=device_use(run.device))
        word = answer.word if answer else "go on"
        if word == "prune":
            return Outcome(
                state="pruned",
                reason=f"given up by the pruner after epoch {record.epoch}",
                data_fingerprint=splits.fingerprint,
                start_weights=run.start_weights,
                normalization=run.normalization,
                notes=tuple(run.notes),
                environment=environment,
            )
        longest = max(longest, record.seconds)
        late = time.monotonic() + longest + saving > end and not run.over()
        stopping = late or bool(context.stop and context.stop.asked)
        began = time.perf_counter()
        stopwatch.enter("checkpoint")
        passed = began - last_saved - (SCORING_ALONE if record.epoch == settings.train.epochs else 0.0)
        if word != "drop" and (stopping or saving <= CHECKPOINT_SHARE * passed):
            taken = CheckpointTaken(**named, epoch=record.epoch, content=checkpoint_of(run))
            saving = time.perf_counter() - began  # others may have their turn while it is written
            answer = yield taken
            word = answer.word if answer else "go on"
            last_saved = time.perf_counter()
            saving = saving if run.takes_turns else last_saved - began
        if stopping or word == "drop":
            yield TrialGivenBack(trial=order.trial, lease=order.lease, late=late)
            return None
        stopwatch.enter("evaluation")
        bookkeeping += time.perf_counter() - ended
    stopwatch.enter("scoring")
    outcome = yield from _scored(order, run, splits.fingerprint, environment)
    return replace(outcome, cost=outcome.cost and replace(outcome.cost, bookkeeping=bookkeeping))


def _trained_with(context: WorkerContext, run: Run, prepared_by: str) -> dict[str, object]:
    """Return what a trial is trained with, the metrics that it is measured by among it, as `trained_with` does."""
    measured = metrics_of(context.job.study, run.settings, (one.name for one in run.metrics))
    uses = (*uses_of_settings(run.settings), *measured)
    return trained_with(uses, context.registry, context.device, context.known, prepared_by)


def compiled_alone(run: Run, order: Train) -> TrialGivenBack:
    """Compile a trial's step, which leaves its code for those to come; return that the trial is given back."""
    run.model.train()
    executor_for(run)
    return TrialGivenBack(trial=order.trial, lease=order.lease)


def _saving(run: Run) -> float:
    """Return the seconds that a checkpoint may take: weights, their moments, and the best epoch's weights.

    Without it every trial of seconds would save a large model once, for no more than those seconds.
    """
    weights: int = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    return 3 * weights / CHECKPOINT_PACE


def _start(context: WorkerContext, order: Train, settings: Settings, splits: Splits) -> Run:
    """Return the run, at its last saved epoch if the trial was interrupted."""
    figures = [PluginRef(name=name, options=options) for name, options in context.job.study.report.figures]
    plugins = bind_plugins(context.registry, settings, [] if order.phase == "search" else figures)
    steered = (plugins.schedule, *(one for _, one in plugins.regularizers))
    reads = [name for plugin in steered for name in getattr(plugin, "reads", ())]
    named = (*context.job.study.named_metrics, settings.train.select_by, *reads)
    plugins = replace(plugins, metrics=asked_metrics(named), readings=epoch_readings(named))
    run = build_run(
        settings,
        splits,
        plugins,
        seeds=trial_seeds(settings.seed, order.phase, order.index),
        device=context.device,
        images=context.images(settings, splits, order.index),
    )
    shared = shared_device(run.device, context.job.at_once)
    run.notes.extend(shared)
    run.shares_device, run.takes_turns = bool(shared), context.job.per_process > 1
    if run.takes_turns:
        run.notes.append(f"{IN_TURNS} {context.job.per_process} trials of one process, which share its time and memory")
    if context.job.pageable:
        run.notes.append("pinned memory was refused: images went to the device through pageable memory, more slowly")
    if order.content:
        restore_checkpoint(order.content, run)
    return run


def shared_device(device: torch.device, at_once: int) -> tuple[str, ...]:
    """Return the note of a trial that shares its CUDA device with others; on a CPU each has threads of its own."""
    if device.type != "cuda" or at_once < 2:
        return ()
    return (f"trained with up to {at_once} trials at once on its device, which share its images/s and its energy",)


def bind_plugins(registry: Registry, settings: Settings, figures: Sequence[PluginRef] = ()) -> Plugins:
    """Return the norm, model and regularizers of a trial's settings, and the figures that observe it, ready to use."""
    schedule = _bound_unless_own(registry, "train.schedule", settings.train.schedule)
    return Plugins(
        norm=registry.bind("norms", settings.model.norm),
        model=registry.bind("models", settings.model.model),
        loss=None if settings.train.loss == USUAL_LOSS else _made(registry, "losses", settings.train.loss),
        optimizer=_bound_unless_own(registry, "train.optimizer", settings.train.optimizer),
        schedule=schedule and _held("schedules", settings.train.schedule.name, schedule()),
        regularizers=tuple((one.id, _made(registry, "regularizers", one.plugin)) for one in settings.regularizers),
        figures=tuple((one.name, registry.bind("figures", one)()) for one in figures),
    )


def _made(registry: Registry, kind: str, ref: PluginRef) -> Any:
    return _held(kind, ref.name, registry.bind(kind, ref)())


def _held(kind: str, name: str, made: Any) -> Any:
    """Return a plugin's instance; raise `PluginError` where training could not do with it what its author means."""
    if problem := misfit(kind, made):
        raise PluginError(
            f"the {kind_word(kind)} {name!r} {problem}",
            hint=f"mend the plugin; `benchkit plugins check {name}` tries it",
        )
    return made


def _bound_unless_own(
    registry: Registry, where: str, named: OptimizerSettings | ScheduleSettings
) -> Callable[..., Any] | None:
    """Return the plugin that a part of the training names, its options bound, or None for one of benchkit's own."""
    if named.name in OWN_NAMES[where]:
        return None
    return registry.bind(OWN_KINDS[where], PluginRef(name=named.name, options=named.options))


def predictions_of(finished: Finished) -> bytes:
    """Return logits float32 (n, K) and labels int64 (n,) of val and test, from which every metric can be recomputed."""
    arrays = {str(split): np.ascontiguousarray(logits) for split, logits in finished.logits.items()}
    arrays.update({f"{split}_labels": np.ascontiguousarray(labels) for split, labels in finished.labels.items()})
    return save(arrays)


def _scored(
    order: Train, run: Run, data_fingerprint: str, environment: dict[str, object]
) -> Generator[Event, TrialAnswer | None, Outcome]:
    """Score the selected weights on every split, test among them once; a search's trials never see the test split."""
    searching = order.phase == "search"
    finished = finish(run, test=not searching)
    if not math.isfinite(finished.metrics["val"].loss):
        raise DivergedError(
            f"training diverged: the selected weights' validation loss is {finished.metrics['val'].loss}"
        )
    if not searching:
        named = {"trial": order.trial, "lease": order.lease}
        yield FileFinished(**named, name=PREDICTIONS, content=predictions_of(finished))
        yield FileFinished(**named, name=WEIGHTS, content=weights_of(run))
        for figure, arrays in inspect(run).items() if order.index == 0 else ():
            yield FileFinished(**named, name=inspected_name(figure), content=save(arrays))
    return Outcome(
        state="done",
        selected_epoch=finished.selected_epoch,
        metrics=finished.metrics,
        cost=finished.cost,
        data_fingerprint=data_fingerprint,
        start_weights=run.start_weights,
        normalization=run.normalization,
        test_reads=0 if searching else 1,
        notes=finished.notes,
        environment=environment,
    )
