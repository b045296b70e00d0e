"""Which conditions may be the best: no other one beats them beyond chance, by variances shrunk to a common one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchkit.analysis.comparisons import varies
from benchkit.analysis.degenerate import one_class_conditions
from benchkit.analysis.estimates import compared, estimate, values_by_repeat
from benchkit.analysis.image_variance import METRIC, fold_variance, image_variance, right_answers
from benchkit.analysis.interim import LEAVES_AT
from benchkit.analysis.wording import lower_is_better
from benchkit.results import StudyResults

if TYPE_CHECKING:
    import numpy as np

    from benchkit.plan import Condition

LEAST_SHARED = 3
"""Variances are shrunk to a common one from this many conditions on: two do not tell how far variances differ."""

SHARED = 0.15
"""The share of the others' degrees of freedom that a condition borrows at most: few variances may be alike by chance.

Without it the best of two among seven conditions, of which one spreads 20 times as far as the other, leaves too often
(simulated, see tests/decision_rules.py): in 0.054 of studies with three repeats instead of 0.05.
"""

Standing = Literal["kept", "left", "untested", "one class"]
"""kept: it may be the best; left: another one is better; untested: one repeat alone; one class: its models say nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A condition's mean over `n` repeats, what the rule makes of its spread, and whether it may be the best.

    `std` is the standard deviation of one repeat after shrinking, never below `image_std`, which the test images alone
    set (None where that is not known); `degrees` are its degrees of freedom. `p` is the smallest one-sided p against
    another condition, by Holm's correction over the conditions. `std`, `degrees` and `p` are None when untested.
    """

    key: str
    label: str
    mean: float
    n: int
    std: float | None
    image_std: float | None
    degrees: float | None
    p: float | None
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSet:
    """The conditions by their mean of `metric`, best first, each with its standing at the level `alpha`."""

    metric: str
    alpha: float
    conditions: tuple[Candidate, ...]

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """Return the conditions that may be the best, best mean first."""
        return tuple(one for one in self.conditions if one.standing == "kept")

    @property
    def left(self) -> tuple[Candidate, ...]:
        """Return the conditions that are worse than another one beyond chance."""
        return tuple(one for one in self.conditions if one.standing == "left")

    @property
    def open(self) -> tuple[Candidate, ...]:
        """Return the conditions of which more repeats could tell something: those kept and those not tested."""
        return tuple(one for one in self.conditions if one.standing in ("kept", "untested"))

    @property
    def decided(self) -> bool:
        """Return whether the first one alone may be the best, of two or more."""
        return len(self.conditions) > 1 and [one.key for one in self.open] == [self.conditions[0].key]


def candidates(
    results: StudyResults,
    metric: str,
    alpha: float = LEAVES_AT,
    *,
    most: int | None = None,
    among: Collection[str] | None = None,
) -> CandidateSet:
    """Return which conditions may have the best mean of `metric`; tested at the level `alpha`.

    `most` uses repeats with a smaller index alone, `among` names by key those that have not left at an earlier look.
    A condition with one repeat neither leaves nor makes another one leave, nor does one whose models name one class.
    """
    import numpy as np

    dull = {row.key for row in one_class_conditions(results) if row.always}
    sign = -1.0 if lower_is_better(metric) else 1.0
    read = [(condition, _values(results, condition, metric, most)) for condition in compared(results)]
    rows = sorted(((c, values) for c, values in read if values), key=lambda row: -sign * float(np.mean(row[1])))
    tested = [(c, values) for c, values in rows if len(values) > 1 and c.key not in dull]
    floors = {c.key: _image_variance(results, c, metric, most) for c, _ in tested}
    spreads = [estimate(values, resampled=results.resampled) for _, values in tested]
    variances = np.array([(one.std or 0.0) ** 2 if varies(one) else 0.0 for one in spreads])
    counts = np.array([one.n for one in spreads])
    floor = np.array([floors[c.key] or 0.0 for c, _ in tested])
    shrunk, degrees = shrunk_variances(variances, counts, floor)
    means = sign * np.array([one.mean for one in spreads])
    # A mean of folds varies by v (1/n + resampled), as one of fewer independent repeats does.
    p = beaten_p(means, shrunk, degrees, counts / (1 + counts * results.resampled))
    out = (p < alpha) | np.array([among is not None and c.key not in among for c, _ in tested], dtype=bool)
    stays = kept(means, out)
    place = {c.key: index for index, (c, _) in enumerate(tested)}

    def candidate(condition: Condition, values: list[float]) -> Candidate:
        at = place.get(condition.key)
        standing: Standing = "one class" if condition.key in dull else "untested"
        if at is not None:
            standing = "kept" if stays[at] else "left"
        known = floors.get(condition.key)
        return Candidate(
            key=condition.key,
            label=condition.label,
            mean=float(np.mean(values)),
            n=len(values),
            std=None if at is None else float(np.sqrt(shrunk[at])),
            image_std=None if known is None else float(np.sqrt(known)),
            degrees=None if at is None else float(degrees[at]),
            p=None if at is None else float(p[at]),
            standing=standing,
        )

    return CandidateSet(metric=metric, alpha=alpha, conditions=tuple(candidate(c, values) for c, values in rows))


def _values(results: StudyResults, condition: Condition, metric: str, most: int | None) -> list[float]:
    values = values_by_repeat(results, condition, metric)
    return [value for index, value in sorted(values.items()) if most is None or index < most]


def _image_variance(results: StudyResults, condition: Condition, metric: str, most: int | None) -> float | None:
    import numpy as np

    if metric != METRIC:
        return None
    if results.resampled:
        return fold_variance(results, condition, most)
    right = [bits for i, bits in right_answers(results, condition).items() if most is None or i < most]
    return image_variance(np.stack(right)) if right else None


def shrunk_variances(
    variances: np.ndarray, counts: np.ndarray, floor: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return variances of one repeat shrunk to the common one, and their degrees of freedom, each float (..., k).

    `variances` are sample variances (..., k) of `counts` >= 2 repeats each. With d = counts - 1, the common variance
    s0² and its weight d0 come from the moments of log variances: e = log v - ψ(d/2) + log(d/2) has the variance
    ψ'(d0/2) + ψ'(d/2) and the mean log s0² + ψ(d0/2) - log(d0/2) (Smyth, Linear models and empirical Bayes methods,
    Statistical Applications in Genetics and Molecular Biology 3(1), 2004). Where e varies no more than by chance, d0 is
    infinite there; here it is at most `SHARED` of the other conditions' degrees of freedom. Shrunk:
    (d0 s0² + d v) / (d0 + d), with d0 + d degrees of freedom. Variances of 0 take no part in the moments; where fewer
    than `LEAST_SHARED` do, nothing is shrunk. No variance is below the `floor`, neither v, once the moments are taken,
    nor what it is shrunk to.
    """
    import numpy as np
    from scipy.special import digamma, polygamma

    d = np.broadcast_to(counts - 1.0, variances.shape)
    positive = variances > 0
    conditions = positive.sum(-1)
    n = np.maximum(conditions, 1)
    e = np.log(np.where(positive, variances, 1.0)) - digamma(d / 2) + np.log(d / 2)
    mean = np.where(positive, e, 0.0).sum(-1) / n
    spread = np.where(positive, e - mean[..., None], 0.0)
    chance = np.where(positive, polygamma(1, d / 2), 0.0).sum(-1) / n
    excess = (spread**2).sum(-1) / np.maximum(n - 1, 1) - chance
    varied = excess > 1e-9
    d0 = 2 * trigamma_inverse(np.where(varied, excess, 1.0))
    common = np.exp(mean + np.where(varied, digamma(d0 / 2) - np.log(d0 / 2), 0.0))[..., None]
    most = SHARED * (1 - 1 / n) * np.where(positive, d, 0.0).sum(-1)
    weight = np.where(conditions < LEAST_SHARED, 0.0, np.minimum(np.where(varied, d0, np.inf), most))[..., None]
    shrunk: np.ndarray = (weight * common + d * np.maximum(variances, floor)) / (weight + d)
    return np.maximum(shrunk, floor), weight + d


def trigamma_inverse(values: np.ndarray) -> np.ndarray:
    """Return y > 0 with ψ'(y) equal to each of `values` > 0, by Newton's method on 1/ψ' (Smyth 2004, appendix)."""
    import numpy as np
    from scipy.special import polygamma

    y = 0.5 + 1 / values
    for _ in range(20):  # 1/ψ' is convex and nearly linear: from this start it converges from one side
        slope = polygamma(1, y)
        y = y + slope * (1 - slope / values) / polygamma(2, y)
    found: np.ndarray = np.where(values > 1e7, 1 / np.sqrt(values), y)
    return found


def beaten_p(means: np.ndarray, variances: np.ndarray, degrees: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return (..., k): how surely each condition has a better rival, as its smallest p by Holm's correction.

    All are (..., k), more is better. For i and j: Welch's t = (mean_j - mean_i) / √(v_i/n_i + v_j/n_j), one-sided, with
    Satterthwaite's degrees of freedom from `degrees`. Each condition's smallest p is multiplied by the number of those
    that may still be the best when its turn comes, the clearest losers first, and is no smaller than that of a clearer
    one, at most 1 (Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics
    6(2), 1979). All conditions count, not the rivals alone: of two equal ones either may seem better. Where neither of
    a pair varies nothing is tested.
    """
    import numpy as np
    from scipy.special import stdtr

    k = means.shape[-1]
    if k < 2:
        return np.ones(means.shape)
    error = variances / counts
    both = error[..., :, None] + error[..., None, :]
    tested = (both > 0) & ~np.eye(k, dtype=bool)
    safe = np.where(tested, both, 1.0)
    share = np.where(tested, error[..., :, None] / safe, 0.5)
    freedom = 1 / (share**2 / degrees[..., :, None] + (1 - share) ** 2 / degrees[..., None, :])
    ahead = means[..., None, :] - means[..., :, None]
    smallest = np.where(tested, stdtr(freedom, -ahead / np.sqrt(safe)), 1.0).min(-1)
    order = smallest.argsort(-1)
    steps = np.maximum.accumulate(np.take_along_axis(smallest, order, -1) * np.arange(k, 0, -1), -1)
    adjusted = np.empty(means.shape)
    np.put_along_axis(adjusted, order, np.minimum(1.0, steps), -1)
    return adjusted


def kept(means: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return bool (..., k): those that are not `out`, and all whose mean is above that of one that is not."""
    import numpy as np

    if not means.shape[-1]:
        return ~out
    least = np.where(out, np.inf, means).min(-1, keepdims=True)
    stays: np.ndarray = means >= least
    return stays
