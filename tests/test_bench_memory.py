"""The benchmark of images beyond memory: what it counts as wrong, and a small run of each part."""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from benchkit import Batch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read where Linux tells of it")


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "peers"))
    import bench_memory

    monkeypatch.setattr(bench_memory, "limited", lambda room: nullcontext(True))


def test_an_image_of_another_number_or_label_or_with_another_pixel_is_wrong() -> None:
    from bench_memory import Checked, pattern

    numbers = np.array([3, 12, 19, 20])
    images = torch.from_numpy(pattern(numbers, 16)).permute(0, 3, 1, 2).to(torch.float32) / 255
    targets = torch.eye(10)[torch.tensor([3, 2, 8, 0])]  # 19 has the label 9
    images[0, 1, 15, 7] = 1 - images[0, 1, 15, 7]
    checked = Checked(torch.zeros(20, dtype=torch.int64))  # 20 is none of the set's
    batch = Batch(images=images, targets=targets)
    assert checked.augment(batch, torch.Generator()) is batch
    assert checked.wrong == ["number 3", "number 19", "number 20"]
    assert checked.seen.nonzero().flatten().tolist() == [12]


def test_training_takes_turns_and_looks_at_each_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import bench_memory

    options = Namespace(
        size="1.2MB", first="500kB", steps=6, turn=2, batch_size=8, side=16, threads=1, memory="1GB", folder=tmp_path
    )
    found = bench_memory.training(options)
    assert found["images"] == 1_200_000 // 768 and found["wrong"] == {"first": 0, "whole": 0}
    assert found["shown"] == {"first": 64, "whole": 64} == found["different"]  # the turns that warm up, too
    assert [len(turns) for turns in found["turns"].values()] == [3, 3] and found["beside"] > 0
    assert found["peak"]["own"] > 50 and not list(tmp_path.iterdir())
    assert "median of 3 turns of 2 steps each" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"1\.2 MB of images are no more than --first 2MB"):
        bench_memory.training(Namespace(**{**vars(options), "first": "2MB"}))


def test_photographs_are_drawn_linked_and_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import bench_memory

    options = Namespace(photographs=40, drawn=20, side=32, memory="1GB", folder=tmp_path)
    found = bench_memory.decoding(options)
    assert found["bytes"] == 40 * 32 * 32 * 3 and found["computed"] > 0
    assert "40 photographs, 20 of them different" in capsys.readouterr().out
