"""Steps compiled as a whole, where a trial is long enough to earn back the time that this takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchkit.train.clock import now
from benchkit.train.eager import EagerSteps
from benchkit.train.run import Run
from benchkit.train.step import Learn
from benchkit.train.steps.backends import StepBackend
from benchkit.train.steps.cuda_graph import first_line
from benchkit.train.steps.validation import Refused, StepValidation

EXPECTED_SECONDS = 45.0
"""What compiling a network's step is expected to take, before it was done."""

WORTH = 5.0
"""How many times the expected seconds a trial must have left: what compiling typically gains is a fifth or more."""

TOLERANCE = {"float32": 1e-2, "bf16": 0.3}
"""The relative difference of compiled and eager steps' losses, and of what gradients have moved, that is rounding.

Compiled code rounds elsewhere, no worse: of a ResNet-14's first gradients at batch 8, those of both ways in bf16 lie
0.13 from float32's and 0.11 from each other. A wrong dropout mask, the mistake to be found here, makes it near 1.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """What learns from a batch in `learn`'s place, and the seconds that compiling it took."""

    learning: Learn
    seconds: float


def worth_compiling(run: Run, backend: StepBackend, left: float) -> bool:
    """Return whether to try: when the study asks for it, or on a device with graphs with `left` seconds enough."""
    wish = run.settings.train.compile
    return wish == "always" or (wish == "auto" and backend.captures and left > WORTH * EXPECTED_SECONDS)


def compiled_step(validation: StepValidation) -> CompiledStep:
    """Return the compiled step, after it agreed with eager ones, which the validation has taken before.

    Only whole batches in training go through it: evaluation compiles nothing anew. The optimizer's rates may lie
    on the device then. Raise `Refused` when the compiler fails or what it makes computes something else.
    """
    run = validation.run
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
        raise Refused(f"{type(error).__name__}: {first_line(error)}") from error
    seconds = now(run.device) - began
    if (apart := validation.difference_at_once(expected, validation.play(take))) > TOLERANCE[run.precision.name]:
        raise Refused("its steps differ from the plain model's", f"by {apart:.2g} of their size")
    return CompiledStep(learning=learning, seconds=seconds)
