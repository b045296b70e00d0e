"""What is a machine's doing and never a trial's result: full or broken disks, devices and drivers that do not start."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Literal

from benchkit.errors import PinningRefusedError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""What the system says where nothing can be written."""

AWAY = (errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT)
"""What the system says where a disk, mostly one of another machine, does not answer; it may again."""

DEVICE = re.compile(
    r"(CUDA|cuda|CUBLAS|CUDNN|NCCL|NVML|MPS)\b.*(uncorrectable|busy or unavailable|no CUDA-capable device|"
    r"initialization error|driver (version )?is insufficient|system not yet initialized|unknown error|device is lost|"
    r"fallen off the bus|hardware|out of spec|not permitted|not supported on this|no kernel image)",
    re.DOTALL,
)
"""What CUDA says of a card or a driver that is broken or another's, and not of what a program did with it."""

LIBRARY = re.compile(r"\.so(\.\d+)*: |undefined symbol|DLL load failed")
"""What the system says of a library that is not there or does not fit: an installation is broken, no trial."""

PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors", "triton")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong, in words, and with how much of the machine: with one device, or with the whole node."""

    words: str
    scope: Literal["pinned memory", "device", "node"]


def fault_of(error: BaseException) -> Fault | None:
    """Return what is wrong with the machine where an error tells of it, None where it is the trial's own."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, PinningRefusedError):
        return Fault(words=str(error), scope="pinned memory")
    if isinstance(error, OSError) and error.errno in (*FULL, *AWAY):
        return Fault(words=f"files cannot be written or read: {error}", scope="node")
    root = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ImportError) and (root in PACKAGES or LIBRARY.search(str(error))):
        return Fault(words=words, scope="node")
    if isinstance(error, RuntimeError | AssertionError) and DEVICE.search(str(error)):
        return Fault(words=words.partition("\n")[0], scope="device")
    return None
