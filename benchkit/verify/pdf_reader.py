"""The child process that takes a PDF apart: run as `python -m benchkit.verify.pdf_reader FILE FOLDER MIB`.

It prints one JSON line. Text and attachments go to files in FOLDER under names of our own; nothing in the PDF chooses
a path.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from benchkit.capsule.making import squeezed
from benchkit.child import answer_stream, limit_memory

MOST_FILES = 5000
"""A PDF may attach this many files."""

MOST_ATTACHED = 1024 * 2**20
"""A PDF's attachments may have this many bytes in all."""


def take_apart(path: Path, folder: Path) -> dict[str, Any]:
    """Return the PDF's producer, the file with its text, and its attachments: names as shown, names in `folder`."""
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = pypdf.PdfReader(path)
    files: dict[str, str] = {}
    total = 0
    for place, attached in enumerate(reader.attachment_list):
        if place >= MOST_FILES:
            raise ValueError(f"it attaches more than {MOST_FILES:,} files")
        content = attached.content
        total += len(content)
        if attached.name in files:
            raise ValueError("it attaches two files of one name")
        if total > MOST_ATTACHED:
            raise ValueError(f"its attachments have more than {MOST_ATTACHED:,} bytes")
        files[attached.name] = f"file-{place}"
        (folder / files[attached.name]).write_bytes(content)
    text = "".join(squeezed(page.extract_text()) for page in reader.pages)
    (folder / "text").write_text(text, encoding="utf-8", errors="replace")
    return {"producer": str(reader.metadata.producer or "") if reader.metadata else "", "text": "text", "files": files}


def main(path: str, folder: str, memory_mib: str) -> int:
    """Take the file apart within the memory that is given."""
    limit_memory(int(memory_mib))
    with answer_stream() as answers:
        answers.write(json.dumps(take_apart(Path(path), Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
