"""The data sheet: how many images of each class every split has, and what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np

from benchkit import ImageGrid, NothingToDraw, Range, card
from benchkit.plan import Condition
from benchkit.results import SPLITS, StudyResults
from benchkit_figures.encodings import SPLIT_WORDS, WIDTH, label_width, left_out
from benchkit_figures.network.inspections import inspected_images
from benchkit_figures.network.thumbnails import enlarged, jpeg, picture_rows, rgb

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "data-sheet"
MOST_CLASSES = 12
EVEN = 1.1
"""Classes whose sizes differ by no more than this factor need no picture of them."""

COLOURS = {"train": "#1E78B4", "val": "#C34B00", "test": "#0F784B"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCounts:
    """A class: its images in every split (None where the split was not scored), and pictures of some test images."""

    name: str
    train: int | None
    val: int | None
    test: int | None
    pictures: tuple[bytes, ...]

    def counts(self) -> Mapping[str, int]:
        """Return the known numbers of images by split."""
        known = {"train": self.train, "val": self.val, "test": self.test}
        return {split: count for split, count in known.items() if count is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetData:
    """The classes in label order, up to 12 spread evenly, of `classes` in all; images by split; other data sets."""

    dataset: str
    classes: int
    images: tuple[tuple[str, int], ...]
    shown: tuple[ClassCounts, ...]
    least: tuple[str, int]
    most: tuple[str, int]
    differ: tuple[str, ...]


@card(
    title="Data sheet",
    summary="Images of each class in every split, with samples where the study names this figure before its sweep.",
    ranges={"samples": Range(low=1, high=16)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class DataSheet:
    """Counts by class and split, as models were scored on them, beside up to `samples` test images of each class."""

    samples: int = 12

    def inspect(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
        """Return nothing of the model: the images that are kept beside it are the samples."""
        return {"seen": np.arange(len(labels))}

    def data(self, results: StudyResults) -> SheetData:
        """Return the counts of the first finished repeat; conditions on other images are named.

        Raise `NothingToDraw` where classes are of about one size and no samples are kept.
        """
        found = {one.label: _counts(results, one) for one in results.conditions if one.kind != "search"}
        counted = {label: counts for label, counts in found.items() if counts}
        if not counted:
            raise NothingToDraw("no repeat has finished with counts of its images by class")
        first = next(iter(counted.values()))
        totals = [sum(column) for column in zip(*first.values(), strict=True)]
        classes = len(totals)
        names = results.class_names if len(results.class_names) == classes else tuple(map(str, range(classes)))
        places = range(classes) if classes <= MOST_CLASSES else np.linspace(0, classes - 1, MOST_CLASSES).round()
        images, labels = inspected_images(results, NAME)
        if not len(images) and max(totals) <= EVEN * min(totals):
            raise NothingToDraw(
                f"all classes have about {min(totals):,} images; samples need {NAME} in report.figures before the sweep"
            )
        return SheetData(
            dataset=str(results.data.get("name", "")),
            classes=classes,
            images=tuple((split, sum(counts)) for split, counts in first.items()),
            shown=tuple(_class(int(at), names, first, (images, labels), self.samples) for at in places),
            least=(names[int(np.argmin(totals))], min(totals)),
            most=(names[int(np.argmax(totals))], max(totals)),
            differ=tuple(label for label, counts in counted.items() if counts != first),
        )

    def draw(self, data: SheetData) -> Any:
        """Return samples by class with the counts as words, or without samples bars of the counts."""
        most = max(len(row.pictures) for row in data.shown)
        if most:
            rows = [row for shown in data.shown for row in picture_rows(_words(shown), shown.pictures, most)]
            return ImageGrid(columns=("",) * most, rows=tuple(rows))
        return _bars(data)

    def caption(self, data: SheetData) -> str:
        """Return of which data set, how many images its splits have, and how even the classes are."""
        splits = ", ".join(f"{count:,} {SPLIT_WORDS[split]}" for split, count in data.images)
        name = f" of {data.dataset}" if data.dataset else ""
        parts = [f"Images{name} by class: {splits} images."]
        if data.least[1] == data.most[1]:
            parts.append("All classes are of one size.")
        else:
            parts.append(f"The smallest class is {data.least[0]} ({data.least[1]:,}), the largest {data.most[0]} "
                         f"({data.most[1]:,}).")  # fmt: skip
        if len(data.shown) < data.classes:
            parts.append(f"{len(data.shown)} of {data.classes} classes, evenly spaced.")
        if any(row.pictures for row in data.shown):
            parts.append("Pictures: test images, the first of those inspected.")
        parts += left_out("Other images have", data.differ)
        return " ".join(parts)

    def alt_text(self, data: SheetData) -> str:
        """Return one sentence with the sizes of the smallest and the largest class."""
        total = sum(count for _, count in data.images)
        return (
            f"{total:,} images of {data.classes} classes; the smallest class has {data.least[1]:,} "
            f"({data.least[0]}), the largest {data.most[1]:,} ({data.most[0]})."
        )


def _counts(results: StudyResults, condition: Condition) -> dict[str, tuple[int, ...]]:
    """Return the images of each class by split of a condition's first finished repeat, nothing without one."""
    for trial in results.of(condition, "done"):
        scored = trial.outcome.metrics if trial.outcome else {}
        found: dict[str, tuple[int, ...]] = {
            split: tuple(map(sum, scored[split].confusion)) for split in SPLITS if split in scored
        }
        if found and all(found.values()):
            return found
    return {}


def _class(
    at: int,
    names: tuple[str, ...],
    counts: Mapping[str, tuple[int, ...]],
    inspected: tuple[np.ndarray, np.ndarray],
    samples: int,
) -> ClassCounts:
    images, labels = inspected
    own = np.flatnonzero(labels == at)[:samples]
    numbers = {split: counts[split][at] if split in counts else None for split in SPLITS}
    pictures = tuple(jpeg(enlarged(rgb(images[place]), 64)) for place in own)
    return ClassCounts(name=names[at], pictures=pictures, **numbers)


def _words(row: ClassCounts) -> str:
    return f"{row.name}: {', '.join(f'{count:,} {SPLIT_WORDS[split]}' for split, count in row.counts().items())}"


def _bars(data: SheetData) -> Any:
    rows = [
        {"class": row.name, "split": SPLIT_WORDS[split], "images": count, "order": SPLITS.index(split)}
        for row in data.shown
        for split, count in row.counts().items()
    ]
    order = [row.name for row in data.shown]
    known = [split for split in SPLITS if any(split == name for name, _ in data.images)]
    legend = alt.Legend(title=None, orient="top", symbolType="square")
    scale = alt.Scale(domain=[SPLIT_WORDS[split] for split in known], range=[COLOURS[split] for split in known])
    axis = alt.Axis(domain=False, ticks=False, labelLimit=200)
    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(size=9)
        .encode(
            x=alt.X("images:Q", title="Images", stack=True),
            y=alt.Y("class:N", sort=order, title=None, axis=axis),
            color=alt.Color("split:N", scale=scale, legend=legend),
            order=alt.Order("order:Q"),
            tooltip=[alt.Tooltip("class:N"), alt.Tooltip("split:N"), alt.Tooltip("images:Q")],
        )
        .properties(width=WIDTH - label_width(order) - 24, height=alt.Step(14))
    )
