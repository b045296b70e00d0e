"""What is told of a device, where what PyTorch says is given."""

from __future__ import annotations

import pytest
import torch

from benchkit.train.device import has_bf16, is_usable


def test_a_gpu_that_refuses_to_synchronise_is_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: str) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    assert not is_usable("cuda:0") and is_usable("cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    assert is_usable("cuda:0")


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
