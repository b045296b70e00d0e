"""What a sweep and its workers tell each other, a frame each: jobs and orders one way, events the other.

A frame is one line of JSON; where that has the key `bytes`, so many raw bytes follow it, which are the field `content`
of the message.

What a worker prints goes through its process's standard error, so that what a crash leaves unread there still comes to
light; marks among it say whose what follows is. Imports no torch.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, get_args

from benchkit.plan import Condition, Phase
from benchkit.results import EpochRecord, Outcome
from benchkit.storage import decode, encode
from benchkit.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What a worker finds where it runs: its node's name, the kind and name of its device, and what that computes in.

    `precision` is what the device does best, `bf16` whether it multiplies bf16 matrices in hardware. `instructions` is
    a processor's kind, such as avx2; `lacks` is what compiling needs and is not there; `free` are bytes of memory.
    """

    node: str = ""
    kind: str = ""
    device: str = ""
    precision: str = "float32"
    bf16: bool = False
    instructions: str = ""
    lacks: str = ""
    free: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """A worker has imported everything and names the device it trains on; `imports` are the seconds that took."""

    device: str
    seat: Seat = Seat()
    imports: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTaken:
    """A worker took a trial and prepares it: from here on, what ends the worker is the trial's doing."""

    condition: str
    phase: str
    index: int
    key: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStarted(TrialTaken):
    """The worker's trial begins to train; `epoch` is the last one done already, above 0 when it was interrupted."""

    epochs: int
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OfTrial:
    """What is told of a trial: `trial` is its id in the ledger, `lease` the number under which it was handed out.

    What comes under an older lease counts no more. Both are 0 where it is no trial's.
    """

    trial: int = 0
    lease: int = 0

    @property
    def whose(self) -> tuple[int, int]:
        """Return what tells a trial that was handed out from all others."""
        return self.trial, self.lease


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBegan(OfTrial):
    """A trial begins to train, of so many `epochs`, behind those in `history`, which its checkpoint had."""

    epochs: int
    history: tuple[EpochRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded(OfTrial):
    """An epoch of the worker's trial ended.

    Its process had `processor` cores in use, and a GPU worked the share `device_use` of the time, None if unknown.
    """

    record: EpochRecord
    processor: float = 0.0
    device_use: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTaken(OfTrial):
    """The state of a trial after an epoch; the worker goes on once it is told that this has been written."""

    epoch: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFinished(OfTrial):
    """A file that a trial leaves in its folder, under this name."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed(OfTrial):
    """What a worker printed: during a trial, or outside of any."""

    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFinished(OfTrial):
    """A trial came to its end, and all its files have been told of.

    `memory` says which it failed for want of, the node's or its device's, if it did; the device's too where that
    refuses all further work: under NVIDIA MPS, one trial's fault ends those beside it.
    """

    outcome: Outcome
    memory: Literal["", "node", "device"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialGivenBack(OfTrial):
    """A worker lets go of a trial, which can be gone on with.

    `why` says what of its machine hinders it, and `scope` how much of that; `late`, that no epoch would end in time.
    """

    why: str = ""
    scope: Literal["pinned memory", "device", "node"] = "node"
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """The worker's trial ended in a state, for a reason; scores by `split.metric` when it is done."""

    condition: str
    phase: str
    index: int
    state: str
    reason: str
    seconds: float
    scores: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialProfiled(OfTrial):
    """Where the time of the worker's trial went: `seconds` by phase, and its `trace` file ("" without one)."""

    seconds: dict[str, float]
    trace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdle:
    """The worker has done its job, one that is no training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailed:
    """The worker itself, not a trial, cannot go on."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnds:
    """The worker's process is about to end, once it has told of the trial at hand: it trains nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """The worker's process ended without saying so; `code` is its exit status, negative for a signal.

    `machine` says that its node ended, or the way to it, and not the process by itself. `words` end a sentence: `ended
    the process by signal SIGKILL`. `shared`: trials of other seats were trained in it.
    """

    code: int
    machine: bool = False
    words: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A condition's epoch takes `seconds`; a trial of it leaves `kept_bytes`, and its checkpoint while it trains."""

    key: str
    seconds: float
    checkpoint_bytes: int
    kept_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworksChecked:
    """Of the conditions' different `networks` so many were built and run; `problems` has a line for each that fails.

    `warnings` are sentences of what may not be meant; `weights` has the sha256 of start weights by condition key.
    `unmeasured` are lines on metrics that no trial could be measured by.
    `unrecorded` says in words why some network's steps in fp16 are not recorded on a GPU, as far as that is known.
    """

    problems: tuple[str, ...]
    checked: int
    networks: int
    warnings: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    unrecorded: str = ""
    unmeasured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReady:
    """A worker's probe is ready to be timed; of a trial: images in an epoch, device memory, what was free before it."""

    images: int
    peak_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimed:
    """A worker's probe trained so many images per second, while others did the same."""

    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyTried:
    """The sweep tries how fast so many trials at once are on the device."""

    at_once: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the sweep chose or came to, or what people should know beside, in words."""

    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatsElsewhere:
    """What the seats of the study's other sweeps are at, in words, in the place of what was told before."""

    words: tuple[str, ...]


Event = (
    TrialBegan
    | EpochEnded
    | CheckpointTaken
    | FileFinished
    | Printed
    | TrialProfiled
    | TrialFinished
    | TrialGivenBack
    | Probed
    | NetworksChecked
    | RunReady
    | RunTimed
    | ConcurrencyTried
    | Said
    | SeatsElsewhere
    | WorkerReady
    | TrialTaken
    | TrialStarted
    | TrialEnded
    | WorkerIdle
    | WorkerFailed
    | WorkerEnds
    | WorkerLost
)


def is_asked(event: OfTrial | Event, *, asks: bool) -> bool:
    """Return whether a worker waits for an answer to what it tells of a trial, which `asks` after each epoch or not."""
    return isinstance(event, CheckpointTaken) or (isinstance(event, EpochEnded) and asks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Be ready to train trials of a study (`train`), or time one short run of each of these conditions (`probe`).

    `check` builds each different network of them and runs it on two images. `concurrency` makes a run of the first
    condition ready and, with `seconds`, trains it that long. `device` is auto, cpu, cuda or cuda:N, called
    `device_label` ("": as the worker finds it), `plugins` are local plugin files, which `allow_shadow` lets take the
    place of installed plugins. `profile` takes trials' time.
    `device_memory` is the most bytes that a trial's images take on the device, None what `train.placement` says;
    `at_once` is the most trials that train on a device at a time, `per_process` the most of them in this worker.
    `pageable` keeps images out of pinned memory, which was refused.
    """

    task: Literal["train", "check", "probe", "concurrency"]
    study: Study
    data_root: Path
    conditions: tuple[Condition, ...] = ()
    device: str = "auto"
    device_label: str = ""
    plugins: tuple[Path, ...] = ()
    allow_shadow: bool = False
    profile: bool = False
    device_memory: int | None = None
    seconds: float = 0.0
    at_once: int = 1
    per_process: int = 1
    pageable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Train(OfTrial):
    """Train one trial: its settings, its place in the study, and what is decided of the study's training, by name.

    `content` is its checkpoint, empty for one from the start. `asks` has the worker wait after each epoch for whether
    to go on. None is begun that would, by those before it, not end within `seconds`. `compiles`: do no more than that.
    """

    settings: dict[str, Any]
    phase: Phase
    index: int
    decided: dict[str, str]
    asks: bool = False
    seconds: float = math.inf
    compiles: bool = False
    content: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialAnswer(OfTrial):
    """What a worker waits for: go on with the trial, end it as pruned, or drop it, since it is another's by now."""

    word: Literal["go on", "prune", "drop"]


Order = Job | Train | TrialAnswer
EVENTS: Mapping[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
ORDERS: Mapping[str, type[Order]] = {kind.__name__: kind for kind in get_args(Order)}
T = TypeVar("T")


def dump(message: Event | Order) -> bytes:
    """Return the frame of a message."""
    table = encode(message)
    content = table.pop("content", b"")
    return frame({"event": type(message).__name__, **table}, content)


def event_of(whole: bytes) -> Event:
    """Return the event of a frame; raise `KeyError`, `ValueError` or `BenchkitError` where it tells none."""
    return _load(EVENTS, whole)


def order_of(whole: bytes) -> Order:
    """Return the order of a frame; raise as `event_of` does."""
    return _load(ORDERS, whole)


def _load(kinds: Mapping[str, type[T]], whole: bytes) -> T:
    table, content = parted(whole)
    return decode(kinds[table["event"]], {**table, "content": content})


def frame(table: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """Return the frame of a JSON object, with the bytes that belong to it."""
    told = {**table, "bytes": len(payload)} if payload else table
    return json.dumps(told).encode() + b"\n" + payload


def parted(whole: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON object of a frame and its bytes; raise `ValueError` for what is none."""
    line, _, payload = whole.partition(b"\n")
    return json.loads(line), payload


class FrameSplitter:
    """Takes a stream in pieces and gives back whole frames."""

    def __init__(self) -> None:
        """Begin a stream."""
        self._kept = bytearray()
        self._needed = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the frames that are complete with this piece."""
        self._kept += piece
        whole = []
        while self._needed or b"\n" in self._kept:
            if not self._needed:
                line = bytes(self._kept[: self._kept.find(b"\n") + 1])
                self._needed = len(line) + (json.loads(line).get("bytes", 0) if b'"bytes"' in line else 0)
            if len(self._kept) < self._needed:
                break
            whole.append(bytes(self._kept[: self._needed]))
            del self._kept[: self._needed]
            self._needed = 0
        return whole


CHUNK = 2**16
"""Bytes of a stream that are read at once, at the most."""


def frames(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the frames of a stream to its end; one that was cut off there, as by a kill, is left out."""
    splitter = FrameSplitter()
    while piece := stream.read1(CHUNK):  # type: ignore[attr-defined]  # buffered ones have it
        yield from splitter.feed(piece)


MARK = re.compile(rb"\0benchkit trial (\d+) (\d+)\n")
LONGEST = 64
"""More bytes than a mark has."""


def mark(trial: int, lease: int) -> None:
    """Mark what is printed from now on, output of C libraries included, as a trial's; as none's where it is 0."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, b"\0benchkit trial %d %d\n" % (trial, lease))


class PrintSplitter:
    """Takes what was printed in pieces and parts it by trial; outside of any, trial and lease are 0."""

    def __init__(self) -> None:
        """Begin outside of any trial."""
        self._trial = self._lease = 0
        self._rest = b""

    def feed(self, piece: bytes) -> list[Printed]:
        """Return what is known to be a trial's, or none's, with this piece; an empty one brings what is left."""
        whole, found = self._rest + piece, []
        while mark := MARK.search(whole):
            found.append(self._part(whole[: mark.start()]))
            self._trial, self._lease, whole = int(mark[1]), int(mark[2]), whole[mark.end() :]
        start = whole.rfind(b"\0", max(0, len(whole) - LONGEST)) if piece else -1
        ready = whole if start < 0 or b"\n" in whole[start:] else whole[:start]  # a mark may be coming
        self._rest = whole[len(ready) :]
        return [part for part in (*found, self._part(ready)) if part.content]

    def _part(self, content: bytes) -> Printed:
        return Printed(trial=self._trial, lease=self._lease, content=content)
