"""When the report calls one condition faster than another."""

from __future__ import annotations

from collections.abc import Sequence

from figure_results import condition, cost, metrics, results, trial

from benchkit.analysis.summary import summarize
from benchkit.analysis.wording import Finding
from benchkit.results import Outcome


def said(rates: dict[str, Sequence[float]]) -> list[Finding]:
    """Return what is said of training speed, given each condition's images per second by repeat."""
    conditions = [condition(label) for label in rates]
    trials = [
        trial(
            of, index, outcome=Outcome(state="done", metrics={"test": metrics(0.8 + index / 100)}, cost=cost(rate=rate))
        )
        for of in conditions
        for index, rate in enumerate(rates[of.label])
    ]
    return [finding for finding in summarize(results(conditions, trials)).findings if finding.rule == "speed"]


def test_the_faster_one_is_named_where_the_intervals_part() -> None:
    # Means 4000 and 2000; half widths 4.302653 * 100 / sqrt(3) = 248.4 each.
    (found,) = said({"bn": (3900.0, 4000.0, 4100.0), "gn": (1900.0, 2000.0, 2100.0)})
    assert found.sentence == "“bn” trains 2 times as fast as “gn”."
    assert "3,752 to 4,248" in found.evidence and "1,752 to 2,248" in found.evidence


def test_nobody_is_named_where_repeats_differ_as_much_as_conditions() -> None:
    # As on a machine under other load: 4000 ± 4.302653 * 2000 / sqrt(3) = 4000 ± 4968 meets 2000.
    (found,) = said({"bn": (2000.0, 4000.0, 6000.0), "gn": (1900.0, 2000.0, 2100.0)})
    assert found.sentence.startswith("No condition can be called faster")


def test_small_differences_are_not_mentioned() -> None:
    assert said({"bn": (1100.0, 1100.0), "gn": (1000.0, 1000.0)}) == []
