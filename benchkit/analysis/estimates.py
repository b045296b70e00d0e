"""What trials scored: which attempts count, means over repeats, shares of images, each with its interval.

And what a model would score that names one class always.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from benchkit.analysis.wording import Finding, amount, count, measured, metric_words, quoted
from benchkit.metrics import SCORES, UNBALANCED, UNDEFINED, metric_of, score_metrics
from benchkit.plan import TOTAL_ALPHA, Condition, Plan, planned_looks
from benchkit.results import SPLITS, SplitName, StudyResults, Trial

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
"""The confidence of every interval that a report shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over repeats: what a new training run with another random seed would give on average.

    `low` and `high` bound the t interval of the mean and are None when `n` is 1: one run says nothing about spread.
    `std` is the sample standard deviation (n - 1 in the denominator), None when `n` is 1. `resampled` is 0, or where
    repeats share training images the ratio of test to other images by which the interval is wider (see `estimate`).
    """

    mean: float
    low: float | None
    high: float | None
    std: float | None
    n: int
    values: tuple[float, ...]
    confidence: float = CONFIDENCE
    resampled: float = 0.0

    @property
    def half_width(self) -> float | None:
        """Return t · s · √(1/n + resampled), half the interval's width unless a bound cuts it, or None without one."""
        if self.std is None:
            return None
        return standard_error(two_sided_t(self.confidence, self.n - 1) * self.std, self.n, self.resampled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A share of images: `successes` of `n`, with the interval for one trained model over other images like these."""

    share: float
    low: float
    high: float
    successes: int
    n: int
    confidence: float = CONFIDENCE


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


Bounds = tuple[float, float]
"""The least and the greatest value that a quantity can have."""

UNBOUNDED: Bounds = (-math.inf, math.inf)


def standard_error(std: float, n: int, resampled: float = 0.0) -> float:
    """Return the standard error of a mean of `n` values with the standard deviation `std`: std / √n.

    `resampled` is n2/n1, test images over training images, of repeats that are trained on each other's images: their
    scores are not independent, and std √(1/n + resampled) takes its place (Nadeau and Bengio, Inference for the
    Generalization Error, Machine Learning 52, 2003: the corrected resampled t test).
    """
    return std * math.sqrt(1 / n + resampled) if resampled else std / math.sqrt(n)


def estimate(
    values: Sequence[float], confidence: float = CONFIDENCE, *, bounds: Bounds = UNBOUNDED, resampled: float = 0.0
) -> Estimate:
    """Return the mean of `values`, one for each repeat, with its two-sided t interval.

    mean ± t(1 - (1 - confidence) / 2, n - 1) · s / √n (Student 1908). With as few as three repeats it keeps its
    coverage, which a bootstrap over repeats does not. The interval is cut at `bounds` (an accuracy's at 0 and 1): no
    mean can lie beyond, so its coverage stays. `resampled` is that of `standard_error`. Raises `ValueError` for no
    values or for non-finite ones.
    """
    numbers = tuple(float(value) for value in values)
    if not numbers or not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"an estimate needs at least one value and only finite ones, got {numbers}")
    n = len(numbers)
    mean = math.fsum(numbers) / n
    if n == 1:
        return Estimate(mean=mean, low=None, high=None, std=None, n=1, values=numbers, confidence=confidence)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / (n - 1))
    half = standard_error(two_sided_t(confidence, n - 1) * std, n, resampled)
    return Estimate(
        mean=mean,
        low=max(mean - half, bounds[0]),
        high=min(mean + half, bounds[1]),
        std=std,
        n=n,
        values=numbers,
        confidence=confidence,
        resampled=resampled,
    )


def t_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution with `degrees` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def two_sided_t(confidence: float, degrees: float) -> float:
    """Return by how many standard errors a t interval with `degrees` degrees of freedom reaches to either side."""
    return t_quantile(1 - (1 - confidence) / 2, degrees)


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Proportion:
    """Return a share of `n` images with its Wilson score interval (Wilson 1927, without continuity correction).

    It is about one trained model and other images of the same kind, and says nothing of other random seeds. Raises
    `ValueError` unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    from scipy.special import ndtri

    share, z = successes / n, float(ndtri(0.5 + 0.5 * confidence))
    scale = 2 * (n + z**2)
    middle, half = (2 * n * share + z**2) / scale, z / scale * math.sqrt(4 * n * share * (1 - share) + z**2)
    return Proportion(
        share=share,
        low=middle - half if successes else 0.0,
        high=middle + half if successes < n else 1.0,
        successes=successes,
        n=n,
        confidence=confidence,
    )


def prediction_interval(repeats: Estimate, *, bounds: Bounds = UNBOUNDED) -> tuple[float, float] | None:
    """Return where one further repeat falls with 0.95 confidence, or None when there was one repeat.

    mean ± t(…, n - 1) · s · √(1 + 1/n): wider than the interval of the mean, and the one to hold a single published
    run against.
    """
    if repeats.std is None:
        return None
    half = two_sided_t(CONFIDENCE, repeats.n - 1) * repeats.std * math.sqrt(1 + 1 / repeats.n + repeats.resampled)
    return max(repeats.mean - half, bounds[0]), min(repeats.mean + half, bounds[1])


def crossed_interval(right: np.ndarray) -> CrossedInterval | None:
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
        half = two_sided_t(CONFIDENCE, degrees) * math.sqrt(square / (repeats * images)) if square else 0.0
        return max(0.0, mean - half), min(1.0, mean + half)

    return CrossedInterval(
        mean=mean,
        repeats=repeats,
        images=images,
        seeds=interval(of_repeats, rows),
        images_only=interval(of_images, columns),
        both=interval(together, together**2 / spread if spread else 1.0),
    )


def value_of(trial: Trial, metric: str) -> float | None:
    """Return what a trial scored in `split.metric` or `cost.seconds`, or None when it has no such number."""
    return trial.value(metric)


def repeats_of(results: StudyResults, condition: Condition) -> dict[int, Trial]:
    """Return the attempt that counts for each repeat index: the last done one, else the last of all."""
    return results.repeats(condition)


def done_repeats(results: StudyResults, condition: Condition) -> dict[int, Trial]:
    """Return the done trial of each repeat index that has one."""
    return {index: trial for index, trial in results.repeats(condition).items() if trial.state == "done"}


def best_repeats_metric(results: StudyResults, condition: Condition) -> str:
    """Return the validation metric by which one repeat's weights are taken before another's.

    That of the search's first goal on validation images, else of `train.select_by`; never the test split's.
    """
    goals = results.study.search.goals if results.study.search else ()
    selected = str(condition.settings.get("train", {}).get("select_by", "val.loss"))
    return next((goal.metric for goal in goals if goal.metric.startswith("val.")), selected)


def values_by_repeat(results: StudyResults, condition: Condition, metric: str) -> dict[int, float]:
    """Return the metric of each done repeat that has it, by repeat index."""
    values = {index: trial.value(metric) for index, trial in done_repeats(results, condition).items()}
    return {index: value for index, value in values.items() if value is not None}


def estimate_metric(
    metric: str, values: Sequence[float], confidence: float = CONFIDENCE, resampled: float = 0.0
) -> Estimate:
    """Return the estimate of a metric from one value for each repeat, its interval cut at the metric's range."""
    return estimate(values, confidence, bounds=metric_of(metric).bounds, resampled=resampled)


def estimate_of(results: StudyResults, condition: Condition, metric: str) -> Estimate | None:
    """Return the estimate of a metric over a condition's done repeats, or None without any.

    Where looks are planned, its interval is as wide as it takes for those of all looks to hold together.
    """
    known = ("estimate", condition.key, metric)
    if known not in results.derived:
        values = list(values_by_repeat(results, condition, metric).values())
        mean = estimate_metric(metric, values, confidence_of(results), results.resampled) if values else None
        results.derived[known] = mean
    found: Estimate | None = results.derived[known]
    return found


def confidence_of(results: StudyResults) -> float:
    """Return the confidence of each interval of a study's means, by which those of all looks hold together with 0.95.

    Without planned looks 0.95; else 1 - the least alpha of a look, which is enough for any of them.
    """
    plan = planned_looks(results.decisions)
    return 1 - min((look.alpha for look in plan), default=TOTAL_ALPHA)


def planned_trials(results: StudyResults, condition: Condition) -> int:
    """Return how many trials the study asks of a condition: its repeats, or the slots of its search.

    With looks it is the repeats that the last look at the condition had, or that the first one waits for.
    """
    looks = planned_looks(results.decisions)
    if looks and condition.kind != "search":
        return max(looks[0].n, len(results.repeats(condition)))
    return Plan(study=results.study, conditions=results.conditions).count(condition)


def compared(results: StudyResults) -> tuple[Condition, ...]:
    """Return the conditions that have repeats: the grid's and those confirmed after a search."""
    return tuple(condition for condition in results.conditions if condition.kind != "search")


def searched_conditions(results: StudyResults) -> tuple[Condition, ...]:
    """Return the conditions that are the frame of a search."""
    return tuple(condition for condition in results.conditions if condition.kind == "search")


def done_trials(results: StudyResults) -> Sequence[Trial]:
    """Return every done trial, search trials included."""
    return [trial for trial in results.trials if trial.state == "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A condition's estimates over its done repeats, by metric such as `test.accuracy`.

    `undefined` says of the metrics that a done repeat lacks in how many they are undefined, and why.
    """

    key: str
    label: str
    metrics: dict[str, Estimate]
    undefined: dict[str, str] = field(default_factory=dict)


def condition_scores(results: StudyResults, condition: Condition) -> Scores:
    """Return the estimate of every score that the condition's done repeats have."""
    found = {metric: estimate_of(results, condition, metric) for metric in score_metrics()}
    return Scores(
        key=condition.key,
        label=condition.label,
        metrics={metric: mean for metric, mean in found.items() if mean is not None},
        undefined=_undefined(results, condition),
    )


def _undefined(results: StudyResults, condition: Condition) -> dict[str, str]:
    done = done_repeats(results, condition).values()
    told = Counter(
        (metric, why)
        for trial in done
        for metric, found, why in (note.partition(UNDEFINED) for note in (trial.outcome.notes if trial.outcome else ()))
        if found
    )
    main = results.study.report.metric
    if why := next((one.undefined for one in SCORES if main == f"{main.partition('.')[0]}.{one.name}"), ""):
        told.update((main, why) for trial in done if trial.value(main) is None)
    return {metric: f"undefined in {n} of {count(len(done), 'repeat')}: {why}" for (metric, why), n in told.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelEffect:
    """A level's mean over all combinations of the other factors, as an estimate over repeats.

    Only repeats that every combination has done are used, so that levels are averaged over the same company.
    """

    factor: str
    level: str
    combinations: int
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How far a condition's mean moves when one factor moves and all others stay: the range over its levels.

    `keys` are those of the conditions with the lowest and the highest mean.
    """

    factor: str
    others: str
    low: float
    high: float
    lowest_level: str
    highest_level: str
    keys: tuple[str, str] = ("", "")

    @property
    def range(self) -> float:
        """Return the highest minus the lowest mean."""
        return self.high - self.low


def level_effects(results: StudyResults, metric: str) -> tuple[LevelEffect, ...]:
    """Return the marginal mean of every level, for studies with two factors or more; else nothing."""
    if len(results.study.factors) < 2:
        return ()
    grid = [condition for condition in compared(results) if condition.kind == "grid"]
    effects: list[LevelEffect] = []
    for factor in results.study.factors:
        for level in factor.levels:
            members = [c for c in grid if c.levels.get(factor.path) == level.label]
            values = [values_by_repeat(results, condition, metric) for condition in members]
            shared = sorted(set.intersection(*(set(v) for v in values))) if values else []
            if shared:
                means = [sum(v[i] for v in values) / len(values) for i in shared]
                effects.append(
                    LevelEffect(
                        factor=factor.path,
                        level=level.label,
                        combinations=len(members),
                        estimate=estimate_metric(metric, means, resampled=results.resampled),
                    )
                )
    return tuple(effects)


def sensitivities(results: StudyResults, factor: str, metric: str) -> tuple[Sensitivity, ...]:
    """Return how far means move along one factor, for each combination of the other factors."""
    groups: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for condition in compared(results):
        values = values_by_repeat(results, condition, metric)
        if condition.kind == "grid" and factor in condition.levels and values:
            others = ", ".join(label for path, label in condition.levels.items() if path != factor)
            groups[others].append((fmean(values.values()), condition.levels[factor], condition.key))
    rows = []
    for others, means in groups.items():
        if len(means) > 1:
            (low, lowest, first), (high, highest, last) = min(means), max(means)
            rows.append(
                Sensitivity(
                    factor=factor, others=others, low=low, high=high, lowest_level=lowest, highest_level=highest,
                    keys=(first, last),
                )
            )  # fmt: skip
    return tuple(rows)


def sensitivity_findings(
    sensitivities: Sequence[Sensitivity], metric: str, told_apart: Callable[[str, str], bool]
) -> Iterator[Finding]:
    """Say how far the batch size moves the mean: of the combination that suffers most and least, or of the only one.

    `told_apart` says of two conditions, by their keys, whether they differ beyond chance.
    """
    rows = sorted(sensitivities, key=lambda row: row.range)
    if not rows:
        return
    least, most = rows[0], rows[-1]
    moved = quoted(most.others) if most.others else f"the {metric_words(metric)}"
    by = [
        f"by {amount(metric, row.range)}{'' if told_apart(*row.keys) else ' (not told from chance)'}"
        for row in (most, least)
    ]
    sentence = f"The batch size moves {moved}{' most,' if len(rows) > 1 else ''} {by[0]}"
    if len(rows) > 1:
        sentence += f", and {quoted(least.others)} least, {by[1]}"
    yield Finding(
        rule="batch-size-sensitivity",
        sentence=f"{sentence}.",
        evidence=f"Range of mean {metric_words(metric)} over the levels of {most.factor}; "
        f"{quoted(most.others) if most.others else 'it'} is lowest at {most.lowest_level} "
        f"({measured(metric, most.low)}) and highest at {most.highest_level} ({measured(metric, most.high)}).",
        about=tuple(dict.fromkeys(row.others for row in (most, least) if row.others)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantAnswer:
    """The accuracy on a split of naming always the class that is most frequent in train.

    `label` is that class, "" where all have the same number of images.
    """

    split: str
    label: str
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBalance:
    """The smallest and the largest class of train with their images, and what naming one class always would score.

    Where nothing tells the classes of train, they are those of the first of `constant`; so they are where repeats are
    folds, whose test images together are all there are, and whose share of a class is a mean as their scores are.
    """

    least: tuple[str, int]
    most: tuple[str, int]
    split: str
    constant: tuple[ConstantAnswer, ...]

    @property
    def unbalanced(self) -> bool:
        """Return whether the largest class has three times the images of the smallest, or more."""
        return self.most[1] >= UNBALANCED * self.least[1]


def class_balance(results: StudyResults) -> ClassBalance | None:
    """Return how even the classes of a study's data are; None without a scored trial, and of several data sets."""
    facts, folds = results.data, results.study.splits == "folds"
    if len({one.get("fingerprint") for one in facts.get("sets", ())}) > 1:
        return None
    scored: dict[SplitName, dict[int, list[int]]] = {}
    for trial in done_trials(results):
        for split, metrics in trial.outcome.metrics.items() if trial.outcome else ():
            fold = trial.index if folds else 0
            scored.setdefault(split, {}).setdefault(fold, [sum(row) for row in metrics.confusion])
        if "test" in scored and not folds:
            break
    together = {split: [sum(each) for each in zip(*found.values(), strict=False)] for split, found in scored.items()}
    of: SplitName = "train"
    drawn = together.get("train") if results.study.settings.get("data", {}).get("train_size") else None
    counts = [] if folds else drawn or list(facts.get("class_counts", {}).get("train", ()))
    for split in SPLITS[::-1]:
        if not counts:
            of, counts = split, together.get(split, [])
    every = [each for found in scored.values() for each in found.values()]
    if not counts or not scored or any(len(each) != len(counts) for each in every):
        return None
    named = results.class_names if len(results.class_names) == len(counts) else tuple(map(str, range(len(counts))))
    low, high = min(counts), max(counts)
    largest = counts.index(high)
    constant = tuple(
        ConstantAnswer(
            split=split,
            label="" if low == high and len(set(together[split])) == 1 else named[largest],
            accuracy=fmean(each[largest] / sum(each) for each in scored[split].values() if sum(each)),
        )
        for split in SPLITS[::-1]
        if sum(together.get(split, ()))
    )
    return ClassBalance(least=(named[counts.index(low)], low), most=(named[largest], high), split=of, constant=constant)


def constant_words(balance: ClassBalance | None, metric: str) -> str:
    """Return the sentence on naming one class always, after a space; nothing where it is not known, or of a loss."""
    for row in balance.constant if balance else ():
        if metric == f"{row.split}.accuracy":
            which = f"the most frequent class, {quoted(row.label)}," if row.label else "one class"
            return f" Naming {which} always would score {measured(metric, row.accuracy)}."
    return ""


def balance_findings(balance: ClassBalance | None) -> Iterator[Finding]:
    """Say that classes are unbalanced, and what naming the largest always would score."""
    if balance is None or not balance.unbalanced:
        return
    (least, few), (most, many) = balance.least, balance.most
    scores = balance.constant[0]
    yield Finding(
        rule="unbalanced-classes",
        tone="warning",
        sentence=f"Classes are unbalanced: {quoted(most)} has {many:,} {balance.split} images, {quoted(least)} has "
        f"{few:,}; naming {quoted(scores.label or most)} always would score "
        f"{measured(f'{scores.split}.accuracy', scores.accuracy)} on {scores.split}.",
        evidence="Accuracy weighs classes by their images. Macro F1 weighs them all alike.",
        about=(),
    )
