"""Reports that someone changed: capsules in HTML files taken out, edited, and put back, as carelessly as asked."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ADDRESS = re.compile(r"(?<=href=\"data:application/zip;base64,)[^\"]+")
Edit = Callable[[Any], None]


def capsule_in(html: Path) -> bytes:
    """Return the capsule's bytes in a page."""
    found = ADDRESS.search(html.read_text())
    assert found
    return base64.b64decode(found[0])


def members(capsule: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(capsule)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return out.getvalue()


def edited(capsule: bytes, edits: Mapping[str, Edit], *, digests: bool = False) -> bytes:
    """Return a capsule with JSON members changed in place; with `digests` those of the members are made to fit."""
    found = members(capsule)
    for name, edit in edits.items():
        content = json.loads(found[name])
        edit(content)
        found[name] = json.dumps(content).encode()
    if digests:
        head = json.loads(found["capsule.json"])
        head["members"] = {name: sha256(data) for name, data in found.items() if name != "capsule.json"}
        found["capsule.json"] = json.dumps(head).encode()
    return zipped(found)


def put_into(html: Path, capsule: bytes, *, digest: bool = False) -> None:
    """Replace a page's capsule; with `digest`, the sha256 that the page shows of it, and its own, too."""
    text = html.read_text()
    before = sha256(capsule_in(html))
    text = ADDRESS.sub(lambda _: base64.b64encode(capsule).decode(), text)
    html.write_text(resealed(text.replace(before, sha256(capsule))) if digest else text)


def resealed(page: str) -> str:
    """Return a page whose last line has the sha256 of all above it again."""
    above = page[: page.rindex("<!-- sha256")]
    return f"{above}<!-- sha256 of all above: {sha256(above.encode())} -->\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
