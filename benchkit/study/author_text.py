"""The author's own text of a report, `[report.text]`: Markdown by the place where it stands. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchkit.errors import nearest
from benchkit.study.tree import Problems, quoted

PLACES = (
    "introduction", "method", "findings", "results", "training", "search", "images", "cost", "figures", "published",
    "discussion", "limitations", "conclusion", "acknowledgements",
)  # fmt: skip
"""Where the author's text can stand: sections of its own, and the beginning of the report's sections of these names."""

MOST_LETTERS = 20_000
"""The longest text of one place."""
MOST_BYTES = 2**20
_HEADING = re.compile(r"# +(.+?)(?: +#+)? *$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


def read_author_text(written: Any, problems: Problems, folder: Path | None) -> dict[str, str]:
    """Return the author's Markdown by its place, noting every problem in `problems`.

    `written` is a table of texts by place, or the name of a Markdown file in the study file's `folder`, whose headings
    `# PLACE` begin what stands there. Of a file that is named outside a folder nothing can be read.
    """
    if isinstance(written, str):
        text = _file(written, problems, folder)
        written = {} if text is None else by_place(text, problems)
    if not isinstance(written, Mapping):
        problems.add("report.text", f"got {quoted(written)}, expected a table of text or the name of a .md file")
        return {}
    texts = {}
    for place, text in written.items():
        if place not in PLACES:
            problems.unknown("report.text", place, PLACES)
        elif not isinstance(text, str):
            problems.add(f"report.text.{place}", f"got {quoted(text)}, expected text")
        elif len(text) > MOST_LETTERS:
            problems.add(f"report.text.{place}", f"has {len(text):,} letters, expected at most {MOST_LETTERS:,}")
        elif text.strip():
            texts[place] = text.strip()
    return {place: texts[place] for place in PLACES if place in texts}


def _file(name: str, problems: Problems, folder: Path | None) -> str | None:
    path = (folder / name).resolve() if folder else Path(name)
    if folder is None or Path(name).is_absolute() or path.suffix != ".md" or not path.is_relative_to(folder.resolve()):
        problems.add("report.text", f"got {quoted(name)}, expected the path of a .md file beside the study file")
        return None
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES:,} bytes")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        problems.add("report.text", f"{name} cannot be read: {error}")
        return None


def by_place(text: str, problems: Problems) -> dict[str, str]:
    """Return the parts of a Markdown text by the places that its headings of the first level name.

    `# Limitations` begins the part of the place `limitations`; within fenced code nothing is a heading.
    """
    parts: dict[str, list[str]] = {}
    part: list[str] = []
    before, fence = part, ""
    for line in text.splitlines():
        heading = _HEADING.match(line) if not fence else None
        if heading:
            place = heading[1].strip().lower()
            if place not in PLACES:
                problems.add("report.text", f"heading # {heading[1][:40]}{nearest(place, PLACES)}, expected one of "
                             f"{', '.join(PLACES)}")  # fmt: skip
            elif place in parts:
                problems.add("report.text", f"heading # {place} stands twice")
            part = parts.setdefault(place, []) if place in PLACES else []
            continue
        marks = _FENCE.match(line)
        if marks and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else marks[1]
        part.append(line)
    if "".join(before).strip():
        problems.add("report.text", "text before the first heading # PLACE")
    return {place: "\n".join(lines) for place, lines in parts.items()}
