"""What this machine can do for benchkit, and what stands in the way: findings with advice. Imports no torch itself."""

from benchkit.doctor.examination import examine
from benchkit.doctor.finding import Diagnosis

__all__ = ["Diagnosis", "examine"]
