"""Checking a report against its capsule, against this machine, and against trials that are trained again."""

from benchkit.verify.check import ReportCheck, Verification
from benchkit.verify.opening import open_report
from benchkit.verify.verification import verify

__all__ = ["ReportCheck", "Verification", "open_report", "verify"]
