"""What test images add to the spread between repeats: which answers are right, and the variance that they alone set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchkit.analysis.estimates import CONFIDENCE, compared, done_repeats, t_quantile
from benchkit.results import StudyResults, Trial

if TYPE_CHECKING:
    import numpy as np

    from benchkit.plan import Condition

METRIC = "test.accuracy"
"""The metric whose variance over images is known: a report keeps which test images each model named rightly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossedInterval:
    """A mean accuracy over `repeats` models on `images` images, with intervals for what else could have been drawn.

    `seeds`: other random seeds, the same images. `images_only`: other images, the same models. `both`: other seeds and
    other images. Each is (low, high) in 0..1.
    """

    mean: float
    repeats: int
    images: int
    seeds: tuple[float, float]
    images_only: tuple[float, float]
    both: tuple[float, float]
    confidence: float = CONFIDENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """A condition's test accuracy with its intervals over seeds, over images, and over both."""

    key: str
    label: str
    interval: CrossedInterval


def uncertainties(results: StudyResults) -> tuple[Uncertainty, ...]:
    """Return the intervals of every condition whose repeats have stored predictions of the same test images."""
    import numpy as np

    rows = []
    for condition in compared(results):
        right = list(right_answers(results, condition).values())
        interval = crossed_interval(np.stack(right)) if right else None
        if interval is not None:
            rows.append(Uncertainty(key=condition.key, label=condition.label, interval=interval))
    return tuple(rows)


def answers(trial: Trial, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the classes int64 (n,) that a trial's stored logits name on test, and the true ones, or None without them.

    The labels stored beside the logits win over the study's: they are those of the images that this trial read.
    """
    from safetensors.numpy import load_file

    try:
        stored = load_file(trial.folder / "predictions.safetensors")
    except FileNotFoundError:
        return None
    logits, truth = stored.get("test"), stored.get("test_labels", labels)
    if logits is None or truth is None or len(logits) != len(truth):
        return None
    return logits.argmax(axis=1), truth


def right_answers(results: StudyResults, condition: Condition) -> dict[int, np.ndarray]:
    """Return bool (n,) for each done repeat, by its index: which test images it named rightly.

    Empty where a repeat has no stored predictions or the repeats did not read the same images.
    """
    known = ("right answers", condition.key)
    if known not in results.derived:
        given = {i: answers(t, results.labels.get("test")) for i, t in done_repeats(results, condition).items()}
        stored = {index: pair for index, pair in given.items() if pair is not None}
        truths = [truth for _, truth in stored.values()]
        same = all(one.shape == truths[0].shape and bool((one == truths[0]).all()) for one in truths)
        complete = same and len(stored) == len(given)
        results.derived[known] = {i: called == truth for i, (called, truth) in stored.items()} if complete else {}
    found: dict[int, np.ndarray] = results.derived[known]
    return found


def image_variance(right: np.ndarray) -> float | None:
    """Return the variance of a run's accuracy if each image were an independent coin; None with fewer than two runs.

    `right` is bool (runs, images). Σ p(1 - p) / N² over N images, p the share of runs that name an image rightly;
    Σ over runs of squared deviations is divided by runs - 1, so that few runs do not make it too small. No spread
    over repeats can be smaller for long: it is what stays if random seeds moved no image more than chance does.
    """
    runs, images = len(right), right.shape[-1]
    if runs < 2 or not images:
        return None
    share = right.mean(axis=0)
    coins = float((share * (1 - share)).sum())
    return coins * (runs / (runs - 1)) / float(images) ** 2


def fold_variance(results: StudyResults, condition: Condition, most: int | None = None) -> float | None:
    """Return the variance that images alone give the accuracy of one fold, from the images of all folds together.

    p (1 - p) / (N / folds) for the share p of all N images that the models of their folds name rightly. Each image is
    tested once, so that it cannot be told how alike models would be on it. None with fewer than two folds.
    """
    done = [trial for index, trial in done_repeats(results, condition).items() if most is None or index < most]
    scored = [trial.outcome.metrics["test"] for trial in done if trial.outcome and "test" in trial.outcome.metrics]
    images = sum(one.n for one in scored)
    if len(scored) < 2 or not images:
        return None
    share = sum(one.accuracy * one.n for one in scored) / images
    return share * (1 - share) / (images / len(scored))


def crossed_interval(right: np.ndarray, confidence: float = CONFIDENCE) -> CrossedInterval | None:
    """Return the mean of `right`, bool (repeats, images), with intervals over seeds, over images, and over both.

    Repeats and images are crossed random effects (Searle, Casella and McCulloch, Variance Components, 1992): with the
    mean squares of repeats, images and the rest, the mean's variance over both is (MS_r + MS_i - MS_e) / (R N), with
    Satterthwaite's degrees of freedom (1946); over seeds alone it is MS_r / (R N), over images alone MS_i / (R N).
    Intervals are cut at 0 and 1. None with fewer than two repeats or images.
    """
    import numpy as np

    repeats, images = right.shape
    if repeats < 2 or images < 2:
        return None
    mean, by_repeat, by_image = float(right.mean()), right.mean(axis=1), right.mean(axis=0)
    rows, columns = repeats - 1, images - 1
    of_repeats = images * float(((by_repeat - mean) ** 2).sum()) / rows
    of_images = repeats * float(((by_image - mean) ** 2).sum()) / columns
    rest = right - by_repeat[:, None] - by_image[None] + mean
    of_rest = float(np.square(rest).sum()) / (rows * columns)
    together = max(of_repeats + of_images - of_rest, of_repeats, of_images)
    spread = of_repeats**2 / rows + of_images**2 / columns + of_rest**2 / (rows * columns)

    def interval(square: float, degrees: float) -> tuple[float, float]:
        half = t_quantile(1 - (1 - confidence) / 2, degrees) * math.sqrt(square / (repeats * images)) if square else 0.0
        return max(0.0, mean - half), min(1.0, mean + half)

    return CrossedInterval(
        mean=mean,
        repeats=repeats,
        images=images,
        seeds=interval(of_repeats, rows),
        images_only=interval(of_images, columns),
        both=interval(together, together**2 / spread if spread else 1.0),
        confidence=confidence,
    )
