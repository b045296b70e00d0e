"""The figures of the source studies: their numbers by hand, their pictures by schema, their words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from benchkit_figures.classes.class_accuracy import ClassAccuracy
from benchkit_figures.classes.confusion_difference import COLOURS as SIGNED
from benchkit_figures.classes.confusion_difference import LIGHT_IN, ConfusionDifference
from benchkit_figures.classes.confusion_matrix import DARK_FROM, ConfusionMatrix
from benchkit_figures.encodings import COLOURS, DARK, LIGHT, colour_steps
from benchkit_figures.outcomes.grid_heatmap import GridHeatmap
from benchkit_figures.training.feature_quantiles import FeatureQuantiles
from benchkit_figures.training.learning_curves import LearningCurves
from benchkit_figures.training.loss_gap import LossGap
from benchkit_figures.training.norm_gates import NormGates
from benchkit_figures.training.norm_health import NormHealth
from figure_checks import assert_plain, drawn
from figure_results import NORMS, condition, learned, metrics, record, results, trial
from scipy import stats

from benchkit import NothingToDraw, PluginError, card_of
from benchkit.analysis import onset
from benchkit.results import EpochRecord, Outcome, StudyResults, Trial

FIGURES = (FeatureQuantiles, NormHealth, NormGates, LossGap, ClassAccuracy, ConfusionDifference, GridHeatmap)
TWENTY = [f"{norm}, batch size={size}" for norm in NORMS[:5] for size in (32, 64, 128, 256)]
LAYERS = ("001-of-013.stem.0", "013-of-013.stage3.1.conv2")


def watched(given: StudyResults) -> StudyResults:
    """Return the results with observations in every epoch: quantiles that narrow, moments that grow with depth."""
    return replace(given, trials=tuple(replace(t, history=tuple(map(_watched, t.history))) for t in given.trials))


def _watched(one: EpochRecord) -> EpochRecord:
    wide = 1 + 1 / one.epoch
    seen = {f"feature-quantiles.q{q:02d}": q * wide / 100 for q in (1, 20, 80, 99)}
    for place, layer in enumerate(LAYERS, start=1):
        seen |= {f"norm-health.{layer}.mean": -0.1 * place, f"norm-health.{layer}.variance": 10.0**place * wide}
        seen |= {f"norm-gates.00{place}.layer{place}.mean": 1 / wide, f"norm-gates.00{place}.layer{place}.open": 0.5}
    return replace(one, observed=seen)


def seen_in(label: str, epochs: Sequence[Mapping[str, float]], index: int = 0) -> Trial:
    history = [replace(record(e, (1.0, 0.5, 1.0, 0.5)), observed=seen) for e, seen in enumerate(epochs, start=1)]
    return trial(condition(label), index, history=history)


def scored(label: str, index: int, confusion: Any, accuracy: float = 0.5) -> Trial:
    outcome = Outcome(state="done", selected_epoch=1, metrics={"test": metrics(accuracy, 0.5, confusion)})
    return trial(condition(label), index, outcome=outcome)


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_every_figure_has_a_card_and_nothing_to_draw_without_trials(figure: type[Any]) -> None:
    assert card_of(figure).summary.endswith(".")
    for given in ([], [trial(condition("bn"), state="failed"), trial(condition("gn"), state="diverged")]):
        with pytest.raises(NothingToDraw, match=r"\w+ \w+"):
            figure().data(results([condition("bn"), condition("gn")], given))


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
@pytest.mark.parametrize(
    ("labels", "repeats", "epochs"),
    [(["bn"], 1, 1), (NORMS[:4], 2, 6), (TWENTY, 2, 4)],
    ids=["one", "four", "twenty"],
)
def test_figures_draw_one_to_twenty_conditions(figure: type[Any], labels: list[str], repeats: int, epochs: int) -> None:
    given = watched(learned(labels, repeats, epochs, classes=4))
    if figure is ConfusionDifference and len(labels) == 1:
        with pytest.raises(NothingToDraw, match="bn"):
            figure().data(given)
    else:
        drawn(figure(), given)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_figures_name_what_is_missing(figure: type[Any]) -> None:
    given = watched(learned(NORMS[:3], 2, 4))
    lost = [t if t.condition.label != "in" else replace(t, state="failed", outcome=None) for t in given.trials]
    kept = replace(given, trials=tuple(t for t in lost if (t.condition.label, t.index) != ("bn", 1)))
    data = figure().data(kept)
    assert_plain(data)
    if figure not in (ConfusionDifference, NormGates):
        assert "in." in figure().caption(data)
        assert "2 repeats" in figure().caption(data)


# --- feature quantiles -----------------------------------------------------------------------------------------------


def quantiles(low: float, high: float) -> dict[str, float]:
    values = {"q01": low, "q20": low / 2, "q80": high / 2, "q99": high}
    return {f"feature-quantiles.{name}": value for name, value in values.items()}


def test_quantiles_are_averaged_and_settle_when_nearly_all_narrowing_is_done() -> None:
    one = seen_in("bn", [quantiles(-10, 10), quantiles(-2, 2), quantiles(-1, 1)])
    two = seen_in("bn", [quantiles(-12, 12), quantiles(-2, 2), quantiles(-1, 1)], 1)
    grows = seen_in("gn", [quantiles(-1, 1), quantiles(-2, 2)])
    given = results([condition("bn"), condition("gn"), condition("in")], [one, two, grows])
    data = FeatureQuantiles().data(given)
    first, second = data.curves
    assert [(p.q01, p.q99, p.running) for p in first.points] == [(-11, 11, 2), (-2, 2, 2), (-1, 1, 2)]
    # Spreads 22, 4, 2: 95 % of the narrowing is done at 22 - 0.95 * 20 = 3 or below.
    assert (first.settled, second.settled, data.without) == (3, 0, ("in",))
    assert "22 to 2, with 95 % of its narrowing done by epoch 3." in FeatureQuantiles().alt_text(data)
    assert "not an uncertainty" in FeatureQuantiles().caption(data)


# --- norm health -----------------------------------------------------------------------------------------------------


def test_networks_of_different_depth_share_the_panels_of_norm_health() -> None:
    def seen(*layers: str) -> dict[str, float]:
        return {f"norm-health.{layer}.{q}": 2.0 for layer in layers for q in ("mean", "variance")}

    deep = seen_in("deep", [seen("001-of-020.a", "010-of-020.b.conv", "020-of-020.c")])
    flat = seen_in("flat", [seen("001-of-002.a", "002-of-002.b")])
    data = NormHealth().data(results([condition("deep"), condition("flat")], [deep, flat]))
    assert data.panels == ("first layer", "middle layer", "last layer")
    found = {(c.condition, c.panel): (c.layer, c.place, c.places) for c in data.curves if c.quantity == "mean"}
    assert found[("deep", "middle layer")] == ("b.conv", 10, 20)
    assert found[("flat", "last layer")] == ("b", 2, 2)
    drawn(NormHealth(), results([condition("deep"), condition("flat")], [deep, flat]))


def test_gates_are_averaged_over_repeats_by_layer_and_epoch() -> None:
    key = "norm-gates.001.stem.norm"
    epochs = [[{f"{key}.mean": mean, f"{key}.open": mean}] for mean in (0.4, 0.8)]
    trials = [seen_in("bin", seen, index) for index, seen in enumerate(epochs)]
    (curve,) = NormGates().data(results([condition("bin"), condition("bn")], trials)).curves
    assert (curve.layer, curve.n) == ("stem.norm", 2)
    assert (curve.points[0].mean, curve.open_share) == (pytest.approx(0.6), pytest.approx(0.6))
    spec = drawn(NormGates(), results([condition("bin")], trials))
    assert "0.6 to 0.8" in str(spec)


def test_norm_health_draws_the_gradient_norm_alone_and_says_so() -> None:
    given = learned(NORMS[:2], 2, 4)
    data = NormHealth().data(given)
    assert {curve.quantity for curve in data.curves} == {"gradient norm"}
    assert [point.mean for point in data.curves[0].points] == [1.0] * 4
    assert "not observed" in NormHealth().caption(data)
    drawn(NormHealth(), given)


# --- loss gap --------------------------------------------------------------------------------------------------------


def test_gap_by_epoch_and_at_the_scored_epoch() -> None:
    def of(index: int, vals: Sequence[float], scored: int, evaluated: bool = False) -> Trial:
        history = [record(e, (1.0, 0.5, val, 0.5)) for e, val in enumerate(vals, start=1)]
        split = {"train": metrics(0.9, 0.4), "val": metrics(0.8, 0.9)} if evaluated else {}
        outcome = Outcome(state="done", selected_epoch=scored, metrics=split)  # type: ignore[arg-type]
        return trial(condition("bn"), index, history=history, outcome=outcome)

    given = [of(0, [0.9, 1.2, 1.5], 2, evaluated=True), of(1, [0.7, 1.6, float("nan")], 2)]
    (gap,) = LossGap().data(results([condition("bn")], given)).gaps
    assert [(p.epoch, p.running) for p in gap.points] == [(1, 2), (2, 2), (3, 1)]
    assert [p.mean for p in gap.points] == pytest.approx([-0.2, 0.4, 0.5])
    assert (gap.points[1].low, gap.points[1].high) == pytest.approx((0.2, 0.6))
    # Gaps 0.2 and 0.6 at epoch 2: mean 0.4, t(0.975, 1) = 12.7062, s / sqrt(2) = 0.2.
    assert (gap.selected, gap.high) == pytest.approx((0.4, 0.4 + 12.7062 * 0.2), rel=1e-5)
    assert gap.evaluated == pytest.approx(0.5)
    data = LossGap().data(results([condition("bn")], given))
    words = LossGap().caption(data)
    assert "augmentation, dropout and penalties" in words and "Open diamonds" in words and "2 repeats" in words
    assert LossGap().alt_text(data) == (
        "At the scored epoch bn has a gap between validation and training loss of 0.4000 nats."
    )


# --- accuracy by class -----------------------------------------------------------------------------------------------


def test_class_accuracy_sums_the_repeats_and_takes_wilson_intervals() -> None:
    trials = [scored("bn", 0, ((9, 1), (4, 6))), scored("bn", 1, ((7, 3), (3, 7))), scored("gn", 0, ((5, 5), (0, 0)))]
    data = ClassAccuracy().data(results([condition("bn"), condition("gn")], trials))
    first, second = data.conditions
    assert [(s.name, s.right, s.of, s.accuracy) for s in first.classes] == [
        ("class 0", 16, 20, 0.8),
        ("class 1", 13, 20, 0.65),
    ]
    expected = stats.binomtest(16, 20).proportion_ci(0.95, method="wilson")
    assert (first.classes[0].low, first.classes[0].high) == pytest.approx((expected.low, expected.high))
    assert [s.name for s in second.classes] == ["class 0"]  # no image of class 1
    assert data.shown == ("class 0", "class 1")  # means 65 % (80 and 50) and 65 %: label order
    caption = ClassAccuracy().caption(data)
    assert "Wilson" in caption and "not over random seeds" in caption and "Repeats share their images" in caption
    assert "least accuracy of all is that of gn on class 0, 50.0 %." in ClassAccuracy().alt_text(data)
    with pytest.raises(PluginError, match="train, val, test"):
        ClassAccuracy(split="all").data(results([condition("bn")], trials))


def test_many_classes_show_the_hardest() -> None:
    given = learned(NORMS[:2], 1, 2, classes=40)
    data = ClassAccuracy().data(given)
    mean = {name: 0.0 for name in given.class_names}
    for one in data.conditions:
        for share in one.classes:
            mean[share.name] += share.accuracy / 2
    assert (len(data.shown), data.count) == (25, 40)
    assert max(mean[name] for name in data.shown) <= min(mean[n] for n in given.class_names if n not in data.shown)
    assert "hardest 25 of 40" in ClassAccuracy().caption(data)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours by WCAG 2.1."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_numbers_on_cells_have_enough_contrast() -> None:
    steps = colour_steps([float(value) for value in range(81)])
    assert len(steps.names) == 8
    for value in range(0, 81, 5):
        ink = LIGHT if steps.dark(value) else DARK
        assert contrast(ink, steps.colours[steps.names.index(steps.name(value))]) >= 4.5
    for step, shade in enumerate(SIGNED):
        assert contrast(LIGHT if step in LIGHT_IN else DARK, shade) >= 4.5
    for percent, shade in zip((0.5, 1, 2, 5, 10, 20, 40, 70), COLOURS, strict=True):
        assert contrast(LIGHT if percent >= DARK_FROM else DARK, shade) >= 4.5


def test_seventeen_conditions_have_their_numbers_in_the_table() -> None:
    given = learned(TWENTY[:17], 1, 2, classes=10)
    spec = json.dumps(drawn(ClassAccuracy(), given))
    assert '"format": ".1f"' in spec and "bandwidth('x') < 24 ? 0 : 1" in spec, "none where a phone has no room"
    assert "pointer" not in ClassAccuracy().caption(ClassAccuracy().data(given))


# --- difference of confusion -----------------------------------------------------------------------------------------


def test_difference_of_the_best_and_the_worst_by_hand() -> None:
    trials = [
        scored("bn", 0, ((6, 4), (0, 10)), 0.8),
        scored("gn", 0, ((9, 1), (2, 8)), 0.85),
        scored("in", 0, ((8, 2), (2, 8)), 0.82),
    ]
    given = results([condition("bn"), condition("gn"), condition("in")], trials)
    data = ConfusionDifference().data(given)
    assert (data.first, data.second) == ("gn", "bn")
    assert [cell for row in data.difference for cell in row] == pytest.approx([30, -30, 20, -20])
    assert [(p.true, p.called) for p in data.pairs[:2]] == [("class 0", "class 0"), ("class 0", "class 1")]
    assert ConfusionDifference().alt_text(data) == (
        "The greatest difference: gn names 90.0 % of class 0 rightly, bn 60.0 %."
    )
    other = ConfusionDifference(first="in").data(given)
    assert (other.first, other.second) == ("in", "bn")
    with pytest.raises(PluginError, match="expected one of gn, in, bn"):
        ConfusionDifference(second="ln").data(given)
    with pytest.raises(PluginError, match="both"):
        ConfusionDifference(first="in", second="in").data(given)


def test_a_network_that_learned_nothing_is_not_what_the_best_is_held_against() -> None:
    trials = [
        scored(label, 0, ((5, 5), (5, 5)), accuracy) for label, accuracy in (("bn", 0.8), ("gn", 0.5), ("in", 0.1))
    ]
    given = results([condition(label) for label in ("bn", "gn", "in")], trials)
    assert ConfusionMatrix().data(given).shown == ("bn", "gn")
    data = ConfusionDifference().data(given)
    assert (data.first, data.second) == ("bn", "gn")
    for figure in (ConfusionMatrix(), ConfusionDifference()):
        assert "the worst of those that name at least half as many" in figure.caption(figure.data(given))
    few = results([condition("bn"), condition("in")], [trials[0], trials[2]])
    assert ConfusionMatrix().data(few).shown == ("bn", "in")
    assert "The best condition and the worst condition." in ConfusionMatrix().caption(ConfusionMatrix().data(few))


def test_small_differences_have_smaller_steps() -> None:
    trials = [scored("bn", 0, ((994, 6), (0, 1000)), 0.9), scored("gn", 0, ((997, 3), (2, 998)), 0.8)]
    data = ConfusionDifference().data(results([condition("bn"), condition("gn")], trials))
    # Differences of 0.3 and 0.2 points: the scale is the greatest of the given ones of which 0.3 is ten times, 0.02.
    assert data.scale == 0.02
    assert data.steps.names[3:7] == ("-0.1 to -0.02", "-0.02 to 0.02", "0.02 to 0.1", "0.1 to 0.2")
    spec = str(drawn(ConfusionDifference(), results([condition("bn"), condition("gn")], trials)))
    assert "+.2f" in spec and "datum.step != '-0.02 to 0.02'" in spec
    assert "Blank: a difference under 0.02 percentage points." in ConfusionDifference().caption(data)


def test_captions_of_confusion_count_the_errors_without_a_number() -> None:
    # Class 0: 3 of 1,000 (0.3 %) and 20 (2 %); class 2: 5 of 1,000 are 0.5 % and carry a number.
    counts = ((977, 3, 20), (0, 1000, 0), (5, 0, 995))
    figure = ConfusionMatrix()
    data = figure.data(results([condition("bn")], [scored("bn", 0, counts, 0.99)], classes=3))
    expected = "Cells without a number: under 0.5 %, which hold 3 of the 28 errors of bn. Blank cells: no image."
    assert figure.caption(data).endswith(expected)


@pytest.mark.parametrize("classes", [2, 12, 40, 60])
def test_difference_draws_few_and_many_classes(classes: int) -> None:
    drawn(ConfusionDifference(), learned(NORMS[:2], 2, 2, classes=classes))


# --- onset of over-fitting in the learning curves ---------------------------------------------------------------------


def test_learning_curves_mark_the_onset_that_the_findings_state() -> None:
    over = [record(e, (1 / e, 0.5, 1.0 + 0.2 * abs(e - 3), 0.5)) for e in range(1, 8)]
    fine = [record(e, (1 / e, 0.5, 1.0 / e, 0.5)) for e in range(1, 8)]
    given = results(
        [condition("none"), condition("l2")],
        [trial(condition("none"), history=over), trial(condition("l2"), history=fine)],
    )
    data = LearningCurves().data(given)
    assert [curves.onset for curves in data.curves] == [3.0, 0.0]
    stated = onset(given, given.conditions[0])
    assert stated is not None and stated.epoch == 3.0
    assert "onset of over-fitting" in LearningCurves().caption(data)
    assert "onset" not in LearningCurves(metric="accuracy").caption(data)
    assert "triangle-down" in str(drawn(LearningCurves(), given))
    drawn(LearningCurves(overlay=1, metric="loss"), given)
