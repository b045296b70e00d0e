"""`timm:NAME` and `torch:NAME`: the optimizers of two libraries that were tried, by their own names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from benchkit import PluginError, card
from benchkit_optimizers.table import OFFERED, REFUSED

Groups = Sequence[dict[str, Any]]
"""Groups of parameters, each with `params` and what else it carries."""


def _rates(family: str) -> dict[str, float]:
    """Return the rate to begin with of each optimizer of a family that has one."""
    return {name.partition(":")[2]: rate for name, rate in OFFERED.items() if name.startswith(f"{family}:") and rate}


@card(
    title="Optimizers of timm",
    summary="Any optimizer of timm that was tried, by its name there; its options are timm's own.",
    reference="R. Wightman, PyTorch Image Models, 2019",
    url="https://github.com/huggingface/pytorch-image-models",
    variant_rates=_rates("timm"),
)
def timm_optimizer(parameters: Groups, lr: float, /, *, variant: str, **options: Any) -> torch.optim.Optimizer:
    """Return the optimizer that timm calls `variant`, over groups of parameters, all of which decay alike.

    Names mean what timm means by them: its `sgd` is Nesterov's, names that end in c correct the decay by the greatest
    rate, which is the schedule's. Raise `PluginError` for one that is not offered, with the reason.
    """
    require_offered("timm", variant)
    return _of_timm(parameters, lr, variant=variant, **options)


def _of_timm(parameters: Groups, lr: float, /, *, variant: str, **options: Any) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2

    made: torch.optim.Optimizer = create_optimizer_v2(
        list(parameters), opt=variant, lr=lr, filter_bias_and_bn=False, **{"weight_decay": 0.0, **options}
    )
    return made


@card(
    title="Optimizers of PyTorch",
    summary="Any optimizer of `torch.optim` that was tried, by its class's name; its options are PyTorch's own.",
    reference="A. Paszke et al., PyTorch: An Imperative Style, High-Performance Deep Learning Library, NeurIPS 2019",
    url="https://arxiv.org/abs/1912.01703",
    variant_rates=_rates("torch"),
)
def torch_optimizer(parameters: Groups, lr: float, /, *, variant: str, **options: Any) -> torch.optim.Optimizer:
    """Return the optimizer that `torch.optim` calls `variant`, over groups of parameters, which decay only if asked.

    Raise `PluginError` for one that is not offered, with the reason.
    """
    require_offered("torch", variant)
    return _of_torch(parameters, lr, variant=variant, **options)


def _of_torch(parameters: Groups, lr: float, /, *, variant: str, **options: Any) -> torch.optim.Optimizer:
    kind = getattr(torch.optim, variant)
    decay = {"weight_decay": 0.0} if "weight_decay" in inspect.signature(kind).parameters else {}
    made: torch.optim.Optimizer = kind(list(parameters), lr=lr, **{**decay, **options})
    return made


def require_offered(family: str, variant: str) -> None:
    """Raise `PluginError` for a name that was refused when it was tried; one that was not is tried now, once."""
    name = f"{family}:{variant}"
    if name in OFFERED:
        return
    known = ", ".join(one.partition(":")[2] for one in OFFERED if one.startswith(f"{family}:"))
    if reason := REFUSED.get(name) or _fault(family, variant):
        raise PluginError(f"the optimizer {name!r} {reason}", hint=f"offered: {known}")


@cache
def _fault(family: str, variant: str) -> str:
    """Return why a name that the table lacks, as those of newer versions, is not offered, or an empty string."""
    from benchkit.testing import optimizer_fault

    make = {"timm": _of_timm, "torch": _of_torch}[family]
    return optimizer_fault(lambda parameters: make(parameters, 1e-3, variant=variant))
