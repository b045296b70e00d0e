"""What a PDF report shows and attaches, read by a child process with limits: the file may come from anywhere."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchkit.capsule.making import CAPSULE, squeezed
from benchkit.child import answer_stream, limit_memory, run_python
from benchkit.errors import ReportError
from benchkit.verify.opening import ReportFile, without_capsule

SECONDS = 600.0
"""How long reading a PDF may take."""

MEMORY_MIB = 4096
"""How much address space reading a PDF may take."""


def read_pdf(path: Path) -> ReportFile:
    """Return what a PDF report shows and attaches; raise `ReportError` when it is none, damaged or over the limits."""
    with tempfile.TemporaryDirectory(prefix="benchkit-") as name:
        folder = Path(name)
        told = _read(path, folder)
        if not told["producer"].startswith("WeasyPrint") and CAPSULE not in told["files"]:
            raise ReportError(f"{path} is no report by benchkit", hint="name the .html or .pdf file of a report")
        if CAPSULE not in told["files"]:
            raise without_capsule(str(path))
        files = {shown: (folder / stored).read_bytes() for shown, stored in told["files"].items()}
        text = (folder / told["text"]).read_text(encoding="utf-8")
    return ReportFile(kind="pdf", path=path, capsule=files[CAPSULE], text=text, files=files)


def _read(path: Path, folder: Path) -> dict[str, Any]:
    arguments = ["-m", "benchkit.verify.pdf_file", str(path.resolve()), str(folder), str(MEMORY_MIB)]
    ended = run_python(arguments, SECONDS)
    if ended.late:
        raise ReportError(f"{path}: reading it took longer than {SECONDS:g} s and was ended")
    if ended.problem:
        raise ReportError(f"{path} is damaged, or no PDF that can be read", problems=[ended.problem])
    told: dict[str, Any] = json.loads(ended.out)
    return told


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
