"""The metrics: each is declared once, and training, search, statistics, words, tables, figures and JSON read it.

A metric is named with what it is of, such as `test.accuracy` or `cost.seconds`. Those that every trial has are declared
here, others by plugins: functions of `Predictions` that carry their `Metric`. Imports neither torch nor NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, make_dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from numbers import Real
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_type_hints

from benchkit.errors import BenchkitError, PluginError, nearest, shortened
from benchkit.predictions import Predictions as Predictions
from benchkit.predictions import accuracy, auroc, loss, macro_f1, micro_f1, top5_accuracy
from benchkit.storage import decode

if TYPE_CHECKING:
    import numpy as np

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

BINS = 15
"""Confidence bins of the calibration error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a metric is, whichever split it is of: its name, its words, its numbers, and where they come from.

    A stored value times `factor` is the number that is shown, in `unit`, with `decimals` (None: four significant
    digits). `style` says what else sentences do with it: `prefixed` numbers are shown with k, M or G, `duration` in
    minutes and hours. Values lie between `low` and `high`. `axis` has the words, unit and factor of a figure's axis
    where they differ. `goal`: a search may have it as its goal. `every_epoch`: it can be read after each epoch, on the
    validation images, where a study asks for it; accuracy and loss are in every record. `of_images`: it is a share of
    images, k of n. `computed` gives it from predictions, or None where they have no such number, for the reason that
    `undefined` states; costs are measured by training instead. `over_classes`: it is a mean over the classes that occur
    among the labels.
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
    of_images: bool = False,
) -> Metric:
    return Metric(
        name=name, words=words, unit="%", factor=100.0, decimals=2, high=1.0, computed=computed,
        goal=computed is not None, lower_is_better=lower_is_better, every_epoch=computed is not None,
        of_images=of_images,
    )  # fmt: skip


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
    _share("accuracy", "accuracy", accuracy, of_images=True),
    _share("top5_accuracy", "top-5 accuracy", top5_accuracy, of_images=True),
    Metric(
        name="loss", words="loss", unit="nats", decimals=4, lower_is_better=True, goal=True, every_epoch=True,
        computed=loss,
    ),
    _share("micro_f1", "micro F1", micro_f1, of_images=True),
    _share("macro_f1", "macro F1", macro_f1),
    Metric(
        name="auroc", words="AUROC", unit="%", factor=100.0, decimals=2, high=1.0, goal=True, every_epoch=True,
        computed=auroc, undefined="there are one or more than ten classes, or images of one alone",
    ),
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

IN_EVERY_RECORD = ("accuracy", "loss")
"""The scores on validation images that each epoch's record has, whatever a study asks for."""

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


class MetricClaim(Protocol):
    """What claims a metric's name: an entry point, or a local file's plugin."""

    @property
    def value(self) -> str:
        """Return where the plugin is, in words."""
        ...

    def load(self) -> Any:
        """Return the plugin, importing it."""
        ...


_OF_FILES: dict[str, MetricClaim] = {}


def know(name: str, claim: MetricClaim) -> None:
    """Let this process know a local file's metric, in place of an installed one of this name."""
    _OF_FILES[metric_name(name)] = claim
    _plugin.cache_clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedMetric:
    """A metric whose plugin is not here, as trials recorded its declaration: what they scored can be told by it."""

    metric: Metric
    value: str = "recorded with its trials"

    def load(self) -> Any:
        """Return what has the declaration, as a plugin has it."""
        return SimpleNamespace(__benchkit_metric__=self.metric)


def declaration_of(metric: Metric) -> dict[str, Any]:
    """Return what a trial keeps of a metric's declaration: what is not as usual, infinite bounds as text."""
    usual = Metric(name="", words="")
    values = {one.name: getattr(metric, one.name) for one in _declared_fields()}
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
        if value != getattr(usual, name)
    }


def know_recorded(environment: Mapping[str, Any]) -> None:
    """Let this process know the metrics that a trial recorded (`declaration_of`), where not just one plugin is here."""
    declared = environment.get("metrics")
    for name, values in declared.items() if isinstance(declared, Mapping) else ():
        if name.isidentifier() and name not in _BY_NAME and len(plugin_metrics().get(name, ())) != 1:
            with suppress(BenchkitError):  # whoever made the record may have written anything
                told = decode(_declaration(), values)
                values = {one.name: getattr(told, one.name) for one in fields(told)}
                know(name, RecordedMetric(metric=Metric(name=name, **values)))


def _declared_fields() -> tuple[Field[Any], ...]:
    return tuple(one for one in fields(Metric) if one.name not in ("name", "computed"))


@cache
def _declaration() -> Any:
    """Return the class of a metric's declaration alone, which can be read from JSON."""
    hints = get_type_hints(Metric)
    usual = [(one.name, hints[one.name], one.default) for one in _declared_fields() if one.default is not MISSING]
    required = [(one.name, hints[one.name]) for one in _declared_fields() if one.default is MISSING]
    return make_dataclass("Declaration", [*required, *usual], frozen=True)


@cache
def _installed() -> Mapping[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        name = metric_name(entry.name)
        found[name] = (*found.get(name, ()), entry)
    return found


def plugin_metrics() -> Mapping[str, tuple[MetricClaim, ...]]:
    """Return what plugins have beside the metrics of every trial, by name; nothing is imported."""
    found = {**_installed(), **{name: (claim,) for name, claim in _OF_FILES.items()}}
    return {name: found[name] for name in sorted(found) if name not in _BY_NAME}


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
        plugin = claims[0].load()
    except Exception as error:
        raise PluginError(f"the metric {name!r} ({claims[0].value}) is broken: {error}") from error
    metric = getattr(plugin, "__benchkit_metric__", None)
    if not isinstance(metric, Metric):
        raise PluginError(
            f"the metric {name!r} ({claims[0].value}) is broken: nothing declares its words, range and direction",
            hint=f'put @declared(Metric(name="{name}", words="...")) of benchkit.metrics on it',
        )
    return replace(metric, name=name)


def name_problem(metric: Metric) -> str:
    """Return that a plugin's metric is declared by another name than its entry point has, or nothing."""
    declared_as = getattr(metric.computed, "__benchkit_metric__", metric).name
    if declared_as == metric.name:
        return ""
    return f"the metric {metric.name!r} declares the name {declared_as!r}: expected {metric.name!r}, as its entry point"


ROUNDING = 1e-6
"""How far a plugin's value may lie beyond its range, relative to its ends: 1.0000001 is rounding, 1.5 is not."""

UNDEFINED = " is undefined: "
"""Stands in a trial's note between a metric, such as `val.cohen_kappa`, and why its predictions have none."""

OVER_CLASSES = " is a mean over the classes that occur, "
"""Stands in a trial's note between a metric and how many classes occur of how many."""


def metric_of(metric: str) -> Metric:
    """Return what `test.accuracy`, `cost.seconds` or a bare name is; an unknown name is a plain number, more better.

    Raise `PluginError` for a plugin's that is broken.
    """
    name = metric.rpartition(".")[2]
    if name in _BY_NAME:
        return _BY_NAME[name]
    return _plugin(name) if name in plugin_metrics() else Metric(name=name, words=name.replace("_", " "))


def value_of(metric: Metric, scored: Predictions) -> float | None:
    """Return what a metric says of predictions, or None where they have no such number.

    A plugin gets arrays of its own, so that what it changes in place is no other metric's and in no file. Raise
    `PluginError` where what it returns is neither None nor a number within its range: only of logits that are finite,
    for those of diverged weights have no score.
    """
    if metric.computed is None or metric.name in _BY_NAME:
        return metric.computed(scored) if metric.computed else None
    import numpy as np

    found = metric.computed(Predictions(scored.logits.copy(), scored.labels.copy()))
    value = as_float(found)
    slack = ROUNDING * max([1.0, *(abs(end) for end in metric.bounds if math.isfinite(end))])
    within = value is not None and math.isfinite(value) and metric.low - slack <= value <= metric.high + slack
    if found is None or within or (value is not None and not np.isfinite(scored.logits).all()):
        return value
    raise PluginError(
        f"the metric {metric.name!r} returns {_shown(found)} for {len(scored.labels)} images of "
        f"{scored.classes} classes: expected a number in {metric.low:g}..{metric.high:g}, or None where undefined",
        hint="mend it, or declare its range by low and high; `benchkit plugins check` tries it",
    )


def _shown(found: object) -> str:
    if shape := tuple(getattr(found, "shape", ())):
        return f"a {type(found).__name__} of shape {shape}"
    return shortened(" ".join(repr(found).split()))


def as_float(found: object) -> float | None:
    """Return a real number, also one of NumPy's or an array's or tensor's without dimensions; None for all else."""
    single = found.item() if getattr(found, "ndim", None) == 0 and hasattr(found, "item") else found
    return float(single) if isinstance(single, Real) else None


def _names_of(named: Sequence[str]) -> Sequence[str]:
    """Return the metrics' own names, each once, of names such as `val.brier`, `brier` or `cohen-kappa`."""
    return list(dict.fromkeys(metric_name(name.rpartition(".")[2]) for name in named))


def plugin_name(metric: str) -> str:
    """Return the name of the plugin whose metric is called so in results: `top-two` of `top_two`."""
    return metric.replace("_", "-")


def metric_name(plugin: str) -> str:
    """Return what a plugin's metric is called in results: `top_two` of `top-two`."""
    return plugin.replace("-", "_")


def asked_names(named: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the plugins' metrics among names such as `val.brier`, `brier` or `cohen-kappa`, each once."""
    return tuple(name for name in _names_of(named) if name in plugin_metrics())


def asked_metrics(named: Sequence[str]) -> tuple[Metric, ...]:
    """Return the plugins' metrics among names such as `val.brier`, `brier` or `cohen-kappa`, each once."""
    return tuple(map(metric_of, asked_names(named)))


def epoch_readings(named: Sequence[str]) -> tuple[Metric, ...]:
    """Return the metrics among names such as `val.brier` or `cohen-kappa` that epochs can be read by, each once.

    Those that are in every record are left out.
    """
    read = (name for name in _names_of(named) if name not in IN_EVERY_RECORD and is_read_each_epoch(f"val.{name}"))
    return tuple(metric_of(name) for name in read)


def is_read_each_epoch(metric: str) -> bool:
    """Return whether `val.brier` and the like can be read after each epoch: it can select one, or prune a trial."""
    scope, _, name = metric.rpartition(".")
    return scope == "val" and name in metric_names() and metric_of(name).every_epoch


def selection_problem(metric: object) -> str:
    """Return why no epoch can be selected by a metric, or an empty string."""
    known = val_metrics()
    if metric not in known:
        close = nearest(metric, known) if isinstance(metric, str) else ""
        return f"got {metric!r}, expected one of {', '.join(known)}{close}"
    return "" if is_read_each_epoch(str(metric)) else f"got {metric!r}, which its plugin says no epoch can be read by"


def val_metrics() -> tuple[str, ...]:
    """Return every score on validation images; epochs can be read by them unless their plugins say not."""
    return tuple(f"val.{name}" for name in metric_names())


def unknown_metrics(named: Sequence[str]) -> tuple[str, ...]:
    """Return the names among `test.accuracy`, `brier` and the like that no metric has here, each once."""
    return tuple(name for name in _names_of(named) if name not in _BY_NAME and name not in plugin_metrics())


def metric_names() -> tuple[str, ...]:
    """Return the names of what a model scores, as they follow the split's name: every trial's, then the plugins'."""
    return (*(metric.name for metric in SCORES), *plugin_metrics())


def score_metrics() -> tuple[str, ...]:
    """Return every score of every split, such as `test.accuracy`."""
    return tuple(f"{split}.{name}" for split in SPLITS for name in metric_names())


def goal_metrics() -> tuple[str, ...]:
    """Return what a search may have as its goal: scores on the validation images, and costs; never test."""
    return (
        *(f"val.{metric.name}" for metric in SCORES if metric.goal),
        *(f"val.{name}" for name in plugin_metrics()),
        *(f"cost.{metric.name}" for metric in COSTS if metric.goal),
    )


def epoch_metrics() -> tuple[str, ...]:
    """Return the scores on validation images that are known after each epoch of every trial."""
    return tuple(f"val.{name}" for name in IN_EVERY_RECORD)


UNBALANCED = 3
"""From this many times the images of the smallest class on, the largest one is warned of."""


def pooled_counts(facts: Mapping[str, Any]) -> list[int]:
    """Return the images of each class in all splits together, which folds draw from."""
    return [sum(counts) for counts in zip(*facts.get("class_counts", {}).values(), strict=True)]


def unbalanced(facts: Mapping[str, Any], *, folds: bool = False) -> bool:
    """Return whether the largest class of train, or of all `folds`, has three times the smallest's images or more."""
    counts = pooled_counts(facts) if folds else facts.get("class_counts", {}).get("train", ())
    return any(counts) and max(counts) >= UNBALANCED * min(counts)
