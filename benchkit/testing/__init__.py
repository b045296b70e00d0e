"""The conformance kit for plugins: the same checks in an author's tests and behind `benchkit plugins check`.

from benchkit.testing import parametrize_checks

@parametrize_checks("norms", "pixel")
def test_kit(check):
    check()
"""

from benchkit.testing.check import KIT_VERSION, Check, CheckFailure, NotApplicable
from benchkit.testing.kit import Verdict, checks, parametrize_checks, run_checks
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
