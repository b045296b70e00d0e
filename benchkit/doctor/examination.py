"""All examinations in turn: each yields findings, and none that fails hides the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchkit.doctor.diagnosis import Diagnosis
from benchkit.doctor.engine import engine_findings
from benchkit.doctor.software import (
    allocator_finding,
    machine_finding,
    place_finding,
    plugins_findings,
    printing_finding,
)
from benchkit.errors import BenchkitError


def examine(workspace: Path, data_root: Path, device: str = "auto") -> Iterator[Diagnosis]:
    """Yield findings as they are made, over some seconds: what the machine and its software can do for benchkit."""
    yield from _told("machine", lambda: [machine_finding()])
    yield from _told("PyTorch", lambda: engine_findings(device))
    yield from _told("allocator", lambda: [allocator_finding()])
    yield from _told("workspace", lambda: [place_finding("workspace", workspace, "--workspace")])
    yield from _told("data folder", lambda: [place_finding("data folder", data_root, "BENCHKIT_DATA")])
    yield from _told("PDF", lambda: [printing_finding()])
    yield from _told("plugins", plugins_findings)


def _told(name: str, examination: Callable[[], list[Diagnosis]]) -> list[Diagnosis]:
    """Return an examination's findings, or the one that it cannot be made: a broken machine breaks in any way."""
    try:
        return examination()
    except (BenchkitError, OSError, RuntimeError, ValueError, ImportError) as error:
        value = f"could not be examined: {type(error).__name__}: {error}"
        return [Diagnosis(name=name, state="bad", value=value, advice="look at this part of the system first")]
