"""The nodes of a Ray cluster: what they have, what they are given, and their seats. Needs Ray.

A node is looked at before it trains (`node_check`), and given what it lacks of data, weights and plugins. Nodes that
come while the sweep runs are looked at as well, and their seats are added.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from benchkit.analysis.wording import count
from benchkit.errors import TrainingError
from benchkit.ledger.leases import LEASE
from benchkit.storage import decode, encode
from benchkit.sweep import node_check, node_side
from benchkit.sweep.devices import Device
from benchkit.sweep.messages import WorkerLost
from benchkit.sweep.node_check import Needs, NodeFacts, differences, told
from benchkit.sweep.pool import Line
from benchkit.sweep.ray_cluster import Cluster
from benchkit.sweep.ray_line import Place, Pump, RayLine, remote
from benchkit.sweep.shipping import Cargo
from benchkit.sweep.starts import Memory, memory_here

LOOK_EVERY = 2.0
"""Seconds between looks at the nodes of the cluster."""

SLOW = 10.0
"""Seconds for which the sweep waits for nodes that are still looked at, once others are ready; and until it says so."""


def kind_of(asked: str) -> str:
    """Return the kind of device that `--device` means on this cluster: `auto` is cuda where a node has a GPU."""
    return ("cuda" if gpus_of_cluster() else "cpu") if asked == "auto" else asked


def gpus_of_cluster() -> int:
    """Return how many GPUs this cluster has now."""
    return int(ray.cluster_resources().get("GPU", 0))


@dataclass(slots=True, kw_only=True)
class Member:
    """A node of the cluster: its id, how people call it, what it has, and how far it was looked at.

    `faults` are None until it was looked at; a node with some is set aside.
    """

    node: str
    name: str
    cpus: float
    gpus: float
    card: str = ""
    faults: Sequence[str] | None = None
    answer: NodeFacts | None = None
    alive: bool = True

    @property
    def model(self) -> str:
        """Return the model of its GPUs, as CUDA names it once that is known."""
        return (self.answer.device if self.answer else "") or self.card


@dataclass(slots=True, kw_only=True)
class RayCluster:
    """The seats of a cluster.

    `at_most` is the number of seats that are used at the most, 0 for all. A GPU takes `at_once` trials, where that is 0
    as many as `measure` says: it is asked once for each model, in a thread, with a GPU of a node and the node's CPUs
    for each of its GPUs, while no trial is there. After `silence` seconds without a word a seat is lost.
    """

    cluster: Cluster
    needs: Needs
    cargo: Cargo
    at_most: int = 0
    same_hardware: bool = False
    silence: float = LEASE
    at_once: int = 1
    measure: Callable[[Device, int], int] | None = None
    members: dict[str, Member] = field(default_factory=dict)
    _named: list[Device] = field(default_factory=list)
    _words: list[str] = field(default_factory=list)
    _measured: dict[str, int] = field(default_factory=dict)
    _measuring: threading.Lock = field(default_factory=threading.Lock)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)
    _pump: Pump | None = None
    _looking: threading.Thread | None = None

    def start(self, say: Callable[[str], None]) -> None:
        """Look at all nodes; raise `TrainingError` where none can train, with each of them named."""
        self._pump = Pump(self.is_alive, self.note)
        self._refresh()
        yours = f"of {self.cluster.owner}"
        say(f"on the Ray cluster at {self.cluster.address} ({yours}), {count(len(self.members), 'node')}")
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()
        began = time.monotonic()
        while any(one.faults is None and one.alive for one in self._able()):
            time.sleep(0.1)
            if self.seats() and time.monotonic() - began > SLOW:
                break
        for words in self.news():
            say(words)
        if not self.seats():
            raise self._none()

    def seats(self) -> tuple[Device, ...]:
        """Return the seats of the nodes that can train now: those named before first, then others in turns."""
        with self._lock:
            ready = [one for one in self._able() if one.alive and one.faults is not None and not one.faults]
            seats = [
                self._seat(one, turn)
                for turn in range(max(map(self._seats, ready), default=0))
                for one in ready
                if turn < self._seats(one)
            ]
            kept = [seat for seat in self._named if seat in seats]
            self._named = [*kept, *(seat for seat in seats if seat not in kept)][: self.at_most or len(seats)]
            return tuple(self._named)

    def settle_precision(self) -> str:
        """Return what `auto` is for the whole study, as most seats have it; nodes that lack it are set aside."""
        with self._lock:
            ready = [one for one in self._able() if one.alive and one.answer is not None and not one.faults]
            seats = {
                bf16: sum(self._seats(one) for one in ready if one.answer and one.answer.bf16 is bf16)
                for bf16 in (True, False)
            }
            value = "bf16" if seats[True] >= seats[False] else "float32"
            self.needs = replace(self.needs, precision=value)
            for one in ready if value == "bf16" else ():
                if one.answer and not one.answer.bf16:
                    one.faults = [f"no bf16 on {one.answer.hardware}"]
                    self._words.append(f"{one.name} is set aside: {one.faults[0]}")
        return value

    def _seat(self, member: Member, number: int) -> Device:
        at_once = self._at_once(member) if self.needs.kind == "cuda" else self._seats(member)
        return Device(
            kind=self.needs.kind,
            number=number,
            name=member.model,
            node=member.name,
            place=member.node,
            at_once=at_once,
        )

    def memory(self, at_once: int) -> Memory:
        """Return the memory limit under which trials run together with this process: none where no seat does."""
        own = self.members.get(ray.get_runtime_context().get_node_id())
        here = memory_here(at_once)
        shares = own is not None and own.answer is not None and own.answer.memory_group == here.group
        return here if shares else Memory(at_once=at_once)

    def _seats(self, member: Member) -> int:
        """Return how many trials a node has room for, each of which takes a CPU beside its share of a GPU."""
        if self.needs.kind == "cuda":
            gpus = int(member.gpus)
            return min(gpus * self._at_once(member), max(gpus, int(member.cpus)))
        return int(member.cpus // max(1, self.needs.threads))

    def _at_once(self, member: Member) -> int:
        return self.at_once or self._measured.get(member.model, 1)

    def news(self) -> list[str]:
        """Return what happened to nodes since it was asked last, in words."""
        with self._lock:
            words, self._words = self._words, []
        return words

    def note(self, words: str) -> None:
        """Have something said with the news, from any thread."""
        with self._lock:
            self._words.append(words)

    def is_alive(self, node: str) -> bool:
        """Return whether a node is part of the cluster now, or was when its head was heard of last."""
        with suppress(RayError):
            self._refresh()
        return node in self.members and self.members[node].alive

    def open_line(
        self,
        device: Device,
        environment: Mapping[str, str],
        hear: Callable[[bytes], None],
        over: Callable[[WorkerLost], None],
    ) -> Line:
        """Return a line to a new worker on the node of a seat, with its share of a GPU."""
        member = self.members[device.place]
        assert member.answer is not None and self._pump is not None
        place = Place(
            node=member.node,
            name=member.name,
            cpus=float(max(1, self.needs.threads)) if device.kind == "cpu" else 1.0,
            gpus=0.0 if device.kind == "cpu" else share_of(device.at_once),
            environment=member.answer.environment,
            silence=self.silence,
        )
        return RayLine(place, self._pump, hear, over)

    def close(self) -> None:
        """End the threads."""
        self._closed.set()
        if self._looking is not None:
            self._looking.join(timeout=LOOK_EVERY)
        if self._pump is not None:
            self._pump.close()

    def _able(self) -> list[Member]:
        return [one for one in self.members.values() if self._seats(one)]

    def _none(self) -> TrainingError:
        room = "a GPU" if self.needs.kind == "cuda" else count(self.needs.threads, "CPU")
        problems = [
            f"{one.name}: {'; '.join(one.faults or ['still looked at'])}"
            if self._seats(one)
            else f"{one.name}: {one.cpus:g} CPUs and {one.gpus:g} GPUs, a trial takes {room}"
            for one in self.members.values()
        ]
        return TrainingError(
            f"no node of the Ray cluster at {self.cluster.address} can train this study",
            problems=problems,
            hint="mend the nodes, or add some: `ray start --address ADDRESS` on each",
        )

    def _look(self) -> None:
        """Look at nodes as they come, each in a thread of its own; a node that hangs keeps no other from training."""
        seen: set[str] = set()
        while not self._closed.is_set():
            for member in [one for one in self._able() if one.node not in seen]:
                seen.add(member.node)
                threading.Thread(target=self._examine, args=(member,), daemon=True).start()
            self._closed.wait(LOOK_EVERY)
            with suppress(RayError):  # the head is away: seats that are not heard of are lost by themselves
                self._refresh()

    def _refresh(self) -> None:
        nodes = ray.nodes()
        names = [one["NodeName"] for one in nodes if one["Alive"]]
        with self._lock:
            for one in nodes:
                node, has = one["NodeID"], one["Resources"]
                if node in self.members:
                    was, self.members[node].alive = self.members[node].alive, one["Alive"]
                    if was and not one["Alive"]:
                        self._words.append(f"{self.members[node].name} is gone")
                elif one["Alive"]:
                    name = one["NodeName"] if names.count(one["NodeName"]) == 1 else f"{one['NodeName']}/{node[:6]}"
                    card = next((k.partition(":")[2] for k in has if k.startswith("accelerator_type:")), "")
                    cpus, gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
                    self.members[node] = Member(node=node, name=name, cpus=cpus, gpus=gpus, card=card)

    def _examine(self, member: Member) -> None:
        try:
            needs = replace(self.needs, at_once=self._seats(member))
            examined, faults = examine(member.node, needs, self.cargo, self._closed)
        except OSError as error:  # what an actor raises, Ray puts into one of its own of the same kind
            examined, faults = None, [f"it cannot be given what it lacks: {getattr(error, 'cause', error)}"]
        except RayError as error:
            examined, faults = None, [f"it cannot be looked at: {str(error).strip().splitlines()[-1]}"]
        if self.needs.kind == "cuda" and examined is not None and not faults and not self.at_once:
            member.answer = examined
            self._measure(member)
        with self._lock:
            first = next((m for m in self.members.values() if m.answer is not None and not m.faults), None)
            other = told(first.answer, examined) if first and first.answer and examined else []
            if self.same_hardware:
                faults = [*faults, *other]
            member.answer, member.faults = examined, faults
            if faults:
                self._words.append(f"{member.name} is set aside: {'; '.join(faults)}")
            elif other:
                self._words.append(f"{member.name} is another machine than {first.name if first else ''}: {other[0]}")

    def _measure(self, member: Member) -> None:
        """Have it measured how many trials a GPU of a node takes, unless one of that model was."""
        with self._measuring:
            if member.model in self._measured or self.measure is None:
                return
            cores = max(1, int(member.cpus / max(1.0, member.gpus)))
            self._measured[member.model] = self.measure(replace(self._seat(member, 0), at_once=1), cores)


def share_of(at_once: int) -> float:
    """Return the share of a GPU that each of so many trials takes; Ray counts in ten-thousandths, and all must fit."""
    return 1.0 if at_once == 1 else (10_000 // at_once) / 10_000


def examine(node: str, needs: Needs, cargo: Cargo, closed: threading.Event) -> tuple[NodeFacts | None, list[str]]:
    """Return what a node answers, once it was given what it lacked, and what still keeps it from training."""
    actor = remote(node_side.Node, node, num_cpus=0)
    own = node_check.here()
    given: set[str] = set()
    try:
        while True:
            found, failure = _asked(actor, needs, closed)
            if found is None:
                return None, [failure]
            before = len(given)
            needs = cargo.send(partial(_send, actor, closed), needs, found, given)
            if len(given) == before:
                return found, differences(needs, own, found)
    finally:
        if not closed.is_set():
            ray.kill(actor, no_restart=True)


def _asked(actor: Any, needs: Needs, closed: threading.Event) -> tuple[NodeFacts | None, str]:
    code, out, words = _result(actor.run.remote(node_check.CODE, json.dumps(encode(needs)), {}), closed)
    if code:
        lines = words.strip().splitlines()
        return None, f"benchkit does not run there: {lines[-1] if lines else f'exit status {code}'}"
    return decode(NodeFacts, json.loads(out)), ""


def _result(reference: Any, closed: threading.Event) -> Any:
    """Return what a call gives, which may take hours where data are prepared; raise `RayError` where the node ends."""
    while True:
        try:
            return ray.get(reference, timeout=1.0)
        except GetTimeoutError:
            if closed.is_set():
                raise


def _send(actor: Any, closed: threading.Event, files: Mapping[str, Path | bytes], folder: str) -> None:
    """Send files to a node, a part at a time, by their names in a folder there, which appears when it is complete."""
    size = sum(len(one) if isinstance(one, bytes) else one.stat().st_size for one in files.values())
    fresh = _result(actor.begin.remote(folder, size), closed)
    for name, source in files.items():
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            place, part = 0, stream.read(node_side.CHUNK)
            while part or place == 0:  # an empty file has one part as well
                _result(actor.write.remote(fresh, name, place, part), closed)
                place, part = place + max(1, len(part)), stream.read(node_side.CHUNK)
    _result(actor.finish.remote(fresh, folder), closed)
