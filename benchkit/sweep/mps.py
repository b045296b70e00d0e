"""NVIDIA's Multi-Process Service, which lets processes use one GPU at the same time instead of by turns."""

from __future__ import annotations

import os
from pathlib import Path


def mps_runs() -> bool:
    """Return whether its control daemon can be reached: CUDA programs of this user then use it without being asked."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()
