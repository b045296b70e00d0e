"""Images that several splits have, pixel for pixel: a test set that leaks."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

import numpy as np

from benchkit.data.mapped import parts
from benchkit.protocols import Repeated, Split, Splits

MOST_PAIRS = 12
"""Pairs that are kept as pictures; the others are counted."""

SIDE = 64
"""Pixels of a picture's longer side, at the most."""


def repeated_images(splits: Splits) -> Repeated:
    """Return the images of val and test that an earlier split has, too; of train, val, test, all bytes are read once.

    An image is counted once, with the first one that is equal to it.
    """
    first: dict[bytes, tuple[str, int]] = {}
    pairs: list[tuple[str, int, str, int]] = []
    count = 0
    for name, split in splits.named.items():
        images = (image for part in parts(split.images) for image in np.asarray(part))
        for row, image in enumerate(images):
            digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            where, other = first.setdefault(digest, (name, row))
            if where != name:
                count += 1
                pairs += [(where, other, name, row)] * (len(pairs) < MOST_PAIRS)
    return Repeated(count=count, pairs=tuple(pairs))


def repeated_facts(repeated: Repeated, splits: Splits) -> dict[str, Any]:
    """Return what a ledger keeps of repeated images as plain values, nothing where there are none.

    Of a pair: the splits and classes of both, and the picture, JPEG in base64.
    """
    if not repeated.count:
        return {}
    return {
        "repeated": repeated.count,
        "repeated_pairs": [_pair(splits, *pair) for pair in repeated.pairs],
    }


def _pair(splits: Splits, first: str, row: int, second: str, other: int) -> dict[str, Any]:
    named = splits.named
    return {
        "splits": [first, second],
        "classes": [splits.class_names[named[split].labels[at]] for split, at in ((first, row), (second, other))],
        "picture": _picture(named[second], other),
    }


def _picture(split: Split, row: int) -> str:
    from PIL import Image

    pixels = split.images[row]
    colours = np.repeat(pixels[:, :, :1], 3, axis=2) if pixels.shape[2] != 3 else pixels
    image = Image.fromarray(np.ascontiguousarray(colours))
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode()
