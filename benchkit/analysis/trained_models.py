"""What trained models do on images: accuracies, pairs on the same images, hard classes, dead filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchkit.analysis.candidates import answers
from benchkit.analysis.comparisons import ImageComparison, holm, mcnemar
from benchkit.analysis.estimates import Proportion, compared, done_repeats, wilson
from benchkit.analysis.ranking import Ranking, condition_named
from benchkit.analysis.wording import (
    Finding,
    count,
    listing,
    measured,
    quoted,
    span,
)
from benchkit.results import SplitName, StudyResults, Trial

if TYPE_CHECKING:
    import numpy as np

    from benchkit.plan import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAccuracy:
    """One trained model's test accuracy, with the Wilson interval over test images."""

    key: str
    label: str
    repeat: int
    selected_epoch: int
    accuracy: Proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPair:
    """Two trained models of the same repeat on the same test images; `p_adjusted` is Holm's over the table."""

    first: str
    second: str
    repeat: int
    comparison: ImageComparison
    p_adjusted: float


def model_accuracies(results: StudyResults) -> tuple[ModelAccuracy, ...]:
    """Return the test accuracy of every done repeat that was scored on test, in report order."""
    rows: list[ModelAccuracy] = []
    for condition in compared(results):
        for index, trial in sorted(done_repeats(results, condition).items()):
            metrics = trial.outcome.metrics.get("test") if trial.outcome else None
            if trial.outcome is None or metrics is None or metrics.n == 0:
                continue
            rows.append(
                ModelAccuracy(
                    key=condition.key,
                    label=condition.label,
                    repeat=index,
                    selected_epoch=trial.outcome.selected_epoch,
                    accuracy=wilson(round(metrics.accuracy * metrics.n), metrics.n),
                )
            )
    return tuple(rows)


def model_pairs(results: StudyResults, ranking: Ranking) -> tuple[ModelPair, ...]:
    """Return the best condition's model against every other condition's, on the test images, for the first repeat.

    The first repeat that both have with stored predictions of the same images stands for the pair. Empty without
    predictions or true labels.
    """
    if ranking.best is None:
        return ()
    labels = results.labels.get("test")
    best = done_repeats(results, condition_named(results, ranking.best.key))
    pairs: list[ModelPair] = []
    for row in ranking.rows[1:]:
        pair = _first_pair(best, done_repeats(results, condition_named(results, row.key)), labels)
        if pair is not None:
            first, index = ranking.best.label, pair[0]
            pairs.append(ModelPair(first=first, second=row.label, repeat=index, comparison=pair[1], p_adjusted=1.0))
    return _corrected(pairs)


def _corrected(pairs: Sequence[ModelPair]) -> tuple[ModelPair, ...]:
    adjusted = holm([pair.comparison.p for pair in pairs])
    return tuple(replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True))


def _first_pair(
    first: Mapping[int, Trial], second: Mapping[int, Trial], labels: np.ndarray | None
) -> tuple[int, ImageComparison] | None:
    for index in sorted(first.keys() & second.keys()):
        one, other = answers(first[index], labels), answers(second[index], labels)
        if one is not None and other is not None and _same(one[1], other[1]):
            return index, mcnemar(one[0] == one[1], other[0] == other[1])
    return None


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool((first == second).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassConfusion:
    """How often images of class `true` are called `called`: `count` of `of` images, summed over repeats."""

    true: str
    called: str
    count: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReport:
    """A condition's classes over its done repeats: recall by class (None without images), and the worst confusions.

    `recalls` are shares of correctly named images, in label order. `confusions` are the most frequent ones first.
    """

    key: str
    label: str
    split: SplitName
    repeats: int
    names: tuple[str, ...]
    recalls: tuple[float | None, ...]
    confusions: tuple[ClassConfusion, ...]

    @property
    def weakest(self) -> tuple[str, float] | None:
        """Return the name and recall of the class with the least recall."""
        known = [(name, recall) for name, recall in zip(self.names, self.recalls, strict=True) if recall is not None]
        return min(known, key=lambda pair: pair[1]) if known else None


def class_report(results: StudyResults, condition: Condition, most: int = 5) -> ClassReport | None:
    """Return recalls and the `most` frequent confusions of a condition on test (on val where test was not scored)."""
    trials = done_repeats(results, condition).values()
    for split in ("test", "val"):
        matrices = [t.outcome.metrics[split].confusion for t in trials if t.outcome and split in t.outcome.metrics]
        if matrices and matrices[0]:
            return _report(results, condition, split, matrices, most)
    return None


def _report(
    results: StudyResults,
    condition: Condition,
    split: SplitName,
    matrices: list[tuple[tuple[int, ...], ...]],
    most: int,
) -> ClassReport:
    import numpy as np

    total: np.ndarray = np.sum([np.asarray(matrix, dtype=np.int64) for matrix in matrices], axis=0)
    names = results.class_names or tuple(str(i) for i in range(len(total)))
    rows = total.sum(axis=1)
    recalls = tuple(float(total[i, i] / rows[i]) if rows[i] else None for i in range(len(total)))
    off = total - np.diag(np.diag(total))
    worst = np.argsort(off, axis=None, kind="stable")[::-1][:most]
    confusions = tuple(
        ClassConfusion(true=names[i], called=names[j], count=int(off[i, j]), of=int(rows[i]))
        for i, j in (divmod(int(flat), len(total)) for flat in worst)
        if off[i, j] > 0
    )
    return ClassReport(
        key=condition.key,
        label=condition.label,
        split=split,
        repeats=len(matrices),
        names=tuple(names),
        recalls=recalls,
        confusions=confusions,
    )


MARK = "zero."
"""A figure that inspects models leaves, for each layer, an array of this name and the layer's: bool (C,), by filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadFilters:
    """A condition's dead filters over all layers of one repeat, and the layer with the greatest share of them.

    `figure` took them from the model; `images` says on how many images, None where it did not leave their labels.
    `silent_layers` are those all of whose filters are dead: nothing of an image passes them.
    """

    key: str
    label: str
    figure: str
    repeat: int
    images: int | None
    dead: int
    filters: int
    layer: str
    layer_dead: int
    layer_filters: int
    silent_layers: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Return the share of dead filters."""
        return self.dead / self.filters


def dead_filters(results: StudyResults) -> tuple[DeadFilters, ...]:
    """Return the dead filters of every condition that has a done repeat in which a figure of the study marked them."""
    counted = (_of(results, condition) for condition in compared(results))
    return tuple(dead for dead in counted if dead is not None)


def _of(results: StudyResults, condition: Condition) -> DeadFilters | None:
    for _, trial in sorted(done_repeats(results, condition).items()):
        for figure, _options in results.study.report.figures:
            arrays = _arrays(trial, figure)
            if any(array.size for name, array in arrays.items() if name.startswith(MARK)):
                return _counted(condition, trial, figure, arrays)
    return None


def _arrays(trial: Trial, figure: str) -> Mapping[str, np.ndarray]:
    try:
        return trial.inspected(figure)
    except FileNotFoundError:
        return {}


def _counted(condition: Condition, trial: Trial, figure: str, arrays: Mapping[str, np.ndarray]) -> DeadFilters:
    full = {name.removeprefix(MARK): a for name, a in arrays.items() if name.startswith(MARK) and a.size}
    worst = max(full, key=lambda name: (float(full[name].mean()), name))
    return DeadFilters(
        key=condition.key,
        label=condition.label,
        figure=figure,
        repeat=trial.index,
        images=len(arrays["labels"]) if "labels" in arrays else None,
        dead=sum(int(array.sum()) for array in full.values()),
        filters=sum(int(array.size) for array in full.values()),
        layer=worst.partition(".")[2] or worst,
        layer_dead=int(full[worst].sum()),
        layer_filters=int(full[worst].size),
        silent_layers=tuple(name.partition(".")[2] or name for name, array in full.items() if array.all()),
    )


def test_image_findings(
    ranking: Ranking, models: Sequence[ModelAccuracy], model_pairs: Sequence[ModelPair]
) -> list[Finding]:
    """Say how much of an accuracy the limited number of test images leaves open, for the best model as trained."""
    best = ranking.best
    model = next((m for m in models if best is not None and m.key == best.key), None)
    if model is None:
        return []
    share = model.accuracy
    apart = [pair for pair in model_pairs if pair.p_adjusted < 0.05]
    pairs = (
        f" Exact McNemar tests on the same images tell its model of one repeat from {len(apart)} of "
        f"{count(len(model_pairs), 'other model')} (Holm); that is about these trained models, not the "
        f"methods."
        if model_pairs
        else ""
    )
    return [
        Finding(
            rule="test-images",
            tone="note",
            sentence=f"{share.n:,} test images pin the accuracy of one trained {quoted(model.label)} model down to "
            f"{span('test.accuracy', share.low, share.high)}, whatever the random seeds do.",
            evidence=f"Repeat {model.repeat}: {share.successes:,} of {share.n:,} right, 95 % Wilson interval over test "
            f"images.{pairs}",
            about=(model.label,),
        )
    ]


def weak_class_findings(report: ClassReport | None) -> list[Finding]:
    """Say which class the best condition finds hardest, and its most frequent confusion."""
    if report is None or report.weakest is None or len(report.names) < 3 or not report.confusions:
        return []
    name, recall = report.weakest
    worst = report.confusions[0]
    parts = [f"{quoted(c.true)} taken for {quoted(c.called)} {c.count} of {c.of} times" for c in report.confusions]
    return [
        Finding(
            rule="weak-classes",
            tone="note",
            sentence=f"{quoted(report.label)} finds {quoted(name)} hardest, {measured('accuracy', recall)} of "
            f"its images right; "
            f"its most frequent confusion is {quoted(worst.true)} taken for {quoted(worst.called)}.",
            evidence=f"{report.split.capitalize()} images, summed over {count(report.repeats, 'repeat')}: "
            f"{listing(parts)}.",
            about=(report.label,),
        )
    ]


def dead_filter_findings(filters: Sequence[DeadFilters]) -> list[Finding]:
    """Say which condition has the greatest share of dead filters, and where they are."""
    rows = sorted(filters, key=lambda row: -row.share)
    if not rows or not rows[0].dead:
        return []
    most, least = rows[0], rows[-1]
    other = f"; the fewest has {quoted(least.label)}, {least.dead:,} of {least.filters:,}" if len(rows) > 1 else ""
    seen = "the inspected images" if most.images is None else count(most.images, "inspected test image")
    silent = [
        Finding(
            rule="silent-layer",
            tone="warning",
            sentence=f"{quoted(row.label)} puts out only zeros in {listing(row.silent_layers)}.",
            evidence=f"Every filter is zero wherever {row.figure} looked, repeat {row.repeat} (n = 1).",
            about=(row.label,),
        )
        for row in filters
        if row.silent_layers
    ]
    return [
        *silent,
        Finding(
            rule="dead-filters",
            tone="note",
            sentence=f"{quoted(most.label)} has the most dead filters, {most.dead:,} of {most.filters:,}{other}.",
            evidence=f"Zero at every pixel of {seen} after the nonlinearity, repeat {most.repeat} (n = 1); "
            f"the greatest share in {most.layer}, {most.layer_dead:,} of {most.layer_filters:,}. "
            "More images may wake some.",
            about=tuple(dict.fromkeys((most.label, least.label))),
        ),
    ]
