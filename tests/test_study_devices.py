"""Studies that several devices trained: which trial ran where, and that no speeds are compared across them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchkit_figures.outcomes.grid_heatmap import GridHeatmap
from benchkit_figures.outcomes.ladder import Ladder
from benchkit_figures.outcomes.results_forest import ResultsForest
from benchkit_figures.outcomes.speed_cost import SpeedCost
from benchkit_figures.search.budget import SearchBudget
from capsule_edits import edited
from figure_results import cost
from synthetic_results import complete, with_search

from benchkit.analysis.changes import compare_records
from benchkit.analysis.summary import record_of, summarize
from benchkit.analysis.training import condition_costs
from benchkit.capsule import CapsuleError, Shown, make_capsule, read_capsule
from benchkit.capsule.reading import results_of
from benchkit.protocols import NothingToDraw
from benchkit.report.tables.result_tables import cost_table, efficiency_table, trials_table
from benchkit.report.tables.table import Table
from benchkit.results import DeviceRange, StudyResults, Trial

QUICK, SLOW = "NVIDIA H200", "NVIDIA L4"


def placed(trial: Trial, *places: tuple[int, str, str]) -> Trial:
    """Return a trial whose epochs, from each number on, were trained by a device of a node."""
    history = []
    for record in trial.history:
        device, node = next((d, n) for first, d, n in reversed(places) if record.epoch >= first)
        history.append(replace(record, device=device, node=node))
    return replace(trial, history=tuple(history))


def on_two(results: StudyResults, devices: tuple[str, str] = (QUICK, SLOW)) -> StudyResults:
    """Return results of which a device of node a trained the first repeats, and another one of node b the others."""
    places = [(1, devices[0], "a"), (1, devices[1], "b")]
    return replace(results, trials=tuple(placed(t, places[min(t.index, 1)]) for t in results.trials))


def column(table: Table | None, key: str) -> list[str] | None:
    """Return the texts of a column, None where the table has none of this name."""
    assert table is not None
    keys = [one.key for one in table.columns]
    return [row[keys.index(key)].text for row in table.rows] if key in keys else None


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return complete(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def mixed(grid: StudyResults) -> StudyResults:
    return on_two(grid)


def test_a_trial_tells_which_device_trained_which_epochs(grid: StudyResults) -> None:
    moved = placed(grid.trials[0], (1, SLOW, "a"), (4, QUICK, "b"), (9, SLOW, "a"))
    assert moved.devices == (
        DeviceRange(first=1, last=3, device=SLOW, node="a"),
        DeviceRange(first=4, last=8, device=QUICK, node="b"),
        DeviceRange(first=9, last=30, device=SLOW, node="a"),
    )


def test_an_earlier_versions_trial_has_the_device_of_its_cost(grid: StudyResults) -> None:
    (trial,) = grid.trials[:1]
    assert trial.outcome is not None
    outcome = replace(trial.outcome, cost=replace(cost(), device="cpu, 2 threads"), environment={"processor": "EPYC"})
    earlier = replace(trial, outcome=outcome)
    assert earlier.devices == (DeviceRange(first=1, last=30, device="EPYC, 2 threads"),)
    assert [one.device for one in replace(earlier, history=()).devices] == ["EPYC, 2 threads"]
    assert replace(earlier, outcome=None).devices == ()
    gone_on_with = placed(earlier, (1, "", ""), (21, "EPYC, 2 threads", "a"))
    assert {one.device for one in gone_on_with.devices} == {"EPYC, 2 threads"}


def test_a_study_of_several_devices_says_so_and_compares_no_speeds(grid: StudyResults, mixed: StudyResults) -> None:
    assert "devices" not in {one.rule for one in summarize(grid).findings}
    findings = {one.rule: one for one in summarize(mixed).findings}
    assert findings["devices"].sentence == (
        "Trials were trained on 2 kinds of device, so no speeds are compared: NVIDIA H200 and NVIDIA L4."
    )
    assert findings["devices"].evidence == "4 trials on NVIDIA H200; 8 trials on NVIDIA L4."
    assert "speed" not in findings
    assert not any("fastest" in one.sentence or "times as fast" in one.sentence for one in findings.values())


@pytest.mark.parametrize(
    "figure",
    [
        SpeedCost(),
        GridHeatmap(metric="cost.seconds"),
        Ladder(metric="cost.images_per_second"),
        ResultsForest(metric="cost.energy"),
        ResultsForest(also="cost.best_seconds"),
    ],
)
def test_figures_of_speeds_are_left_out(mixed: StudyResults, figure: SpeedCost | GridHeatmap | Ladder) -> None:
    with pytest.raises(NothingToDraw, match="2 kinds of device, whose speeds do not compare"):
        figure.data(mixed)


def test_figures_of_other_costs_stay(grid: StudyResults, mixed: StudyResults) -> None:
    assert ResultsForest(metric="cost.parameters").data(mixed).rows
    assert GridHeatmap(metric="cost.seconds").data(grid).cells


def test_two_cards_of_one_model_compare(grid: StudyResults) -> None:
    alike = on_two(grid, (QUICK, QUICK))
    assert "devices" not in {one.rule for one in summarize(alike).findings}
    assert SpeedCost().data(alike).devices == (QUICK,)
    assert len(condition_costs(alike)) == len(condition_costs(grid)) == 4


def test_costs_have_a_row_for_each_device(grid: StudyResults, mixed: StudyResults) -> None:
    rows = condition_costs(mixed)
    assert [(row.label, row.devices, row.seconds.n) for row in rows[:2]] == [("bn", (QUICK,), 1), ("bn", (SLOW,), 2)]
    moved = replace(mixed, trials=(placed(grid.trials[0], (1, SLOW, "b"), (4, QUICK, "a")), *mixed.trials[1:]))
    assert condition_costs(moved)[0].devices == (SLOW, QUICK)
    assert column(cost_table(condition_costs(moved)), "device")[:2] == [f"{SLOW}, then {QUICK}", SLOW]  # type: ignore[index]
    known = [replace(row, energy=row.seconds) for row in rows]
    assert column(efficiency_table(known), "device") == column(cost_table(rows), "device")
    assert column(cost_table(condition_costs(grid)), "device") is None


def test_the_table_of_trials_tells_where_each_ran(grid: StudyResults, mixed: StudyResults) -> None:
    metric = "test.accuracy"
    assert column(trials_table(grid.trials, metric), "where") is None
    moved = (placed(grid.trials[0], (1, SLOW, "b"), (30, QUICK, "a")), *mixed.trials[1:])
    where = column(trials_table(moved, metric), "where")
    assert where is not None
    assert where[0] == f"epochs 1 to 29: {SLOW} on b; epoch 30: {QUICK} on a"
    assert where[1:5] == [*[f"{QUICK} on a"] * 3, f"{SLOW} on b"]
    one_node = [placed(trial, (1, QUICK if trial.index else SLOW, "anna-laptop")) for trial in grid.trials]
    assert set(column(trials_table(one_node, metric), "where") or ()) == {QUICK, SLOW}
    two_nodes = on_two(grid, (QUICK, QUICK)).trials
    assert set(column(trials_table(two_nodes, metric), "where") or ()) == {f"{QUICK} on a", f"{QUICK} on b"}


def test_a_capsule_tells_devices_and_names_nodes_where_they_are_several(mixed: StudyResults, tmp_path: Path) -> None:
    again = results_of(read_capsule(make_capsule([mixed], Shown())), 0, tmp_path / "mixed")
    assert [trial.devices for trial in again.trials] == [trial.devices for trial in mixed.trials]
    alone = replace(mixed, trials=tuple(placed(t, (1, QUICK, "anna-laptop")) for t in mixed.trials))
    capsule = make_capsule([alone], Shown())
    assert not any(b"anna" in content for content in read_capsule(capsule).members.values())
    again = results_of(read_capsule(capsule), 0, tmp_path / "alone")
    assert {trial.devices for trial in again.trials} == {(DeviceRange(first=1, last=30, device=QUICK),)}


@pytest.mark.parametrize("ranges", [[(0, 10**12)], [(1, 20), (10, 30)], [(20, 10)]])
def test_ranges_that_a_trial_cannot_have_are_refused(mixed: StudyResults, ranges: list[tuple[int, int]]) -> None:
    def lie(trials: list[dict[str, object]]) -> None:
        trials[0]["devices"] = [{"first": first, "last": last, "device": QUICK} for first, last in ranges]

    name = next(name for name in read_capsule(make_capsule([mixed], Shown())).members if name.endswith("trials.json"))
    lying = edited(make_capsule([mixed], Shown()), {name: lie}, digests=True)
    with pytest.raises(CapsuleError, match="in epochs that it does not have"):
        read_capsule(lying)


def test_a_later_report_compares_no_times_of_several_devices(grid: StudyResults, mixed: StudyResults) -> None:
    then = record_of(grid)
    assert {row.metric for row in compare_records(then, record_of(mixed)).costs} == {"cost.peak_memory"}
    assert "cost.seconds" in {row.metric for row in compare_records(then, then).costs}


def test_budgets_of_searches_on_several_devices_have_no_times(tmp_path: Path) -> None:
    results = with_search(tmp_path)
    figure = SearchBudget()
    assert "training time" in figure.caption(figure.data(results))
    data = figure.data(on_two(results))
    assert not data.timed and "do not add up" in figure.caption(data)
    assert len(figure.draw(data).concat) == 2
