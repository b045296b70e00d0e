"""The fifteen image operations of AutoAugment and RandAugment, each on a batch with a strength for every image.

E. D. Cubuk, B. Zoph, D. Mane, V. Vasudevan and Q. V. Le, AutoAugment: Learning Augmentation Strategies from Data, CVPR
2019, table 6. Libraries apply them to one image at a time, or to all images of a batch alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional

from benchkit import is_cpu

OPERATIONS = (
    "identity", "shear-x", "shear-y", "translate-x", "translate-y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize", "invert",
)  # fmt: skip
GEOMETRIC = OPERATIONS[1:6]
GREY = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in a grey value (ITU-R 601-2)."""

Change = Callable[[Tensor, Tensor], Tensor]
"""An operation: images (n, C, H, W) and a strength for each (n, 1, 1, 1) in, images out."""


def strengths(operation: Tensor, level: Tensor, negative: Tensor, height: int, width: int) -> Tensor:
    """Return what each operation is called with, float32 (N,), for a level in 0..1 and a sign, each (N,).

    At level 1 shears have a slope of 0.3, translations go 150/331 of the side (in whole pixels), rotations 30 degrees,
    brightness, color, contrast and sharpness are multiplied by 1.9 (or 0.1 when negative), posterize keeps 4 of 8 bits
    and solarize inverts all values from 0 up. At level 0 these do nothing.
    """
    start, slope, signed, whole = _scales(height, width, level.device).index_select(1, operation)
    amount = slope * level
    amount = torch.where(whole > 0, torch.where(signed > 0, amount.trunc(), amount.round()), amount)
    signed_amount = torch.where((signed > 0) & negative, -amount, amount)
    return torch.add(start, signed_amount)


def transform(images: Tensor, operation: Tensor, strength: Tensor, fill: float, *, dense: bool | None = None) -> Tensor:
    """Return each image (N, C, H, W) in [0, 1] after its own operation (N,), an index of `OPERATIONS`.

    `strength` (N,) is in the operation's own unit, see `strengths`; `fill` is what comes into the image from outside.
    `dense` runs every operation on the whole batch and keeps what was asked for, which needs no synchronisation; else
    each sees its own images only, which is much less work. The default is dense except on the CPU.
    """
    dense = not is_cpu(images) if dense is None else dense
    result = images.clone()
    for names, change in _changes(operation, fill).items():
        inside = _any_of(operation, names)
        if dense:
            changed = change(images, strength[:, None, None, None])
            result = torch.where(inside[:, None, None, None], changed, result)
            continue
        rows = inside.nonzero().flatten()
        if len(rows):
            part = _changes(operation[rows], fill)[names]
            result.index_copy_(0, rows, part(images[rows], strength[rows, None, None, None]))
    return result


def number(name: str) -> int:
    """Return the index of an operation in `OPERATIONS`."""
    return OPERATIONS.index(name)


def _any_of(operation: Tensor, names: Sequence[str]) -> Tensor:
    """Return which operations are among `names`, neighbours in `OPERATIONS`."""
    return (operation >= number(names[0])) & (operation <= number(names[-1]))


def _changes(operation: Tensor, fill: float) -> dict[tuple[str, ...], Change]:
    """Return what is done for each operation; the geometric ones are a single one that knows which is which."""
    return {
        GEOMETRIC: partial(_move, operation, fill),
        ("brightness",): lambda images, factor: (images * factor).clamp(0, 1),
        ("color",): lambda images, factor: _blend(images, _grey(images), factor),
        ("contrast",): lambda images, factor: _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factor),
        ("sharpness",): _sharpen,
        ("posterize",): _posterize,
        ("solarize",): lambda images, threshold: torch.where(images >= threshold, 1 - images, images),
        ("autocontrast",): _autocontrast,
        ("equalize",): _equalize,
        ("invert",): lambda images, _: 1 - images,
    }


@cache
def _scales(height: int, width: int, device: torch.device) -> Tensor:
    """Return, for each operation, value at level 0, change up to level 1, whether signed, whether whole: (4, 15).

    Kept per device, because copying it there for every batch would wait for the device.
    """
    share = 150 / 331
    rows = [
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 8, 1, 0, 0, 0],
        [0, 0.3, 0.3, share * width, share * height, 30, 0.9, 0.9, 0.9, 0.9, -4, -1, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    ]
    return torch.tensor(rows, dtype=torch.float32, device=device)


def _move(operation: Tensor, fill: float, images: Tensor, strength: Tensor) -> Tensor:
    """Shear about the top left corner, translate by pixels, or rotate counter-clockwise by degrees about the middle."""
    height, width = images.shape[2:]
    amount = strength.flatten()

    def where(name: str, value: Tensor, other: Tensor) -> Tensor:
        return torch.where(operation == number(name), value, other)

    zero, angle = torch.zeros_like(amount), where("rotate", amount.deg2rad(), torch.zeros_like(amount))
    sine, cosine = angle.sin(), angle.cos()
    right = where("shear-x", amount * (height / 2), where("translate-x", -amount, zero))
    down = where("shear-y", amount * (width / 2), where("translate-y", -amount, zero))
    across, along = where("shear-x", amount, -sine), where("shear-y", amount, sine)
    maps = torch.stack((cosine, across, right, along, cosine, down), dim=1).view(-1, 2, 3)
    return warp(images, maps, fill)


def warp(images: Tensor, maps: Tensor, fill: float) -> Tensor:
    """Return the images (N, C, H, W) with every pixel taken from where its map points, the nearest one.

    `maps` (N, 2, 3) takes (x, y, 1) of an output pixel to the place in the image that it shows; x and y are pixels from
    the middle of the image, to the right and down. Outside the image is `fill`. The result is channels-last in memory.
    """
    count, channels, height, width = images.shape
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    scale = maps[:, :, :, None, None]
    column = (scale[:, 0, 0] * x + scale[:, 0, 1] * y + scale[:, 0, 2] + (width - 1) / 2).round()
    row = (scale[:, 1, 0] * x + scale[:, 1, 1] * y + scale[:, 1, 2] + (height - 1) / 2).round()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixels = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
    first = torch.arange(0, count * height * width, height * width, device=images.device)
    flat = images.permute(0, 2, 3, 1).reshape(-1, channels)
    taken = flat.index_select(0, (pixels + first[:, None, None]).flatten()).view(count, height, width, channels)
    return torch.where(inside[..., None], taken, fill).permute(0, 3, 1, 2)


def _grey(images: Tensor) -> Tensor:
    """Return grey values (n, 1, H, W); the mean of the channels where there are not three."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = (images[:, at : at + 1] for at in range(3))
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return factor * images + (1 - factor) * other, clipped to [0, 1]."""
    return (other + factor * (images - other)).clamp(0, 1)


def _sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image smoothed by weights of 5/13 in the middle and 1/13 around it; the border stays."""
    if min(images.shape[2:]) < 3:
        return images
    middle = images[:, :, 1:-1, 1:-1]
    smooth = (9 * functional.avg_pool2d(images, 3, stride=1) + 4 * middle) / 13
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = _blend(middle, smooth, factor)
    return result


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper `bits` of the 8 bits of every value."""
    step = torch.exp2(8 - bits)
    return ((images * 255).round() / step).floor() * step / 255


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel so that its values reach from 0 to 1; a channel of one value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, ((images - low) / spread).clamp(0, 1), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """Map the 256 levels of each channel so that they are about equally frequent, by the rule of Pillow.

    With h the histogram and s = floor((pixels - pixels of the brightest level) / 255), level k becomes
    floor((sum of h below k + floor(s / 2)) / s); where s is 0 the channel stays.
    """
    level = (images * 255).round().long().flatten(2)
    count = torch.zeros(*level.shape[:2], 256, dtype=torch.int64, device=images.device)
    count.scatter_add_(2, level, torch.ones_like(level))
    step = (level.shape[2] - count.gather(2, level.amax(2, keepdim=True))) // 255
    table = ((count.cumsum(2) - count + step // 2) // step.clamp(min=1)).clamp(max=255)
    equal = (table.gather(2, level).to(images.dtype) / 255).view(images.shape)
    return torch.where(step[..., None] > 0, equal, images)
