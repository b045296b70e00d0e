"""What the figures take from models: against plain forward passes, autograd and numbers by hand."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchkit_figures.network.activation_maps import ActivationMaps
from benchkit_figures.network.grad_cam import GradCam
from benchkit_figures.network.layer_outputs import last_maps
from benchkit_figures.network.saliency import heat_maps
from benchkit_figures.network.thumbnails import heated, mosaic, with_words
from benchkit_figures.training.feature_quantiles import FeatureQuantiles
from benchkit_figures.training.norm_gates import NormGates
from benchkit_figures.training.norm_health import NormHealth
from benchkit_norms.batch_instance import BatchInstanceNorm
from figure_checks import assert_plain
from figure_results import condition, metrics, results, trial
from PIL import Image
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional

from benchkit import ImageGrid, NothingToDraw, PluginError
from benchkit.results import Outcome, StudyResults

LABELS = np.array([0, 0, 1, 1, 2, 2], dtype=np.int64)


def test_words_below_a_picture_have_the_letters_of_other_languages() -> None:
    blank = np.full((8, 40, 3), 255, np.uint8)
    letters = [with_words(blank, letter) for letter in "uüßβµé"]
    assert not any(np.array_equal(one, other) for n, one in enumerate(letters) for other in letters[:n])


class Small(nn.Module):
    """Two convolutions, the second without a nonlinearity module of its own, pooling and a classifier."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, inplace: bool = True) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm(4), nn.ReLU(inplace=inplace))
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.norm = norm(6)
        self.classifier = nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = functional.relu(self.norm(self.second(self.first(images))), inplace=True)
        logits: torch.Tensor = self.classifier(maps.mean(dim=(2, 3)))
        return logits


def perceptron() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.ReLU(), nn.Linear(10, 3)).eval()


def small(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> Small:
    torch.manual_seed(1)
    model = Small(norm)
    with torch.no_grad():  # running statistics other than 0 and 1
        model.train()
        model(3 * pixels(32) + 1)
    return model.eval()


def pixels(count: int = 6, side: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# --- observe ---------------------------------------------------------------------------------------------------------


def test_quantiles_are_those_of_the_features_before_the_classifier() -> None:
    model, images = small(), pixels()
    with torch.no_grad():
        maps = torch.relu(model.norm(model.second(model.first(images))))
    features = maps.mean(dim=(2, 3)).numpy().astype(np.float64)
    expected = np.quantile(features[0], [0.01, 0.2, 0.8, 0.99])
    found = FeatureQuantiles().observe(model, images)
    assert list(found) == ["q01", "q20", "q80", "q99"]
    assert list(found.values()) == pytest.approx(expected, rel=1e-6)
    three = FeatureQuantiles(images=3).observe(model, images)
    assert three["q80"] == pytest.approx(np.quantile(features[:3], 0.8), rel=1e-6)


def test_the_classifier_is_the_linear_layer_that_runs_last_or_the_one_the_model_names() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(2, 3)
            self.hidden = nn.Linear(192, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.classifier(self.hidden(images.flatten(1)))
            return logits

    class Named(Backwards):
        def get_classifier(self) -> nn.Module:
            return self.hidden

    torch.manual_seed(0)
    model, images = Backwards(), pixels(1)
    features = model.hidden(images.flatten(1)).detach().numpy()
    assert FeatureQuantiles().observe(model, images)["q01"] == pytest.approx(np.quantile(features, 0.01), rel=1e-5)
    named = FeatureQuantiles().observe(Named(), images)
    assert named["q99"] == pytest.approx(np.quantile(images.numpy(), 0.99), rel=1e-5)


def test_moments_are_taken_after_the_norm_and_without_one_after_the_layer() -> None:
    images = pixels()
    for norm in (nn.BatchNorm2d, lambda _: nn.Identity()):
        model = small(norm)
        with torch.no_grad():
            before = model.first[1](model.first[0](images))
            after = model.norm(model.second(torch.relu(before)))
        found = NormHealth().observe(model, images)
        assert list(found) == [
            "001-of-002.first.0.mean",
            "001-of-002.first.0.variance",
            "002-of-002.second.mean",
            "002-of-002.second.variance",
        ]
        one, other = before.double().numpy(), after.double().numpy()
        expected = [one.mean(), one.var(), other.mean(), other.var()]
        assert list(found.values()) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_layers_are_spread_from_the_first_to_the_last() -> None:
    torch.manual_seed(0)
    chain = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(9)), nn.Flatten(), nn.Linear(192, 2))
    found = NormHealth(layers=3).observe(chain, pixels())
    assert [key for key in found if key.endswith(".mean")] == [
        "001-of-009.0.mean",
        "005-of-009.4.mean",
        "009-of-009.8.mean",
    ]
    with torch.no_grad():
        chain[4].weight.fill_(float("inf"))
    assert [key.split(".")[0] for key in NormHealth(layers=3).observe(chain, pixels())] == ["001-of-009"] * 2


def test_perceptrons_have_features_and_moments_but_no_maps() -> None:
    model, images = perceptron(), pixels()
    assert set(FeatureQuantiles().observe(model, images)) == {"q01", "q20", "q80", "q99"}
    assert [key for key in NormHealth().observe(model, images)] == ["001-of-001.1.mean", "001-of-001.1.variance"]
    labels = torch.from_numpy(LABELS)
    assert GradCam().inspect(model, images, labels) == {}
    assert ActivationMaps().inspect(model, images, labels) == {}
    assert NormHealth().observe(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), images) == {}
    assert FeatureQuantiles().observe(nn.Flatten(), images) == {}


def test_gates_are_read_from_first_layer_to_last() -> None:
    model = nn.Sequential(BatchInstanceNorm(3), nn.Conv2d(3, 2, 1), BatchInstanceNorm(2), nn.BatchNorm2d(2))
    with torch.no_grad():
        model[0].rho.copy_(torch.tensor([1.0, 0.5, 0.0]))
        model[2].rho.copy_(torch.tensor([0.995, 0.105]))
    assert NormGates().observe(model, pixels()) == {
        "001.0.mean": pytest.approx(0.5),
        "001.0.open": pytest.approx(1 / 3),
        "002.2.mean": pytest.approx(0.55),
        "002.2.open": pytest.approx(0.5),
    }
    assert NormGates().observe(small(), pixels()) == {}


def test_nothing_of_the_model_changes() -> None:
    model, images = small(), pixels()
    before = copy.deepcopy(model.state_dict())
    for parameter in model.first.parameters():
        parameter.requires_grad_(False)
    FeatureQuantiles().observe(model, images)
    NormHealth().observe(model, images)
    GradCam().inspect(model, images, torch.from_numpy(LABELS))
    ActivationMaps().inspect(model, images, torch.from_numpy(LABELS))
    assert hooks(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [p.requires_grad for p in model.first.parameters()] == [False] * 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


# --- Grad-CAM --------------------------------------------------------------------------------------------------------


def test_heat_is_the_relu_of_maps_weighted_by_their_mean_gradients() -> None:
    model, images = small().double(), pixels().double()
    wanted = torch.tensor([2, -1, 0, 1, -1, 2])
    heat, logits = heat_maps(model, images, wanted, "norm")
    for place, image in enumerate(images):
        maps = model.norm(model.second(model.first(image[None]))).detach()
        label = int(wanted[place]) if wanted[place] >= 0 else int(logits[place].argmax())

        def score(given: torch.Tensor, label: int = label) -> torch.Tensor:
            return model.classifier(torch.relu(given).mean(dim=(2, 3)))[0, label]  # type: ignore[no-any-return]

        gradient = torch.autograd.functional.jacobian(score, maps)[0].numpy()
        weights = gradient.mean(axis=(1, 2))
        expected = np.maximum(np.tensordot(weights, maps[0].numpy(), axes=1), 0)
        assert heat[place].numpy() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_maps_are_those_of_the_last_layer_with_pixels_in_any_mode_of_the_images() -> None:
    model, labels = small(), torch.from_numpy(LABELS)
    assert last_maps(model, pixels(1)) == "norm"
    found = GradCam().inspect(model, pixels(), labels)
    assert set(found) == {"maps.norm", "predicted", "probability"}
    assert (found["maps.norm"].shape, found["maps.norm"].dtype) == ((6, 4, 4), np.uint8)
    logits = model(pixels()).detach()
    assert found["predicted"].tolist() == logits.argmax(1).tolist()
    assert found["probability"] == pytest.approx(torch.softmax(logits, 1).amax(1).numpy(), rel=1e-5)
    grey = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    assert GradCam().inspect(grey, pixels()[:, :1], labels)["maps.0"].shape == (6, 6, 6)


def test_tokens_and_channels_last_have_no_maps() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.mixer, self.head = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tokens = self.mixer(self.patches(images).flatten(2).transpose(1, 2))
            logits: torch.Tensor = self.head(tokens.mean(1))
            return logits

    assert last_maps(Tokens(), pixels(1)) is None
    last = small()
    last.output_fmt = "NHWC"  # type: ignore[assignment]
    assert last_maps(last, pixels(1)) is None


# --- activation maps -------------------------------------------------------------------------------------------------


def test_dead_filters_are_zero_for_every_pixel_of_every_image() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0, 1.0]).reshape(3, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([0.0, 0.0, -3.0]))
        model[2].weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).reshape(2, 3, 1, 1))
        model[2].bias.zero_()
    images = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]]], [[[0.5, 0.0], [0.0, 2.5]]]])  # never negative, never above 3
    found = ActivationMaps(images=1).inspect(model, images, torch.tensor([0, 1]))
    assert found["zero.001.1"].tolist() == [False, True, True]
    assert found["zero.002.3"].tolist() == [False, True]
    # The greatest value of the first image is 2, so 1 is 127.5 of 255 (rounded to even).
    assert found["maps.001.1"].tolist() == [[[[128, 255], [0, 128]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]]
    assert set(found) == {"zero.001.1", "zero.002.3", "maps.001.1", "maps.002.3"}
    third = torch.full((70, 1, 2, 2), 0.0)
    third[69] = 4.0  # alive in the last image only, beyond the first batch
    assert ActivationMaps().inspect(model, third, torch.zeros(70))["zero.001.1"].tolist() == [False, True, False]


def test_functional_nonlinearities_are_seen_under_the_module_that_calls_them() -> None:
    found = ActivationMaps().inspect(small(), pixels(6, 80), torch.from_numpy(LABELS))
    assert [name for name in found if name.startswith("zero.")] == ["zero.001.first.2", "zero.002."]
    assert found["maps.001.first.2"].shape == (3, 4, 32, 32)


# --- figures of inspected models -------------------------------------------------------------------------------------


def inspected(folder: Path, figure: str, arrays: Mapping[str, Mapping[str, np.ndarray]], **given: Any) -> StudyResults:
    """Return results with a done repeat 0 for each label, whose folder holds the arrays (none: not inspected)."""
    images = np.arange(6 * 8 * 8 * 3, dtype=np.uint8).reshape(6, 8, 8, 3)
    trials = []
    for place, (label, found) in enumerate(arrays.items()):
        own = folder / label
        own.mkdir(parents=True)
        if found:
            save_file({"images": images, "labels": LABELS, **found, **given}, own / f"inspected-{figure}.safetensors")
        outcome = Outcome(state="done", selected_epoch=1, metrics={"test": metrics(0.9 - 0.1 * place)})
        trials.append(replace(trial(condition(label), outcome=outcome), folder=own))
    conditions = [*map(condition, arrays), condition("failed")]
    made = results(conditions, [*trials, trial(condition("failed"), state="failed")])
    return replace(made, class_names=("Cattle Egret", "dog", "cat"))


def explained(predicted: list[int], layer: str = "stage3") -> dict[str, np.ndarray]:
    maps = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    share = np.full(6, 0.75, dtype=np.float32)
    return {f"maps.{layer}": maps, "predicted": np.array(predicted), "probability": share}


def test_grad_cam_shows_an_image_most_name_rightly_and_one_most_name_wrongly(tmp_path: Path) -> None:
    arrays = {"bn": explained([0, 2, 1, 1, 2, 2]), "gn": explained([0, 1, 0, 1, 2, 0])}
    figure = GradCam(classes=("cattle-egret", "zebra", "cat"))
    given = inspected(tmp_path, "grad-cam", {**arrays, "mlp": {}})
    data = figure.data(given)
    # Cattle Egret: image 0 right by both, image 1 wrong by both; cat: image 4 right by both, image 5 wrong by gn.
    assert [(image.place, image.true) for image in data.images] == [
        (0, "Cattle Egret"),
        (1, "Cattle Egret"),
        (4, "cat"),
        (5, "cat"),
    ]
    assert [(share.condition, share.right, share.of) for share in data.shares] == [("bn", 5, 6), ("gn", 3, 6)]
    assert [cell.right for cell in data.images[3].cells] == [True, False]
    grid = figure.draw(data)
    assert isinstance(grid, ImageGrid)
    assert grid.columns == ("image", "bn", "gn")
    assert [words for words, _ in grid.rows] == [
        "Cattle Egret: all right",
        "Cattle Egret: bn says cat, gn says dog",
        "cat: all right",
        "cat: gn says Cattle Egret",
    ]
    pictures = [Image.open(io.BytesIO(picture)) for _, row in grid.rows for picture in row]
    assert {picture.format for picture in pictures} == {"JPEG"}
    assert {picture.size for picture in pictures} == {(96, 96 + 15)}
    assert figure.alt_text(data) == ("Grad-CAM of 4 test images; of all 6 inspected, bn names 5 rightly, gn 3.")
    caption = figure.caption(data)
    assert "zebra" in caption and "mlp, failed" in caption and "n = 1" in caption


def test_grad_cam_compares_the_same_images_alone_and_is_bounded(tmp_path: Path) -> None:
    many = {f"c{place:02d}": explained([0] * 6) for place in range(20)}
    data = GradCam().data(inspected(tmp_path / "many", "grad-cam", many))
    assert len(data.shares) == 7
    assert [share.condition for share in data.shares] == [f"c{place:02d}" for place in range(7)]  # the best
    assert sum(len(cell.picture) for image in data.images for cell in image.cells) < 400_000
    assert any("room" in words for words in data.left_out)
    given = inspected(tmp_path / "two", "grad-cam", {"bn": explained([0] * 6), "gn": explained([1] * 6)})
    other = {**explained([1] * 6), "images": np.zeros((6, 8, 8, 3), np.uint8), "labels": LABELS}
    save_file(other, tmp_path / "two" / "gn" / "inspected-grad-cam.safetensors")
    data = GradCam().data(given)
    assert [share.condition for share in data.shares] == ["bn"]
    assert any("other images: gn" in words for words in data.left_out)
    with pytest.raises(PluginError, match="expected one of bn"):
        GradCam(conditions=("in",)).data(given)
    with pytest.raises(NothingToDraw, match="zebra"):
        GradCam(classes=("zebra",)).data(given)


@pytest.mark.parametrize("figure", [GradCam(), ActivationMaps()], ids=["grad-cam", "activation-maps"])
def test_without_maps_there_is_nothing_to_draw(figure: Any, tmp_path: Path) -> None:
    name = "grad-cam" if isinstance(figure, GradCam) else "activation-maps"
    with pytest.raises(NothingToDraw, match="convolutions"):
        figure.data(inspected(tmp_path, name, {"mlp": {}}))
    empty = inspected(tmp_path / "empty", name, {"mlp": {}})
    images = {"images": np.zeros((6, 8, 8, 1), np.uint8), "labels": LABELS}
    save_file(images, tmp_path / "empty" / "mlp" / f"inspected-{name}.safetensors")
    with pytest.raises(NothingToDraw, match="convolutions"):
        figure.data(empty)


def test_activation_maps_count_the_dead_and_show_best_and_worst(tmp_path: Path) -> None:
    def arrays(dead: int) -> dict[str, np.ndarray]:
        zero = np.arange(8) < dead
        maps = np.full((2, 8, 4, 4), 9, np.uint8)
        return {"zero.001.stem": zero, "maps.001.stem": maps, "zero.002.stage": zero, "maps.002.stage": maps}

    figure = ActivationMaps(images=2)
    data = figure.data(inspected(tmp_path, "activation-maps", {"bn": arrays(0), "gn": arrays(3), "in": arrays(1)}))
    assert [(one.condition, one.dead, one.filters) for one in data.conditions] == [
        ("bn", 0, 16),
        ("gn", 6, 16),
        ("in", 2, 16),
    ]
    assert [one.condition for one in data.shown] == ["bn", "in"]  # the best and the worst accuracy
    assert_plain(tuple(one.layers for one in data.conditions))
    grid = figure.draw(data)
    assert grid.columns == ("image", "early layer (stem, 1 of 2)", "late layer (stage, 2 of 2)")
    assert [words for words, _ in grid.rows] == [
        "bn: Cattle Egret",
        "bn: Cattle Egret",
        "in: Cattle Egret",
        "in: Cattle Egret",
    ]
    assert "zero for all 6 inspected test images: 0 of 16 of bn, 2 of 16 of in." in figure.caption(data)
    assert figure.alt_text(data) == "Dead filters in all layers: most in gn, 6 of 16; fewest in bn, 0 of 16."


def test_heat_covers_the_image_where_it_is_great() -> None:
    image = np.full((4, 4, 1), 100, np.uint8)
    heat = np.zeros((4, 4), np.uint8)
    heat[3, 3] = 255
    picture = heated(image, heat)
    assert picture.shape == (96, 96, 3)
    # No heat: three quarters grey 100, one quarter of the darkest colour (13, 8, 60).
    assert picture[0, 0].tolist() == [78, 77, 90]
    # All heat: 35 % grey 100 and 65 % of the brightest colour (240, 249, 33).
    assert picture[-1, -1].tolist() == [191, 197, 56]
    sheet = mosaic(np.zeros((5, 2, 2), np.uint8))
    assert sheet.shape == (2 * 33 - 1, 3 * 33 - 1, 3)
    assert sheet[32, 0].tolist() == [255, 255, 255]
