"""benchmarks.json: everything that was measured, by device, from which the report is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from measurements import Part

from benchkit import __version__
from benchkit.storage import decode, encode, write_atomically

NAME = "benchmarks.json"


def known_parts(folder: Path) -> dict[str, Part]:
    """Return what an earlier benchmarks.json in the folder holds, by device."""
    try:
        told = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {name: decode(Part, one) for name, one in told["parts"].items()}


def keep(folder: Path, parts: Mapping[str, Part]) -> bytes:
    """Write benchmarks.json into a folder; return its content."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"generator": f"benchkit {__version__}", "parts": {name: encode(part) for name, part in parts.items()}}
    told = (json.dumps(whole, indent=1) + "\n").encode()
    write_atomically(folder / NAME, told)
    return told
