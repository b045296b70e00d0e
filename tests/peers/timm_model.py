"""Makes the benchmark's models known to timm; imported by timm's train script before it builds one."""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from torch import nn
from workloads import WORKLOADS


@register_model
def benchmark_model(pretrained: bool = False, *, workload: str, **options: Any) -> nn.Module:
    """Return the model of the workload of this name, with ten classes; timm's own options do not concern it."""
    return next(one for one in WORKLOADS if one.name == workload).build()
