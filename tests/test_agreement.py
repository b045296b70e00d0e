"""Studies beside each other: which conditions they share, their ranks, and what is said of their agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import complete, rescored

from benchkit.analysis.agreement import Agreement, agree, agreement_findings
from benchkit.analysis.ranking import Ranking, rank

UP = {"bn": [0.90, 0.91, 0.92], "gn": [0.80, 0.81, 0.83], "ln": [0.70, 0.72, 0.71], "none": [0.60, 0.61, 0.59]}
TURNED = {**UP, "gn": [0.95, 0.962, 0.968]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agreement")


def ranking(folder: Path, scores: Mapping[str, Sequence[float]], labels: Sequence[str] | None = None) -> Ranking:
    return rank(rescored(complete(folder, labels or list(scores), epochs=2), scores), "test.accuracy")


def compared(folder: Path, *scores: Mapping[str, Sequence[float]]) -> Agreement:
    names = ("first", "second", "third", "fourth")
    return agree([(name, ranking(folder, one)) for name, one in zip(names, scores, strict=False)], "test.accuracy")


def said(agreement: Agreement) -> dict[str, str]:
    return {finding.rule: finding.sentence for finding in agreement_findings(agreement)}


def test_equal_orders_agree_and_are_tested_exactly(folder: Path) -> None:
    found = compared(folder, UP, UP, UP)
    assert [row.label for row in found.shared] == ["bn", "gn", "ln", "none"]
    assert [row.mean_rank for row in found.shared] == [1, 2, 3, 4]
    assert found.test is not None
    assert found.test.statistic == pytest.approx(9)  # N (k - 1), its largest value
    assert found.test.p == pytest.approx(24 / 24**3)  # all three orders equal: 4! of (4!)^3
    assert found.critical_difference == pytest.approx(2.569 * (4 * 5 / 18) ** 0.5, abs=0.001)
    words = said(found)
    assert "The ranking agrees" in words["agreement"]
    assert "differ by more than chance" in words["friedman"]
    assert "contradiction" not in words
    evidence = next(f.evidence for f in agreement_findings(found) if f.rule == "friedman")
    assert "“bn” and “none” differ" in evidence
    assert evidence.endswith("and takes studies as independent, which those of the same images are not.")


def test_orders_told_apart_in_opposite_directions_are_a_warning(folder: Path) -> None:
    found = compared(folder, UP, TURNED)
    assert found.leaders == ("bn", "gn")
    assert found.test is None
    (pair,) = [one for one in found.opposed if {one.first, one.second} == {"bn", "gn"}]
    ends = {pair.first: pair.first_in, pair.second: pair.second_in}
    assert ends == {"bn": ("first",), "gn": ("second",)}
    words = said(found)
    assert "does not agree" in words["agreement"]
    assert "“bn” in first and “gn” in second" in words["agreement"]
    assert "too few for Friedman's test" in words["friedman"]
    assert "contradict each other" in words["contradiction"]


def test_a_pair_counts_for_the_one_that_is_better_in_the_repeats_of_both(folder: Path) -> None:
    # In the second study bn leads by its third repeat, which gn lacks; in the two of both gn is ahead by 0.05.
    given = rescored(complete(folder, ("bn", "gn"), epochs=2), {"bn": [0.60, 0.61, 0.99], "gn": [0.65, 0.6601, 0.0]})
    trials = tuple(t for t in given.trials if (t.condition.label, t.index) != ("gn", 2))
    second = rank(replace(given, trials=trials), "test.accuracy")
    assert second.rows[0].label == "bn" and second.pairs[0].decided
    found = agree([("first", ranking(folder, UP, ("bn", "gn"))), ("second", second)], "test.accuracy")
    (pair,) = found.opposed
    ends = {pair.first: pair.first_in, pair.second: pair.second_in}
    assert ends == {"bn": ("first",), "gn": ("second",)}


def test_orders_that_differ_by_chance_are_said_to(folder: Path) -> None:
    noisy = {**UP, "gn": [0.89, 0.93, 0.95], "bn": [0.96, 0.88, 0.90]}
    found = compared(folder, UP, noisy)
    assert found.opposed == ()
    assert "chance between random seeds" in said(found)["contradiction"]


def test_the_best_alone_can_agree(folder: Path) -> None:
    found = compared(folder, UP, {**UP, "ln": [0.50, 0.52, 0.51]})
    assert "agree on the best: “bn”" in said(found)["agreement"]


def test_conditions_are_matched_by_label_and_the_others_listed(folder: Path) -> None:
    found = compared(folder, {"bn": UP["bn"], "gn": UP["gn"], "ln": UP["ln"]}, {"bn": UP["bn"], "gn": UP["gn"]},
                     {"gn": UP["gn"], "ln": UP["ln"], "none": UP["none"]})  # fmt: skip
    assert [row.label for row in found.shared] == ["gn", "bn", "ln"]
    assert found.common == ("gn",)
    assert found.alone == (("first", ()), ("second", ()), ("third", ("none",)))
    assert [standing is None for standing in found.shared[1].standings] == [False, False, True]
    words = said(found)
    assert "only “gn” in common" in words["agreement"]
    assert words["not-shared"] == "Not shared, and so not ranked together: “none” in third."


def test_nothing_shared_is_said(folder: Path) -> None:
    found = compared(folder, {"bn": UP["bn"], "gn": UP["gn"]}, {"ln": UP["ln"], "none": UP["none"]})
    assert found.shared == ()
    assert "share no condition by its label" in said(found)["agreement"]


def test_ties_share_their_ranks_and_losses_rank_upwards(folder: Path) -> None:
    tied = ranking(folder, {"bn": [0.9, 0.8, 0.7], "gn": [0.7, 0.8, 0.9], "ln": [0.1, 0.2, 0.3]})
    found = agree([("first", tied), ("second", tied)], "test.accuracy")
    assert {row.label: row.mean_rank for row in found.shared} == {"bn": 1.5, "gn": 1.5, "ln": 3.0}
    upwards = agree([("first", replace(tied, metric="test.loss"))] * 2, "test.loss")
    assert {row.label: row.mean_rank for row in upwards.shared} == {"ln": 1.0, "bn": 2.5, "gn": 2.5}
