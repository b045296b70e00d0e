"""What a person sees of an image file: upright, on white, in eight bits a channel, in the colours of a screen."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

UNPARSED = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error)
"""What reading damaged EXIF data raises."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes of more than 8 bits a channel."""
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 where it has none or one that cannot be read."""
    try:
        number = image.getexif().get(_ORIENTATION, 1)
    except UNPARSED:
        return 1  # damaged EXIF data say nothing of the pixels
    return number if isinstance(number, int) and number in _TURNS else 1


def seen_size(image: Image.Image) -> tuple[int, int]:
    """Return (H, W) of an opened image as a person sees it, which for a photograph on its side is (W, H) of the file.

    Of a TIFF file Pillow tells the size upright from the start.
    """
    aside = image.format != "TIFF" and orientation(image) >= 5
    return (image.width, image.height) if aside else (image.height, image.width)


def seen(image: Image.Image, channels: int) -> tuple[Image.Image, list[str]]:
    """Return an opened image as a person sees it, in mode L (`channels` 1) or RGB (3), and what was done, by name.

    16 bits become the upper 8; CMYK becomes sRGB by the file's own profile where it has one; what is transparent lies
    on white; the EXIF orientation is applied. Of several frames it is the first.

    Raises:
        ValueError: it holds floating-point numbers, or integers of more than 16 bits.
    """
    image.load()  # turns a TIFF file upright
    turn = orientation(image)
    done = ["turned"] * (turn != 1)
    if image.mode in DEEP_MODES:
        image = _upper_bits(image)
    if image.mode == "CMYK":
        image, how = _on_screen(image)
        done.append(how)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            done.append("white")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    image = image.convert("L" if channels == 1 else "RGB")
    return (image.transpose(_TURNS[turn]) if turn != 1 else image), done


def losses(image: Image.Image, *, deep: bool, dark: bool) -> Iterator[str]:
    """Yield what any rules leave out of an image, by name.

    `deep` says whether its channels had 16 bits, `dark` whether next to nothing is left of them.
    """
    if deep:
        yield "deep"
    if dark:
        yield "dark"
    if getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO's first picture is the photograph
        yield "animation"


def _upper_bits(image: Image.Image) -> Image.Image:
    """Return an image of 16 bits in mode L: v >> 8; a grey value that is declared transparent is white."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        held = "floating-point numbers" if image.mode == "F" else "more than 16 bits a channel"
        raise ValueError(f"mode {image.mode} holds {held}; convert it to 8 bits")
    grey = (values >> 8).astype(np.uint8)
    clear = image.info.get("transparency")
    return Image.fromarray(np.where(values == clear, np.uint8(255), grey) if isinstance(clear, int) else grey)


def _on_screen(image: Image.Image) -> tuple[Image.Image, str]:
    """Return a CMYK image in RGB, by its profile if it has one that can be used, and how that was done."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            screen, by = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
            turned = ImageCms.profileToProfile(image, BytesIO(profile), screen, by, outputMode="RGB")
            if turned is not None:
                return turned, "profile"
        except (ImageCms.PyCMSError, ImportError):
            pass  # the profile is damaged or of another colour space: as without one
    return image.convert("RGB"), "cmyk"
