"""What a figure took from finished models: the arrays of each condition's first repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchkit import NothingToDraw, PluginError
from benchkit.plan import Condition
from benchkit.results import StudyResults
from benchkit_figures.encodings import by_condition, done_repeats, quantity, t_interval, values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A condition's arrays from its repeat 0, with the uint8 originals (N, H, W, C) and labels (N,) among them."""

    condition: str
    arrays: Mapping[str, np.ndarray]


def inspections(results: StudyResults, figure: str) -> tuple[tuple[Inspection, ...], tuple[str, ...]]:
    """Return the inspections of all conditions in report order, and the labels of conditions that have none.

    A model in which there was nothing to find (it left no array beside the images) counts as having none. Raise
    `NothingToDraw` when no condition has one.
    """
    inspected, without = by_condition(results, lambda condition: _inspection(results, condition, figure))
    if not inspected:
        raise NothingToDraw(
            f"repeat 0 of no condition here has left something to show: {figure} must be in report.figures before the "
            "sweep, maps need a network with convolutions, and a report's capsule keeps no pictures"
        )
    return tuple(inspected), without


def _inspection(results: StudyResults, condition: Condition, figure: str) -> Inspection | None:
    first = next((trial for trial in done_repeats(results, condition) if trial.index == 0), None)
    if first is None:
        return None
    try:
        arrays = first.inspected(figure)
    except FileNotFoundError:
        return None
    empty = not arrays.keys() - {"images", "labels"} or not len(arrays.get("images", ()))
    return None if empty else Inspection(condition=condition.label, arrays=arrays)


def inspected_images(results: StudyResults, figure: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the uint8 originals (N, H, W, C) and labels (N,) of the first condition that was inspected, else none."""
    inspected, _ = by_condition(results, lambda condition: _inspection(results, condition, figure))
    if not inspected:
        return np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0, np.int64)
    return inspected[0].arrays["images"], inspected[0].arrays["labels"]


def of_same_images(inspected: Sequence[Inspection]) -> tuple[tuple[Inspection, ...], tuple[str, ...]]:
    """Return the inspections of the first one's images, and the labels of those that saw others."""
    images = inspected[0].arrays["images"]
    same = [np.array_equal(inspection.arrays["images"], images) for inspection in inspected]
    kept = tuple(inspection for inspection, equal in zip(inspected, same, strict=True) if equal)
    return kept, tuple(inspection.condition for inspection, equal in zip(inspected, same, strict=True) if not equal)


def chosen(
    results: StudyResults, inspected: Sequence[Inspection], wanted: Sequence[str], most: int, figure: str
) -> tuple[Inspection, ...]:
    """Return the conditions `wanted` by label; without any, the `most` with the best mean of the study's metric.

    They keep the report's order. Raise `PluginError` for labels that have no inspection.
    """
    labels = [inspection.condition for inspection in inspected]
    unknown = [label for label in wanted if label not in labels]
    if unknown:
        raise PluginError(
            f"the figure {figure} was asked for conditions that it has nothing of",
            problems=[f"{label!r}: expected one of {', '.join(labels)}" for label in unknown],
        )
    kept = set(wanted) if wanted else set(ranked(results, labels)[:most])
    return tuple(inspection for inspection in inspected if inspection.condition in kept)


def ranked(results: StudyResults, labels: Sequence[str]) -> list[str]:
    """Return condition labels, best mean of the study's metric first; those without one keep their order at the end."""
    unit = quantity(results.study.report.metric)
    values = {condition.label: values_of(results, condition, unit.metric).values() for condition in results.conditions}
    means = {label: t_interval(list(own)).mean for label, own in values.items() if own}
    return sorted(labels, key=lambda label: unit.rank(means[label]) if label in means else float("inf"))
