"""How values reach the disk: strict JSON of dataclasses, TOML, files written whole or not at all, the cache folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchkit.errors import BenchkitError

T = TypeVar("T")

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
"""What people call the types that messages name."""


def in_words(value: Any) -> str:
    """Return what people call the type of a value: a whole number, a list."""
    kind = type(value).__name__
    return WORDS.get({"list": "array", "tuple": "array", "dict": "object", "NoneType": "null"}.get(kind, kind), kind)


def each_once(names: Iterable[str]) -> list[str]:
    """Return names of columns, of which one that an earlier column has gets a number: the second `n` is `n_2`."""
    known: list[str] = []
    for name in names:
        head, at = name, 1
        while head in known:
            at += 1
            head = f"{name}_{at}"
        known.append(head)
    return known


PLAIN = frozenset({str, int, float, bool, type(None)})


def encode(value: Any) -> Any:
    """Return JSON values for a dataclass, recursively: tuples become lists, paths text."""
    if type(value) in PLAIN:  # most of what there is: each trial names all distributions
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def decode(cls: type[T], value: Any, where: str = "", *, error: type[BenchkitError] = BenchkitError) -> T:
    """Return `cls` from what `encode` gave; unknown keys are left out, so that newer files stay readable.

    A number may be spelled nan, inf or -inf, which JSON lacks. Raises `error` for the first value of another type than
    its field, and for a field without a default that is missing; its message is one line that starts with `where` and
    the path below it.
    """
    try:
        return _converted(cls, value)
    except msgspec.ValidationError as problem:
        raise error(f"{where or cls.__name__}{_in_words(problem)}") from problem
    except UnicodeEncodeError as problem:
        raise error(f"{where or cls.__name__} has a text that is no Unicode (a lone surrogate)") from problem


def decode_lines(cls: type[T], content: bytes, where: str = "") -> tuple[T, ...]:
    """Return what `decode` makes of each line of a text, which is JSON; raise as it does, `ValueError` for other text.

    It takes a third of the time, unless a number is NaN or infinite, which JSON lacks.
    """
    try:
        return tuple(_decoder(cls).decode_lines(content))  # type: ignore[arg-type]
    except msgspec.DecodeError:
        return decode(tuple[cls, ...], json.loads(f"[{','.join(content.decode().splitlines())}]"), where)  # type: ignore[valid-type]


@cache
def _decoder(cls: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(cls, dec_hook=_from_text)


def _converted(cls: type[T], value: Any) -> T:
    try:
        return msgspec.convert(value, cls, dec_hook=_from_text)
    except msgspec.ValidationError as problem:
        if not str(problem).startswith("Expected `float`, got `str`"):
            raise
    return msgspec.convert(value, cls, strict=False, dec_hook=_from_text)


def _from_text(hint: Any, value: Any) -> Any:
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is object:
        return value
    raise NotImplementedError(f"no field has the type {hint}")


def _in_words(problem: msgspec.ValidationError) -> str:
    """Return the place and what is wrong with it: `.cost.seconds: expected a number, got text`."""
    what, _, path = str(problem).partition(" - at ")
    where = path.replace("`", "").replace("$", "")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{where} has no {missing[1]!r}"
    if invalid := re.fullmatch(r"Invalid enum value (.*)", what, re.DOTALL):
        return f"{where} is {invalid[1][:60]}, which is none of its values"
    what = what.replace("Number out of range", "Expected a number that 64 bits can hold")
    what = re.sub(r"`([a-z |]+)`", lambda named: " or ".join(WORDS.get(t, t) for t in named[1].split(" | ")), what)
    return f"{where}: {what[0].lower()}{what[1:]}"


BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that TOML takes without quotation marks."""


def to_toml(table: Mapping[str, Any], ordered: Collection[str] = ()) -> str:
    """Return a nested table as TOML: plain values first, then `[table]` and `[[table]]` blocks; None is left out.

    The tables whose dotted paths are in `ordered` keep the order of their keys: each is a line of its own.
    """
    return "\n".join(_toml_lines(table, (), ordered)).strip() + "\n"


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...], ordered: Collection[str]) -> list[str]:
    inline = ".".join(path) in ordered
    plain = {key: value for key, value in table.items() if (inline or not _is_block(value)) and value is not None}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in table.items() if not inline else ():
        name = ".".join(_toml_key(part) for part in (*path, key))
        if isinstance(value, Mapping):
            lines += [f"\n[{name}]", *_toml_lines(value, (*path, key), ordered)]
        elif _is_block(value):
            for item in value:
                lines += [f"\n[[{name}]]", *_toml_lines(item, (*path, key), ordered)]
    return lines


def _is_block(value: Any) -> bool:
    """Return whether a value is a table, or a list of tables and nothing else."""
    listed = isinstance(value, list | tuple) and bool(value)
    return isinstance(value, Mapping) or (listed and all(isinstance(item, Mapping) for item in value))


def _toml_key(key: str) -> str:
    return key if BARE.fullmatch(key) else _toml_text(key)


def _toml_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml_key(key)} = {_toml_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(item) for item in value if item is not None)}]"
    return _toml_text(str(value))


def mebibytes(count: float) -> str:
    """Return a number of bytes in words: 1,234.5 MiB."""
    return f"{count / 2**20:,.1f} MiB"


def file_digest(file: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place, then rename it into it; missing folders are made, and nothing is left on failure.

    Raises `OSError` when the file cannot be written; the old content then stays.
    """
    beside = path.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        try:
            beside.write_bytes(content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)
        beside.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say for which file
        with contextlib.suppress(OSError):  # a file system that cannot be written: the first error says so
            beside.unlink(missing_ok=True)
        raise


def no_folder(path: Path) -> str:
    """Return in words what stands where a folder is to be made, nothing where nothing or a folder does."""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which is not there"
    return "a file, expected a folder" if path.exists() and not path.is_dir() else ""


DEFAULT_WORKSPACE = "benchkit-runs"
"""The workspace of commands that are given none."""

_FORMAT = 2


def placed(workspace: Path | str, plugins: Sequence[Path] = ()) -> list[str]:
    """Return the options by which another command finds a workspace and files of plugins, for a command to show."""
    options = [] if Path(workspace) == Path(DEFAULT_WORKSPACE) else ["--workspace", str(workspace)]
    here = Path.cwd()
    for file in plugins:
        options += ["--plugin", str(file.relative_to(here) if file.is_relative_to(here) else file)]
    return options


def home_folder() -> Path:
    """Return the user's home folder; where the system knows none, one of the user's own among temporary files.

    Users of containers often have neither HOME nor an entry in passwd. HOME then names that folder, so that libraries
    and child processes find one, too. Raises `BenchkitError` when no folder can be made that is theirs alone: caches
    hold compiled code, which nobody else may put there.
    """
    try:
        return Path.home()
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"benchkit-home-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        private = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077
        reason = "" if private else "others can write there"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise BenchkitError(
            f"the user {os.getuid()} has no home folder, and {folder} cannot take its place: {reason}",
            hint="set HOME to a folder of yours",
        )
    os.environ["HOME"] = str(folder)
    return folder


def cache_folder() -> Path:
    """Return where caches are kept: `BENCHKIT_CACHE`, else `$XDG_CACHE_HOME/benchkit`, else `~/.cache/benchkit`."""
    return chosen_folder("BENCHKIT_CACHE")


def chosen_folder(variable: str) -> Path:
    """Return the folder that an environment variable names, else benchkit's among the user's caches."""
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else home_folder() / ".cache") / "benchkit"


SENT = "BENCHKIT_SENT"
"""The variable that tells a worker on another machine what that received: JSON, the sweep's paths and its own."""


NODE = "BENCHKIT_NODE"
"""The variable that tells a worker what people call its node, where that is not the machine's own name."""


def node_name() -> str:
    """Return what people call the machine that this process runs on."""
    return os.environ.get(NODE) or platform.node()


def sent_path(path: str | Path) -> Path:
    """Return where a file of the sweep's machine is on this one: at the same place, unless it was sent."""
    return Path(json.loads(os.environ.get(SENT, "{}")).get(str(path), path))


def sent_file(name: str) -> Path | None:
    """Return the file that a sweep on a cluster sent to this machine under a name, None where it sent none.

    A model's plugin that downloads weights asks this first. Where its option `pretrained` is set, the sweep's machine
    calls the plugin's attribute `fetch` with the model's options: it returns the name and the file, or None.
    """
    found = json.loads(os.environ.get(SENT, "{}")).get(name)
    return Path(found) if found else None


@dataclass(frozen=True, slots=True)
class CachedRecords:
    """One JSON file of records by key, each with a stamp of what it rests on; the oldest of more than `most` go first.

    Environments of Python differ in what they can import, so each has a file of its own. A writer that loses a race
    costs its records only their making; a file that cannot be written is done without.
    """

    name: str
    most: int

    @property
    def path(self) -> Path:
        """Return the file of this Python environment."""
        environment = hashlib.sha256(f"{sys.prefix}\n{sys.version}".encode()).hexdigest()[:8]
        return cache_folder() / f"{self.name}-{environment}.json"

    def read(self, stamps: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return the records whose stamp is still the given one, by key; an unreadable file counts as empty."""
        records = self._all()
        return {
            key: records[key]
            for key, stamp in stamps.items()
            if isinstance(records.get(key), dict) and records[key].get("stamp") == stamp
        }

    def write(self, new: Mapping[str, Mapping[str, Any]], stamps: Mapping[str, str]) -> None:
        """Add records of JSON values, replacing older ones of the same keys."""
        if not new:
            return
        records = {key: record for key, record in self._all().items() if key not in new}
        records |= {key: {"stamp": stamps[key], **record} for key, record in new.items()}
        kept = dict(list(records.items())[-self.most :])
        with contextlib.suppress(OSError):
            write_atomically(self.path, json.dumps({"format": _FORMAT, "records": kept}).encode())

    def _all(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            return {}
        records = content.get("records")
        return records if isinstance(records, dict) else {}
