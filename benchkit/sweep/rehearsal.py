"""One step of a training, taken before any, on images that are few: by it each plugin is held to its contract.

What a hook raises or returns wrongly is told with the regularizer and the hook, which the loop itself does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from benchkit.data.dataset import Selected
from benchkit.errors import BenchkitError, TrainingError, first_line, first_of, where_raised
from benchkit.protocols import Batch, Splits
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import Settings
from benchkit.sweep.training import lacking
from benchkit.train import batches
from benchkit.train.hooks import Hooks, Named, held
from benchkit.train.randomness import randomness
from benchkit.train.run import Plugins, Run, loss_function
from benchkit.train.step import Precision, train_step

FEW = 4
"""Images of the step that is tried first; only one that fails is tried with as many as the study's."""

Check = Callable[[Any, tuple[Any, ...]], str]
"""Returns what is wrong with what a hook returned for what it was given, or an empty string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedHook:
    """A hook that tells whose it is where it raises, or returns what the loop cannot go on with."""

    method: Callable[..., Any]
    who: str
    check: Check

    def __call__(self, *given: Any) -> Any:
        """Return what the method returns; raise `TrainingError` where that, or the method, is wrong."""
        with told(self.who):
            found = self.method(*given)
        if problem := self.check(found, given):
            raise TrainingError(f"{self.who}: returned {problem}")
        return found

    @property
    def __self__(self) -> Any:
        """Return the regularizer."""
        return getattr(self.method, "__self__", None)


@contextmanager
def told(who: str) -> Iterator[None]:
    """Let what the block raises be a `TrainingError` that says who raised it; a lack of memory passes as it is."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, BenchkitError) or lacking(error):
            raise
        where = where_raised(error, plugins_only=True)
        raise TrainingError(f"{who}: {type(error).__name__}: {first_line(error)}{where}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _WatchedPrecision(Precision):
    """Takes the step of an optimizer, by its name, and tells where that fails."""

    optimizer: str

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer step."""
        with told(f"the optimizer {self.optimizer!r}, step"):
            Precision.step(self, optimizer)


def rehearse(settings: Settings, plugins: Plugins, model: nn.Module, splits: Splits, parts: Mapping[str, Any]) -> None:
    """Take the first step of a training with a model that is done with afterwards.

    `parts` are the fields of its `Run` that are made: its device, on which the model is, and hooks, and what
    `training_parts` returns. Raise `TrainingError` where a hook fails or returns what it must not, and whatever else
    the step raises.
    """
    watching = _WatchedPrecision(
        name=parts["precision"].name,
        autocast=parts["precision"].autocast,
        scaler=parts["precision"].scaler,
        optimizer=settings.train.optimizer.name,
    )
    parts = {**parts, "hooks": watched(parts["hooks"], plugins.regularizers), "precision": watching}
    whole = min(settings.train.batch_size * settings.train.accumulate, len(splits.train.labels))
    try:
        _take_step(settings, plugins, model, splits, min(FEW, whole), parts)
    except Exception:
        if whole <= FEW:
            raise
        _take_step(settings, plugins, model, splits, whole, parts)
    if parts["hooks"].averaged is not None:
        parts["hooks"].averaged(model)


def _take_step(
    settings: Settings, plugins: Plugins, model: nn.Module, splits: Splits, count: int, parts: Mapping[str, Any]
) -> None:
    """Train a model by `count` images of train, the first, the last and what lies evenly between."""
    device = parts["device"]
    rows = np.linspace(0, len(splits.train.labels) - 1, count).round().astype(np.int64)
    images = batches.image_set(Selected(split=splits.train, rows=rows), device)
    labels = torch.from_numpy(splits.train.labels.astype(np.int64)).to(device)
    run = Run(
        settings=settings,
        class_names=splits.class_names,
        model=model,
        train=batches.loader(images, len(splits.class_names), min(count, settings.train.batch_size)),
        val=images,
        test=images,
        input_transform=batches.input_transform(
            images, None, size=settings.data.image_size, memory_format=torch.contiguous_format
        ),
        randomness=randomness(trial_seeds(settings.seed, "grid", 0), device),
        loss=loss_function(plugins.loss, labels, splits.class_names),
        **parts,
    )
    model.train()
    with run.randomness.in_charge():
        train_step(run, run.train.batch((torch.arange(count, device=device),)), 0)


@contextmanager
def watched_norms(model: nn.Module, name: str, norm: Any) -> Iterator[None]:
    """Let a layer of a norm that is a class raise `TrainingError`, in the block, where it changes shape or type."""
    kind = getattr(norm, "func", norm)

    def check(layer: nn.Module, given: tuple[Any, ...], found: Any) -> None:
        if given and _shown(found) != _shown(given[0]):
            raise TrainingError(
                f"the norm {name!r}: returned {_shown(found)}, expected {_shown(given[0])} as it was given"
            )

    layers = [layer for layer in model.modules() if isinstance(kind, type) and isinstance(layer, kind)]
    handles = [layer.register_forward_hook(check) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def watched(bound: Hooks, named: Named) -> Hooks:
    """Return hooks that tell whose they are where they fail."""
    ids = {id(one): name for name, one in named}

    def each(hooks: Sequence[Any], method: str, check: Check = lambda found, given: "") -> tuple[WatchedHook, ...]:
        # A static method knows no instance.
        names = [ids.get(id(getattr(one, "__self__", None)), " or ".join(ids.values())) for one in hooks]
        return tuple(
            WatchedHook(method=one, who=f"the regularizer {name!r}, {method}", check=check)
            for one, name in zip(hooks, names, strict=True)
        )

    return replace(
        bound,
        augments=each(bound.augments, "augment", _augmented),
        losses=each(bound.losses, "loss", _scalar),
        penalties=each(bound.penalties, "penalty", _number),
        around=next(iter(each([bound.around] if bound.around else [], "around_step")), None),
        clips=each(bound.clips, "clip"),
        afters=each(bound.afters, "after_step"),
        averaged=next(iter(each([bound.averaged] if bound.averaged else [], "averaged", _averages)), None),
    )


def _augmented(found: Any, given: tuple[Any, ...]) -> str:
    if not isinstance(found, Batch):
        return f"{_shown(found)}, expected a Batch"
    images, targets = found.images, found.targets
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or not images.is_floating_point():
        return f"images {_shown(images)}, expected float32 (N, C, H, W)"
    if not isinstance(targets, torch.Tensor) or targets.shape != (len(images), given[0].targets.shape[1]):
        return f"targets {_shown(targets)}, expected float32 ({len(images)}, {given[0].targets.shape[1]})"
    return ""


def _scalar(found: Any, given: tuple[Any, ...]) -> str:
    return "" if isinstance(found, torch.Tensor) and found.shape == () else f"{_shown(found)}, expected a scalar tensor"


def _number(found: Any, given: tuple[Any, ...]) -> str:
    return "" if isinstance(found, int | float) else _scalar(found, given)


def _averages(found: Any, given: tuple[Any, ...]) -> str:
    """Return which of the model's weights and buffers are missing, or have another shape."""
    if not isinstance(found, Mapping):
        return f"{_shown(found)}, expected weights and buffers by their names"
    for name, tensor in held(given[0]).items():
        if name not in found:
            return f"no {name}, expected all weights and buffers: {first_of(list(held(given[0])), 3)}"
        if getattr(found[name], "shape", None) != tensor.shape:
            return f"{name} as {_shown(found[name])}, expected {_shown(tensor)}"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
    return "None" if value is None else f"a {type(value).__name__}"
