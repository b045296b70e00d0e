"""The figures of a study's plan: its ladder, its learning rate, its grid: numbers by hand, pictures by schema."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchkit_figures.encodings import colour_steps
from benchkit_figures.outcomes.grid_heatmap import GridHeatmap
from benchkit_figures.outcomes.ladder import Ladder, ladder_of
from benchkit_figures.outcomes.looks import Looks
from benchkit_figures.training.learning_rate import LearningRate
from figure_checks import drawn
from figure_results import condition, learned, metrics, record, results, trial
from scipy import stats

from benchkit import NothingToDraw, PluginError
from benchkit.analysis import estimate_of
from benchkit.analysis.candidates import look_findings, looks_of, until_decided_command
from benchkit.plan import plan_of_looks, plan_text
from benchkit.results import Decision, Outcome, StudyResults
from benchkit.study import Factor, Level


def levels(*settings: Mapping[str, Any]) -> tuple[Level, ...]:
    return tuple(Level(label=f"step {place}", settings=one) for place, one in enumerate(settings))


LADDER = levels({}, {"a": 1}, {"a": 1, "b": 2}, {"b": 2}, {"a": 3, "b": 2}, {"a": 3, "b": 2, "c": 1})


def climbed(values: Mapping[str, Sequence[float]], steps: tuple[Level, ...] = LADDER) -> StudyResults:
    """Return the results of a study of one factor whose levels have these accuracies by repeat."""
    conditions = [replace(condition(level.label), levels={"step": level.label}) for level in steps]
    trials = [
        trial(one, index, outcome=Outcome(state="done", metrics={"test": metrics(accuracy)}))
        for one in conditions
        for index, accuracy in enumerate(values.get(one.label, ()))
    ]
    given = results(conditions, trials)
    return replace(given, study=replace(given.study, factors=(Factor(path="step", levels=steps),)))


# --- the ladder ------------------------------------------------------------------------------------------------------


def test_a_ladder_is_of_levels_that_build_on_each_other() -> None:
    assert ladder_of(LADDER) == ("step 0", "step 1", "step 2", "step 4", "step 5")
    assert ladder_of(levels({"norm": "bn"}, {"norm": "gn"}, {"norm": "ln"})) == ()
    assert ladder_of(levels({"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}, {"a": 3, "b": 3, "c": 3})) == ()
    assert ladder_of(()) == ()


def test_steps_are_held_against_the_step_below_paired_by_repeat() -> None:
    given = climbed({"step 0": (0.5, 0.6), "step 1": (0.6, 0.72), "step 2": (0.6, 0.7, 0.8), "step 5": (0.5,)})
    figure = Ladder()
    data = figure.data(given)
    assert [rung.condition for rung in data.rungs] == ["step 0", "step 1", "step 2", "step 5"]
    assert (data.beside, data.without) == (("step 3",), ("step 4",))
    first, second, third, fourth = data.rungs
    assert first.change is None and fourth.change_low is None
    # Differences 0.1 and 0.12: mean 0.11, s / sqrt(2) = 0.01, t(0.975, 1) = 12.7062.
    assert second.change == pytest.approx(0.11)
    assert (second.change_low, second.change_high) == pytest.approx((0.11 - 0.127062, 0.11 + 0.127062), abs=1e-5)
    assert third.change == pytest.approx(-0.01), "of the repeats that both have: 0 and -0.02"
    assert fourth.change == pytest.approx(-0.1)
    assert "No steps of the ladder: step 3." in figure.caption(data)
    assert "Without a finished repeat: step 4." in figure.caption(data)
    assert "the step step 1 brought most (+11.00)." in figure.alt_text(data)
    assert "+11.00 [-1.71, +23.71]" in str(drawn(figure, given))


def test_of_a_loss_the_step_down_is_the_better_one() -> None:
    given = climbed({"step 0": (0.5,) * 3, "step 1": (0.6,) * 3, "step 2": (0.6,) * 3})
    losses = {"step 0": 0.9, "step 1": 0.8, "step 2": 1.2}
    trials = tuple(
        replace(
            t, outcome=Outcome(state="done", metrics={"test": metrics(0.5, losses[t.condition.label] + 0.01 * t.index)})
        )
        for t in given.trials
    )
    data = Ladder(metric="test.loss").data(replace(given, trials=trials))
    assert "the step step 1 brought most (-0.1000)." in Ladder().alt_text(data)


def test_without_a_ladder_there_is_nothing_to_draw() -> None:
    with pytest.raises(NothingToDraw, match="ladder"):
        Ladder().data(learned(["bn", "gn"], 2, 3))
    with pytest.raises(NothingToDraw, match="fewer than 3"):
        Ladder().data(climbed({"step 0": (0.5,), "step 1": (0.5,)}))


# --- the learning rate -----------------------------------------------------------------------------------------------


def rated(**rates: Sequence[float]) -> StudyResults:
    """Return results of conditions with these learning rates by epoch."""
    trials = [
        trial(
            condition(label),
            history=[
                replace(record(epoch, (1.0, 0.5, 1.0, 0.5)), learning_rate=rate) for epoch, rate in enumerate(own, 1)
            ],
        )
        for label, own in rates.items()
    ]
    return results([condition(label) for label in rates], trials)


def test_conditions_with_one_course_share_a_line() -> None:
    given = rated(bn=(0.1, 0.1), gn=(0.1, 0.1, 0.01, 0.001), ln=(0.2, 0.1), none=(0.1, 0.1, 0.01))
    data = LearningRate().data(given)
    assert [(curve.conditions, curve.rates) for curve in data.curves] == [
        (("bn", "gn", "none"), (0.1, 0.1, 0.01, 0.001)),
        (("ln",), (0.2, 0.1)),
    ]
    assert LearningRate().alt_text(data) == (
        "The learning rate of bn, gn, none is 0.1 after epoch 1, at most 0.1 after epoch 1, and 0.001 after epoch 4."
    )
    drawn(LearningRate(), given)


def test_rates_in_steps_are_on_a_log_scale_and_others_are_not() -> None:
    steps = LearningRate().data(rated(bn=(0.1, 0.1, 0.1, 0.01, 0.01, 0.001)))
    cosine = LearningRate().data(rated(bn=(0.1, 0.08, 0.05, 0.01, 0.0001)))
    assert (steps.log, cosine.log) == (True, False)
    assert '"log"' in str(drawn(LearningRate(), rated(bn=(0.1, 0.1, 0.1, 0.01, 0.01, 0.001)))).replace("'", '"')


def test_a_constant_rate_takes_no_room() -> None:
    with pytest.raises(NothingToDraw, match=r"0\.1 throughout"):
        LearningRate().data(rated(bn=(0.1, 0.1), gn=(0.1, 0.1, 0.1)))
    assert len(LearningRate().data(rated(bn=(0.1, 0.1), gn=(0.2, 0.2))).curves) == 2


# --- grid of factors -------------------------------------------------------------------------------------------------


def grid(factors: Mapping[str, Sequence[str]], repeats: int = 2) -> StudyResults:
    levels = [dict(zip(factors, combination, strict=True)) for combination in itertools.product(*factors.values())]
    given = learned([", ".join(one.values()) for one in levels], repeats, 3, classes=2)
    conditions = {old.label: replace(old, levels=one) for old, one in zip(given.conditions, levels, strict=True)}
    trials = tuple(replace(t, condition=conditions[t.condition.label]) for t in given.trials)
    return replace(given, conditions=tuple(conditions.values()), trials=trials)


FACTORS = {
    "train.lr": ("0.001", "2e-5"),
    "model.norm": ("bn", "gn", "none"),
    "model.skip": ("true", "false"),
    "train.batch_size": ("8", "128"),
}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_grids_of_one_to_four_factors(count: int) -> None:
    given = grid(dict(itertools.islice(FACTORS.items(), count)))
    data = GridHeatmap().data(given)
    assert (data.x, data.y) == (("train.lr", "") if count == 1 else ("model.norm", "train.lr"))
    assert len(data.panels) == [1, 1, 2, 4][count - 1]
    assert len(data.cells) == len(given.conditions)
    spec = drawn(GridHeatmap(), given)
    assert "gradient" not in str(spec)


def test_grid_cells_hold_mean_interval_and_n() -> None:
    given = grid({"model.norm": ("bn", "gn"), "train.batch_size": ("8", "128")}, repeats=1)
    by_label = {c.label: c for c in given.conditions}
    trials = [
        replace(
            trial(condition("x"), index, outcome=Outcome(state="done", metrics={"test": metrics(accuracy)})),
            condition=by_label["gn, 8"],
        )
        for index, accuracy in enumerate((0.79, 0.81))
    ]
    data = GridHeatmap(x="train.batch_size").data(replace(given, trials=tuple(trials)))
    assert (data.x, data.y, data.x_levels, data.y_levels) == (
        "train.batch_size",
        "model.norm",
        ("8", "128"),
        ("bn", "gn"),
    )
    cells = {(cell.x, cell.y): cell for cell in data.cells}
    assert (cells[("8", "gn")].n, cells[("8", "gn")].mean) == (2, pytest.approx(0.8))
    assert cells[("8", "gn")].high == pytest.approx(0.8 + 12.7062 * 0.01, rel=1e-5)
    assert cells[("128", "bn")].mean is None
    assert "Empty, without a finished repeat: bn, 8; bn, 128; gn, 128." in GridHeatmap().caption(data)
    with pytest.raises(PluginError, match=r"expected one of model\.norm, train\.batch_size"):
        GridHeatmap(y="model.depth").data(given)


def test_colour_steps_are_round_and_the_better_end_is_dark() -> None:
    steps = colour_steps([71.3, 78.2, 90.4])
    # Width 5 would give 70 to 95 in five steps, 2.5 nine: eight at most.
    assert steps.ends == (75.0, 80.0, 85.0, 90.0)
    assert steps.names == ("under 75", "75 to 80", "80 to 85", "85 to 90", "90 and over")
    assert [steps.name(value) for value in (71.3, 75.0, 90.4)] == ["under 75", "75 to 80", "90 and over"]
    assert (steps.dark(90.4), steps.dark(71.3)) == (True, False)
    losses = colour_steps([71.3, 90.4], lower_is_better=True)
    assert (losses.dark(71.3), losses.dark(90.4)) == (True, False)
    assert colour_steps([3.0, 3.0]).names == ("3",)
    for low, high in ((0.0, 1e-6), (-5.0, 5.0), (1.4774, 1.6807), (0.0, 100.0), (0.123, 0.124)):
        found = colour_steps([low, high])
        assert 2 <= len(found.names) <= 8
        assert len(set(found.names)) == len(found.names) == len(found.colours)
        assert found.name(low) == found.names[0] and found.name(high) == found.names[-1]


def test_marginal_means_are_those_of_complete_rows_and_columns() -> None:
    given = grid({"model.norm": ("bn", "gn", "ln"), "train.batch_size": ("8", "128")}, repeats=2)
    kept = tuple(t for t in given.trials if t.condition.label != "ln, 128")
    data = GridHeatmap().data(replace(given, trials=kept))
    means = {(cell.x, cell.y): cell.mean for cell in data.cells}
    found = {(margin.x, margin.y): margin.mean for margin in data.margins}
    assert set(found) == {("", "8"), ("bn", ""), ("gn", "")}, "of ln and of 128 a cell is missing"
    assert found["", "8"] == pytest.approx(sum(means[x, "8"] or 0.0 for x in ("bn", "gn", "ln")) / 3)
    assert found["gn", ""] == pytest.approx(sum(means["gn", y] or 0.0 for y in ("8", "128")) / 2)
    assert "means over the cells" in GridHeatmap().caption(data)
    assert "mean of gn" in str(drawn(GridHeatmap(), given))
    assert GridHeatmap().data(grid({"model.norm": ("bn", "gn")})).margins == ()


# --- looks -----------------------------------------------------------------------------------------------------------

LOOKED = {
    "bn": (0.90, 0.92, 0.91, 0.93, 0.92, 0.92),
    "gn": (0.90, 0.91, 0.90, 0.91, 0.90),
    "none": (0.50, 0.52, 0.51),
}


def looked(most: int = 8, **values: Sequence[float]) -> StudyResults:
    """Return results of a study with looks from 3 repeats on, after a report of 3, with these accuracies."""
    conditions = [condition(label) for label in values]
    trials = [
        trial(one, index, outcome=Outcome(state="done", metrics={"test": metrics(accuracy)}))
        for one in conditions
        for index, accuracy in enumerate(values[one.label])
    ]
    plan = plan_text(plan_of_looks(3, most, already_reported=True))
    decided = Decision(name="interim analyses", value=plan, why="", version="")
    return replace(results(conditions, trials), decisions=(decided,))


def test_each_look_has_its_own_repeats_and_an_interval_of_its_own_confidence() -> None:
    given = looked(**LOOKED)  # looks at 3, 4, 5, 6 and 8 repeats: three were taken, the fourth waits for gn
    data = Looks().data(given)
    assert (data.taken, data.planned, data.decided) == (3, 5, False)
    at = {(point.look, point.condition): point for point in data.points}
    assert set(at) == {(look, label) for look in (1, 2, 3) for label in ("bn", "gn")}
    assert all(point.stays for point in data.points) and data.apart == ("none",)
    for (look, label), n, alpha in (((1, "bn"), 3, 0.025), ((3, "gn"), 5, 0.00625)):
        values = np.array(LOOKED[label][:n])
        half = stats.t.ppf(1 - alpha / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
        point = at[look, label]
        assert (point.mean, point.low, point.high) == pytest.approx(
            (values.mean(), max(0, values.mean() - half), min(1, values.mean() + half))
        )
    assert Looks().alt_text(data) == "After look 3 of 5, at 5 repeats, may be the best: bn (91.60 %), gn (90.40 %)."
    assert "3 of 5 planned looks were taken, none decided" in Looks().caption(data)
    drawn(Looks(), given)
    assert "Left, and far off the axis: none." in Looks().caption(data)
    near = Looks().data(looked(**{**LOOKED, "none": (0.88, 0.8801, 0.8799)}))
    assert near.apart == () and [point.stays for point in near.points if point.condition == "none"] == [False]
    decided = Looks().data(looked(bn=LOOKED["bn"], none=LOOKED["none"]))
    assert decided.decided and [(point.condition, point.stays) for point in decided.points] == [
        ("bn", True), ("none", False)
    ]  # fmt: skip


def test_a_report_says_which_looks_were_taken_and_who_left() -> None:
    (finding,) = look_findings(looks_of(looked(**LOOKED)))
    assert finding.sentence.startswith("3 looks of 5 planned were taken, at 3, 4 and 5 repeats; after each one")
    assert finding.evidence.startswith("At look 1 “none” left as clearly worse. ")
    assert "0.025, 0.00625, 0.00625, 0.00625 and 0.00625, 0.05 in all" in finding.evidence
    fixed = replace(looked(**LOOKED), decisions=())
    assert list(look_findings(looks_of(fixed))) == []
    with pytest.raises(NothingToDraw, match="no look was taken"):
        Looks().data(fixed)


def test_intervals_of_a_study_with_looks_are_those_of_its_strictest_look() -> None:
    given = looked(**LOOKED)
    for results_, alpha in ((given, 0.00625), (replace(given, decisions=()), 0.05)):
        found = estimate_of(results_, results_.conditions[0], "test.accuracy")
        values = np.array(LOOKED["bn"])
        half = stats.t.ppf(1 - alpha / 2, 5) * values.std(ddof=1) / np.sqrt(6)
        assert found is not None and found.high == pytest.approx(values.mean() + half)


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("benchkit sweep a.toml --set 'train.epochs=5' -j2", "benchkit sweep a.toml --set train.epochs=5 -j2"),
        (
            "benchkit sweep a --only model.norm=bn,gn --retry failed --only=x=1 --stop-by 8h --hours=2",
            "benchkit sweep a",
        ),
        ("benchkit sweep a --until-decided --most 9 --json", "benchkit sweep a --most 9"),
        ("", "benchkit sweep synthetic"),
    ],
)
def test_the_command_that_decides_is_the_sweeps_own(given: str, command: str) -> None:
    assert until_decided_command(replace(looked(**LOOKED), command=given)) == f"{command} --until-decided"
