"""A whole training step as one graph of tensor operations, compiled: forward and backward pass, clipping, update.

`torch.compile` makes a model's two passes faster; here the compiler sees what is between and after them, too: gradients
in bf16 are not written out in float32, summed for their norm and read again to change the weights, and no Python runs
between two operations. What a step decides by other than tensors is decided once, while it is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from benchkit.protocols import Batch
from benchkit.train.optimizers import use_device_rates
from benchkit.train.run import Run
from benchkit.train.step import learn
from benchkit.train.steps.functional_optimizers import FunctionalOptimizer
from benchkit.train.steps.kept_code import kept_code

Form = tuple[tuple[torch.Size, tuple[int, ...], torch.dtype], ...]


class CompiledLearning:
    """`learn` for one run, compiled for batches of one form; any other batch is learnt from eagerly.

    It reads and changes the tensors that the run holds when this is made: parameters, buffers, moments, and the rates,
    which it puts on the device. None of them may be replaced while it is used.
    """

    def __init__(self, run: Run, batch: Batch) -> None:
        """Trace and compile; the step is done meanwhile, on an augmented `batch`, and should be undone.

        The optimizer has taken a step before. Raise whatever tracing and compiling raise.
        """
        self._run = run
        self._form = _form(batch)
        use_device_rates(run.optimizer, run.device)
        functional = FunctionalOptimizer(run.optimizer)
        traced = replace(run, optimizer=functional)  # type: ignore[arg-type]
        state = _state(run, functional)

        def work(images: torch.Tensor, targets: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor]:
            return (learn(traced, Batch(images=images, targets=targets)),)

        self._code = _compiled(work, [batch.images, batch.targets, *state])
        self._state = [tensor.detach() for tensor in state]

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Learn from an augmented batch and return the step's summary."""
        if _form(batch) != self._form:
            return learn(self._run, batch)
        summary: torch.Tensor = self._code(batch.images, batch.targets, *self._state)[0]
        return summary


def _form(batch: Batch) -> Form:
    return tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in (batch.images, batch.targets))


def _state(run: Run, optimizer: FunctionalOptimizer) -> list[torch.Tensor]:
    """Return the tensors that a step reads or changes from one step to the next, each once."""
    moments = (value for kept in run.optimizer.state.values() for value in kept.values())
    settings = (value for group in optimizer.settings for value in group.values())
    tensors = (*run.model.parameters(), *run.model.buffers(), *moments, *settings, *run.hooks.tensors())
    return list({id(tensor): tensor for tensor in tensors if isinstance(tensor, torch.Tensor)}.values())


def _compiled(work: Callable[..., Any], inputs: list[torch.Tensor]) -> Callable[..., Any]:
    """Return `work` on tensors like `inputs`, compiled to draw the random numbers that it draws eagerly.

    It is traced on the inputs themselves, which `work` may know by other names.
    """
    # Importing the compiler takes seconds, which only trials that are compiled should pay.
    import torch._inductor.lowering  # some decompositions take it to be imported
    from torch._guards import TracingContext, tracing
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with torch._inductor.config.patch(fallback_random=True), _told_of_compiling():
        graph = make_fx(work, decomposition_table=select_decomp_table())(*inputs)
        # Without a tracing context that knows of shapes, compiled code is not kept for the next trial.
        with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):
            plain: list[Any] = [tensor.detach() for tensor in inputs]
            compiled: Callable[[], Callable[..., Any]] = partial(torch._inductor.compile, graph, plain)
            return kept_code(compiled, graph, plain) if plain[0].device.type == "cpu" else compiled()


@contextmanager
def _told_of_compiling() -> Iterator[None]:
    """Let `torch.compiler.is_compiling()` be true, by which layers choose what compiles well."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


class PlanewiseBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, which in compiled training sums each plane, one channel of one image, before the batch.

    Of PyTorch's own, its compiler makes a single pass for mean and variance, in which each value waits for the one
    before (Welford's), and backward passes that next to maps of another size leave sixteen channels, one vector, to
    one core. Planes are summed twice, without waiting, and are many. Outside compiled training this is the layer that
    it was.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the normalised maps (N, C, H, W), in their dtype."""
        batch = self.training and input.dim() == 4 and input.numel() > input.shape[1]
        if not (batch and torch.compiler.is_compiling() and self.momentum is not None):
            return super().forward(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = _over_batch(wide)
        centred = wide - mean
        variance = _over_batch(centred.square())
        if self.running_mean is not None:
            self._track(mean.detach(), variance.detach(), input.numel() // input.shape[1])
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight.view(1, -1, 1, 1)
        output = centred * scale.expand(len(input), -1, 1, 1)
        if self.bias is not None:
            output = output + self.bias.view(1, -1, 1, 1).expand(len(input), -1, 1, 1)
        return output.to(input.dtype)

    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Move the running averages towards a batch of `count` values a channel, with the unbiased variance."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean[0].flatten().to(self.running_mean.dtype), self.momentum)
        unbiased = variance[0].flatten() * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


def _over_batch(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of each channel, once for every image (N, C, 1, 1): so its gradient is summed by planes, too."""
    return values.mean((2, 3), keepdim=True).mean(0, keepdim=True).expand(len(values), -1, 1, 1)


def sum_by_planes(model: nn.Module) -> None:
    """Let the model's layers that are `nn.BatchNorm2d`, and nothing derived from it, sum by planes when compiled."""
    for layer in model.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = PlanewiseBatchNorm2d
