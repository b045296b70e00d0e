"""Metrics that a study asks for and its older trials were not measured by: computed from the logits that they kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchkit.metrics import Metric, Predictions
from benchkit.results import SplitMetrics, SplitName, Trial

BALANCED = "balanced_accuracy"
"""The metric that stands beside the accuracy where classes are unbalanced."""


def measured(trial: Trial, asked: Sequence[Metric]) -> Trial:
    """Return a trial with every metric that its kept predictions give; without these it stays not measured."""
    scored = trial.outcome.metrics if trial.outcome and trial.state == "done" else {}
    lacking = [split for split, known in scored.items() if any(one.name not in known.more for one in asked)]
    if not lacking or trial.outcome is None:
        return trial
    found: dict[SplitName, SplitMetrics] = dict(scored)
    for split in lacking:
        if more := _computed(trial, split, asked):
            found[split] = replace(scored[split], more={**more, **scored[split].more})
    return replace(trial, outcome=replace(trial.outcome, metrics=found))


def _computed(trial: Trial, split: SplitName, asked: Sequence[Metric]) -> Mapping[str, float]:
    from safetensors import SafetensorError

    try:
        kept = Predictions(trial.predictions(split), trial.labels(split))
    except (OSError, KeyError, SafetensorError):
        return {}  # a searched trial's, train's, those of another host; damaged files are named where they are verified
    values = {one.name: one.computed(kept) for one in asked if one.computed}
    return {name: value for name, value in values.items() if value is not None}


def balanced(trial: Trial) -> Trial:
    """Return a trial with the balanced accuracy of each split that it was scored on, from its counts by class."""
    if trial.outcome is None:
        return trial
    scored = {split: _with_balanced(known) for split, known in trial.outcome.metrics.items()}
    return replace(trial, outcome=replace(trial.outcome, metrics=scored))


def _with_balanced(known: SplitMetrics) -> SplitMetrics:
    recalls = [row[at] / sum(row) for at, row in enumerate(known.confusion) if sum(row)]
    if not recalls or BALANCED in known.more:
        return known
    return replace(known, more={**known.more, BALANCED: sum(recalls) / len(recalls)})
