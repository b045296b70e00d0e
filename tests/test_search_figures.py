"""The figures of a search: objectives, positions and steps by hand, pictures by schema."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from benchkit_figures.search.axes import domain
from benchkit_figures.search.budget import SearchBudget
from benchkit_figures.search.contours import ContourTrial, SearchContours, cell_of
from benchkit_figures.search.history import SearchHistory
from benchkit_figures.search.importances import SearchImportances
from benchkit_figures.search.parallel import SearchParallel
from benchkit_figures.search.pruning import SearchPruning
from benchkit_figures.search.slices import SearchSlices
from figure_checks import drawn, rows_of
from figure_results import NORMS, SPACE, condition, cost, metrics, record, results, searched, trial

from benchkit import NothingToDraw
from benchkit.report.figures.drawing import chart_spec
from benchkit.results import Outcome, StudyResults
from benchkit.study import Goal, Search, SearchRange

SEARCH = (
    SearchHistory, SearchBudget, SearchPruning, SearchImportances, SearchContours, SearchParallel, SearchSlices,
)  # fmt: skip


@pytest.mark.parametrize("figure", SEARCH, ids=lambda figure: figure.__name__)
@pytest.mark.parametrize("labels", [["bn"], NORMS[:3]], ids=["one", "three"])
def test_search_figures_draw_one_and_several_conditions(figure: type[Any], labels: list[str]) -> None:
    drawn(figure(), searched(labels, 30))


@pytest.mark.parametrize(
    "figure",
    [SearchHistory, SearchBudget, SearchContours, SearchParallel, SearchSlices],
    ids=lambda figure: figure.__name__,
)
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


def test_the_axis_is_that_of_the_done_trials_and_the_pruned_ones_beyond_stand_at_its_edge() -> None:
    data = SearchHistory().data(small_search())
    # Done: 0.3, 0.4, 0.5; 6 % of 0.2 below, four times that above, where the pruned trial of 0.9 is far beyond.
    assert domain(data) == pytest.approx((0.3 - 0.012, 0.5 + 0.048))
    assert rows_of(drawn(SearchHistory(), small_search()))[1]["shown"] == pytest.approx(0.548)
    for figure in (SearchHistory(), SearchSlices(), SearchParallel()):
        assert "beyond the axis" in figure.caption(figure.data(small_search()))


def test_a_search_whose_first_trial_is_its_best_has_an_axis_around_it() -> None:
    one = condition("bn", "search")
    outcomes = [Outcome(state="done", metrics={"val": metrics(0.5, loss)}) for loss in (0.5, 0.7)]
    history = [record(1, (1.0, 0.5, 0.5, 0.5))]
    trials = [
        trial(one, index, outcome=outcome, history=history, phase="search", number=index)
        for index, outcome in enumerate(outcomes)
    ]
    search = Search(trials=2, goals=(Goal(metric="val.loss", direction="minimize"),), space=SPACE)
    spec = json.dumps(drawn(SearchBudget(), results([one], trials, search=search)))
    assert spec.count('"domain": [0.45, 0.55]') == 3 * 2, "the best, 0.5, and a tenth of it to either side"
    assert "strokeDash" not in spec.partition('"config"')[0]


def test_long_titles_of_contours_are_in_two_lines_and_within_their_panel() -> None:
    figure, given = SearchContours(settings=4), searched(n=30)
    data = figure.data(given)
    long = tuple(dataclasses.replace(axis, name=f"weight-decay.strength-{axis.name}") for axis in data.axes)
    spec = json.dumps(chart_spec(figure.draw(dataclasses.replace(data, axes=long))))
    assert '"title": ["weight-decay", "strength-' in spec and '"title": "weight-decay' not in spec
    assert "(log scale)" not in spec and '"titleLimit": 155' in spec
    assert "On a log scale: " in figure.caption(data)


def test_search_history_steps_up_when_the_goal_is_to_maximise() -> None:
    rows = rows_of(drawn(SearchHistory(), small_search("maximize", "val.accuracy")))
    assert [row["best"] for row in rows] == [50.0, 50.0, 70.0, 70.0, 70.0]
    # The failed trial stands at the worse edge, below everything done (50 to 70), and so does the pruned one of 10.
    assert rows[3]["shown"] == rows[1]["shown"] == pytest.approx(50 - 4 * 0.06 * 20)


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


def test_a_log_scale_weighs_as_it_is_searched() -> None:
    # 1 below a rate of 0.01, the lower half of 1e-4..1 on a log scale, variance 1/4; plus half of a uniform u, 1/48.
    # So the rate has 12/13 of the variance; weighed on a linear scale it would have 0.0099 / (0.0099 + 1/48) = 0.32.
    space = (
        SearchRange(path="train.optimizer.lr", low=1e-4, high=1.0, log=True),
        SearchRange(path="model.u", low=0.0, high=1.0),
    )
    frame, trials = condition("bn", "search"), []
    for index in range(100):
        rate, u = 10 ** (-4 + 4 * (index // 10 + 0.5) / 10), (index % 10 + 0.5) / 10
        outcome = Outcome(state="done", metrics={"val": metrics(0.5, float(rate < 0.01) + u / 2)})
        params = {"train.optimizer.lr": rate, "model.u": u}
        trials.append(trial(frame, index, outcome=outcome, phase="search", number=index, params=params))
    search = Search(trials=100, goals=(Goal(metric="val.loss", direction="minimize"),), space=space)
    (one,) = SearchImportances().data(results([frame], trials, search=search)).conditions
    assert {found.name: found.share for found in one.importances}["optimizer.lr"] == pytest.approx(12 / 13, abs=0.03)


def test_importances_need_enough_trials_and_two_settings() -> None:
    with pytest.raises(NothingToDraw, match="8 completed trials"):
        SearchImportances().data(small_search())
    given = searched(["bn"], 20)
    assert given.study.search is not None
    alone = dataclasses.replace(given.study.search, space=SPACE[:1])
    with pytest.raises(NothingToDraw, match="one setting"):
        SearchImportances().data(dataclasses.replace(given, study=dataclasses.replace(given.study, search=alone)))


# --- contours --------------------------------------------------------------------------------------------------------


def test_contours_colour_only_what_is_near_a_done_trial() -> None:
    given = small_search()
    data = SearchContours().data(given)
    assert not data.ranked, "three done trials rank nothing: the study's order"
    assert [axis.name for axis in data.axes] == ["optimizer.lr", "batch_size", "weight-decay.value"]
    panel = data.panels[0]
    # Done trials at log(lr / 0.001) / log(300) = 0, 0.807388, 1 and batch sizes (32, 96, 160 - 32) / 224.
    done = [(0.0, 0.0), (0.807388, 64 / 224), (1.0, 128 / 224)]
    shown = [(t.x, t.y) for t in panel.trials if t.state == "done"]
    assert [place for pair in shown for place in pair] == pytest.approx([p for pair in done for p in pair], abs=1e-6)
    for cell in panel.cells:
        centre = ((cell.low_x + cell.high_x) / 2, (cell.low_y + cell.high_y) / 2)
        assert min(math.dist(centre, one) for one in done) <= 0.1 + 1e-9
    # Around the corner trial: centres (0.025, 0.025), (0.075, 0.025), (0.025, 0.075) alone are within 0.1 of (0, 0).
    corner = [cell for cell in panel.cells if cell.high_x < 0.5]
    assert len(corner) == 3
    assert {cell.objective for cell in corner} == {0.5}
    assert [trial.place for trial in panel.trials if trial.best] == [3]


def test_a_contour_cell_weighs_the_nearer_trial_more() -> None:
    near, far = (
        ContourTrial(place=1, state="done", best=False, objective=o, x=x, y=0.5) for o, x in ((1, 0.5), (2, 0.6))
    )
    cell = cell_of((0.475, 0.525, 0.475, 0.525), [near, far], (0.1, 0.1))
    assert cell is not None
    # Distances 0 and 1 of the reach: weights exp(0) = 1 and exp(-2) = 0.135335.
    assert cell.objective == pytest.approx((1 + 2 * 0.135335) / 1.135335, abs=1e-6)
    assert cell.trials == 2
    assert cell_of((0.1, 0.2, 0.1, 0.2), [near, far], (0.1, 0.1)) is None


def test_contours_keep_choices_apart_and_put_the_most_important_first() -> None:
    data = SearchContours(settings=4).data(searched(["bn"], 60))
    assert data.ranked
    assert data.axes[0].name == "optimizer.lr"
    shares = [axis.share or 0.0 for axis in data.axes]
    assert shares == sorted(shares, reverse=True)
    names = [axis.name for axis in data.axes]
    place = names.index("schedule.name")
    assert [at for at, _ in data.axes[place].ticks] == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    for panel in data.panels:
        edges = {cell.low_x for cell in panel.cells} if panel.first == place else set()
        edges |= {cell.low_y for cell in panel.cells} if panel.second == place else set()
        assert edges <= {0.0, 1 / 3, 2 / 3}


def test_contours_need_two_settings_and_a_done_trial() -> None:
    given = searched(["bn"], 20)
    assert given.study.search is not None
    alone = dataclasses.replace(given.study.search, space=SPACE[:1])
    with pytest.raises(NothingToDraw, match="contours need two"):
        SearchContours().data(dataclasses.replace(given, study=dataclasses.replace(given.study, search=alone)))
    pruned = dataclasses.replace(given, trials=tuple(t for t in given.trials if t.state == "pruned"))
    with pytest.raises(NothingToDraw, match="no search trial is done"):
        SearchContours().data(pruned)


# --- budget and pruning ----------------------------------------------------------------------------------------------


def test_the_best_so_far_is_held_against_trials_epochs_and_seconds() -> None:
    figure = SearchBudget()
    data = figure.data(small_search())
    (line,) = data.lines
    # Two epochs of 2 s a trial; the failed one left no epoch, the pruned one counts as spent and is never the best.
    assert [step.trials for step in line.steps] == [1, 2, 3, 4, 5]
    assert [step.epochs for step in line.steps] == [2, 4, 6, 6, 8]
    assert [step.seconds for step in line.steps] == [4, 8, 12, 12, 16]
    assert [step.best for step in line.steps] == [0.5, 0.5, 0.3, 0.3, 0.3]
    assert figure.alt_text(data) == (
        "The search had its best validation loss, 0.3000 nats, after 3 of 5 trials and 6 of 8 epochs."
    )


def test_searches_are_compared_at_the_budget_that_all_had() -> None:
    one, other = condition("bn", "search"), condition("gn", "search")
    trials = [
        trial(
            of, place, phase="search", number=number, history=[record(e, (1.0, 0.5, loss, 0.5)) for e in range(1, 3)],
            outcome=Outcome(state="done", metrics={"val": metrics(0.5, loss)}),
            params={path.path: 0.01 for path in SPACE[:1]},
        )
        for number, (of, place, loss) in enumerate([(one, 0, 0.5), (one, 1, 0.4), (one, 2, 0.1), (other, 0, 0.45)])
    ]  # fmt: skip
    search = Search(trials=3, goals=(Goal(metric="val.loss", direction="minimize"),), space=SPACE[:1])
    figure = SearchBudget()
    data = figure.data(results([one, other], trials, search=search))
    assert data.shared == 2
    # Two epochs is one trial each: 0.5 against 0.45; the later 0.1 of bn had a budget that gn did not have.
    assert figure.alt_text(data) == "Within 2 epochs each, gn has the best validation loss, 0.4500 nats."


def test_the_alternative_text_says_which_sampler_was_ahead() -> None:
    def sought(label: str, sampler: str, losses: tuple[float, ...]) -> tuple[Any, list[Any]]:
        name = f"{label}, search by {sampler}"
        one = dataclasses.replace(condition(name, "search"), levels={"model.norm": label}, sampler=sampler)
        made = [
            trial(
                one, place, phase="search", number=place, params={SPACE[0].path: 0.01},
                history=[record(1, (1.0, 0.5, loss, 0.5))],
                outcome=Outcome(state="done", metrics={"val": metrics(0.5, loss)}),
            )
            for place, loss in enumerate(losses)
        ]  # fmt: skip
        return one, made

    figure, goal = SearchBudget(), Goal(metric="val.loss", direction="minimize")
    search = Search(trials=3, goals=(goal,), space=SPACE[:1], sampler="tpe", samplers=("tpe", "random"))
    found = [sought("bn", "tpe", (0.5, 0.4)), sought("bn", "random", (0.5, 0.45, 0.1))]
    data = figure.data(results([one for one, _ in found], [t for _, made in found for t in made], search=search))
    # Both spent two epochs at least: 0.4 against 0.45; the 0.1 came with a third.
    assert figure.alt_text(data) == (
        "Within 2 epochs each, tpe is ahead for bn, with a validation loss of 0.4000 nats."
    )
    assert "Samplers: tpe, random." in figure.caption(data)
    found += [sought("gn", "tpe", (0.6, 0.6)), sought("gn", "random", (0.6, 0.6))]
    given = results([one for one, _ in found], [t for _, made in found for t in made], search=search)
    assert figure.alt_text(figure.data(given)) == (
        "Within 2 epochs each, bn, search by tpe has the best validation loss, 0.4000 nats; tpe is ahead for bn; tpe "
        "and random are level for gn."
    )
    drawn(figure, given)


def test_a_pruned_trial_is_held_against_the_median_of_those_done_before() -> None:
    figure = SearchPruning()
    data = figure.data(small_search())
    (panel,) = data.panels
    # Trial 2 ends in epoch 2 with losses 2.0 and 0.9; before it only trial 1 was done, with 0.5 in epoch 2.
    assert [(t.place, t.epoch, t.best, t.median) for t in panel.pruned] == [(2, 2, 0.9, 0.5)]
    assert [(m.epoch, m.value, m.n) for m in panel.medians] == [(1, 2.0, 3), (2, 0.4, 3)]  # 0.3, 0.4, 0.5
    assert "1 of 5 finished" in figure.caption(data)
    drawn(figure, small_search())


def test_nothing_is_drawn_where_nothing_was_pruned() -> None:
    given = small_search()
    kept = dataclasses.replace(given, trials=tuple(t for t in given.trials if t.state != "pruned"))
    with pytest.raises(NothingToDraw, match="no trial of the search was pruned"):
        SearchPruning().data(kept)


def test_importances_take_fewer_trials_of_many_searches() -> None:
    data = SearchImportances().data(searched([f"c{place}" for place in range(40)], 45))
    assert {one.trials for one in data.conditions} <= set(range(8, 33))
