"""The rule that names candidates, simulated: the best stays in, nothing is out of order, looks make no winner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from decision_rules import (
    CIFAR,
    DROPOUT,
    FAR,
    NORMS,
    Scenario,
    alike,
    candidate_rule,
    decided_at,
    draw,
    naive_looks,
    not_monotone,
    paired_rule,
    true_best_stays,
)
from scipy import stats

from benchkit.analysis import holm
from benchkit.plan import InterimAnalysis, plan_of_looks

SPREADS = tuple(
    (Scenario(name=name, means=(0.0,) * len(spreads), spreads=spreads, floor=0.0), 500)
    for name, spreads in {
        "alike": (0.3,) * 7,
        "one 20 times as far": (0.3,) * 6 + (6.0,),
        "half 10 times as far": (0.3,) * 4 + (3.0,) * 4,
    }.items()
)
"""Three more sets of spreads than those of the scenarios, each with how many studies tell its share well enough."""


@pytest.mark.parametrize("n", [3, 5, 8])
@pytest.mark.parametrize(("scenario", "studies"), [(NORMS, 1500), (CIFAR, 1500), (DROPOUT, 200), *SPREADS])
def test_the_true_best_stays_among_near_ties(scenario: Scenario, studies: int, n: int) -> None:
    mean, _ = true_best_stays(candidate_rule, scenario, studies, n, seed=n)
    assert mean >= 0.95


@pytest.mark.parametrize(
    ("scenario", "n", "most_kept", "most_far", "least_decided"),
    [
        (NORMS, 3, 4.2, 0.41, 0.05),
        (NORMS, 5, 2.0, 0.08, 0.51),
        (NORMS, 8, 1.1, 0.005, 0.96),
        (CIFAR, 3, 3.3, 0.005, 0.0),
        (DROPOUT, 3, 8.6, 0.6, 0.0),
        (DROPOUT, 5, 3.0, 0.07, 0.06),
        (DROPOUT, 8, 1.8, 0.005, 0.31),
    ],
)
def test_far_behind_is_out_and_the_order_is_kept(
    scenario: Scenario, n: int, most_kept: float, most_far: float, least_decided: float
) -> None:
    scores = draw(scenario, 1500, n, seed=n)
    stays = candidate_rule(scores, scenario.floor)
    assert not_monotone(scores, stays) == 0
    far = np.asarray(scenario.means) < max(scenario.means) - FAR
    kept, far_kept = stays.sum(1).mean(), (stays & far).any(1).mean()
    assert kept <= most_kept and far_kept <= most_far
    assert (stays.sum(1) == 1).mean() >= least_decided
    older = paired_rule(scores)
    assert far_kept <= (older & far).any(1).mean()
    assert n != 3 or not_monotone(scores, older) > 0.1


def test_the_best_of_few_near_ties_stays_where_all_others_have_left() -> None:
    for scenario, tied in ((NORMS, (0, 6)), (NORMS, (0, 3, 6)), (CIFAR, (0, 6)), (DROPOUT, (0, 16))):
        shares = []
        for best in tied:
            means = [0.001 * (place == best) - 30 * (place not in tied) for place in range(len(scenario.means))]
            tie = replace(scenario, means=tuple(means))
            shares.append(candidate_rule(draw(tie, 4000, 3, seed=77 + best), tie.floor)[:, best].mean())
        assert np.mean(shares) >= 0.95, scenario.name


@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize("scenario", [alike(2), alike(3), alike(7), NORMS.equal, CIFAR.equal])
def test_looking_makes_no_winner_where_all_are_equal(scenario: Scenario, reported: bool) -> None:
    decided = decided_at(scenario, plan_of_looks(3, 20, reported), 1500, seed=9)
    assert (decided > 0).mean() <= 0.05


def test_looking_without_a_plan_makes_winners() -> None:
    assert naive_looks(2, 1500, seed=9) > 0.15
    careless = tuple(InterimAnalysis(number=i, n=n, alpha=0.025) for i, n in enumerate(range(3, 21), 1))
    assert (decided_at(alike(2), careless, 1500, seed=9) > 0).mean() > 0.05


def test_a_true_lead_is_found() -> None:
    assert (decided_at(NORMS, plan_of_looks(3, 20, True), 500, seed=1) > 0).mean() > 0.99


def test_the_older_rule_is_scipys_paired_test_with_holms_correction() -> None:
    scores = draw(NORMS, 4, 5, seed=2)
    for study, stays in zip(scores, paired_rule(scores), strict=True):
        best = int(study.mean(0).argmax())
        pairs = [(i, j) for i in range(7) for j in range(i + 1, 7)]
        p = holm([stats.ttest_rel(study[:, i], study[:, j]).pvalue for i, j in pairs])
        apart = {
            j if i == best else i for (i, j), value in zip(pairs, p, strict=True) if best in (i, j) and value < 0.05
        }
        assert set(np.flatnonzero(~stays).tolist()) == apart
