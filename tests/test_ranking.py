"""The ranking's decisions: Holm's correction at every place where it must act, against SciPy's noncentral t."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_results import complete, rescored

from benchkit.analysis.ranking import Ranking, rank
from benchkit.analysis.summary import summarize

# Raw p values: bn against gn 0.035, bn against ln 0.041, gn against ln 0.82. Holm: 0.106, 0.106 and 0.82.
CLOSE = {"bn": (0.80, 0.81, 0.83, 0.82), "gn": (0.78, 0.80, 0.80, 0.81), "ln": (0.79, 0.78, 0.82, 0.79)}
PAIRS = [("bn", "gn"), ("bn", "ln"), ("gn", "ln")]


@pytest.fixture
def close(tmp_path: Path) -> Ranking:
    return rank(rescored(complete(tmp_path, tuple(CLOSE), repeats=4), CLOSE), "test.accuracy")


def power(difference: float, std: float, n: int, alpha: float) -> float:
    threshold, shift = stats.t.ppf(1 - alpha / 2, n - 1), difference * math.sqrt(n) / std
    return float(stats.nct.sf(threshold, n - 1, shift) + stats.nct.cdf(-threshold, n - 1, shift))


def test_what_only_the_uncorrected_test_calls_different_is_not_decided(close: Ranking, tmp_path: Path) -> None:
    raw = [stats.ttest_rel(CLOSE[first], CLOSE[second]).pvalue for first, second in PAIRS]
    assert raw[0] < raw[1] < 0.05 < raw[2]
    assert [pair.p_adjusted for pair in close.pairs] == pytest.approx([3 * raw[0], 3 * raw[0], raw[2]])
    assert not any(pair.decided for pair in close.pairs)
    assert [row.verdict for row in close.rows] == ["best", "tied", "tied"]
    assert not close.decided
    given = rescored(complete(tmp_path, tuple(CLOSE), repeats=4), CLOSE)
    assert summarize(given).answer[0].startswith("The ranking is not decided")


def test_what_could_be_seen_and_how_many_repeats_decide_stand_at_the_corrected_level(close: Ranking) -> None:
    for pair, (first, second) in zip(close.pairs[:2], PAIRS[:2], strict=True):
        differences = np.subtract(CLOSE[first], CLOSE[second])
        mean, std = float(differences.mean()), float(differences.std(ddof=1))
        assert pair.detectable is not None and pair.repeats_needed is not None
        assert power(pair.detectable, std, 4, 0.05 / 3) == pytest.approx(0.8, abs=0.004)
        powers = [power(mean, std, n, 0.05 / 3) for n in range(2, 30)]
        assert pair.repeats_needed == 2 + next(at for at, found in enumerate(powers) if found >= 0.8)
