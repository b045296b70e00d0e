"""Contenders' measurements on one workload: medians, spread, ratios to the script within rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from limits import Limit
from workloads import Workload

SCRIPT = "script"
QUEUE = 16
"""Trials of a queue, for which a process starts, and compiles, once."""

LENGTHS = {10: "10 s", 60: "1 min", 600: "10 min"}
"""The trials for which trials an hour are told, by the seconds that the script's steps take of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One process: images per second of an epoch once warm, seconds to the first step, and seconds in all.

    A sweep that trains several `jobs` at a time, each as long as a process's one trial, has all their images a second.
    `matrix_share` is the share that training used of the device's rate in products of large matrices, 0 where unknown.
    """

    rate: float
    first_step: float
    seconds: float
    matrix_share: float = 0.0
    jobs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A quantity over rounds: the median, and the least and greatest."""

    middle: float
    low: float
    high: float

    def text(self, form: str) -> str:
        """Return the median with its range, each in a format such as `,.0f`."""
        return f"{self.middle:{form}} [{self.low:{form}}..{self.high:{form}}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender over all rounds: images/s, trials an hour, and how often the script's in the same round each is.

    An hour of trials is one of a long queue: what a process needs up to its first step counts once for all `trials`
    of the workload, for loops as for benchkit, whose `jobs` are trained at a time, at `rate` together. `beside` are the
    seconds of a trial beyond its first step and its images at that rate: first epochs, evaluation, files, the end of
    the process.
    """

    contender: str
    n: int
    rate: Spread
    ratio: Spread | None
    hourly: Spread
    hourly_ratio: Spread | None
    first_step: float
    matrix_share: float = 0.0
    beside: float = 0.0
    jobs: int = 1

    def hourly_of(self, images: float) -> float:
        """Return how many trials of so many images it trains an hour in a queue of `QUEUE`, as many at a time."""
        trial = self.beside + self.jobs * images / self.rate.middle
        return 3600 / (self.first_step / QUEUE + trial / self.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A workload's rows, in the order in which they were measured; `name`, `trials` and `images` are the workload's.

    Each process trained `epochs` of so many images, the first of which warms up; benchkit's trials had `longer` times
    as many. `limit` is what the machine could do at the most. `compiled` are those of `LENGTHS` at which benchkit by
    itself compiles the steps of a queue; `scored` says that the loops, too, score their images.
    """

    name: str
    title: str
    trials: int
    images: int
    epochs: int
    rows: tuple[Row, ...]
    longer: int = 1
    limit: Limit | None = None
    compiled: tuple[int, ...] = ()
    scored: bool = False

    def default(self, seconds: float) -> str:
        """Return by which contender benchkit trains a queue by default whose trials are so long, in the script's steps.

        It fills the processor's cores with trials, one thread each, and compiles steps where that is worth it.
        """
        names = {row.contender: row.jobs for row in self.rows if row.contender.startswith("benchkit")}
        ways = ["benchkit-compiled", "benchkit"] if seconds in self.compiled else ["benchkit"]
        jobs = max(names.values(), default=1)
        found = (name for way in ways for name in (f"{way} --jobs {jobs}", way) if name in names)
        return next(found, "benchkit")

    def hourly(self, seconds: float) -> dict[str, float]:
        """Return, by contender, the trials an hour that are so long that the script's steps take `seconds` of each."""
        script = next((row for row in self.rows if row.contender == SCRIPT), None)
        if script is None or self.trials > 1:
            return {}
        return {row.contender: row.hourly_of(seconds * script.rate.middle) for row in self.rows}

    def text(self) -> str:
        """Return a table for a terminal."""
        lines = [self.title, *([f"  {self.limit.text()}"] if self.limit else [])]
        for row in self.rows:
            ratio = f"x{row.ratio.text('.2f')}" if row.ratio else ""
            hourly = f"x{row.hourly_ratio.text('.2f')}" if row.hourly_ratio else ""
            lines.append(
                f"  {row.contender:26} {row.rate.text(',.0f'):>26} img/s {ratio:20} first step {row.first_step:5.1f} s"
                f" {row.hourly.middle:8,.0f} trials/h {hourly}"
                + (f" {row.rate.middle / self.limit.rate:4.0%} of the limit" if self.limit else "")
            )
        return "\n".join(lines)


def compare(workload: Workload, epochs: int, found: Mapping[str, Sequence[Measured]]) -> Comparison:
    """Return the comparison of contenders that were each measured once in every round.

    A benchkit process trains all of the workload's trials, or as many as it trains at a time, a loop one of them, or
    the first epochs of it.
    """
    return Comparison(
        name=workload.name,
        title=workload.title,
        trials=workload.trials,
        images=workload.count,
        epochs=epochs,
        rows=tuple(_row(one, found, workload, epochs) for one in found),
        longer=workload.longer,
    )


def _row(name: str, found: Mapping[str, Sequence[Measured]], workload: Workload, epochs: int) -> Row:
    def hourly(contender: str) -> Callable[[Measured], float]:
        whole, trials, longer = contender.startswith("benchkit"), workload.trials, workload.longer

        def seconds(one: Measured) -> float:
            """Return those of one trial."""
            return (
                one.seconds / max(trials, one.jobs)
                if whole
                else longer * (one.seconds - one.first_step) + one.first_step / trials
            )

        return lambda one: 3600 / seconds(one)

    own, script = found[name], found.get(SCRIPT, ())
    return Row(
        contender=name,
        n=len(own),
        rate=spread([one.rate for one in own]),
        ratio=_ratio(own, script, lambda one: one.rate, lambda one: one.rate),
        hourly=spread([hourly(name)(one) for one in own]),
        hourly_ratio=_ratio(own, script, hourly(name), hourly(SCRIPT)),
        first_step=statistics.median(one.first_step for one in own),
        beside=statistics.median(_beside(name, one, workload, epochs) for one in own) if workload.trials == 1 else 0.0,
        matrix_share=statistics.median(one.matrix_share for one in own),
        jobs=own[0].jobs,
    )


def _beside(name: str, one: Measured, workload: Workload, epochs: int) -> float:
    images = epochs * workload.count * (workload.longer if name.startswith("benchkit") else 1)
    return max(0.0, one.seconds - one.first_step - one.jobs * images / one.rate)


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the least and the greatest of some values."""
    return Spread(middle=statistics.median(values), low=min(values), high=max(values))


def _ratio(
    own: Sequence[Measured],
    script: Sequence[Measured],
    value: Callable[[Measured], float],
    theirs: Callable[[Measured], float],
) -> Spread | None:
    if not script:
        return None
    return spread([value(a) / theirs(b) for a, b in zip(own, script, strict=True)])
