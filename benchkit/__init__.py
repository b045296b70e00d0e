"""benchkit: an experiment described in one small file becomes a finished, honest report with one command.

The names below are what plugin authors may import; everything else is private to the toolkit.
"""

from typing import TYPE_CHECKING, Any

from benchkit.device_kind import is_cpu
from benchkit.errors import BenchkitError, DataError, PluginError, TrainingError, first_line
from benchkit.protocols import (
    API_VERSION,
    Batch,
    Card,
    Course,
    Dataset,
    Figure,
    ImageGrid,
    Loss,
    Model,
    Norm,
    NormFactory,
    NothingToDraw,
    OptimizerFactory,
    Range,
    Regularizer,
    RegularizerState,
    Schedule,
    Split,
    Splits,
    card,
    card_of,
)
from benchkit.storage import sent_file
from benchkit.tracking import TrackedRow, TrackedRun, Tracker
from benchkit.weight_names import matching_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from benchkit.frames.workspace import open_workspace as open  # noqa: F401

__all__ = [
    "API_VERSION",
    "Batch",
    "BenchkitError",
    "Card",
    "Course",
    "DataError",
    "Dataset",
    "Figure",
    "ImageGrid",
    "Loss",
    "Model",
    "Norm",
    "NormFactory",
    "NothingToDraw",
    "OptimizerFactory",
    "PluginError",
    "Range",
    "Regularizer",
    "RegularizerState",
    "Schedule",
    "Split",
    "Splits",
    "TrackedRow",
    "TrackedRun",
    "Tracker",
    "TrainingError",
    "card",
    "card_of",
    "first_line",
    "is_cpu",
    "matching_names",
    "sent_file",
]


def __getattr__(name: str) -> Any:
    """Return `open`, which opens a workspace for notebooks; what reads it is imported when it is asked for."""
    if name == "open":
        from benchkit.frames.workspace import open_workspace

        return open_workspace
    raise AttributeError(f"module 'benchkit' has no attribute {name!r}")
