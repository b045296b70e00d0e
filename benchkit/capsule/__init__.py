"""The capsule: what a report rests on and how to train it again, in one archive inside every HTML and PDF report."""

from benchkit.capsule.making import CapsuleStudy, CapsuleTrial, Shown, ShownTable, make_capsule, shown_of
from benchkit.capsule.reading import Capsule, CapsuleError, read_capsule

__all__ = [
    "Capsule",
    "CapsuleError",
    "CapsuleStudy",
    "CapsuleTrial",
    "Shown",
    "ShownTable",
    "make_capsule",
    "read_capsule",
    "shown_of",
]
