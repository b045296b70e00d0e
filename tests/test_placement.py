"""Images that stay where they are from one trial to the next."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import learnt, make_settings, make_splits, small_net
from tiny_study import FACTOR, all_facts, study_of, sweep_here
from torch import nn

from benchkit.ledger import read_results
from benchkit.protocols import Splits
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import Settings
from benchkit.sweep import training
from benchkit.train.fit import fit
from benchkit.train.placement import Images, images_for
from benchkit.train.run import Plugins, build_run

CPU = torch.device("cpu")
SIZES = """
[factors]
"data.train_size" = [40, 60]
"""


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a sweep in this process note how many images to train on it has placed, each time."""
    placed = []

    def noted(settings: Settings, splits: Splits, device: torch.device, limit: int | None, repeat: int) -> Images:
        images = images_for(settings, splits, device, limit, repeat)
        placed.append(len(images.train))
        return images

    monkeypatch.setattr(training, "images_for", noted)
    return placed


def test_a_sweeps_trials_have_their_images_placed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, placed = study_of(FACTOR, repeats=2), counted(monkeypatch)
    sweep_here(monkeypatch, tmp_path / "kept", study)
    assert len(placed) == 1
    monkeypatch.setattr(Images, "serve", lambda *asked: False)
    sweep_here(monkeypatch, tmp_path / "anew", study)
    kept, anew = read_results(tmp_path / "kept"), read_results(tmp_path / "anew")
    assert len(placed) == 1 + len(anew.trials) and len(anew.trials) >= 4
    assert all_facts(kept) == all_facts(anew)


def test_trials_share_their_data_and_each_has_a_network_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set is opened once to try the networks and once to train; initial weights hang on the repeat."""
    calls, placed = Counter[str](), counted(monkeypatch)

    def count(name: str, place: str) -> None:
        original = import_module(place.rpartition(".")[0]).__dict__[place.rpartition(".")[2]]

        def noted(*given: Any) -> Any:
            calls[name] += 1
            return original(*given)

        monkeypatch.setattr(place, noted)

    count("opened", "benchkit.sweep.training.load_data")
    count("networks", "benchkit.sweep.network_check.build_model")
    count("networks", "benchkit.train.run.build_model")
    assert sweep_here(monkeypatch, tmp_path / "one", study_of(repeats=3)) == {"done": 3}
    assert (calls, placed) == ({"opened": 2, "networks": 1 + 3}, [placed[0]])
    assert sweep_here(monkeypatch, tmp_path / "two", study_of('[factors]\n"model.norm" = ["bn", "none"]\n')) == {
        "done": 4
    }
    assert (calls, len(placed)) == ({"opened": 4, "networks": 1 + 3 + 2 + 4}, 2)


def test_trials_with_other_images_get_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = counted(monkeypatch)
    assert sweep_here(monkeypatch, tmp_path, study_of(SIZES, repeats=2)) == {"done": 4}
    assert placed == [40, 60, 40, 60]  # repeats take turns


def test_images_serve_the_same_data_seed_and_place_only() -> None:
    settings, splits = make_settings(), make_splits()
    images = images_for(settings, splits, CPU)
    assert images.serve(make_settings(epochs=9), splits, CPU, None)
    assert not images.serve(settings, make_splits(), CPU, None)
    assert not images.serve(make_settings({"train_size": 40}), splits, CPU, None)
    assert not images.serve(make_settings({"normalize": False}), splits, CPU, None)
    assert not images.serve(make_settings(seed=6), splits, CPU, None)
    assert not images.serve(settings, splits, torch.device("cuda"), None)
    assert not images.serve(settings, splits, CPU, 1000)


@pytest.mark.parametrize("normalize", [True, False])
def test_runs_on_kept_images_learn_the_same(normalize: bool) -> None:
    settings, splits = make_settings({"normalize": normalize}), make_splits()
    images = images_for(settings, splits, CPU)
    assert (images.statistics is not None) == normalize
    plugins = Plugins(model=small_net, norm=nn.BatchNorm2d)
    for repeat in range(2):
        kept, own = (
            build_run(
                settings, splits, plugins, seeds=trial_seeds(settings.seed, "kept", repeat), device="cpu", images=one
            )
            for one in (images, None)
        )
        assert kept.train.images is images.train and own.train.images is not images.train
        assert [learnt(record) for record in fit(kept)] == [learnt(record) for record in fit(own)]
