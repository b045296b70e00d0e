"""Images on the device as uint8, and the batches made of them by whole-batch tensor operations: no DataLoader.

Shapes: N images of a batch, M images stored, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchkit.data.dataset import Selected
from benchkit.data.mapped import Ask, asking
from benchkit.protocols import Batch
from benchkit.train.streaming import asked_ahead, stream

CHUNK_BYTES = 2**24
"""What one pass over a data set handles at a time."""

BatchIndex = tuple[torch.Tensor, ...]
"""What a batch is made of on the device: its positions int64 (N,), or where images are streamed these themselves, uint8
(N, C, H, W), and their labels int64 (N,)."""

Statistics = tuple[torch.Tensor, torch.Tensor]
"""Mean and population standard deviation of each channel, float64 (C,) on the CPU, of images in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Images of one split: `images` uint8 (M, H, W, C), of which `rows` int64 (N,) belong to it, `labels` int64 (N,).

    On the CPU `images` is the data set's own memory (or memory map), shared by all processes that read it. On CUDA
    it lies on the device, unless it exceeds the memory budget. Such a set is `streamed`: a thread gathers its
    images from the memory map ahead of their use. `ask`, where images lie in a large file, has the system read some.
    """

    images: torch.Tensor
    rows: torch.Tensor
    labels: torch.Tensor
    streamed: bool = False
    ask: Ask | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Return the device on which batches arrive."""
        return self.labels.device

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """Return the images at `index`, int64 (N,) on the device, as uint8 (N, C, H, W) in channels-last memory."""
        return self._at(self.rows.index_select(0, index.to(self.rows.device)))

    def _at(self, rows: torch.Tensor) -> torch.Tensor:
        return self.images.index_select(0, rows).to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    def each(self, order: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the images, uint8 (N, C, H, W), and labels at `order`, int64 on the CPU, `size` at a time."""
        rows = torch.split(self.rows.index_select(0, order.to(self.rows.device)), size)
        labels = torch.split(self.labels.index_select(0, order.to(self.device)), size)
        if self.streamed:
            images = stream(self.images, rows, self.device, self.ask)
        else:
            images = map(self._at, asked_ahead(rows, self.ask) if self.ask else rows)
        yield from zip(images, labels, strict=True)

    def chunks(self, size: int) -> Iterator[torch.Tensor]:
        """Yield all images in order, uint8 (N, C, H, W), `size` at a time."""
        for images, _ in self.each(torch.arange(len(self)), size):
            yield images


def image_set(selected: Selected, device: torch.device, budget: int | None = None) -> ImageSet:
    """Return a split's selected images for use on `device`, where they may take `budget` bytes (None: any number)."""
    labels = torch.from_numpy(np.ascontiguousarray(selected.labels)).to(device)
    fits = budget is None or selected.nbytes <= budget
    if device.type != "cpu" and fits:
        return ImageSet(
            images=_resident(selected, device), rows=torch.arange(len(labels), device=device), labels=labels
        )
    return ImageSet(
        images=_shared(selected.split.images),
        rows=torch.from_numpy(selected.rows),
        labels=labels,
        streamed=not fits,
        ask=asking(selected.split.images),
    )


def _resident(selected: Selected, device: torch.device) -> torch.Tensor:
    """Return the selected images on the device, copied by parts: they may be more than the host has memory for."""
    images, rows = selected.split.images, selected.rows
    there = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    size = _chunk(images.shape[1:])
    for start in range(0, len(rows), size):
        there[start : start + size] = torch.from_numpy(np.asarray(images[rows[start : start + size]]))
    return there


def _chunk(shape: Sequence[int]) -> int:
    """Return how many images of shape (H, W, C) one pass over a data set handles at a time."""
    return max(1, CHUNK_BYTES // math.prod(shape))


def _shared(images: np.ndarray) -> torch.Tensor:
    """Return a tensor on the array's own memory; nothing in the engine writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(images))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """The training batches of an epoch: `batch_size` images each, in a fresh order, with targets from `one_hot` (K, K).

    Images stay uint8 (see `in_unit_range`). The last batch holds what is left over. A step passes through the model
    `part` images at a time; where the last part of all would be a single image it is dropped, because batch statistics
    of one image are not defined. `sampling`, if given, draws the images of an epoch (`Regularizer.batch_sampling`).
    """

    images: ImageSet
    one_hot: torch.Tensor
    batch_size: int
    part: int
    sampling: Callable[[torch.Tensor, int, int, torch.Generator], torch.Tensor] | None = None

    @property
    def single_left_over(self) -> bool:
        """Return whether each epoch leaves out one image."""
        return self.part > 1 and len(self.images) > 1 and len(self.images) % self.part == 1

    @property
    def images_per_epoch(self) -> int:
        """Return how many images an epoch trains on."""
        return len(self.images) - self.single_left_over

    def __len__(self) -> int:
        return -(-self.images_per_epoch // self.batch_size)

    def batch_indices(self, generator: torch.Generator) -> Iterator[BatchIndex]:
        """Yield what each batch of one epoch is made of, in an order drawn from `generator` (on the CPU)."""
        drawn = self._drawn(generator)
        if self.images.streamed:
            yield from self.images.each(drawn, self.batch_size)
        else:
            yield from ((index,) for index in torch.split(drawn.to(self.images.device), self.batch_size))

    def batch_index(self, index: torch.Tensor) -> BatchIndex:
        """Return what the batch of the images at `index`, int64 (N,) on the device, is made of."""
        return self._fetched(index) if self.images.streamed else (index,)

    def batch(self, batch_index: BatchIndex) -> Batch:
        """Return the batch made of `batch_index`: work for the device alone, which a CUDA graph can hold."""
        return self._made(*(batch_index if self.images.streamed else self._fetched(*batch_index)))

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch, those of `batch_indices`, with fewer operations for each."""
        for images, labels in self.images.each(self._drawn(generator), self.batch_size):
            yield self._made(images, labels)

    def _fetched(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images.take(index), self.images.labels.index_select(0, index)

    def _drawn(self, generator: torch.Generator) -> torch.Tensor:
        if self.sampling is None:
            return torch.randperm(len(self.images), generator=generator)[: self.images_per_epoch]
        return self.sampling(self.images.labels.cpu(), len(self.one_hot), self.images_per_epoch, generator)

    def _made(self, images: torch.Tensor, labels: torch.Tensor) -> Batch:
        targets = self.one_hot.index_select(0, labels)
        return Batch(images=images, targets=targets)


def loader(images: ImageSet, classes: int, batch_size: int, *, accumulate: int = 1, sampling: Any = None) -> Loader:
    """Return the training batches over `images`, which stay uint8, with one-hot targets float32 (N, K).

    One holds the images of an optimizer step, `accumulate` times `batch_size`.
    """
    return Loader(
        images=images,
        one_hot=torch.eye(classes, device=images.device),
        batch_size=accumulate * batch_size,
        part=batch_size,
        sampling=sampling,
    )


def in_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Return images uint8 (N, C, H, W) as float32 in [0, 1], and float32 ones as they are."""
    return images.to(torch.float32).mul_(1 / 255) if images.dtype == torch.uint8 else images


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTransform:
    """How images become the model's input: resized to `size` (0: not), then times `scale` plus `shift`.

    `scale` = 1/std and `shift` = -mean/std are float32 (1, C, H, W), or None when images are not normalised. Each holds
    one number a channel, repeated over the pixels of an image in channels-last memory: a CPU multiplies by those five
    times as fast as by (1, C, 1, 1).
    """

    scale: torch.Tensor | None
    shift: torch.Tensor | None
    size: int
    memory_format: torch.memory_format

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 (N, C, size, size) input for images (N, C, H, W), uint8 or float32 in [0, 1]."""
        images = in_unit_range(images)
        if self.size and images.shape[-2:] != (self.size, self.size):
            side = (self.size, self.size)
            images = functional.interpolate(images, side, mode="bilinear", antialias=True, align_corners=False)
        if self.scale is not None and self.shift is not None:
            scale, shift = self.scale, self.shift
            if images.shape[1:] != scale.shape[1:]:  # an augmentation changed the size
                scale, shift = scale[:, :, :1, :1], shift[:, :, :1, :1]
            images = torch.addcmul(shift, images, scale)
        return images.contiguous(memory_format=self.memory_format)


def input_transform(
    train: ImageSet, statistics: Statistics | None, *, size: int, memory_format: torch.memory_format
) -> InputTransform:
    """Return the preparation of images, normalised by `statistics` (None: not) before any resizing."""
    if statistics is None:
        return InputTransform(scale=None, shift=None, size=size, memory_format=memory_format)
    mean, std = statistics
    scale = 1 / torch.where(std > 0, std, 1.0)
    height, width, _ = train.images.shape[1:]
    side = (size or height, size or width)

    def plane(values: torch.Tensor) -> torch.Tensor:
        wide = values.to(train.device, torch.float32).reshape(1, -1, 1, 1).expand(-1, -1, *side)
        return wide.contiguous(memory_format=torch.channels_last)

    return InputTransform(scale=plane(scale), shift=plane(-mean * scale), size=size, memory_format=memory_format)


def channel_statistics(images: ImageSet) -> Statistics:
    """Return the statistics of all images.

    The sums are exact: they are counts of the 256 levels.
    """
    channels = images.images.shape[-1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for chunk in images.chunks(_chunk(images.images.shape[1:])):
        for channel in range(channels):
            counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256).cpu()
    weights = counts.to(torch.float64) / counts.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (weights * levels).sum(1)
    variance = (weights * (levels - mean[:, None]) ** 2).sum(1)
    return mean, variance.sqrt()
