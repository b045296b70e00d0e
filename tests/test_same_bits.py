"""The comparison of two commits to the bit: its studies are valid and leave nothing open, its differences are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchkit.study.studyfile import parse_study

PEERS = Path(__file__).parent / "peers"


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))


def test_ten_studies_leave_nothing_to_the_machine() -> None:
    from same_bits import STUDIES

    assert len(STUDIES) == 10
    for name, text in STUDIES.items():
        parse_study(text, name=name)
        assert all(f"\n{setting} = " in text for setting in ("precision", "threads", "compile")), name
        assert 'precision = "auto"' not in text and 'compile = "auto"' not in text, name


def test_each_difference_of_a_trial_is_named(tmp_path: Path) -> None:
    from same_bits import differences, facts

    def trial(root: Path, loss: float, weight: float, seconds: float) -> tuple[str, dict[str, object]]:
        folder = root / "study" / "bn@0123456789ab" / "0001"
        folder.mkdir(parents=True)
        result = {"state": "done", "reason": "", "selected_epoch": 1, "metrics": {"test": {"accuracy": float("nan")}}}
        (folder / "result.json").write_text(json.dumps(result))
        record = {"epoch": 1, "train_loss": loss, "seconds": seconds, "peak_memory": seconds}
        (folder / "history.jsonl").write_text(json.dumps(record) + "\n")
        save_file({"w": torch.tensor([weight, 0.5])}, folder / "weights.safetensors")
        return facts(folder, root)

    old = trial(tmp_path / "old", 1.0, 0.25, seconds=1.0)
    assert old[0] == "0123456789ab/0001"
    assert differences(dict([old]), dict([trial(tmp_path / "same", 1.0, 0.25, seconds=2.0)])) == []
    new = trial(tmp_path / "new", 1.0 + 2**-52, 0.25 + 2**-24, seconds=1.0)
    loss, weights = differences(dict([old]), dict([new]))
    assert loss == "0123456789ab/0001 epoch 1: train_loss: 1.0 is now 1.0000000000000002"
    assert weights.startswith("0123456789ab/0001 weights.safetensors: ")
    assert differences(dict([old]), {}) == ["0123456789ab/0001 is in one of them alone"]
