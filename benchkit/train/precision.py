"""Number formats: which one a run computes in, its autocast context, and its loss scaling."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from benchkit.errors import TrainingError, nearest
from benchkit.train import optimizers

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """`name` is float32, bf16 or fp16; parameters and their updates are float32 in each.

    `autocast` is entered anew for every forward pass. `scaler` multiplies the loss in fp16, whose small gradients
    would vanish otherwise; it skips a step whose gradients overflowed. In float32, convolutions on CUDA round their
    factors to TF32 (10 bits of mantissa), as PyTorch does by default.
    """

    name: str
    autocast: AbstractContextManager[Any]
    scaler: torch.amp.GradScaler | None

    def backward(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Set the gradients of `loss`, unscaled."""
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer step."""
        if self.scaler is None:
            optimizers.step(optimizer)
        else:
            self.scaler.step(optimizer)
            self.scaler.update()


def precision(name: str, device: torch.device) -> Precision:
    """Return the precision called `name`: float32, bf16, fp16, or auto (bf16 where the device has it, else float32)."""
    known = ("auto", "float32", *DTYPES)
    if name not in known:
        raise TrainingError(
            f"unknown precision {name!r}{nearest(name, known)}", hint=f"train.precision is one of {', '.join(known)}"
        )
    if name == "auto":
        name = "bf16" if has_bf16(device) else "float32"
    if name == "float32":
        return Precision(name=name, autocast=nullcontext(), scaler=None)
    scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
    return Precision(name=name, autocast=torch.autocast(device.type, DTYPES[name]), scaler=scaler)


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 matrices in hardware; without that, autocast slows a CPU down."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
