"""The device that a trial trains on: its name, the time, memory and energy that it tells."""

from __future__ import annotations

import functools
import platform
import sys
import time
from typing import Any

import torch

from benchkit.errors import TrainingError
from benchkit.train.processor import processor

MEBIBYTE = 2**20


def resolve_device(text: str) -> str:
    """Return `cpu`, `mps` or `cuda:N` for auto, cpu, mps, cuda or cuda:N; auto takes CUDA where there is one.

    Raises `TrainingError` for a device that does not exist here, in CUDA's own words where it does not start.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return "cuda:0" if count else "cpu"
    if text == "cpu" or (text == "mps" and torch.backends.mps.is_available()):
        return text
    if text == "cuda" and count:
        return "cuda:0"
    if text.startswith("cuda:") and text[5:].isdigit() and int(text[5:]) < count:
        return text
    apple = ["mps"] if torch.backends.mps.is_available() else []
    known = ["auto", "cpu", *apple, *(f"cuda:{number}" for number in range(count))]
    words = f"; {_why_no_cuda()}" if text.startswith("cuda") and not count else ""
    raise TrainingError(f"--device {text}: there is no such device here{words}", hint=f"known: {', '.join(known)}")


def _why_no_cuda() -> str:
    """Return what keeps PyTorch from using a GPU, as it says it itself."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"PyTorch {torch.__version__}: {' '.join(str(error).split())}"
    return f"PyTorch {torch.__version__} sees no GPU"


def is_usable(device: str) -> bool:
    """Return whether a device still works: after some errors, CUDA refuses whatever the same process asks of it."""
    try:
        torch.ones(1, device=device).add_(1).item()
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 matrices in hardware; without that, autocast slows a CPU down."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).major >= 8
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False  # whose kernels compute it in float32, as where they are kept from AVX512
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_fp16(device: torch.device) -> bool:
    """Return whether the device is a GPU that multiplies fp16 matrices in hardware, and no bf16: Volta or Turing."""
    return device.type == "cuda" and torch.cuda.get_device_properties(device).major == 7


def instructions() -> str:
    """Return the kind of this processor by what PyTorch's kernels use of it: avx512-bf16, avx512, avx2, arm, x86.

    Another kind is called by its machine's name.
    """
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return "arm"
    if machine not in ("x86_64", "amd64"):
        return machine
    capability = torch.backends.cpu.get_cpu_capability().lower()
    if capability == "avx512" and has_bf16(torch.device("cpu")):
        return "avx512-bf16"
    return capability if capability in ("avx512", "avx2") else "x86"


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the kind of device and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU of {processor()}"
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"


def hardware_name(device: torch.device) -> str:
    """Return the model of the device: the GPU's name, or that of the processor, with its threads."""
    return device_name(device).replace("cpu", processor(), 1) if device.type == "cpu" else device_name(device)


def now(device: torch.device) -> float:
    """Return monotonic seconds, once the work that this trial has queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def forget_peak(device: torch.device) -> None:
    """Start a new measurement of peak memory, where the device can: a process's peak on the CPU never falls."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """Return peak memory in MiB: what CUDA allocated for tensors, or the process's largest resident set on the CPU.

    Apple's GPU tells no peak: it is what its driver holds for the process now.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / MEBIBYTE
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / MEBIBYTE
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE


def joules(device: torch.device) -> float:
    """Return the joules that the whole device has used since its driver was loaded; 0 where nobody tells.

    Needs the package `nvidia-ml-py` and a card of the Volta generation or later. It counts everything that runs on
    the card, so trials that share one share its energy too.
    """
    card = _card(device)
    return 0.0 if card is None else float(card[0].nvmlDeviceGetTotalEnergyConsumption(card[1])) / 1000


class ProcessorUse:
    """How many cores this process has in use."""

    def __init__(self) -> None:
        """Measure from now on."""
        self._at = (time.perf_counter(), time.process_time())

    def cores(self) -> float:
        """Return the cores in use since the last call, on average."""
        before, self._at = self._at, (time.perf_counter(), time.process_time())
        return (self._at[1] - before[1]) / max(1e-9, self._at[0] - before[0])


def device_use(device: torch.device) -> float | None:
    """Return the share of the last moments in which a GPU worked, as its driver tells it; None where nobody does."""
    card = _card(device)
    return None if card is None else float(card[0].nvmlDeviceGetUtilizationRates(card[1]).gpu) / 100


@functools.cache
def _card(device: torch.device) -> tuple[Any, Any] | None:
    """Return NVML and its handle of the device, or None when it is no NVIDIA card, or does not tell."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return pynvml, handle
