"""Packages that are there where an extra was installed."""

from __future__ import annotations

import importlib
from typing import Any

from benchkit import BenchkitError


def need(extra: str, *modules: str) -> list[Any]:
    """Return modules of an extra's packages; raise `BenchkitError` with the command where one cannot be imported."""
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise BenchkitError(f"{extra} cannot be imported: {error}", hint=f"pip install 'benchkit[{extra}]'") from error
