"""What a PDF report shows and attaches, read by a child process with limits: the file may come from anywhere."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchkit.capsule.archive import CAPSULE
from benchkit.child import run_python
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
    return ReportFile(kind="pdf", capsule=files[CAPSULE], text=text, files=files)


def _read(path: Path, folder: Path) -> dict[str, Any]:
    arguments = ["-m", "benchkit.verify.pdf_reader", str(path.resolve()), str(folder), str(MEMORY_MIB)]
    ended = run_python(arguments, SECONDS)
    if ended.late:
        raise ReportError(f"{path}: reading it took longer than {SECONDS:g} s and was ended")
    if ended.problem:
        raise ReportError(f"{path} is damaged, or no PDF that can be read", problems=[ended.problem])
    told: dict[str, Any] = json.loads(ended.out)
    return told
