"""The first page's own matter from the study file: the abstract's paragraphs and the logo."""

from __future__ import annotations

import base64
import re

from benchkit.errors import StudyError
from benchkit.report.context import Logo
from benchkit.study import Study
from benchkit.study.logo import read_logo


def paragraphs(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, which empty lines part."""
    return tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


def logo_of(study: Study, problems: list[str]) -> Logo | None:
    """Return the study's logo; where its file has gone since the sweep, None after adding a line to `problems`."""
    if study.report.logo is None:
        return None
    try:
        picture = read_logo(study.report.logo)
    except StudyError as error:
        problems.append(f"report.logo: {error.what}; the report is without it")
        return None
    content = base64.b64encode(picture.content).decode()
    return Logo(source=f"data:{picture.media_type};base64,{content}", alt_text=f"Logo of {study.title}")
