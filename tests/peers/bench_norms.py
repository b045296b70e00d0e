"""Time our norms beside the framework's own layers: one forward and backward pass in training, on one device.

    python tests/peers/bench_norms.py [--rounds 15] [--threads 1 2] [--device cpu] [--compile] [--json]

Both layers take turns within each round, so that a busy machine slows both; the table shows medians over rounds and
the median of the rounds' ratios. Freed memory is kept, as in a sweep's workers.
bf16 rows run under autocast on bf16 maps, as a convolution hands them on. On a GPU each step is one CUDA graph, as in a
trial: what Python does beside it does not count there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from benchkit_norms.batch import BatchNorm
from benchkit_norms.batch_instance import BatchInstanceNorm
from benchkit_norms.group import GroupNorm
from benchkit_norms.instance import InstanceNorm
from benchkit_norms.layer import LayerNorm
from comparison import Spread, spread
from devices import device
from recording import recorded
from torch import nn

SHAPES = ((128, 16, 32, 32), (128, 32, 16, 16), (128, 64, 8, 8), (8, 16, 32, 32))
THRESHOLDS = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
Step = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NormRow:
    """One norm on maps of one shape: median microseconds of a step, ours and the framework's, and rounds' ratios."""

    norm: str
    shape: tuple[int, ...]
    precision: str
    threads: int
    ours: float
    theirs: float
    ratio: Spread


class NativeBatchInstance(nn.Module):
    """Batch-instance norm put together from the framework's two layers, as its authors' code does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(channels, affine=False)
        self.instance = nn.InstanceNorm2d(channels)
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.rho = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.rho * self.batch(x) + (1 - self.rho) * self.instance(x)
        return mixed * self.weight + self.bias


def pairs(channels: int) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield (name, ours, the framework's)."""
    yield "bn", BatchNorm(channels), nn.BatchNorm2d(channels)
    yield "in", InstanceNorm(channels), nn.InstanceNorm2d(channels, affine=True)
    yield "gn (8)", GroupNorm(channels, groups=8), nn.GroupNorm(8, channels)
    yield "ln", LayerNorm(channels), nn.GroupNorm(1, channels)
    yield "bin", BatchInstanceNorm(channels), NativeBatchInstance(channels)


def training_step(module: nn.Module, x: torch.Tensor, autocast: bool) -> Step:
    """Return a function that runs one forward and backward pass, gradients freed first.

    The gradient comes in the layout of x, as the next convolution hands it back whatever layout it was given.
    """
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        gradient = torch.randn_like(x, dtype=module(x).dtype)

    def step() -> None:
        x.grad = None
        module.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            y = module(x)
        y.backward(gradient)

    return step


def timed(step: Step, repeats: int, device: torch.device) -> float:
    """Return the seconds of one step, the mean over repeats."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def interleaved(ours: Step, theirs: Step, rounds: int, device: torch.device) -> tuple[float, float, Spread]:
    """Return the median microseconds of ours and theirs, and the spread of the rounds' ratios ours / theirs."""
    if device.type == "cuda":
        ours, theirs = recorded(ours), recorded(theirs)
    for step in (ours, theirs):
        timed(step, 2, device)
    repeats = max(1, round(0.04 / (timed(ours, 1, device) + timed(theirs, 1, device))))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for step, seconds in zip((ours, theirs), times, strict=True):
            seconds.append(timed(step, repeats, device))
    ratio = spread([a / b for a, b in zip(*times, strict=True)])
    return statistics.median(times[0]) * 1e6, statistics.median(times[1]) * 1e6, ratio


def rows(given: argparse.Namespace) -> Iterator[NormRow]:
    """Yield the measurements: threads, precision, shape, norm."""
    layout = torch.contiguous_format if given.contiguous else torch.channels_last
    device = torch.device(given.device)
    for threads in given.threads:
        torch.set_num_threads(threads)
        for autocast in (False, True):
            for shape in SHAPES:
                dtype = torch.bfloat16 if autocast else torch.float32
                x = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout)
                for name, *layers in pairs(shape[1]):
                    ours, theirs = (
                        torch.compile(layer.to(device)) if given.compile else layer.to(device) for layer in layers
                    )
                    steps = training_step(ours, x, autocast), training_step(theirs, x, autocast)
                    a, b, ratio = interleaved(*steps, given.rounds, device)
                    words = "bf16" if autocast else "float32"
                    yield NormRow(
                        norm=name, shape=shape, precision=words, threads=threads, ours=a, theirs=b, ratio=ratio
                    )


def main() -> None:
    """Print the table, or all rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--compile", action="store_true", help="compile both layers first")
    parser.add_argument("--contiguous", action="store_true", help="maps in (N, C, H, W) order, not channels_last")
    parser.add_argument("--json", action="store_true", help="print all rows as one line of JSON")
    given = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in THRESHOLDS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **THRESHOLDS})
    if given.json:
        print(json.dumps([asdict(row) for row in rows(given)]))
        return
    print(f"torch {torch.__version__}, {'NCHW' if given.contiguous else 'channels_last'}, microseconds a step")
    print(f"{'norm':8}{'shape':20}{'precision':11}{'threads':>7}{'ours':>9}{'torch':>9}{'ratio':>7}")
    for row in rows(given):
        print(
            f"{row.norm:8}{row.shape!s:20}{row.precision:11}{row.threads:7}{row.ours:9.0f}{row.theirs:9.0f}"
            f"  {row.ratio.text('.2f')}",
            flush=True,
        )


if __name__ == "__main__":
    main()
