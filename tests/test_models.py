"""The built-in models: layers and parameters counted by hand, timm's models with other norms, weights over HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from benchkit_models.adaptation import swap_norms
from benchkit_models.mlp import mlp
from benchkit_models.resnet import resnet
from benchkit_models.timm_models import _downloaded, fetch, timm_model
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.nn import functional

from benchkit import DataError, NormFactory, PluginError
from benchkit.study.settings import OptimizerSettings
from benchkit.train.optimizers import optimizer

BN = nn.BatchNorm2d
GN = partial(nn.GroupNorm, 4)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def weighted_layers(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules())


@pytest.mark.parametrize(("n", "layers"), [(1, 8), (2, 14), (3, 20), (5, 32)])
def test_resnet_has_6n_plus_2_weighted_layers(n: int, layers: int) -> None:
    assert weighted_layers(resnet(10, (3, 32, 32), BN, n=n)) == layers


def test_resnet_20_has_the_paper_s_number_of_parameters() -> None:
    convolutions = 3 * 16 * 9 + 6 * 16 * 16 * 9 + (16 * 32 + 5 * 32 * 32) * 9 + (32 * 64 + 5 * 64 * 64) * 9
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    by_hand = convolutions + norms + 64 * 10 + 10
    assert parameters(resnet(10, (3, 32, 32), BN, n=3)) == by_hand == 269_722
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert parameters(resnet(10, (3, 32, 32), BN, n=3, shortcut="B")) == by_hand + projections == 272_474


@pytest.mark.parametrize(("n", "millions"), [(3, 0.27), (5, 0.46), (7, 0.66), (9, 0.85), (18, 1.7)])
def test_parameters_in_millions_are_table_6_of_the_paper(n: int, millions: float) -> None:
    assert parameters(resnet(10, (3, 32, 32), BN, n=n)) / 1e6 == pytest.approx(millions, abs=0.005 if n < 18 else 0.05)


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8)])
def test_gradients_reach_every_parameter(shortcut: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    for model in (resnet(7, shape, BN, n=1, width=4, shortcut=shortcut), mlp(7, shape, BN, hidden=(9, 5))):
        logits = model(torch.rand(6, *shape))
        assert logits.shape == (6, 7)
        functional.cross_entropy(logits, torch.arange(6)).backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_resnet_equals_its_definition_written_with_functions() -> None:
    torch.manual_seed(0)
    model = resnet(5, (3, 9, 9), nn.Identity, n=1, width=4).double()
    weights = dict(model.named_parameters())
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)

    def block(features: torch.Tensor, stage: str, stride: int) -> torch.Tensor:
        residual = functional.conv2d(features, weights[f"{stage}.0.conv1.weight"], stride=stride, padding=1).relu()
        residual = functional.conv2d(residual, weights[f"{stage}.0.conv2.weight"], padding=1)
        kept = features[:, :, ::stride, ::stride]
        zeros = residual.new_zeros(2, residual.shape[1] - kept.shape[1], *kept.shape[2:])
        return (residual + torch.cat([kept, zeros], 1)).relu()

    features = functional.conv2d(images, weights["stem.0.weight"], padding=1).relu()
    for stage, stride in (("stage1", 1), ("stage2", 2), ("stage3", 2)):
        features = block(features, stage, stride)
    expected = features.mean((2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(model(images), expected)


def test_the_norm_stands_everywhere() -> None:
    model = resnet(10, (3, 32, 32), GN, n=2, shortcut="B")
    assert sum(isinstance(layer, nn.GroupNorm) for layer in model.modules()) == 1 + 12 + 2
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


def test_mlp_by_hand() -> None:
    model = mlp(10, (1, 28, 28), BN)
    assert parameters(model) == 784 * 500 + 500 + 500 * 500 + 500 + 500 * 10 + 10
    normed = mlp(10, (1, 28, 28), BN, hidden=(6,), normalize=True)
    assert parameters(normed) == 784 * 6 + 6 + 2 * 6 + 6 * 10 + 10
    assert normed(torch.rand(3, 1, 28, 28)).shape == (3, 10)
    assert parameters(mlp(3, (1, 2, 2), BN, hidden=())) == 4 * 3 + 3


def test_mlp_equals_its_definition() -> None:
    model = mlp(3, (2, 4, 4), BN, hidden=(5,)).double()
    images = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    first, last = model.hidden1[0], model.classifier
    expected = (images.flatten(1) @ first.weight.T + first.bias).relu() @ last.weight.T + last.bias
    torch.testing.assert_close(model(images), expected)


def test_dropout_sites_are_modules() -> None:
    models = (
        resnet(10, (3, 32, 32), BN),
        mlp(10, (1, 28, 28), BN),
        timm_model(10, (3, 32, 32), BN, variant="test_resnet"),
    )
    for model in models:
        assert model.dropout_sites
        assert set(model.dropout_sites) <= {name for name, _ in model.named_modules()}  # type: ignore[arg-type]


def test_impossible_models_are_refused_with_all_reasons() -> None:
    with pytest.raises(PluginError) as caught:
        resnet(10, (3, 32, 32), BN, n=0, shortcut="C")
    assert len(caught.value.problems) == 2
    with pytest.raises(PluginError, match="hidden"):
        mlp(10, (3, 32, 32), BN, hidden=(0,))
    with pytest.raises(PluginError) as caught:
        timm_model(10, (3, 32, 32), BN, variant="resnet81", stem="tiny")
    assert "near it: resnet18" in caught.value.problems[0] and len(caught.value.problems) == 2


def test_timm_models_keep_their_architecture_under_the_default_norm() -> None:
    torch.manual_seed(0)
    model = timm_model(7, (1, 32, 32), BN, variant="test_resnet")
    torch.manual_seed(0)
    reference = timm.create_model("test_resnet", num_classes=7, in_chans=1)
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(model.eval()(images), reference.eval()(images))
    vit = timm_model(7, (3, 160, 160), BN, variant="test_vit")
    assert vit(torch.rand(2, 3, 160, 160)).shape == (2, 7)


@pytest.mark.parametrize("variant", ["test_resnet", "test_efficientnet"])
def test_a_norm_takes_every_batch_norm_s_place_and_nothing_else_changes(variant: str) -> None:
    torch.manual_seed(0)
    model = timm_model(7, (3, 32, 32), GN, variant=variant)
    torch.manual_seed(0)
    reference = timm.create_model(variant, num_classes=7)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in reference.modules())
    assert sum(isinstance(layer, nn.GroupNorm) for layer in model.modules()) == norms > 0
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    for name, layer in reference.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert torch.equal(model.get_submodule(name).weight, layer.weight)  # type: ignore[arg-type]
    functional.cross_entropy(model(torch.rand(3, 3, 32, 32)), torch.arange(3)).backward()
    activations = sum(isinstance(layer, nn.SiLU | nn.ReLU) for layer in reference.modules())
    assert sum(isinstance(layer, nn.SiLU | nn.ReLU) for layer in model.modules()) == activations


def test_another_batch_norm_computes_the_same_with_carried_over_statistics() -> None:
    class Own(nn.BatchNorm2d):
        """A batch norm of one's own."""

    torch.manual_seed(0)
    own = timm_model(7, (3, 32, 32), Own, variant="test_efficientnet")
    torch.manual_seed(0)
    plain = timm_model(7, (3, 32, 32), BN, variant="test_efficientnet")
    images = torch.rand(4, 3, 32, 32)
    for model in (own, plain):
        model(images)
    torch.testing.assert_close(own.eval()(images), plain.eval()(images), rtol=1e-3, atol=1e-5)


def test_norms_cannot_be_chosen_where_there_are_none_to_replace() -> None:
    with pytest.raises(PluginError, match="'test_vit' cannot be chosen: it has no 2-D batch norm"):
        timm_model(7, (3, 160, 160), GN, variant="test_vit")


def test_the_cifar_stem_keeps_the_resolution() -> None:
    model = timm_model(10, (3, 32, 32), BN, variant="resnet18", stem="cifar")
    assert parameters(model) == 11_181_642 - 64 * 3 * 49 + 64 * 3 * 9
    assert model.conv1.stride == (1, 1) and isinstance(model.maxpool, nn.Identity)
    for variant in ("test_vit", "resnet18d"):
        with pytest.raises(PluginError, match="stem = 'cifar' is not defined"):
            timm_model(10, (3, 32, 32), BN, variant=variant, stem="cifar")


def test_the_head_alone_is_trained() -> None:
    model = timm_model(10, (3, 32, 32), BN, variant="test_resnet", trained="head").train()
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["fc.weight", "fc.bias"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.rand(4, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_discriminative_rates_fall_by_the_decay_from_stage_to_stage() -> None:
    model = timm_model(10, (3, 32, 32), BN, variant="resnet18", trained="discriminative", rate_decay=2.0)
    factors = {name.split(".")[0]: parameter.rate_factor for name, parameter in model.named_parameters()}
    assert factors == {
        "conv1": 1 / 32,
        "bn1": 1 / 32,
        "layer1": 1 / 16,
        "layer2": 1 / 8,
        "layer3": 1 / 4,
        "layer4": 1 / 2,
        "fc": 1.0,
    }
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert "learning rates from 0.031 (first of 6 stages)" in model.notes[-1]


def test_layer_decay_is_timms_as_a_factor_of_the_schedules_rate() -> None:
    model = timm_model(10, (3, 32, 32), BN, variant="resnet18", trained="layers", rate_decay=2.0)
    known = {
        id(parameter): group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.5)
        for parameter in group["params"]
    }
    factors = {id(parameter): parameter.rate_factor for parameter in model.parameters()}
    assert factors == known and len(set(known.values())) > 3 and sorted(set(known.values()))[-2] == 0.5
    settings = OptimizerSettings(name="sgd", lr=0.1)
    made = optimizer(settings, model.parameters(), {})
    assert {group["rate_factor"] for group in made.param_groups} == set(known.values())


class Quiet(SimpleHTTPRequestHandler):
    """A server of one folder that says nothing."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve tmp_path/served on this machine, with an empty download cache."""
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def published(path: Path) -> dict[str, torch.Tensor]:
    """Write the weights of a resnet18 with 1000 classes, as timm publishes them, and return them."""
    torch.manual_seed(11)
    state: dict[str, torch.Tensor] = timm.create_model("resnet18").state_dict()
    torch.save(state, path)
    return state


def test_another_eps_than_that_of_the_norms_replaced_is_told() -> None:
    def notes(norm: NormFactory) -> tuple[str, ...]:
        return swap_norms(nn.Sequential(nn.BatchNorm2d(4, eps=1e-3)), "any", norm)[1:]

    assert notes(nn.BatchNorm2d) == ("eps of the new norms is 1e-05, of those replaced it was 0.001",)
    assert notes(partial(nn.BatchNorm2d, eps=1e-3)) == notes(lambda channels: nn.Identity()) == ()


def test_pretrained_weights_are_downloaded_and_adapted(address: str, tmp_path: Path) -> None:
    state = published(tmp_path / "served" / "weights.pth")
    build = partial(timm_model, variant="resnet18", pretrained=True, pretrained_url=f"{address}/weights.pth")
    plain = build(10, (3, 32, 32), BN)
    assert torch.equal(plain.conv1.weight, state["conv1.weight"])
    assert torch.equal(plain.layer4[1].bn2.weight, state["layer4.1.bn2.weight"])
    assert plain.fc.weight.shape == (10, 512)
    gray = build(10, (1, 32, 32), BN)
    torch.testing.assert_close(gray.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))
    grouped = build(10, (3, 32, 32), GN, stem="cifar")
    assert torch.equal(grouped.conv1.weight, state["conv1.weight"][:, :, 2:5, 2:5])
    assert torch.equal(grouped.layer2[0].conv1.weight, state["layer2.0.conv1.weight"])
    assert "20 batch norms replaced: 40 of the new norms' 40 tensors carried over" in grouped.notes
    assert not any("eps of the" in note for note in grouped.notes)
    digest = hashlib.sha256((tmp_path / "served" / "weights.pth").read_bytes()).hexdigest()
    assert plain.start_weights == gray.start_weights == digest
    told = f"started from pretrained weights resnet18.a1_in1k of {address}/weights.pth (sha256 {digest[:12]})"
    assert plain.notes[0] == told


def test_the_digest_is_of_the_hub_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is asked of the hub's own cache, by the id that the tag resolves to."""
    asked = []
    (tmp_path / "model.safetensors").write_bytes(b"weights")

    def cached(hub: str, name: str, revision: str | None = None) -> str | None:
        asked.append((hub, name, revision))
        return str(tmp_path / name) if name == "model.safetensors" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    assert _downloaded(timm.create_model("resnet18")) == tmp_path / "model.safetensors"
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors", None)]


def test_head_trains_every_part_of_the_classifier_and_nothing_else() -> None:
    for variant, heads in {"resnet18": ["fc"], "deit_tiny_distilled_patch16_224": ["head", "head_dist"]}.items():
        model = timm_model(4, (3, 32, 32), BN, variant=variant, trained="head")
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained == {f"{head}.{part}" for head in heads for part in ("weight", "bias")}
        own = sum(parameter.numel() for name, parameter in model.named_parameters() if name in trained)
        assert f"{own:,} of {parameters(model):,} parameters are trained: those of the classifier" in model.notes


def test_weights_that_a_sweep_fetched_are_taken_from_what_it_sent(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = published(tmp_path / "served" / "weights.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "here"))
    name, file = fetch(variant="resnet18", pretrained=True, pretrained_url=f"{address}/weights.pth", stem="cifar") or (
        "",
        Path(),
    )
    assert name == f"{address}/weights.pth" and file.read_bytes() == (tmp_path / "served" / "weights.pth").read_bytes()
    (tmp_path / "served" / "weights.pth").unlink()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "there"))
    build = partial(timm_model, variant="resnet18", pretrained=True, pretrained_url=name)
    with pytest.raises(DataError):
        build(10, (3, 32, 32), BN)
    monkeypatch.setenv("BENCHKIT_SENT", json.dumps({name: str(file)}))
    assert torch.equal(build(10, (3, 32, 32), BN).conv1.weight, state["conv1.weight"])
    assert fetch(variant="resnet18") is None and fetch(variant="resnet18", pretrained=True, weights="w.pth") is None
    with pytest.raises(DataError, match=r"model\.weights"):
        fetch(variant="resnet18", pretrained=True, pretrained_url=name)


def test_local_weights_are_adapted_like_pretrained_ones(tmp_path: Path) -> None:
    state = published(tmp_path / "weights.pth")
    model = timm_model(
        10, (1, 32, 32), nn.Identity, variant="resnet18", stem="cifar", weights=str(tmp_path / "weights.pth")
    )
    expected = state["conv1.weight"].sum(1, keepdim=True)[:, :, 2:5, 2:5]
    torch.testing.assert_close(model.conv1.weight, expected)
    assert model.notes[0].startswith("started from the weights weights.pth (sha256 ")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "wrong.pth")
    state.pop("layer3.0.conv1.weight")
    torch.save(state, tmp_path / "gap.pth")
    problems = {
        "wrong.pth": "do not fit timm's 'resnet18'",
        "gap.pth": r"layer3\.0\.conv1\.weight",
        "absent.pth": "no weights at",
    }
    for name, words in problems.items():
        with pytest.raises(DataError, match=words):
            timm_model(10, (3, 32, 32), BN, variant="resnet18", weights=str(tmp_path / name))


def test_unreachable_weights_name_the_way_out(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"{address}/absent.pth", "http://127.0.0.1:9/weights.pth"):
        with pytest.raises(DataError, match=r"model\.weights"):
            timm_model(10, (3, 32, 32), BN, variant="test_resnet", pretrained=True, pretrained_url=url)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"model\.weights"):
        timm_model(10, (3, 32, 32), BN, variant="test_resnet", pretrained=True)
