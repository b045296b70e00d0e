"""The training loop: a generator of epoch records. Who consumes them decides on pruning, saving and display."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import Enum

import torch

from benchkit.errors import DivergedError
from benchkit.results import EpochRecord
from benchkit.storage import node_name
from benchkit.train import schedules
from benchkit.train.device import forget_peak, hardware_name, joules, now, peak_memory
from benchkit.train.evaluate import epoch_scores, logits_of, loss_and_accuracy, observe
from benchkit.train.run import Run
from benchkit.train.steps.backends import StepBackend
from benchkit.train.steps.executor import StepExecutor, executor_for, note_other_steps


class Pause(Enum):
    """Where others of a process may have their turn: after a step, or while the device has what is queued to do."""

    STEP = 1
    WAIT = 2


def fit(run: Run, backend: StepBackend | None = None) -> Iterator[EpochRecord]:
    """Yield a record after every epoch, continuing after the history's last one, until the run is over.

    How steps are taken is chosen once, in the time of the first epoch; `backend` are the device's unless given.
    Raise `DivergedError`, which names epoch and step, when the loss is no longer finite.
    """
    for record in fit_in_turns(run, backend):
        if not isinstance(record, Pause):
            yield record


def fit_in_turns(run: Run, backend: StepBackend | None = None) -> Iterator[EpochRecord | Pause]:
    """Yield what `fit` does, and each pause, in which others of the process may have their turn.

    Whoever gives them one keeps the process's random numbers apart meanwhile (see `Surroundings`).
    """
    executor: StepExecutor | None = None
    while not run.over():
        epoch = len(run.history) + 1
        _check_next_rate(run)
        start, used = now(run.device), joules(run.device)
        run.model.train()
        if executor is None:
            executor = executor_for(run, backend)
            note_other_steps(run)
            forget_peak(run.device)  # choosing takes more than training does
        began = now(run.device)
        steps: list[torch.Tensor] = []
        with run.randomness.in_charge():
            for summary in executor.epoch((epoch - 1) * len(run.train)):
                steps.append(summary)
                _stop_if_diverged(steps, epoch, run.device)
                yield Pause.STEP
        yield from _until_done(run)
        loss, accuracy, gradient_norm = epoch_means(steps, epoch)
        trained = now(run.device)
        with run.judged():
            logits = logits_of(run, run.val)
            yield from _until_done(run)
            val_loss, val_accuracy = loss_and_accuracy(logits, run.val.labels)
            if not math.isfinite(val_loss):
                raise DivergedError(f"training diverged: the validation loss is {val_loss} after epoch {epoch}")
            record = EpochRecord(
                epoch=epoch,
                train_loss=loss,
                train_accuracy=accuracy,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                learning_rate=run.schedule(epoch * len(run.train) - 1),
                gradient_norm=gradient_norm,
                seconds=now(run.device) - start,
                images_per_second=run.train.images_per_epoch / (trained - began),
                peak_memory=max(executor.memory, peak_memory(run.device)),
                observed={**observe(run), **epoch_scores(run, logits)},
                energy=joules(run.device) - used,
                device=hardware_name(run.device),
                node=node_name(),
            )
            run.keep(record)
        yield record


def _check_next_rate(run: Run) -> None:
    """Raise `TrainingError` where a schedule of a plugin gives no rate after the epochs that it has seen."""
    if run.history and hasattr(run.schedule, "observe"):
        train, done = run.settings.train, len(run.history) * len(run.train)
        schedules.check_rate(run.schedule, train.schedule.name, train.optimizer.lr, done, train.epochs * len(run.train))


def _until_done(run: Run) -> Iterator[Pause]:
    """Pause until the device has done what the run has queued; at once where nobody else has a turn meanwhile."""
    if run.takes_turns and run.device.type == "cuda":
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(run.device))
        while not done.query():  # type: ignore[no-untyped-call]
            yield Pause.WAIT


def _stop_if_diverged(steps: Sequence[torch.Tensor], epoch: int, device: torch.device) -> None:
    """Raise at once on the CPU, where looking is free; on other devices `epoch_means` looks once an epoch."""
    if device.type == "cpu" and not math.isfinite(steps[-1][1].item()):
        epoch_means(steps, epoch)


def epoch_means(steps: Sequence[torch.Tensor], epoch: int) -> tuple[float, float, float]:
    """Return an epoch's mean loss and accuracy over images and mean gradient norm over steps, read from the device.

    Steps that loss scaling skipped have no finite gradient norm and are left out of its mean. Raise `DivergedError`
    at the first step whose loss is not finite.
    """
    table = torch.stack(list(steps)).cpu().to(torch.float64)
    images, losses, correct, norms = table.unbind(1)
    broken = torch.isfinite(losses).logical_not().nonzero()
    if len(broken):
        step = int(broken[0])
        raise DivergedError(f"training diverged: the loss is {losses[step].item()} in step {step + 1} of epoch {epoch}")
    seen = images.sum().item()
    finite = norms[torch.isfinite(norms)]
    norm = finite.mean().item() if len(finite) else 0.0
    return losses.sum().item() / seen, correct.sum().item() / seen, norm
