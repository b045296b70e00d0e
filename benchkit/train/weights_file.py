"""The file that a model starts from, looked at before anything reads tensors from it. Imports no torch."""

from __future__ import annotations

import functools
from pathlib import Path

from benchkit.errors import DataError
from benchkit.storage import file_digest

LFS_POINTER = b"version https://git-lfs"
"""How the file begins that Git keeps in the place of one that Git LFS has not fetched."""


def weights_digest(path: str | Path) -> str:
    """Return the sha256 of a weights file, in hexadecimal.

    Raise `DataError` for a file that is absent or empty, or that is a pointer of Git LFS.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"no weights at {file}", hint="model.weights names a local safetensors or pth file")
    stat = file.stat()
    return _digest(file.absolute(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _digest(file: Path, size: int, changed: int) -> str:
    """Return the digest of a file of this size that was changed at this time: read again only when either differs."""
    if not size:
        raise DataError(f"the weights {file} are an empty file", hint="copy or download them again")
    with file.open("rb") as content:
        if content.read(len(LFS_POINTER)) == LFS_POINTER:
            raise DataError(
                f"the weights {file} are a pointer of Git LFS, not the weights themselves",
                hint="`git lfs pull` in its repository fetches them",
            )
    return file_digest(file)
