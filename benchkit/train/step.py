"""One training step, and steps taken one after the other: augmentation, both passes, clipping, update, constraints.

The update is the optimizer's step with its rate and loss scaling, without what costs small networks time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchkit.device_kind import is_cpu
from benchkit.errors import TrainingError
from benchkit.gradients import gradient_norm
from benchkit.protocols import Batch
from benchkit.train.batches import BatchIndex, in_unit_range
from benchkit.train.device import has_bf16
from benchkit.train.randomness import global_state, set_global_state

if TYPE_CHECKING:
    from benchkit.train.run import Run


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes in, by the name of a precision; float32 needs none."""

OPTIONS = ("weight_decay", "momentum", "dampening", "lr", "nesterov", "maximize")

Lists = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Weights, their gradients, and their momenta."""

Learn = Callable[[Batch], torch.Tensor]
"""What `learn` does for one run, or a compiled form of it."""


def train_step(run: Run, batch: Batch, step: int, learning: Learn | None = None) -> torch.Tensor:
    """Take one step and return (images, summed loss, correct images, gradient norm), float32 (4,), on the device.

    `step` counts from 0 over the whole of training; `learning` takes the place of `learn` where it is given.
    """
    set_rate(run.optimizer, run.schedule(step))
    if (momentum := getattr(run.schedule, "momentum", None)) is not None:
        set_momentum(run.optimizer, momentum(step))
    return update(run, batch, learning)


def update(run: Run, batch: Batch, learning: Learn | None = None) -> torch.Tensor:
    """Do all of `train_step` but setting the learning rate: work for the device alone, which a CUDA graph can hold."""
    batch = augmented(run, batch)
    return learn(run, batch) if learning is None else learning(batch)


def augmented(run: Run, batch: Batch) -> Batch:
    """Return the batch as the run's regularizers change it, who get its images as float32 in [0, 1]."""
    if run.hooks.augments:
        batch = Batch(images=in_unit_range(batch.images), targets=batch.targets)
    for augment in run.hooks.augments:
        batch = augment(batch, run.randomness.augment)
    return batch


def learn(run: Run, batch: Batch) -> torch.Tensor:
    """Change the model by what an augmented batch tells and return the step's summary, as `train_step` does.

    What it reads and changes from one step to the next are tensors, so it can be traced as a whole.
    """
    drawn = global_state(run.device) if run.hooks.around is not None else []
    loss, logits = take_gradients(run, batch)
    norm = gradient_norm([p.grad for p in run.parameters if p.grad is not None])
    if run.hooks.around is not None:
        _take_around(run, batch, drawn)
    # Only eager steps have states in fp16: what they keep must not move in a step that loss scaling skips.
    skipped = bool(run.hooks.states) and run.precision.scaler is not None and not bool(torch.isfinite(norm))
    for clip in () if skipped else run.hooks.clips:
        clip(run.parameters)
    if run.hooks.clips:
        align_gradients(run.parameters)
    run.precision.step(run.optimizer)
    for constrain in run.constraints:
        constrain()
    with torch.no_grad():
        for after in () if skipped else run.hooks.afters:
            after(run.model)
    return _summary(loss, logits, batch.targets, norm)


def take_gradients(run: Run, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Set the gradients of an augmented batch's mean loss; return this, a scalar, and its logits (N, K), both detached.

    What is more than a batch goes through the model in parts. A part counts by what its loss is divided by: its images,
    or what the loss says by a method `divisor`.
    """
    parts = [Batch(images=batch.images, targets=batch.targets)]
    if len(batch.targets) > run.train.part:
        split = (torch.split(batch.images, run.train.part), torch.split(batch.targets, run.train.part))
        parts = [Batch(images=images, targets=targets) for images, targets in zip(*split, strict=True)]
    shares = _shares(run, parts)
    losses, logits = [], []
    for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
        # Autocast begins and ends in here, so its copies of the weights never outlive the graph that made them.
        with run.precision.autocast:
            found = run.model(run.input_transform(part.images))
        loss = _loss(run, found, part.targets)
        if number == 0:
            for parameter in run.parameters:  # what optimizer.zero_grad does, at a fraction of its price
                parameter.grad = None
        loss = loss if share is None else loss * share
        run.precision.backward(loss)
        losses.append(loss.detach())
        logits.append(found.detach())
    run.precision.unscale(run.optimizer)
    if len(parts) == 1:
        return losses[0], logits[0]
    return torch.stack(losses).sum(), torch.cat(logits)


def _loss(run: Run, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss that is lowered, as regularizers change it, with their penalties."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = run.loss(wide, targets)
    for change in run.hooks.losses:
        loss = change(loss, wide, targets)
    for penalty in run.hooks.penalties:
        loss = loss + penalty(run.model)
    return loss


def _shares(run: Run, parts: Sequence[Batch]) -> Sequence[float | torch.Tensor | None]:
    """Return what each part counts in the mean over all; None for the only one."""
    if len(parts) == 1:
        return [None]
    divisor = getattr(run.loss, "divisor", None)
    counts = [len(part.targets) if divisor is None else divisor(part.targets) for part in parts]
    return [count / sum(counts) for count in counts]


def _take_around(run: Run, batch: Batch, drawn: list[torch.Tensor]) -> None:
    """Let a regularizer change the gradients by further passes; weights, buffers and random numbers are put back.

    In each pass layers draw the same random numbers, by the state `drawn` from before the first.
    """
    assert run.hooks.around is not None
    changed = (*run.parameters, *run.model.buffers())
    before, after = [tensor.detach().clone() for tensor in changed], global_state(run.device)

    def again() -> None:
        set_global_state(drawn, run.device)
        take_gradients(run, batch)

    run.hooks.around(run.parameters, again)
    set_global_state(after, run.device)
    with torch.no_grad():
        for tensor, kept in zip(changed, before, strict=True):
            tensor.copy_(kept)


def _summary(loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    correct = (logits.argmax(1) == targets.argmax(1)).sum()
    return torch.stack((torch.full_like(loss, len(targets)), loss * len(targets), correct, norm))


class EagerSteps:
    """Takes one operation after the other, or what a compiled step makes of them.

    `memory` is 0: the device's own peak tells what steps take.
    """

    memory = 0.0

    def __init__(self, run: Run, learning: Learn | None = None) -> None:
        """Take the steps of `run`, with `learning` in the place of `learn` where it is given."""
        self._run = run
        self._learning = learning

    def take(self, batch_index: BatchIndex, step: int) -> torch.Tensor:
        """Take one step on a batch and return its summary, as `train_step` does."""
        return train_step(self._run, self._run.train.batch(batch_index), step, self._learning)

    def epoch(self, first: int) -> Iterator[torch.Tensor]:
        """Take an epoch's steps, numbered from `first`, and yield the summary of each."""
        run = self._run
        for step, batch in enumerate(run.train.epoch(run.randomness.order), first):
            yield train_step(run, batch, step, self._learning)


class SGD(torch.optim.SGD):
    """`torch.optim.SGD` with `fused=True`, to the same bits.

    Its CPU kernel copies a tensor for every channels-last weight, which in a small network takes longer than the
    update; here it gets such weights, their gradients and momenta as views (N, H, W, C), which are contiguous. And it
    is called at once: sorting weights by device and type before each step adds up to a third to what a small network's
    update takes.

    Steps whose gradients overflowed in fp16 are left to the scaler to skip: a fused first step that skips itself leaves
    its momenta as the memory was found. Once they are there, `skip_on_device` lets steps skip themselves, unseen.
    """

    _step_supports_amp_scaling: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what `torch.optim.SGD` takes."""
        super().__init__(*arguments, **options)
        self.skip_on_device(False)

    def skip_on_device(self, wish: bool) -> None:
        """Let the device decide by what the scaler found whether a step changes anything, or the scaler itself."""
        self._step_supports_amp_scaling = wish

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the weights that have a gradient; with a `closure`, compute them by it first and return its loss."""
        whole = closure is not None or getattr(self, "found_inf", None) is not None
        prepared = [] if whole else [self._updated(group) for group in self.param_groups]
        ready = [lists for lists in prepared if lists is not None]
        if len(ready) < len(self.param_groups):
            loss: float | None = inspect.unwrap(torch.optim.SGD.step)(self, closure)
            return loss
        for group, (weights, gradients, momenta) in zip(self.param_groups, ready, strict=True):
            if weights:
                options = {name: group[name] for name in OPTIONS}
                torch._fused_sgd_(weights, gradients, momenta, is_first_step=False, **options)
        return None

    def _updated(self, group: dict[str, Any]) -> Lists | None:
        """Return the group's weights that have a gradient, these, and the momenta (none without momentum).

        Return None off the CPU, for other numbers than float32, and where momenta are still to be made.
        """
        weights: list[Tensor] = []
        gradients: list[Tensor] = []
        momenta: list[Tensor] = []
        moving = group["momentum"] != 0
        for weight in group["params"]:
            gradient = weight.grad
            if gradient is None:
                continue
            momentum = self.state.get(weight, {}).get("momentum_buffer") if moving else None
            if not is_cpu(weight) or weight.dtype != torch.float32 or (moving and momentum is None):
                return None
            if weight.dim() == 4 and not weight.is_contiguous():
                weight, momentum = self._views(weight, momentum)
                gradient = gradient.permute(0, 2, 3, 1)
            weights.append(weight)
            gradients.append(gradient)
            if momentum is not None:
                momenta.append(momentum)
        return weights, gradients, momenta

    def _views(self, weight: Tensor, momentum: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return both as (N, H, W, C), kept from step to step for as long as they lie in the same memory."""
        kept: dict[Tensor, tuple[Tensor, Tensor | None]] = self.__dict__.setdefault("_kept", {})
        views = kept.get(weight)
        if views is None or any(_apart(*pair) for pair in zip(views, (weight, momentum), strict=True)):
            moved = None if momentum is None else momentum.permute(0, 2, 3, 1)
            views = kept[weight] = weight.detach().permute(0, 2, 3, 1), moved
        return views


def _apart(view: Tensor | None, tensor: Tensor | None) -> bool:
    if view is None or tensor is None:
        return view is not tensor
    return view.data_ptr() != tensor.data_ptr()


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate to `rate` times the group's factor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate * group["rate_factor"])
        else:
            group["lr"] = rate * group["rate_factor"]


def set_momentum(optimizer: torch.optim.Optimizer, momentum: float) -> None:
    """Set every group's momentum, or the first of its betas, which averages gradients as momentum does."""
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = momentum
        elif "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Take the optimizer's step, without the profiler's and the compiler's wrapping around it."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


def align_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give each gradient its parameter's layout in memory, which autograd does and a plugin that replaces one may not.

    Fused optimizers pair numbers by their places in memory. On a CPU they do not check that the layouts are the same,
    and would update weights with other weights' gradients; on CUDA they raise.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(gradient)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """`name` is float32, bf16 or fp16; parameters and their updates are float32 in each.

    `autocast` is entered anew for every forward pass. `scaler` multiplies the loss in fp16, whose small gradients
    would vanish otherwise; it skips a step whose gradients overflowed. In float32, convolutions on CUDA round their
    factors to TF32 (10 bits of mantissa), as PyTorch does by default.
    """

    name: str
    autocast: AbstractContextManager[Any]
    scaler: torch.amp.GradScaler | None

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`, in fp16 scaled, to those that are there."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Undo the scaling of all gradients."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer step."""
        if self.scaler is None:
            take_step(optimizer)
        else:
            self.scaler.step(optimizer)
            self.scaler.update()


def automatic_precision(device: torch.device | str) -> str:
    """Return what `auto` is on a device: bf16 where it multiplies such matrices in hardware, else float32."""
    return "bf16" if has_bf16(torch.device(device)) else "float32"


def precision(name: str, device: torch.device) -> Precision:
    """Return the precision called `name`: float32, bf16, fp16, or auto (bf16 where the device has it, else float32).

    Raise `TrainingError` for one that the device does not train in.
    """
    if name == "auto":
        name = automatic_precision(device)
    if device.type == "mps" and name != "float32":
        raise TrainingError(
            f"train.precision = {name}: on Apple's GPU benchkit trains in float32 alone",
            hint="leave it at auto, or at float32",
        )
    if name == "float32":
        return Precision(name=name, autocast=nullcontext(), scaler=None)
    scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
    return Precision(name=name, autocast=torch.autocast(device.type, DTYPES[name]), scaler=scaler)
