"""Who takes the steps of a run: chosen once, by a validation that is undone. Eager steps are the rule on a CPU.

However steps are taken, they compute the same up to rounding, draw the same random numbers, and leave the same
checkpoint. Which way was fastest can differ between machines and, where it is close, between two trials.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from benchkit.errors import first_line
from benchkit.results import WAS_COMPILED
from benchkit.train import optimizers
from benchkit.train.device import now
from benchkit.train.run import Run
from benchkit.train.step import EagerSteps, Learn
from benchkit.train.steps.backends import StepBackend, backend_of
from benchkit.train.steps.cuda_graph import CudaGraphSteps, cuda_graph_steps
from benchkit.train.steps.validation import Refused, StepValidation

FEWEST = 50
"""Whole batches that a run must have before it for a validation, which takes some twenty eager steps, to pay."""

FASTER = 0.95
"""The share of the other way's time that compiled steps must not exceed to be preferred."""

SLOWER = 1.1
"""The share of eager steps' time from which on replays are not preferred: a graph costs nothing once it is there."""

EXPECTED_SECONDS = 45.0
"""What compiling a network's step is expected to take, before it was done."""

WORTH = 5.0
"""How many times the expected seconds a trial must have left: what compiling typically gains is a fifth or more."""

TOLERANCE = {"float32": 1e-2, "bf16": 0.3}
"""The relative difference of compiled and eager steps' losses, and of what gradients have moved, that is rounding.

Compiled code rounds elsewhere, no worse: of a ResNet-14's first gradients at batch 8, those of both ways in bf16 lie
0.13 from float32's and 0.11 from each other. A wrong dropout mask, the mistake to be found here, makes it near 1.
"""

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
StepExecutor = EagerSteps | CudaGraphSteps
"""Takes the steps of a run: one by number, or an epoch of them; each returns its summary as `train_step` does."""


def executor_for(run: Run, backend: StepBackend | None = None) -> StepExecutor:
    """Return what takes the run's steps from now on; what keeps them from being fast is noted in the run.

    The run's model is in training mode. `backend` is that of the run's device unless given.
    """
    offered = backend_of(run.device) if backend is None else backend
    asked = run.settings.train.compile == "always"
    if not asked and (not offered.captures or whole_batches_left(run) < FEWEST):
        return EagerSteps(run)
    if run.eager:
        _note(run, f"{'CUDA graph' if offered.captures else 'compiled model'} not used: {run.eager}; steps ran eagerly")
        return EagerSteps(run)
    if not offered.captures and (lacking := offered.lacking()):
        _note(run, f"compiled model not used: this machine lacks {lacking}; steps ran eagerly")
        return EagerSteps(run)
    with run.randomness.in_charge():
        validation = StepValidation(run, offered)
        eager = EagerSteps(run)
        chosen: StepExecutor = eager
        try:
            with offered.tuned():
                chosen = _chosen(validation, eager)
        except torch.OutOfMemoryError:
            _note(run, "CUDA graph not used: the device's memory is too small for it; steps ran eagerly")
        finally:
            validation.snapshot.put_back()
            if chosen is eager:
                validation.snapshot.drop_new_moments()
                optimizers.use_plain_rates(run.optimizer)
    return chosen


def note_other_steps(run: Run) -> None:
    """Note that a run goes on with other steps than it began with, compiled or not: they round elsewhere."""
    compiled = WAS_COMPILED in run.notes
    if run.compiled is None:
        run.compiled = compiled
    elif run.compiled != compiled:
        ways = ("compiled", "eager") if run.compiled else ("eager", "compiled")
        _note(run, "begun with {} steps and gone on with {} ones: not to the bit what one go gives".format(*ways))


def whole_batches_left(run: Run) -> int:
    """Return how many batches of the usual size the run still trains on, if nothing stops it."""
    per_epoch = run.train.images_per_epoch // run.train.batch_size
    return per_epoch * (run.settings.train.epochs - len(run.history))


def _chosen(validation: StepValidation, eager: EagerSteps) -> StepExecutor:
    """Return the fastest way: eager or captured, then compiled where that may pay."""
    run = validation.run
    best: StepExecutor = eager
    validation.walk(eager.take)
    seconds = validation.seconds(eager.take)
    if validation.backend.captures:
        best, seconds = _captured(validation, eager, seconds)
    if not worth_compiling(run, validation.backend, whole_batches_left(run) * seconds):
        return best
    compiled, records = _or_noted(run, partial(compiled_step, validation)), isinstance(best, CudaGraphSteps)
    if compiled is None:
        return best
    best = eager  # lets go of the graph: the next one takes over its streams' memory and the random generators
    steps = _or_noted(run, partial(_compiled_steps, validation, compiled, seconds, records=records))
    if steps is not None:
        return steps
    return _captured(validation, eager, math.inf)[0] if records else eager


def _captured(validation: StepValidation, eager: EagerSteps, seconds: float) -> tuple[StepExecutor, float]:
    """Return captured steps and the seconds of one, or the eager ones and theirs, with a note on why."""
    run = validation.run
    try:
        captured = cuda_graph_steps(validation)
        if (replayed := validation.seconds(captured.take)) > SLOWER * seconds:
            raise Refused("replaying it is slower", f"{replayed:.2g} s a step, eagerly {seconds:.2g} s")
    except Refused as refusal:
        optimizers.use_plain_rates(run.optimizer)
        _note(run, f"CUDA graph not used: {refusal}; steps ran eagerly", refusal.detail)
        return eager, seconds
    return captured, replayed


def _or_noted(run: Run, make: Callable[[], Made]) -> Made | None:
    """Return what `make` makes of the compiled step, or None with a note on why it is not used."""
    try:
        return make()
    except Refused as refusal:
        _note(run, f"compiled model not used: {refusal}", refusal.detail)
    except torch.OutOfMemoryError:
        _note(run, "compiled model not used: the device's memory is too small for it")
    return None


def _compiled_steps(
    validation: StepValidation, compiled: tuple[Learn, float], seconds: float, *, records: bool
) -> StepExecutor:
    """Return compiled steps, recorded if asked; raise `Refused` when they are neither faster nor wished for."""
    run, (learning, compiling) = validation.run, compiled
    steps: StepExecutor = cuda_graph_steps(validation, learning) if records else EagerSteps(run, learning)
    share = validation.seconds(steps.take) / seconds
    if share > FASTER and run.settings.train.compile != "always":
        raise Refused("compiled steps are not faster", f"they take {share:.2f} times as long")
    _note(run, WAS_COMPILED, f"in {compiling:.0f} s; a step takes {share:.2f} times as long as before")
    return steps


def _note(run: Run, text: str, detail: str = "") -> None:
    """Put a sentence into the run's notes and its log, where details follow: reports count notes that are equal."""
    run.notes.append(text)
    logger.warning("%s%s", text, f" ({detail})" if detail else "")


def worth_compiling(run: Run, backend: StepBackend, left: float) -> bool:
    """Return whether to try: when the study asks for it, or on a device with graphs with `left` seconds enough."""
    wish = run.settings.train.compile
    return wish == "always" or (wish == "auto" and backend.captures and left > WORTH * EXPECTED_SECONDS)


def compiled_step(validation: StepValidation) -> tuple[Learn, float]:
    """Return the compiled step and the seconds that it took to compile, after it agreed with eager ones, taken before.

    Only whole batches in training go through it: evaluation compiles nothing anew. The optimizer's rates may lie
    on the device then. Raise `Refused` when the compiler fails or what it makes computes something else.
    """
    run = validation.run
    if lacking := validation.backend.lacking():
        raise Refused(f"this machine lacks {lacking}")
    if run.precision.scaler is not None:
        raise Refused("fp16 scales the loss by what it finds in each step")
    expected = validation.play(EagerSteps(run).take)
    if reason := validation.obstacle():
        raise Refused(reason)
    began = now(run.device)
    try:
        learning = validation.backend.compile(run, validation.batch())
        take = EagerSteps(run, learning).take
        validation.walk(take)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler raises: it is told in the notes, and eager steps go on
        raise Refused(f"{type(error).__name__}: {first_line(error).rstrip('.')}") from error
    seconds = now(run.device) - began
    if (apart := validation.difference_at_once(expected, validation.play(take))) > TOLERANCE[run.precision.name]:
        raise Refused("its steps differ from the plain model's", f"by {apart:.2g} of their size")
    return learning, seconds
