"""From trials to numbers: estimates, comparisons and findings as pure functions.

The names below may be used by figure plugins.
"""

from benchkit.analysis.candidates import Candidate, CandidateSet, candidates_of, looks_of
from benchkit.analysis.comparisons import (
    ALPHA,
    POWER,
    ImageComparison,
    PairedComparison,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_t,
)
from benchkit.analysis.estimates import (
    CONFIDENCE,
    Estimate,
    Proportion,
    compared,
    confidence_of,
    done_repeats,
    estimate,
    estimate_metric,
    estimate_of,
    prediction_interval,
    repeats_of,
    value_of,
    values_by_repeat,
    wilson,
)
from benchkit.analysis.training import OverfittingOnset as Onset
from benchkit.analysis.training import overfitting_onset as onset
from benchkit.analysis.wording import metric_unit, metric_words

__all__ = [
    "ALPHA",
    "CONFIDENCE",
    "POWER",
    "Candidate",
    "CandidateSet",
    "Estimate",
    "ImageComparison",
    "Onset",
    "PairedComparison",
    "Proportion",
    "candidates_of",
    "compared",
    "confidence_of",
    "done_repeats",
    "estimate",
    "estimate_metric",
    "estimate_of",
    "holm",
    "looks_of",
    "mcnemar",
    "metric_unit",
    "metric_words",
    "minimum_detectable_difference",
    "onset",
    "paired_t",
    "prediction_interval",
    "repeats_of",
    "value_of",
    "values_by_repeat",
    "wilson",
]
