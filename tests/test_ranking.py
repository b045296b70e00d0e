"""The ranking's decisions: Holm's correction at every place where it must act, against SciPy's noncentral t."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchkit_figures.outcomes.results_forest import ResultsForest
from scipy import stats
from synthetic_results import complete, rescored

from benchkit.analysis import prediction_interval
from benchkit.analysis.ranking import Ranking, rank, winner_sentences
from benchkit.analysis.summary import summarize
from benchkit.analysis.wording import duration
from benchkit.plan import INTERIM_ANALYSES
from benchkit.report.context.blocks import TableBlock
from benchkit.report.context.sections import SectionInputs, results_section
from benchkit.results import Decision

# Raw p values: bn against gn 0.035, bn against ln 0.041, gn against ln 0.82. Holm: 0.106, 0.106 and 0.82.
CLOSE = {"bn": (0.80, 0.81, 0.83, 0.82), "gn": (0.78, 0.80, 0.80, 0.81), "ln": (0.79, 0.78, 0.82, 0.79)}
PAIRS = [("bn", "gn"), ("bn", "ln"), ("gn", "ln")]


@pytest.fixture
def close(tmp_path: Path) -> Ranking:
    return rank(rescored(complete(tmp_path, tuple(CLOSE), repeats=4), CLOSE), "test.accuracy")


def power(difference: float, std: float, n: int, alpha: float) -> float:
    threshold, shift = stats.t.ppf(1 - alpha / 2, n - 1), difference * math.sqrt(n) / std
    return float(stats.nct.sf(threshold, n - 1, shift) + stats.nct.cdf(-threshold, n - 1, shift))


def test_what_only_the_uncorrected_test_calls_different_is_not_decided(close: Ranking) -> None:
    raw = [stats.ttest_rel(CLOSE[first], CLOSE[second]).pvalue for first, second in PAIRS]
    assert raw[0] < raw[1] < 0.05 < raw[2]
    assert [pair.p_adjusted for pair in close.pairs] == pytest.approx([3 * raw[0], 3 * raw[0], raw[2]])
    assert not any(pair.decided for pair in close.pairs)
    assert [row.verdict for row in close.rows] == ["best", "may be best", "may be best"]
    assert not close.decided and [row.label for row in close.rivals] == ["gn", "ln"]


def test_what_could_be_seen_stands_at_the_corrected_level(close: Ranking) -> None:
    for pair, (first, second) in zip(close.pairs[:2], PAIRS[:2], strict=True):
        std = float(np.subtract(CLOSE[first], CLOSE[second]).std(ddof=1))
        assert pair.detectable is not None
        assert power(pair.detectable, std, 4, 0.05 / 3) == pytest.approx(0.8, abs=0.004)


def test_runs_are_compared_each_with_each(close: Ranking, tmp_path: Path) -> None:
    for pair, (first, second) in zip(close.pairs, PAIRS, strict=True):
        u = stats.mannwhitneyu(CLOSE[first], CLOSE[second]).statistic
        assert pair.superiority == pytest.approx(u / 16)
    given = rescored(complete(tmp_path, tuple(CLOSE), repeats=4), CLOSE, metric="loss")
    best, second = (row.key for row in rank(given, "test.loss").rows[:2])
    (pair,) = [pair for pair in rank(given, "test.loss").pairs if (pair.first, pair.second) == (best, second)]
    assert pair.superiority is not None and pair.superiority > 0.5


def test_an_undecided_answer_names_gaps_runs_and_the_command_that_decides(tmp_path: Path) -> None:
    given = rescored(complete(tmp_path, tuple(CLOSE), repeats=4), CLOSE)
    summary = summarize(given)
    assert summary.answer[:2] == (
        "\u201cbn\u201d leads with a test accuracy of 81.50 %.",
        "\u201cgn\u201d and \u201cln\u201d (1.75 and 2.00 points lower) may be as good: 4 runs each cannot say.",
    )
    costs = [trial.outcome.cost for trial in given.trials if trial.outcome]
    seconds = sum(cost.seconds for cost in costs if cost) / len(costs)
    time = duration(6 * seconds, whole=True)  # the next look is at 6 repeats: two more of each of three conditions
    assert summary.answer[-1] == (
        "To decide: benchkit sweep synthetic-norms --until-decided "
        f"(next at 6 repeats: 6 trials, about {time} one after another)"
    )
    assert "repeats would decide" not in " ".join([*summary.answer, *(one.evidence for one in summary.findings)])


def test_a_study_whose_looks_are_planned_says_how_far_they_are(tmp_path: Path) -> None:
    base = rescored(complete(tmp_path, tuple(CLOSE), repeats=4), CLOSE)
    plan = Decision(name=INTERIM_ANALYSES, value="4: 0.025, 6: 0.025", why="", version="")
    ranking, planned = rank(base, "test.accuracy"), replace(base, decisions=(plan,))
    assert ranking.alpha == 0.025
    told = summarize(planned)
    assert told.answer[-1].startswith("Look 1 of 2, at 4 repeats: ")
    low, high = (100 * bound for bound in stats.t.interval(0.975, 3, np.mean(CLOSE["bn"]), stats.sem(CLOSE["bn"])))
    assert told.basis.startswith(
        "95 % t interval of \u201cbn\u201d over 4 repeats (wide enough for those of all looks together): "
        f"{low:.2f} to {high:.2f} %."
    )
    wide, usual = (rank(one, "test.accuracy").rows[0].estimate for one in (planned, base))
    assert (wide.confidence, usual.confidence) == (0.975, 0.95)
    assert prediction_interval(wide) == pytest.approx(prediction_interval(usual))
    strict = replace(base, decisions=(replace(plan, value="2: 0.00001, 4: 0.00001"),))
    assert rank(strict, "test.accuracy").alpha == 0.00001


def test_the_leader_by_one_metric_that_is_clearly_behind_in_another_is_said_so(tmp_path: Path) -> None:
    steps = np.array([0.0, 0.01, 0.0, 0.02])
    accuracies = {label: list(best + steps) for label, best in (("bn", 0.9), ("gn", 0.8), ("ln", 0.7))}
    losses = {label: list(best + steps) for label, best in (("bn", 0.9), ("gn", 0.3), ("ln", 0.7))}
    apart = rescored(rescored(complete(tmp_path, tuple(CLOSE), repeats=4), accuracies), losses, metric="loss")
    (row,) = [one for one in summarize(apart).numbers.elsewhere if one.metric == "test.loss"]
    assert (row.leader, row.better) == ("bn", "gn")
    found = next(one for one in summarize(apart).findings if one.rule == "other-metric")
    assert found.tone == "warning"
    assert found.sentence == (
        "\u201cbn\u201d is first by test accuracy, but clearly worse by test loss: "
        "0.9075 nats, 0.6000 nats higher than \u201cgn\u201d."
    )
    assert summarize(apart).answer[-1] == found.sentence


def test_brackets_and_bars_say_what_looks_make_of_them(tmp_path: Path) -> None:
    base = rescored(complete(tmp_path, tuple(CLOSE), repeats=4), CLOSE)
    plan = Decision(name=INTERIM_ANALYSES, value="4: 0.025, 6: 0.025", why="", version="")
    forest, planned = ResultsForest(), replace(base, decisions=(plan,))
    wide = "so wide that those of all planned looks hold together with 95 %."
    for results, words in ((base, ("95 % t interval", "")), (planned, ("t interval", wide))):
        caption = forest.caption(forest.data(results))
        assert f"bars: {words[0]};" in caption
        assert (wide in caption) is bool(words[1])
        inputs = SectionInputs(results=results, summary=summarize(results), figure_set=None)
        table = results_section(inputs).blocks[0]
        assert isinstance(table, TableBlock)
        assert f"Brackets: {words[0]} of the mean" in table.caption
        assert (wide in table.caption) is bool(words[1])


def test_what_left_at_an_earlier_look_is_said_so_and_compared_by_common_repeats(tmp_path: Path) -> None:
    scores = {"bn": (0.90, 0.91, 0.93, 0.94), "gn": (0.80, 0.81), "ln": (0.90, 0.91, 0.92, 0.94)}
    base = complete(tmp_path, tuple(scores), repeats=4)
    kept = tuple(t for t in base.trials if t.index < len(scores[t.condition.label]))
    plan = Decision(name=INTERIM_ANALYSES, value="2: 0.0499, 4: 0.00001", why="", version="")
    results = replace(rescored(replace(base, trials=kept), scores), decisions=(plan,))
    ranking = rank(results, "test.accuracy")
    assert ranking.alpha == 0.00001 and [row.label for row in ranking.left_before] == ["gn"]
    told = summarize(results)
    # Of the two repeats that both have 0.90 - 0.80 and 0.91 - 0.81; the means of all are 0.92 and 0.805.
    assert "\u201cgn\u201d is clearly worse, by 10.00 points." in told.answer[0] + told.answer[1] + told.answer[2]
    earlier = ", or so at an earlier look, at its level (\u201cgn\u201d)."
    assert told.basis.endswith(f"p by Holm's correction below 1e-5 (\u201cln\u201d p = 0.85){earlier}")
    inputs = SectionInputs(results=results, summary=told, figure_set=None)
    table = results_section(inputs).blocks[0]
    assert isinstance(table, TableBlock) and f"clearly worse below 1e-5{earlier}" in table.caption


def test_an_interval_that_holds_0_beside_a_clear_verdict_is_explained(tmp_path: Path) -> None:
    # Differences of 0.01, 0.05, 0.09, 0.13: 0.07 ± 3.18 * 0.026 holds 0; of 0.10, 0.11, 0.11, 0.12 it does not.
    for behind, explained in (((0.89, 0.87, 0.85, 0.83), True), ((0.80, 0.81, 0.83, 0.84), False)):
        scores = {"bn": (0.90, 0.92, 0.94, 0.96), "gn": behind}
        results = rescored(complete(tmp_path / str(explained), tuple(scores), repeats=4), scores)
        summary = summarize(results)
        assert "gn" in [row.label for row in summary.ranking.worse]
        inputs = SectionInputs(results=results, summary=summary, figure_set=None)
        table = results_section(inputs).blocks[0]
        assert isinstance(table, TableBlock)
        assert ("may hold 0 where the test decides" in table.caption) is explained


def test_a_tie_is_told_in_words(tmp_path: Path) -> None:
    tied = {"bn": (0.80, 0.82, 0.84), "gn": (0.84, 0.80, 0.82), "ln": (0.78, 0.83, 0.80)}
    words = " ".join(
        winner_sentences(rank(rescored(complete(tmp_path, tuple(tied), repeats=3), tied), "test.accuracy"))
    )
    assert "“gn” and “ln” (the same mean and 1.67 points lower) may be as good" in words, words
