"""Which device a trial trains on."""

from __future__ import annotations

import torch

from benchkit.errors import TrainingError


def resolve_device(text: str) -> str:
    """Return `cpu` or `cuda:N` for auto, cpu, cuda or cuda:N; auto takes CUDA where there is one.

    Raises `TrainingError` for a device that does not exist here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return "cuda:0" if count else "cpu"
    if text == "cpu":
        return "cpu"
    if text == "cuda" and count:
        return "cuda:0"
    if text.startswith("cuda:") and text[5:].isdigit() and int(text[5:]) < count:
        return text
    known = ["auto", "cpu", *(f"cuda:{number}" for number in range(count))]
    raise TrainingError(f"--device {text}: there is no such device here", hint=f"known: {', '.join(known)}")


def is_usable(device: str) -> bool:
    """Return whether a device still works: after some errors, CUDA refuses whatever the same process asks of it."""
    if not device.startswith("cuda"):
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True
