"""The figures of a finished model and of its data: layers, surest images, the data sheet: numbers by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchkit_figures.classes.data_sheet import DataSheet
from benchkit_figures.network.layers import Layers
from benchkit_figures.network.surest_images import SurestImages
from figure_checks import drawn
from figure_results import condition, metrics, results, trial
from safetensors.numpy import save_file
from torch import nn

from benchkit import ImageGrid, NothingToDraw, PluginError
from benchkit.results import Outcome, StudyResults

LABELS = np.array([0, 0, 1, 1, 2, 2])
ORIGINALS = np.arange(6 * 8 * 8 * 3, dtype=np.int64).reshape(6, 8, 8, 3).astype(np.uint8)


def inspected(folder: Path, figure: str, arrays: Mapping[str, Mapping[str, Any]], **counts: Any) -> StudyResults:
    """Return results whose first repeats keep these arrays; `counts` are confusions by split."""
    trials = []
    for place, (label, found) in enumerate(arrays.items()):
        own = folder / label
        own.mkdir(parents=True)
        if found:
            save_file({"images": ORIGINALS, "labels": LABELS, **found}, own / f"inspected-{figure}.safetensors")
        scores: Any = {split: metrics(0.9 - 0.1 * place, 0.5, counts[split]) for split in counts}
        scores = scores or {"test": metrics(0.9 - 0.1 * place)}
        trials.append(replace(trial(condition(label), outcome=Outcome(state="done", metrics=scores)), folder=own))
    given = results([condition(label) for label in arrays], trials, classes=3)
    return replace(given, class_names=("cat", "dog", "owl"))


# --- layers ----------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.stem(self.stem(images)[:, :3]) * self.scale
        result: torch.Tensor = self.head(maps.mean((2, 3)))
        return result


def test_layers_count_parameters_and_operations_by_hand(tmp_path: Path) -> None:
    found = Layers().inspect(Small().eval(), torch.zeros(5, 3, 6, 6), torch.zeros(5))
    assert {key.split(".", 2)[2]: values.tolist() for key, values in found.items()} == {
        # The convolution runs twice: 2 passes x 36 pixels x 4 filters x 27 products x 2.
        "Conv2d.stem.0": [108, 2 * 36 * 4 * 27 * 2, 4, 6, 6],
        "BatchNorm2d.stem.1": [8, 0, 4, 6, 6],
        "ReLU.stem.2": [0, 0, 4, 6, 6],
        "Linear.head": [10, 2 * 4 * 2, 2],
        "Small.": [4, 0, 2],
    }
    given = inspected(tmp_path, "layers", {"bn": found, "gn": found})
    figure = Layers()
    data = figure.data(given)
    assert [(row.layer, row.kind, row.shape) for row in data.layers] == [
        ("stem.0", "Conv2d", "4 \N{MULTIPLICATION SIGN} 6 \N{MULTIPLICATION SIGN} 6"),
        ("stem.1", "BatchNorm2d", "4 \N{MULTIPLICATION SIGN} 6 \N{MULTIPLICATION SIGN} 6"),
        ("head", "Linear", "2"),
        ("", "Small", "2"),
    ]
    assert data.rows == data.layers
    assert figure.alt_text(data) == (
        "The network of bn has 130 parameters and 0.0156 MFLOPs an image; most of its parameters in one layer, 108, "
        "are in stem.0."
    )
    assert "of bn, one of 2 conditions" in figure.caption(data)
    drawn(figure, given)
    with pytest.raises(PluginError, match="expected one of bn, gn"):
        Layers(condition="ln").data(given)
    with pytest.raises(NothingToDraw, match=r"report\.figures"):
        figure.data(inspected(tmp_path / "none", "layers", {"bn": {}}))


def test_many_layers_are_grouped_by_their_names(tmp_path: Path) -> None:
    arrays = {f"layer.{place:04d}.Conv2d.stage{place // 10}.{place % 10}.conv": np.array([9, 2, 4, 6, 6])
              for place in range(60)}  # fmt: skip
    given = inspected(tmp_path, "layers", {"bn": arrays})
    data = Layers().data(given)
    assert len(data.layers) == 60
    assert [(row.layer, row.kind, row.parameters, row.flops) for row in data.rows] == [
        (f"stage{stage}", "10 layers", 90, 20) for stage in range(6)
    ]
    assert "60 layers in 6 groups" in Layers().caption(data)
    drawn(Layers(), given)


# --- surest images ---------------------------------------------------------------------------------------------------


def test_surest_images_are_of_the_best_condition_wrong_ones_first(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    images = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).reshape(2, 2, 1, 1)
    found = SurestImages().inspect(model, images, torch.tensor([0, 0]))
    assert found["predicted"].tolist() == [0, 1]
    # softmax(2, 0) = 1 / (1 + e^-2) = 0.880797, softmax(1, 0) = 0.731059.
    assert found["probability"].tolist() == pytest.approx([0.880797, 0.731059], abs=1e-6)

    best = {"predicted": np.array([0, 1, 1, 2, 2, 0]), "probability": np.array([0.5, 0.6, 0.7, 0.95, 0.99, 0.8])}
    worse = {"predicted": np.array([0, 0, 0, 0, 0, 0]), "probability": np.full(6, 0.4)}
    figure = SurestImages()
    given = inspected(tmp_path, "surest-images", {"bn": best, "gn": worse, "ln": {}})
    data = figure.data(given)
    assert [(image.place, image.true, image.predicted, image.right) for image in data.images] == [
        (3, "dog", "owl", False),
        (5, "owl", "cat", False),
        (1, "cat", "dog", False),
        (4, "owl", "owl", True),
        (2, "dog", "dog", True),
        (0, "cat", "cat", True),
    ]
    assert (data.condition, data.inspected, data.wrong, data.sure_and_wrong) == ("bn", 6, 3, 1)
    assert figure.alt_text(data) == (
        "The surest error of bn: a test image of dog is called owl with a probability of 95 %."
    )
    grid = figure.draw(data)
    assert isinstance(grid, ImageGrid) and [words for words, _ in grid.rows] == ["wrong", "right"]
    assert all(len(pictures) == 6 for _, pictures in grid.rows)
    assert SurestImages(condition="gn").data(given).condition == "gn"


def test_a_network_without_errors_shows_right_images_alone(tmp_path: Path) -> None:
    right = {"predicted": LABELS, "probability": np.full(6, 0.9)}
    data = SurestImages().data(inspected(tmp_path, "surest-images", {"bn": right}))
    assert [words for words, _ in SurestImages().draw(data).rows] == ["right"]
    assert SurestImages().alt_text(data) == "bn names all 6 inspected test images rightly."


# --- the data sheet --------------------------------------------------------------------------------------------------

UNEVEN = {"val": ((3, 1, 0), (0, 2, 0), (0, 0, 2)), "test": ((9, 1, 0), (0, 5, 0), (1, 0, 4))}


def test_the_data_sheet_counts_classes_and_splits(tmp_path: Path) -> None:
    figure = DataSheet(samples=1)
    seen = figure.inspect(nn.Identity(), torch.zeros(6, 3, 8, 8), torch.from_numpy(LABELS))
    given = inspected(tmp_path, "data-sheet", {"bn": seen}, **UNEVEN)
    data = figure.data(given)
    assert [(row.name, row.train, row.val, row.test, len(row.pictures)) for row in data.shown] == [
        ("cat", None, 4, 10, 1),
        ("dog", None, 2, 5, 1),
        ("owl", None, 2, 5, 1),
    ]
    assert (data.images, data.least, data.most) == ((("val", 8), ("test", 20)), ("dog", 7), ("cat", 14))
    assert "8 validation, 20 test images. The smallest class is dog (7), the largest cat (14)." in figure.caption(data)
    grid = figure.draw(data)
    assert isinstance(grid, ImageGrid) and grid.rows[0][0] == "cat: 4 validation, 10 test"
    assert figure.alt_text(data) == "28 images of 3 classes; the smallest class has 7 (dog), the largest 14 (cat)."


def test_without_samples_uneven_classes_are_bars_and_even_ones_take_no_room(tmp_path: Path) -> None:
    spec = drawn(DataSheet(), inspected(tmp_path, "data-sheet", {"bn": {}}, **UNEVEN))
    rows = [row for rows in spec["datasets"].values() for row in rows]
    assert sum(row["images"] for row in rows) == 28
    even = ((9, 1, 0), (0, 10, 0), (0, 0, 10))
    with pytest.raises(NothingToDraw, match="about 10 images"):
        DataSheet().data(inspected(tmp_path / "even", "data-sheet", {"bn": {}}, test=even))


def test_conditions_on_other_images_are_named(tmp_path: Path) -> None:
    given = inspected(tmp_path, "data-sheet", {"bn": {}, "gn": {}}, **UNEVEN)
    other = Outcome(state="done", metrics={"test": metrics(0.5, 0.5, ((1, 0, 0), (0, 1, 0), (0, 0, 1)))})
    trials = (given.trials[0], replace(given.trials[1], outcome=other))
    data = DataSheet().data(replace(given, trials=trials))
    assert data.differ == ("gn",) and "Other images have: gn." in DataSheet().caption(data)
