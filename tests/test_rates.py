"""The rates of a device, from a clock that the tests wind."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from engine_runs import make_run, make_settings

from benchkit.train import rates
from benchkit.train.evaluate import finish
from benchkit.train.fit import fit

CPU = torch.device("cpu")


def test_the_matrix_rate_counts_two_operations_for_each_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {256: 0.001, 512: 0.004, 1024: 0.04}
    sides: list[int] = []

    def quickest(action: object, device: torch.device, limit: float) -> float:
        sides.append(256 * 2 ** len(sides))
        return seconds[sides[-1]]

    monkeypatch.setattr(rates, "_quickest", quickest)
    assert rates.matrix_rate(CPU, torch.float32, seconds=60.0) == pytest.approx(2 * 512**3 / 0.004)
    assert sides == [256, 512, 1024]


def test_the_quickest_call_after_a_warm_up_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.chain.from_iterable((start, start + length) for start, length in ((0, 3), (10, 2), (20, 4)))
    monkeypatch.setattr(rates, "now", lambda device: next(ticks))
    calls: list[int] = []
    assert rates._quickest(lambda: calls.append(1), CPU, 8) == 2
    assert len(calls) == 4


def test_a_rate_is_measured_once_and_again_when_the_cache_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path))
    measured: list[torch.dtype] = []

    def rate(device: torch.device, dtype: torch.dtype) -> float:
        measured.append(dtype)
        return 5e9

    monkeypatch.setattr(rates, "matrix_rate", rate)
    assert [rates.known_matrix_rate(CPU, "cpu, 1 thread", name) for name in ("bf16", "bf16", "float32")] == [5e9] * 3
    assert measured == [torch.bfloat16, torch.float32]
    assert rates.known_matrix_rate(CPU, "cpu, 1 thread", "bf16", busy=True) == 5e9
    assert rates.known_matrix_rate(CPU, "cpu, 2 threads", "bf16", busy=True) == 0.0
    for file in tmp_path.iterdir():
        file.write_text('{"rate": "fast"}')
    assert rates.known_matrix_rate(CPU, "cpu, 1 thread", "bf16") == 5e9
    assert len(measured) == 3


def test_a_rate_that_training_exceeds_is_measured_again_and_the_larger_one_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first trial may have shared the device with somebody else's job."""
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path))
    found = iter([5e9, 9e9, 7e9, 8e9])
    monkeypatch.setattr(rates, "matrix_rate", lambda device, dtype: next(found))

    def known(reached: float, *, busy: bool = False) -> float:
        return rates.known_matrix_rate(CPU, "card", "bf16", reached=reached, busy=busy)

    assert [known(4e9), known(4.9e9), known(6e9, busy=True), known(6e9)] == [5e9, 5e9, 5e9, 9e9]
    assert known(1e10) == 9e9, "a lower rate is not taken"
    assert known(1e10) == 9e9, "what was measured again for as much is not measured for it once more"
    assert next(found) == 8e9


def test_a_measurement_without_room_loses_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path))

    def full(device: torch.device, dtype: torch.dtype) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 256.00 MiB")

    monkeypatch.setattr(rates, "matrix_rate", full)
    run = make_run(make_settings(epochs=1))
    list(fit(run))
    assert finish(run).cost.matrix_rate == 0.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_of_many_different_numbers_are_multiplied(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, torch.dtype]] = []
    multiply = torch.mm

    def watched(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        seen.append((min(len(a.unique()), len(b.unique())), a.dtype))
        return multiply(a, b, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    rates.matrix_rate(CPU, dtype, seconds=0.001)
    assert seen and all(different > 500 and used == dtype for different, used in seen)


def test_float32_products_on_cuda_round_as_convolutions_do() -> None:
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    with rates.rounding_of_convolutions(torch.device("cuda")):
        assert products.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "tf32"
    with rates.rounding_of_convolutions(CPU):
        assert products.fp32_precision == before
    assert products.fp32_precision == before


def test_real_rates_are_positive() -> None:
    assert rates.matrix_rate(CPU, torch.float32, seconds=0.01) > 1e6
    assert rates.copy_rate(CPU, seconds=0.01) > 1e6
