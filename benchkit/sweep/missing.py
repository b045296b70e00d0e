"""How many trials of a plan have not ended. Imports no torch."""

from __future__ import annotations

from benchkit.ledger import Ledger
from benchkit.plan import Plan
from benchkit.results import State

UNFINISHED: tuple[State, ...] = ("waiting", "stale", "running")
"""The states of trials that were queued and have not ended."""


def is_missing(ledger: Ledger, plan: Plan) -> bool:
    """Return whether any trial of a plan has not ended."""
    return missing_count(ledger, plan) > 0


def missing_count(ledger: Ledger, plan: Plan) -> int:
    """Return how many trials of a plan have not ended."""
    states = ledger.states(plan, files=False)
    return sum(states[state] for state in (*UNFINISHED, "missing"))


def is_unfinished(ledger: Ledger, plan: Plan) -> bool:
    """Return whether any trial that was queued has not ended."""
    states = ledger.states(plan, files=False)
    return any(states[state] for state in UNFINISHED)
