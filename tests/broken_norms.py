"""Norms that each break one promise, for the tests of the conformance kit."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from benchkit import card


class Sound(nn.Module):
    """Root mean square over a channel's pixels; the others change one thing."""

    def __init__(self, num_channels: int, eps: float = 1e-5, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels, device=device, dtype=dtype))

    def scale(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        return wide * torch.rsqrt(wide.square().mean((2, 3), keepdim=True) + self.eps)

    def forward(self, x: Tensor) -> Tensor:
        return (self.scale(x) * self.weight.view(1, -1, 1, 1)).to(x.dtype)


class DropsAPixel(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., 1:]


class VarianceOverImages(Sound):
    """The unbiased variance over images is 0 / 0 for one image."""

    def forward(self, x: Tensor) -> Tensor:
        return x / ((x - x.mean(0)).square().sum(0) / (len(x) - 1)).sqrt()


class NoEps(Sound):
    """0 / 0 where a plane has one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        return centred / centred.square().mean((2, 3), keepdim=True).sqrt()


class BatchInEvaluation(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean((0, 2, 3), keepdim=True) + self.eps).sqrt() * self.weight.view(1, -1, 1, 1)


class CountsInEvaluation(Sound):
    def __init__(self, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels, **options)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return super().forward(x)


class MapsOfWeights(Sound):
    def __init__(self, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels, **options)
        self.weight = nn.Parameter(torch.ones(1, num_channels, 1, 1))


class UnusedParameter(Sound):
    def __init__(self, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels, **options)
        self.bias = nn.Parameter(torch.zeros(num_channels))


class AffineAnyway(Sound):
    def __init__(self, num_channels: int, affine: bool = True, **options: Any) -> None:
        super().__init__(num_channels, **options)


class _WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 3


class WrongGradient(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return _WrongBackward.apply(super().forward(x))


class Cancels(Sound):
    """E[x^2] - E[x]^2 in float32."""

    def scale(self, x: Tensor) -> Tensor:
        variance = x.square().mean((2, 3), keepdim=True) - x.mean((2, 3), keepdim=True).square()
        return (x - x.mean((2, 3), keepdim=True)) * torch.rsqrt(variance.clamp(min=0) + self.eps)


class FloatOut(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x) * self.weight.view(1, -1, 1, 1)


class NarrowStatistics(Sound):
    def scale(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + self.eps)


class AssumesContiguous(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous()).contiguous()


class NarrowMeans(Sound):
    """The mean and the variance are right, and rounded to the input's dtype."""

    def scale(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return (x - mean) * torch.rsqrt((x - mean).square().mean((2, 3), keepdim=True) + self.eps)


class Averaging(Sound):
    """Divides by the root mean square over the batch, in evaluation by its average over batches."""

    def __init__(self, num_channels: int, momentum: float = 0.1, **options: Any) -> None:
        super().__init__(num_channels, **options)
        self.momentum = momentum
        self.register_buffer("average", torch.ones(num_channels))

    def move(self, square: Tensor) -> None:
        self.average.lerp_(square, self.momentum)

    def scale(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        square = wide.square().mean((0, 2, 3)) if self.training else self.average
        if self.training:
            self.move(square.detach().to(self.average.dtype))
        return wide * torch.rsqrt(square.to(wide.dtype) + self.eps).view(1, -1, 1, 1)


class NeverMoves(Averaging):
    def move(self, square: Tensor) -> None:
        self.average.add_(0)


class MomentumOfTheOld(Averaging):
    def move(self, square: Tensor) -> None:
        self.average.lerp_(square, 1 - self.momentum)


class DropsAtRandom(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5)


class SharedWeight(Sound):
    def __deepcopy__(self, memo: Any) -> SharedWeight:
        return self


class HiddenState(Sound):
    def __init__(self, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels, **options)
        self.running = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running += 1.0
        return super().forward(x) + self.running


class PlainTensor(Sound):
    def __init__(self, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels, **options)
        self.offset = torch.zeros(num_channels, device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.offset.view(1, -1, 1, 1)


class RandomStart(Sound):
    def __init__(self, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels, **options)
        nn.init.normal_(self.weight)


class PythonRandom(Sound):
    def forward(self, x: Tensor) -> Tensor:
        random.random()
        return super().forward(x)


class BreaksTheGraph(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.0 if x.sum().item() > 0 else 1.5)


class NoDevice(nn.Module):
    def __init__(self, num_channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class WeightedConvolution(Sound):
    """A convolution inside a norm: its weights are not told from those of other layers."""

    def __init__(self, num_channels: int, **options: Any) -> None:
        super().__init__(num_channels, **options)
        self.mix = nn.Conv2d(num_channels, num_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.mix(x))


class NoModule:
    def __new__(cls, num_channels: int) -> Any:
        return num_channels


@card(title="", summary="one line")
class Untitled(Sound):
    pass


class Untyped(Sound):
    """A norm."""

    def __init__(self, num_channels: int, depth) -> None:  # type: ignore[no-untyped-def]
        super().__init__(num_channels)
