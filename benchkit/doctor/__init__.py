"""What this machine can do for benchkit, and what stands in the way: findings with advice. Imports no torch itself."""

from benchkit.doctor.diagnosis import Diagnosis
from benchkit.doctor.examination import examine

__all__ = ["Diagnosis", "examine"]
