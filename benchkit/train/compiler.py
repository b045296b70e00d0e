"""PyTorch's compiler: what it needs, and kept out of sight at start-up and in what it says. Imports no torch."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CAPABILITIES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""The variables by which PyTorch's kernels, oneDNN's and MKL's are kept from instructions that a processor has."""

PACKAGES = {
    "Triton": "",
    "a C compiler": "on Debian: apt install gcc",
    "a C++ compiler": "on Debian: apt install g++",
    "Python.h": "on Debian: apt install python3-dev",
}
"""What compiling may lack, and what brings it."""


def cpp_compiler() -> str:
    """Return the C++ compiler that `torch.compile` uses for the CPU, empty where it is not there."""
    asked = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    return asked if shutil.which(asked.split()[0]) else ""


def c_compiler() -> str:
    """Return the C compiler with which Triton builds what launches its kernels, empty without one."""
    asked = os.environ.get("CC", "")
    return asked or next((name for name in ("gcc", "clang") if shutil.which(name)), "")


def compiler_found(kind: str) -> tuple[str, str]:
    """Return what `torch.compile` uses on a kind of device, empty where it cannot work, and what it lacks then.

    On CUDA that is Triton, which needs a C compiler and Python's headers; elsewhere a C++ compiler and the headers.
    Nothing is imported or run for it.
    """
    parts = {"Triton": importlib.util.find_spec("triton") is not None, "a C compiler": bool(c_compiler())}
    found = f"Triton and {c_compiler()}"
    if kind != "cuda":
        parts, found = {"a C++ compiler": bool(cpp_compiler())}, cpp_compiler()
    parts["Python.h"] = Path(sysconfig.get_path("include"), "Python.h").exists()
    lacking = ", ".join(
        f"{name} ({PACKAGES[name]})" if PACKAGES[name] else name for name, there in parts.items() if not there
    )
    return "" if lacking else found, lacking


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
