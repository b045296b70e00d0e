"""What an exported model says of photos, by the arithmetic by which the study scored it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn

from benchkit.analysis.wording import count
from benchkit.data.decoding import IMAGE_SUFFIXES, Decoded, Fit, decode_images
from benchkit.errors import DataError
from benchkit.export.described import Exported
from benchkit.train.batches import InputTransform
from benchkit.train.step import DTYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model says of one photo: the class, and the probability of each class, in the order of its outputs."""

    photo: Path
    name: str
    probabilities: tuple[float, ...]


def photos_in(given: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files given, and of folders all images in them, by name; raise `DataError` where there is none."""
    missing = [str(path) for path in given if not path.exists()]
    if missing:
        raise DataError("there is no such file or folder", problems=missing)
    found = [file for path in given for file in (_images(path) if path.is_dir() else [path])]
    if not found:
        raise DataError("the folders hold no images", problems=[str(path) for path in given])
    return tuple(found)


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def predict(model: nn.Module, exported: Exported, photos: Sequence[Path]) -> Iterator[Prediction]:
    """Yield what a model says of photos, in their order; at the end raise `DataError` with all that cannot be read."""
    problems: list[str] = []
    for start in range(0, len(photos), exported.batch):
        part = photos[start : start + exported.batch]
        pixels, decoded = _decoded(exported, part)
        problems += decoded.problems
        read = [place for place, digest in enumerate(decoded.digests) if digest]
        if not read:
            continue
        chances = torch.softmax(torch.from_numpy(logits_of(model, exported, pixels[read])).double(), 1)
        for photo, row in zip([part[place] for place in read], chances, strict=True):
            name = exported.class_names[int(row.argmax())]
            yield Prediction(photo=photo, name=name, probabilities=tuple(row.tolist()))
    _refuse(problems)


def pixels_of(exported: Exported, photos: Sequence[Path]) -> np.ndarray:
    """Return photos as the study's data set would hold them, uint8 (N, H, W, C)."""
    pixels, decoded = _decoded(exported, photos)
    _refuse(decoded.problems)
    return pixels


def _decoded(exported: Exported, photos: Sequence[Path]) -> tuple[np.ndarray, Decoded]:
    rule = exported.image
    pixels = np.zeros((len(photos), rule.height, rule.width, rule.channels), np.uint8)
    fit: Fit = next((one for one in get_args(Fit) if one == rule.fit), "squash")
    return pixels, decode_images(photos, pixels, what="reading photos", resize=True, fit=fit, rules=rule.rules)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise DataError(f"{count(len(problems), 'photo')} cannot be read", problems=problems)


@torch.inference_mode()
def logits_of(model: nn.Module, exported: Exported, pixels: np.ndarray) -> np.ndarray:
    """Return logits float32 (N, K) for images uint8 (N, H, W, C), as many at once as the study evaluated."""
    transform, parts = input_of(exported), []
    bits = DTYPES.get(exported.precision)
    with torch.autocast("cpu", bits) if bits else nullcontext():
        for start in range(0, len(pixels), exported.batch):
            images = torch.from_numpy(pixels[start : start + exported.batch]).permute(0, 3, 1, 2)
            parts.append(model(transform(images)).float())
    logits: np.ndarray = torch.cat(parts).numpy()
    return logits


def input_of(exported: Exported) -> InputTransform:
    """Return how images, uint8 (N, C, H, W), become the model's input."""
    memory_format = torch.channels_last if exported.channels_last else torch.contiguous_format
    scale = shift = None
    if (known := exported.normalization) is not None:
        mean, std = (torch.tensor(one, dtype=torch.float64) for one in (known.mean, known.std))
        factor = 1 / torch.where(std > 0, std, 1.0)
        side = exported.image.input_shape
        scale, shift = (
            one.to(torch.float32).reshape(1, -1, 1, 1).expand(1, *side).contiguous(memory_format=torch.channels_last)
            for one in (factor, -mean * factor)
        )
    return InputTransform(scale=scale, shift=shift, size=exported.image.side, memory_format=memory_format)
