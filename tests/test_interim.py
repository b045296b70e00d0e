"""Planned looks: what each spends, how they are written down, and which have been taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_results import complete, rescored

from benchkit.analysis.candidates import looks_taken, missing_repeats, next_look
from benchkit.analysis.summary import summarize
from benchkit.plan import (
    INTERIM_ANALYSES,
    TOTAL_ALPHA,
    plan_from,
    plan_of_looks,
    plan_text,
)
from benchkit.report.context.blocks import TableBlock
from benchkit.report.context.sections import SectionInputs, results_section
from benchkit.results import Decision, StudyResults

CLOSE = {"bn": [0.90, 0.91, 0.93, 0.92, 0.91], "gn": [0.90, 0.90, 0.92, 0.91, 0.92]}
FAR = {"ln": [0.70, 0.72, 0.71, 0.72, 0.70], "none": [0.6, 0.65, 0.61, 0.62, 0.63]}


def repeats(results: StudyResults, **counts: int) -> StudyResults:
    kept = tuple(trial for trial in results.trials if trial.index < counts.get(trial.condition.label, 0))
    return replace(results, trials=kept)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return rescored(complete(tmp_path_factory.mktemp("grid"), repeats=5), CLOSE | FAR)


def test_five_looks_from_three_to_twenty_share_the_error() -> None:
    plan = plan_of_looks(3, 20)
    assert [look.n for look in plan] == [3, 5, 8, 12, 20]
    assert [look.alpha for look in plan] == pytest.approx([0.01] * 5)
    assert [look.number for look in plan] == [1, 2, 3, 4, 5]


def test_a_report_of_a_fixed_number_was_the_first_look() -> None:
    plan = plan_of_looks(3, 20, already_reported=True)
    assert [look.alpha for look in plan] == pytest.approx([0.025] + [0.00625] * 4)
    assert sum(look.alpha for look in plan) == pytest.approx(TOTAL_ALPHA)


@given(st.integers(1, 40), st.integers(2, 200), st.booleans())
def test_every_plan_rises_to_the_most_and_spends_no_more_than_it_may(first: int, most: int, reported: bool) -> None:
    if first > most:
        with pytest.raises(ValueError, match="first <= most"):
            plan_of_looks(first, most, reported)
        return
    plan = plan_of_looks(first, most, reported)
    assert plan[-1].n == most and plan[0].n == max(first, 2) and len(plan) <= 5
    assert sum(look.alpha for look in plan) <= TOTAL_ALPHA + 1e-12
    assert all(0 < look.alpha <= 0.025 for look in plan)
    assert plan_from(plan_text(plan)) == plan


@pytest.mark.parametrize("text", ["", "3", "3: 0.025, 3: 0.01", "3: 0.04, 5: 0.04", "three: 0.01"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        plan_from(text)


def test_looks_wait_for_the_candidates_alone(grid: StudyResults) -> None:
    plan = plan_of_looks(3, 8)
    assert [look.n for look in plan] == [3, 4, 5, 6, 8]
    started = repeats(grid, bn=3, gn=3, ln=3, none=2)
    assert looks_taken(started, "test.accuracy", plan) == ()
    key = {condition.label: condition.key for condition in grid.conditions}
    assert missing_repeats(started, plan, ()) == {key["none"]: (2,)}
    first = looks_taken(repeats(grid, bn=3, gn=3, ln=3, none=3), "test.accuracy", plan)
    assert [one.label for one in first[0].candidates.kept] == ["bn", "gn"]
    upcoming = next_look(plan, first)
    assert upcoming is not None and upcoming.n == 4
    partly = repeats(grid, bn=4, gn=3, ln=3, none=3)
    assert looks_taken(partly, "test.accuracy", plan) == first  # the fourth repeat of one is not looked at
    assert missing_repeats(partly, plan, first) == {key["gn"]: (3,)}
    further = looks_taken(repeats(grid, bn=5, gn=5, ln=3, none=3), "test.accuracy", plan)
    assert [look.analysis.n for look in further] == [3, 4, 5]
    assert [one.label for one in further[-1].candidates.left] == ["ln", "none"]


def test_a_decided_study_has_no_next_look(grid: StudyResults) -> None:
    clear = rescored(grid, {**CLOSE, **FAR, "gn": [0.80, 0.81, 0.80, 0.79, 0.80]})
    plan = plan_of_looks(3, 8)
    taken = looks_taken(clear, "test.accuracy", plan)
    assert len(taken) == 1 and taken[0].candidates.decided
    assert next_look(plan, taken) is None and missing_repeats(clear, plan, taken) == {}


def test_a_repeat_that_failed_has_ended(grid: StudyResults) -> None:
    failed = tuple(
        replace(trial, state="failed", outcome=None) if (trial.condition.label, trial.index) == ("gn", 2) else trial
        for trial in repeats(grid, bn=3, gn=3, ln=3, none=3).trials
    )
    (look,) = looks_taken(replace(grid, trials=failed), "test.accuracy", plan_of_looks(3, 8))
    assert {one.label: one.n for one in look.candidates.conditions}["gn"] == 2


def test_what_left_at_a_look_stays_out(grid: StudyResults) -> None:
    plan = (plan_of_looks(3, 5)[0], replace(plan_of_looks(3, 5)[1], n=5, alpha=1e-9))
    taken = looks_taken(repeats(grid, bn=5, gn=5, ln=3, none=3), "test.accuracy", plan)
    assert [[one.label for one in look.candidates.left] for look in taken] == [["ln", "none"], ["ln", "none"]]


def test_an_empty_study_has_no_look(tmp_path: Path) -> None:
    nothing = replace(complete(tmp_path, repeats=1), trials=())
    assert looks_taken(nothing, "test.accuracy", plan_of_looks(3, 20)) == ()


def test_captions_say_what_does_not_allow_for_looks_and_what_test_images_chose(grid: StudyResults) -> None:
    plan = Decision(name=INTERIM_ANALYSES, value=plan_text(plan_of_looks(3, 5)), why="asked", version="1")

    def captions(results: StudyResults) -> dict[str, str]:
        section = results_section(SectionInputs(results=results, summary=summarize(results), figure_set=None))
        return {block.name: block.caption for block in section.blocks if isinstance(block, TableBlock)}

    fixed, looked = captions(grid), captions(replace(grid, decisions=(plan,)))
    for name in ("ranking", "pairs", "pairs-matrix"):
        assert "for one look alone" not in fixed[name] and "for one look alone" in looked[name]
    chose = "The test images chose no epoch and no setting"
    assert f"{chose}. " in fixed["metrics-test"]
    assert f"{chose}; the looks at them chose which conditions got more repeats. " in looked["metrics-test"]
    report = replace(grid.study.report, metric="val.accuracy")
    by_val = replace(grid, decisions=(plan,), study=replace(grid.study, report=report))
    assert f"{chose}. " in captions(by_val)["metrics-test"]


def test_what_looks_spend_in_all_is_their_own_sum(grid: StudyResults) -> None:
    for most, told in ((3, "0.025 each, 0.025 in all"), (5, "0.0167 each, 0.05 in all")):
        text = plan_text(plan_of_looks(3, most))
        given = replace(grid, decisions=(Decision(name=INTERIM_ANALYSES, value=text, why="asked", version="1"),))
        (found,) = [one for one in summarize(given).findings if one.rule == "looks"]
        assert f"The looks test at {told}, so that" in found.evidence
