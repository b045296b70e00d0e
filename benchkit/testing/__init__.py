"""The conformance kit for plugins: the same checks in an author's tests and behind `benchkit plugins check`.

from benchkit.testing import parametrize_checks

@parametrize_checks("norms", "pixel")
def test_kit(check):
    check()
"""

from typing import TYPE_CHECKING, Any

from benchkit.registry.kit_record import KIT_VERSION
from benchkit.testing.check import Check, CheckFailure, NotApplicable
from benchkit.testing.kit import Verdict, checks, parametrize_checks, run_checks

if TYPE_CHECKING:
    from benchkit.testing.optimizers import optimizer_fault

__all__ = [
    "KIT_VERSION",
    "Check",
    "CheckFailure",
    "NotApplicable",
    "Verdict",
    "checks",
    "optimizer_fault",
    "parametrize_checks",
    "run_checks",
]


def __getattr__(name: str) -> Any:
    """Return `optimizer_fault`, for which torch is imported when it is asked for: a sweep reads kept verdicts alone."""
    if name == "optimizer_fault":
        from benchkit.testing.optimizers import optimizer_fault

        return optimizer_fault
    raise AttributeError(f"module 'benchkit.testing' has no attribute {name!r}")
