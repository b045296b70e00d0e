"""Images that several splits have, pixel for pixel, as pictures."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from benchkit import ImageGrid, NothingToDraw, card
from benchkit.results import StudyResults
from benchkit_figures.encodings import SPLIT_WORDS
from benchkit_figures.network.thumbnails import picture_rows

COLUMNS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedImage:
    """One image: the two splits that have it, what each calls it, and its picture."""

    splits: tuple[str, str]
    classes: tuple[str, str]
    picture: bytes

    @property
    def relabelled(self) -> bool:
        """Return whether the splits call it differently."""
        return self.classes[0] != self.classes[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedData:
    """The images shown, of `count` in all."""

    count: int
    shown: tuple[RepeatedImage, ...]


@card(
    title="Repeated images",
    summary="Images that two splits have, pixel for pixel, as the preparation of the data found them.",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedImages:
    """Pictures of images of val and test that an earlier split has, too."""

    def data(self, results: StudyResults) -> RepeatedData:
        """Return what the preparation of the data kept of them; raise `NothingToDraw` where it found none."""
        sets = results.data.get("sets") or (results.data,)
        found = [one for one in sets if one.get("repeated")]
        if not found:
            raise NothingToDraw("no image is in two splits, or the data were prepared by a version that did not look")
        shown = tuple(
            RepeatedImage(
                splits=(pair["splits"][0], pair["splits"][1]),
                classes=(pair["classes"][0], pair["classes"][1]),
                picture=base64.b64decode(pair["picture"]),
            )
            for one in found
            for pair in one["repeated_pairs"]
        )
        return RepeatedData(count=sum(one["repeated"] for one in found), shown=shown)

    def draw(self, data: RepeatedData) -> ImageGrid:
        """Return the pictures in rows, those of one pair of splits and classes together."""
        groups: dict[str, list[bytes]] = {}
        for image in data.shown:
            groups.setdefault(_words(image), []).append(image.picture)
        rows = [row for words, pictures in groups.items() for row in picture_rows(words, pictures, COLUMNS)]
        return ImageGrid(columns=("",) * COLUMNS, rows=tuple(rows))

    def caption(self, data: RepeatedData) -> str:
        """Return how many there are, how many are shown, and how many have two classes."""
        two = sum(image.relabelled for image in data.shown)
        return (
            f"Images that two splits have, pixel for pixel: {len(data.shown)} of {data.count:,}."
            + (f" {two} of those shown have two classes." if two else "")
        )  # fmt: skip

    def alt_text(self, data: RepeatedData) -> str:
        """Return one sentence with their number."""
        return f"{data.count:,} {'image is' if data.count == 1 else 'images are'} in two splits of the data."


def _words(image: RepeatedImage) -> str:
    first, second = (SPLIT_WORDS[split] for split in image.splits)
    named = f"{image.classes[0]} / {image.classes[1]}" if image.relabelled else image.classes[0]
    return f"{first} and {second}: {named}"
