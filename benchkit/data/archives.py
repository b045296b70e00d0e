"""Unpacking archives that somebody else made: nothing is written outside the folder, and no link or device is made."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from benchkit.data.prepared import report_progress
from benchkit.errors import DataError

MAX_RATIO = 200
"""An archive may unpack to this many times its own size, plus `SLACK`. Image archives stay below 10."""
SLACK = 1 << 30
"""Bytes that an archive may unpack to whatever its ratio."""
MAX_MEMBERS = 20_000_000
"""How many members an archive may have."""

_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
)


@contextmanager
def unpacked(source: Path, scratch: Path) -> Iterator[Path]:
    """Yield `source` itself if it is a folder, else a temporary folder inside `scratch` with the archive's files.

    Reads tar (also gz, bz2, xz) and zip. The temporary folder is removed at the end, whatever happens.

    Raises:
        DataError: `source` does not exist, is no archive, is damaged, unpacks to implausibly much, or has a member
            with an absolute path, a path or link that leaves the folder, or that is a device; it is named. Errors
            raised inside the block name the archive in place of the temporary folder.
    """
    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise DataError(f"{source} does not exist", hint="give a folder of images or an archive (tar, tar.gz or zip)")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=scratch) as name:
        folder = Path(name)
        _unpack(source, folder)
        try:
            yield folder
        except DataError as error:
            # Whoever reads it knows the archive, not the folder, which is gone by then.
            what, hint, *problems = (
                text.replace(str(folder), str(source)) for text in (error.what, error.hint, *error.problems)
            )
            raise DataError(what, problems=problems, hint=hint) from error


def _unpack(source: Path, folder: Path) -> None:
    unpack = _Unpacking(source=source, folder=folder, limit=_limit(source, folder))
    try:
        if tarfile.is_tarfile(source):  # first: a tar that ends with a zip looks like a zip
            _unpack_tar(unpack)
        elif zipfile.is_zipfile(source):
            _unpack_zip(unpack)
        else:
            raise DataError(
                f"{source} is neither a folder nor an archive that can be read", hint="expected tar, tar.gz or zip"
            )
    except _BROKEN as error:
        raise DataError(
            f"{source} cannot be unpacked: {error or type(error).__name__}",
            hint="the archive may be incomplete: fetch it again and compare its checksum",
        ) from error
    report_progress(unpack.files, unpack.files, f"unpacking {source.name}")


def _limit(source: Path, folder: Path) -> int:
    plausible = source.stat().st_size * MAX_RATIO + SLACK
    return min(plausible, shutil.disk_usage(folder).free)


@dataclass(slots=True, kw_only=True)
class _Unpacking:
    """One archive on its way to `folder`: what was written so far, and how many bytes may be."""

    source: Path
    folder: Path
    limit: int
    total: int = 0
    members: int = 0
    files: int = 0
    links: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, member: str, why: str) -> DataError:
        """Return the error that names the member."""
        return DataError(
            f"{self.source}: refused to unpack {member!r}: {why}",
            hint="unpack the archive yourself if you trust it, and give the folder",
        )

    def count(self, member: str, size: int) -> None:
        """Add a member of `size` bytes; raise `DataError` when the archive is implausibly large."""
        self.members += 1
        self.total += size
        if self.total > self.limit:
            raise self.refuse(
                member,
                f"the archive unpacks to more than {self.limit:,} bytes (plausible for its size and free on disk)",
            )
        if self.members > MAX_MEMBERS:
            raise self.refuse(member, f"the archive has more than {MAX_MEMBERS:,} members")

    def place(self, member: str) -> Path:
        """Return where a member belongs, inside `folder`; raise `DataError` for a path that leaves it."""
        windows = PureWindowsPath(member)
        if windows.drive or windows.root or "\0" in member:
            raise self.refuse(member, "its path is absolute")
        if ".." in windows.parts:
            raise self.refuse(member, "its path leaves the folder")
        return self.folder.joinpath(*windows.parts)

    def write(self, member: str, stream: IO[bytes]) -> None:
        """Write a regular file."""
        target = self.place(member)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
        self.files += 1
        if self.files % 500 == 0:
            report_progress(self.files, 0, f"unpacking {self.source.name}")

    def link(self, member: str, target: str, *, relative_to: PurePosixPath) -> None:
        """Remember a link; `target` is relative to `relative_to`. Raises `DataError` when it points outside."""
        self.place(member)
        if PureWindowsPath(target).drive or PureWindowsPath(target).root:
            raise self.refuse(member, f"it is a link to the absolute path {target!r}")
        parts: list[str] = []
        for part in (*relative_to.parts, *PurePosixPath(target).parts):
            if part == "..":
                if not parts:
                    raise self.refuse(member, f"it is a link to {target!r}, outside the archive")
                parts.pop()
            elif part != ".":
                parts.append(part)
        self.links.append((member, "/".join(parts)))

    def copy_links(self) -> None:
        """Write a copy of its target for every link: real links could be chained to lead outside."""
        for member, target in self.links:
            original = self.place(target)
            if not original.is_file():
                raise self.refuse(member, f"it is a link to {target!r}, which is not a file in the archive")
            self.count(member, original.stat().st_size)
            with original.open("rb") as stream:
                self.write(member, stream)


def _unpack_tar(unpack: _Unpacking) -> None:
    with tarfile.open(unpack.source, "r:*") as archive:
        for member in archive:
            unpack.count(member.name, member.size if member.isreg() else 0)
            if member.isdir():
                unpack.place(member.name).mkdir(parents=True, exist_ok=True)
            elif member.issym():
                unpack.link(member.name, member.linkname, relative_to=PurePosixPath(member.name).parent)
            elif member.islnk():
                unpack.link(member.name, member.linkname, relative_to=PurePosixPath())
            elif member.isreg():
                stream = archive.extractfile(member)
                assert stream is not None, "a regular member has content"
                unpack.write(member.name, stream)
            else:
                raise unpack.refuse(member.name, "it is a device or another special file")
    unpack.copy_links()


def _unpack_zip(unpack: _Unpacking) -> None:
    with zipfile.ZipFile(unpack.source) as archive:
        for member in archive.infolist():
            unpack.count(member.filename, member.file_size)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                unpack.place(member.filename).mkdir(parents=True, exist_ok=True)
            elif kind == stat.S_IFLNK:
                target = archive.read(member).decode("utf-8", "surrogateescape")
                unpack.link(member.filename, target, relative_to=PurePosixPath(member.filename).parent)
            elif kind in (0, stat.S_IFREG):
                with archive.open(member) as stream:
                    unpack.write(member.filename, stream)
            else:
                raise unpack.refuse(member.filename, "it is a device or another special file")
    unpack.copy_links()
