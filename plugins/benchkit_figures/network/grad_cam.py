"""Grad-CAM side by side: where each condition looked in the same test images, right and wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchkit import ImageGrid, NothingToDraw, card
from benchkit.results import StudyResults
from benchkit_figures.encodings import listed
from benchkit_figures.network.inspections import Inspection, chosen, inspections, of_same_images
from benchkit_figures.network.thumbnails import enlarged, heated, jpeg, rgb, with_words

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "grad-cam"
MOST_CONDITIONS = 7
MOST_PICTURES = 130
"""Of about 3 KB each."""

DEFAULT_CLASSES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What one condition made of one image: the class it named, with which probability, and the heat as JPEG."""

    condition: str
    predicted: str
    probability: float
    right: bool
    picture: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedImage:
    """One test image by its place among those inspected, its class, the JPEG, and what each condition made of it."""

    place: int
    true: str
    original: bytes
    cells: tuple[Explained, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionShare:
    """How many of the inspected images repeat 0 of a condition named rightly, and the layer its maps are of."""

    condition: str
    layer: str
    right: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GradCamData:
    """The images shown, the shares of the conditions shown, and what is left out and why."""

    images: tuple[ExplainedImage, ...]
    shares: tuple[ConditionShare, ...]
    left_out: tuple[str, ...]


@card(
    title="Grad-CAM",
    summary="Which places of the same test images speak for the class that each condition predicts, right and wrong.",
    reference="Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, Grad-CAM: Visual Explanations from Deep Networks "
    "via Gradient-Based Localization, ICCV 2017",
    url="https://arxiv.org/abs/1610.02391",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class GradCam:
    """Grad-CAM of the predicted class at the last feature maps, for repeat 0 of each condition.

    `classes` names the classes to show (default: five, spread over all); of each, the image that most conditions name
    rightly and the one that most name wrongly. `conditions` names up to seven conditions (default: the best).
    """

    classes: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()

    def inspect(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
        """Return `maps.LAYER` uint8 (N, h, w), `predicted` and `probability` (N,); empty without feature maps."""
        from benchkit_figures.network.saliency import explained

        return dict(explained(model, images))

    def data(self, results: StudyResults) -> GradCamData:
        """Return the chosen images with the heat of every shown condition."""
        inspected, without = inspections(results, NAME)
        same, others = of_same_images(inspected)
        shown = chosen(results, same, self.conditions, MOST_CONDITIONS, NAME)[:MOST_CONDITIONS]
        names = _names(results, shown)
        wanted, absent = self._classes(names, shown[0].arrays["labels"])
        places = _places(shown, wanted)[: MOST_PICTURES // (len(shown) + 1)]
        if not places:
            raise NothingToDraw(f"none of the inspected images is of a class named: {', '.join(self.classes)}")
        notes = [("without an inspected repeat 0", without), ("of other images", others)]
        notes.append(
            ("left out for room", tuple(inspection.condition for inspection in same if inspection not in shown))
        )
        notes.append(("classes without an inspected image", absent))
        return GradCamData(
            images=tuple(_image(index, shown, names) for index in places),
            shares=tuple(_share(inspection) for inspection in shown),
            left_out=tuple(f"{words}: {listed(labels)}" for words, labels in notes if labels),
        )

    def draw(self, data: GradCamData) -> ImageGrid:
        """Return a row for each image: the image, then its heat in each condition, marked right or wrong in words."""
        columns = ("image", *(share.condition for share in data.shares))
        rows = tuple(
            (_row_words(image), (image.original, *(cell.picture for cell in image.cells))) for image in data.images
        )
        return ImageGrid(columns=columns, rows=rows)

    def caption(self, data: GradCamData) -> str:
        """Return what the heat is, of which weights and layer, how images were chosen, and what is left out."""
        layers = sorted({share.layer for share in data.shares})
        parts = [
            "Grad-CAM: yellow marks the places that speak most for the class that the network predicts, each map "
            f"scaled to its own maximum. Feature maps of {listed(layers)}; weights of repeat 0 (n = 1), so nothing "
            "here is averaged over repeats. Of each class: the image that most conditions name rightly and the one "
            f"that most name wrongly, of the {data.shares[0].of} test images inspected. Under each map: whether the "
            "prediction is right, with its probability."
        ]
        return " ".join([*parts, *(f"{words[0].upper()}{words[1:]}." for words in data.left_out)])

    def alt_text(self, data: GradCamData) -> str:
        """Return one sentence with which condition is right on most of the inspected images."""
        best = max(data.shares, key=lambda share: share.right)
        worst = min(data.shares, key=lambda share: share.right)
        sentence = (
            f"Grad-CAM of {len(data.images)} test image{'' if len(data.images) == 1 else 's'}; of all {best.of} "
            f"inspected, {best.condition} names {best.right} rightly"
        )
        return f"{sentence}, {worst.condition} {worst.right}." if worst is not best else f"{sentence}."

    def _classes(self, names: Sequence[str], labels: np.ndarray) -> tuple[list[int], tuple[str, ...]]:
        """Return the labels to show, and those of the classes named that have no image here."""
        present = sorted({int(label) for label in labels})
        if not self.classes:
            return present[:: -(-len(present) // DEFAULT_CLASSES)], ()
        by_name = {_plain(name): label for label, name in enumerate(names)}
        labelled = {name: by_name.get(_plain(name), -1) for name in self.classes}
        return [n for n in labelled.values() if n in present], tuple(
            name for name, n in labelled.items() if n not in present
        )


def _plain(name: str) -> str:
    """Return a class name without case, blanks, hyphens and underscores: folders are named in many ways."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def _names(results: StudyResults, shown: Sequence[Inspection]) -> tuple[str, ...]:
    count = 1 + max(
        int(max(inspection.arrays["predicted"].max(), inspection.arrays["labels"].max())) for inspection in shown
    )
    return results.class_names if len(results.class_names) >= count else tuple(map(str, range(count)))


def _places(shown: Sequence[Inspection], wanted: Sequence[int]) -> list[int]:
    """Return for each class the first image of those named rightly by most, and by fewest when any is wrong."""
    labels = shown[0].arrays["labels"]
    right = np.sum([inspection.arrays["predicted"] == labels for inspection in shown], axis=0)
    places = []
    for label in wanted:
        own = np.flatnonzero(labels == label)
        most, least = int(own[right[own].argmax()]), int(own[right[own].argmin()])
        places += [most] if right[least] == len(shown) or most == least else [most, least]
    return places


def _image(index: int, shown: Sequence[Inspection], names: Sequence[str]) -> ExplainedImage:
    first = shown[0].arrays
    original = enlarged(rgb(first["images"][index]))
    true = int(first["labels"][index])
    return ExplainedImage(
        place=index,
        true=names[true],
        original=jpeg(with_words(original, "")),
        cells=tuple(_explained(inspection, index, true, names) for inspection in shown),
    )


def _explained(inspection: Inspection, index: int, true: int, names: Sequence[str]) -> Explained:
    maps, predicted = inspection.arrays[_maps_key(inspection)], int(inspection.arrays["predicted"][index])
    probability = float(inspection.arrays["probability"][index])
    words = f"{'right' if predicted == true else 'wrong'} {100 * probability:.0f} %"
    picture = with_words(heated(inspection.arrays["images"][index], maps[index]), words)
    return Explained(
        condition=inspection.condition,
        predicted=names[predicted],
        probability=probability,
        right=predicted == true,
        picture=jpeg(picture),
    )


def _share(inspection: Inspection) -> ConditionShare:
    right = inspection.arrays["predicted"] == inspection.arrays["labels"]
    layer = _maps_key(inspection).partition(".")[2]
    return ConditionShare(condition=inspection.condition, layer=layer, right=int(right.sum()), of=len(right))


def _maps_key(inspection: Inspection) -> str:
    return next(name for name in inspection.arrays if name.startswith("maps."))


def _row_words(image: ExplainedImage) -> str:
    wrong = [f"{cell.condition} says {cell.predicted}" for cell in image.cells if not cell.right]
    if not wrong:
        return f"{image.true}: {'all right' if len(image.cells) > 1 else 'right'}"
    return f"{image.true}: {listed(wrong, 3)}"
