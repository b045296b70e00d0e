"""What flows between a model's layers: found with hooks that are taken off again, whatever the model is called inside.

Nothing here changes the model: no parameter, buffer, gradient or training mode.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

NONLINEAR = frozenset(
    "celu elu gelu hardswish hardtanh leaky_relu mish prelu relu relu6 relu_ rrelu selu silu softplus tanh".split()
)
"""Functions whose results are feature maps after the nonlinearity; gates such as the sigmoid are none."""

NOT_A_NORM = ("activation", "container", "conv", "dropout", "flatten", "linear", "padding", "pooling")
"""Modules of torch.nn, by the last word of their file, that may follow a convolution without normalising it."""

Visit = Callable[[str, torch.Tensor], None]

AT_ONCE = 64
MOST_FILTERS = 16
MOST_PIXELS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The mean and variance over all elements of what a layer passes on, after its norm where it has one."""

    layer: str
    mean: float
    variance: float


@contextlib.contextmanager
def hooked(model: nn.Module, hook: Callable[[str, nn.Module, Any, Any], None]) -> Iterator[None]:
    """Call `hook(name, module, inputs, output)` after every module's forward, in the order in which they end."""

    def bound(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: hook(name, module, inputs, output)

    handles = [module.register_forward_hook(bound(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_convolution(module: nn.Module) -> bool:
    """Return whether a module is a convolution over height and width: its weight has four dimensions."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 4


def has_maps(output: Any) -> bool:
    """Return whether a module's output is feature maps (N, C, H, W) of more than one pixel."""
    return isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1


def classifier_input(model: nn.Module, images: torch.Tensor) -> torch.Tensor | None:
    """Return the features (N, F) before the classifier, float32; None for a model without a linear classifier.

    The classifier is what the model's `get_classifier()` returns (timm), else the linear layer that runs last.
    """
    get = getattr(model, "get_classifier", None)
    named = get() if callable(get) else None
    features: list[torch.Tensor] = []

    def keep(_: str, module: nn.Module, inputs: Any, __: Any) -> None:
        wanted = module is named if isinstance(named, nn.Module) else isinstance(module, nn.Linear)
        if wanted and inputs and isinstance(inputs[0], torch.Tensor):
            features.append(inputs[0])

    with torch.no_grad(), hooked(model, keep):
        model(images)
    return features[-1].detach().float().flatten(1) if features else None


def last_maps(model: nn.Module, images: torch.Tensor) -> str | None:
    """Return the name of the module that ends with the last feature maps before pooling or flattening.

    For residual networks that is the last stage, after its nonlinearity. None for models without a convolution, for
    those that turn maps into tokens, and for those that keep channels last (timm's `output_fmt`).
    """
    names: list[str] = []
    state = {"convolved": False}

    def keep(name: str, module: nn.Module, _: Any, output: Any) -> None:
        state["convolved"] |= is_convolution(module)
        if isinstance(output, torch.Tensor) and output.ndim == 3:
            names.clear()
        elif name and state["convolved"] and has_maps(output):
            names.append(name)

    with torch.no_grad(), hooked(model, keep):
        model(images)
    channels_first = str(getattr(model, "output_fmt", "NCHW")) in ("NCHW", "Format.NCHW")
    return names[-1] if names and channels_first else None


@contextlib.contextmanager
def after_nonlinearities(model: nn.Module, visit: Visit) -> Iterator[None]:
    """Call `visit(name, maps)` for feature maps (N, C, H, W) as they leave a nonlinearity, module or function.

    `name` is the innermost module that computes it.
    """
    inside: list[str] = []

    def entering(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: inside.append(name)

    def leaving(module: nn.Module, inputs: Any, output: Any) -> None:
        inside.pop()

    handles: list[Any] = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(entering(name)))
        handles.append(module.register_forward_hook(leaving, always_call=True))
    try:
        with _Nonlinearities(lambda maps: visit(inside[-1] if inside else "", maps)):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Nonlinearities(TorchFunctionMode):
    """While active, hands every result of a nonlinearity to `visit`."""

    def __init__(self, visit: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self.visit = visit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in NONLINEAR and has_maps(result):
            self.visit(result)
        return result


def moments(model: nn.Module, images: torch.Tensor) -> tuple[Moments, ...]:
    """Return mean and variance after every convolution and hidden linear layer, in the order in which they run.

    They are taken from the output of the norm that follows the layer, or from the layer itself where none does (or
    where the nonlinearity stands between). The classifier, the last linear layer, is left out.
    """
    layers: list[Moments] = []
    linear: list[int] = []
    # The outputs are held so that no other tensor gets their memory; a norm follows within a few layers.
    waiting: deque[tuple[int, torch.Tensor]] = deque(maxlen=4)

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            return
        if is_convolution(module) or isinstance(module, nn.Linear):
            linear.extend([len(layers)] if isinstance(module, nn.Linear) else [])
            waiting.append((len(layers), output))
            layers.append(_moments(name, output))
        elif _may_normalise(module) and inputs and isinstance(inputs[0], torch.Tensor):
            for entry in [pair for pair in waiting if pair[1].data_ptr() == inputs[0].data_ptr()]:
                layers[entry[0]] = _moments(layers[entry[0]].layer, output)
                waiting.remove(entry)

    with torch.no_grad(), hooked(model, keep):
        model(images)
    last = linear[-1] if linear else None
    return tuple(layer for index, layer in enumerate(layers) if index != last)


def _moments(layer: str, output: torch.Tensor) -> Moments:
    values = output.detach().float()
    return Moments(layer=layer, mean=float(values.mean()), variance=float(values.var(correction=0)))


def _may_normalise(module: nn.Module) -> bool:
    if "norm" in type(module).__name__.lower():
        return True
    return not any(type(part).__module__.rpartition(".")[2].rstrip("s") in NOT_A_NORM for part in module.modules())


def filter_maps(model: nn.Module, images: torch.Tensor, shown: int) -> Mapping[str, np.ndarray]:
    """Return which filters are zero for all images, and the maps of the first, middle and last nonlinearity.

    `zero.PLACE.MODULE` bool (C,): for the nonlinearity at each place (from 001, in running order), whether the
    filter's output is zero at every pixel of every image. `maps.PLACE.MODULE` uint8 (shown, F, h, w) for the first
    `shown` images: up to 16 filters spread evenly over the layer, averaged down to at most 32 pixels a side, divided by
    the greatest value of the layer in each image (values below zero count as zero). Empty without feature maps.
    """
    seen = _Seen(shown)
    with torch.no_grad(), after_nonlinearities(model, seen.visit):
        for part in torch.split(images, AT_ONCE):
            seen.place = 0
            model(part)
    keys = [f"{index:03d}.{name}" for index, name in enumerate(seen.names, start=1)]
    arrays = {f"zero.{key}": answers.logical_not().cpu().numpy() for key, answers in zip(keys, seen.alive, strict=True)}
    for index in sorted({0, len(keys) // 2, len(keys) - 1}) if keys else ():
        arrays[f"maps.{keys[index]}"] = seen.kept[index].cpu().numpy()
    return arrays


class _Seen:
    """The maps of one batch after the other; the first one tells how many nonlinearities there are."""

    def __init__(self, shown: int) -> None:
        self.shown = shown
        self.place = 0
        self.names: list[str] = []
        self.alive: list[torch.Tensor] = []
        self.kept: list[torch.Tensor] = []

    def visit(self, name: str, maps: torch.Tensor) -> None:
        """Take note of which filters answer, and on the first batch of a sample of the maps."""
        answers = (maps != 0).amax(dim=(0, 2, 3))
        if self.place == len(self.names):
            self.names.append(name)
            self.alive.append(answers)
            self.kept.append(_sample(maps[: self.shown]))
        else:
            self.alive[self.place] |= answers
        self.place += 1


def _sample(maps: torch.Tensor) -> torch.Tensor:
    """Return some of the filters as uint8 (n, F, h, w)."""
    count = maps.shape[1]
    chosen = torch.arange(min(count, MOST_FILTERS), device=maps.device) * count // min(count, MOST_FILTERS)
    some = functional.relu(maps[:, chosen].detach().float())
    if max(some.shape[2:]) > MOST_PIXELS:
        some = functional.adaptive_avg_pool2d(some, (min(some.shape[2], MOST_PIXELS), min(some.shape[3], MOST_PIXELS)))
    most = some.amax(dim=(1, 2, 3), keepdim=True)
    return (255 * some / torch.where(most > 0, most, 1.0)).round().to(torch.uint8)


def layer_costs(model: nn.Module, image: torch.Tensor) -> dict[str, np.ndarray]:
    """Return `layer.PLACE.KIND.MODULE` int64: own parameters, FLOPs of the image, and the shape of its output.

    Of the modules without submodules, and those with parameters of their own, in the order in which they end. A module
    that runs twice counts once, with the FLOPs of both. FLOPs as `torch.utils.flop_counter` counts them: matrix
    products and convolutions, a multiplication and its addition as two.
    """
    from torch.utils.flop_counter import FlopCounterMode

    seen: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}

    def keep(name: str, module: nn.Module, _: Any, output: Any) -> None:
        own = next(module.parameters(recurse=False), None) is not None
        if isinstance(output, torch.Tensor) and (own or not any(True for _ in module.children())):
            seen.setdefault(name, (module, tuple(output.shape[1:])))

    with torch.no_grad(), hooked(model, keep), FlopCounterMode(display=False) as counter:
        model(image)
    counted, root = counter.get_flop_counts(), type(model).__name__

    def flops(name: str) -> int:
        own = f"{root}.{name}" if name else root
        direct = [key for key in counted if key.rpartition(".")[0] == own]
        return int(sum(counted.get(own, {}).values()) - sum(sum(counted[key].values()) for key in direct))

    costs = {}
    for place, (name, (module, shape)) in enumerate(seen.items()):
        parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        costs[f"layer.{place:04d}.{type(module).__name__}.{name}"] = np.array(
            [parameters, flops(name), *shape], np.int64
        )
    return costs
