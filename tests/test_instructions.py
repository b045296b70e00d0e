"""Processors of other kinds, for which this one stands in: what each takes by default."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchkit.train import device
from benchkit.train.compiler import CAPABILITIES
from benchkit.train.steps.kept_code import code_key

STANDS_IN = {
    "avx2": ("avx2", "AVX2", "AVX2"),
    "x86": ("default", "SSE41", "SSE4_2"),
}
"""What each of the variables says that keep PyTorch, oneDNN and MKL from newer instructions, by the kind."""

ASKING = """
import torch
from benchkit.sweep.work import seat_of
from benchkit.train.steps.kept_code import code_key

torch.set_num_threads({threads})
seat = seat_of("cpu")
key = code_key(torch.fx.symbolic_trace(torch.nn.ReLU()), [torch.ones(2)])
print(seat.instructions, seat.precision, seat.bf16, key)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="stands in for x86 processors")
@pytest.mark.parametrize("kind", ["avx2", pytest.param("x86", marks=pytest.mark.slow)])
def test_a_lesser_processor_trains_in_float32_with_code_of_its_own(kind: str) -> None:
    """Stands in by environment variables, which say nothing of speed; MKL obeys its own on Intel's processors alone."""
    environment = {**os.environ, **dict(zip(CAPABILITIES, STANDS_IN[kind], strict=True))}
    command = [sys.executable, "-c", ASKING.format(threads=torch.get_num_threads())]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *found, key = answer.stdout.split()
    assert found == [kind, "float32", "False"]
    assert key != code_key(torch.fx.symbolic_trace(torch.nn.ReLU()), [torch.ones(2)])


@pytest.mark.parametrize(
    ("machine", "capability", "bf16", "kind"),
    [
        ("x86_64", "AVX512", True, "avx512-bf16"),
        ("x86_64", "AVX512", False, "avx512"),
        ("AMD64", "AVX2", True, "avx2"),
        ("x86_64", "DEFAULT", False, "x86"),
        ("arm64", "DEFAULT", False, "arm"),
        ("aarch64", "SVE256", False, "arm"),
        ("riscv64", "DEFAULT", False, "riscv64"),
    ],
)
def test_kinds_of_processors(
    machine: str, capability: str, bf16: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16, "amx_bf16": False}, raising=False)
    assert device.instructions() == kind
    assert device.has_bf16(torch.device("cpu")) == (kind == "avx512-bf16")


def test_the_docs_have_a_row_for_each_kind() -> None:
    page = (Path(__file__).parent.parent / "docs" / "speed.md").read_text(encoding="utf-8")
    for kind in ("avx512-bf16", "avx512", "avx2", "x86", "arm"):
        assert f"\n| `{kind}` |" in page
