"""A workspace that commit a6d0f5e left in mid-sweep: reported with its numbers, continued as it would have been there.

`fixtures/workspace-a6d0f5e` holds it as it was when the sweep was killed: finished and diverged trials, one with a
checkpoint after its first epoch, others waiting. `expected.json` is what that commit itself then reported and trained.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import run_here

from benchkit.train.processor import processor

FIXTURE = Path(__file__).parent / "fixtures" / "workspace-a6d0f5e"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
UNEQUAL = {"seconds", "images_per_second", "peak_memory", "energy", "device", "node"}


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(FIXTURE / "workspace.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "workspace").rename(folder / "benchkit-runs")
    shutil.copy(FIXTURE / "continued.toml", folder)
    yield folder


def differences(expected: Any, got: Any, where: str = "") -> list[str]:
    """List where `got` lacks or changes something of `expected`; what `got` has beyond it is no difference."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return [
            line for key in expected for line in differences(expected[key], got.get(key, "absent"), f"{where}.{key}")
        ]
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        return [
            line
            for at, pair in enumerate(zip(expected, got, strict=True))
            for line in differences(*pair, f"{where}[{at}]")
        ]
    same = expected == got or (
        isinstance(expected, float) and isinstance(got, float) and got == pytest.approx(expected, rel=1e-9, nan_ok=True)
    )
    return [] if same else [f"{where}: {got!r}, expected {expected!r}"]


def test_differences_are_noticed() -> None:
    assert differences({"a": [1, {"b": 0.5}]}, {"a": [1, {"b": 0.5}], "c": 2}) == []
    assert differences({"a": [1, {"b": 0.5}]}, {"a": [1, {"b": 0.50001}]}) == [".a[1].b: 0.50001, expected 0.5"]
    assert len(differences({"a": 1, "b": [1, 2]}, {"b": [1]})) == 2


def test_is_reported_with_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(older, older.parent / "reported")
    folder = older.parent / "reported"
    assert run_here(monkeypatch, folder, "report", "continued", "--format", "json", "--out", "out") == 0
    results = json.loads((folder / "out" / "continued" / "results.json").read_text())
    got = {"conditions": results["conditions"], **results["numbers"]}
    assert not differences(EXPECTED["reported"], got)


def trained_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each trial of a workspace left, by its condition's key and its number."""
    trials = {}
    for result in sorted((folder / "benchkit-runs" / "trials" / "continued").glob("*/*/result.json")):
        left = json.loads(result.read_text())
        lines = (result.parent / "history.jsonl").read_text().splitlines()
        records = [{key: value for key, value in json.loads(line).items() if key not in UNEQUAL} for line in lines]
        key = result.parents[1].name.rpartition("@")[2]
        trials[f"{key}/{int(result.parent.name)}"] = {
            **{name: left.get(name) for name in ("state", "selected_epoch", "metrics")},
            "history": records,
        }
    return trials


def first_losses(trial: dict[str, Any]) -> list[float]:
    """Return the training loss of a trial's first epoch; empty when the trial ended within it or blew up."""
    return [record["train_loss"] for record in trial["history"][:1] if record["train_loss"] < 10]


def test_goes_on_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained_in(older)
    assert run_here(monkeypatch, older, "sweep", "continued.toml", "--jobs", "1") == 1, "some diverge"
    trials = trained_in(older)
    same = EXPECTED["processor"] == f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"
    print(f"compared {'to the bit' if same else 'by settings, counts and the first epoch'}")
    assert len(before) < len(trials)
    assert trials.keys() == EXPECTED["trials"].keys()
    if same:
        assert not differences(EXPECTED["trials"], trials)
    for key in trials.keys() - before.keys():
        assert first_losses(trials[key]) == pytest.approx(first_losses(EXPECTED["trials"][key]), rel=1e-3)
