"""Test images that a network is surest of: named rightly, and named wrongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchkit import ImageGrid, Range, card
from benchkit.results import StudyResults
from benchkit_figures.network.inspections import chosen, inspections, ranked
from benchkit_figures.network.thumbnails import enlarged, jpeg, picture_rows, rgb, with_words

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "surest-images"
COLUMNS = 6
LETTERS = 16
"""As many letters of a class's name as are about as wide as its picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedImage:
    """A test image: its place among those inspected, true and predicted class, probability of the latter, picture."""

    place: int
    true: str
    predicted: str
    probability: float
    right: bool
    picture: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedData:
    """The images shown, wrong ones first, each kind by falling probability; counts of all images inspected."""

    condition: str
    inspected: int
    wrong: int
    sure_and_wrong: int
    images: tuple[NamedImage, ...]


@card(
    title="Surest test images",
    summary="The test images that a network names rightly, and wrongly, with the greatest probability.",
    ranges={"rows": Range(low=1, high=4)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SurestImages:
    """Up to `rows` rows of six test images named wrongly, and a row named rightly, by `condition` (default: the best).

    The model is that of repeat 0.
    """

    rows: int = 2
    condition: str = ""

    def inspect(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
        """Return `predicted` int64 (N,) and `probability` float32 (N,), that of the predicted class."""
        import torch

        with torch.no_grad():
            logits = torch.cat([model(part).float() for part in torch.split(images, 64)])
        share, predicted = torch.softmax(logits, 1).max(1)
        return {"predicted": predicted.cpu().numpy(), "probability": share.cpu().numpy()}

    def data(self, results: StudyResults) -> NamedData:
        """Return the images; raise `PluginError` for a condition that was not inspected."""
        inspected, _ = inspections(results, NAME)
        best = ranked(results, [one.condition for one in inspected])[0]
        (one,) = chosen(results, inspected, (self.condition or best,), 1, NAME)
        arrays = one.arrays
        right = arrays["predicted"] == arrays["labels"]
        order = np.argsort(-arrays["probability"], kind="stable")
        wrong = [int(place) for place in order if not right[place]]
        shown = [*wrong[: COLUMNS * self.rows], *[int(place) for place in order if right[place]][:COLUMNS]]
        return NamedData(
            condition=one.condition,
            inspected=len(right),
            wrong=len(wrong),
            sure_and_wrong=int((~right & (arrays["probability"] >= 0.9)).sum()),
            images=tuple(_image(arrays, place, results.class_names) for place in shown),
        )

    def draw(self, data: NamedData) -> ImageGrid:
        """Return rows of six images, with the true and the predicted class and its probability below each."""
        rows = []
        for right, words in ((False, "wrong"), (True, "right")):
            kind = [image.picture for image in data.images if image.right == right]
            rows += picture_rows(words, kind, COLUMNS)
        return ImageGrid(columns=("",) * COLUMNS, rows=tuple(rows))

    def caption(self, data: NamedData) -> str:
        """Return which images are shown, of how many, and what is written below them."""
        return (
            f"Test images that {data.condition} names wrongly, and rightly, with the greatest probability: below each "
            f"its class, and what it is called with which probability. Of the {data.inspected} test images inspected, "
            f"evenly spaced in the split, {data.wrong} are named wrongly, {data.sure_and_wrong} of them with a "
            "probability of 90 % or more. Weights of repeat 0 (n = 1)."
        )

    def alt_text(self, data: NamedData) -> str:
        """Return one sentence with the surest error."""
        first = data.images[0]
        if first.right:
            return f"{data.condition} names all {data.inspected} inspected test images rightly."
        return (
            f"The surest error of {data.condition}: a test image of {first.true} is called {first.predicted} with a "
            f"probability of {100 * first.probability:.0f} %."
        )


def _image(arrays: Mapping[str, np.ndarray], place: int, names: Sequence[str]) -> NamedImage:
    true, predicted = int(arrays["labels"][place]), int(arrays["predicted"][place])
    known = names if len(names) > max(true, predicted) else tuple(map(str, range(max(true, predicted) + 1)))
    share = float(arrays["probability"][place])
    picture = with_words(enlarged(rgb(arrays["images"][place])), known[true][:LETTERS])
    if true != predicted:
        picture = with_words(picture, f"called {known[predicted][:LETTERS]}")
    return NamedImage(
        place=place,
        true=known[true],
        predicted=known[predicted],
        probability=share,
        right=true == predicted,
        picture=jpeg(with_words(picture, f"{100 * share:.0f} %")),
    )
