"""The figures of a search: objectives, positions and steps by hand, pictures by schema."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from benchkit_figures.search_history import SearchHistory
from benchkit_figures.search_importances import SearchImportances
from benchkit_figures.search_parallel import SearchParallel
from benchkit_figures.search_slices import SearchSlices
from figure_checks import drawn, rows_of
from figure_results import NORMS, SPACE, condition, cost, metrics, record, results, searched, trial

from benchkit import NothingToDraw
from benchkit.results import Outcome, StudyResults
from benchkit.study import Goal, Search

SEARCH = (SearchHistory, SearchImportances, SearchParallel, SearchSlices)


@pytest.mark.parametrize("figure", SEARCH, ids=lambda figure: figure.__name__)
@pytest.mark.parametrize("labels", [["bn"], NORMS[:3]], ids=["one", "three"])
def test_search_figures_draw_one_and_several_conditions(figure: type[Any], labels: list[str]) -> None:
    drawn(figure(), searched(labels, 30))


@pytest.mark.parametrize("figure", [SearchHistory, SearchParallel, SearchSlices], ids=lambda figure: figure.__name__)
def test_search_figures_draw_a_single_trial(figure: type[Any]) -> None:
    drawn(figure(), searched(["bn"], 1))


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
