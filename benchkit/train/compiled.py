"""The model compiled by `torch.compile`, where a trial is long enough to earn back the time that this takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchkit.train.batches import Feed
from benchkit.train.capture import first_line
from benchkit.train.clock import now
from benchkit.train.rehearsal import Refused, Rehearsal
from benchkit.train.run import Run
from benchkit.train.speedups import Speedups
from benchkit.train.step import Forward, forward_of, train_step

EXPECTED_SECONDS = 45.0
"""What compiling a network is expected to take, before it was done."""

WORTH = 5.0
"""How many times the expected seconds a trial must have left: what compiling typically gains is a fifth or more."""

TOLERANCE = {"float32": 1e-2, "bf16": 1e-1, "fp16": 1e-1}
"""The relative difference of a compiled and an eager step's gradients that counts as rounding.

Compiled code keeps values between operations wider than the precision's own format; a wrong dropout mask, the mistake
to be found here, makes differences near 1.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModel:
    """What computes the loss in the model's place, with its parameters, and the seconds that compiling took."""

    forward: Forward
    seconds: float


def worth_compiling(run: Run, speedups: Speedups, left: float) -> bool:
    """Return whether to try: when the study asks for it, or on a device with graphs with `left` seconds enough."""
    wish = run.settings.train.compile
    return wish == "always" or (wish == "auto" and speedups.captures and left > WORTH * EXPECTED_SECONDS)


def compiled_model(rehearsal: Rehearsal) -> CompiledModel:
    """Return the compiled model, after its steps agreed with eager ones; the model itself stays as it is.

    Only whole batches in training go through it: parameters keep their names, and evaluation compiles nothing anew.
    Raise `Refused` when the compiler fails or what it makes computes something else.
    """
    run = rehearsal.run

    def take(forward: Forward, feed: Feed, step: int) -> torch.Tensor:
        return train_step(run, run.train.batch(feed), step, forward)

    expected = rehearsal.play(lambda feed, step: take(forward_of(run.model), feed, step))
    began = now(run.device)
    try:
        forward = rehearsal.speedups.compile(run.model)
        rehearsal.walk(lambda feed, step: take(forward, feed, step))
    except Exception as error:  # whatever a compiler raises: it is told in the notes, and the plain model goes on
        raise Refused(f"{type(error).__name__}: {first_line(error)}") from error
    seconds = now(run.device) - began
    found = rehearsal.play(lambda feed, step: take(forward, feed, step))
    if (apart := rehearsal.difference_at_once(expected, found)) > TOLERANCE[run.precision.name]:
        raise Refused("its gradients differ from the plain model's", f"by {apart:.2g} of their size")
    return CompiledModel(forward=forward, seconds=seconds)
