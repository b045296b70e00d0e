"""Which conditions may be the best: no other beats them beyond chance, by shrunk variances and that of test images."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchkit.analysis.comparisons import varies
from benchkit.analysis.degenerate import one_class_conditions
from benchkit.analysis.estimates import CONFIDENCE, compared, done_repeats, estimate, t_quantile, values_by_repeat
from benchkit.analysis.wording import lower_is_better
from benchkit.plan import LEAVES_AT
from benchkit.results import StudyResults, Trial

if TYPE_CHECKING:
    import numpy as np

    from benchkit.plan import Condition


IMAGE_METRIC = "test.accuracy"
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
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stored = load_file(trial.folder / "predictions.safetensors")
    except (FileNotFoundError, SafetensorError):  # damaged: the report tells of it as changed
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
    mean squares of repeats, images and the rest, the mean's variance over both is (MS_r + MS_i - MS_e) / (R N), or that
    of one of them alone where that is more, with Satterthwaite's degrees of freedom (1946); over seeds alone it is
    MS_r / (R N), over images alone MS_i / (R N).
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


LEAST_SHARED = 3
"""Variances are shrunk to a common one from this many conditions on: two do not tell how far variances differ."""

SHARED = 0.15
"""The share of the others' degrees of freedom that a condition borrows at most: few variances may be alike by chance.

Without it the best of two among seven conditions, of which one spreads 20 times as far as the other, leaves too often
(simulated, see tests/decision_rules.py): in 0.054 of studies with three repeats instead of 0.05.
"""

Standing = Literal["kept", "left", "untested", "one class"]
"""kept: it may be the best; left: another one is better; untested: one repeat alone; one class: its models say nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A condition's mean over `n` repeats, what the rule makes of its spread, and whether it may be the best.

    `std` is the standard deviation of one repeat after shrinking, never below `image_std`, which the test images alone
    set (None where that is not known); `degrees` are its degrees of freedom. `p` is the smallest one-sided p against
    another condition, by Holm's correction over the conditions. `std`, `degrees` and `p` are None when untested.
    """

    key: str
    label: str
    mean: float
    n: int
    std: float | None
    image_std: float | None
    degrees: float | None
    p: float | None
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSet:
    """The conditions by their mean of `metric`, best first, each with its standing at the level `alpha`."""

    metric: str
    alpha: float
    conditions: tuple[Candidate, ...]

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """Return the conditions that may be the best, best mean first."""
        return tuple(one for one in self.conditions if one.standing == "kept")

    @property
    def left(self) -> tuple[Candidate, ...]:
        """Return the conditions that are worse than another one beyond chance."""
        return tuple(one for one in self.conditions if one.standing == "left")

    @property
    def open(self) -> tuple[Candidate, ...]:
        """Return the conditions of which more repeats could tell something: those kept and those not tested."""
        return tuple(one for one in self.conditions if one.standing in ("kept", "untested"))

    @property
    def decided(self) -> bool:
        """Return whether the first one alone may be the best, of two or more."""
        return len(self.conditions) > 1 and [one.key for one in self.open] == [self.conditions[0].key]


def candidates(
    results: StudyResults,
    metric: str,
    alpha: float = LEAVES_AT,
    *,
    most: int | None = None,
    among: Collection[str] | None = None,
) -> CandidateSet:
    """Return which conditions may have the best mean of `metric`; tested at the level `alpha`.

    `most` uses repeats with a smaller index alone, `among` names by key those that have not left at an earlier look.
    A condition with one repeat neither leaves nor makes another one leave, nor does one whose models name one class.
    """
    import numpy as np

    dull = {row.key for row in one_class_conditions(results) if row.always}
    sign = -1.0 if lower_is_better(metric) else 1.0
    read = [(condition, _values(results, condition, metric, most)) for condition in compared(results)]
    rows = sorted(((c, values) for c, values in read if values), key=lambda row: -sign * float(np.mean(row[1])))
    tested = [(c, values) for c, values in rows if len(values) > 1 and c.key not in dull]
    floors = {c.key: _image_variance(results, c, metric, most) for c, _ in tested}
    spreads = [estimate(values, resampled=results.resampled) for _, values in tested]
    variances = np.array([(one.std or 0.0) ** 2 if varies(one) else 0.0 for one in spreads])
    counts = np.array([one.n for one in spreads])
    floor = np.array([floors[c.key] or 0.0 for c, _ in tested])
    shrunk, degrees = shrunk_variances(variances, counts, floor)
    means = sign * np.array([one.mean for one in spreads])
    # A mean of folds varies by v (1/n + resampled), as one of fewer independent repeats does.
    p = beaten_p(means, shrunk, degrees, counts / (1 + counts * results.resampled))
    out = (p < alpha) | np.array([among is not None and c.key not in among for c, _ in tested], dtype=bool)
    stays = kept(means, out)
    place = {c.key: index for index, (c, _) in enumerate(tested)}

    def candidate(condition: Condition, values: list[float]) -> Candidate:
        at = place.get(condition.key)
        standing: Standing = "one class" if condition.key in dull else "untested"
        if at is not None:
            standing = "kept" if stays[at] else "left"
        known = floors.get(condition.key)
        return Candidate(
            key=condition.key,
            label=condition.label,
            mean=float(np.mean(values)),
            n=len(values),
            std=None if at is None else float(np.sqrt(shrunk[at])),
            image_std=None if known is None else float(np.sqrt(known)),
            degrees=None if at is None else float(degrees[at]),
            p=None if at is None else float(p[at]),
            standing=standing,
        )

    return CandidateSet(metric=metric, alpha=alpha, conditions=tuple(candidate(c, values) for c, values in rows))


def _values(results: StudyResults, condition: Condition, metric: str, most: int | None) -> list[float]:
    values = values_by_repeat(results, condition, metric)
    return [value for index, value in sorted(values.items()) if most is None or index < most]


def _image_variance(results: StudyResults, condition: Condition, metric: str, most: int | None) -> float | None:
    import numpy as np

    if metric != IMAGE_METRIC:
        return None
    if results.resampled:
        return fold_variance(results, condition, most)
    right = [bits for i, bits in right_answers(results, condition).items() if most is None or i < most]
    return image_variance(np.stack(right)) if right else None


def shrunk_variances(
    variances: np.ndarray, counts: np.ndarray, floor: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return variances of one repeat shrunk to the common one, and their degrees of freedom, each float (..., k).

    `variances` are sample variances (..., k) of `counts` >= 2 repeats each. With d = counts - 1, the common variance
    s0² and its weight d0 come from the moments of log variances: e = log v - ψ(d/2) + log(d/2) has the variance
    ψ'(d0/2) + ψ'(d/2) and the mean log s0² + ψ(d0/2) - log(d0/2) (Smyth, Linear models and empirical Bayes methods,
    Statistical Applications in Genetics and Molecular Biology 3(1), 2004). Where e varies no more than by chance, d0 is
    infinite there; here it is at most `SHARED` of the other conditions' degrees of freedom. Shrunk:
    (d0 s0² + d v) / (d0 + d), with d0 + d degrees of freedom. Variances of 0 take no part in the moments; where fewer
    than `LEAST_SHARED` do, nothing is shrunk. No variance is below the `floor`, neither v, once the moments are taken,
    nor what it is shrunk to.
    """
    import numpy as np
    from scipy.special import digamma, polygamma

    d = np.broadcast_to(counts - 1.0, variances.shape)
    positive = variances > 0
    conditions = positive.sum(-1)
    n = np.maximum(conditions, 1)
    e = np.log(np.where(positive, variances, 1.0)) - digamma(d / 2) + np.log(d / 2)
    mean = np.where(positive, e, 0.0).sum(-1) / n
    spread = np.where(positive, e - mean[..., None], 0.0)
    chance = np.where(positive, polygamma(1, d / 2), 0.0).sum(-1) / n
    excess = (spread**2).sum(-1) / np.maximum(n - 1, 1) - chance
    varied = excess > 1e-9
    d0 = 2 * trigamma_inverse(np.where(varied, excess, 1.0))
    common = np.exp(mean + np.where(varied, digamma(d0 / 2) - np.log(d0 / 2), 0.0))[..., None]
    most = SHARED * (1 - 1 / n) * np.where(positive, d, 0.0).sum(-1)
    weight = np.where(conditions < LEAST_SHARED, 0.0, np.minimum(np.where(varied, d0, np.inf), most))[..., None]
    shrunk: np.ndarray = (weight * common + d * np.maximum(variances, floor)) / (weight + d)
    return np.maximum(shrunk, floor), weight + d


def trigamma_inverse(values: np.ndarray) -> np.ndarray:
    """Return y > 0 with ψ'(y) equal to each of `values` > 0, by Newton's method on 1/ψ' (Smyth 2004, appendix)."""
    import numpy as np
    from scipy.special import polygamma

    y = 0.5 + 1 / values
    for _ in range(20):  # 1/ψ' is convex and nearly linear: from this start it converges from one side
        slope = polygamma(1, y)
        y = y + slope * (1 - slope / values) / polygamma(2, y)
    found: np.ndarray = np.where(values > 1e7, 1 / np.sqrt(values), y)
    return found


def beaten_p(means: np.ndarray, variances: np.ndarray, degrees: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return (..., k): how surely each condition has a better rival, as its smallest p by Holm's correction.

    All are (..., k), more is better. For i and j: Welch's t = (mean_j - mean_i) / √(v_i/n_i + v_j/n_j), one-sided, with
    Satterthwaite's degrees of freedom from `degrees`. Each condition's smallest p is multiplied by the number of those
    that may still be the best when its turn comes, the clearest losers first, and is no smaller than that of a clearer
    one, at most 1 (Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics
    6(2), 1979). All conditions count, not the rivals alone: of two equal ones either may seem better. Where neither of
    a pair varies nothing is tested.
    """
    import numpy as np
    from scipy.special import stdtr

    k = means.shape[-1]
    if k < 2:
        return np.ones(means.shape)
    error = variances / counts
    both = error[..., :, None] + error[..., None, :]
    tested = (both > 0) & ~np.eye(k, dtype=bool)
    safe = np.where(tested, both, 1.0)
    share = np.where(tested, error[..., :, None] / safe, 0.5)
    freedom = 1 / (share**2 / degrees[..., :, None] + (1 - share) ** 2 / degrees[..., None, :])
    ahead = means[..., None, :] - means[..., :, None]
    smallest = np.where(tested, stdtr(freedom, -ahead / np.sqrt(safe)), 1.0).min(-1)
    order = smallest.argsort(-1)
    steps = np.maximum.accumulate(np.take_along_axis(smallest, order, -1) * np.arange(k, 0, -1), -1)
    adjusted = np.empty(means.shape)
    np.put_along_axis(adjusted, order, np.minimum(1.0, steps), -1)
    return adjusted


def kept(means: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return bool (..., k): those that are not `out`, and all whose mean is above that of one that is not."""
    import numpy as np

    if not means.shape[-1]:
        return ~out
    least = np.where(out, np.inf, means).min(-1, keepdims=True)
    stays: np.ndarray = means >= least
    return stays
