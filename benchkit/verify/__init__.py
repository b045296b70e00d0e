"""Checking a report against its capsule, against this machine, and against trials that are trained again."""

from benchkit.verify.check import Check, Verification
from benchkit.verify.opening import open_report
from benchkit.verify.verification import verify

__all__ = ["Check", "Verification", "open_report", "verify"]
