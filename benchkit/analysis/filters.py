"""Dead filters: those whose output is zero at every pixel of every image that a figure inspected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchkit.analysis.readings import compared, done_repeats
from benchkit.results import StudyResults, Trial

if TYPE_CHECKING:
    import numpy as np

    from benchkit.plan import Condition

MARK = "zero."
"""A figure that inspects models leaves, for each layer, an array of this name and the layer's: bool (C,), by filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadFilters:
    """A condition's dead filters over all layers of one repeat, and the layer with the greatest share of them.

    `figure` took them from the model; `images` says on how many images, None where it did not leave their labels.
    """

    key: str
    label: str
    figure: str
    repeat: int
    images: int | None
    dead: int
    filters: int
    layer: str
    layer_dead: int
    layer_filters: int

    @property
    def share(self) -> float:
        """Return the share of dead filters."""
        return self.dead / self.filters


def dead_filters(results: StudyResults) -> tuple[DeadFilters, ...]:
    """Return the dead filters of every condition that has a done repeat in which a figure of the study marked them."""
    found = (_of(results, condition) for condition in compared(results))
    return tuple(one for one in found if one is not None)


def _of(results: StudyResults, condition: Condition) -> DeadFilters | None:
    for _, trial in sorted(done_repeats(results, condition).items()):
        for figure, _options in results.study.report.figures:
            arrays = _arrays(trial, figure)
            if any(array.size for name, array in arrays.items() if name.startswith(MARK)):
                return _counted(condition, trial, figure, arrays)
    return None


def _arrays(trial: Trial, figure: str) -> Mapping[str, np.ndarray]:
    try:
        return trial.inspected(figure)
    except FileNotFoundError:
        return {}


def _counted(condition: Condition, trial: Trial, figure: str, arrays: Mapping[str, np.ndarray]) -> DeadFilters:
    full = {name.removeprefix(MARK): a for name, a in arrays.items() if name.startswith(MARK) and a.size}
    worst = max(full, key=lambda name: (float(full[name].mean()), name))
    return DeadFilters(
        key=condition.key,
        label=condition.label,
        figure=figure,
        repeat=trial.index,
        images=len(arrays["labels"]) if "labels" in arrays else None,
        dead=sum(int(array.sum()) for array in full.values()),
        filters=sum(int(array.size) for array in full.values()),
        layer=worst.partition(".")[2] or worst,
        layer_dead=int(full[worst].sum()),
        layer_filters=int(full[worst].size),
    )
