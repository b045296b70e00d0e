"""What trained models do on images: accuracies, pairs on the same images, hard classes, dead filters.

Some say little: models of one answer, and conditions that are one model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchkit.analysis.comparisons import ALPHA, ImageComparison, holm, mcnemar
from benchkit.analysis.estimates import CrossedInterval, Proportion, compared, crossed_interval, done_repeats, wilson
from benchkit.analysis.wording import Finding, count, listing, measured, names, quoted, span
from benchkit.plan import Condition
from benchkit.results import PREDICTIONS, SplitMetrics, SplitName, StudyResults, Trial

if TYPE_CHECKING:
    import numpy as np

    from benchkit.analysis.ranking import Ranking


def answers(trial: Trial, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the classes int64 (n,) that a trial's stored logits name on test, and the true ones, or None without them.

    The labels stored beside the logits win over the study's: they are those of the images that this trial read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stored = load_file(trial.folder / PREDICTIONS)
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
    import numpy as np

    known = ("right answers", condition.key)
    if known not in results.derived:
        given = {i: answers(t, results.labels.get("test")) for i, t in done_repeats(results, condition).items()}
        stored = {index: pair for index, pair in given.items() if pair is not None}
        truths = [truth for _, truth in stored.values()]
        same = all(np.array_equal(one, truths[0]) for one in truths)
        complete = same and len(stored) == len(given)
        results.derived[known] = {i: called == truth for i, (called, truth) in stored.items()} if complete else {}
    found: dict[int, np.ndarray] = results.derived[known]
    return found


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
            if trial.outcome and metrics and metrics.n:
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
    labels, conditions = results.labels.get("test"), {condition.key: condition for condition in results.conditions}
    best, *others = [(row, done_repeats(results, conditions[row.key])) for row in ranking.rows]
    pairs: list[ModelPair] = []
    for row, trials in others:
        pair = _first_pair(best[1], trials, labels)
        if pair is not None:
            repeat, comparison = pair
            first = best[0].label
            pairs.append(ModelPair(first=first, second=row.label, repeat=repeat, comparison=comparison, p_adjusted=1.0))
    adjusted = holm([pair.comparison.p for pair in pairs])
    return tuple(replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True))


def _first_pair(
    first: Mapping[int, Trial], second: Mapping[int, Trial], labels: np.ndarray | None
) -> tuple[int, ImageComparison] | None:
    import numpy as np

    for index in sorted(first.keys() & second.keys()):
        one, other = answers(first[index], labels), answers(second[index], labels)
        if one is not None and other is not None and np.array_equal(one[1], other[1]):
            return index, mcnemar(one[0] == one[1], other[0] == other[1])
    return None


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


def class_report(results: StudyResults, condition: Condition) -> ClassReport | None:
    """Return recalls and the five worst confusions of a condition on test (on val where test was not scored)."""
    trials = done_repeats(results, condition).values()
    for split in ("test", "val"):
        matrices = [t.outcome.metrics[split].confusion for t in trials if t.outcome and split in t.outcome.metrics]
        if matrices and matrices[0]:
            return _report(results, condition, split, matrices)
    return None


def _report(
    results: StudyResults,
    condition: Condition,
    split: SplitName,
    matrices: list[tuple[tuple[int, ...], ...]],
) -> ClassReport:
    import numpy as np

    total: np.ndarray = np.sum([np.asarray(matrix, dtype=np.int64) for matrix in matrices], axis=0)
    names = results.class_names or tuple(str(i) for i in range(len(total)))
    rows = total.sum(axis=1)
    recalls = tuple(float(total[i, i] / rows[i]) if rows[i] else None for i in range(len(total)))
    off = total - np.diag(np.diag(total))
    worst = np.argsort(off, axis=None, kind="stable")[::-1][:5]
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


Marks = dict[int, object]
"""What a condition's done repeats gave, by repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneClass:
    """A condition whose models call every image of a split one class: `repeats` of its `of` done repeats.

    `called` are the classes that they name, `accuracy` is the mean of these repeats.
    """

    key: str
    label: str
    split: str
    called: tuple[str, ...]
    accuracy: float
    repeats: int
    of: int

    @property
    def always(self) -> bool:
        """Return whether no repeat tells classes apart."""
        return self.repeats == self.of


@dataclass(frozen=True, slots=True, kw_only=True)
class IdenticalConditions:
    """Conditions with the same number of parameters and, in all repeats that they share, exactly the same scores.

    `factors` are those in whose levels they differ, `repeats` how many repeats they share.
    """

    labels: tuple[str, ...]
    factors: tuple[str, ...]
    repeats: int


def one_class_conditions(results: StudyResults) -> tuple[OneClass, ...]:
    """Return the conditions of which a done repeat answers one class for ever, on test images, else on val images."""
    rows = (_one_class(results, condition) for condition in compared(results))
    return tuple(row for row in rows if row is not None)


def _one_class(results: StudyResults, condition: Condition) -> OneClass | None:
    trials = done_repeats(results, condition).values()
    split = "test" if any(trial.outcome and "test" in trial.outcome.metrics for trial in trials) else "val"
    scored = [trial.outcome.metrics[split] for trial in trials if trial.outcome and split in trial.outcome.metrics]  # type: ignore[index]
    answers = [(metrics, only) for metrics in scored if (only := only_class(metrics)) is not None]
    if not answers:
        return None
    class_names = results.class_names or tuple(map(str, range(len(answers[0][0].confusion))))
    return OneClass(
        key=condition.key,
        label=condition.label,
        split=split,
        called=tuple(dict.fromkeys(class_names[only] for _, only in answers)),
        accuracy=sum(metrics.accuracy for metrics, _ in answers) / len(answers),
        repeats=len(answers),
        of=len(scored),
    )


def only_class(metrics: SplitMetrics) -> int | None:
    """Return the class that a model calls all images of a split, None where it calls several, or all are of one."""
    called = [sum(column) for column in zip(*metrics.confusion, strict=True)]
    present = sum(any(row) for row in metrics.confusion)
    named = [label for label, images in enumerate(called) if images]
    return named[0] if len(named) == 1 and present > 1 else None


def identical_conditions(results: StudyResults) -> tuple[IdenticalConditions, ...]:
    """Return the groups of conditions that gave the same scores as their first in every repeat that both have."""
    groups: list[list[tuple[Condition, Marks]]] = []
    by_mark: dict[tuple[int, object], list[tuple[Condition, Marks]]] = {}
    for condition in compared(results):
        marks = {index: _mark(trial) for index, trial in done_repeats(results, condition).items() if trial.outcome}
        alike = next((by_mark[item] for item in marks.items() if item in by_mark), None)
        if alike is None or any(alike[0][1].get(index, mark) != mark for index, mark in marks.items()):
            alike = []
            groups.append(alike)
            for item in marks.items():
                by_mark.setdefault(item, alike)
        alike.append((condition, marks))
    return tuple(_identical(group) for group in groups if len(group) > 1)


def _mark(trial: Trial) -> object:
    """Return what two trainings of one model from the same random numbers have in common."""
    assert trial.outcome is not None
    cost, metrics = trial.outcome.cost, trial.outcome.metrics
    scored = [(split, metrics[split]) for split in sorted(metrics)]
    return cost.parameters if cost else None, tuple((s, m.loss, m.accuracy, m.confusion) for s, m in scored)


def _identical(group: Sequence[tuple[Condition, Marks]]) -> IdenticalConditions:
    conditions = [condition for condition, _ in group]
    paths = dict.fromkeys(path for condition in conditions for path in condition.levels)
    return IdenticalConditions(
        labels=tuple(condition.label for condition in conditions),
        factors=tuple(path for path in paths if len({condition.levels.get(path) for condition in conditions}) > 1),
        repeats=min(len(group[0][1].keys() & marks.keys()) for _, marks in group[1:]),
    )


def one_class_findings(rows: Sequence[OneClass]) -> list[Finding]:
    """Say which conditions name one class whatever the image is: their accuracy is that class's share."""
    return [
        Finding(
            rule="one-class",
            tone="warning",
            sentence=_nothing_words(row),
            evidence=f"Its accuracy there, {measured('accuracy', row.accuracy)}, is the share of "
            f"{'that class' if len(row.called) == 1 else 'those classes'} among the images.",
            about=(row.label,),
        )
        for row in rows
    ]


def _nothing_words(row: OneClass) -> str:
    calls = f"calls every {row.split} image {listing([quoted(name) for name in row.called])}"
    if len(row.called) > 1:
        calls = f"calls all {row.split} images one class ({listing([quoted(name) for name in row.called])})"
    if row.always:
        return f"{quoted(row.label)} has learnt nothing: its model {calls} in {count(row.repeats, 'repeat')}."
    return f"{quoted(row.label)} learnt nothing in {row.repeats} of {count(row.of, 'repeat')}: its model {calls}."


def identical_findings(groups: Sequence[IdenticalConditions]) -> list[Finding]:
    """Say which conditions are one and the same model, so that comparing them compares nothing."""
    return [
        Finding(
            rule="identical-conditions",
            tone="warning",
            sentence=f"{names(group.labels)} gave exactly the same results"
            f"{f': {listing(group.factors)} has no effect on them' if group.factors else ''}.",
            evidence=f"Parameters, losses and every confusion are equal to the last digit in "
            f"{count(group.repeats, 'repeat')} that they share: the same model was trained under several names.",
            about=group.labels,
        )
        for group in groups
    ]


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
    counted = (_dead_filters(results, condition) for condition in compared(results))
    return tuple(dead for dead in counted if dead is not None)


def _dead_filters(results: StudyResults, condition: Condition) -> DeadFilters | None:
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
) -> Iterator[Finding]:
    """Say how much of an accuracy the limited number of test images leaves open, for the best model as trained."""
    best = ranking.best
    model = next((m for m in models if best is not None and m.key == best.key), None)
    if model is None:
        return
    share = model.accuracy
    apart = [pair for pair in model_pairs if pair.p_adjusted < ALPHA]
    pairs = (
        f" Exact McNemar tests on the same images tell its model of one repeat from {len(apart)} of "
        f"{count(len(model_pairs), 'other model')} (Holm); that is about these trained models, not the "
        f"methods."
        if model_pairs
        else ""
    )
    yield Finding(
        rule="test-images",
        sentence=f"{share.n:,} test images pin the accuracy of one trained {quoted(model.label)} model down to "
        f"{span('test.accuracy', share.low, share.high)}, whatever the random seeds do.",
        evidence=f"Repeat {model.repeat}: {share.successes:,} of {share.n:,} right, 95 % Wilson interval over test "
        f"images.{pairs}",
        about=(model.label,),
    )


def weak_class_findings(report: ClassReport | None) -> Iterator[Finding]:
    """Say which class the best condition finds hardest, and its most frequent confusion."""
    if report is None or report.weakest is None or len(report.names) < 3 or not report.confusions:
        return
    name, recall = report.weakest
    worst = report.confusions[0]
    parts = [f"{quoted(c.true)} taken for {quoted(c.called)} {c.count:,} of {c.of:,} times" for c in report.confusions]
    yield Finding(
        rule="weak-classes",
        sentence=f"{quoted(report.label)} finds {quoted(name)} hardest, {measured('accuracy', recall)} of "
        f"its images right; "
        f"its most frequent confusion is {quoted(worst.true)} taken for {quoted(worst.called)}.",
        evidence=f"{report.split.capitalize()} images, summed over {count(report.repeats, 'repeat')}: "
        f"{listing(parts)}.",
        about=(report.label,),
    )


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
            sentence=f"{quoted(most.label)} has the most dead filters, {most.dead:,} of {most.filters:,}{other}.",
            evidence=f"Zero at every pixel of {seen} after the nonlinearity, repeat {most.repeat} (n = 1); "
            f"the greatest share in {most.layer}, {most.layer_dead:,} of {most.layer_filters:,}. "
            "More images may wake some.",
            about=tuple(dict.fromkeys((most.label, least.label))),
        ),
    ]
