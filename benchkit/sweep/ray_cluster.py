"""The Ray cluster that a sweep trains on: which one, whose, and how it is joined or started. Needs Ray.

The sweep runs on a machine of the cluster, and alone touches ledger and workspace.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from benchkit.errors import TrainingError, first_line
from benchkit.sweep.devices import available_cores
from benchkit.sweep.stopping import ORDERS

CURRENT = Path("/tmp/ray/ray_current_cluster")
"""Where `ray start` writes the address of the cluster that it started last."""

STORE = 200_000_000
"""Bytes of the object store of a cluster that the sweep starts: messages alone go through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster's address, and the name of the user whose processes it consists of on this machine."""

    address: str
    owner: str


def clusters_here() -> dict[str, str]:
    """Return the clusters that this machine is part of: the owner by address."""
    found = {}
    for process in psutil.process_iter(["name", "cmdline", "uids"]):
        if (process.info["name"] or "").startswith("raylet"):
            address = next(
                (a.partition("=")[2] for a in process.info["cmdline"] or () if a.startswith("--gcs-address=")), ""
            )
            if address and process.info["uids"]:
                found[address] = _user(process.info["uids"].real)
    return found


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def chosen(asked: str, here: Mapping[str, str], environment: Mapping[str, str], current: str, user: str) -> Cluster:
    """Return the cluster that `--cluster` means, of those that this machine is part of.

    `auto` is that of RAY_ADDRESS, else the one that `ray start` started last (`current`), else the user's only one.
    Raises `TrainingError` where there is none, where several may be meant, and where `auto` finds another user's.
    """
    address = asked
    if asked == "auto":
        own = [one for one, owner in here.items() if owner == user]
        address = environment.get("RAY_ADDRESS", "") or (current if current in here else "")
        if not address and len(own) > 1:
            raise TrainingError(f"--cluster auto: several Ray clusters run here: {', '.join(own)}", hint="name one")
        address = address or next(iter([*own, *here]), "")
    if address.startswith("ray://"):
        host = address.removeprefix("ray://").partition(":")[0]
        raise TrainingError(
            f"--cluster {address}: a sweep runs on a machine of its cluster, not through Ray Client",
            hint=f"start it there: ssh {host} benchkit sweep STUDY --cluster auto",
        )
    if not address:
        raise TrainingError(
            "--cluster auto: no Ray cluster runs on this machine",
            hint="start one with `ray start --head`, join one with `ray start --address HOST:6379`, or use "
            "--cluster local",
        )
    if address not in here:
        raise TrainingError(
            f"--cluster {asked}: this machine is no part of the Ray cluster at {address}",
            hint=f"let it join, without seats: ray start --address {address} --num-cpus 0",
        )
    if asked == "auto" and here[address] != user:
        raise TrainingError(
            f"--cluster auto: the Ray cluster at {address} is of the user {here[address]}",
            hint=f"to use it all the same: --cluster {address}",
        )
    return Cluster(address=address, owner=here[address])


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does on signals: Ray's own answer to SIGTERM ends it, with nothing saved.

    Not even while Ray connects, which takes seconds, does it set answers of its own.
    """
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, *ORDERS)}
    setting = signal.signal
    signal.signal = lambda number, answer: signal.getsignal(number)  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = setting
        if threading.current_thread() is threading.main_thread():
            for one, answer in before.items():
                if answer is not None:
                    signal.signal(one, answer)


@contextmanager
def joined(asked: str) -> Iterator[Cluster]:
    """Connect to the cluster that `--cluster` means, or start one of this machine alone (`local`), and leave it after.

    Raises `TrainingError` as `chosen` does, and where Ray cannot connect.
    """
    options: dict[str, Any] = {"log_to_driver": False, "namespace": "benchkit", "logging_level": "ERROR"}
    user, folder = _user(os.getuid()), ""
    if asked == "local":
        # Its sockets are in this folder, and their paths must be short. Without a token, Ray leaves one in the home.
        folder = tempfile.mkdtemp(prefix="bk-", dir="/tmp")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        options |= {"address": "local", "num_cpus": available_cores(), "include_dashboard": False}
        options |= {"_temp_dir": folder, "object_store_memory": STORE, "_node_ip_address": "127.0.0.1"}
    else:
        current = CURRENT.read_text().strip() if CURRENT.exists() else ""
        cluster = chosen(asked, clusters_here(), os.environ, current, user)
        options["address"] = cluster.address
    try:
        try:
            with _own_signals():
                context = ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise TrainingError(
                f"--cluster {asked}: Ray cannot connect: {first_line(error)}",
                hint="all machines of a cluster need the same Ray and the same Python, to the last digit",
            ) from error
        try:
            yield Cluster(address=context.address_info["gcs_address"], owner=user) if folder else cluster
        finally:
            ray.shutdown()
    finally:
        for _ in range(20 if folder else 0):  # Ray's agents end a little later, and write there until then
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.1)
