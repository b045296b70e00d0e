"""What a trial cost beyond seconds: time to its best epoch, use of the device's matrix rate, energy."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_runs import make_run, make_settings
from figure_results import cost as cost_of
from synthetic_results import complete

from benchkit.analysis.training import condition_costs
from benchkit.report.tables.result_tables import efficiency_table
from benchkit.results import Cost, EpochRecord, StudyResults
from benchkit.storage import decode, encode
from benchkit.train import cost as cost_module
from benchkit.train import device, fit
from benchkit.train.cost import cost


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count in other units")
def test_peak_memory_on_a_processor_is_the_largest_resident_set_in_mebibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 * 1024))  # Linux tells KiB
    assert device.peak_memory(torch.device("cpu")) == 3.0


def test_the_share_is_of_three_forward_passes() -> None:
    # 27 MFLOPs forward, three times that for training, 5,000 images/s: 405 GFLOP/s of 810.
    known = replace(cost_of(rate=5000.0), flops=27_000_000, matrix_rate=810e9)
    assert known.matrix_share == pytest.approx(0.5)
    assert cost_of().matrix_share == 0.0


def test_a_cost_of_an_earlier_version_is_read() -> None:
    old = {
        key: value
        for key, value in encode(cost_of()).items()
        if key not in ("best_seconds", "energy", "matrix_rate", "bookkeeping")
    }
    assert decode(Cost, json.loads(json.dumps(old))) == cost_of()


def test_time_to_best_and_energy_add_up_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([100.0, 130.0, 130.0, 150.0, 150.0, 200.0])
    monkeypatch.setattr(fit, "joules", lambda device: next(used))
    monkeypatch.setattr(
        cost_module, "known_matrix_rate", lambda device, name, precision, busy, reached: 0.0 if busy else 1e12
    )
    run = make_run(make_settings(epochs=3))
    list(fit.fit(run))
    run.history = [replace(record, seconds=float(record.epoch)) for record in run.history]
    run.best.epoch = 2
    found = cost(run)
    assert (found.best_seconds, found.energy, found.matrix_rate) == (3.0, 100.0, 1e12)
    assert [record.energy for record in run.history] == [30.0, 20.0, 50.0]
    run.shares_device = True
    assert cost(run).matrix_rate == 0.0
    run.best.epoch = 0
    assert cost(run).best_seconds == 6.0


class NoNvml(Exception):
    pass


def nvml(monkeypatch: pytest.MonkeyPatch, read: Any) -> None:
    """Put a card with NVML in place: `read` returns millijoules or raises."""
    library = SimpleNamespace(
        NVMLError=NoNvml,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=read,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
    device._card.cache_clear()


def test_energy_is_that_of_the_card_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, lambda handle: 7250 if handle == "GPU-1-2" else 0)
    assert device.joules(torch.device("cuda:0")) == 7.25
    assert device.joules(torch.device("cpu")) == 0.0


def test_a_card_that_does_not_tell_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: str) -> int:
        raise NoNvml("not supported")

    nvml(monkeypatch, refuse)
    assert device.joules(torch.device("cuda:1")) == 0.0
    device._card.cache_clear()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert device.joules(torch.device("cuda:1")) == 0.0


@pytest.fixture(autouse=True)
def forget_cards() -> Any:
    yield
    device._card.cache_clear()


def with_costs(results: StudyResults, **more: float) -> StudyResults:
    def changed(trial: Any) -> Any:
        if not trial.outcome or not trial.outcome.cost:
            return trial
        return replace(trial, outcome=replace(trial.outcome, cost=replace(trial.outcome.cost, **more)))

    return replace(results, trials=tuple(changed(trial) for trial in results.trials))


def test_the_report_shows_what_is_known(tmp_path: Path) -> None:
    results = complete(tmp_path)
    assert efficiency_table(condition_costs(results)) is None
    table = efficiency_table(condition_costs(with_costs(results, best_seconds=12.0)))
    assert table is not None and [column.key for column in table.columns] == ["condition", "best_seconds"]
    table = efficiency_table(condition_costs(with_costs(results, energy=5000.0, matrix_rate=1e12)))
    assert table is not None and [column.key for column in table.columns] == ["condition", "matrix_share", "energy"]
    assert table.rows[0][2].text == "5,000"


def test_epoch_records_of_earlier_versions_are_read() -> None:
    fields = {name: 1.0 for name in EpochRecord.__dataclass_fields__ if name not in ("energy", "observed")}
    assert EpochRecord(**fields).energy == 0.0  # type: ignore[arg-type]
