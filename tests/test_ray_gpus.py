"""Several trials on one GPU of a cluster: shares by the GPU's model, measured there. A CPU stands in for the GPUs."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ray_nodes import Node, RayNodes
from test_ray_line import ECHO, Heard, place
from test_ray_sweep import results, write
from tiny_study import command, environment, study_of

from benchkit.sweep import worker
from benchkit.sweep.devices import Device
from benchkit.sweep.messages import Job
from benchkit.sweep.node_check import NodeFacts

if TYPE_CHECKING:
    from benchkit.sweep.ray_nodes import Member, RayCluster

pytestmark = pytest.mark.ray

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def cards(ray_nodes: RayNodes) -> Iterator[Node]:
    """A node of two GPUs, as Ray believes, and four CPUs."""
    node = ray_nodes.add(f"cards-{secrets.token_hex(2)}", cpus=4, gpus=2, PYTHONPATH=str(TESTS))
    yield node
    ray_nodes.remove(node)


def test_shares_of_a_gpu_fill_one_and_then_the_next(
    ray_nodes: RayNodes, cards: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from benchkit.sweep.ray_nodes import share_of

    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", ECHO))
    ray.init(address=ray_nodes.address, log_to_driver=False, namespace="test", logging_level="ERROR")
    try:
        seat = replace(place(cards.name), cpus=0.5, gpus=share_of(3))
        lines = [Heard(seat) for _ in range(6)]
        seen = Counter(str(line.event("up")[0]["seen"]) for line in lines)
        assert seen == {"0": 3, "1": 3}
    finally:
        for line in lines:
            line.line.kill()
            line.pump.close()
        ray.shutdown()


def test_shares_leave_room_for_all_of_them() -> None:
    from benchkit.sweep.ray_nodes import share_of

    assert share_of(1) == 1.0
    assert all(n * share_of(n) <= 1 < (n + 1) * share_of(n) for n in range(2, 50))


def cluster_of(*members: Member, **more: Any) -> RayCluster:
    """Return a cluster of nodes that were looked at."""
    from benchkit.sweep.node_check import Needs
    from benchkit.sweep.ray_cluster import Cluster
    from benchkit.sweep.ray_nodes import RayCluster
    from benchkit.sweep.shipping import Cargo

    needs = Needs(kind="cuda", threads=1)
    found = RayCluster(cluster=Cluster(address="a:1", owner="me"), needs=needs, cargo=Cargo(), **more)
    found.members.update({one.node: one for one in members})
    return found


def member(name: str, model: str, gpus: int, cpus: int = 64, group: str = "") -> Member:
    from benchkit.sweep.ray_nodes import Member

    facts = NodeFacts(python="", versions={}, benchkit="", processor="", device=model, memory_group=group)
    return Member(node=name, name=name, cpus=cpus, gpus=gpus, faults=(), answer=facts)


def test_each_model_of_gpu_takes_its_own_number_of_trials_measured_once() -> None:
    measured: list[tuple[str, int]] = []

    def measure(device: Device, cores: int) -> int:
        measured.append((device.name, cores))
        return {"A100": 3, "L4": 1}[device.name]

    nodes = member("one", "A100", 2), member("two", "L4", 1, cpus=8), member("three", "A100", 1, cpus=2)
    cluster = cluster_of(*nodes, at_once=0, measure=measure)
    for one in nodes:
        cluster._measure(one)
    assert measured == [("A100", 32), ("L4", 8)]
    seats = cluster.seats()
    assert Counter(seat.node for seat in seats) == {"one": 6, "two": 1, "three": 2}, "a trial takes a CPU as well"
    assert {(seat.name, seat.at_once) for seat in seats} == {("A100", 3), ("L4", 1)}


def test_every_seat_asks_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's autoscaler sees nothing of what asks for none, and its node would be idle to it."""
    import benchkit.sweep.ray_nodes as rooms

    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(rooms, "RayLine", lambda place, *_: asked.append((place.cpus, place.gpus)))
    for cluster in (cluster_of(member("one", "A100", 1), at_once=3), cluster_of(member("one", "", 0, cpus=4))):
        cluster._pump = SimpleNamespace()  # type: ignore[assignment]
        cluster.needs = replace(cluster.needs, kind="cuda" if cluster.at_once > 1 else "cpu", threads=2)
        for seat in cluster.seats():
            cluster.open_line(seat, {}, asked.append, asked.append)  # type: ignore[arg-type]
    assert asked == [(1.0, 0.3333)] * 3 + [(2.0, 0.0)] * 2


def test_a_node_is_there_as_it_was_while_the_head_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked in the thread that looks after all lines, which an error would end."""
    import benchkit.sweep.ray_nodes as rooms

    def away() -> None:
        raise rooms.RayError("the head does not answer")

    monkeypatch.setattr(rooms.ray, "nodes", away)
    cluster = cluster_of(member("one", "A100", 1), replace(member("two", "A100", 1), alive=False))
    assert [cluster.is_alive(name) for name in ("one", "two", "three")] == [True, False, False]


def test_a_limit_of_memory_counts_where_trials_run_under_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import benchkit.sweep.ray_nodes as rooms
    from benchkit.sweep.starts import Memory

    monkeypatch.setattr(rooms, "memory_here", lambda at_once: Memory(limit=9, group="1 2", kills=3, at_once=at_once))
    monkeypatch.setattr(rooms.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    with_us, elsewhere = member("here", "A100", 1, group="1 2"), member("there", "A100", 1, group="1 2")
    assert cluster_of(with_us).memory(4) == Memory(limit=9, group="1 2", kills=3, at_once=4)
    assert cluster_of(elsewhere).memory(4) == Memory(at_once=4)
    assert cluster_of(member("here", "A100", 1, group="3 4"), elsewhere).memory(4) == Memory(at_once=4)


def test_a_seat_is_told_with_how_many_it_shares_its_device() -> None:
    from benchkit.sweep.pool import _seated

    job = Job(task="train", study=study_of(), data_root=Path(), at_once=64)
    seat = Device(kind="cuda", node="one", place="id", at_once=3)
    assert _seated(job, seat, 3).at_once == 3
    assert _seated(replace(job, at_once=2), seat, 3).at_once == 2


def test_a_worker_names_the_gpu_that_its_node_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(task="train", study=study_of(), data_root=Path(), device="cuda")
    assert worker.here(job).device_label == ""
    monkeypatch.setenv("BENCHKIT_SENT", "{}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert worker.here(job).device_label == "cuda:5"


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import stand_in_worker
from benchkit.sweep import concurrency_search, node_check, worker
worker.COMMAND, node_check.CODE = stand_in_worker.COMMAND, stand_in_worker.CHECK
concurrency_search.WINDOW, concurrency_search.WORTH, concurrency_search.GAIN = 0.1, 0.0, 0.0
sys.argv = {arguments!r}
from benchkit.cli import main
sys.exit(main())
"""
"""A sweep whose nodes have stand-ins for GPUs, on which more trials at once always count as faster."""


def test_a_gpu_of_a_cluster_takes_as_many_trials_as_was_measured_on_it(
    ray_nodes: RayNodes, cards: Node, tmp_path: Path
) -> None:
    write(tmp_path, epochs=4, repeats=3)
    asked = ["sweep", tmp_path / "tiny.toml", "--workspace", tmp_path / "runs", "--cluster", ray_nodes.address]
    script = SCRIPT.format(tests=str(TESTS), arguments=["benchkit", *command(*asked)[3:]])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "6 done" in said, said
    assert len(re.findall(r"2 trials at once on cuda:[01]: probed 1: .*, 2: .* images/s", said)) == 1, said
    trials = results(tmp_path).trials
    assert {record.device for trial in trials for record in trial.history} <= {"Stand-in 0", "Stand-in 1"}
