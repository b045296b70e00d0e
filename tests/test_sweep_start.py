"""When a sweep's workers start: they import what they need while the data are still prepared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_pages import until
from tiny_study import DATA, FACTOR, InlinePool, Listener, study_of

import benchkit.sweep.orchestration as orchestration
from benchkit.errors import DataError, LedgerError
from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.sweep import worker
from benchkit.sweep.devices import CPU, Device, Devices
from benchkit.sweep.orchestration import Request, sweep

GPUS = tuple(Device(kind="cuda", number=number, uuid=f"GPU-{number}", name="small") for number in (0, 1))


def calls_of(monkeypatch: pytest.MonkeyPatch, request: Request, used: tuple[Device, ...] = (CPU,)) -> list[str]:
    """Return what a sweep does, in order, up to the first job that it hands out."""
    calls: list[str] = []

    class NotingPool(InlinePool):
        def start(self) -> None:
            calls.append("start")

        def give(self, *job: Any) -> None:
            calls.append("give")
            super().give(*job)

        def __exit__(self, *error: Any) -> None:
            calls.append("end")

    prepare = orchestration.prepare

    def noting(*given: Any) -> dict[str, Any]:
        calls.append("prepare")
        return prepare(*given)

    def timed(*given: Any) -> int:
        calls.append("time")
        return 2

    with monkeypatch.context() as patched:
        for name, value in {"Pool": NotingPool, "prepare": noting, "trials_at_once": timed}.items():
            patched.setattr(orchestration, name, value)
        patched.setattr(orchestration, "devices_of", lambda request: Devices(used=used))
        sweep(request, Registry.installed(), Listener())
    return calls[: calls.index("give") + 1] if "give" in calls else calls


def request_of(folder: Path, **more: Any) -> Request:
    return Request(study=study_of(FACTOR, epochs=1, repeats=1), workspace=folder, data_root=DATA, **more)


def test_workers_start_before_the_data_are_prepared_and_have_jobs_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(tmp_path, jobs=2)
    assert calls_of(monkeypatch, request) == ["start", "prepare", "give"]
    assert calls_of(monkeypatch, request) == ["prepare", "end"], "nothing is missing, and nobody starts"


def test_workers_whose_number_hangs_on_the_data_start_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs are timed with the data, and interim analyses may ask for more trials than these workers."""
    timed = calls_of(monkeypatch, request_of(tmp_path / "gpu"), GPUS)
    assert timed == ["prepare", "time", "start", "give"]
    assert calls_of(monkeypatch, request_of(tmp_path / "asked", jobs=2), GPUS) == ["start", "prepare", "give"]
    adding = {"until_decided": True, "most": 3}
    assert calls_of(monkeypatch, request_of(tmp_path / "few", jobs=2, **adding)) == ["prepare", "start", "give"]
    assert calls_of(monkeypatch, request_of(tmp_path / "many", jobs=1, **adding)) == ["start", "prepare", "give"]


def test_data_that_cannot_be_prepared_end_the_workers_that_start_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "started"
    code = f"import os, sys, time; open({str(told)!r}, 'a').write(f'{{os.getpid()}}\\n'); sys.stdin.read(1)"
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", code))

    begun: list[psutil.Process] = []

    def fails(*given: Any) -> dict[str, Any]:
        until(lambda: told.exists() and told.read_text().count("\n") == 2)
        begun.extend(map(psutil.Process, map(int, told.read_text().split())))
        raise DataError("the disk is full")

    monkeypatch.setattr(orchestration, "prepare", fails)
    request = request_of(tmp_path / "runs", jobs=2, device="cpu")
    with pytest.raises(DataError, match="the disk is full"):
        sweep(request, Registry.installed(), Listener())
    assert len(begun) == 2 and not any(process.is_running() for process in begun)
    assert Ledger(request.workspace).missing(make_plan(request.study)) == 2


def test_a_sweep_begins_by_telling_combinations_that_have_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Listener, "say", lambda self, words: said.append(words))
    levels = '{ label = "a", set = {} }, { label = "b", set = { "train.optimizer.lr" = 0.1 } }'
    study = study_of(f"[factors]\nrecipe = [{levels}]\n", epochs=1, repeats=1)
    with pytest.raises(LedgerError):
        sweep(Request(study=study, workspace=Path("/dev/null"), data_root=DATA), Registry.installed(), Listener())
    assert said == [
        "warning: combinations of levels with the settings of an earlier one are no conditions: 'b' those of 'a'"
    ]
