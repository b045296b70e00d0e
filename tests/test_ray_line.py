"""Lines to processes on the nodes of a Ray cluster: every byte once and in order, however one of them ends."""

from __future__ import annotations

import os
import queue
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest
from ray_nodes import RayNodes

from benchkit.sweep import worker
from benchkit.sweep.messages import WorkerLost, frame, parted

if TYPE_CHECKING:
    from benchkit.sweep.ray_line import Place, RayLine

pytestmark = pytest.mark.ray

ECHO = """
import os, sys
from benchkit.sweep.messages import frame, frames, parted
os.write(2, b"printed\\n" * int(os.environ.get("PRINTED", 1)))
out = sys.stdout.buffer
def say(table, payload=b""):
    out.write(frame(table, payload)); out.flush()
say({"event": "up", "pid": os.getpid(), "seen": os.environ.get("CUDA_VISIBLE_DEVICES"),
     "threads": os.environ.get("OMP_NUM_THREADS"), "ray": sorted(n for n in os.environ if n.startswith("RAY_"))})
for whole in frames(sys.stdin.buffer):
    table, payload = parted(whole)
    if table["event"] == "exit":
        os._exit(table["code"])
    say({"event": "echo", "n": table.get("n")}, payload)
"""


@pytest.fixture(scope="module")
def driver(ray_nodes: RayNodes) -> Iterator[RayNodes]:
    import ray

    ray.init(address=ray_nodes.address, log_to_driver=False, namespace="test", logging_level="ERROR")
    yield ray_nodes
    ray.shutdown()


@pytest.fixture(autouse=True)
def echoing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", ECHO))


class Heard:
    """What was heard on a line, which this opens."""

    def __init__(self, place: Place) -> None:
        from benchkit.sweep.ray_line import Pump, RayLine

        self.frames: queue.Queue[bytes] = queue.Queue()
        self.ends: queue.Queue[WorkerLost] = queue.Queue()
        self.said: list[str] = []
        self.pump = Pump(is_alive, self.said.append)
        self.line: RayLine = RayLine(place, self.pump, self.frames.put, self.ends.put)

    def event(self, name: str) -> tuple[dict[str, object], bytes]:
        while True:
            table, payload = parted(self.frames.get(timeout=180))
            if table["event"] == name:
                return table, payload


def is_alive(node: str) -> bool:
    import ray

    return any(one["Alive"] for one in ray.nodes() if one["NodeID"] == node)


def place(name: str = "one", cpus: float = 1.0, **environment: str) -> Place:
    import ray

    from benchkit.sweep.ray_line import Place

    node = next(one["NodeID"] for one in ray.nodes() if one["NodeName"] == name and one["Alive"])
    own = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    return Place(node=node, name=name, cpus=cpus, gpus=0.0, environment=own, silence=60.0)


def test_every_byte_comes_once_and_in_order(driver: RayNodes) -> None:
    heard = Heard(place(PRINTED="200000"))
    sent = [os.urandom(size) for size in (0, 1, 9_000_000, 100, 5_000_000)]
    for n, payload in enumerate(sent):
        heard.line.send(frame({"event": "echo", "n": n}, payload))
    told = [heard.event("echo") for _ in sent]
    assert [table["n"] for table, _ in told] == list(range(5))
    assert [payload for _, payload in told] == sent
    heard.line.send(frame({"event": "exit", "code": 3}))
    assert heard.ends.get(timeout=180) == WorkerLost(code=3, words="ended the process with exit status 3")
    heard.pump.close()


def test_a_seat_without_a_gpu_sees_none_and_nothing_of_rays(driver: RayNodes) -> None:
    heard = Heard(place(OMP_NUM_THREADS="4"))
    up, _ = heard.event("up")
    assert (up["seen"], up["threads"], up["ray"]) == ("", "4", [])
    heard.line.stop()
    assert heard.ends.get(timeout=180).code == -signal.SIGTERM
    heard.pump.close()


def test_a_process_that_is_killed_is_no_doing_of_the_machine(driver: RayNodes) -> None:
    heard = Heard(place())
    up, _ = heard.event("up")
    os.kill(int(str(up["pid"])), signal.SIGKILL)
    end = heard.ends.get(timeout=180)
    assert (end.code, end.machine) == (-9, False)
    heard.pump.close()


def test_a_seat_that_dies_is_the_machines_doing_and_takes_its_process_along(driver: RayNodes) -> None:
    heard = Heard(place())
    up, _ = heard.event("up")
    process = psutil.Process(int(str(up["pid"])))
    process.parent().kill()
    end = heard.ends.get(timeout=180)
    assert end.machine and "one lost the seat of its worker" in end.words
    process.wait(timeout=180)
    heard.pump.close()


def test_a_node_without_room_is_told(driver: RayNodes) -> None:
    first, second = Heard(place()), Heard(replace(place(), room=3.0))
    first.event("up")
    end = second.ends.get(timeout=180)
    assert end.machine and end.words == "one had no room for a worker for 3 s"
    for heard in (first, second):
        heard.line.kill()
        heard.pump.close()


def test_a_node_that_stands_still_is_lost_and_its_late_words_are_not_heard(driver: RayNodes) -> None:
    node = driver.add("still")
    heard = Heard(place("still"))
    up, _ = heard.event("up")
    heard.line.place = replace(heard.line.place, silence=8.0)  # to start may take longer
    process = psutil.Process(int(str(up["pid"])))
    node.signal(signal.SIGSTOP)
    heard.line.send(frame({"event": "echo", "n": 1}, b"late"))
    end = heard.ends.get(timeout=180)
    assert end.machine and end.words in ("still was not heard of for 8 s", "still is gone"), "or Ray was the first"
    node.signal(signal.SIGCONT)
    process.wait(timeout=180)
    time.sleep(1)
    assert [parted(whole)[0]["event"] for whole in list(heard.frames.queue)] in ([], ["Printed"])
    heard.pump.close()
    driver.remove(node)


def test_a_node_that_is_killed_is_gone(driver: RayNodes) -> None:
    node = driver.add("gone")
    heard = Heard(place("gone"))
    heard.event("up")
    driver.remove(node)
    end = heard.ends.get(timeout=180)
    assert end.machine and end.words.startswith("gone ")
    heard.pump.close()
