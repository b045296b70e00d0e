"""Sweeps on a Ray cluster whose nodes share no folder: the numbers are those of a sweep without one."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from ray_nodes import RayNodes
from tiny_study import FACTOR, all_facts, command, environment, text_of

from benchkit.ledger import read_results
from benchkit.results import StudyResults

pytestmark = pytest.mark.ray

REPEATS = 12
"""With two levels: 24 trials."""


def write(folder: Path, *, epochs: int = 3, repeats: int = REPEATS) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text_of(FACTOR, epochs=epochs, repeats=repeats))
    return path


def started(folder: Path, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    own = {**environment(), "RAY_ADDRESS": "", **variables}
    return subprocess.Popen(
        command("sweep", folder / "tiny.toml", "--workspace", folder / "runs", *arguments),
        cwd=folder,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def swept(folder: Path, *arguments: object, code: int = 0, **variables: str) -> str:
    """Run a sweep to its end; return what it printed."""
    process = started(folder, *arguments, **variables)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code, out
    return out


def results(folder: Path) -> StudyResults:
    return read_results(folder / "runs", "tiny")


@functools.cache
def local_facts(epochs: int, repeats: int) -> dict[tuple[str, int], dict[str, object]]:
    """Return what a sweep of this machine's own workers gives."""
    folder = Path(tempfile.mkdtemp(prefix="bk-local-"))
    write(folder, epochs=epochs, repeats=repeats)
    swept(folder, "--jobs", 2)
    return all_facts(results(folder))


def test_a_sweep_on_two_nodes_is_the_local_sweep_to_the_bit(ray_nodes: RayNodes, tmp_path: Path) -> None:
    write(tmp_path)
    out = swept(tmp_path, "--cluster", ray_nodes.address)
    assert "24 done" in out and "3 nodes" in out, out
    assert all_facts(results(tmp_path)) == local_facts(3, REPEATS)
    prepared = [node.folder / "data" / "digits" for node in ray_nodes.nodes if node.name in ("one", "two")]
    assert not any(os.path.samefile(folder, tmp_path) for folder in prepared if folder.exists())
