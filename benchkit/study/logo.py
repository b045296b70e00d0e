"""The picture that a study puts on its report's first page: found, read and made harmless.

Pixels are decoded and encoded anew; of an SVG only drawing elements stay, and nothing that runs or reaches outside.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from benchkit.errors import StudyError

MOST_BYTES = 2 * 2**20
"""The largest file that a logo may be."""

MOST_PIXELS = 25_000_000
KEPT_PIXELS = (900, 450)
"""The width and height that pixels are reduced to, and drawings fitted in: a logo is printed at most 60 mm wide."""

MOST_UNITS = 100_000

SUFFIXES = (".png", ".jpg", ".jpeg", ".svg")
SVG = "http://www.w3.org/2000/svg"
_ELEMENTS = frozenset(
    "svg g defs symbol use path rect circle ellipse line polyline polygon text tspan title desc style clipPath mask "
    "linearGradient radialGradient stop pattern".split()
)
_DEEPEST = 40
_REACHING = re.compile(
    r"""url\s*\(\s*(?!['"]?\#) | @ | \\ | expression | javascript: | data: | image-set | src\s*\( """, re.X | re.I
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A logo fit for a page: its content, and its media type (image/png, image/jpeg or image/svg+xml)."""

    content: bytes
    media_type: str


def logo_path(written: object, folder: Path | None) -> Path:
    """Return the file that `report.logo` names, relative to the study file's `folder`.

    Raises `StudyError` unless it is the path of a PNG, JPEG or SVG at or below that folder: a study from elsewhere
    must not put other files of this machine into a report. Whether the file exists is for `read_logo`.
    """
    if not isinstance(written, str) or Path(written).suffix.lower() not in SUFFIXES:
        raise StudyError(f"got {written!r}, expected the path of a .png, .jpg or .svg file")
    if folder is None:
        return Path(written)
    whole = (folder / written).resolve()
    if Path(written).is_absolute() or not whole.is_relative_to(folder.resolve()):
        raise StudyError(f"got {written!r}, expected a path within the study file's folder, relative to it")
    return whole


def read_logo(path: Path) -> Picture:
    """Return the logo in a file, made harmless; raise `StudyError` when it is missing, too large or no picture."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StudyError(f"{path} has {path.stat().st_size:,} bytes, expected at most {MOST_BYTES:,}")
        content = path.read_bytes()
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() == ".svg":
        return Picture(content=_drawing(content, path), media_type="image/svg+xml")
    return _pixels(content, path)


def _pixels(content: bytes, path: Path) -> Picture:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
                kind = opened.format or "PNG"
                if opened.width * opened.height > MOST_PIXELS:
                    raise StudyError(f"{path} has over {MOST_PIXELS:,} pixels")
                turned = ImageOps.exif_transpose(opened)
                picture = turned.convert("RGB" if kind == "JPEG" else "RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise StudyError(f"{path} is not a picture in PNG or JPEG: {error}") from error
    picture.thumbnail(KEPT_PIXELS)
    out = io.BytesIO()
    picture.save(out, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return Picture(content=out.getvalue(), media_type=f"image/{kind.lower()}")


def _drawing(content: bytes, path: Path) -> bytes:
    """Return an SVG of which only drawing elements and harmless attributes are left."""
    try:
        text = re.sub(r"<!DOCTYPE[^\[>]*>", "", content.decode("utf-8-sig"), count=1)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise StudyError(f"{path} defines entities, which a logo may not", hint="save it as plain SVG")
        root = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise StudyError(f"{path} is not an SVG: {error}") from error
    if root.tag not in (f"{{{SVG}}}svg", "svg"):
        raise StudyError(f"{path} is not an SVG: its outermost element is {_local(root.tag)!r}")
    cleaned = _cleaned(root, path, 0)
    _drop_nested_uses(cleaned)
    _fit(cleaned, path)
    cleaned.set("xmlns", SVG)
    return bytes(ElementTree.tostring(cleaned, encoding="utf-8"))


def _cleaned(element: ElementTree.Element, path: Path, depth: int) -> ElementTree.Element:
    if depth > _DEEPEST:
        raise StudyError(f"{path} nests its elements more than {_DEEPEST} deep", hint="save it as plain SVG")
    cleaned = ElementTree.Element(_local(element.tag), _attributes(element))
    harmless = cleaned.tag != "style" or not _REACHING.search(element.text or "")
    cleaned.text = element.text if harmless else None
    cleaned.tail = element.tail
    for child in element:
        if isinstance(child.tag, str) and _local(child.tag) in _ELEMENTS and _is_svg(child.tag):
            cleaned.append(_cleaned(child, path, depth + 1))
    return cleaned


def _fit(root: ElementTree.Element, path: Path) -> None:
    """Give the drawing a view box and the size in pixels that it is kept at, whatever its own."""
    numbers = re.findall(r"[-+.\de]+", root.get("viewBox", ""))
    if len(numbers) != 4:
        numbers = ["0", "0", *(root.get(name, "").removesuffix("px").strip() for name in ("width", "height"))]
    try:
        left, top, width, height = map(float, numbers)
    except ValueError:
        width = height = 0.0
    if not (0.1 <= width <= MOST_UNITS and 0.1 <= height <= MOST_UNITS):
        raise StudyError(f"{path} has no size: its svg element needs a viewBox of at most {MOST_UNITS:,} by as many")
    root.set("viewBox", f"{left:g} {top:g} {width:g} {height:g}")
    scale = min(KEPT_PIXELS[0] / width, KEPT_PIXELS[1] / height)
    root.set("width", f"{max(1, round(width * scale))}")
    root.set("height", f"{max(1, round(height * scale))}")


def _drop_nested_uses(root: ElementTree.Element) -> None:
    """Drop uses of nothing, and of what holds uses itself: a few of those, nested, would draw millions of shapes."""
    nested = {f"#{element.get('id')}" for element in root.iter() if any(inner.tag == "use" for inner in element.iter())}
    for parent in root.iter():
        for child in list(parent):
            if child.tag == "use" and child.get("href") in {None, *nested}:
                parent.remove(child)


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    kept = {}
    for name, value in element.attrib.items():
        local = _local(name)
        if local == "href":
            if value.startswith("#"):
                kept["href"] = value
        elif "}" not in name and not local.lower().startswith("on") and not _REACHING.search(value):
            kept[local] = value
    return kept


def _is_svg(tag: str) -> bool:
    return "}" not in tag or tag.startswith(f"{{{SVG}}}")


def _local(name: str) -> str:
    return name.rpartition("}")[2]
