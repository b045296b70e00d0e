"""The built-in figures: their numbers by hand, their pictures by schema, and what they say when there is nothing."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
from typing import Any

import pytest
from benchkit_figures.confusion_matrix import ConfusionMatrix
from benchkit_figures.learning_curves import LearningCurves
from benchkit_figures.metrics import quantity, t_interval
from benchkit_figures.results_forest import ResultsForest
from benchkit_figures.search_history import SearchHistory
from benchkit_figures.search_importances import SearchImportances
from benchkit_figures.search_parallel import SearchParallel
from benchkit_figures.search_slices import SearchSlices
from benchkit_figures.speed_cost import SpeedCost
from figure_results import (
    NORMS,
    SPACE,
    condition,
    cost,
    learned,
    metrics,
    record,
    results,
    rows_of,
    searched,
    trial,
    validate_spec,
)
from PIL import Image

from benchkit import NothingToDraw, PluginError, card_of
from benchkit.plan import Condition
from benchkit.report.drawing import chart_spec, spec_to_svg
from benchkit.results import Outcome, StudyResults, Trial
from benchkit.study import Goal, Search

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


def assert_plain(value: Any, path: str = "data") -> None:
    """Fail unless the value is frozen dataclasses and tuples of text, flags and finite numbers all the way down."""
    if dataclasses.is_dataclass(value):
        assert type(value).__dataclass_params__.frozen, path  # type: ignore[attr-defined]
        for part in dataclasses.fields(value):
            assert_plain(getattr(value, part.name), f"{path}.{part.name}")
    elif isinstance(value, tuple):
        for place, part in enumerate(value):
            assert_plain(part, f"{path}[{place}]")
    elif value is not None:
        assert type(value) in (str, bool, int, float), f"{path} is {type(value)}"
        assert not isinstance(value, float) or math.isfinite(value), path


def drawn(figure: Any, given: StudyResults) -> dict[str, Any]:
    data = figure.data(given)
    assert_plain(data)
    spec = chart_spec(figure.draw(data), description=figure.alt_text(data))
    validate_spec(spec)
    svg = spec_to_svg(spec)
    assert "<linearGradient" not in svg
    assert "NaN" not in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    width = float(svg.partition('width="')[2].partition('"')[0])
    assert width <= 670, "wider than a page"
    for words in (figure.caption(data), figure.alt_text(data)):
        assert words.endswith(".")
        assert "nan" not in words.split()
    return spec


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


@pytest.mark.parametrize("figure", SEARCH, ids=lambda figure: figure.__name__)
@pytest.mark.parametrize("labels", [["bn"], NORMS[:3]], ids=["one", "three"])
def test_search_figures_draw_one_and_several_conditions(figure: type[Any], labels: list[str]) -> None:
    drawn(figure(), searched(labels, 30))


@pytest.mark.parametrize("figure", [SearchHistory, SearchParallel, SearchSlices], ids=lambda figure: figure.__name__)
def test_search_figures_draw_a_single_trial(figure: type[Any]) -> None:
    drawn(figure(), searched(["bn"], 1))


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
    assert "1 repeat of these conditions did not finish" in caption
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
    assert 1.5 - point.low[1] == pytest.approx(2.054260, rel=1e-5)


def test_learning_curves_leave_out_non_finite_epochs() -> None:
    one = condition("bn")
    history = [record(1, (1.0, 0.5, 1.0, 0.5)), record(2, (math.inf, 0.5, math.nan, 0.5))]
    data = LearningCurves().data(results([one], [trial(one, history=history)]))
    assert [point.epoch for point in data.curves[0].points] == [1]


def test_long_learning_curves_are_thinned_and_packed() -> None:
    figure = LearningCurves()
    spec = drawn(figure, learned(NORMS, 3, 250, early=True))
    assert len(json.dumps(spec)) < 200_000


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


# --- speed and cost --------------------------------------------------------------------------------------------------


def test_pareto_front_by_hand() -> None:
    points = {"quick": (10.0, 0.70), "slow and best": (40.0, 0.90), "beaten": (20.0, 0.69), "middle": (20.0, 0.80)}
    conditions = [condition(label) for label in points]
    trials = [scored(c, 0, points[c.label][1], seconds=points[c.label][0]) for c in conditions]
    figure = SpeedCost()
    data = figure.data(results(conditions, trials))
    assert [row.condition for row in data.rows if row.on_front] == ["quick", "middle", "slow and best"]
    assert data.rows[0].seconds == 10.0
    assert figure.alt_text(data) == ("quick trains quickest (10 s, 70.00 %); slow and best is best (90.00 % in 40 s).")


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


# --- searches --------------------------------------------------------------------------------------------------------


def small_search(direction: Any = "minimize", metric: str = "val.loss") -> StudyResults:
    """Return done 0.5, pruned at 0.9, done 0.3, failed, done 0.4, with learning rates 0.001, 0.01, 0.1, 0.1, 0.3."""
    one = condition("bn", "search")
    rates, losses = (0.001, 0.01, 0.1, 0.1, 0.3), (0.5, 0.9, 0.3, 0.0, 0.4)
    states: tuple[Any, ...] = ("done", "pruned", "done", "failed", "done")
    trials = []
    for place, (rate, loss, state) in enumerate(zip(rates, losses, states, strict=True)):
        scores = {"val": metrics(1 - loss, loss)} if state == "done" else {}
        history = [record(1, (1.0, 0.5, 2.0, 0.1)), record(2, (1.0, 0.5, loss, 1 - loss))] if state != "failed" else []
        params = {
            "train.optimizer.lr": rate,
            "train.batch_size": 32 * (place + 1),
            "regularizers.weight-decay.value": 1e-4,
            "train.schedule.name": "cosine",
        }
        outcome = Outcome(state=state, metrics=scores)
        trials.append(
            trial(
                one, place, state=state, history=history, outcome=outcome, phase="search", number=place, params=params
            )
        )
    search = Search(trials=5, goals=(Goal(metric=metric, direction=direction),), space=SPACE)
    return results([one], trials, search=search)


def test_search_points_by_hand() -> None:
    data = SearchHistory().data(small_search())
    (one,) = data.conditions
    assert [point.state for point in one.points] == ["done", "pruned", "done", "failed", "done"]
    assert [point.objective for point in one.points] == [0.5, 0.9, 0.3, None, 0.4]
    assert one.points[0].values == (0.001, 32.0, 1e-4, "cosine")
    best = one.best(data.lower)
    assert best is not None
    assert best.place == 3
    assert data.names == ("optimizer.lr", "batch_size", "weight-decay.value", "schedule.name")
    assert (data.low[0], data.high[0], data.log[0]) == (0.001, 0.3, True)
    assert data.choices[3] == ("step", "cosine", "one-cycle")


def test_search_history_steps_down_to_the_best_and_tells_it() -> None:
    figure = SearchHistory()
    given = small_search()
    rows = rows_of(drawn(figure, given))
    assert [row["best"] for row in rows] == [0.5, 0.5, 0.3, 0.3, 0.3]
    assert [row["value"] for row in rows] == [0.5, 0.9, 0.3, None, 0.4]
    data = figure.data(given)
    assert figure.alt_text(data) == "The search's best validation loss is 0.3000 nats, found by trial 3 of 5."
    assert "(3 done, 1 pruned, 1 failed)" in figure.caption(data)


def test_search_history_steps_up_when_the_goal_is_to_maximise() -> None:
    rows = rows_of(drawn(SearchHistory(), small_search("maximize", "val.accuracy")))
    assert [row["best"] for row in rows] == [50.0, 50.0, 70.0, 70.0, 70.0]
    # The failed trial stands at the worse edge: below everything.
    assert rows[3]["shown"] < min(row["value"] for row in rows if row["value"] is not None)


def test_a_cost_goal_is_read_from_the_costs() -> None:
    given = small_search(metric="cost.seconds")
    with pytest.raises(NothingToDraw, match=r"cost\.seconds"):
        SearchHistory().data(given)
    priced = [dataclasses.replace(t, outcome=Outcome(state=t.state, cost=cost(7.0 + t.number))) for t in given.trials]
    data = SearchHistory().data(dataclasses.replace(given, trials=tuple(priced)))
    assert [point.objective for point in data.conditions[0].points] == [7.0, None, 9.0, None, 11.0]


def test_parallel_positions_by_hand() -> None:
    data = SearchParallel().data(small_search())
    lines = {line.place: line for line in data.lines}
    assert sorted(lines) == [1, 2, 3, 5]
    # Log scale: log(0.01/0.001) / log(0.3/0.001) = 1 / 2.477121 = 0.403694; batch size (64 - 32) / 224 = 1/7.
    assert lines[2].positions[0] == pytest.approx(0.403694, abs=1e-6)
    assert lines[2].positions[1] == pytest.approx(1 / 7)
    assert lines[2].positions[3] == 0.5
    # Ranks 0, 1, 2, 3 of 4: shares 0, 0.25, 0.5, 0.75.
    assert [lines[place].level for place in (3, 5, 1, 2)] == [0, 2, 3, 3]
    assert [line.place for line in data.lines] == [2, 1, 5, 3], "the best is drawn last"
    assert [text for _, text in data.axes[0].ticks] == ["0.001", "0.01", "0.1"]
    assert [text for _, text in data.axes[3].ticks] == ["step", "cosine", "one-cycle"]


def test_slices_mark_the_best_trial_and_name_the_quarters() -> None:
    rows = rows_of(drawn(SearchSlices(), small_search()))
    assert [row["trial"] for row in rows if row["best"]] == [3]
    assert [row["order"] for row in rows] == ["trials 1 to 1", "trials 2 to 2", "trials 3 to 4", "trials 5 to 5"]


def test_the_setting_that_decides_is_the_most_important() -> None:
    given = searched(["bn"], 30)
    figure = SearchImportances()
    data = figure.data(given)
    (one,) = data.conditions
    assert one.importances[0].name == "optimizer.lr"
    assert sum(importance.share for importance in one.importances) == pytest.approx(1.0)
    assert all(0 <= i.low <= i.share <= i.high <= 1 for i in one.importances)
    assert data == figure.data(given), "the same trials give the same importances"
    assert f"over {one.trials} completed trials" in figure.caption(data)


def test_importances_need_enough_trials_and_two_settings() -> None:
    with pytest.raises(NothingToDraw, match="8 completed trials"):
        SearchImportances().data(small_search())
    given = searched(["bn"], 20)
    assert given.study.search is not None
    alone = dataclasses.replace(given.study.search, space=SPACE[:1])
    with pytest.raises(NothingToDraw, match="one setting"):
        SearchImportances().data(dataclasses.replace(given, study=dataclasses.replace(given.study, search=alone)))
