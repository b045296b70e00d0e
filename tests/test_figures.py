"""The built-in figures: their numbers by hand, their pictures by schema, and what they say when there is nothing."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import math
from typing import Any

import pytest
from benchkit_figures.classes.confusion_matrix import ConfusionMatrix
from benchkit_figures.encodings import panel_columns, quantity, t_interval
from benchkit_figures.outcomes.results_forest import ResultsForest
from benchkit_figures.outcomes.speed_cost import SpeedCost, padded, placed_labels
from benchkit_figures.search.history import SearchHistory
from benchkit_figures.search.importances import SearchImportances
from benchkit_figures.search.parallel import SearchParallel
from benchkit_figures.search.slices import SearchSlices
from benchkit_figures.training.learning_curves import LearningCurves, axis_ends
from benchkit_figures.training.loss_gap import LossGap
from figure_checks import drawn, rows_of
from figure_results import NORMS, condition, cost, learned, metrics, record, results, trial
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchkit import NothingToDraw, PluginError, card_of
from benchkit.plan import Condition
from benchkit.results import Outcome, StudyResults, Trial

GRID = (LearningCurves, ResultsForest, SpeedCost, ConfusionMatrix)
SEARCH = (SearchHistory, SearchImportances, SearchParallel, SearchSlices)
TWENTY = [f"{norm}, batch size={size}" for norm in NORMS[:5] for size in (32, 64, 128, 256)]


def scored(
    of: Condition, index: int, accuracy: float, *, seconds: float = 10.0, confusion: Any = ((9, 1), (2, 8))
) -> Trial:
    split = metrics(accuracy, 0.5, confusion)
    val = metrics(accuracy + 0.01, 0.5, confusion)
    outcome = Outcome(state="done", selected_epoch=1, metrics={"test": split, "val": val}, cost=cost(seconds))
    return trial(of, index, outcome=outcome, history=[record(1, (1.0, 0.5, 1.1, accuracy))])


# --- all figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", [*GRID, *SEARCH], ids=lambda figure: figure.__name__)
def test_every_figure_has_a_card_and_nothing_to_draw_without_trials(figure: type[Any]) -> None:
    assert card_of(figure).summary.endswith(".")
    empty = results([condition("bn"), condition("gn", "search")], [])
    with pytest.raises(NothingToDraw, match=r"\w+ \w+"):
        figure().data(empty)
    only_failed = results([condition("bn")], [trial(condition("bn"), state="failed")])
    with pytest.raises(NothingToDraw):
        figure().data(only_failed)


@pytest.mark.parametrize("figure", GRID, ids=lambda figure: figure.__name__)
@pytest.mark.parametrize(
    ("labels", "repeats", "epochs"),
    [(["bn"], 1, 1), (NORMS[:4], 2, 6), (NORMS, 4, 8), (TWENTY, 2, 4)],
    ids=["one", "four", "seven", "twenty"],
)
def test_grid_figures_draw_one_to_twenty_conditions(
    figure: type[Any], labels: list[str], repeats: int, epochs: int
) -> None:
    drawn(figure(), learned(labels, repeats, epochs, classes=4))


def test_text_from_outside_stays_text() -> None:
    hostile = "</script><b>&\"'"
    spec = drawn(ResultsForest(), results([condition(hostile)], [scored(condition(hostile), 0, 0.5)]))
    assert hostile in json.dumps(spec, ensure_ascii=False).replace('\\"', '"')


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_t_interval_by_hand() -> None:
    # Mean 4, s = sqrt((4 + 0 + 4) / 2) = 2, t(0.975, 2) = 4.302653: half width 4.302653 * 2 / sqrt(3) = 4.968276.
    found = t_interval([2.0, 4.0, 6.0])
    assert (found.mean, found.n) == (4.0, 3)
    assert found.high - 4.0 == pytest.approx(4.968276, abs=1e-5)
    assert 4.0 - found.low == pytest.approx(4.968276, abs=1e-5)
    assert t_interval([7.0]).low == t_interval([7.0]).high == 7.0


def test_unknown_metrics_are_refused_with_the_known_ones() -> None:
    with pytest.raises(PluginError, match=r"test\.accuracy"):
        quantity("test.acuracy")
    assert quantity("test.accuracy").text(0.92314) == "92.31 %"
    assert quantity("val.loss").title == "Validation loss (nats)"


# --- learning curves -------------------------------------------------------------------------------------------------


def two_repeats() -> StudyResults:
    one = condition("bn")
    longer = [record(1, (2.0, 0.2, 2.2, 0.1)), record(2, (1.0, 0.6, 1.2, 0.5)), record(3, (0.5, 0.8, 1.4, 0.6))]
    shorter = [record(1, (3.0, 0.4, 2.6, 0.3)), record(2, (2.0, 0.7, 1.0, 0.7))]
    first = trial(one, 0, history=longer, outcome=Outcome(state="done", selected_epoch=2))
    second = trial(one, 1, history=shorter, outcome=Outcome(state="done", selected_epoch=2))
    return results([one, condition("gn")], [first, second, trial(one, 2, state="failed")])


def test_learning_curves_average_the_repeats_still_training() -> None:
    data = LearningCurves().data(two_repeats())
    (curves,) = data.curves
    assert [point.running for point in curves.points] == [2, 2, 1]
    # In the order training loss, validation loss, training accuracy, validation accuracy.
    assert curves.points[0].mean == pytest.approx((2.5, 2.4, 0.3, 0.2))
    assert curves.points[0].low == (2.0, 2.2, 0.2, 0.1)
    assert curves.points[0].high == (3.0, 2.6, 0.4, 0.3)
    assert curves.points[2].mean == (0.5, 1.4, 0.8, 0.6)
    assert [repeat.scored_epoch for repeat in curves.repeats] == [2, 2]
    assert (curves.not_done, data.without, data.band) == (1, ("gn",), "range")


def test_learning_curves_say_what_the_mean_and_band_are() -> None:
    figure = LearningCurves()
    data = figure.data(two_repeats())
    caption = figure.caption(data)
    assert "mean over 2 repeats; bands: least to greatest repeat" in caption
    assert "stopped early leave the mean" in caption
    assert "1 repeat of these conditions is not done and not shown" in caption
    assert "Without a finished repeat: gn." in caption
    assert figure.alt_text(data) == (
        "Learning curves: the highest mean validation accuracy is 60.00 %, reached by bn in epoch 2."
    )


def test_learning_curves_use_t_intervals_from_four_repeats() -> None:
    one = condition("bn")
    trials = [trial(one, i, history=[record(1, (1.0, 0.5, float(i), 0.5))]) for i in range(4)]
    data = LearningCurves().data(results([one], trials))
    # Values 0..3: mean 1.5, s = sqrt(5/3) = 1.290994, t(0.975, 3) = 3.182446, half width 2.054260.
    assert data.band == "interval"
    point = data.curves[0].points[0]
    assert point.mean[1] == 1.5
    assert point.high[1] - 1.5 == pytest.approx(2.054260, rel=1e-5)
    assert point.low[1] == 0  # no cross-entropy is below


def test_a_band_of_a_loss_with_negative_values_is_not_cut() -> None:
    one = condition("bn")
    trials = [trial(one, i, history=[record(1, (float(i) - 1, 0.5, 1.0, 0.5))]) for i in range(4)]
    point = LearningCurves().data(results([one], trials)).curves[0].points[0]
    # Values -1 to 2: as above, around 0.5.
    assert 0.5 - point.low[0] == pytest.approx(2.054260, rel=1e-5)


def test_learning_curves_leave_out_non_finite_epochs() -> None:
    one = condition("bn")
    history = [record(1, (1.0, 0.5, 1.0, 0.5)), record(2, (math.inf, 0.5, math.nan, 0.5))]
    data = LearningCurves().data(results([one], [trial(one, history=history)]))
    assert [point.epoch for point in data.curves[0].points] == [1]


def test_axes_of_curves_reach_beyond_their_points_and_leave_far_values_out() -> None:
    one = condition("bn")
    # Accuracies 0.1, then 0.9 to 0.92: the tenth least of 40 values (both splits) is 0.9, twice 0.02 is less than 0.82.
    history = [record(1, (9.0, 0.1, 9.0, 0.1))]
    history += [record(e, (1.0, 0.9 + 0.02 * (e > 10), 1.1, 0.9 + 0.02 * (e > 10))) for e in range(2, 21)]
    figure = LearningCurves()
    data = figure.data(results([one], [trial(one, history=history)]))
    low, high, beyond = axis_ends(data, "accuracy")
    assert beyond and low == pytest.approx(92 - 1.5 * 2 - 0.04 * 3) and high == pytest.approx(92 + 0.04 * 3)
    assert axis_ends(data, "loss")[:2] == pytest.approx((1 - 0.04 * 0.15, 1.15 + 0.04 * 0.15))
    assert "beyond the axes" in figure.caption(data)
    assert "beyond the axes" not in figure.caption(figure.data(two_repeats()))
    text = json.dumps(drawn(figure, results([one], [trial(one, history=history)])))
    assert '"scale": {"domain": [0.62, 20.38], "nice": false}' in text


def test_captions_speak_of_the_training_loss_where_it_is_drawn() -> None:
    many = learned(TWENTY, 2, 4)
    assert "Training loss includes" not in LearningCurves().caption(LearningCurves().data(many))
    loss = LearningCurves(metric="loss")
    assert "Training loss includes" in loss.caption(loss.data(many))


def test_long_learning_curves_are_thinned_and_packed() -> None:
    figure = LearningCurves()
    spec = drawn(figure, learned(NORMS, 3, 250, early=True))
    assert len(json.dumps(spec)) < 200_000


def test_thinned_lines_of_single_repeats_end_where_these_ended() -> None:
    figure = LearningCurves()
    spec = figure.draw(figure.data(learned(NORMS[:2], 2, 500))).to_dict(validate=False)
    lines = [row for row in rows_of(spec) if row["kind"] == "repeat"]
    # Every fourth of 500 epochs from the first on, and the last one.
    assert len(lines) == 2 * 2 * (125 + 1)
    assert {row["epoch"] for row in lines} == {*range(1, 500, 4), 500}


def test_captions_part_labels_with_commas_by_semicolons() -> None:
    labels = ("norm = gn, depth = 2", "norm = gn, depth = 3")
    finished = learned(["bn"], 2, 3)
    more = dataclasses.replace(finished, conditions=(*finished.conditions, *map(condition, labels)))
    for figure in (LearningCurves(), ResultsForest(), SpeedCost(), LossGap()):
        words = "Without a finished repeat: norm = gn, depth = 2; norm = gn, depth = 3."
        assert words in figure.caption(figure.data(more)), type(figure).__name__


def test_learning_curves_refuse_unknown_options() -> None:
    with pytest.raises(PluginError) as caught:
        LearningCurves(metric="f1", band="bootstrap")
    assert len(caught.value.problems) == 2


# --- results forest --------------------------------------------------------------------------------------------------


def test_forest_rows_by_hand_best_first() -> None:
    low, high = condition("bn"), condition("gn")
    trials = [scored(low, i, value) for i, value in enumerate((0.70, 0.72, 0.74))]
    trials += [scored(high, 0, 0.9)]
    figure = ResultsForest()
    data = figure.data(results([low, high, condition("ln")], trials))
    first, second = data.rows
    assert (first.condition, first.n, first.mean, first.low) == ("gn", 1, 0.9, 0.9)
    # s = 0.02, half width 4.302653 * 0.02 / sqrt(3) = 0.04968276.
    assert second.mean == pytest.approx(0.72)
    assert second.high - second.mean == pytest.approx(0.04968276, rel=1e-6)
    assert second.repeats == (0.70, 0.72, 0.74)
    assert second.also == pytest.approx(0.73)
    assert data.without == ("ln",)
    assert figure.alt_text(data) == "gn has the best mean test accuracy, 90.00 %; bn has the worst, 72.00 %."
    assert "mean of 1 to 3 repeats" in figure.caption(data)


def test_forest_puts_the_lowest_loss_first_and_can_leave_out_the_second_metric() -> None:
    one, two = condition("bn"), condition("gn")
    trials = []
    for of, loss in ((one, 0.9), (two, 0.4)):
        outcome = Outcome(state="done", metrics={"test": metrics(0.5, loss)})
        trials.append(trial(of, 0, outcome=outcome))
    data = ResultsForest(metric="test.loss", also="none").data(results([one, two], trials))
    assert [row.condition for row in data.rows] == ["gn", "bn"]
    assert data.also == ""


def test_the_last_attempt_of_a_repeat_counts_once() -> None:
    one = condition("bn")
    first = scored(one, 0, 0.5)
    again = dataclasses.replace(scored(one, 0, 0.8), attempt=1)
    data = ResultsForest().data(results([one], [again, first]))
    assert data.rows[0].repeats == (0.8,)


def spread_out(values: dict[str, float], repeats: int = 3) -> StudyResults:
    """Return results whose repeats lie 0.1 points around each condition's accuracy."""
    conditions = [condition(label) for label in values]
    trials = [
        scored(one, index, values[one.label] + 0.001 * (index - 1), seconds=10 + index)
        for one in conditions
        for index in range(repeats)
    ]
    return results(conditions, trials)


def test_leading_conditions_have_an_axis_of_their_own_where_the_others_squeeze_them() -> None:
    figure = ResultsForest(also="none")
    data = figure.data(spread_out({"a": 0.600, "b": 0.599, "c": 0.2, "d": 0.1}))
    assert data.leading == ("a", "b")
    # s = 0.001, half width 4.302653 * 0.001 / sqrt(3) = 0.002484: from b's lower end to a's upper one.
    assert data.enlarged == pytest.approx((0.599 - 0.002484, 0.600 + 0.002484), abs=1e-6)
    assert "enlarged" in figure.caption(data)
    assert len(figure.draw(data).hconcat) == 3
    even = figure.data(spread_out({"a": 0.600, "b": 0.599, "c": 0.595, "d": 0.593}))
    assert even.enlarged is None and len(figure.draw(even).hconcat) == 2
    assert figure.data(spread_out({"a": 0.9, "b": 0.2})).enlarged is None


@pytest.mark.parametrize("figure", [ResultsForest, SpeedCost], ids=lambda figure: figure.__name__)
def test_of_more_conditions_than_colours_the_leading_ones_are_blue_and_the_others_grey(figure: type[Any]) -> None:
    many = {f"c{place}": 0.9 - 0.05 * place for place in range(9)}
    spec, few = (json.dumps(drawn(figure(), spread_out(dict(list(many.items())[:count])))) for count in (9, 8))
    assert json.dumps(["#1E78B4", *["#767676"] * 8]) in spec
    assert json.dumps(["#1E78B4", *["#767676"] * 7]) not in few
    assert "lue: may be the best." in figure().caption(figure().data(spread_out(many)))


@pytest.mark.parametrize("count", range(2, 30))
def test_no_panel_stands_alone_in_the_last_row(count: int) -> None:
    columns = panel_columns(["bn"] * count, 5, 3)
    assert columns <= 5 and (count <= columns or count % columns != 1 or all(count % c == 1 for c in (3, 4, 5)))
    assert panel_columns(["a label as long as this, batch size=128"] * count, 5) == 2


# --- speed and cost --------------------------------------------------------------------------------------------------


def test_pareto_front_by_hand() -> None:
    points = {"quick": (10.0, 0.70), "slow and best": (40.0, 0.90), "beaten": (20.0, 0.69), "middle": (20.0, 0.80)}
    conditions = [condition(label) for label in points]
    trials = [scored(c, 0, points[c.label][1], seconds=points[c.label][0]) for c in conditions]
    figure = SpeedCost()
    data = figure.data(results(conditions, trials))
    assert [row.condition for row in data.rows if row.on_front] == ["quick", "middle", "slow and best"]
    assert data.rows[0].seconds == 10.0
    assert figure.alt_text(data) == (
        "The quickest repeat is of quick (10 s, 70.00 %); slow and best is best (90.00 % in 40 s)."
    )


def test_times_are_those_of_the_fastest_repeat_and_equal_memory_is_a_sentence() -> None:
    figure = SpeedCost()
    data = figure.data(spread_out({"a": 0.6, "b": 0.5}))
    assert [(row.seconds, row.slowest) for row in data.rows] == [(10.0, 12.0), (10.0, 12.0)]
    assert "Peak memory is about the same, 512 MiB at most." in figure.caption(data)
    assert len(figure.draw(data).hconcat) == 2
    one, two = condition("a"), condition("b")
    costs = [cost(memory=memory) for memory in (100.0, 200.0)]
    outcomes = [Outcome(state="done", metrics={"test": metrics(0.5)}, cost=each) for each in costs]
    known = results([one, two], [trial(of, outcome=each) for of, each in zip((one, two), outcomes, strict=True)])
    assert len(figure.draw(figure.data(known)).hconcat) == 3


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), min_size=1, max_size=17), st.integers(1, 15))
def test_names_of_points_cover_neither_points_nor_each_other(points: list[tuple[float, float]], length: int) -> None:
    places = placed_labels(points, ["x" * length] * len(points), (300, 200), [(0, 99, 300, 101)])
    boxes = []
    for place in places:
        if place is not None:
            left = place.x - 6.1 * length * {"left": 0, "center": 0.5, "right": 1}[place.align]
            boxes.append((left, left + 6.1 * length, place.y - 6, place.y + 6))
    for index, (left, right, top, bottom) in enumerate(boxes):
        assert left >= 0 and right <= 300 and top >= 0 and bottom <= 200
        assert bottom <= 99 or top >= 101
        for other in boxes[:index]:
            assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top
    covered = [(x, y, box) for x, y in points for box in boxes if box[0] < x < box[1] and box[2] < y < box[3]]
    assert not covered
    assert placed_labels([(100, 100)], ["alone"], (300, 200))[0] is not None


# --- confusion -------------------------------------------------------------------------------------------------------


def test_confusion_sums_repeats_and_divides_by_the_true_class() -> None:
    one = condition("bn")
    trials = [
        scored(one, 0, 0.85, confusion=((9, 1, 0), (2, 8, 0), (0, 0, 0))),
        scored(one, 1, 0.75, confusion=((7, 2, 1), (4, 6, 0), (0, 0, 0))),
    ]
    figure = ConfusionMatrix()
    data = figure.data(results([one], trials, classes=3))
    (matrix,) = data.matrices
    assert matrix.counts == ((16, 3, 1), (6, 14, 0), (0, 0, 0))
    assert matrix.percent == ((80.0, 15.0, 5.0), (30.0, 70.0, 0.0), (0.0, 0.0, 0.0))
    assert matrix.pairs == ((1, 0, 30.0), (0, 1, 15.0), (0, 2, 5.0))
    assert matrix.accuracy == pytest.approx(0.8)
    assert figure.alt_text(data) == "The most frequent error of bn: 30.0 % of class 1 are taken for class 0."


def test_confusion_shows_best_and_worst_or_the_conditions_named() -> None:
    given = learned(NORMS[:4], 1, 4, classes=3)
    data = ConfusionMatrix().data(given)
    accuracies = [matrix.accuracy for matrix in data.matrices]
    assert accuracies == sorted(accuracies, reverse=True)
    assert data.shown == (data.matrices[0].condition, data.matrices[-1].condition)
    assert ConfusionMatrix(conditions=("in",)).data(given).shown == ("in",)
    with pytest.raises(PluginError, match="typo"):
        ConfusionMatrix(conditions=("typo",)).data(given)


@pytest.mark.parametrize("classes", [12, 13, 30, 51])
def test_confusion_draws_every_number_of_classes(classes: int) -> None:
    drawn(ConfusionMatrix(), learned(NORMS[:2], 1, 4, classes=classes))


def test_many_classes_become_a_picture_of_whole_pixels() -> None:
    identity = tuple(tuple(10 if i == j else 0 for j in range(60)) for i in range(60))
    one = condition("bn")
    spec = drawn(ConfusionMatrix(), results([one], [scored(one, 0, 1.0, confusion=identity)], classes=60))
    (address,) = {row["url"] for rows in spec["datasets"].values() for row in rows if "url" in row}
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")
    assert picture.size == (420, 420)
    assert picture.getpixel((3, 3)) == picture.getpixel((416, 416)) == (0x0B, 0x3A, 0x69)
    assert picture.getpixel((10, 3)) == (0xF6, 0xF8, 0xFB)


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 30, 251])
def test_axes_of_epochs_have_whole_numbers_each_once(epochs: int) -> None:
    def axes(node: Any) -> list[list[int]]:
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        own = (
            [node["axis"]["values"]]
            if isinstance(node, dict) and node.get("field") == "epoch" and "axis" in node
            else []
        )
        return own + [found for part in inner for found in axes(part)]

    ticks = axes(drawn(LearningCurves(), learned(NORMS[:2], epochs=epochs)))
    assert ticks
    for values in ticks:
        steps = {later - earlier for earlier, later in itertools.pairwise(values)}
        assert 1 <= len(values) <= 9 and len(steps) <= 1 and all(type(value) is int for value in values)
        assert all(1 <= value <= epochs for value in values)
    if epochs <= 3:
        assert ticks[0] == list(range(1, epochs + 1))


@pytest.mark.parametrize("values", [[0.45123, 0.45124], [0.0, 0.0], [1e-9], [98.5, 98.5001], [-0.3, -0.30001]])
def test_values_that_hardly_differ_have_an_axis_between_two_ends(values: list[float]) -> None:
    low, high = padded(values)
    assert low < min(values) <= max(values) < high
