"""Compiled code that is kept: whole or not at all, by its content, and done without where it cannot be."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import PATIENCE
from torch import nn

from benchkit.train import compiler
from benchkit.train.compiler import CAPABILITIES
from benchkit.train.steps import kept_code as module
from benchkit.train.steps.kept_code import ABANDONED, OWN, code_key, kept_code

INPUTS = (torch.ones(2),)
GRAPH = torch.fx.symbolic_trace(nn.ReLU())
HERE = threading.local()


@contextlib.contextmanager
def folder_of_a_thread(folder: str) -> Iterator[None]:
    """Stand in for the compiler's folder, which is the process's, so that threads can be processes."""
    HERE.folder = Path(folder)
    yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.runtime.cache_dir_utils.temporary_cache_dir", folder_of_a_thread)
    return tmp_path


def compiling(made: list[str], content: bytes = b"whole" * 1000) -> Callable[[], Any]:
    """Return what compiles as the compiler does: it takes what is in its folder, else it makes and writes it."""

    def compile_graph() -> Any:
        kept = HERE.folder / "fxgraph" / "ab" / "graph"
        made.append("found" if kept.exists() else "made")
        if not kept.exists():
            kept.parent.mkdir(parents=True)
            kept.write_bytes(content)
        return kept.read_bytes()

    return compile_graph


def test_what_was_compiled_is_found_and_nothing_else_is_left(store: Path) -> None:
    made: list[str] = []
    first, second = (kept_code(compiling(made), GRAPH, INPUTS) for _ in range(2))
    assert made == ["made", "found"] and first == second == b"whole" * 1000
    assert {path.suffix for path in store.iterdir()} == {".zip", ".lock"}


VICTIM = """
import os, pathlib, sys, torch
from benchkit.train.steps.kept_code import kept_code

def compile_graph():
    kept = pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"], "fxgraph", "ab", "graph")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half")
    print("compiling", flush=True)
    sys.stdin.read()

kept_code(compile_graph, torch.fx.symbolic_trace(torch.nn.ReLU()), (torch.ones(2),))
"""


@pytest.mark.slow
def test_of_many_that_start_at_once_one_compiles_and_one_that_is_killed_leaves_nothing_to_load(store: Path) -> None:
    made: list[str] = []
    results: list[Any] = []
    own = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM], env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None and victim.stdout.readline() == "compiling\n"
        threads = [
            threading.Thread(target=lambda: results.append(kept_code(compiling(made), GRAPH, INPUTS))) for _ in range(7)
        ]
        for thread in threads:
            thread.start()
        assert made == [], "the others wait for the first"
        victim.kill()
        for thread in threads:
            thread.join(PATIENCE)
    assert sorted(made) == ["found"] * 6 + ["made"]
    assert results == [b"whole" * 1000] * 7
    (left,) = store.glob(f"{OWN}*")
    os.utime(left, (time.time() - 2 * ABANDONED,) * 2)
    kept_code(compiling([]), GRAPH, (torch.ones(3),))
    assert not left.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_archive_counts_as_none_and_is_made_anew(store: Path, damage: str) -> None:
    kept_code(compiling([]), GRAPH, INPUTS)
    (archive,) = store.glob("*.zip")
    sound = archive.read_bytes()
    spoilt = bytearray(sound)
    spoilt[60] ^= 255
    archive.write_bytes({"truncated": sound[: len(sound) // 2], "flipped": bytes(spoilt), "empty": b""}[damage])
    made: list[str] = []
    assert kept_code(compiling(made), GRAPH, INPUTS) == b"whole" * 1000
    assert made == ["made"] and archive.read_bytes() != bytes(spoilt)
    kept_code(compiling(made), GRAPH, INPUTS)
    assert made == ["made", "found"]


def test_a_folder_that_cannot_be_written_costs_no_more_than_the_keeping(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (store / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(store / "file" / "below"))
    made: list[str] = []
    for _ in range(2):
        assert kept_code(compiling(made), GRAPH, INPUTS) == b"whole" * 1000
    assert made == ["made", "made"] and "compiled code is not kept" in caplog.text


def test_a_full_disk_keeps_nothing(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    made: list[str] = []
    for _ in range(2):
        assert kept_code(compiling(made), GRAPH, INPUTS) == b"whole" * 1000
    assert made == ["made", "made"] and "No space left" in caplog.text
    assert not list(store.glob("*.zip"))


class Scaled(nn.Module):
    def __init__(self, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("shift", torch.full((2,), shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + self.shift


def test_the_key_is_the_content_and_all_that_machine_code_hangs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(layer: nn.Module, *inputs: torch.Tensor) -> str:
        return code_key(torch.fx.symbolic_trace(layer), inputs or INPUTS)

    usual = key(Scaled(2.0))
    assert key(Scaled(2.0)) == usual
    maps = torch.ones(2, 3, 4, 4)
    others = [
        key(Scaled(2.5)),  # one line of a plugin's source, without another version
        key(Scaled(2.0, shift=1.0)),
        key(Scaled(2.0), torch.ones(3)),
        key(Scaled(2.0), torch.ones(2, dtype=torch.bfloat16)),
        key(Scaled(2.0), maps),
        key(Scaled(2.0), maps.contiguous(memory_format=torch.channels_last)),
    ]
    for name in CAPABILITIES:
        monkeypatch.setenv(name, "AVX2")
        others.append(key(Scaled(2.0)))
        monkeypatch.delenv(name)
    for changed, value in {
        "torch.get_num_threads": lambda: 99,
        "torch.are_deterministic_algorithms_enabled": lambda: True,
        "torch.backends.cpu.get_cpu_capability": lambda: "another",
        "torch.__version__": "another",
        "benchkit.train.steps.kept_code._compiler_version": lambda: "another",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(changed, value)
            others.append(key(Scaled(2.0)))
    assert len({usual, *others}) == 1 + len(others)


def test_a_missing_compiler_or_header_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(compiler.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "g++" else None)
    monkeypatch.setattr(compiler.sys, "platform", "linux")
    monkeypatch.delenv("CXX", raising=False)
    assert compiler.compiler_found("cpu") == ("", "Python.h (on Debian: apt install python3-dev)")
    (tmp_path / "Python.h").touch()
    assert compiler.compiler_found("cpu") == ("g++", "")
    monkeypatch.setenv("CXX", "/nonexistent")
    assert compiler.compiler_found("cpu") == ("", "a C++ compiler (on Debian: apt install g++)")
