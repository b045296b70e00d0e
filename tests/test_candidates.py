"""Which conditions may be the best: shrinking and tests against SciPy by hand, the floor of images, the closure."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, special, stats
from synthetic_results import complete, rescored

from benchkit.analysis.candidates import (
    LEAVES_AT,
    beaten_p,
    candidates,
    image_variance,
    kept,
    shrunk_variances,
    trigamma_inverse,
)
from benchkit.analysis.estimates import crossed_interval
from benchkit.analysis.trained_models import right_answers
from benchkit.results import StudyResults

SCORES = {"bn": [0.90, 0.91, 0.93], "gn": [0.89, 0.90, 0.91], "ln": [0.70, 0.72, 0.71], "none": [0.6, 0.65, 0.61]}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return rescored(complete(tmp_path_factory.mktemp("grid")), SCORES)


def by_hand(variances: list[float], counts: list[int], floor: list[float]) -> tuple[list[float], list[float]]:
    """Return what Smyth (2004) gives, one number at a time, with a root finder in place of his iteration."""
    logs = [
        math.log(v) - float(special.digamma((n - 1) / 2)) + math.log((n - 1) / 2)
        for v, n in zip(variances, counts, strict=True)
    ]
    mean = sum(logs) / len(logs)
    excess = sum((e - mean) ** 2 for e in logs) / (len(logs) - 1)
    excess -= sum(float(special.polygamma(1, (n - 1) / 2)) for n in counts) / len(counts)
    d0, common = math.inf, math.exp(mean)
    if excess > 0:
        d0 = 2 * optimize.brentq(lambda y: float(special.polygamma(1, y)) - excess, 1e-8, 1e8, xtol=1e-14)
        common *= math.exp(float(special.digamma(d0 / 2)) - math.log(d0 / 2))
    d0 = min(d0, 0.15 * sum(n - 1 for n in counts) * (len(counts) - 1) / len(counts))  # of the others' degrees
    raised = [max(v, least) for v, least in zip(variances, floor, strict=True)]
    shrunk = [(d0 * common + (n - 1) * v) / (d0 + n - 1) for v, n in zip(raised, counts, strict=True)]
    return shrunk, [d0 + n - 1 for n in counts]


@pytest.mark.parametrize(
    ("variances", "counts"),
    [
        ([0.16, 0.2, 0.56, 0.74, 1.8, 2.2, 80.5], [3] * 7),
        ([0.3, 9.0, 0.01], [3, 8, 5]),
        (
            [1.0, 1.1, 0.9, 1.2],
            [3] * 4,
        ),  # they vary less than chance would have it: all are drawn to the common one as far as it may be
    ],
)
def test_variances_are_shrunk_as_by_hand(variances: list[float], counts: list[int]) -> None:
    shrunk, degrees = shrunk_variances(np.array(variances), np.array(counts))
    expected = by_hand(variances, counts, [0.0] * len(counts))
    assert shrunk == pytest.approx(expected[0], rel=1e-9)
    assert degrees == pytest.approx(expected[1], rel=1e-9)


def test_no_variance_is_below_what_images_set() -> None:
    variances, floor = [0.01, 0.3, 0.02, 0.4], [0.02, 0.9, 0.02, 0.05]
    shrunk, degrees = shrunk_variances(np.array(variances), np.array([3] * 4), np.array(floor))
    expected, freedom = by_hand(variances, [3] * 4, floor)
    assert expected[1] < 0.9  # it is shrunk below its floor, and raised again
    assert shrunk == pytest.approx([expected[0], 0.9, *expected[2:]], rel=1e-9)
    assert degrees == pytest.approx(freedom)


def test_two_variances_are_left_as_they_are_and_a_variance_of_none_takes_no_part() -> None:
    shrunk, degrees = shrunk_variances(np.array([1.0, 25.0]), np.array([3, 4]))
    assert shrunk.tolist() == [1.0, 25.0]
    assert degrees.tolist() == [2.0, 3.0]
    shrunk, _ = shrunk_variances(np.array([0.16, 0.0, 0.56, 80.5]), np.array([3] * 4))
    (without, _), (kept_at,) = by_hand([0.16, 0.56, 80.5], [3] * 3, [0.0] * 3), shrunk[1:2]
    assert shrunk[[0, 2, 3]] == pytest.approx(without, rel=1e-9)
    assert kept_at > 0


def test_the_inverse_of_trigamma_is_one() -> None:
    values = np.geomspace(1e-6, 1e8, 60)
    assert special.polygamma(1, trigamma_inverse(values)) == pytest.approx(values, rel=1e-6)


def test_a_p_is_that_of_welchs_test_by_holms_correction() -> None:
    groups = [[0.90, 0.91, 0.93], [0.70, 0.72, 0.71, 0.73], [0.89, 0.90, 0.90], [0.1, 0.9]]
    counts = np.array([len(one) for one in groups])
    p = beaten_p(
        np.array([np.mean(one) for one in groups]),
        np.array([np.var(one, ddof=1) for one in groups]),
        counts - 1.0,
        counts,
    )

    def welch(first: int, second: int) -> float:
        test = stats.ttest_ind(groups[first], groups[second], equal_var=False, alternative="greater")
        return float(test.pvalue)

    smallest = [min(welch(j, i) for j in range(4) if j != i) for i in range(4)]
    assert smallest[1] < smallest[2] < smallest[3] < smallest[0]
    assert p[1] == pytest.approx(4 * smallest[1])
    assert p[2] == pytest.approx(max(p[1], 3 * smallest[2]))
    assert p[3] == pytest.approx(max(p[2], 2 * smallest[3]))
    assert p[0] == pytest.approx(max(p[3], smallest[0]))


def test_no_p_is_below_that_of_a_clearer_loser_or_above_one() -> None:
    p = beaten_p(np.array([3.0, 1.99, 2.0, 2.0]), np.ones(4), np.full(4, 9.0), np.full(4, 4))
    assert p[1] == p[2] == p[3] < p[0]
    alike = beaten_p(np.zeros(5), np.ones(5), np.full(5, 9.0), np.full(5, 4))
    assert alike.tolist() == [1.0] * 5


NORMS = {
    "bin": (57.05, 0.210, 0.348),
    "torch-bn": (55.87, 0.237, 0.335),
    "bn": (55.34, 0.756, 0.343),
    "in": (46.05, 0.862, 0.313),
    "gn": (43.74, 1.486, 0.332),
    "ln": (36.07, 1.335, 0.285),
    "none": (33.15, 8.974, 0.378),
}
REGULARIZERS = {
    "crop-flip": (60.16, 0.522, 0.306),
    "mixup": (59.07, 0.946, 0.307),
    "rand-augment": (58.52, 0.616, 0.307),
    "none": (57.97, 0.506, 0.363),
    "erasing": (57.78, 0.265, 0.303),
    "auto-augment": (57.24, 0.744, 0.309),
    "dropout 0.2/0.2": (53.92, 1.019, 0.314),
    "all": (53.63, 1.367, 0.308),
    "cutmix": (53.16, 0.361, 0.301),
    "dropout 0.2/0.6": (46.33, 4.309, 0.328),
    "dropout 0.2/0.8": (39.67, 2.126, 0.320),
    "dropout 0.6/0.2": (23.29, 3.165, 0.300),
    "dropout 0.6/0.8": (21.54, 6.597, 0.349),
    "dropout 0.6/0.6": (18.63, 3.788, 0.289),
    "dropout 0.8/0.8": (16.80, 6.521, 0.332),
    "dropout 0.8/0.6": (16.47, 5.393, 0.281),
    "dropout 0.8/0.2": (14.90, 4.063, 0.270),
}
"""Means, standard deviations of three repeats and of single images, in points, as the committed reports have them."""


@pytest.mark.parametrize(("study", "best"), [(NORMS, 3), (REGULARIZERS, 6)])
def test_the_candidates_of_the_committed_reports(study: dict[str, tuple[float, float, float]], best: int) -> None:
    means, stds, images = np.array(list(study.values())).T
    counts = np.full(len(study), 3)
    stays = kept(means, beaten_p(means, *shrunk_variances(stds**2, counts, images**2), counts) < LEAVES_AT)
    assert [name for name, one in zip(study, stays.tolist(), strict=True) if one] == list(study)[:best]


@given(
    arrays(float, (6,), elements=st.floats(-10, 10)),
    arrays(float, (6,), elements=st.floats(0, 50)),
    st.floats(0.0001, 0.5),
)
def test_no_better_mean_is_excluded_while_a_worse_one_is_kept(
    means: np.ndarray, variances: np.ndarray, alpha: float
) -> None:
    counts = np.full(6, 3)
    shrunk, degrees = shrunk_variances(variances, counts)
    stays = kept(means, beaten_p(means, shrunk, degrees, counts) < alpha)
    assert stays[means.argmax()]
    assert not any(means[i] > means[j] for i in range(6) for j in range(6) if stays[j] and not stays[i])


def test_the_set_of_a_study(grid: StudyResults) -> None:
    found = candidates(grid, "test.accuracy")
    assert [one.label for one in found.conditions] == ["bn", "gn", "ln", "none"]
    assert [one.label for one in found.kept] == ["bn", "gn"]
    assert [one.label for one in found.left] == ["ln", "none"]
    assert not found.decided and found.alpha == LEAVES_AT
    far = rescored(grid, {**SCORES, "gn": [0.80, 0.81, 0.80]})
    assert candidates(far, "test.accuracy").decided


def test_a_single_repeat_neither_leaves_nor_makes_another_leave(tmp_path: Path) -> None:
    one = candidates(complete(tmp_path, repeats=1), "test.accuracy")
    assert {each.standing for each in one.conditions} == {"untested"}
    assert not one.decided and len(one.open) == 4


def test_a_worst_condition_of_one_repeat_keeps_no_other_in(grid: StudyResults) -> None:
    single = replace(grid, trials=tuple(t for t in grid.trials if t.condition.label != "none" or t.index == 0))
    found = {one.label: one.standing for one in candidates(single, "test.accuracy").conditions}
    assert found == {"bn": "kept", "gn": "kept", "ln": "left", "none": "untested"}


def test_repeats_that_never_vary_decide_nothing(grid: StudyResults) -> None:
    still = rescored(grid, {"bn": [0.9] * 3, "gn": [0.8] * 3, "ln": [0.7] * 3, "none": [0.6] * 3})
    assert len(candidates(still, "test.macro_f1").conditions) == 4
    lost = replace(still, trials=tuple(replace(t, folder=Path("/nowhere")) for t in still.trials))
    found = candidates(lost, "test.accuracy")
    assert {one.standing for one in found.conditions} == {"kept"}
    assert {one.p for one in found.conditions} == {1.0}


def test_less_is_better_in_a_loss(grid: StudyResults) -> None:
    found = candidates(grid, "test.loss").conditions
    assert [one.mean for one in found] == sorted(one.mean for one in found)
    assert found[0].standing == "kept"


def test_images_set_a_floor_of_the_accuracy_alone(grid: StudyResults) -> None:
    condition = grid.conditions[0]
    right = np.stack(list(right_answers(grid, condition).values()))
    shares = right.mean(0)
    coins = sum(share * (1 - share) for share in shares.tolist()) * 3 / 2 / right.shape[1] ** 2
    assert image_variance(right) == pytest.approx(coins)
    assert image_variance(right[:1]) is None
    (found,) = [one for one in candidates(grid, "test.accuracy").conditions if one.key == condition.key]
    assert found.image_std == pytest.approx(math.sqrt(coins))
    assert found.std is not None and found.std >= math.sqrt(coins)
    calm = rescored(grid, {label: [values[0] + i * 1e-7 for i in range(3)] for label, values in SCORES.items()})
    assert all(
        one.std is not None and one.image_std is not None and one.std >= one.image_std
        for one in candidates(calm, "test.accuracy").conditions
    )
    assert {one.image_std for one in candidates(grid, "test.macro_f1").conditions} == {None}


def test_independent_coins_vary_as_the_floor_says() -> None:
    rng = np.random.default_rng(3)
    chances = rng.uniform(size=400)
    floors = [image_variance(rng.uniform(size=(3, 400)) < chances) for _ in range(300)]
    assert np.mean([floor for floor in floors if floor]) == pytest.approx(
        (chances * (1 - chances)).sum() / 400**2, rel=0.02
    )


def test_seeds_and_images_together_by_the_mean_squares_of_a_crossed_layout() -> None:
    chances = np.linspace(0.2, 0.9, 50) + np.array([[-0.3], [0.0], [0.0], [0.3]])
    right = np.random.default_rng(1).uniform(size=(4, 50)) < chances
    found = crossed_interval(right)
    assert found is not None
    runs, images, x = 4, 50, right.astype(float)
    rows, columns = x.mean(1), x.mean(0)
    of_runs = images * rows.var(ddof=1)
    of_images = runs * columns.var(ddof=1)
    rest = ((x - rows[:, None] - columns + x.mean()) ** 2).sum() / (3 * 49)
    both = of_runs + of_images - rest
    degrees = both**2 / (of_runs**2 / 3 + of_images**2 / 49 + rest**2 / (3 * 49))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(both / 200)
    assert found.both == pytest.approx((x.mean() - half, x.mean() + half))
    assert found.seeds == pytest.approx(stats.t.interval(0.95, 3, rows.mean(), stats.sem(rows)))
    assert found.images_only == pytest.approx(stats.t.interval(0.95, 49, columns.mean(), stats.sem(columns)))
    assert crossed_interval(right[:1]) is None
    alike = crossed_interval(np.repeat(right[:1], 3, axis=0))
    assert alike is not None and alike.both == pytest.approx(alike.images_only)
    assert alike.seeds == (alike.mean, alike.mean)
