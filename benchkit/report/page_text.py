"""Text on its way into pages and pictures: the unprintable as codes, other directions isolated, long text in pieces."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

from markupsafe import Markup, escape

PIECE = 2000
"""Longer texts are cut into elements of about so many characters: the printer's time for one grows with its square."""

PACK_FROM = 16_000
"""Embedded data of this many characters or more are compressed; the page unpacks them when they are asked for."""

MOST_UNPACKED = 256 * 2**20
"""Packed data that inflate to more bytes than this are refused: no report of ours holds such."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_RIGHT = (
    "\u0590-\u08ff\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
)
_RIGHT_TO_LEFT = re.compile(f"[{_RIGHT}]")
_QUOTED = f"(?<=\u201c)[^\u201d]*[{_RIGHT}][^\u201d]*(?=\u201d)"
_NAME = re.compile(f"{_QUOTED}|[{_RIGHT}](?:[^A-Za-z\u201c\u201d]*[{_RIGHT}])?")
_SHAPED = re.compile(f"[{_RIGHT}\u0300-\u036f\u0900-\u109f\u1780-\u17ff\u1a00-\u1aff\u200c\u200d]")


def printable(text: str) -> str:
    r"""Return a text with a code, such as \x07 or \udc80, for each character that neither HTML nor XML can hold."""
    return _UNPRINTABLE.sub(lambda letter: letter[0].encode("unicode_escape").decode(), text)


def needs_shaping(text: str) -> bool:
    """Return whether a text is wrong when its letters are drawn one by one from left to right."""
    return _SHAPED.search(text) is not None


def shown(text: object) -> Markup:
    """Return a text for a page: escaped, names that run from right to left in `<bdi>`, long text in pieces.

    Without the isolation, the number after such a name would be drawn within its quotes.
    """
    words = printable(str(text))
    if len(words) <= PIECE:
        return _isolated(words)
    pieces = re.findall(rf"(?s).{{1,{PIECE}}}(?:\s|\Z)|.{{{PIECE}}}\S*\s?", words)
    return Markup("").join(Markup("<span>{}</span>").format(_isolated(piece)) for piece in pieces)


def _isolated(text: str) -> Markup:
    if not _RIGHT_TO_LEFT.search(text):
        return escape(text)
    parts, end = [], 0
    for name in _NAME.finditer(text):
        parts += [escape(text[end : name.start()]), Markup("<bdi>{}</bdi>").format(name[0])]
        end = name.end()
    return Markup("").join([*parts, escape(text[end:])])


def packed(value: Any) -> str:
    """Return a value as JSON; where that is long, `{"packed": TEXT}` with the JSON deflated (zlib) in base64.

    A string counts as JSON already. The same value gives the same text.
    """
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), allow_nan=False)
    if len(text) < PACK_FROM:
        return text
    return json.dumps({"packed": base64.b64encode(zlib.compress(text.encode(), 9)).decode()})


def unpacked(text: str) -> Any:
    """Return the value that `packed` made a text of.

    Raises `ValueError` for any other text, and for data that inflate to more than `MOST_UNPACKED` bytes.
    """
    value = json.loads(text)
    if not isinstance(value, dict) or set(value) != {"packed"}:
        return value
    inflating = zlib.decompressobj()
    try:
        inflated = inflating.decompress(base64.b64decode(value["packed"], validate=True), MOST_UNPACKED)
    except (TypeError, zlib.error) as error:
        raise ValueError(f"packed data are damaged: {error}") from error
    if not inflating.eof:
        raise ValueError("packed data are damaged or too long")
    return json.loads(inflated)
