"""A Ray cluster on this machine: a head without seats, and nodes with folders of their own that come and go."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

STORE = 100_000_000
"""Bytes of a node's object store."""

OF_NODES = ("BENCHKIT_", "XDG_CACHE_HOME", "RAY_", "OMP_NUM_THREADS")
"""How the variables begin that a node does not get from the tests."""

OFTEN = {"RAY_health_check_period_ms": "500"}
"""How often the head asks its nodes for a sign of life: a killed one is gone after five times, in 3 s and not in 15."""


@dataclass
class Node:
    """A node, all of its processes, its folder and its name."""

    process: subprocess.Popen[bytes]
    folder: Path
    name: str

    def members(self) -> list[psutil.Process]:
        try:
            first = psutil.Process(self.process.pid)
        except psutil.NoSuchProcess:
            return []
        return [first, *first.children(recursive=True)]

    def signal(self, number: int) -> None:
        for one in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def kill(self) -> None:
        members = self.members()
        for one in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(members, timeout=10)
        self.process.wait()


HIDING = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
NOTHING, LITTLE = 'mount -t tmpfs none "$0"', "mount -t tmpfs -o size=64m none /dev/shm"
"""What starts a program that sees nothing in a folder, and has as little shared memory as in a container."""


class RayNodes:
    """A head and the nodes that were added. Where the system allows it, they see nothing of the folder `hidden`."""

    def __init__(self, hidden: Path, python: str | Path = sys.executable) -> None:
        self.python = str(python)
        self.hiding = [*HIDING, f'{NOTHING} && exec "$@"', str(hidden)]
        self.cramped = [*HIDING, f'{NOTHING} && {LITTLE} && exec "$@"', str(hidden)]
        if subprocess.run([*self.cramped, "true"], capture_output=True, check=False).returncode:
            self.hiding = self.cramped = []
        # Sockets have long names already.
        self.folder = Path(tempfile.mkdtemp(prefix="bk-", dir="/tmp"))
        self.nodes: list[Node] = []
        try:
            self.head = self._start("head", 0, OFTEN, "--head", "--port=0", "--include-dashboard=false")
        except BaseException:
            self.close()
            raise
        self.address = (self.head.folder / "ray" / "ray_current_cluster").read_text().strip()

    def add(self, name: str, cpus: int = 1, gpus: int = 0, **environment: str) -> Node:
        """Start a node; one that is called `two` has 64 MiB of shared memory, where its object store has 100 MB."""
        more = [f"--num-gpus={gpus}"] if gpus else []
        return self._start(name, cpus, environment, f"--address={self.address}", "--include-log-monitor=false", *more)

    def _start(self, name: str, cpus: int, environment: dict[str, str], *options: str) -> Node:
        folder = self.folder / name
        folder.mkdir()
        own = {key: value for key, value in os.environ.items() if not key.startswith(OF_NODES)}
        own |= {"BENCHKIT_DATA": str(folder / "data"), "BENCHKIT_CACHE": str(folder / "cache")}
        own |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore", **environment}
        command = [
            *(self.cramped if name == "two" else self.hiding),
            self.python,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            f"--node-name={name}",
        ]
        command += [f"--num-cpus={cpus}", f"--temp-dir={folder / 'ray'}", f"--object-store-memory={STORE}", *options]
        log = folder / "start.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=own, cwd=folder, start_new_session=True
            )
        node = Node(process, folder, name)
        self.nodes.append(node)
        end = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        return node

    def remove(self, node: Node) -> None:
        node.kill()
        self.nodes.remove(node)

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.signal(signal.SIGCONT)
            node.kill()
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)
