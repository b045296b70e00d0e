"""Time training steps of several ResNet-14s: one after another, fused into one network, in processes at once.

    python tests/peers/bench_fused.py [--device cpu] [--trials 2 4 8] [--batch-sizes 128 8] [--rounds 5] [--threads 2]

Told are images/s of all trials together, medians over rounds in which the ways take turns, and the ratio to one after
another within each round. Steps are forward and backward pass and update in bf16 on images that lie on the device; on a
GPU each step is one CUDA graph. What is fastest on a device decides whether fusing trials would speed sweeps up there.
Trials are fused in two ways, told in fused.py; a processor's processes have one thread each, as many as fit at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from bench_norms import THRESHOLDS
from benchkit_models.resnet import resnet
from comparison import Spread, spread
from devices import device
from fused import WAYS, training_step
from recording import recorded
from torch import nn

ALONE = "one after another"
AT_ONCE = "processes at once"
WINDOW = 1.0
"""Seconds, at least, of each timing."""

Timed = Callable[[float], float]
"""Takes steps for so many seconds, and returns images/s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedRow:
    """So many trials trained in one way: images/s of all together, and its ratio to one after another."""

    way: str
    trials: int
    batch_size: int
    rate: Spread
    ratio: Spread


def steps_of(way: str, trials: int, batch_size: int, device: torch.device) -> Timed:
    """Return what times steps of so many trials in one of the ways."""
    torch.manual_seed(0)
    models = [resnet(10, (3, 32, 32), nn.BatchNorm2d, shortcut="B").to(device) for _ in range(trials)]
    # Grouped convolutions of few channels each are slow in the layout that is the faster one for plain ones.
    layout = torch.channels_last if way == ALONE else torch.contiguous_format
    models = [model.to(memory_format=layout) for model in models]
    images = torch.randn(trials, batch_size, 3, 32, 32, device=device)
    labels = torch.randint(10, (trials, batch_size), device=device)
    forward, parameters = WAYS[way](models)
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)
    step: Callable[[], object] = training_step(forward, optimizer, images, labels, bf16=True)
    if device.type == "cuda":
        step = recorded(step)

    def timed(seconds: float) -> float:
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for _ in range(5):
                step()
            count += 5
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return count * trials * batch_size / (time.perf_counter() - start)

    timed(0.0)
    return timed


class Processes:
    """Processes that each take one trial's steps, all in the same seconds."""

    def __init__(self, count: int, batch_size: int, device: str) -> None:
        """Start them, and return once each is warm."""
        line = [sys.executable, __file__, "--member", "--batch-sizes", str(batch_size), "--device", device]
        self._members = [
            subprocess.Popen([*line, "--threads", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        for member in self._members:
            self._heard(member)

    def timed(self, seconds: float) -> float:
        """Return images/s of all together."""
        for member in self._members:
            assert member.stdin is not None
            member.stdin.write(f"{seconds}\n")
            member.stdin.flush()
        return sum(float(self._heard(member)) for member in self._members)

    def _heard(self, member: subprocess.Popen[str]) -> str:
        assert member.stdout is not None
        return member.stdout.readline() or sys.exit("a process ended too soon")

    def close(self) -> None:
        """End them."""
        for member in self._members:
            member.communicate()


def member(batch_size: int, device: torch.device) -> None:
    """Take one trial's steps for as many seconds as each line of the input says, and print the rate."""
    timed = steps_of(ALONE, 1, batch_size, device)
    print("ready", flush=True)
    for line in sys.stdin:
        print(timed(float(line)), flush=True)


def rows(trials: int, batch_size: int, given: argparse.Namespace) -> Iterator[FusedRow]:
    """Yield every way's row for so many trials."""
    device = torch.device(given.device)
    ways = {way: steps_of(way, trials, batch_size, device) for way in WAYS}
    with closing(Processes(trials if device.type == "cuda" else given.threads, batch_size, given.device)) as processes:
        ways[AT_ONCE] = processes.timed
        rounds = [{way: timed(WINDOW) for way, timed in ways.items()} for _ in range(given.rounds)]
    for way in ways:
        yield FusedRow(
            way=way,
            trials=trials,
            batch_size=batch_size,
            rate=spread([one[way] for one in rounds]),
            ratio=spread([one[way] / one[ALONE] for one in rounds]),
        )


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--trials", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in THRESHOLDS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **THRESHOLDS})
    torch.set_num_threads(given.threads)
    if given.member:
        return member(given.batch_sizes[0], torch.device(given.device))
    print(
        f"torch {torch.__version__}, {given.device}, {given.threads} threads, {given.rounds} rounds; images/s together"
    )
    for batch_size in given.batch_sizes:
        for trials in given.trials:
            for row in rows(trials, batch_size, given):
                print(
                    f"{trials:3} trials, batch {batch_size:3}  {row.way:22} {row.rate.text(',.0f'):>26}"
                    f"  x{row.ratio.text('.2f')}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
