"""How a trial's starts ended: which of them count against it, kept in the ledger. Imports no torch.

A start counts when its process ended by itself, or was killed, and no epoch was saved since. An end beside other trials
on the same device, or under the same memory limit, may be their doing: it does not count, and the next start is alone.
What a machine does never counts. Two starts in a row that count make a trial a failed one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchkit.errors import BenchkitError
from benchkit.storage import decode, encode, write_atomically
from benchkit.sweep.devices import CGROUPS, OWN_GROUPS, control_groups

KEY = "starts"
"""The name of a trial's record of its starts in the ledger; one whose starts all went well has none."""

MOST = 2
"""Starts in a row that count, after which a trial has failed."""

KEPT = "memory.json"
"""The file of a workspace that says under which memory limit its last sweep ran, and how often that was enforced."""

LARGEST = 2**60
"""Bytes from which on a limit is none: old kernels write a number where there is none."""

HINT = "killed from outside, most likely out of memory: try a smaller train.batch_size or --jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """A trial's record: how its counted starts in a row `ended`, up to the lease `since`; is the next to be alone."""

    since: int = 0
    ended: tuple[str, ...] = ()
    alone: bool = False

    @property
    def failed(self) -> bool:
        """Return whether as many starts count as a trial may have."""
        return len(self.ended) >= MOST

    @property
    def reason(self) -> str:
        """Return why the trial has failed, with all its ends."""
        told = (
            f"{len(self.ended)} starts in a row ended before a further epoch was saved: it {'; it '.join(self.ended)}"
        )
        return f"{told}; {HINT}" if any("SIGKILL" in one or "memory" in one for one in self.ended) else told

    def saved(self, lease: int) -> Starts:
        """Return the record after an epoch was saved: nothing before counts any more."""
        return Starts(since=lease)

    def excused(self, lease: int) -> Starts:
        """Return the record after an end that was not the trial's doing."""
        return replace(self, since=lease)

    def crowded(self, lease: int) -> Starts:
        """Return the record after an end beside other trials."""
        return replace(self, since=lease, alone=True)

    def counted(self, lease: int, words: str) -> Starts:
        """Return the record after an end that counts; `words` end a sentence that begins with the trial."""
        return replace(self, since=lease, ended=(*self.ended, words))

    def after_other_sweeps(self, lease: int, memory: Memory, before: Memory) -> Starts:
        """Return the record of a trial that is handed out under `lease`, with what became of it in sweeps that ended.

        An end of which nobody wrote down anything took the whole sweep along. It tells of the trial only where a limit
        of memory may have made it; with several trials at once it may have been any of them, unless this one was alone.
        """
        if lease - 1 <= self.since or not memory.may_have_killed(before):
            return self.excused(lease - 1)
        if before.at_once > 1 and not self.alone:
            return self.crowded(lease - 1)
        return self.counted(lease - 1, "ended with the whole sweep, under a limit of memory")


def starts_of(attributes: Mapping[str, Any]) -> Starts:
    """Return a trial's record from its attributes in the ledger."""
    return decode(Starts, attributes[KEY], KEY) if KEY in attributes else Starts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory limit of a sweep, 0 for none: its control group, how often that killed, and trials at once in it."""

    limit: int = 0
    group: str = ""
    kills: int = 0
    at_once: int = 1

    def may_have_killed(self, before: Memory) -> bool:
        """Return whether the limit may have ended the sweep before, which ran as `before` says.

        A control group that is still the same one counts its kills; a new one, as of a container that was started
        again, knows nothing of them.
        """
        if not before.limit:
            return False
        return self.kills > before.kills if self.group == before.group else True


def memory_here(at_once: int, groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> Memory:
    """Return the memory limit of this process's control group and those above it: the least of them."""
    found = Memory(at_once=at_once)
    for controllers, folder in control_groups(("", "memory"), groups, own):
        found = _least(found, folder, *(OLD_NAMES if controllers else NAMES))
    return found


def free_memory() -> int:
    """Return the bytes of memory that are free here, under the limit of this process's control group."""
    free: int = psutil.virtual_memory().available
    return min(free, memory_here(1).limit or free)


NAMES, OLD_NAMES = ("memory.max", "memory.events"), ("memory.limit_in_bytes", "memory.oom_control")
"""The files of a control group with its limit and the number of its kills, and what they were called before."""


def _least(found: Memory, folder: Path, limit: str, kills: str) -> Memory:
    """Return what was found so far, or a control group's limit where that is less."""
    try:
        text = (folder / limit).read_text().strip()
        told = dict(one.split() for one in (folder / kills).read_text().splitlines())
        place = folder.stat()
    except (OSError, ValueError):
        return found
    if not text.isdigit() or int(text) >= min(found.limit or LARGEST, LARGEST):
        return found
    group = f"{place.st_dev} {place.st_ino}"
    return replace(found, limit=int(text), group=group, kills=int(told.get("oom_kill", 0)))


def memory_before(workspace: Path, now: Memory) -> Memory:
    """Return how the workspace's last sweep ran, and write down how this one does."""
    path = workspace / KEPT
    try:
        before = decode(Memory, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, BenchkitError):
        before = Memory()
    write_atomically(path, json.dumps(encode(now)).encode())
    return before
