"""Sweeps that are killed again and again: each in a child forked from a process that has imported everything.

Run as `python forked_sweeps.py STUDY.toml WORKSPACE SEED`. Prints one JSON line for every child: how many events it
told before it was killed or ended, where its trials started, and whether it was killed. Children are killed after a
random number of events and a random moment more, until one ends by itself. A child waits at a few events more, so that
none gets to the end because this process was kept from killing it.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import tiny_study
import torch

from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan
from benchkit.study.studyfile import read_study
from benchkit.sweep import orchestration, training
from benchkit.sweep.messages import Event, TrialBegan

BEYOND = 20
"""So many events more than it is killed after a child may tell."""


class PipePool(tiny_study.InlinePool):
    """A pool of this process alone, which tells its events through a pipe at once."""

    pipe = allowed = -1

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        for number, event in super().events(wait):
            told = {"began": len(event.history)} if isinstance(event, TrialBegan) else {}
            os.read(self.allowed, 1)
            os.write(self.pipe, (json.dumps(told) + "\n").encode())
            yield number, event


def child(study: Path, workspace: Path, pipe: int, allowed: int) -> None:
    """Sweep the study in this process, then end it without anything that a fork should not do."""
    os.setsid()
    torch.set_num_threads(1)
    PipePool.pipe, PipePool.allowed = pipe, allowed
    training.CHECKPOINT_SHARE = 1.0  # epochs of milliseconds: save after nearly each, to lose any
    orchestration.Pool = PipePool  # type: ignore[assignment, misc]
    request = orchestration.Request(study=read_study(study), workspace=workspace, data_root=tiny_study.DATA, jobs=1)
    code = 1
    try:
        orchestration.sweep(request, Registry.installed(), tiny_study.Listener())
        code = 0
    finally:
        os._exit(code)


def run_once(study: Path, workspace: Path, chance: random.Random) -> dict[str, object]:
    """Fork a sweep, kill it at a random moment, and return what it told."""
    reader, writer = os.pipe()
    allowed, allow = os.pipe()
    wanted, told, text = chance.randrange(14), 0, b""
    os.write(allow, bytes(wanted + BEYOND))
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.close(allow)
        child(study, workspace, writer, allowed)
    os.close(writer)
    os.close(allowed)
    begun = time.monotonic()
    while told < wanted:
        part = os.read(reader, 65536)
        if not part:
            break
        text += part
        told = text.count(b"\n")
    moment = chance.random() * (0.01 if wanted else 0.5)
    if told >= wanted:
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    while select.select([reader], [], [], 0)[0] and (part := os.read(reader, 65536)):
        text += part
    os.close(reader)
    os.close(allow)
    events = [json.loads(line) for line in text.decode().split("\n")[:-1]]
    return {
        "killed": os.WIFSIGNALED(status),
        "code": os.waitstatus_to_exitcode(status),
        "events": len(events),
        "started": [event["began"] for event in events if "began" in event],
        "seconds": time.monotonic() - begun,
    }


def warm_up(study: Path) -> None:
    """Import what a sweep imports on its way, so that children need not; train nothing, which would start threads."""
    registry, plan = Registry.installed(), make_plan(read_study(study))
    check_plan(plan, registry)
    orchestration.prepare(plan, registry, tiny_study.DATA)
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        ledger.register(plan, {}, "")
        ledger.enqueue(plan)


def main() -> None:
    """Kill and start again until a sweep ends by itself."""
    study, workspace, chance = Path(sys.argv[1]), Path(sys.argv[2]), random.Random(int(sys.argv[3]))
    warm_up(study)
    while True:
        told = run_once(study, workspace, chance)
        print(json.dumps(told), flush=True)
        if not told["killed"]:
            sys.exit(int(str(told["code"])))


if __name__ == "__main__":
    main()
