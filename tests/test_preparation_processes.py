"""Several processes that prepare the same data set, and processes that are killed while they do."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tiny_study import PATIENCE

from benchkit.preparation import prepared_folders, prepared_manifest, verify

SLOW = """
import os, sys, time
from pathlib import Path
import numpy as np
from benchkit.preparation import About, Draft, prepare

def build(draft):
    with open(sys.argv[2], "a") as log:
        log.write("build\\n")
    for seed, split in enumerate(("train", "test")):
        images = draft.allocate(split, np.arange(64) % 2, (16, 16, 3))
        for row in range(64):
            images[row] = np.random.default_rng([seed, row]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            time.sleep(0.005)
    while len(sys.argv) > 3 and not Path(sys.argv[3]).exists():
        time.sleep(0.005)
    return About(class_names=("a", "b"), licence="", citation="")

print(prepare(Path(sys.argv[1]), "slow", build).fingerprint)
"""


def start(root: Path, log: Path, *wanted: Path) -> subprocess.Popen[str]:
    """Start a process that prepares the set, and ends it once a file is there, where one is wanted."""
    command = [sys.executable, "-c", SLOW, str(root), str(log), *map(str, wanted)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return output.strip()


def test_processes_prepare_the_same_set_once(tmp_path: Path) -> None:
    processes = [start(tmp_path / "data", tmp_path / "log") for _ in range(3)]
    fingerprints = {finish(process) for process in processes}
    assert len(fingerprints) == 1
    assert (tmp_path / "log").read_text() == "build\n"


def drafts(root: Path) -> set[Path]:
    return set(root.glob(".slow.preparing-*"))


def test_killed_half_way_it_starts_over(tmp_path: Path) -> None:
    expected = finish(start(tmp_path / "whole", tmp_path / "log"))
    root, moments = tmp_path / "data", random.Random(3)
    killed = 0
    for _ in range(5):
        process = start(root, tmp_path / "log", tmp_path / "never")
        before = drafts(root)
        while drafts(root) <= before:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += not (root / "slow").exists()
    assert killed == 5
    assert drafts(root)
    assert prepared_manifest(root, "slow") is None
    assert prepared_folders(root) == {}
    assert finish(start(root, tmp_path / "log")) == expected
    assert verify(root / "slow").fingerprint == expected
    assert {path.name for path in root.iterdir()} == {".locks", "slow"}
