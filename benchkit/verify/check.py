"""What a verification says: one line for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchkit.errors import first_of

CheckState = Literal["holds", "differs", "fails", "unchecked"]
"""differs is told and does not fail: this machine is another one. unchecked says what could not be looked at."""

WORDS: dict[CheckState, str] = {
    "holds": "holds",
    "differs": "differs here",
    "fails": "DOES NOT HOLD",
    "unchecked": "not checked",
}
MOST_PROBLEMS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCheck:
    """One thing that was looked at: what it is, what came of it, and why, with one line for each problem."""

    name: str
    state: CheckState
    told: str
    problems: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Return what is told, and the first problems below it."""
        shown = first_of([f"- {line}" for line in self.problems], MOST_PROBLEMS)
        return "\n".join([self.told, *shown])


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All checks of a report, in the order in which they are told."""

    checks: tuple[ReportCheck, ...]

    def failed(self, *, strict: bool = False) -> bool:
        """Return whether anything does not hold; with `strict`, what differs on this machine counts too."""
        bad = ("fails", "differs") if strict else ("fails",)
        return any(check.state in bad for check in self.checks)

    def plain(self) -> list[dict[str, Any]]:
        """Return the checks as plain values."""
        return [
            {"check": check.name, "state": check.state, "told": check.told, "problems": list(check.problems)}
            for check in self.checks
        ]


def check_of(name: str, good: str, bad: str, problems: Sequence[str]) -> ReportCheck:
    """Return a check that holds, told as `good`, or fails, told as `bad`, when there are problems."""
    return ReportCheck(
        name=name, state="fails" if problems else "holds", told=bad if problems else good, problems=tuple(problems)
    )
