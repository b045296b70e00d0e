"""The optimizers, in the fused form that PyTorch has for them on the CPU and on CUDA, and their steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchkit.errors import TrainingError, nearest
from benchkit.study.settings import OptimizerSettings
from benchkit.train.compiler import skip_dynamo_import

OPTIONS = ("weight_decay", "momentum", "dampening", "lr", "nesterov", "maximize")

Lists = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Weights, their gradients, and their momenta."""


class SGD(torch.optim.SGD):
    """`torch.optim.SGD` with `fused=True`, to the same bits.

    Its CPU kernel copies a tensor for every channels-last weight, which in a small network takes longer than the
    update; here it gets such weights, their gradients and momenta as views (N, H, W, C), which are contiguous. And it
    is called at once: sorting weights by device and type before each step adds up to a third to what a small network's
    update takes.

    Steps whose gradients overflowed in fp16 are left to the scaler to skip: a fused first step that skips itself leaves
    its momenta as the memory was found.
    """

    _step_supports_amp_scaling: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what `torch.optim.SGD` takes."""
        super().__init__(*arguments, **options)
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the weights that have a gradient; with a `closure`, compute them by it first and return its loss."""
        found = [] if closure is not None else [self._updated(group) for group in self.param_groups]
        ready = [lists for lists in found if lists is not None]
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
            if not weight.is_cpu or weight.dtype != torch.float32 or (moving and momentum is None):
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


Maker = Callable[..., torch.optim.Optimizer]

OPTIMIZERS: Mapping[str, Maker] = {"sgd": SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def optimizer(
    settings: OptimizerSettings, parameters: Iterable[nn.Parameter], extra: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Return the optimizer that `settings` name over `parameters`, with `extra` keyword arguments.

    Parameters form one group for each `rate_factor` that they carry (1.0 without one), which the group keeps under
    the same name: the group's learning rate is the schedule's times this factor.

    Weight decay is 0 unless `extra` says otherwise, for AdamW too, and then applies to all parameters, as in PyTorch.
    Raise `TrainingError` for an unknown name or an argument that the optimizer does not have.
    """
    if settings.name not in OPTIMIZERS:
        raise TrainingError(
            f"unknown optimizer {settings.name!r}{nearest(settings.name, OPTIMIZERS)}",
            hint=f"train.optimizer.name is one of {', '.join(OPTIMIZERS)}",
        )
    options = {"weight_decay": 0.0, "fused": True, **own_options(settings), **extra}
    owner = torch.optim.Optimizer
    skip_dynamo_import(owner.add_param_group, owner.zero_grad, owner.state_dict, owner.load_state_dict)
    try:
        return OPTIMIZERS[settings.name](_groups(parameters), **options)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"the optimizer {settings.name!r} cannot be made: {error}", problems=[f"options: {options}"]
        ) from error


def _groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(float(getattr(parameter, "rate_factor", 1.0)), []).append(parameter)
    return [{"params": members, "rate_factor": factor} for factor, members in groups.items()]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate to `rate` times the group's factor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate * group["rate_factor"])
        else:
            group["lr"] = rate * group["rate_factor"]


def use_device_rates(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Keep every group's learning rate on the device, float32, where a captured step reads it anew each time."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            continue
        group["lr"] = torch.full((), float(group["lr"]), dtype=torch.float32, device=device)
        if "capturable" in group:
            group["capturable"] = True


def use_plain_rates(optimizer: torch.optim.Optimizer) -> None:
    """Undo `use_device_rates`."""
    for group in optimizer.param_groups:
        group.update(_plain(group))


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(group["lr"], torch.Tensor):
        return {}
    return {"lr": float(group["lr"]), **({"capturable": False} if "capturable" in group else {})}


def state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's state dict, the same whether its learning rates lie on the device or not."""
    found = optimizer.state_dict()
    return {**found, "param_groups": [{**group, **_plain(group)} for group in found["param_groups"]]}


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a state dict into the tensors that are there, whose addresses a captured step has learnt.

    Raise `ValueError` when it belongs to other parameters.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    before = {parameter: dict(moments) for parameter, moments in optimizer.state.items()}
    optimizer.load_state_dict(saved)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, torch.Tensor):
            group["lr"] = rate.fill_(group["lr"])
            group.update({"capturable": True} if "capturable" in group else {})
    for parameter, moments in optimizer.state.items():
        for name, old in before.get(parameter, {}).items():
            if isinstance(old, torch.Tensor) and name in moments and old.shape == moments[name].shape:
                moments[name] = old.copy_(moments[name])


def step(optimizer: torch.optim.Optimizer) -> None:
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


def own_options(settings: OptimizerSettings) -> dict[str, Any]:
    """Return the keyword arguments that the study's optimizer settings fix."""
    if settings.name == "sgd":
        return {"lr": settings.lr, "momentum": settings.momentum, "nesterov": settings.nesterov}
    return {"lr": settings.lr, "betas": settings.betas}


def merged_options(settings: OptimizerSettings, regularizers: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the optimizer arguments that regularizers (id, instance) ask for; raise `TrainingError` on a conflict."""
    owner = dict.fromkeys(own_options(settings), "train.optimizer")
    merged: dict[str, Any] = {}
    problems = []
    for name, regularizer in regularizers:
        asked = regularizer.optimizer_options() if hasattr(regularizer, "optimizer_options") else {}
        for option, value in asked.items():
            if option in owner:
                problems.append(f"{option} is set by {owner[option]} and by the regularizer {name!r} (to {value})")
            owner.setdefault(option, f"the regularizer {name!r}")
            merged.setdefault(option, value)
    if problems:
        raise TrainingError("two parts of the study set the same optimizer option", problems=problems)
    return merged
