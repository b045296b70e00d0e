"""benchkit: an experiment described in one small file becomes a finished, honest report with one command.

The names below are what plugin authors may import; everything else is private to the toolkit.
"""

from benchkit.device_kind import is_cpu
from benchkit.errors import BenchkitError, DataError, PluginError, TrainingError
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
from benchkit.weight_names import matching_names

__version__ = "0.1.0"

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
    "TrainingError",
    "card",
    "card_of",
    "is_cpu",
    "matching_names",
    "sent_file",
]
