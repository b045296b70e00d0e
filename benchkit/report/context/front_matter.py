"""The first page's own matter from the study file: the abstract's paragraphs and the logo."""

from __future__ import annotations

import base64
import re

import vl_convert

from benchkit.errors import StudyError
from benchkit.report.context.blocks import Logo
from benchkit.report.figures.drawing import register_fonts
from benchkit.study import Study
from benchkit.study.logo import Picture, read_logo


def paragraphs(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, which empty lines part."""
    return tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


def logo_of(study: Study, problems: list[str]) -> Logo | None:
    """Return the study's logo; where its file has gone since the sweep, None after adding a line to `problems`."""
    if study.report.logo is None:
        return None
    try:
        picture = read_logo(study.report.logo)
        printable = _printable(picture)
    except StudyError as error:
        problems.append(f"report.logo: {error.what}; the report is without it")
        return None
    return Logo(source=_address(picture), print_source=_address(printable), alt_text=f"Logo of {study.title}")


def _printable(picture: Picture) -> Picture:
    """Return the logo as pixels where it is an SVG with gradients: some PDF viewers leave those out at some sizes."""
    if b"Gradient" not in picture.content or picture.media_type != "image/svg+xml":
        return picture
    register_fonts()
    try:
        content: bytes = vl_convert.svg_to_png(picture.content.decode())
    except ValueError as error:
        raise StudyError(f"the logo cannot be drawn: {error}") from error
    return Picture(content=content, media_type="image/png")


def _address(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"
