"""The seeds that a trial trains with are those that its capsule, its report and `benchkit verify` derive."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import tiny_study
import torch

import benchkit.sweep.training
from benchkit.study.seeds import trial_seeds
from benchkit.train.run import Run

MODEL = """
import torch
from torch import nn


def tells(num_classes, image_shape, norm, /):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
    model(torch.zeros(2, *image_shape))
    model.notes = (f"built with seed {torch.initial_seed()}",)
    return model


PLUGINS = {"models": {"tells": tells}}
"""


def by_hand(seed: int, repeat: str, index: int, purpose: str) -> int:
    """Return what `sha256sum` gives of the four joined by slashes: its first eight bytes, halved."""
    return int(hashlib.sha256(f"{seed}/{repeat}/{index}/{purpose}".encode()).hexdigest()[:16], 16) // 2


@pytest.mark.parametrize(
    ("phase", "repeat"), [("grid", "repeat"), ("confirm", "repeat"), ("search", "search"), ("probe", "probe")]
)
def test_seeds_are_named_by_repeat_and_purpose(phase: str, repeat: str) -> None:
    purposes = ("init", "order", "augment", "dropout")
    assert trial_seeds(3, phase, 2) == {purpose: by_hand(3, repeat, 2, purpose) for purpose in purposes}


def test_trials_train_with_the_seeds_of_their_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "tells.py"
    plugin.write_text(MODEL, encoding="utf-8")
    seen: list[tuple[int, ...]] = []

    def noted(run: Run) -> Any:
        built = next(int(note.rpartition(" ")[2]) for note in run.notes if note.startswith("built with seed"))
        with run.randomness.in_charge():
            dropout = torch.initial_seed()
        seen.append((built, run.randomness.order.initial_seed(), run.randomness.augment.initial_seed(), dropout))
        return fit(run)

    fit = benchkit.sweep.training.fit
    monkeypatch.setattr(benchkit.sweep.training, "fit", noted)
    search = tiny_study.SEARCH.replace("trials = 4", "trials = 1")
    text = tiny_study.text_of(search, epochs=1, repeats=2).replace('name = "mlp"\nhidden = [8]', 'name = "tells"')
    study = tiny_study.parse_study(text, name="tiny")
    states = tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(plugin,))
    purposes = ("init", "order", "augment", "dropout")
    expected = [
        tuple(by_hand(3, repeat, index, purpose) for purpose in purposes)
        for repeat, index in (("search", 0), ("repeat", 0), ("repeat", 1))
    ]
    assert states["done"] == len(seen) and set(seen) == set(expected)
