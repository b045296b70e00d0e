"""What the machine can do at the most: rates of matrix products and of copying, and what a step asks of them.

python tests/peers/limits.py [WORKLOAD] [--threads 2] [--device cpu]

prints as JSON the two rates in the precision that benchkit trains in there or, of a workload, what its step takes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from workloads import workload_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from step_counts import counted_step, limit_of

APART = 0.1
"""A machine whose rates before and after differ by more than this was loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Floating-point operations a second of products of large matrices in `precision`, bytes a second of a copy."""

    precision: str
    matrix: float
    copy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a step of a workload takes: images, kernels, floating-point operations, and bytes in a precision."""

    images: int
    kernels: int
    flops: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A workload's step, and the rates of the machine before and after it was measured."""

    needs: Needs
    before: Rates
    after: Rates

    @property
    def loaded(self) -> bool:
        """Return whether the machine did something else meanwhile: one of its rates changed by more than a tenth."""
        pairs = ((self.before.matrix, self.after.matrix), (self.before.copy, self.after.copy))
        return any(max(pair) > (1 + APART) * min(pair) for pair in pairs)

    @property
    def rate(self) -> float:
        """Return the most images a second, by the better one of each rate."""
        matrix, copy = (max(getattr(one, name) for one in (self.before, self.after)) for name in ("matrix", "copy"))
        return self.needs.images / limit_of(self.needs.flops, self.needs.bytes, matrix, copy)

    def text(self) -> str:
        """Return what is known, in words."""
        need, before, after = self.needs, self.before, self.after
        return (
            f"a step of {need.images} images has {need.kernels} kernels, {need.flops / 1e9:.2f} GFLOP and reads and "
            f"writes {need.bytes / 1e6:.1f} MB in {before.precision}; the machine multiplies matrices at "
            f"{before.matrix / 1e9:,.0f} GFLOP/s before and {after.matrix / 1e9:,.0f} after, and copies at "
            f"{before.copy / 1e9:.1f} and {after.copy / 1e9:.1f} GB/s: at most {self.rate:,.0f} images/s"
            f"{' (loaded machine: its rates differ by more than a tenth)' if self.loaded else ''}"
        )


def rates(device: str) -> Rates:
    """Return what a device reaches in this process, in the precision that `auto` is there."""
    import torch

    from benchkit.train.rates import DTYPES, copy_rate, matrix_rate
    from benchkit.train.step import automatic_precision

    place, precision = torch.device(device), automatic_precision(device)
    matrix = matrix_rate(place, DTYPES[precision], seconds=1.0)
    return Rates(precision=precision, matrix=matrix, copy=copy_rate(place, seconds=1.0))


def needs(name: str, device: str, *, quick: bool) -> Needs:
    """Return what a workload's step takes."""
    import torch

    from benchkit.train.step import automatic_precision

    workload = workload_of(name, device, quick=quick)
    images = torch.randn(workload.batch_size, workload.channels, workload.side, workload.side)
    labels = torch.arange(workload.batch_size) % 10
    size = 4 if automatic_precision(device) == "float32" else 2
    counts = counted_step(workload.build(), images, labels, bytes_of_a_number=size)
    return Needs(images=workload.batch_size, kernels=counts.kernels, flops=counts.flops, bytes=counts.bytes)


def main() -> None:
    """Print one JSON object."""
    import torch

    from benchkit.storage import encode

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="?")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = needs(given.workload, given.device, quick=given.quick) if given.workload else rates(given.device)
    print(json.dumps(encode(found)))


if __name__ == "__main__":
    main()
