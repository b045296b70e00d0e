"""The sources of plugins, by which a trial was trained: their digests, what a trial keeps of them, and their files."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from benchkit.registry.registry import Entry, package_root, python_files


def source_hash(entry: Entry) -> str:
    """Return 12 hex digits of a sha256 over the Python files of a plugin's package (or its file), empty without any.

    Paths within the package and contents count, so that the same version installed elsewhere has the same hash.
    """
    return _sources_digest(str(entry.file or "") or package_root(entry.module))


def source_record(entry: Entry, name: str) -> dict[str, str]:
    """Return what a trial keeps of a plugin that it names so: kind, name, distribution, version and source hash.

    `file` is the name of the local file that it comes from, empty for an installed one.
    """
    return {
        "kind": entry.kind,
        "name": name,
        "distribution": entry.distribution,
        "version": entry.version,
        "source": source_hash(entry),
        "file": entry.file.name if entry.file else "",
    }


def sources_digest(module: str) -> str:
    """Return 12 hex digits of a sha256 over the Python files of a module's package, empty without any."""
    return _sources_digest(package_root(module))


def source_files(module: str) -> tuple[Path, list[Path]]:
    """Return the folder that a module's package is imported from, and its Python files."""
    package = Path(package_root(module))
    return package.parent, [package] if package.is_file() else sorted(map(Path, python_files(str(package))))


def _sources_digest(root: str) -> str:
    if not root:
        return ""
    package = Path(root)
    files = [package] if package.is_file() else sorted(Path(path) for path in python_files(root))
    facts = [path.stat() for path in files]
    return _digest(
        package.parent,
        *((path, one.st_size, one.st_mtime_ns, one.st_ino) for path, one in zip(files, facts, strict=True)),
    )


@functools.lru_cache(maxsize=256)
def _digest(parent: Path, *files: tuple[Path, int, int, int]) -> str:
    """Return the digest of files as they are, empty without any; each is read once, as every trial records it."""
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(f"{path.relative_to(parent).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12] if files else ""
