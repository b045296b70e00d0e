"""The metrics: each is declared once, and training, search, statistics, words, tables, figures and JSON read it.

A metric is named with what it is of, such as `test.accuracy` or `cost.seconds`. Those that every trial has are declared
here, others by plugins: functions of `Predictions` that carry their `Metric`. Imports neither torch nor NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Literal

from benchkit.errors import PluginError

if TYPE_CHECKING:
    import numpy as np

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

BINS = 15
"""Confidence bins of the calibration error."""

MOST_AUROC_CLASSES = 10
"""Of more classes the mean of one class against all others says little, and is not stated."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split's images: logits float32 (N, K), and their labels int64 (N,)."""

    logits: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> int:
        """Return the number of classes, K."""
        return int(self.logits.shape[1])

    @cached_property
    def confusion(self) -> np.ndarray:
        """Return int64 (K, K): how many images of each class (row) are called each class (column)."""
        import numpy as np

        pairs = self.labels * self.classes + self.logits.argmax(1)
        return np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    @cached_property
    def correct(self) -> np.ndarray:
        """Return int64 (K,): how many images of each class are called so."""
        return self.confusion.diagonal()

    @cached_property
    def either(self) -> np.ndarray:
        """Return int64 (K,): images of each class plus images called so, the denominator of its F1."""
        total: np.ndarray = self.confusion.sum(1) + self.confusion.sum(0)
        return total

    @property
    def class_accuracy(self) -> tuple[float, ...]:
        """Return the share of each class's images that are called so, NaN for a class without images."""
        import numpy as np

        present = self.confusion.sum(1)
        shares = np.divide(self.correct, present, out=np.full(self.classes, np.nan), where=present > 0)
        return tuple(shares.tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a metric is, whichever split it is of: its name, its words, its numbers, and where they come from.

    A stored value times `factor` is the number that is shown, in `unit`, with `decimals` (None: four significant
    digits). `style` says what else sentences do with it: `prefixed` numbers are shown with k, M or G, `duration` in
    minutes and hours. Values lie between `low` and `high`. `axis` has the words, unit and factor of a figure's axis
    where they differ. `goal`: a search may have it as its goal. `every_epoch`: it is known after each epoch, on the
    training and the validation images. `of_images`: it is a share of images, k of n. `computed` gives it from
    predictions, or None where they have no such number, for the reason that `undefined` states; costs are measured by
    training instead. `over_classes`: it is a mean over the classes that occur among the labels.
    """

    name: str
    words: str
    lower_is_better: bool = False
    unit: str = ""
    factor: float = 1.0
    decimals: int | None = None
    style: Literal["plain", "prefixed", "duration"] = "plain"
    low: float = 0.0
    high: float = math.inf
    axis: tuple[str, str, float] | None = None
    goal: bool = False
    every_epoch: bool = False
    of_images: bool = False
    computed: Callable[[Predictions], float | None] | None = None
    undefined: str = ""
    over_classes: bool = False

    @property
    def is_share(self) -> bool:
        """Return whether it is a fraction, shown in percent; differences of it are percentage points."""
        return self.unit == "%"

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest value that it can have."""
        return self.low, self.high

    @property
    def on_axis(self) -> tuple[str, str, float]:
        """Return the words and the unit of an axis, and the factor from stored values to that unit."""
        return self.axis or (self.words, self.unit, self.factor)


def _share(
    name: str,
    words: str,
    computed: Callable[[Predictions], float | None] | None = None,
    *,
    lower_is_better: bool = False,
    every_epoch: bool = False,
    of_images: bool = False,
) -> Metric:
    return Metric(
        name=name, words=words, unit="%", factor=100.0, decimals=2, high=1.0, computed=computed,
        goal=computed is not None, lower_is_better=lower_is_better, every_epoch=every_epoch, of_images=of_images,
    )  # fmt: skip


def _accuracy(scored: Predictions) -> float:
    return float(scored.correct.sum() / len(scored.labels))


def _top5_accuracy(scored: Predictions) -> float | None:
    """Return the share of images whose class is among the five with the greatest logits, the first of equals first.

    With five classes or fewer it would always be 1, and is not stated.
    """
    import numpy as np

    if scored.classes <= 5:
        return None
    own = np.take_along_axis(scored.logits, scored.labels[:, None], axis=1)
    earlier = np.arange(scored.classes) < scored.labels[:, None]
    ahead = (scored.logits > own) | ((scored.logits == own) & earlier)
    return float((ahead.sum(1) < 5).mean())


def _loss(scored: Predictions) -> float:
    """Return the mean cross-entropy in nats, in float64."""
    import torch
    from torch.nn import functional

    wide = torch.from_numpy(scored.logits).to(torch.float64)
    return functional.cross_entropy(wide, torch.from_numpy(scored.labels)).item()


def _micro_f1(scored: Predictions) -> float:
    """Return 2 r / (p + q) with r correct images, p of the class and q called so, each summed over all classes."""
    return float(2 * scored.correct.sum() / scored.either.sum())


def _macro_f1(scored: Predictions) -> float:
    """Return the mean of 2 r / (p + q) over the classes that occur among labels or predictions."""
    import numpy as np

    known = scored.either > 0
    return float(np.mean(2 * scored.correct[known] / scored.either[known]))


def _auroc(scored: Predictions) -> float | None:
    """Return the area under the receiver operating characteristic, a share; None above ten classes or without one.

    The chance that an image of a class has a greater probability of it than an image of another class, equals counting
    half: U / (p q), with Mann and Whitney's U and p and q images of and beside the class (Hanley and McNeil, The
    Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve, Radiology 143, 1982). Of two
    classes that of the second, which is that of the first; of more the mean over classes that some, but not all images
    are of.
    """
    import numpy as np
    import torch
    from scipy.stats import rankdata

    if not 2 <= scored.classes <= MOST_AUROC_CLASSES:
        return None
    probabilities = torch.from_numpy(scored.logits).to(torch.float64).softmax(1).numpy()
    ranks, areas = rankdata(probabilities, axis=0), []
    for label in range(1 if scored.classes == 2 else 0, scored.classes):
        own = scored.labels == label
        p, q = int(own.sum()), int((~own).sum())
        if p and q:
            areas.append((ranks[own, label].sum() - p * (p + 1) / 2) / (p * q))
    return float(np.mean(areas)) if areas else None


def _calibration_error(scored: Predictions) -> float:
    import torch

    probabilities = torch.from_numpy(scored.logits).to(torch.float64).softmax(1).numpy()
    return calibration_error(probabilities, scored.labels)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error in 0..1: sum over bins of |correct - confidence| / N.

    The 15 bins have equal width on the confidence of the predicted class (Naeini, Cooper and Hauskrecht, Obtaining
    Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015; Guo et al., ICML 2017).
    """
    import numpy as np

    confidence = probabilities.max(1)
    excess = (probabilities.argmax(1) == labels) - confidence
    sums, _ = np.histogram(confidence, bins=BINS, range=(0.0, 1.0), weights=excess)
    return float(np.abs(sums).sum() / len(labels))


SCORES: tuple[Metric, ...] = (
    _share("accuracy", "accuracy", _accuracy, every_epoch=True, of_images=True),
    _share("top5_accuracy", "top-5 accuracy", _top5_accuracy, of_images=True),
    Metric(
        name="loss", words="loss", unit="nats", decimals=4, lower_is_better=True, goal=True, every_epoch=True,
        computed=_loss,
    ),
    _share("micro_f1", "micro F1", _micro_f1, of_images=True),
    _share("macro_f1", "macro F1", _macro_f1),
    Metric(name="auroc", words="AUROC", unit="%", factor=100.0, decimals=2, high=1.0, computed=_auroc),
    _share("calibration_error", "calibration error", _calibration_error, lower_is_better=True),
)  # fmt: skip
"""What a finished model scores on a split, in the order of tables."""

COSTS: tuple[Metric, ...] = (
    Metric(
        name="seconds", words="training time", unit="s", decimals=1, style="duration", lower_is_better=True, goal=True
    ),
    Metric(
        name="parameters", words="parameters", style="prefixed", lower_is_better=True, goal=True,
        axis=("parameters", "millions", 1e-6),
    ),
    Metric(
        name="flops", words="FLOPs per image", style="prefixed", lower_is_better=True, goal=True,
        axis=("forward cost per image", "MFLOPs", 1e-6),
    ),
    Metric(
        name="images_per_second", words="images per second", unit="images/s", decimals=0,
        axis=("training speed", "images/s", 1.0),
    ),
    Metric(name="peak_memory", words="peak memory", unit="MiB", decimals=0, lower_is_better=True, goal=True),
    Metric(name="best_seconds", words="time to the best epoch", unit="s", decimals=1, lower_is_better=True),
    Metric(name="energy", words="energy", unit="J", lower_is_better=True),
    _share("matrix_share", "share of the matrix rate"),
)  # fmt: skip
"""What training costs."""

_BY_NAME = {metric.name: metric for metric in (*SCORES, *COSTS)}

Scored = Callable[[Predictions], "float | None"]

GROUP = "benchkit.metrics"
"""The entry-point group of the metrics that a study asks for."""


def declared(metric: Metric) -> Callable[[Scored], Scored]:
    """Return a decorator that makes a function of predictions a metric plugin: it gives the number, `metric` the words.

    The metric's name is that of its entry point, with underscores for hyphens.
    """

    def attach(computed: Scored) -> Scored:
        computed.__benchkit_metric__ = replace(metric, computed=computed)  # type: ignore[attr-defined]
        return computed

    return attach


@cache
def plugin_metrics() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return what installed distributions have beside the metrics of every trial, by name; nothing is imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        name = entry.name.replace("-", "_")
        if name not in _BY_NAME:
            found[name] = (*found.get(name, ()), entry)
    return dict(sorted(found.items()))


@cache
def _plugin(name: str) -> Metric:
    """Return a plugin's metric, importing it; raise `PluginError` where it is broken or several claim the name."""
    claims = plugin_metrics()[name]
    if len(claims) > 1:
        raise PluginError(
            f"the metric {name!r} is claimed {len(claims)} times",
            problems=[claim.value for claim in claims],
            hint="uninstall all but one",
        )
    try:
        metric: Metric = claims[0].load().__benchkit_metric__
    except Exception as error:
        raise PluginError(f"the metric {name!r} ({claims[0].value}) is broken: {error}") from error
    return replace(metric, name=name)


def metric_of(metric: str) -> Metric:
    """Return what `test.accuracy`, `cost.seconds` or a bare name is; an unknown name is a plain number, more better.

    Raise `PluginError` for a plugin's that is broken.
    """
    name = metric.rpartition(".")[2]
    if name in _BY_NAME:
        return _BY_NAME[name]
    return _plugin(name) if name in plugin_metrics() else Metric(name=name, words=name.replace("_", " "))


def asked_metrics(named: Sequence[str]) -> tuple[Metric, ...]:
    """Return the plugins' metrics among names such as `val.brier`, `brier` or `cohen-kappa`, each once."""
    names = dict.fromkeys(name.rpartition(".")[2].replace("-", "_") for name in named)
    return tuple(metric_of(name) for name in names if name in plugin_metrics())


def metric_names() -> tuple[str, ...]:
    """Return the names of what a model scores, as they follow the split's name: every trial's, then the plugins'."""
    return (*(metric.name for metric in SCORES), *plugin_metrics())


def score_metrics() -> tuple[str, ...]:
    """Return every score of every split, such as `test.accuracy`."""
    return tuple(f"{split}.{name}" for split in SPLITS for name in metric_names())


def goal_metrics() -> tuple[str, ...]:
    """Return what a search may have as its goal: scores on the validation images, and costs; never test."""
    named = [("val", metric.name) for metric in SCORES if metric.goal]
    named += [("val", name) for name in plugin_metrics()]
    named += [("cost", metric.name) for metric in COSTS if metric.goal]
    return tuple(f"{scope}.{name}" for scope, name in named)


def epoch_metrics() -> tuple[str, ...]:
    """Return the scores on validation images that are known after each epoch: they can prune a trial or select one."""
    return tuple(f"val.{metric.name}" for metric in SCORES if metric.every_epoch)
