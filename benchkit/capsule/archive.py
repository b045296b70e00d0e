"""The archive around a capsule's members and the JSON in them: equal values give equal bytes; reading has limits."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from benchkit.errors import ReportError
from benchkit.plan import Condition
from benchkit.results import (
    READ_ON_VAL,
    SERIES,
    Cost,
    Decision,
    DeviceRange,
    EpochRecord,
    Normalization,
    SplitMetrics,
    State,
)
from benchkit.storage import decode, encode

CAPSULE = "capsule.zip"
"""The capsule's file name, in HTML, among the PDF's attachments, and beside the report."""

FORMAT = "benchkit-capsule"
SCHEMA = 1
"""The version of the capsule's layout; it grows when a key changes its meaning or goes."""

OF_TRIAL = ("phase", "index", "attempt", "number", "state", "params", "started", "finished")
OF_OUTCOME = (
    "reason", "selected_epoch", "metrics", "cost", "data_fingerprint", "start_weights", "test_reads", "notes",
    "normalization",
)  # fmt: skip
"""What a capsule's trial holds as it is in the trial, and in its outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsuleTrial:
    """One trial: what it was, with which seeds, where it ran (`environment`, a place in its study's list), what came.

    `history` has one list for each of `SERIES` and for each metric that was read after epochs, such as `val.brier`, NaN
    where it is undefined. `right` is which test images the model got right, as bits (base64,
    first image highest), of `images` images whose labels have the sha256 `labels`; empty without stored predictions.
    `predictions` is the sha256 of the file with all logits. `devices` trained its epochs. `earlier` is an attempt in
    whose place a later one stands.
    """

    condition: str
    phase: Literal["grid", "search", "confirm"]
    index: int
    attempt: int
    number: int
    state: State
    reason: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    environment: int | None = None
    scored: bool = False
    selected_epoch: int = 0
    metrics: Mapping[str, SplitMetrics] = field(default_factory=dict)
    cost: Cost | None = None
    epochs: int = 0
    seconds: float = 0.0
    history: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    data_fingerprint: str = ""
    test_reads: int = 0
    notes: tuple[str, ...] = ()
    normalization: Normalization | None = None
    started: float = 0.0
    finished: float = 0.0
    right: str = ""
    images: int = 0
    labels: str = ""
    predictions: str = ""
    devices: tuple[DeviceRange, ...] = ()
    earlier: bool = False
    start_weights: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsuleStudy:
    """One study: where its members are in the archive (`folder`), how it was and is trained, on what, and where.

    `given` is the command as the user gave it, without folders; `commands` are those that train and report the same
    from the study file of the capsule. `environments` are the distinct ones of its trials.
    """

    name: str
    title: str
    folder: str
    smoke: bool
    seed: int
    overrides: tuple[str, ...]
    given: str
    commands: tuple[str, ...]
    metric: str
    data: Mapping[str, Any]
    class_names: tuple[str, ...]
    left_out: tuple[str, ...]
    environments: tuple[Mapping[str, Any], ...]
    conditions: tuple[Condition, ...]
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTable:
    """A table as the report shows it: its anchor on the page, whose it is, and sha256 of its cells and of its CSV.

    `study` is the place of its study in the capsule, `name` its name in a report of that study alone.
    """

    anchor: str
    study: int
    name: str
    number: int
    cells: str
    csv: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the report shows: its tables, and the sha256 of every file that it attaches, by the file's path.

    `templates` and `wording` are digests of the templates and of the code that made its pages and its sentences; a
    report of an earlier version names none.
    """

    templates: str = ""
    wording: str = ""
    tables: tuple[ShownTable, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The capsule's own page, `capsule.json`; `members` has the sha256 of every other member of the archive."""

    format: str
    schema: int
    generator: str
    studies: tuple[CapsuleStudy, ...]
    shown: Shown
    members: Mapping[str, str]


def series_of(history: Sequence[EpochRecord]) -> dict[str, tuple[float, ...]]:
    """Return what a capsule keeps of a trial's epochs, by name; nothing where it has none."""
    read = dict.fromkeys(name for record in history for name in record.observed if name.startswith(READ_ON_VAL))
    series = {name: tuple(float(getattr(record, name)) for record in history) for name in SERIES if history}
    return series | {name: tuple(record.score(name) for record in history) for name in sorted(read)}


MOST_BYTES = 256 * 2**20
"""An archive, and all its members unpacked, may have this many bytes."""

MOST_MEMBERS = 400
"""An archive may have this many members: four a study and two of its own."""

_NAME = re.compile(r"(?:[A-Za-z0-9-][A-Za-z0-9.-]{0,99}/)?[A-Za-z0-9-][A-Za-z0-9.-]{0,99}")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class CapsuleError(ReportError):
    """A file holds no capsule, or a damaged one, or one that goes over the limits."""


def pack(members: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of the members in their order; it holds no dates, so equal members give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            assert _NAME.fullmatch(name), f"{name} cannot name a capsule's member"
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix everywhere: the system's own number would change the bytes
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()


def unpack(content: bytes) -> dict[str, bytes]:
    """Return the members of an archive by name; nothing is written to disk.

    Raises `CapsuleError` for what is no whole zip archive, for more or larger members than the limits allow (told by
    what comes out, whatever the archive claims), and for names that are not plain.
    """
    if len(content) > MOST_BYTES:
        raise CapsuleError(f"the capsule has {len(content):,} bytes, at most {MOST_BYTES:,} are read")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            _check_listing(infos)
            members: dict[str, bytes] = {}
            left = MOST_BYTES
            for info in infos:
                members[info.filename] = _member(archive, info, left)
                left -= len(members[info.filename])
            return members
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise CapsuleError(f"the capsule is damaged: {error}", hint="ask for the report again") from error


def _check_listing(infos: list[zipfile.ZipInfo]) -> None:
    names = [info.filename for info in infos]
    problems = []
    if len(names) > MOST_MEMBERS:
        problems.append(f"{len(names):,} members, at most {MOST_MEMBERS} are read")
    if len(set(names)) < len(names):
        problems.append("a member stands twice")
    problems += [f"a member is named {name[:100]!r}" for name in names[:MOST_MEMBERS] if not _NAME.fullmatch(name)]
    if problems:
        raise CapsuleError("the capsule is not one that benchkit writes", problems=problems)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int) -> bytes:
    with archive.open(info) as file:
        content = file.read(left + 1)
    if len(content) > left:
        raise CapsuleError(f"the capsule unpacks to more than {MOST_BYTES:,} bytes", hint="such a file is not read")
    return content


T = TypeVar("T")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

MOST_LETTERS = 100_000
MOST_INTEGER = 2**63 - 1
MOST_LEVELS = 60
"""What a capsule's JSON may hold: letters of a text, the largest whole number, tables and lists within each other."""


def to_text(value: Any, *, indent: int | None = None) -> str:
    """Return a dataclass or plain values as strict ASCII JSON; numbers that JSON lacks become nan, inf and -inf."""
    plain = encode(value)
    written = partial(
        json.dumps, indent=indent, separators=None if indent else (",", ":"), allow_nan=False, default=str
    )
    try:
        return written(plain)
    except ValueError:  # few values hold a number to spell
        return written(_spelled(plain))


def _spelled(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, list) else value


def from_text(content: bytes, where: str) -> Any:
    """Return the plain values of a JSON text; raise `CapsuleError` when it is none, or goes over the limits."""
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CapsuleError(f"the capsule's {where} cannot be read: {type(error).__name__}: {error}") from error
    level, depth = [value], 0
    while level:
        if depth > MOST_LEVELS:
            raise CapsuleError(f"the capsule's {where} is nested more than {MOST_LEVELS} deep")
        level = [inner for item in level for inner in _inner(item, where)]
        depth += 1
    return value


def _inner(value: Any, where: str) -> Iterable[Any]:
    """Return what a list or a table holds; raise `CapsuleError` for a text or a number over the limits."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, str) and len(value) > MOST_LETTERS:
        raise CapsuleError(f"the capsule's {where} has a text of {len(value):,} letters, at most {MOST_LETTERS:,} fit")
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise CapsuleError(f"the capsule's {where} has a text that is no Unicode (a lone surrogate)")
    if isinstance(value, int) and abs(value) > MOST_INTEGER:
        digits = len(str(abs(value)))
        raise CapsuleError(f"the capsule's {where} has a whole number of {digits} digits, at most 18 fit")
    return value if isinstance(value, list) else ()


def typed(cls: type[T], value: Any, where: str) -> T:
    """Return a dataclass from plain values; raise `CapsuleError` for the first that has another type than its field.

    Keys that the dataclass lacks are left out, so that a later version may add some; lacking ones take the default.
    """
    return decode(cls, value, f"the capsule's {where}", error=CapsuleError)
