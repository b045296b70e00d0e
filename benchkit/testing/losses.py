"""Checks of losses: a finite scalar and gradients, the mean over images, soft targets, training, resuming, ranges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchkit.testing.check import RAISED, attempt, require, rule
from benchkit.testing.specimens import losses, run_of, settings
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import described
from benchkit.testing.trained_rules import hold_to_seed, instance_of, require_frozen, trained_rules
from benchkit.train.run import Run

CLASSES = 4


@rule(
    "scalar", likely="the loss of each image is returned instead of their mean, or @dataclass(frozen=True) is missing"
)
def scalar(subject: Subject) -> None:
    """It is a frozen dataclass that gives a finite float32 scalar for any batch, with hard and with soft targets."""
    require_frozen(subject)
    for count in (1, 2, 7):
        for soft in (False, True):
            logits, targets = _batch(subject, count, soft)
            given = f"logits {described(logits)}, targets {described(targets, 'soft' if soft else 'one-hot')}"
            with attempt(given, likely=RAISED):
                value = _loss(subject)(logits, targets)
            right = isinstance(value, Tensor) and value.shape == () and value.dtype == torch.float32
            got = described(value) if isinstance(value, Tensor) else repr(value)
            require(right and bool(value.isfinite()), given=given, expected="a finite float32 scalar", got=got)


@rule("finite", likely="a logarithm or a power of 0: compute with log_softmax or logsigmoid, and clamp before a power")
def finite(subject: Subject) -> None:
    """Loss and gradient are finite where the model is entirely sure, rightly and wrongly."""
    for size in (0.0, 20.0, 100.0, 1000.0):
        for label in (0, 1):
            logits = torch.zeros(2, CLASSES)
            logits[:, 0] = size
            logits.requires_grad_()
            value = _loss(subject)(logits, torch.eye(CLASSES)[[label, label]])
            value.backward()
            right = bool(value.isfinite()) and logits.grad is not None and bool(logits.grad.isfinite().all())
            got = f"loss {value.item():g}, gradient {'none' if logits.grad is None else logits.grad[0].tolist()}"
            given = f"two images of class {label}, logits ({size:g}, 0, 0, 0)"
            require(right, given=given, expected="a finite loss and gradient", got=got)


@rule("order", likely="images are weighted by their place in the batch, or paired with other images' targets")
def order(subject: Subject) -> None:
    """The order of the images makes no difference."""
    logits, targets = _batch(subject, 7, soft=True)
    loss, turned = _loss(subject), torch.arange(6, -1, -1)
    one, other = loss(logits, targets).item(), loss(logits[turned], targets[turned]).item()
    same = abs(one - other) <= 1e-5 * max(1.0, abs(one))
    require(same, given="a batch of 7 and its reverse", expected=f"{one:g} for both", got=f"{other:g}")


@rule("mean", likely="the sum over images stands for their mean, or what it is divided by has no method `divisor`")
def mean(subject: Subject) -> None:
    """The loss of a batch is that of its parts, each counting by its images, or by `divisor(targets)`."""
    logits, targets = _batch(subject, 7, soft=True)
    loss, parts = _loss(subject), (slice(0, 3), slice(3, 7))
    divisor = getattr(loss, "divisor", len)
    counts = [float(divisor(targets[part])) for part in parts]
    sums = [count * loss(logits[part], targets[part]).item() for count, part in zip(counts, parts, strict=True)]
    whole, expected = loss(logits, targets).item(), sum(sums) / sum(counts)
    same = abs(whole - expected) <= 1e-5 * max(1.0, abs(expected))
    counted = "divisor(targets)" if hasattr(loss, "divisor") else "images"
    given = f"a batch of 7, and its first 3 and last 4 images, which count {counts[0]:g} and {counts[1]:g} by {counted}"
    require(same, given=given, expected=f"the mean of both parts, {expected:g}", got=f"{whole:g} for the batch")


@rule("soft-targets", likely="targets are turned into labels by argmax: sum over targets * log_softmax instead")
def soft_targets(subject: Subject) -> None:
    """Targets that label smoothing or mixup made soft have another loss than one-hot ones of the same classes."""
    logits, hard = _batch(subject, 7, soft=False)
    mixed, loss = 0.6 * hard + 0.4 * hard.roll(1, 0), _loss(subject)
    values = [loss(logits, targets).item() for targets in (hard, mixed)]
    given = "one-hot targets, and the same mixed with two fifths of another class"
    require(values[0] != values[1], given=given, expected="two values", got=f"{values[0]:g} for both")


@rule("lowers", likely="the sign is wrong, or the loss looks at neither logits nor targets")
def lowers(subject: Subject) -> None:
    """Logits that call every image rightly have a lower loss than those that call each wrongly."""
    targets = torch.eye(CLASSES)
    right, wrong = (_loss(subject)(3 * (sign * targets), targets).item() for sign in (1, -1))
    require(right < wrong, given="logits 3 and -3 at each image's class", expected="a lower loss at 3",
            got=f"{right:g} and {wrong:g}")  # fmt: skip


@rule("pure", likely="it draws random numbers or counts its calls: chance belongs into a regularizer")
def pure(subject: Subject) -> None:
    """The same batch gives the same loss, and the batch stays as it was."""
    logits, targets = _batch(subject, 5, soft=True)
    copies, loss = (logits.clone(), targets.clone()), _loss(subject)
    values = [loss(logits, targets).item() for _ in range(3)]
    require(len(set(values)) == 1, given="one batch three times", expected="one value", got=str(values))
    same = torch.equal(logits, copies[0]) and torch.equal(targets, copies[1])
    got, likely = (
        "they were changed in place",
        "an operation that ends in an underscore, such as mul_: make new tensors",
    )
    require(same, given="a batch", expected="logits and targets as they were", got=got, likely=likely)


@rule("trains", likely="its gradient does not point to better logits, or the plugin draws from global generators")
def trains(subject: Subject) -> None:
    """A small network learns by it, and two runs under one seed are equal bit for bit."""
    history = list(losses(hold_to_seed(lambda: _run(subject, instance_of(subject), 4)).history))
    given = "training and validation loss of four epochs"
    require(history[-2] < history[0], given=given, expected="a training loss that falls", got=str(history[::2]))


@rule("cuda", likely="a tensor is made on the CPU: use device=logits.device, or make it in prepare", gpu=True)
def cuda(subject: Subject) -> None:
    """On a GPU it gives what it gives on a CPU."""
    logits, targets = _batch(subject, 7, soft=True)
    here = _loss(subject)(logits, targets).item()
    with attempt("logits and targets on cuda"):
        there = _loss(subject, "cuda")(logits.cuda(), targets.cuda())
    require(there.is_cuda, given="a batch on cuda", expected="a loss on cuda", got=str(there.device))
    same = abs(there.item() - here) <= 1e-4 * max(1.0, abs(here))
    require(same, given="a batch on cuda", expected=f"{here:g}", got=f"{there.item():g}")


def _loss(subject: Subject, device: str = "cpu") -> Any:
    """Return an instance as it is trained with, of classes of unlike size."""
    made = instance_of(subject)
    if not hasattr(made, "prepare"):
        return made
    with attempt("prepare(counts)", expected="a callable"):
        return made.prepare(torch.tensor([8, 4, 2, 1], device=device))


def _batch(subject: Subject, count: int, soft: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(subject.seed_for("batch"))
    logits = torch.randn(count, CLASSES, generator=generator)
    targets = torch.eye(CLASSES)[torch.arange(count) % CLASSES]
    return logits, 0.8 * targets + 0.2 / CLASSES if soft else targets


def _run(subject: Subject, made: Any, epochs: int) -> Run:
    return run_of(settings(subject.seed_for("run"), epochs=epochs), loss=made)


TRAINED = trained_rules(_run, forgets="it counts steps or keeps a cache in itself")
RULES = (scalar, finite, order, mean, soft_targets, lowers, pure, trains, *TRAINED, cuda)
