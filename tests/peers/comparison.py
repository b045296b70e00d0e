"""Contenders' measurements on one workload: medians, spread, ratios within rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One process: images per second of an epoch once warm, seconds to the first step, and seconds in all."""

    rate: float
    first_step: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender over all rounds. `ratio` is the median of the rounds' ratios to the script, None without it.

    `trials_per_hour` counts whole trainings, process start included; loops of a single training are run one after
    another for that.
    """

    contender: str
    n: int
    rate: float
    low: float
    high: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    first_step: float
    trials_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A workload's rows, in the order in which they were measured."""

    title: str
    trials: int
    rows: tuple[Row, ...]

    def text(self) -> str:
        """Return a table for a terminal."""
        lines = [self.title]
        for row in self.rows:
            ratio = f"x{row.ratio:.2f} [{row.ratio_low:.2f}..{row.ratio_high:.2f}]" if row.ratio is not None else ""
            lines.append(
                f"  {row.contender:20}{row.rate:10,.0f} img/s [{row.low:,.0f}..{row.high:,.0f}] {ratio:22}"
                f" first step {row.first_step:5.1f} s {row.trials_per_hour:8,.0f} trials/h"
            )
        return "\n".join(lines)


def compare(title: str, trials: int, found: Mapping[str, Sequence[Measured]]) -> Comparison:
    """Return the comparison of contenders that were each measured once in every round.

    A benchkit process trains all `trials`, a loop one of them.
    """
    return Comparison(title=title, trials=trials, rows=tuple(_row(name, found, trials) for name in found))


def _row(name: str, found: Mapping[str, Sequence[Measured]], trials: int) -> Row:
    own, rates = found[name], [one.rate for one in found[name]]
    ratios = [a.rate / b.rate for a, b in zip(own, found["script"], strict=True)] if "script" in found else []
    each = [one.seconds / (trials if name.startswith("benchkit") else 1) for one in own]
    return Row(
        contender=name,
        n=len(own),
        rate=statistics.median(rates),
        low=min(rates),
        high=max(rates),
        ratio=statistics.median(ratios) if ratios else None,
        ratio_low=min(ratios) if ratios else None,
        ratio_high=max(ratios) if ratios else None,
        first_step=statistics.median(one.first_step for one in own),
        trials_per_hour=3600 / statistics.median(each),
    )
