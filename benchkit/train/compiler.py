"""Start-up without PyTorch's compiler, which eager training never uses and which takes seconds to import."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def spare(*methods: Callable[..., Any]) -> None:
    """Keep PyTorch's `methods` from importing its compiler when they are first called.

    PyTorch wraps some methods so that their first call imports `torch._dynamo`, to replace them by a version that it
    leaves alone; after this, each is its own replacement. Where they are not wrapped so, this has no effect.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in methods:
        plain: Any = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain
