"""What is told of a device, where what PyTorch says is given."""

from __future__ import annotations

import importlib.metadata
import re
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from engine_runs import make_run, make_settings

from benchkit.errors import TrainingError
from benchkit.sweep.provenance import cublas, driver
from benchkit.train.device import has_bf16, has_fp16, peak_memory, resolve_device
from benchkit.train.fit import fit
from benchkit.train.step import precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False}, False)],
)
def test_a_processor_has_bf16_where_it_multiplies_it(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")  # here it may be another one
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not expected)
    assert has_bf16(torch.device("cpu")) is expected
    assert not has_bf16(torch.device("meta"))


@pytest.mark.parametrize(("major", "expected"), [(7, False), (8, True), (9, True)])
def test_a_gpu_is_asked_itself_whether_it_has_bf16(major: int, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one that happens to be current: `cuda:1` may lie beside an unlike card."""
    cards = {"cuda:0": SimpleNamespace(major=17 - major), "cuda:1": SimpleNamespace(major=major)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: cards[str(device)])
    assert has_bf16(torch.device("cuda:1")) is expected
    assert has_fp16(torch.device("cuda:1")) is not expected
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=6))
    assert not has_fp16(torch.device("cuda:0")) and not has_fp16(torch.device("cpu"))


def test_apple_s_gpu_is_there_where_pytorch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == "mps" and resolve_device("auto") != "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="--device mps: there is no such device here"):
        resolve_device("mps")


def test_apple_s_gpu_trains_in_float32_alone() -> None:
    assert not has_bf16(torch.device("mps"))
    assert precision("auto", torch.device("mps")).name == "float32"
    with pytest.raises(TrainingError, match="float32 alone"):
        precision("bf16", torch.device("mps"))


@pytest.mark.apple
@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an Apple GPU")
def test_a_run_on_apple_s_gpu_learns_and_says_how() -> None:
    run = make_run(make_settings(precision="auto"), device="mps")
    records = list(fit(run))
    assert records[-1].train_loss < records[0].train_loss and records[-1].peak_memory > 0
    assert run.notes == ["trained on Apple's GPU in float32, each step eagerly"]
    again = make_run(make_settings(precision="auto"), device="mps")
    assert [record.train_loss for record in fit(again)] == pytest.approx([one.train_loss for one in records], rel=1e-3)


def test_peak_memory_is_told_in_mebibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    kibibyte = 1024 if sys.platform == "darwin" else 1  # macOS counts bytes, Linux kibibytes
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3072 * kibibyte))
    assert peak_memory(torch.device("cpu")) == 3.0


@pytest.mark.parametrize(
    ("name", "dtype", "scales"),
    [("float32", None, False), ("bf16", torch.bfloat16, False), ("fp16", torch.float16, True)],
)
def test_only_fp16_scales_its_loss(name: str, dtype: torch.dtype | None, scales: bool) -> None:
    found = precision(name, torch.device("cpu"))
    assert found.name == name and (found.scaler is not None) is scales
    with found.autocast:
        assert torch.is_autocast_enabled("cpu") is (dtype is not None)
        assert dtype is None or torch.get_autocast_dtype("cpu") == dtype


def test_the_driver_is_recorded_with_cuda_and_cudnn() -> None:
    assert re.fullmatch(r"NVIDIA driver \S+, CUDA \S+, cuDNN \S+, cuBLAS \S+", driver())


def test_the_cublas_that_is_loaded_tells_its_version(tmp_path: Path) -> None:
    """That of the package it comes in, where PyTorch was installed with one; a process without it has none."""
    packages = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    installed = next((packages[name] for name in packages if name and re.match("nvidia.cublas", name)), "")
    assert installed.startswith(cublas()) and bool(cublas()) is bool(installed)
    other = tmp_path / "maps"
    other.write_text("7f00-7f01 r-xp 00000000 00:00 0 /nowhere/libcublas.so.13\n")
    assert cublas(other) == ""
