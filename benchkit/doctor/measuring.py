"""What only PyTorch can tell of the device, told as JSON lines while it is found: a crash costs what comes after it.

Run as `python -m benchkit.doctor.measuring DEVICE` with DEVICE auto, cpu, mps, cuda or cuda:N.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from benchkit.child import answer_stream
from benchkit.errors import BenchkitError
from benchkit.train.compiler import compiler_found


def measurements(asked: str) -> Iterator[dict[str, Any]]:
    """Yield tables of what was found, cheap things first."""
    import torch

    yield {"torch": torch.__version__, "cuda": torch.version.cuda or ""}

    from benchkit.train.device import has_bf16, has_fp16, joules, resolve_device

    device = torch.device(resolve_device(asked))
    compiler, lacking = compiler_found(device.type)
    yield {
        "device": str(device),
        "compiler": compiler,
        "lacking": lacking,
        "bf16": has_bf16(device),
        "fp16": has_fp16(device),
        "energy": joules(device) > 0,
        **memory(device),
    }

    from benchkit.sweep.devices import available_cores
    from benchkit.sweep.provenance import device_name
    from benchkit.train.rates import DTYPES, copy_rate, matrix_rate

    torch.set_num_threads(available_cores())
    yield {"name": device_name(str(device)), "threads": torch.get_num_threads()}
    yield {"copy_rate": copy_rate(device)}
    yield {"float32_rate": matrix_rate(device, DTYPES["float32"])}
    yield {"bf16_rate": matrix_rate(device, DTYPES["bf16"])}


def memory(device: Any) -> dict[str, int]:
    """Return the device's own `memory` in bytes and how much of it is `free`, 0 for the CPU."""
    import torch

    free, total = torch.cuda.mem_get_info(device) if device.type == "cuda" else (0, 0)
    return {"memory": total, "free": free}


def main() -> None:
    """Print what is found, line by line; an error that a user can mend ends it with one line."""
    answers = answer_stream()
    try:
        for table in measurements(sys.argv[1]):
            answers.write(json.dumps(table) + "\n")
            answers.flush()
    except BenchkitError as error:
        sys.exit(f"{error.what}; {error.hint}" if error.hint else error.what)


if __name__ == "__main__":
    main()
