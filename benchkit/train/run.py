"""Everything that one training run holds, and how it is built from settings, data and plugins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchkit.errors import TrainingError
from benchkit.metrics import Metric, metric_of
from benchkit.protocols import Course, NormFactory, Splits
from benchkit.results import EpochRecord, Normalization
from benchkit.study.settings import USUAL_LOSS, PluginRef, Settings
from benchkit.train import batches, hooks, optimizers, randomness, schedules, step
from benchkit.train.normalization import normalization, statistics_of
from benchkit.train.placement import Images, images_for
from benchkit.train.weights import load_weights
from benchkit.train.weights_file import weights_digest, weights_file

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits float32 (N, K) and targets float32 (N, K), whose rows sum to 1, to a scalar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """The loaded plugins of one condition, their options bound.

    `model` takes (num_classes, image_shape (C, H, W), norm) and, where it loads weights itself, the keyword `weights`;
    `norm` takes a channel count; `loss`, `optimizer` (groups, rate) and `schedule` are None for benchkit's own;
    `regularizers` are (id, instance) in the study's order, `figures` (name, instance) those that its report adds, which
    may observe the model, `metrics` what it asks for beside what every trial has, and `readings` what of it is read
    after each epoch.
    """

    model: Callable[..., nn.Module]
    norm: NormFactory
    loss: Any = None
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    schedule: Any = None
    regularizers: tuple[tuple[str, Any], ...] = ()
    figures: tuple[tuple[str, Any], ...] = ()
    metrics: tuple[Metric, ...] = ()
    readings: tuple[Metric, ...] = ()


@dataclass(slots=True, kw_only=True)
class Best:
    """The best epoch so far (0: none), its score where more is better, and a copy of its weights and buffers."""

    epoch: int = 0
    score: float = float("-inf")
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Run:
    """One training run. Only `fit` trains it; between two of its epochs everything here is consistent.

    `eager` is why its steps must run one operation at a time, neither captured nor compiled; empty: they need not.
    `shares_device` tells that other trials train on its GPU at the same time, `takes_turns` that some may do so in this
    process. `start_weights` is the sha256 of the file that the model started from, empty without one. `compiled` tells
    whether its first steps were compiled ones, None before any.
    """

    settings: Settings
    device: torch.device
    class_names: tuple[str, ...]
    model: nn.Module
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: Course
    precision: step.Precision
    loss: LossFunction
    train: batches.Loader
    val: batches.ImageSet
    test: batches.ImageSet
    input_transform: batches.InputTransform
    randomness: randomness.Randomness
    hooks: hooks.Hooks
    constraints: tuple[Callable[[], None], ...]
    figures: tuple[tuple[str, Any], ...] = ()
    metrics: tuple[Metric, ...] = ()
    readings: tuple[Metric, ...] = ()
    history: list[EpochRecord] = field(default_factory=list)
    best: Best = field(default_factory=Best)
    notes: list[str] = field(default_factory=list)
    eager: str = ""
    shares_device: bool = False
    takes_turns: bool = False
    start_weights: str = ""
    compiled: bool | None = None
    normalization: Normalization | None = None
    finished: bool = False

    def over(self) -> bool:
        """Return whether training has ended: after the last epoch, or when a regularizer stops it."""
        if len(self.history) >= self.settings.train.epochs:
            return True
        return bool(self.history) and any(stop(tuple(self.history)) for stop in self.hooks.stops)

    def judged(self) -> AbstractContextManager[None]:
        """Return a context in which the model holds the weights that are judged and kept (see `hooks.judged`)."""
        return hooks.judged(self.model, self.hooks)

    def keep(self, record: EpochRecord) -> None:
        """Add an epoch to the history, and keep the model's weights when it is the best so far (the first of equals).

        To be called while the model holds the weights that are judged.
        """
        self.history.append(record)
        self._show(record)
        if self.settings.train.select != "best":
            return
        goal = self.settings.train.select_by
        score = (-1.0 if metric_of(goal).lower_is_better else 1.0) * record.score(goal)
        if score > self.best.score:
            weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.best = Best(epoch=record.epoch, score=score, weights=weights)

    def _show(self, record: EpochRecord) -> None:
        """Show an epoch to a schedule that depends on those before."""
        if hasattr(self.schedule, "observe"):
            self.schedule.observe(record)

    def state(self) -> dict[str, Any]:
        """Return all that continuing needs, as tensors, numbers and text; bit-identical on the CPU."""
        scaler = self.precision.scaler
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizers.state(self.optimizer),
            "scaler": scaler.state_dict() if scaler else {},
            "randomness": self.randomness.state(),
            "history": [asdict(record) for record in self.history],
            "best": {"epoch": self.best.epoch, "score": self.best.score, "weights": self.best.weights},
            "precision": self.precision.name,
            "start_weights": self.start_weights,
            "regularizers": self.hooks.state(),
            "compiled": self.compiled,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raise `TrainingError` when it belongs to another model or precision, or started from other weights.
        """
        if state["precision"] != self.precision.name:
            raise TrainingError(
                f"the checkpoint was trained in {state['precision']}, this run computes in {self.precision.name}",
                hint="continue it on a machine like the first, or fix train.precision",
            )
        before = state.get("start_weights", self.start_weights)  # earlier versions did not keep it
        if before and before != self.start_weights:  # of a model that loads them itself they did not tell
            raise TrainingError(
                f"the checkpoint started from other weights: sha256 {before[:12]}, now {self.start_weights[:12]}",
                hint="put the file back as it was, or choose a new --workspace",
            )
        try:
            self.model.load_state_dict(state["model"])
            optimizers.restore(self.optimizer, state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"the checkpoint belongs to another model: {error}") from error
        if self.precision.scaler:
            self.precision.scaler.load_state_dict(state["scaler"])
        self.hooks.restore(state.get("regularizers", {}))  # earlier versions had no states
        self.randomness.restore(state["randomness"])
        self.history = [EpochRecord(**record) for record in state["history"]]
        for record in self.history:
            self._show(record)
        self.best = Best(**state["best"])
        self.compiled = state.get("compiled")  # earlier versions did not keep it


def build_run(
    settings: Settings,
    splits: Splits,
    plugins: Plugins,
    *,
    seeds: Mapping[str, int],
    device: str,
    device_memory: int | None = None,
    images: Images | None = None,
) -> Run:
    """Return the run of one repeat, ready for its first epoch; its CPU threads are set for the whole process.

    Which images are train, val and test depends on the study's seed alone; initial weights, order, augmentation and
    dropout on `seeds` (`study.seeds.trial_seeds`). `device_memory` is the most bytes that images take on the device
    (see `placement.place_all`); it changes no result. `images` are what `placement.images_for` made for an earlier run
    of the same data, so that this one need not make them again.

    Raise `DataError` or `TrainingError` when it cannot be trained.
    """
    torch.set_num_threads(settings.train.threads)
    target = torch.device(device)
    kept = images_for(settings, splits, target, device_memory) if images is None else images
    notes = list(kept.notes)
    notes += ["trained on Apple's GPU in float32, each step eagerly"] if target.type == "mps" else []
    with randomness.seeded(seeds["init"], target):
        model = build_model(settings, plugins, splits, notes)
    channels_last = settings.train.channels_last and any(isinstance(layer, nn.Conv2d) for layer in model.modules())
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(target, memory_format=memory_format)  # type: ignore[call-overload]
    normalized, told = normalization(settings.data, kept.statistics, model, _input_shape(settings, splits))
    notes.extend((*told, *_loss_notes(settings.train.loss)))
    loader = _loader(settings, kept.train, plugins, splits.class_names, notes)
    with randomness.seeded(seeds["init"], target):
        bound = hooks.started(plugins.regularizers, model, len(loader), settings.train.epochs)
    training = training_parts(settings, model, plugins, len(loader), target)
    training["eager"] = bound.obstacle(training["precision"].name) or training["eager"]
    notes.extend(optimizers.optimizer_notes(training["optimizer"], settings.train.optimizer))
    return Run(
        settings=settings,
        device=target,
        class_names=splits.class_names,
        model=model,
        train=loader,
        val=kept.val,
        test=kept.test,
        input_transform=batches.input_transform(
            kept.train, statistics_of(normalized), size=settings.data.image_size, memory_format=memory_format
        ),
        randomness=randomness.randomness(seeds, target),
        loss=loss_function(plugins.loss, kept.train.labels, splits.class_names),
        figures=plugins.figures,
        metrics=plugins.metrics,
        readings=plugins.readings,
        hooks=bound,
        notes=[*notes, *bound.notes],
        start_weights=start_weights(settings, model),
        normalization=normalized,
        **training,
    )


def _loader(
    settings: Settings, images: batches.ImageSet, plugins: Plugins, class_names: Sequence[str], notes: list[str]
) -> batches.Loader:
    """Return the images of each optimizer step, and add to `notes` what is unlike the usual of them."""
    train = settings.train
    name, sampling = hooks.sampling_of(plugins.regularizers)
    loader = batches.loader(images, len(class_names), train.batch_size, accumulate=train.accumulate, sampling=sampling)
    if loader.single_left_over:
        notes.append("the last batch of each epoch, a single image, is left out")
    if train.accumulate > 1:
        notes.append(
            f"each step adds up the gradients of {train.accumulate} batches of {train.batch_size}: layers that use a "
            f"batch's statistics see {train.batch_size} images at a time"
        )
    if sampling is not None:
        notes.append(f"{name} draws the images of an epoch: its training accuracy is on those that it draws")
    return loader


def training_parts(
    settings: Settings, model: nn.Module, plugins: Plugins, steps_per_epoch: int, device: torch.device
) -> dict[str, Any]:
    """Return the parts of a run that change or watch the parameters, by field name."""
    train = settings.train
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise TrainingError("the model has no parameter to train")
    extra = optimizers.merged_options(train.optimizer, plugins.regularizers)
    course = schedules.schedule(
        train.schedule,
        lr=train.optimizer.lr,
        steps_per_epoch=steps_per_epoch,
        epochs=train.epochs,
        plugin=plugins.schedule,
    )
    moving = "its schedule changes the momentum from step to step" if hasattr(course, "momentum") else ""
    named = train.optimizer
    if plugins.optimizer is not None:
        # By the greatest rate some correct their decay; the rate of each step is set before it.
        named = replace(named, lr=train.schedule.max_lr or named.lr)
    return {
        "parameters": parameters,
        "optimizer": optimizers.optimizer(named, parameters, extra, plugins.optimizer),
        "schedule": course,
        "eager": unrecorded(settings, plugins, model) or moving,
        "precision": step.precision(train.precision, device),
        "constraints": tuple(layer.constrain for layer in model.modules() if callable(getattr(layer, "constrain", 0))),
    }


def loss_function(plugin: Any, labels: torch.Tensor, class_names: Sequence[str]) -> LossFunction:
    """Return the loss to train with on images with `labels` int64 (n,): `plugin`, fitted where it can be, or the usual.

    The usual one (None) is mean cross-entropy. Raise `TrainingError` where a class that the plugin needs has no image.
    """
    if plugin is None:
        return functional.cross_entropy
    loss: LossFunction = plugin
    if hasattr(plugin, "prepare"):
        loss = plugin.prepare(torch.bincount(labels, minlength=len(class_names)))
    return loss


def _loss_notes(settings: PluginRef) -> list[str]:
    """Return what a report says of a loss that is not the usual one."""
    if settings == USUAL_LOSS:
        return []
    given = ", ".join(f"{name} = {value}" for name, value in settings.options.items())
    return [
        f"trained by the loss {settings.name}{f' ({given})' if given else ''}: the training loss of an epoch is this "
        "one, every other loss is mean cross-entropy on the images as they are"
    ]


def build_model(settings: Settings, plugins: Plugins, splits: Splits, notes: list[str]) -> nn.Module:
    """Return the model on the CPU, so that initial weights do not depend on the device; add to `notes` what it tells.

    Raise `DataError` when the weights that it starts from cannot be read, and whatever plugins raise.
    """
    shape = _input_shape(settings, splits)
    weights = str(weights_file(settings.model.weights)) if settings.model.weights else ""
    if weights:
        weights_digest(weights)  # a model that loads them itself need not tell what is wrong with the file
    own = bool(weights) and "weights" in inspect.signature(plugins.model).parameters
    options = {"weights": weights} if own else {}
    model = _module(
        plugins.model(len(splits.class_names), shape, plugins.norm, **options),
        f"the model {settings.model.model.name!r}",
    )
    notes.extend(getattr(model, "notes", ()))
    if weights and not own:
        notes.extend(load_weights(model, weights))
    for name, regularizer in plugins.regularizers:
        if hasattr(regularizer, "prepare"):
            model = _module(regularizer.prepare(model), f"the regularizer {name!r}, prepare")
    return model


def _module(made: Any, who: str) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TrainingError(f"{who}: returned a {type(made).__name__}, expected a torch.nn.Module")
    return made


def start_weights(settings: Settings, model: nn.Module) -> str:
    """Return the sha256 of the file that a model started from: the study's, or what the model says that it loaded."""
    if settings.model.weights:
        return weights_digest(weights_file(settings.model.weights))
    return str(getattr(model, "start_weights", ""))


def _input_shape(settings: Settings, splits: Splits) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a model sees."""
    height, width, channels = splits.train.images.shape[1:]
    side = settings.data.image_size
    return channels, side or height, side or width


def unrecorded(settings: Settings, plugins: Plugins, model: nn.Module) -> str:
    """Return which part of a run keeps its steps from being recorded, in words, or an empty string.

    It says `capturable = False`, or is an optimizer that is none of benchkit's own.
    """
    parts = (*(instance for _, instance in plugins.regularizers), plugins.loss, *model.modules())
    names = [type(part).__name__ for part in parts if getattr(part, "capturable", True) is False]
    if names:
        return f"{names[0]} says capturable = False"
    foreign = f"its optimizer {settings.train.optimizer.name} is none that benchkit records"
    return "" if plugins.optimizer is None else foreign
