"""What a plugin author meets: the contracts of all kinds but metrics (metrics.py) and trackers (tracking.py).

Shapes: N images, C channels, H height, W width, K classes. A plugin is any object that fits one of these protocols;
nothing is inherited and nothing is registered in code: an entry point names the object (see docs/design.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from benchkit.errors import nearest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from benchkit.results import EpochRecord, StudyResults

API_VERSION = 1
"""The version of this plugin interface. A plugin that states another one in its card is refused."""

NormFactory = Callable[[int], "nn.Module"]
"""A norm with its options bound: channel count in, module on (N, C, H, W) out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The valid range of a numeric option, inclusive; `log` when it is best searched on a log scale."""

    low: float
    high: float
    log: bool = False


Plugin = TypeVar("Plugin", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a plugin says of itself; the report's glossary and bibliography are made from it.

    As a decorator, `@card(title=..., summary=...)`, it is given to a class or function.
    `reference` is the citation in words (authors, title, venue, year), `ranges` maps option names to their valid range
    (the kit wants one for some number of a regularizer, loss, optimizer or schedule that has any),
    `choices` maps option names to their allowed values, `api` is the plugin interface it was written for. `ignores`
    maps dotted settings that have no effect beside this plugin, such as `model.norm`, to the options at which that
    holds, an empty mapping for always: a study that varies such a setting is warned. `rates` is where a search would
    look for an optimizer's learning rate, `rate` the one to begin with (0: not said); `variant_rates` is the latter of
    each variant of a family, where a search would look from a hundredth of it to ten times it.
    """

    title: str
    summary: str
    reference: str = ""
    url: str = ""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    api: int = API_VERSION
    ignores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rates: Range | None = None
    rate: float = 0.0
    variant_rates: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, plugin: Plugin) -> Plugin:
        """Give a plugin this card."""
        plugin.__benchkit_card__ = self  # type: ignore[attr-defined]
        return plugin


card = Card
"""The name of cards as decorators."""


def card_of(plugin: object) -> Card:
    """Return a plugin's card; without one, a card made from its name and the first line of its docstring."""
    found = getattr(plugin, "__benchkit_card__", None)
    if isinstance(found, Card):
        return found
    name = getattr(plugin, "__name__", type(plugin).__name__)
    summary = (getattr(plugin, "__doc__", None) or "").strip().partition("\n")[0]
    return Card(title=name, summary=summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Images uint8 (N, H, W, C) in 0..255, memory-mapped when large, and labels int64 (N,) in 0..K-1.

    `groups` int64 (N,) numbers what images belong together, such as pictures of one subject, through all splits of a
    data set; -1 is an image of its own, None where nothing is known of groups.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """How many images of val and test an earlier split has, too, and the first `pairs` (split, row, split, row)."""

    count: int = 0
    pairs: tuple[tuple[str, int, str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """A data set: train and test, val when it ships one, class names in label order, licence, citation, fingerprint.

    `fingerprint` is a sha256 hex digest over images, labels and class names (see `benchkit.preparation`). `notes` are
    sentences that reports repeat, for example that the set is only a part of the published one. `repeated` are the
    images that several splits have, as `benchkit.preparation` finds them; None where nobody looked. `source` is the
    digest of the plugin's source by which the set was prepared, empty where it is not prepared or that is not known.
    """

    train: Split
    test: Split
    val: Split | None = None
    class_names: tuple[str, ...]
    licence: str
    citation: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    repeated: Repeated | None = None
    source: str = ""

    @property
    def named(self) -> dict[str, Split]:
        """Return the splits that there are by their names, in the order train, val, test."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images float32 (N, C, H, W) in [0, 1] on the device, and targets float32 (N, K) whose rows sum to 1."""

    images: torch.Tensor
    targets: torch.Tensor


class Norm(Protocol):
    """A callable that returns a normalisation module for (N, C, H, W) input.

    Statistics are computed in float32 or wider and the output has the input's dtype. `device` and `dtype` are taken as
    keyword arguments, None by default: timm's models pass them, and so do the kit's checks `timm` and `pretrained`. A
    module may have a method `constrain() -> None`, called after every optimizer step (for example to clip a gate to
    [0, 1]).
    """

    def __call__(self, num_channels: int, /, **options: Any) -> nn.Module:
        """Return the module for `num_channels` channels."""
        ...


class Dataset(Protocol):
    """A function that returns the prepared data set, preparing it under `root` once and atomically.

    An optional keyword `source: Path | None` makes `benchkit data import NAME PATH` work: files that the user already
    has.
    """

    def __call__(self, root: Path, /, **options: Any) -> Splits:
        """Return the splits; raise `DataError` when they are absent and cannot be fetched."""
        ...


class Model(Protocol):
    """A callable that returns a classifier: (N, C, H, W) float to logits (N, K).

    A parameter of the network may carry the attribute `rate_factor`, a float of at least 0: it is then trained with
    the schedule's learning rate times this factor. The network may carry `notes`, sentences for the report, and
    `pretrained_cfg`, a mapping with the `mean` and `std` of each channel of images in [0, 1] that it was trained with,
    as timm's models do, which `data.normalize = "model"` takes. On a GPU, and where steps are compiled, a training step
    is recorded once and replayed; a module that must not be, because it keeps count in Python or decides by what it
    computes, says so by the attribute `capturable = False` (most such steps are noticed and run eagerly). What differs
    between a processor and a GPU is asked by `benchkit.is_cpu(tensor)`, so that the conformance kit can try the GPU's
    way without one.
    """

    def __call__(
        self, num_classes: int, image_shape: tuple[int, int, int], norm: NormFactory, /, **options: Any
    ) -> nn.Module:
        """Return the network for `num_classes` classes and images of `image_shape` = (C, H, W)."""
        ...


class RegularizerState(Protocol):
    """What a regularizer keeps from step to step, in checkpoints and undone with a rehearsal.

    A `torch.nn.Module` with buffers is one, and the kind whose steps a GPU can record and a compiler join: it must
    change its tensors in place. With any other, steps are taken one operation at a time. It may carry `notes`,
    sentences for the report, and `warnings`, said before anything is trained.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return all that continuing needs, as tensors, numbers and text."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Continue where `state` was taken."""
        ...


class Regularizer(Protocol):
    """A frozen dataclass with any of these methods; its fields are its options. Absent methods are not called.

    With a class attribute `capturable = False` its trials' steps are neither replayed from a CUDA graph nor compiled
    (see `Model`). Where it has `start`, each method from `augment` on but `batch_sampling` gets the state as its last
    argument. At most one regularizer of a condition has `around_step`, one `batch_sampling`, and one `averaged`.
    `reads`, where it has it, are the metrics that each epoch is to be read by for it, such as `("val.brier",)`.

    Methods that get a `generator` draw from it alone; all others from PyTorch's global generators, as dropout does: the
    loop keeps a state of these for each trial, seeded from the study and in checkpoints. Those of Python and NumPy are
    no trial's.
    """

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> RegularizerState:
        """Return the state for a training of so many steps; the model has its first weights, on its device."""
        ...

    def optimizer_options(self) -> dict[str, Any]:
        """Return keyword arguments for the optimizer, for example `{"weight_decay": 5e-4}`."""
        ...

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model to train, changed before the first step."""
        ...

    def batch_sampling(self, labels: torch.Tensor, classes: int, size: int, generator: torch.Generator) -> torch.Tensor:
        """Return which images make up an epoch, int64 (size,) positions in their order; randomness from `generator`.

        `labels` int64 (N,) in 0..classes-1 are those of all training images, on the CPU.
        """
        ...

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch to train on; randomness from `generator` (on the batch's device) alone."""
        ...

    def loss(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scalar to lower in the place of `loss`, that of logits and targets (N, K), without penalties."""
        ...

    def penalty(self, model: nn.Module) -> torch.Tensor:
        """Return a scalar that is added to the loss."""
        ...

    def around_step(self, parameters: Sequence[nn.Parameter], again: Callable[[], None]) -> None:
        """Change the weights, and by `again()` take the gradients there: of the same images, loss and penalties.

        The gradients of the first pass are there. Layers draw the same random numbers in each pass, and batch
        statistics move in the first one alone. Afterwards the loop puts the weights back as they were, to the bit.
        """
        ...

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Change the gradients in place before the optimizer step."""
        ...

    def after_step(self, model: nn.Module) -> None:
        """Do what follows the optimizer's step, without gradients; not called where fp16's loss scaling skips one."""
        ...

    def averaged(self, model: nn.Module, state: RegularizerState) -> Mapping[str, torch.Tensor]:
        """Return the weights and buffers that are validated, selected, tested and kept, by name in the state dict."""
        ...

    def stop(self, history: Sequence[EpochRecord]) -> bool:
        """Return whether training ends after the last epoch in `history`. A function of `history` alone."""
        ...


HOOKS = (
    *("optimizer_options", "prepare", "start", "batch_sampling", "augment", "loss", "penalty", "around_step", "clip"),
    *("after_step", "averaged", "stop"),
)
"""The methods of a regularizer that training calls, each at its moment."""


def is_frozen(value: object) -> bool:
    """Return whether something is a frozen dataclass, or an instance of one."""
    return is_dataclass(value) and bool(getattr(value, "__dataclass_params__").frozen)  # noqa: B009


def misfit(kind: str, plugin: object) -> str:
    """Return why a plugin's instance of a kind trains otherwise than its author means, or an empty string.

    Of kinds that are frozen dataclasses one that is none loses what it changes in itself where a trial goes on; a
    regularizer without any of the methods that training calls does nothing.
    """
    if kind in ("regularizers", "losses", "schedules") and not is_frozen(plugin):
        return "is no frozen dataclass, and what it changes in itself is lost where a trial goes on"
    if kind == "regularizers" and not any(callable(getattr(plugin, name, None)) for name in HOOKS):
        own = [name for name, value in vars(type(plugin)).items() if callable(value) and not name.startswith("_")]
        close = [f"{name}{nearest(name, HOOKS)}" for name in own]
        return f"has none of the methods that training calls, but {', '.join(close) or 'no method at all'}"
    return ""


ALONE: Mapping[str, str] = {
    "around_step": "takes each step in two passes",
    "batch_sampling": "chooses the images of an epoch",
    "averaged": "averages the weights",
}
"""Methods that at most one regularizer of a condition may have, and what it does."""


def clashes_of(methods: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for each thing that several of a condition's regularizers would do and only one can.

    `methods` are those of `ALONE` that a regularizer has, by its id.
    """
    lines = []
    for method, words in ALONE.items():
        names = [name for name, there in methods.items() if method in there]
        if len(names) > 1:
            lines.append(f"{' and '.join(names)}: each {words}; expected at most one of them in a condition")
    return lines


class Loss(Protocol):
    """A frozen dataclass whose fields are its options; an instance gives the loss that the optimizer lowers.

    It computes in float32 on tensors alone, on any device, and decides by no value of theirs, so that a GPU can record
    it (or says `capturable = False`, see `Model`). Targets may be soft: smoothing and mixing are regularizers', which
    changed them before, so a loss smooths nothing itself. An optional method `prepare(counts)` gets the images of each
    class in train, int64 (K,) on the device, and returns the callable to train with, for example with class weights.
    Where the loss of a batch is a sum divided by other than its number of images, an optional method `divisor(targets)`
    returns that divisor, a scalar, so that batches whose gradients are added up count by it (`train.accumulate`).
    """

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return a scalar for logits float32 (N, K) and targets float32 (N, K), whose rows sum to 1."""
        ...


class OptimizerFactory(Protocol):
    """A function of groups of parameters and a rate. Its steps are taken one operation at a time.

    Groups are dicts with `params` and `rate_factor`, which are kept: before each step a group's `lr` is set to the
    schedule's rate times this factor. `state_dict()` holds all that the next step depends on.
    """

    def __call__(self, parameters: Sequence[dict[str, Any]], lr: float, /, **options: Any) -> torch.optim.Optimizer:
        """Return the optimizer, whose `step()` needs no closure."""
        ...


class Course(Protocol):
    """The rate of each step of one training. It may have two more methods, called where they are there.

    `momentum(step) -> float`: the momentum of a step, of Adam and its kind the first beta. `observe(record) -> None`:
    called after each epoch with its `EpochRecord`, which the steps after it may depend on. What was observed is in the
    trial's history: a course that goes on after a break is shown all records again, and needs no other state.
    """

    def __call__(self, step: int) -> float:
        """Return the learning rate of an optimizer step, counted from 0 over the whole of training: a pure function."""
        ...


class Schedule(Protocol):
    """A frozen dataclass whose fields are its options; `reads` as a `Regularizer`'s, for its course to observe."""

    def start(self, lr: float, steps_per_epoch: int, epochs: int) -> Course:
        """Return the course of a training of `epochs` with the optimizer's own rate `lr`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGrid:
    """A figure made of pictures: rows of (caption, PNG or JPEG bytes), and the headings of the columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[bytes, ...]], ...]


class Figure(Protocol):
    """A frozen dataclass (its fields are its options) that turns a study's results into a figure.

    `data` computes plain numbers, `draw` turns them into a picture, so that numbers are tested without drawing.
    `data` raises `benchkit.NothingToDraw` with the reason when the results hold nothing for it.

    A figure that needs the model itself may have two more methods; they are called only for studies that name the
    figure in `report.figures`, never change training, and what they return is kept with the trial:

    - `observe(model, images) -> dict[str, float]`: after every epoch, in evaluation mode and without gradients, on up
      to 64 validation images evenly spaced in the split, float32 (N, C, H, W), normalised as the model sees them. Kept
      in `EpochRecord.observed` as `figure.quantity`.
    - `inspect(model, images, labels) -> dict[str, numpy.ndarray]`: once, in repeat 0, with the selected weights, on up
      to 256 test images evenly spaced in the split, normalised, and their labels int64 (N,); gradients may be taken.
      Kept for `Trial.inspected(figure)`, which also holds the uint8 originals (N, H, W, C) as `images` and `labels`.
    """

    def data(self, results: StudyResults) -> Any:
        """Return a frozen dataclass of plain, finite numbers and text."""
        ...

    def draw(self, data: Any) -> Any:
        """Return an `altair` chart or an `ImageGrid`."""
        ...

    def caption(self, data: Any) -> str:
        """Return the caption: what is shown, over how many repeats, what the bands or bars are."""
        ...

    def alt_text(self, data: Any) -> str:
        """Return one sentence that states the result."""
        ...


class NothingToDraw(Exception):
    """The results hold nothing for this figure; the message says what is missing."""
