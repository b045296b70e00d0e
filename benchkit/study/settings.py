"""The settings of one training run, typed: what a condition's tree of settings becomes. Imports no torch.

A field's type holds its allowed values: names as `Literal`, numbers with their lowest and highest value, inclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
MOST = 1.7976931348623157e308
Finite = Annotated[float, Meta(ge=-MOST, le=MOST)]
"""A number that is neither infinite nor nan."""
NotNegative = Annotated[float, Meta(ge=0, le=MOST)]
Share = Annotated[float, Meta(ge=0, le=1)]


OWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "train.optimizer": ("sgd", "adam", "adamw"),
    "train.schedule": ("constant", "step", "cosine", "one-cycle"),
}
"""Tables of settings that name a part of benchkit's own, or else a plugin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRef:
    """A plugin by name, with the options that the study gives it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


USUAL_LOSS = PluginRef(name="cross-entropy")
"""Mean cross-entropy with every class alike, which benchkit computes itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Which data set, how much of it, and how images reach the model.

    `train_size`, `val_size` and `test_size` count images, drawn class-balanced under the study's seed; 0 means all (for
    val: the split that the data set ships, else a tenth of train). `image_size` resizes images to that many pixels a
    side on the device, 0 leaves them. `normalize` subtracts the training images' channel mean and divides by their
    standard deviation ("data", as true does), or takes the numbers that each model says it was trained with ("model"),
    where it says so; "none", as false does, leaves images in [0, 1].
    `folds` are those of `repeats.splits = "folds"`, which writes their number here: 0 keeps the data set's own splits.
    """

    dataset: PluginRef
    train_size: Count = 0
    val_size: Count = 0
    test_size: Count = 0
    image_size: Count = 0
    normalize: bool | Literal["data", "model", "none"] = True
    folds: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model, which `norm` inside it, and `weights`: a local safetensors or pth file to start from.

    `package:NAME` is the file that the installed distribution of that name ships.
    """

    model: PluginRef
    norm: PluginRef = field(default_factory=lambda: PluginRef(name="torch-bn"))
    weights: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """`name` is sgd, adam, adamw or a plugin's, such as timm:lion, of which the options are `options`.

    `lr` is the learning rate. `momentum` and `nesterov` belong to sgd, `betas` to the Adams. `decayed` are the
    parameters that a weight decay pulls to zero, by whichever optimizer: all, or the matrices alone, which have two
    dimensions or more (no bias, no norm).
    """

    name: str = "sgd"
    lr: NotNegative = 0.1
    momentum: Share = 0.9
    nesterov: bool = False
    betas: tuple[Finite, Finite] = (0.9, 0.999)
    decayed: Literal["all", "matrices"] = "all"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """How the learning rate moves; `options` are those of a schedule plugin of another name.

    constant; step (times `gamma` every `every` epochs); cosine (annealed per batch to zero over training); one-cycle
    (per batch, cosine from max_lr/25 up to `max_lr` over the first `warmup` share of training, then down to
    max_lr/250000; Smith and Topin 2017). `max_lr` 0 takes the optimizer's lr.
    """

    name: str = "constant"
    every: Positive = 30
    gamma: NotNegative = 0.1
    max_lr: NotNegative = 0.0
    warmup: Share = 0.3
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a model is trained.

    `epochs` counts passes over train, `batch_size` the images of a step. `optimizer` and `schedule` are benchkit's own
    or plugins. `channels_last` keeps the channels of a pixel side by side in memory, where convolutions are faster.
    `select_by` is the score of val by which the best epoch is told.

    `precision` is auto (bf16 where the device has it; fp16 on a GPU that has only that, where the steps of all networks
    can be recorded; else float32), bf16, fp16 or float32, in which CUDA rounds the factors of convolutions to TF32 and
    those of matrix products not, as PyTorch does by default. `select` scores the
    weights of the best epoch by `select_by`, a score that can be read after each, or of the last one. `threads` is
    the number of CPU threads of one trial: it changes rounding, so it belongs to the science, and `--jobs` does not.
    `compile` is auto (where the whole study's planned work is worth it, by a table of what was measured on devices of
    that kind), never or always; it too changes no more than rounding. What auto means is decided once for a study, so
    that a trial's bits do not hang on a clock.
    `loss` is what the optimizer lowers; the losses that are reported stay mean cross-entropy without augmentation.
    `accumulate` batches of `batch_size` make one optimizer step, by the gradient of the mean over all their images, so
    that the memory of one batch does for several; what remains at an epoch's end is a smaller step. Images are mixed
    over the whole step, schedules count steps.
    """

    epochs: Positive = 10
    batch_size: Positive = 128
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    precision: Literal["auto", "bf16", "fp16", "float32"] = "auto"
    channels_last: bool = True
    select: Literal["best", "last"] = "best"
    select_by: str = "val.loss"
    threads: Positive = 1
    compile: Literal["auto", "never", "always"] = "auto"
    loss: PluginRef = USUAL_LOSS
    accumulate: Positive = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularizerSettings:
    """A regularizer plugin under an `id` (its name unless the study gives another, to use one twice)."""

    id: str
    plugin: PluginRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that determines one trial but its repeat."""

    data: DataSettings
    model: ModelSettings
    train: TrainSettings = field(default_factory=TrainSettings)
    regularizers: tuple[RegularizerSettings, ...] = ()
    seed: int = 0
