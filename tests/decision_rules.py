"""How often the rules that name a best condition are right: simulated studies, for today's rule and an older one.

Run `python tests/decision_rules.py` for the table of 4,000 studies each; the tests run fewer of the same. The
older rule compares every pair by a paired t test with Holm's correction over all pairs. Numbers are points of accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from benchkit.analysis.candidates import LEAVES_AT, beaten_p, kept, shrunk_variances
from benchkit.plan import InterimAnalysis, plan_of_looks

SEED_EFFECT = 0.1
"""The standard deviation of what a random seed does to all conditions alike."""

FAR = 5.0
"""A condition so many points behind the best one should not be called a candidate."""

Rule = Callable[[np.ndarray, float], np.ndarray]
"""From scores (studies, n, k) and the floor of a repeat's standard deviation to which are kept, bool (studies, k)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """True means and spreads of conditions, and the standard deviation that the test images alone set."""

    name: str
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    floor: float

    @property
    def equal(self) -> Scenario:
        """Return it with all means equal."""
        return Scenario(name=self.name, means=(0.0,) * len(self.means), spreads=self.spreads, floor=self.floor)

    def tie(self, best: int) -> Scenario:
        """Return it with one condition ahead of all others by 0.001."""
        means = tuple(0.001 * (place == best) for place in range(len(self.means)))
        return Scenario(name=self.name, means=means, spreads=self.spreads, floor=self.floor)


NORMS = Scenario(
    name="norms-like",
    means=(57.05, 55.87, 55.34, 46.05, 43.74, 36.07, 33.15),
    spreads=(0.40, 0.45, 0.75, 0.86, 1.5, 1.35, 8.97),
    floor=0.34,
)
CIFAR = Scenario(
    name="full CIFAR-10",
    means=(0.0, -0.1, -0.2, -1.1, -1.4, -1.7, -7.5),
    spreads=(0.25, 0.28, 0.30, 0.30, 0.32, 0.35, 0.80),
    floor=0.25,
)
DROPOUT = Scenario(
    name="dropout-like",
    means=(60.2, 59.1, 58.5, 58.0, 57.8, 57.2, 53.9, 53.6, 53.2, 46.3, 39.7, 23.3, 21.5, 18.6, 16.8, 16.5, 14.9),
    spreads=(0.52, 0.95, 0.62, 0.51, 0.4, 0.74, 1.02, 1.37, 0.4, 4.31, 2.13, 3.16, 6.6, 3.79, 6.52, 5.39, 4.06),
    floor=0.31,
)
SCENARIOS = (NORMS, CIFAR, DROPOUT)


def alike(conditions: int) -> Scenario:
    """Return equal conditions of equal spread, without a floor."""
    return Scenario(name=f"{conditions} alike", means=(0.0,) * conditions, spreads=(0.3,) * conditions, floor=0.0)


def draw(scenario: Scenario, studies: int, n: int, seed: int) -> np.ndarray:
    """Return scores (studies, n, k) of repeats that share their random seeds' effect."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(studies, n, len(scenario.means))) * scenario.spreads
    return np.asarray(scenario.means) + own + rng.normal(size=(studies, n, 1)) * SEED_EFFECT


def candidate_rule(scores: np.ndarray, floor: float, alpha: float = LEAVES_AT) -> np.ndarray:
    """Return which conditions benchkit calls candidates."""
    means, counts = scores.mean(1), np.full(scores.shape[2], scores.shape[1])
    return kept(means, _p(means, scores.var(1, ddof=1), counts, floor) < alpha)


def _p(means: np.ndarray, variances: np.ndarray, counts: np.ndarray, floor: np.ndarray | float) -> np.ndarray:
    return beaten_p(means, *shrunk_variances(variances, counts, floor**2), counts)


def paired_rule(scores: np.ndarray, floor: float = 0.0, alpha: float = 0.05) -> np.ndarray:
    """Return which conditions paired t tests with Holm's correction over all pairs do not tell from the best mean."""
    studies, n, k = scores.shape
    first, second = np.triu_indices(k, 1)
    gaps = scores[:, :, first] - scores[:, :, second]
    t = gaps.mean(1) / (gaps.std(1, ddof=1) / np.sqrt(n))
    p = 2 * stdtr(n - 1, -np.abs(t))
    order = p.argsort(1)
    steps = np.take_along_axis(p, order, 1) * np.arange(len(first), 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(steps, 1), 1)
    apart = np.zeros((studies, k, k), dtype=bool)
    apart[:, first, second] = apart[:, second, first] = adjusted < alpha
    best = scores.mean(1).argmax(1)
    return ~apart[np.arange(studies), best]


def not_monotone(scores: np.ndarray, stays: np.ndarray) -> float:
    """Return the share of studies in which a better mean is out while a worse one is kept."""
    means = scores.mean(1)
    least = np.where(stays, means, np.inf).min(1, keepdims=True)
    return float((~stays & (means > least)).any(1).mean())


def true_best_stays(rule: Rule, scenario: Scenario, studies: int, n: int, seed: int) -> tuple[float, float]:
    """Return in which share of near ties the truly best stays: the mean over which one it is, and the least."""
    shares = []
    for best in range(len(scenario.means)):
        tie = scenario.tie(best)
        stays = rule(draw(tie, studies, n, seed + best), scenario.floor)
        shares.append(float(stays[:, best].mean()))
    return float(np.mean(shares)), min(shares)


def decided_at(scenario: Scenario, plan: Sequence[InterimAnalysis], studies: int, seed: int) -> np.ndarray:
    """Return (studies,): at how many repeats a plan of looks decides, 0 where it never does."""
    floor = np.full(len(scenario.means), scenario.floor)
    return looked_at(draw(scenario, studies, plan[-1].n, seed), plan, lambda counts: floor).decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a plan of looks made of studies: at how many repeats each decided, 0 if never, and what it trained for that.

    `decided` is (studies,), `counts` the repeats of each condition (studies, k), `best` which one was found, or -1.
    """

    decided: np.ndarray
    counts: np.ndarray
    best: np.ndarray


def looked_at(
    scores: np.ndarray,
    plan: Sequence[InterimAnalysis],
    floor: Callable[[np.ndarray], np.ndarray],
    drops: Callable[[int, np.ndarray], np.ndarray] | None = None,
) -> Looked:
    """Return what the looks of a plan decide on scores (studies, n, k).

    Only candidates get more repeats, and what has left stays out, unless something with a lower mean is kept. `floor`
    gives the least standard deviation of a repeat, (..., k), by how many of the repeats of each condition were trained.
    `drops` tells before a look which of those that stay, bool (studies, k), are still in once they are trained up to
    it: what is dropped never comes back, and one that is left alone is the best.
    """
    counts = np.zeros((scores.shape[0], scores.shape[2]), dtype=int)
    stays, dropped = np.ones(counts.shape, dtype=bool), np.zeros(counts.shape, dtype=bool)
    decided = np.zeros(len(scores), dtype=int)
    for look in plan:
        going = (decided == 0)[:, None] & stays
        counts = np.where(going, look.n, counts)
        if drops is not None:
            dropped |= going & ~drops(look.n, going)
        seen = np.arange(scores.shape[1])[None, :, None] < counts[:, None, :]
        means = np.where(seen, scores, 0).sum(1) / counts
        variances = np.where(seen, scores - means[:, None], 0)
        variances = (variances**2).sum(1) / (counts - 1)
        out = (_p(means, variances, counts, floor(counts)) < look.alpha) | ~stays
        found = kept(np.where(dropped, -np.inf, means), out | dropped) & ~dropped
        stays = np.where((decided == 0)[:, None], found, stays)
        decided = np.where((decided == 0) & (stays.sum(1) == 1), look.n, decided)
    return Looked(decided=decided, counts=counts, best=np.where(decided > 0, stays.argmax(1), -1))


def naive_looks(conditions: int, studies: int, seed: int) -> float:
    """Return how often the paired rule calls an equal worse than the best when it looks after each repeat, 3 to 20."""
    scores = draw(alike(conditions), studies, 20, seed)
    found = [~paired_rule(scores[:, :n]).all(1) for n in range(3, 21)]
    return float(np.any(found, axis=0).mean())


def main() -> None:
    """Print the table: what is kept and decided, and how often it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000)
    studies = parser.parse_args().studies
    print(f"{studies} studies each; near ties: best ahead by 0.001, mean over which one is best (least)")
    print("scenario        n  rule        kept   far kept  decided  not monotone  true best stays")
    for scenario in SCENARIOS:
        for n in (3, 5, 8):
            scores = draw(scenario, studies, n, seed=n)
            far = np.asarray(scenario.means) < max(scenario.means) - FAR
            for name, rule in (("paired", paired_rule), ("candidates", candidate_rule)):
                stays = rule(scores, scenario.floor)
                mean, least = true_best_stays(rule, scenario, studies, n, seed=100 * n)
                print(
                    f"{scenario.name:14} {n:2}  {name:10} {stays.sum(1).mean():5.2f}/{len(far):<2}"
                    f"   {(stays & far).any(1).mean():.2f}     {(stays.sum(1) == 1).mean():.2f}"
                    f"         {not_monotone(scores, stays):.2f}         {mean:.3f} ({least:.3f})"
                )
    print("\neverything equal: share of studies in which a winner is found by n = 20")
    for scenario in (alike(2), alike(7), *(one.equal for one in SCENARIOS)):
        rates = [(decided_at(scenario, plan_of_looks(3, 20, told), studies, 9) > 0).mean() for told in (False, True)]
        naive = f"  paired, after each repeat, some one behind: {naive_looks(len(scenario.means), studies, 9):.3f}"
        print(
            f"{scenario.name:14} planned looks {rates[0]:.3f}  n = 3 reported, then continued {rates[1]:.3f}"
            f"{naive if 'alike' in scenario.name else ''}"
        )
    print("\nplanned looks, n = 3 reported and continued: share decided by n")
    for scenario in SCENARIOS:
        decided = decided_at(scenario, plan_of_looks(3, 20, True), studies, 11)
        shares = "  ".join(f"{n}: {((decided > 0) & (decided <= n)).mean():.2f}" for n in (3, 5, 8, 12, 20))
        print(f"{scenario.name:14} {shares}")


if __name__ == "__main__":
    main()
