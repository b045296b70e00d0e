"""Activation maps of early, middle and late layers for a few test images, and the dead filters counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchkit import ImageGrid, Range, card
from benchkit.results import StudyResults
from benchkit_figures.encodings import left_out, listed
from benchkit_figures.network.inspections import Inspection, chosen, inspections, ranked
from benchkit_figures.network.thumbnails import enlarged, jpeg, mosaic, png, rgb

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "activation-maps"
SIDE = 132
MOST_CONDITIONS = 4
DEPTHS = {1: ("only",), 2: ("early", "late"), 3: ("early", "middle", "late")}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFilters:
    """A nonlinearity at `place` of `places` (from 1): its module, how many filters it has, and how many are dead."""

    place: int
    places: int
    layer: str
    filters: int
    dead: int
    shown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedImage:
    """One test image and its maps in the layers shown, as pictures."""

    true: str
    original: bytes
    maps: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionMaps:
    """A condition's layers, the images shown (none for conditions only counted), and how many images were inspected."""

    condition: str
    inspected: int
    layers: tuple[LayerFilters, ...]
    images: tuple[MappedImage, ...]

    @property
    def dead(self) -> int:
        """Return the number of dead filters in all layers."""
        return sum(layer.dead for layer in self.layers)

    @property
    def filters(self) -> int:
        """Return the number of filters in all layers."""
        return sum(layer.filters for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsData:
    """The maps and counts of all inspected conditions."""

    conditions: tuple[ConditionMaps, ...]
    without: tuple[str, ...]

    @property
    def shown(self) -> tuple[ConditionMaps, ...]:
        """Return the conditions whose maps are shown."""
        return tuple(condition for condition in self.conditions if condition.images)


@card(
    title="Activation maps",
    summary="Feature maps of an early, a middle and a late layer for a few test images; dead filters counted.",
    reference="Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
    url="https://arxiv.org/abs/1311.2901",
    ranges={"images": Range(low=1, high=8)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationMaps:
    """Up to 16 filters of three layers for the first `images` test images (default 3), from repeat 0.

    `conditions` names up to four conditions to show (default: the best and the worst). A filter is dead when its output
    after the nonlinearity is zero at every pixel of every inspected test image.
    """

    images: int = 3
    conditions: tuple[str, ...] = ()

    def inspect(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
        """Return the maps uint8 (n, F, h, w) and which filters are dead, bool (C,), by layer; empty without maps."""
        from benchkit_figures.network.layer_outputs import filter_maps

        return dict(filter_maps(model, images, self.images))

    def data(self, results: StudyResults) -> MapsData:
        """Return pictures of the maps of the conditions shown, and the counts of all."""
        inspected, without = inspections(results, NAME)
        order = ranked(results, [inspection.condition for inspection in inspected])
        wanted = self.conditions[:MOST_CONDITIONS] or tuple(dict.fromkeys((order[0], order[-1])))
        shown = {inspection.condition for inspection in chosen(results, inspected, wanted, MOST_CONDITIONS, NAME)}
        conditions = tuple(
            _condition(results, inspection, self.images if inspection.condition in shown else 0)
            for inspection in inspected
        )
        return MapsData(conditions=conditions, without=without)

    def draw(self, data: MapsData) -> ImageGrid:
        """Return a row for each condition and image: the image, then a mosaic of filters for each layer."""
        depths = DEPTHS[max(len(image.maps) for condition in data.shown for image in condition.images)]
        blank = png(np.full((8, 8, 3), 255, dtype=np.uint8))
        rows = []
        for condition in data.shown:
            for image in condition.images:
                missing = len(depths) - len(image.maps)
                rows.append((f"{condition.condition}: {image.true}", (image.original, *image.maps, *[blank] * missing)))
        return ImageGrid(columns=("image", *_heads(data, depths)), rows=tuple(rows))

    def caption(self, data: MapsData) -> str:
        """Return what the pictures are, which layers, how many filters are dead, and what is left out."""
        parts = [
            "Activation maps after the nonlinearity, up to 16 filters a layer, spread evenly over it; yellow: the "
            "layer's greatest value in that image, dark: zero. Weights of repeat 0 (n = 1)."
        ]
        counts = [f"{one.dead:,} of {one.filters:,} of {one.condition}" for one in data.shown]
        parts.append(
            f"Dead filters, zero for all {data.conditions[0].inspected} inspected test images: {listed(counts)}. "
            "They are counted by layer, of all conditions, in the data of this figure."
        )
        parts += left_out("Without feature maps of repeat 0", data.without)
        return " ".join(parts)

    def alt_text(self, data: MapsData) -> str:
        """Return one sentence with the share of dead filters, least and greatest."""
        least = min(data.conditions, key=lambda condition: condition.dead / condition.filters)
        most = max(data.conditions, key=lambda condition: condition.dead / condition.filters)
        if least is most or least.dead == most.dead == 0:
            who = most.condition if len(data.conditions) == 1 else "each condition"
            return f"In all layers of {who}, {most.dead} of {most.filters} filters are dead."
        return (
            f"Dead filters in all layers: most in {most.condition}, {most.dead} of {most.filters}; fewest in "
            f"{least.condition}, {least.dead} of {least.filters}."
        )


def _condition(results: StudyResults, inspection: Inspection, images: int) -> ConditionMaps:
    keys = sorted(name.partition(".")[2] for name in inspection.arrays if name.startswith("zero."))
    mapped = [key for key in keys if f"maps.{key}" in inspection.arrays]
    layers = tuple(
        LayerFilters(
            place=index,
            places=len(keys),
            layer=key.partition(".")[2],
            filters=int(inspection.arrays[f"zero.{key}"].size),
            dead=int(inspection.arrays[f"zero.{key}"].sum()),
            shown=key in mapped,
        )
        for index, key in enumerate(keys, start=1)
    )
    labels = inspection.arrays["labels"]
    count = min([images, len(labels), *(len(inspection.arrays[f"maps.{key}"]) for key in mapped)])
    return ConditionMaps(
        condition=inspection.condition,
        inspected=len(labels),
        layers=layers,
        images=tuple(_image(results, inspection, index, mapped) for index in range(count)),
    )


def _image(results: StudyResults, inspection: Inspection, index: int, keys: list[str]) -> MappedImage:
    label = int(inspection.arrays["labels"][index])
    maps: list[Any] = [inspection.arrays[f"maps.{key}"][index] for key in keys]
    return MappedImage(
        true=results.class_names[label] if label < len(results.class_names) else str(label),
        original=jpeg(enlarged(rgb(inspection.arrays["images"][index]), SIDE)),
        maps=tuple(png(mosaic(part)) for part in maps),
    )


def _heads(data: MapsData, depths: tuple[str, ...]) -> list[str]:
    """Return the headings of the layers, with their modules where all conditions shown have the same."""
    shown = [[f"{layer.layer or 'network'}, {layer.place} of {layer.places}" for layer in one.layers if layer.shown]
             for one in data.shown]  # fmt: skip
    if any(names != shown[0] for names in shown) or len(shown[0]) != len(depths):
        return [f"{depth} layer" for depth in depths]
    return [f"{depth} layer ({name})" for depth, name in zip(depths, shown[0], strict=True)]
