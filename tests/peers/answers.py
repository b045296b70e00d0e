"""Studies drawn from pools of real repeats, and how long each way of deciding takes until the best one is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from answer_pools import QUESTIONS, Pool, start

from benchkit.plan import LEAVES_AT, InterimAnalysis, plan_of_looks

sys.path.insert(0, str(Path(__file__).parents[1]))
from decision_rules import Looked, looked_at

STUDIES = 2000
WORSE = 0.003
"""A condition whose mean over the pool is behind the best one's by more than this should not be found the best."""

AT_ONCE = 250
"""Studies of which the right answers are held in memory together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """The median of a quantity over studies, and its 10 % and 90 % quantiles."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One way of deciding `question`, over so many drawn `studies`.

    `spent` are hours until a study is decided or given up, `hours` those of the decided ones alone, None without any.
    `decided` is their share of all studies, `wrong` the share of all that found a condition best that is worse than
    another by more than `WORSE` in the pool. `repeats` is how many of each condition the pool holds.
    """

    question: str
    way: str
    rule: str
    studies: int
    repeats: int
    hours: Quantiles | None
    spent: Quantiles
    decided: float
    wrong: float

    def text(self) -> str:
        """Return a line for a terminal, in seconds."""
        return (
            f"{self.question} {self.way:8} {self.rule:47} decided {self.decided:4.0%}, wrongly {self.wrong:5.2%}, "
            f"after {_seconds(self.hours)} s; decided or given up after {_seconds(self.spent)} s"
        )


def _seconds(hours: Quantiles | None) -> str:
    return f"{3600 * hours.middle:.0f} [{3600 * hours.low:.0f}..{3600 * hours.high:.0f}]" if hours else "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A way of deciding: its looks, how many sweeps are started for it, and whether repeats are pruned."""

    name: str
    plan: tuple[InterimAnalysis, ...]
    sweeps: int = 1
    pruned: bool = False


def rules(most: int) -> Iterator[Rule]:
    """Yield the ways of deciding with at most so many repeats of a condition."""
    for n in (3, 5, 10, 20):
        if n <= most:
            yield Rule(name=f"{n} repeats of each", plan=(InterimAnalysis(number=1, n=n, alpha=LEAVES_AT),))
    continued = plan_of_looks(3, most, already_reported=True)
    yield Rule(name="3 repeats, reported, then until decided", plan=continued, sweeps=2)
    yield Rule(name="until decided", plan=plan_of_looks(3, most))
    yield Rule(name="until decided, repeats pruned as searches are", plan=plan_of_looks(3, most), pruned=True)


def answers_of(pool: Pool, studies: int = STUDIES, seed: int = 34) -> list[Answer]:
    """Return what each way of deciding makes of the same studies, drawn from a pool without replacement.

    A drawn study is a random order of the pool's random seeds: its conditions share them, as a real study's do.
    """
    rng, most = np.random.default_rng(seed), min(QUESTIONS[pool.question].most, pool.size)
    drawn = np.stack([rng.permutation(pool.size)[:most] for _ in range(studies)])
    pieces = [drawn[at : at + AT_ONCE] for at in range(0, studies, AT_ONCE)]
    return [_answer(pool, rule, pieces) for rule in rules(most)]


def _answer(pool: Pool, rule: Rule, pieces: list[np.ndarray]) -> Answer:
    found, seconds = zip(*(_studied(pool, rule, drawn) for drawn in pieces), strict=True)
    best = np.concatenate([one.best for one in found])
    hours = (np.concatenate(seconds) / pool.jobs + rule.sweeps * start(pool)) / 3600
    means = pool.table("accuracy").astype(float).mean(0)
    worse = means < means.max() - WORSE
    return Answer(
        question=pool.question,
        way=pool.way,
        rule=rule.name,
        studies=len(best),
        repeats=pool.size,
        hours=_quantiles(hours[best >= 0]) if (best >= 0).any() else None,
        spent=_quantiles(hours),
        decided=float((best >= 0).mean()),
        wrong=float(((best >= 0) & worse[best]).mean()),
    )


def _quantiles(values: np.ndarray) -> Quantiles:
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return Quantiles(middle=float(middle), low=float(low), high=float(high))


def _studied(pool: Pool, rule: Rule, drawn: np.ndarray) -> tuple[Looked, np.ndarray]:
    """Return what the looks make of drawn studies (studies, n), and the seconds of all that each trains."""
    whole, epochs, once = pool.costs()
    scores = pool.table("accuracy").astype(float)[drawn]
    floor = _image_floor(pool.right()[drawn])
    if not rule.pruned:
        found = looked_at(scores, rule.plan, floor)
        spent = np.take_along_axis(whole[drawn].cumsum(1), found.counts[:, None] - 1, 1)[:, 0]
        return found, spent.sum(1) + once.sum()
    pruning = Pruning(losses=pool.table("losses").astype(float)[drawn], epochs=epochs[drawn], whole=whole[drawn])
    found = looked_at(scores, rule.plan, floor, pruning.up_to)
    return found, pruning.spent + once.sum()


def _image_floor(right: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that tells, by counts (studies, k), the spread that test images alone give a repeat.

    As `benchkit.analysis.candidates` has it of one condition; `right` is bool (studies, n, k, images).
    """
    so_far = right.cumsum(1, dtype=np.int16)

    def floor(counts: np.ndarray) -> np.ndarray:
        share = np.take_along_axis(so_far, (counts - 1)[:, None, :, None], 1)[:, 0] / counts[..., None]
        coins: np.ndarray = (share * (1 - share)).sum(-1) * counts / (counts - 1)
        return np.sqrt(coins) / right.shape[-1]

    return floor


@dataclass(slots=True, kw_only=True)
class Pruning:
    """Repeats given up by the median rule of a search, whose condition gets no more repeats then.

    Trials are trained by repeat, conditions in the study's order. One is given up after an epoch, from a quarter of
    them on, when its least loss so far is above the median of the losses after that epoch of those that were trained to
    their end, five or more (`benchkit.ledger.samplers.make_pruner`); the last condition is never given up.
    `losses` and `epochs` (seconds) are (studies, n, k, epochs), `whole` (studies, n, k) the seconds of whole repeats.
    """

    losses: np.ndarray
    epochs: np.ndarray
    whole: np.ndarray
    trained: int = 0
    ended: list[np.ndarray] = field(default_factory=list)
    spent: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.spent = np.zeros(len(self.losses))

    def up_to(self, n: int, going: np.ndarray) -> np.ndarray:
        """Train repeats up to `n` of the conditions that are `going`, bool (studies, k); return which are left."""
        left = going.copy()
        for repeat in range(self.trained, n):
            for condition in range(left.shape[1]):
                self._train(repeat, condition, left)
        self.trained = n
        return left

    def _train(self, repeat: int, condition: int, left: np.ndarray) -> None:
        losses, runs = self.losses[:, repeat, condition], left[:, condition].copy()
        given_up = self._given_up_after(losses)
        drops = runs & (given_up > 0) & (left.sum(1) > 1)
        left[drops, condition] = False
        until = np.take_along_axis(self.epochs[:, repeat, condition].cumsum(1), given_up[:, None] - 1, 1)[:, 0]
        self.spent += np.where(drops, until, np.where(runs, self.whole[:, repeat, condition], 0.0))
        self.ended.append(np.where((runs & ~drops)[:, None], losses, np.nan))

    def _given_up_after(self, losses: np.ndarray) -> np.ndarray:
        """Return (studies,): the epoch, from 1 on, after which each trial is given up; 0 if never."""
        if len(self.ended) < 5:
            return np.zeros(len(losses), dtype=int)
        ended = np.stack(self.ended)
        count = (~np.isnan(ended[..., 0])).sum(0)
        middle = np.full(losses.shape, np.inf)
        enough = count >= 5
        middle[enough] = np.nanmedian(ended[:, enough], axis=0)
        above = np.minimum.accumulate(losses, 1) > middle
        above[:, : max(1, losses.shape[1] // 4) - 1] = False
        return np.where(above.any(1), above.argmax(1) + 1, 0)
