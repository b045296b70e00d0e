"""What is told of a device, where what PyTorch says is given."""

from __future__ import annotations

import resource
import sys
from types import SimpleNamespace

import pytest
import torch

from benchkit.train.device import has_bf16, peak_memory
from benchkit.train.step import precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False}, False)],
)
def test_a_processor_has_bf16_where_it_multiplies_it(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not expected)
    assert has_bf16(torch.device("cpu")) is expected
    assert not has_bf16(torch.device("meta"))


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
