"""Drawn figures kept by content, so that the report of the same results is not drawn twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from benchkit.atomic_write import write_atomically
from benchkit.registry.description_cache import cache_folder

MOST_BYTES = 256 * 2**20
"""The most that a cache keeps; what was not used for longest goes first."""


@dataclass(frozen=True, slots=True)
class ChartCache:
    """A folder of pictures by key. A picture is there whole or not at all, whatever other processes do meanwhile.

    A cache that cannot be written is done without: it saves time, and nothing depends on it.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    @classmethod
    def of_user(cls) -> ChartCache:
        """Return the user's cache: `pictures` in `BENCHKIT_CACHE`, else in the user's cache folder."""
        return cls(cache_folder() / "pictures")

    def get(self, key: str) -> bytes | None:
        """Return the picture of a key, or None when there is none or its file is damaged."""
        path = self._path(key)
        try:
            digest, _, content = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now: it goes last
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep a picture under its key."""
        with contextlib.suppress(OSError):
            write_atomically(self._path(key), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def trim(self) -> None:
        """Remove pictures until the rest is within `most_bytes`; another process may do the same at once."""
        kept = 0
        for _, size, path in sorted(self._files(), reverse=True):
            kept += size
            if kept > self.most_bytes:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of last use, size and path of every file; unfinished ones of killed processes are among them."""
        found = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                with contextlib.suppress(OSError):  # gone meanwhile
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        return found

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.picture"
