"""PyTorch's compiler kept out of sight: at start-up, where eager training never uses it, and in what it says."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def skip_dynamo_import(*methods: Callable[..., Any]) -> None:
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


@contextmanager
def without_its_own_warnings() -> Iterator[None]:
    """Compile without the warnings that no plugin can help.

    PyTorch 2.11 makes instances of autograd functions and takes methods from TorchScript, both of which it warns of
    itself; Python 3.13.0 slows guards down.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*should not be instantiated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.script_method", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Guards may run slower", category=RuntimeWarning)
        yield
