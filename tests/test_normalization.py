"""What images are normalised by: the training images' statistics, or each model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import tiny_study
import torch
from benchkit_models.timm_models import timm_model
from engine_runs import learnt, make_settings, make_splits, small_net
from safetensors.torch import save_file
from torch import nn

from benchkit import PluginError
from benchkit.errors import TrainingError
from benchkit.ledger import read_results
from benchkit.protocols import Splits
from benchkit.results import Normalization
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import Settings
from benchkit.train.fit import fit
from benchkit.train.placement import Images, images_for
from benchkit.train.run import Plugins, Run, build_run

CPU = torch.device("cpu")
BN = nn.BatchNorm2d
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What timm's models for ImageNet mostly declare."""


def run_of(settings: Settings, splits: Splits, model: Any, images: Images | None = None) -> Run:
    plugins = Plugins(model=model, norm=BN)
    return build_run(settings, splits, plugins, seeds=trial_seeds(5, "grid", 0), device="cpu", images=images)


def of_timm(variant: str, **more: Any) -> Any:
    return lambda classes, shape, norm: timm_model(classes, shape, norm, variant=variant, **more)


def declaring(**made_with: Any) -> Any:
    """Return a model that declares what it was made with."""

    def model(classes: int, shape: tuple[int, int, int], norm: Any) -> nn.Module:
        made = small_net(classes, shape, norm)
        vars(made)["pretrained_cfg"] = made_with
        return made

    return model


def test_each_model_of_a_study_gets_its_own_from_one_workers_images() -> None:
    splits = make_splits(side=32)
    settings = make_settings({"normalize": "model"})
    images = images_for(settings, splits, CPU)
    weight = images.train.take(torch.arange(4))
    for variant, (mean, std) in {"test_vit": ((0.5,) * 3, (0.5,) * 3), "lcnet_035": IMAGENET}.items():
        run = run_of(settings, splits, of_timm(variant), images)
        assert run.normalization == Normalization(source="model", mean=mean, std=std)
        expected = (weight.double() / 255 - torch.tensor(mean).reshape(1, 3, 1, 1).double()) / torch.tensor(
            std
        ).reshape(1, 3, 1, 1).double()
        torch.testing.assert_close(run.input_transform(weight).double(), expected, rtol=0, atol=1e-5)


def test_grey_images_get_the_average_and_keep_their_shape() -> None:
    splits = make_splits(side=32, channels=1)
    run = run_of(make_settings({"normalize": "model"}), splits, of_timm("lcnet_035"))
    assert run.normalization is not None
    np.testing.assert_allclose(run.normalization.mean, [0.449], atol=1e-9)
    np.testing.assert_allclose(run.normalization.std, [0.226], atol=1e-9)
    assert run.input_transform(run.train.images.take(torch.arange(2))).shape == (2, 1, 32, 32)
    assert any("mean 0.449 and standard deviation 0.226, averaged over its channels" in note for note in run.notes)


def test_the_arm_from_scratch_is_normalised_like_the_one_with_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model("lcnet_035", num_classes=4).state_dict(), tmp_path / "w.safetensors")
    splits = make_splits(side=32)
    settings = make_settings({"normalize": "model"})
    scratch = run_of(settings, splits, of_timm("lcnet_035"))
    loaded = run_of(settings, splits, of_timm("lcnet_035", weights=str(tmp_path / "w.safetensors")))
    assert (
        scratch.normalization
        == loaded.normalization
        == Normalization(source="model", mean=IMAGENET[0], std=IMAGENET[1])
    )


def test_where_a_model_has_none_the_training_images_statistics_stay() -> None:
    splits = make_splits()
    plain = run_of(make_settings(), splits, small_net)
    chosen = run_of(make_settings({"normalize": "model"}), splits, small_net)
    assert chosen.normalization == plain.normalization
    assert plain.normalization and plain.normalization.source == "data"
    scaled = splits.train.images.reshape(-1, splits.train.images.shape[3]) / 255
    np.testing.assert_allclose(plain.normalization.mean, scaled.mean(0), rtol=1e-12)
    np.testing.assert_allclose(plain.normalization.std, scaled.std(0), rtol=1e-12)
    assert [learnt(one) for one in fit(plain)] == [learnt(one) for one in fit(chosen)]
    assert any("declares no normalisation of its own" in note for note in chosen.notes)


@pytest.mark.parametrize(("words", "flag"), [("data", True), ("none", False)])
def test_the_words_mean_what_the_flags_mean(words: str, flag: bool) -> None:
    splits = make_splits()
    runs = [
        run_of(make_settings({"normalize": value}), splits, declaring(mean=(0.5,) * 3, std=(0.5,) * 3))
        for value in (words, flag)
    ]
    assert runs[0].normalization == runs[1].normalization
    assert (runs[0].normalization is None) == (words == "none")
    assert [learnt(one) for one in fit(runs[0])] == [learnt(one) for one in fit(runs[1])]


def test_other_numbers_of_channels_keep_their_own_statistics_or_are_refused() -> None:
    settings = make_settings({"normalize": "model"})
    two = run_of(settings, make_splits(channels=2), declaring(mean=IMAGENET[0], std=IMAGENET[1]))
    assert two.normalization and two.normalization.source == "data" and len(two.normalization.mean) == 2
    with pytest.raises(TrainingError, match="for 4 and 4 channels, expected positive numbers for 3"):
        run_of(settings, make_splits(), declaring(mean=(0.5,) * 4, std=(0.5,) * 4))


def test_how_the_models_own_images_were_made_is_compared() -> None:
    made_with = {
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "input_size": (1, 224, 224),
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    run = run_of(make_settings({"normalize": "model", "image_size": 16}), make_splits(), declaring(**made_with))
    assert (
        "the model's own images had 224 x 224 pixels, bicubic resizing, a centre crop of 0.9 of the side; here they "
        "have 16 x 16 pixels, bilinear resizing, no crop"
    ) in run.notes
    made_with.update(input_size=(1, 16, 16), interpolation="bilinear", crop_pct=1.0)
    run = run_of(make_settings({"normalize": "model", "image_size": 16}), make_splits(), declaring(**made_with))
    assert not any("the model's own images" in note for note in run.notes)


def test_models_of_one_size_are_built_for_the_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    model = timm_model(7, (3, 96, 64), BN, variant="vit_tiny_patch16_224", weights=str(tmp_path / "w.safetensors"))
    assert model(torch.rand(2, 3, 96, 64)).shape == (2, 7)
    assert torch.equal(model.get_parameter("head.weight"), made.get_parameter("head.weight"))
    assert "made for images of 224 x 224 pixels, built for 64 x 96 pixels" in str(vars(model)["notes"])
    with pytest.raises(PluginError, match="made for images of 160 x 160 pixels and cannot be for 100 x 100 pixels"):
        timm_model(7, (3, 100, 100), BN, variant="test_maxvit")


def test_a_trial_records_what_it_was_normalised_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factor = '[factors]\n"data.normalize" = ["model", "data", false]\n'
    text = tiny_study.text_of(factor, epochs=1, repeats=1)
    study = tiny_study.parse_study(
        text.replace('name = "mlp"\nhidden = [8]', 'name = "timm"\nvariant = "lcnet_035"'), name="tiny"
    )
    assert tiny_study.sweep_here(monkeypatch, tmp_path, study) == {"done": 3}
    trials = read_results(tmp_path).trials
    recorded = {trial.condition.settings["data"]["normalize"]: trial.outcome for trial in trials}
    found = {value: outcome and outcome.normalization for value, outcome in recorded.items()}
    assert found["model"] and found["model"].source == "model" and abs(found["model"].mean[0] - 0.449) < 1e-9
    assert found["data"] and found["data"].source == "data" and found[False] is None
