"""The summary: ranking, coverage, searches, images and effects of results whose numbers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_results import complete, empty, rescored, study_of, unfinished, with_search

from benchkit.analysis import holm
from benchkit.analysis.estimates import level_effects, repeats_of, sensitivities, value_of
from benchkit.analysis.ranking import rank
from benchkit.analysis.search import best_trial, front, search_summaries
from benchkit.analysis.summary import summarize
from benchkit.analysis.trained_models import model_pairs
from benchkit.analysis.trials import coverage, failed_trials
from benchkit.plan import make_plan
from benchkit.results import StudyResults
from benchkit.study import Factor, Goal, Level

SCORES = {"bn": [0.90, 0.91, 0.93], "gn": [0.89, 0.90, 0.90], "ln": [0.70, 0.72, 0.71], "none": [0.6, 0.65, 0.61]}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return rescored(complete(tmp_path_factory.mktemp("grid")), SCORES)


def test_the_ranking_compares_all_pairs_with_scipys_test_and_holms_correction(grid: StudyResults) -> None:
    ranking = rank(grid, "test.accuracy")
    assert [row.label for row in ranking.rows] == ["bn", "gn", "ln", "none"]
    names = [("bn", "gn"), ("bn", "ln"), ("bn", "none"), ("gn", "ln"), ("gn", "none"), ("ln", "none")]
    raw = [stats.ttest_rel(SCORES[a], SCORES[b]).pvalue for a, b in names]
    assert [pair.comparison.p for pair in ranking.pairs] == pytest.approx(raw)
    assert [pair.p_adjusted for pair in ranking.pairs] == pytest.approx(holm(raw))
    assert [row.verdict for row in ranking.rows] == ["best", "may be best", "worse", "worse"]


def test_a_loss_is_ranked_from_below(grid: StudyResults) -> None:
    rows = rank(grid, "test.loss").rows
    assert [row.estimate.mean for row in rows] == sorted(row.estimate.mean for row in rows)


def test_conditions_without_a_number_are_listed_apart(tmp_path: Path) -> None:
    ranking = rank(unfinished(tmp_path), "test.accuracy")
    assert ranking.without == ("none",)
    assert rank(empty(), "test.accuracy").best is None


def test_a_single_repeat_is_untested(tmp_path: Path) -> None:
    ranking = rank(complete(tmp_path, repeats=1), "test.accuracy")
    assert {row.verdict for row in ranking.rows[1:]} == {"untested"}
    assert not ranking.decided


def test_coverage_counts_every_state_once(tmp_path: Path) -> None:
    rows = {row.label: row for row in coverage(unfinished(tmp_path))}
    assert rows["bn"].states == {"done": 2}
    assert (rows["bn"].missing, rows["bn"].complete) == (1, False)
    assert rows["none"].states == {"diverged": 1, "failed": 1, "stale": 1}
    assert [one.state for one in failed_trials(unfinished(tmp_path))] == ["diverged", "failed", "stale"]


def test_a_retried_repeat_counts_once(grid: StudyResults) -> None:
    first = grid.trials[0]
    failed = replace(first, state="failed", attempt=0, number=90)
    again = replace(first, attempt=1, number=91)
    retried = replace(grid, trials=(failed, again, *grid.trials[1:]))
    assert repeats_of(retried, first.condition)[0].number == 91
    (row,) = [row for row in coverage(retried) if row.key == first.condition.key]
    assert row.states == {"done": 3}
    (trouble,) = failed_trials(retried)
    assert trouble.retried


def test_search_budgets_states_and_best(tmp_path: Path) -> None:
    results = with_search(tmp_path)
    (found,) = search_summaries(results)
    trials = results.searched()
    losses = {place: t.score("val.loss") for place, t in enumerate(trials, 1) if t.state == "done"}
    assert found.best_value == min(losses.values())
    assert found.best_place == min(losses, key=lambda place: losses[place])
    assert found.states == {"done": 26, "pruned": 13, "failed": 1}
    assert found.pruned_share == pytest.approx(13 / 40)
    assert found.epochs == 26 * 30 + 14 * 6
    assert found.confirmation is not None
    assert found.confirmation.chosen is not None
    assert found.confirmation.optimism == pytest.approx(found.confirmation.chosen.mean - found.best_value)


def test_the_front_holds_what_nothing_beats(tmp_path: Path) -> None:
    trials = [t for t in with_search(tmp_path).searched() if t.state == "done"][:6]
    goals = (Goal(metric="val.loss", direction="minimize"), Goal(metric="cost.seconds", direction="minimize"))
    points = {place: (t.score("val.loss"), value_of(t, "cost.seconds")) for place, t in enumerate(trials, 1)}
    expected = [
        place
        for place, point in points.items()
        if not any(all(np.array(o) <= np.array(point)) and o != point for o in points.values())
    ]
    assert list(front(trials, goals)) == expected
    assert best_trial([], goals[0]) is None


def test_more_is_better_in_a_goal_that_is_maximised(tmp_path: Path) -> None:
    trials = [t for t in with_search(tmp_path).searched() if t.state == "done"][:6]
    accuracies = [t.score("val.accuracy") for t in trials]
    most = max(accuracies)
    goals = (Goal(metric="val.accuracy", direction="maximize"), Goal(metric="val.accuracy", direction="maximize"))
    assert min(accuracies) < most
    assert list(front(trials, goals)) == [place for place, found in enumerate(accuracies, 1) if found == most]
    assert best_trial(trials, goals[0]) is trials[accuracies.index(most)]


def test_mcnemar_reads_the_stored_predictions(grid: StudyResults) -> None:
    pairs = model_pairs(grid, rank(grid, "test.accuracy"))
    assert [pair.second for pair in pairs] == ["gn", "ln", "none"]
    truth = grid.labels["test"]
    trials = {t.condition.label: t for t in grid.trials if t.index == 0}
    right = {name: trials[name].predictions("test").argmax(1) == truth for name in ("bn", "gn")}
    only_first = int((right["bn"] & ~right["gn"]).sum())
    assert pairs[0].comparison.only_first == only_first
    assert pairs[0].repeat == 0


def test_without_predictions_there_is_no_mcnemar(grid: StudyResults, tmp_path: Path) -> None:
    gone = replace(grid, trials=tuple(replace(t, folder=tmp_path / "gone") for t in grid.trials))
    assert model_pairs(gone, rank(gone, "test.accuracy")) == ()


def test_marginal_effects_average_over_the_other_factor(tmp_path: Path) -> None:
    results = two_factors(tmp_path)
    effects = {(e.factor, e.level): e.estimate for e in level_effects(results, "test.accuracy")}
    assert effects["model.norm", "bn"].values == pytest.approx((0.7, 0.75))  # (0.8 + 0.6) / 2, (0.9 + 0.6) / 2
    assert effects["train.batch_size", "16"].mean == pytest.approx((0.8 + 0.7 + 0.9 + 0.7) / 4)
    ranges = {s.others: s.range for s in sensitivities(results, "train.batch_size", "test.accuracy")}
    assert ranges == pytest.approx({"bn": 0.25, "gn": 0.1})


def two_factors(folder: Path) -> StudyResults:
    base = complete(folder, ("bn", "gn"), repeats=2)
    factors = (
        base.study.factors[0],
        Factor(
            path="train.batch_size",
            levels=tuple(Level(label=str(n), settings={"train.batch_size": n}) for n in (16, 64)),
        ),
    )
    study = replace(base.study, factors=factors)
    plan = make_plan(study)
    scores = {("bn", "16"): (0.8, 0.9), ("bn", "64"): (0.6, 0.6), ("gn", "16"): (0.7, 0.7), ("gn", "64"): (0.6, 0.6)}
    trials = [
        replace(base.trials[index], condition=condition, index=index)
        for condition in plan.conditions
        for index in (0, 1)
    ]
    labels = {c.label: scores[c.levels["model.norm"], c.levels["train.batch_size"]] for c in plan.conditions}
    return rescored(replace(base, study=study, conditions=plan.conditions, trials=tuple(trials)), labels)


def test_summaries_of_every_kind_of_results_are_complete(tmp_path: Path) -> None:
    for results in (empty(), unfinished(tmp_path), complete(tmp_path / "one", (), repeats=1)):
        summary = summarize(results)
        assert 1 <= len(summary.answer) <= 5 and summary.basis
        assert summary.trials == len(results.trials)
    assert study_of().repeats == 3
