"""Fetching the original files of published data sets, checked against torchvision's checksums."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from benchkit import DataError
from benchkit.preparation import report_progress

TIMEOUT = 60.0
"""Seconds without a byte after which a server counts as out of reach."""


def fetch(urls: Sequence[str], folder: Path, *, filename: str, md5: str, name: str) -> Path:
    """Return the path of the downloaded file, from the first of `urls` that gives it with the right checksum.

    Raises:
        DataError: no address works; it names each with its reason and the command that imports files by hand.
    """
    from torchvision.datasets.utils import download_url

    problems = []
    for url in urls:
        report_progress(0, 0, f"downloading {filename}")
        try:
            with _timeout():
                download_url(url, str(folder), filename, md5)
        except (OSError, HTTPException) as error:
            problems.append(f"{url}: {error}")
        except RuntimeError as error:
            problems.append(f"{url}: {error} The MD5 checksum is not {md5}.")
        else:
            return folder / filename
        (folder / filename).unlink(missing_ok=True)
    raise DataError(
        f"{name} is not prepared and {filename} could not be downloaded",
        problems=problems,
        hint=f"fetch {filename} (MD5 {md5}) in another way, then run `benchkit data import {name} PATH`, where PATH is "
        "the file, an unpacked copy, or class folders of images",
    )


@contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
