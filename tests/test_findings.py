"""Findings: what each rule says of results whose numbers are known, and when it keeps silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic_results import PUBLISHED, complete, empty, rescored, study_of, unfinished, with_search

from benchkit.analysis.published import implied_n
from benchkit.analysis.summary import summarize
from benchkit.analysis.training import overfits, time_to_accuracy
from benchkit.analysis.trials import micro_f1_findings
from benchkit.analysis.wording import Finding
from benchkit.report.context.numbers import banners
from benchkit.results import EpochRecord, Outcome, StudyResults
from benchkit.study import Published, PublishedRow

APART = {"bn": [0.90, 0.91, 0.92], "gn": [0.80, 0.812, 0.82], "ln": [0.70, 0.71, 0.725], "none": [0.60, 0.612, 0.62]}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return complete(tmp_path_factory.mktemp("grid"), extra=PUBLISHED)


def said(results: StudyResults, rule: str) -> list[Finding]:
    return [finding for finding in summarize(results).findings if finding.rule == rule]


def test_a_clear_winner_is_named_with_the_range_of_the_gaps(grid: StudyResults) -> None:
    summary = summarize(rescored(grid, APART))
    (found,) = [finding for finding in summary.findings if finding.rule == "winner"]
    # bn - gn: 0.10, 0.098, 0.10 -> mean 0.09933; bn - none: 0.30, 0.298, 0.30 -> mean 0.29933
    assert summary.answer[:2] == (
        "“bn” is best with a test accuracy of 91.00 %.",
        "“gn”, “ln” and “none” are clearly worse, by 9.93 to 29.93 points.",
    )
    assert found.sentence == " ".join(summary.answer[:2])
    assert found.tone == "answer" and found.evidence == summary.basis
    # mean 91, s = 1 point: half width 4.302653 / sqrt(3) = 2.484
    assert summary.basis.startswith("95 % t interval of “bn” over 3 repeats: 88.52 to 93.48 %. Clearly worse: beaten ")
    assert "below 0.025 (“gn” p" in summary.basis


def test_an_open_ranking_says_who_may_be_as_good(grid: StudyResults) -> None:
    close = {**APART, "gn": [0.91, 0.905, 0.902]}
    (found,) = said(rescored(grid, close), "winner")
    assert found.sentence == (
        "“bn” leads with a test accuracy of 91.00 %. “gn” (0.43 points lower) may be as good: 3 runs each cannot say. "
        "“ln” and “none” are clearly worse, by 19.83 to 29.93 points."
    )
    assert "“gn” p = " in found.evidence


def test_one_condition_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    (found,) = said(complete(tmp_path, (), repeats=1), "winner")
    assert "nothing to compare it with" in found.sentence
    assert "one repeat" in found.evidence


def test_an_empty_study_has_no_answer_yet() -> None:
    summary = summarize(empty())
    assert summary.answer[0] == "There is no answer: no repeat has a test accuracy."
    assert summary.basis == "0 of 12 planned trials have a result."


def test_missing_failed_and_diverged_trials_are_told(tmp_path: Path) -> None:
    results = unfinished(tmp_path)
    (gaps,) = said(results, "unfinished")
    assert gaps.sentence.startswith("The study is not complete: 6 of 12 planned trials have a result that counts, and ")
    assert "“bn” (2 done, 1 not started)" in gaps.evidence
    (diverged,) = said(results, "divergence")
    assert "“none”, repeat 0, in epoch 4" in diverged.evidence  # it has the records of three
    (failed,) = said(results, "failed-trials")
    assert "RuntimeError: <b>shape</b> mismatch" in failed.evidence
    assert said(results, "left-out")


def test_what_ended_without_a_score_is_not_called_missing(grid: StudyResults) -> None:
    gone = {("ln", 0): "diverged", ("ln", 1): "failed", ("bn", 2): "diverged"}
    trials = [
        replace(t, state=state, outcome=None) if (state := gone.get((t.condition.label, t.index))) else t
        for t in grid.trials
    ]
    given = replace(grid, trials=tuple(trials))
    (found,) = said(given, "unfinished")
    assert found.sentence == "2 of 12 planned trials ended without a score: “ln”."
    assert found.evidence == (
        "“ln” (1 diverged, 1 failed, 1 done). Means are over the others, so that a condition seems better by what "
        "fails or diverges in it."
    )
    assert [banner.title for banner in banners(given, summarize(given))][-1] == "Trials without a score"
    (waits,) = said(replace(given, trials=tuple(trials[:-1])), "unfinished")
    assert waits.sentence.startswith("The study is not complete: 8 of 12 planned trials have a result that counts, ")


def test_what_diverged_is_told_and_not_missing(grid: StudyResults) -> None:
    lost = Outcome(state="diverged", reason="the loss is nan")
    trials = tuple(
        replace(trial, state="diverged", outcome=lost) if trial.condition.label == "none" else trial
        for trial in rescored(grid, APART).trials
    )
    results = replace(grid, trials=trials, study=study_of())
    summary = summarize(results)
    assert said(results, "unfinished") == [] and banners(results, summary)[0].title == "Synthetic numbers"
    assert all(row.complete for row in summary.numbers.coverage) and len(banners(results, summary)) == 1
    assert summary.answer[2] == "3 trials diverged: “none”."


def test_the_gaps_of_many_that_may_be_as_good_are_a_range(tmp_path: Path) -> None:
    labels = [f"v{place}" for place in range(8)]
    scores = {
        label: [0.9 - place / 1000 + spread for spread in (-0.02, 0.0, 0.02)] for place, label in enumerate(labels)
    }
    (found,) = said(rescored(complete(tmp_path, labels), scores), "winner")
    assert "“v5” and 2 more (0.10 to 0.70 points lower) may be as good" in found.sentence


def test_a_complete_study_has_no_cautions(grid: StudyResults) -> None:
    tones = {f.rule for f in summarize(replace(grid, study=study_of())).findings if f.tone == "warning"}
    assert tones == set()


def record(epoch: int, train_loss: float, val_loss: float) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, train_loss=train_loss, train_accuracy=0.5, val_loss=val_loss, val_accuracy=0.1 * epoch,
        learning_rate=0.1, gradient_norm=1.0, seconds=2.0, images_per_second=100.0, peak_memory=1.0,
    )  # fmt: skip


def test_over_fitting_sets_in_at_the_least_validation_loss() -> None:
    falling = [record(1, 2.0, 2.0), record(2, 1.0, 1.0), record(3, 0.5, 1.2), record(4, 0.2, 1.5)]
    assert overfits(falling) == falling[1]
    assert overfits([record(1, 2.0, 2.0), record(2, 1.0, 1.0), record(3, 0.5, 1.04)]) is None  # within 5 %
    assert overfits([record(1, 0.2, 1.0), record(2, 0.5, 1.5), record(3, 0.6, 2.0)]) is None  # training loss rose too


def test_over_fitting_is_reported_for_the_conditions_that_show_it(grid: StudyResults) -> None:
    (found,) = said(grid, "over-fitting")
    assert found.about == ("bn", "none") or found.about == ("none", "bn")


def test_the_race_counts_epochs_and_seconds_to_the_stated_accuracy(grid: StudyResults) -> None:
    trials = tuple(
        replace(t, history=tuple(record(e, 1.0, 1.0) for e in range(1, 9))) for t in grid.trials if t.index == 0
    )
    found = time_to_accuracy(replace(grid, trials=trials))
    assert found is not None
    assert found.accuracy == 0.72  # 90 % of the best mean, 0.8, in whole percent
    assert found.arrivals[0].epochs == 8  # the first epoch with 0.1 * epoch >= 0.72
    assert found.arrivals[0].seconds == 16.0


def test_nine_tenths_of_a_round_accuracy_are_exact(grid: StudyResults) -> None:
    history = tuple(replace(record(epoch, 1.0, 1.0), val_accuracy=best) for epoch, best in ((1, 0.1), (2, 0.7)))
    trials = tuple(replace(trial, history=history) for trial in grid.trials)
    found = time_to_accuracy(replace(grid, trials=trials))
    assert found is not None and found.accuracy == 0.63  # 9/10 of 70 %


def test_an_unstable_condition_is_told(grid: StudyResults) -> None:
    wild = {**APART, "none": [0.40, 0.60, 0.80]}
    (found,) = said(rescored(grid, wild), "unstable-seeds")
    assert found.about == ("none",)
    assert found.sentence == "“none” depends on the random seed: its repeats reach from 40.00 to 80.00 %."


def test_unstable_conditions_are_told_together_the_widest_first(tmp_path: Path) -> None:
    wild = {"bn": [0.80, 0.81, 0.82], "gn": [0.4, 0.5, 0.6], "ln": [0.3, 0.5, 0.7], "none": [0.7, 0.71, 0.72]}
    results = rescored(complete(tmp_path, (*wild, "variant 5", "variant 6"), epochs=1), wild)
    (found,) = said(results, "unstable-seeds")
    assert found.sentence == "“ln” and “gn” depend on the random seed: the repeats of “ln” reach from 30.00 to 70.00 %."
    assert found.evidence.startswith("Standard deviation over 3 repeats: “ln” 20.00 points (")


def test_published_numbers_get_a_verdict_in_words(grid: StudyResults) -> None:
    # bn: mean 0.91, s = 0.01, 95 % prediction interval 0.91 ± 4.302653 * 0.01 * sqrt(4/3) = 0.8603 to 0.9597
    summary = summarize(rescored(grid, APART))
    verdicts = {(row.label, row.metric): row.verdict for row in summary.numbers.published}
    assert verdicts["bn", "test.accuracy"] == "consistent"
    assert verdicts["ln", "test.accuracy"] == "consistent"
    (row,) = [row for row in summary.numbers.published if row.label == "bn"]
    assert (row.low, row.high) == pytest.approx((0.86032, 0.95968), abs=1e-4)
    assert row.difference == pytest.approx(0.91 - 0.9167)
    (ln,) = [row for row in summary.numbers.published if row.label == "ln"]
    assert ln.sampling is not None
    assert ln.sampling.n == 10000


@pytest.mark.parametrize(
    ("values", "n"),
    [([11 / 12], 12), ([0.9167, 0.8333], 12), ([0.9167, 0.75, 0.5833], 12), ([0.7861, 0.8123, 0.6543], None)],
)
def test_fractions_of_few_images_are_recognised(values: list[float], n: int | None) -> None:
    found = implied_n(values)
    assert (found[0] if found else None) == n


def test_a_two_digit_number_implies_nothing() -> None:
    assert implied_n([0.75]) is None
    assert implied_n([]) is None


def test_micro_f1_must_equal_accuracy(grid: StudyResults) -> None:
    (found,) = said(grid, "micro-f1")
    assert "75.00 %, differs from its accuracy, 83.33 %" in found.sentence
    rows = (
        PublishedRow(when={"model.norm": "bn"}, metric="test.accuracy", value=0.833),
        PublishedRow(when={"model.norm": "bn"}, metric="test.micro_f1", value=0.83),
    )
    same = replace(grid, study=replace(grid.study, published=(Published(source="x", rows=rows),)))
    assert said(same, "micro-f1") == []


def test_a_search_is_confirmed_on_fresh_repeats(tmp_path: Path) -> None:
    (found,) = said(with_search(tmp_path), "search")
    assert "fresh repeats of these settings give" in found.sentence
    assert "40 of 40 trials started" in found.evidence
    (alone,) = said(with_search(tmp_path / "open", confirmed=False), "search")
    assert "no fresh repeats confirm it yet" in alone.sentence


def test_more_than_one_test_read_is_a_caution(grid: StudyResults) -> None:
    first = grid.trials[0]
    assert first.outcome is not None
    greedy = replace(first, outcome=replace(first.outcome, test_reads=4))
    (found,) = said(replace(grid, trials=(greedy, *grid.trials[1:])), "test-reads")
    assert found.sentence == "1 trial read the test split more than once."


def test_a_smoke_run_says_first_that_it_answers_nothing(grid: StudyResults) -> None:
    summary = summarize(replace(grid, study=replace(grid.study, smoke=True)))
    assert summary.findings[0].rule == "smoke"
    assert "answer nothing" in summary.answer[0]


def test_notes_of_trials_are_counted(grid: StudyResults) -> None:
    noted = tuple(
        replace(t, outcome=replace(t.outcome, notes=("fell back to eager",))) for t in grid.trials if t.outcome
    )
    (found,) = said(replace(grid, trials=noted), "trial-note")
    assert found.sentence == "fell back to eager (12 trials)"


@pytest.mark.parametrize(("f1", "told"), [(0.5, 0), (0.5 + 5e-7, 0), (0.51, 1)])
def test_a_micro_f1_that_is_not_the_accuracy_is_a_fault(f1: float, told: int) -> None:
    scores = SimpleNamespace(
        label="bn", metrics={"test.accuracy": SimpleNamespace(mean=0.5), "test.micro_f1": SimpleNamespace(mean=f1)}
    )
    found = micro_f1_findings([scores])  # type: ignore[list-item]
    assert len(found) == told and all("“bn”: the test micro F1 differs" in one.sentence for one in found)
    alone = SimpleNamespace(label="bn", metrics={"test.accuracy": SimpleNamespace(mean=0.5)})
    assert micro_f1_findings([alone]) == []  # type: ignore[list-item]
