"""The rules that all kinds share whose plugins are trained with: resuming, ends of ranges, choices, recorded steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchkit.testing.check import CheckRule, rule
from benchkit.testing.recorded import LIKELY, hold_to_recording
from benchkit.testing.resuming import hold_to_resuming
from benchkit.testing.specimens import trained
from benchkit.testing.subject import Subject
from benchkit.testing.trained_options import hold_to_choices, hold_to_ranges, instance_of
from benchkit.train.run import Run

RunOf = Callable[[Subject, Any, int], Run]
"""A subject, an instance of its plugin and a number of epochs to a run."""


def trained_rules(
    run_of: RunOf, *, forgets: str, seen: Callable[[Subject], Subject] = lambda subject: subject
) -> tuple[CheckRule, ...]:
    """Return `resume`, `search-range`, `choices` and `recorded` of a kind whose runs `run_of` makes.

    `forgets` is the likely reason why a run does not go on as it was; `seen` gives the subject whose plugin is called
    with its options alone, where a kind's own is called with more.
    """

    @rule("resume", likely=forgets)
    def resume(subject: Subject) -> None:
        """A run that is saved after two epochs and continued by a new instance ends as one that was not."""
        shown = seen(subject)
        hold_to_resuming(lambda: run_of(shown, instance_of(shown), 4), subject.scratch("resume") / "checkpoint.pt")

    @rule(
        "search-range",
        likely="the card's range allows values that the constructor refuses, or at which training breaks",
    )
    def search_range(subject: Subject) -> None:
        """The card gives a range for what a search would vary, and both ends of every range can be trained with."""
        shown = seen(subject)
        hold_to_ranges(shown, lambda made: trained(run_of(shown, made, 1)))

    @rule(
        "choices", likely="the code for this value is seldom run: the card or the annotation allows what it cannot do"
    )
    def choices(subject: Subject) -> None:
        """Every choice of an option, and both values of a bool, can be trained with."""
        shown = seen(subject)
        hold_to_choices(shown, lambda made: trained(run_of(shown, made, 1)))

    @rule("recorded", likely=LIKELY)
    def recorded(subject: Subject) -> None:
        """Recorded as a GPU records them, steps with it do what they do one by one."""
        shown = seen(subject)
        hold_to_recording(shown, lambda: run_of(shown, instance_of(shown), 2))

    return resume, search_range, choices, recorded
