"""The optimizers, in the fused form that PyTorch has for them on the CPU and on CUDA: made, kept and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from benchkit.errors import TrainingError
from benchkit.protocols import Range, card
from benchkit.study.settings import OptimizerSettings
from benchkit.train.compiler import skip_dynamo_import
from benchkit.train.step import SGD

Maker = Callable[..., torch.optim.Optimizer]
Groups = Iterable[dict[str, Any]]
"""Groups of parameters, each with `params` and what else it carries."""

BETAS = (0.9, 0.999)


@card(
    title="SGD",
    summary="Stochastic gradient descent with momentum.",
    reference="I. Sutskever, J. Martens, G. Dahl and G. Hinton, On the Importance of Initialization and Momentum in "
    "Deep Learning, ICML 2013",
    url="https://proceedings.mlr.press/v28/sutskever13.html",
    ranges={"momentum": Range(low=0.0, high=0.99)},
    rates=Range(low=0.001, high=1.0, log=True),
    rate=0.1,
)
def sgd(
    parameters: Groups, lr: float, /, *, momentum: float = 0.9, nesterov: bool = False, **options: Any
) -> torch.optim.Optimizer:
    """Return v <- momentum v + g, w <- w - lr v over groups of parameters, or Nesterov's form of it."""
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, fused=True, **options)


@card(
    title="Adam",
    summary="Steps of about equal size for every weight, by running means of the gradient and of its square.",
    reference="D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015",
    url="https://arxiv.org/abs/1412.6980",
    rates=Range(low=1e-5, high=1e-2, log=True),
    rate=0.001,
)
def adam(
    parameters: Groups, lr: float, /, *, betas: tuple[float, float] = BETAS, **options: Any
) -> torch.optim.Optimizer:
    """Return Adam over groups of parameters, with `betas` of the two running means."""
    return torch.optim.Adam(parameters, lr=lr, betas=betas, fused=True, **options)


@card(
    title="AdamW",
    summary="Adam, with a weight decay that is no part of the gradient.",
    reference="I. Loshchilov and F. Hutter, Decoupled Weight Decay Regularization, ICLR 2019",
    url="https://arxiv.org/abs/1711.05101",
    rates=Range(low=1e-5, high=1e-2, log=True),
    rate=0.001,
)
def adamw(
    parameters: Groups, lr: float, /, *, betas: tuple[float, float] = BETAS, **options: Any
) -> torch.optim.Optimizer:
    """Return AdamW over groups of parameters, with `betas` of the two running means."""
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, fused=True, **options)


OPTIMIZERS: Mapping[str, Maker] = {"sgd": sgd, "adam": adam, "adamw": adamw}


def optimizer(
    settings: OptimizerSettings,
    parameters: Iterable[nn.Parameter],
    extra: Mapping[str, Any],
    plugin: Maker | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer that `settings` name over `parameters`, with `extra` keyword arguments.

    Parameters form one group for each `rate_factor` that they carry (1.0 without one), which the group keeps under
    the same name: the group's learning rate is the schedule's times this factor. Where matrices alone decay, the other
    parameters form groups of their own, whose weight decay is 0.

    `plugin` makes it of these groups and the rate where the settings name none of benchkit's own.
    Weight decay is 0 unless `extra` says otherwise, for AdamW too, and then applies to all parameters by default.
    Raise `TrainingError` for an argument that the optimizer does not have.
    """
    if plugin is not None:
        return _made_by(plugin, settings, _groups(parameters, settings.decayed), extra)
    options = {"weight_decay": 0.0, **own_options(settings), **extra}
    lr = options.pop("lr")
    owner = torch.optim.Optimizer
    skip_dynamo_import(owner.add_param_group, owner.zero_grad, owner.state_dict, owner.load_state_dict)
    try:
        return OPTIMIZERS[settings.name](_groups(parameters, settings.decayed), lr, **options)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"the optimizer {settings.name!r} cannot be made: {error}", problems=[f"options: {options}"]
        ) from error


def _made_by(
    plugin: Maker, settings: OptimizerSettings, groups: list[dict[str, Any]], extra: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Return a plugin's optimizer, with no option but those that the study and its regularizers give."""
    # Told now: an optimizer may keep the very groups, with what it adds to them.
    given = {id(p): (group["rate_factor"], "weight_decay" in group) for group in groups for p in group["params"]}
    try:
        made = plugin(groups, settings.lr, **extra)
    except (TypeError, ValueError, NotImplementedError, ImportError, AssertionError) as error:
        raise TrainingError(
            f"the optimizer {settings.name!r} cannot be made: {error}",
            problems=[f"options: {dict(settings.options)} and {dict(extra)}"],
        ) from error
    if not hasattr(made, "param_groups"):
        raise TrainingError(
            f"the optimizer {settings.name!r} is made as a {type(made).__name__}, expected a torch.optim.Optimizer",
            hint=f"let the plugin return one; `benchkit plugins check {settings.name}` tries it",
        )
    held = [id(parameter) for group in made.param_groups for parameter in group["params"]]
    if sorted(held) != sorted(given):
        raise TrainingError(f"the optimizer {settings.name!r} holds {len(held)} of {len(given)} parameters")
    if callable(getattr(made, "eval", None)):
        raise TrainingError(
            f"the optimizer {settings.name!r} trains with other weights than it is evaluated with",
            hint="benchkit evaluates the weights that are trained: choose an optimizer without eval()",
        )
    for group in made.param_groups:
        group.setdefault("rate_factor", 1.0)
    _check_groups(made, settings.name, given)
    return made


def _check_groups(made: torch.optim.Optimizer, name: str, given: Mapping[int, tuple[float, bool]]) -> None:
    """Raise `TrainingError` where parameters have left their groups, which say at which rate, and which ones decay."""
    lost = set()
    for group in made.param_groups:
        wanted = [given[id(parameter)] for parameter in group["params"]]
        lost |= {"rate_factor" for factor, _ in wanted if factor != group["rate_factor"]}
        lost |= {"weight_decay" for _, stays in wanted if stays and group.get("weight_decay")}
    if lost:
        raise TrainingError(
            f"the optimizer {name!r} puts parameters into groups that lack the {' and '.join(sorted(lost))} of those "
            "that it was given",
            hint="let the plugin pass the groups on as they are: their parameters are trained at other rates, or do "
            "not decay",
        )


def optimizer_notes(optimizer: torch.optim.Optimizer, settings: OptimizerSettings) -> list[str]:
    """Return how many parameters decay where not all do, and what a plugin's name silently means.

    That is: how much of the network another rule updates, and Nesterov's step.
    """
    name, notes = settings.name, _decay_notes(optimizer, settings)
    if name in OPTIMIZERS:
        return notes
    if any("fallback_lr_scale" in group for group in optimizer.param_groups):
        sizes = [(p.numel(), p.ndim >= 2, g) for g in optimizer.param_groups for p in g["params"]]
        own, whole = sum(size for size, matrix, _ in sizes if matrix), sum(size for size, _, _ in sizes)
        factor = optimizer.param_groups[0]["fallback_lr_scale"]
        notes.append(f"{name}: {own:,} of {whole:,} parameters by it, the rest by AdamW at {factor:g} times its rate")
    if any(group.get("nesterov") for group in optimizer.param_groups):
        notes.append(f"{name}: with Nesterov's momentum")
    return notes


def _groups(parameters: Iterable[nn.Parameter], decayed: str) -> list[dict[str, Any]]:
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        factor = float(getattr(parameter, "rate_factor", 1.0))
        groups.setdefault((factor, decayed == "all" or parameter.ndim >= 2), []).append(parameter)
    return [
        {"params": members, "rate_factor": factor, **({} if decays else {"weight_decay": 0.0})}
        for (factor, decays), members in groups.items()
    ]


def _decay_notes(optimizer: torch.optim.Optimizer, settings: OptimizerSettings) -> list[str]:
    """Return how many parameters a weight decay applies to, where it is not all of them."""
    sizes = [(group.get("weight_decay"), p.numel()) for group in optimizer.param_groups for p in group["params"]]
    if settings.decayed == "all" or not any(decay for decay, _ in sizes):
        return []
    kept, whole = sum(size for decay, size in sizes if decay), sum(size for _, size in sizes)
    return [f"weight decay applies to the matrices alone: {kept:,} of {whole:,} parameters"]


def use_device_rates(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Keep every group's learning rate on the device, float32, where a captured step reads it anew each time.

    So are steps skipped there that overflowed in fp16; the optimizer has taken one before, which made its moments.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            continue
        group["lr"] = torch.full((), float(group["lr"]), dtype=torch.float32, device=device)
        if "capturable" in group:
            group["capturable"] = True
    if isinstance(optimizer, SGD):
        optimizer.skip_on_device(True)


def use_plain_rates(optimizer: torch.optim.Optimizer) -> None:
    """Undo `use_device_rates`."""
    for group in optimizer.param_groups:
        group.update(_plain(group))
    if isinstance(optimizer, SGD):
        optimizer.skip_on_device(False)


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(group["lr"], torch.Tensor):
        return {}
    return {"lr": float(group["lr"]), **({"capturable": False} if "capturable" in group else {})}


def state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's state dict, the same whether its learning rates lie on the device or not."""
    whole = optimizer.state_dict()
    return {**whole, "param_groups": [{**group, **_plain(group)} for group in whole["param_groups"]]}


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


def own_options(settings: OptimizerSettings) -> dict[str, Any]:
    """Return the keyword arguments that the study's optimizer settings fix."""
    if settings.name not in OPTIMIZERS:
        return {"lr": settings.lr, **settings.options}
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
