"""Checks of metrics: a declaration that fits, numbers within its range, the whole split, classes that do not occur."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from benchkit.metrics import Metric, Predictions, metric_name
from benchkit.testing.check import RAISED, CheckFailure, NotApplicable, attempt, require, rule
from benchkit.testing.subject import Subject


@rule("declaration", likely="@declared(Metric(...)) is missing, or its name is not that of the entry point")
def declaration(subject: Subject) -> None:
    """It carries a `Metric` with words, a name that its entry point has, and a range; it has no option."""
    metric = _metric(subject)
    require(bool(metric.words.strip()), given="the declaration", expected="words", got="none")
    require(metric.low < metric.high, given="its range", expected="low < high", got=f"{metric.low}..{metric.high}")
    options = [option.name for option in subject.known_options]
    require(not options, given="its arguments", expected="predictions alone", got=f"options {options}")
    name = subject.entry.name if subject.entry else ""
    if subject.entry and subject.entry.distribution != "the kit's caller":
        fits = metric.name == metric_name(name)
        require(fits, given=f"the entry point {name}", expected=metric_name(name), got=metric.name)


@rule("range", likely="a share is given in percent, or low and high of the declaration are too narrow")
def within(subject: Subject) -> None:
    """Every value is a finite float within the declared range, or None with a stated reason."""
    metric = _metric(subject)
    for given, scored in _cases(subject):
        value = _value(subject, given, scored)
        if value is None:
            require(bool(metric.undefined), given=given, expected="a number, or a declaration that says `undefined`",
                    got="None")  # fmt: skip
            continue
        right = type(value) is float and math.isfinite(value) and metric.low - 1e-9 <= value <= metric.high + 1e-9
        require(right, given=given, expected=f"a float in {metric.low:g}..{metric.high:g} or None", got=repr(value))


@rule("direction", likely="lower_is_better says the contrary")
def direction(subject: Subject) -> None:
    """A model that is right of every image is at least as good by it as one that is wrong of every image."""
    labels = np.arange(24) % 4
    right, wrong = (Predictions(_sure((labels + turn) % 4), labels) for turn in (0, 1))
    values = [_value(subject, "a model that is always right, or wrong", scored) for scored in (right, wrong)]
    if None in values:
        raise NotApplicable("it is undefined where all images are called rightly or wrongly")
    sign = -1 if _metric(subject).lower_is_better else 1
    ordered = sign * float(values[0] or 0) >= sign * float(values[1] or 0)
    require(ordered, given="all right against all wrong", expected="a better or equal value", got=str(values))


@rule("order", likely="a mean over parts of the split is taken, or a sort is not stable")
def order(subject: Subject) -> None:
    """The order of the images makes no difference."""
    for given, scored in _cases(subject):
        turned = Predictions(scored.logits[::-1].copy(), scored.labels[::-1].copy())
        values = [_value(subject, given, one) for one in (scored, turned)]
        same = _close(values[0], values[1], 1e-9)
        require(same, given=f"{given}, and its reverse", expected="one value", got=str(values))


@rule("pure", likely="it draws random numbers, or works in place on the logits")
def pure(subject: Subject) -> None:
    """The same predictions give the same number, and stay as they were."""
    for given, scored in _cases(subject):
        before = scored.logits.copy(), scored.labels.copy()
        values = [_value(subject, given, scored) for _ in range(2)]
        require(values[0] == values[1], given=f"{given}, twice", expected="one value", got=str(values))
        kept = np.array_equal(scored.logits, before[0]) and np.array_equal(scored.labels, before[1])
        require(kept, given=given, expected="logits and labels as they were", got="they were changed in place")


@rule("shift", likely="it reads logits as if they were probabilities: take the softmax, or differences of logits")
def shift(subject: Subject) -> None:
    """A constant that is added to all logits of an image makes no difference: it changes no probability."""
    for given, scored in _cases(subject):
        moved = Predictions(scored.logits + np.float32(4.0), scored.labels)
        values = [_value(subject, given, one) for one in (scored, moved)]
        same = _close(values[0], values[1], 1e-5)
        require(same, given=f"{given}, and all logits plus 4", expected="one value", got=str(values))


@rule("large", likely="exp overflows: subtract the greatest logit first, or use scipy.special.softmax")
def large(subject: Subject) -> None:
    """Logits of a thousand give a number, too."""
    labels = np.arange(12) % 3
    _finite(subject, "logits of 1000 and -1000", Predictions(_sure(labels, 3) * np.float32(200), labels))


@rule("single", likely="a division by the number of images of a class, or minus one")
def single(subject: Subject) -> None:
    """One image, two classes and a hundred classes are no error."""
    for classes in (2, 3, 100):
        for count in (1, 5):
            labels = np.arange(count) % classes
            _finite(subject, f"{count} images of {classes} classes", Predictions(_noise(count, classes), labels))


def _finite(subject: Subject, given: str, scored: Predictions) -> None:
    value = _value(subject, given, scored)
    require(value is None or math.isfinite(value), given=given, expected="a finite float or None", got=repr(value))


def _metric(subject: Subject) -> Metric:
    found = getattr(subject.plugin, "__benchkit_metric__", None)
    if not isinstance(found, Metric):
        raise CheckFailure(given="the plugin", expected="@declared(Metric(...)) on it", got="none")
    return found


def _value(subject: Subject, given: str, scored: Predictions) -> float | None:
    with attempt(given, expected="a float or None", likely=RAISED):
        value: float | None = subject.plugin(scored)
    return value


def _close(one: float | None, other: float | None, most: float) -> bool:
    return one is other if one is None or other is None else abs(one - other) <= most * max(1.0, abs(one))


def _cases(subject: Subject) -> Iterator[tuple[str, Predictions]]:
    labels = np.arange(40) % 4
    yield "40 images of 4 classes", Predictions(_noise(40, 4, subject.seed_for("cases")), labels)
    yield "40 images of 3 of 4 classes", Predictions(_noise(40, 4), np.minimum(labels, 2))
    yield "12 images of 1 of 4 classes, called so", Predictions(_sure(np.zeros(12, np.int64)), np.zeros(12, np.int64))
    yield "40 images of 2 classes", Predictions(_noise(40, 2), labels % 2)
    yield "equal logits", Predictions(np.zeros((40, 4), np.float32), labels)


def _noise(count: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed % 2**32).normal(size=(count, classes)).astype(np.float32)


def _sure(called: np.ndarray, classes: int = 4) -> np.ndarray:
    return np.where(np.arange(classes) == called[:, None], 5, -5).astype(np.float32)


RULES = (declaration, within, direction, order, pure, shift, large, single)
