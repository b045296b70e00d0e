"""The energy that a device says it has used: NVIDIA's cards through NVML, where its Python package is installed."""

from __future__ import annotations

import functools
from typing import Any

import torch


def joules(device: torch.device) -> float:
    """Return the joules that the whole device has used since its driver was loaded; 0 where nobody tells.

    Needs the package `nvidia-ml-py` and a card of the Volta generation or later. It counts everything that runs on
    the card, so trials that share one share its energy too.
    """
    card = _card(device)
    return 0.0 if card is None else float(card[0].nvmlDeviceGetTotalEnergyConsumption(card[1])) / 1000


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
