"""Exported models: the study's digits again, from the folder alone; what photos give; what is told with it."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from synthetic_results import with_search
from tiny_study import InlinePool, environment
from torch import nn

import benchkit.sweep.orchestration
from benchkit.cli import main
from benchkit.data.prepared import EARLIER
from benchkit.errors import BenchkitError, DataError, ReportError
from benchkit.export import onnx_file, prediction
from benchkit.export.choice import choose
from benchkit.export.described import Exported, ImageRule, load_exported, read_exported
from benchkit.export.prediction import input_of, logits_of, photos_in, pixels_of
from benchkit.export.writing import describe, export
from benchkit.ledger import read_results
from benchkit.ledger.cleaning import _best
from benchkit.ledger.trials import TrialFolder
from benchkit.registry import Registry
from benchkit.results import Normalization, StudyResults, Trial
from benchkit.study.settings import PluginRef

STUDY = """
title = "Photos"
seed = 4
[data]
name = "image-folder"
source = "{photos}"
size = 24
fit = "{fit}"
test_fraction = 0.4
{data}
[model]
{model}
[train]
epochs = 1
batch_size = 16
precision = "{precision}"
optimizer = {{ name = "sgd", lr = 0.05 }}
[[regularizers]]
name = "dropout"
rate = 0.2
[factors]
"train.optimizer.lr" = [0.001, 0.05]
[repeats]
n = 2
"""
REGISTRY = Registry.installed()
TIMM = 'name = "timm:test_resnet"'
PLUGINS = 'name = "resnet"\nn = 1\nwidth = 8\nnorm = { name = "gn", groups = 4 }'


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three classes that are hard to tell, of several sizes."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(60):
        pixels = generator.integers(0, 200, (30 + number % 7, 40, 3))
        pixels[..., number % 3] += 2
        file = folder / f"class {number % 3}" / f"photo{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


@pytest.fixture
def swept(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StudyResults]:
    """Return what sweeps a study of photos in this process and gives its results."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**environment(), "BENCHKIT_DATA": str(tmp_path / "data")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", InlinePool)

    def sweep(
        model: str, *, data: str = "", fit: str = "crop", precision: str = "float32", more: str = ""
    ) -> StudyResults:
        text = STUDY.format(photos=photos, model=model, data=data, fit=fit, precision=precision) + more
        Path("photos.toml").write_text(text)
        assert main(["sweep", "photos.toml"]) == 0
        return read_results(Path("benchkit-runs"), "photos")

    return sweep


def exported(results: StudyResults, label: str = "", out: str = "model") -> Any:
    return export(results, choose(results, label), REGISTRY, Path("data"), Path(out))


def test_images(photos: Path) -> tuple[list[str], np.ndarray]:
    """Return the names and pixels of the prepared test split."""
    folder = next(path.parent for path in Path("data").glob("**/test-files.json"))
    return json.loads((folder / "test-files.json").read_text()), np.load(folder / "test-images.npy")


test_images.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "data", "precision", "called"),
    [
        (TIMM, 'normalize = "model"', "float32", "timm.create_model("),
        (TIMM + '\nstem = "imagenet"\ntrained = "head"', "image_size = 40", "bf16", "timm.create_model("),
        (PLUGINS, "normalize = false", "float32", "resnet(3, (3, 24, 24), partial(GroupNorm, groups=4), n=1, width=8)"),
    ],
    ids=["timm, its normalisation", "timm, resized, bf16", "plugins, not normalised"],
)
def test_a_folder_gives_the_recorded_logits_again(
    model: str, data: str, precision: str, called: str, swept: Callable[..., StudyResults], photos: Path
) -> None:
    results = swept(model, data=data, precision=precision)
    written, choice = exported(results), choose(results)
    described, network = load_exported(Path("model"), REGISTRY)
    names, pixels = test_images(photos)
    recorded = choice.trial.predictions("test")
    assert np.array_equal(logits_of(network, described, pixels), recorded)
    assert np.array_equal(pixels_of(described, [photos / name for name in names]), pixels)
    assert called in Path("model/predict.py").read_text()
    script = runpy.run_path("model/predict.py")
    alone = np.stack([script["read"](photos / name) for name in names])
    assert np.array_equal(alone, pixels)
    assert np.array_equal(script["logits"](script["load_model"](), pixels).numpy(), recorded)
    assert {file.name for file in written.files} == {
        "model.safetensors", "model.json", "predict.py", "README.md", "misclassified.csv",
    }  # fmt: skip
    trained = load_file(choice.trial.folder / "weights.safetensors")
    assert all(torch.equal(tensor, trained[name]) for name, tensor in network.state_dict().items())


def test_averaged_weights_are_those_that_are_exported(swept: Callable[..., StudyResults]) -> None:
    plain = {(t.condition.label, t.index): t.predictions("test") for t in swept(PLUGINS).trials}
    Path("benchkit-runs").rename("plain")
    results = swept(PLUGINS, more='[[regularizers]]\nname = "ema"\n')
    choice = choose(results)
    exported(results)
    described, network = load_exported(Path("model"), REGISTRY)
    recorded = choice.trial.predictions("test")
    assert np.array_equal(logits_of(network, described, test_images(Path())[1]), recorded)
    assert not np.array_equal(recorded, plain[choice.condition.label, choice.trial.index])


def test_the_repeat_is_the_one_that_clean_keeps(tmp_path: Path) -> None:
    results = with_search(tmp_path)
    assert results.study.search and results.study.search.goals[0].metric == "val.loss"
    key = results.conditions[-1].key
    losses = {0: (0.5, 0.9), 1: (0.3, 0.8), 2: (math.nan, 0.99)}  # by val.accuracy the last one, by the goal the second

    def scored(trial: Trial) -> Trial:
        loss, accuracy = losses.get(trial.index, losses[0])
        TrialFolder(trial.folder).weights.parent.mkdir(parents=True, exist_ok=True)
        TrialFolder(trial.folder).weights.write_bytes(b"")
        assert trial.outcome
        val = replace(trial.outcome.metrics["val"], loss=loss, accuracy=accuracy)
        metrics = {**trial.outcome.metrics, "val": val}
        settings = {
            **trial.condition.settings,
            "train": {**trial.condition.settings["train"], "select_by": "val.accuracy"},
        }
        return replace(
            trial,
            outcome=replace(trial.outcome, metrics=metrics),
            condition=replace(trial.condition, settings=settings),
        )

    confirmed = tuple(scored(t) for t in results.trials if t.condition.key == key and t.phase == "confirm")
    conditions = (*results.conditions[:-1], confirmed[0].condition)
    results = replace(results, trials=confirmed, conditions=conditions)
    chosen = choose(results, key).trial
    assert chosen.index == 1
    assert _best(results, 1) == {(key, chosen.number)}


def test_predictions_of_the_commands_and_of_the_script_agree(
    swept: Callable[..., StudyResults],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    swept(TIMM)
    assert main(["model", "photos", "--out", "model"]) == 0
    printed = capsys.readouterr()
    assert "the condition with the best mean test.accuracy" in printed.out
    assert "benchkit predict model PHOTO..." in printed.err
    given = sorted(map(str, (photos / "class 1").glob("*1*.png")))
    monkeypatch.setattr(sys, "argv", ["predict.py", *given])
    runpy.run_path("model/predict.py", run_name="__main__")
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert main(["predict", "model", *given, "--csv"]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["photo"] for row in table] == given == [line[0] for line in lines]
    for row, (_, name, chance) in zip(table, lines, strict=True):
        classes = {known: float(row[known]) for known in ("class 0", "class 1", "class 2")}
        assert row["class"] == name == max(classes, key=lambda known: classes[known])
        assert float(row["probability"]) == pytest.approx(float(chance), abs=1e-4) == max(classes.values())
        assert sum(classes.values()) == pytest.approx(1, abs=1e-5)
    with monkeypatch.context() as patched:
        patched.setattr(prediction, "logits_of", lambda *given: np.array([[0.0, -20.0, -40.0]] * len(given[2])))
        assert main(["predict", "model", given[0], "--csv"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (row["class 0"], row["class 1"], row["class 2"]) == ("1", "2.06115e-09", "4.24835e-18")
    about = Path("model/model.json")
    about.write_text(about.read_text().replace('"class 0"', '"photo"'))
    assert main(["predict", "model", *given, "--csv"]) == 0
    again = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["photo"], row["photo_2"]) for row in again] == [(row["photo"], row["class 0"]) for row in table]
    assert main(["predict", "model", str(photos / "class 2")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 21


def test_misclassified_images_are_listed_with_their_files(swept: Callable[..., StudyResults], photos: Path) -> None:
    results = swept(TIMM, data="test_size = 15")
    exported(results)
    trial = choose(results).trial
    rows = list(csv.DictReader(Path("model/misclassified.csv").read_text(encoding="utf-8").splitlines()))
    logits, labels = trial.predictions("test"), trial.labels("test")
    said = torch.softmax(torch.from_numpy(logits).double(), 1).max(1)
    wrong = {(f"{chance:.6f}", f"class {label}") for chance, label, called in zip(
        said.values.tolist(), labels, said.indices.tolist(), strict=True
    ) if called != label}  # fmt: skip
    assert rows and {(row["probability"], row["class"]) for row in rows} == wrong
    assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)
    names, _ = test_images(photos)
    for row in rows:
        assert row["path"] == names[int(row["image"])] and row["path"].startswith(f"{row['class']}/")
        assert (photos / row["path"]).is_file() and row["predicted"] != row["class"]


def test_validation_images_choose_the_repeat_and_a_label_the_condition(swept: Callable[..., StudyResults]) -> None:
    results = swept(TIMM)
    for label in ("0.001", "0.05"):
        choice = choose(results, label)
        losses = {trial.index: trial.score("val.loss") for trial in results.trials if trial.condition.label == label}
        assert choice.trial.index == min(losses, key=lambda index: losses[index])
        assert choice.condition.label == label and choice.estimate.n == 2
    assert choose(results, choice.condition.key[:8]).condition == choice.condition
    with pytest.raises(ReportError, match=r"no condition of the label or key '0\.5'") as caught:
        choose(results, "0.5")
    assert caught.value.hint == "its conditions: 0.001; 0.05"
    assert choice.why.endswith("of its 2 repeats the one whose val.loss is best")
    (choice.trial.folder / "weights.safetensors").unlink()
    assert choose(results, "0.05").why.endswith("; the one of its 2 repeats with weights here")
    for trial in results.trials:
        (trial.folder / "weights.safetensors").unlink(missing_ok=True)
    with pytest.raises(ReportError, match="has its weights here"):
        choose(results)


def test_a_card_tells_score_data_and_rules_and_no_path(swept: Callable[..., StudyResults], photos: Path) -> None:
    results = swept(TIMM, data="image_size = 32")
    exported(results, "0.05")
    card, choice = Path("model/README.md").read_text(), choose(results, "0.05")
    low, high = choice.estimate.low, choice.estimate.high
    assert (
        f"**{choice.estimate.mean:.4g}**, the mean over n = 2 training runs, 95 % interval {low:.4g} to {high:.4g}"
        in card
    )
    assert "Images of 24 x 24 pixels with 3 channels; photos of another shape become so by `crop`" in card
    assert "it takes `pixels`, float32 from 0 to 255 (N, 3, 32, 32)" in card
    assert "resized to 32 x 32" in card and "class 0, class 1, class 2" in card
    assert f"test.accuracy of this very model: {choice.trial.score('test.accuracy'):.4g} (18 images)" in card
    assert "The test images chose nothing" in card
    exported(results)
    card = Path("model/README.md").read_text()
    assert "The condition was chosen by these test images, as the best of 2" in card and "chose nothing:" not in card
    for name in ("README.md", "model.json", "predict.py"):
        assert str(photos) not in Path("model", name).read_text(), name


def test_a_card_escapes_what_others_wrote_and_tells_of_scores_beside_the_scores(
    swept: Callable[..., StudyResults],
) -> None:
    results = swept(TIMM)
    study = replace(results.study, title="<img src=x> *T*")
    results = replace(
        results, study=study, data={**results.data, "class_names": ["<b>", "a_b", "c"], "citation": "<i>"}
    )
    choice = choose(results)
    assert choice.trial.outcome is not None
    noted = replace(choice.trial.outcome, notes=("train.maybe is undefined: no image", "an <oddity>"))
    export(results, replace(choice, trial=replace(choice.trial, outcome=noted)), REGISTRY, Path("data"), Path("model"))
    card = Path("model/README.md").read_text()
    assert card.startswith("# \\<img src=x\\> \\*T\\*\n") and "<" not in card.replace("\\<", "")
    assert "in this order: \\<b\\>, a\\_b, c." in card and "\n\\<i\\>\n" in card
    scores, _, trained_on = card.partition("## What it takes")
    assert "- train.maybe is undefined: no image.\n" in scores and "undefined" not in trained_on
    assert "- an \\<oddity\\>\n" in trained_on


def test_trials_that_did_not_record_their_normalisation_get_it_from_the_data(
    swept: Callable[..., StudyResults], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = swept(TIMM)
    choice = choose(results)
    recorded = choice.trial.outcome.normalization if choice.trial.outcome else None
    older = replace(choice.trial, outcome=replace(choice.trial.outcome, normalization=None))
    choice = replace(choice, trial=older)
    found = export(results, choice, REGISTRY, Path("data"), Path("model")).exported.normalization
    assert recorded is not None and found == recorded
    with pytest.raises(DataError, match="did not record what its images were normalised by"):
        describe(results, choice, REGISTRY, None)


def test_nothing_is_written_over_and_broken_folders_are_named(
    swept: Callable[..., StudyResults], tmp_path: Path
) -> None:
    results = swept(TIMM)
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    with pytest.raises(DataError, match="there are other files in this folder"):
        exported(results, out="other")
    exported(results)
    Path("model/model.onnx").write_text("of another condition")
    exported(results)  # an exported model may be written anew
    assert not Path("model/model.onnx").exists()
    with pytest.raises(
        DataError, match=r"^other: there is no exported model: model\.json: No such file or directory\n"
    ):
        read_exported(Path("other"))
    described = json.loads(Path("model/model.json").read_text())
    Path("model/model.json").write_text(json.dumps({**described, "format": 9}))
    with pytest.raises(DataError, match="format 9, expected 1"):
        read_exported(Path("model"))
    Path("model/model.json").write_text(json.dumps({**described, "class_names": ["a", "b"]}))
    with pytest.raises(DataError, match="are not those of the network"):
        load_exported(Path("model"), REGISTRY)
    Path("model/model.json").write_text(json.dumps(described))
    Path("model/model.safetensors").unlink()
    with pytest.raises(DataError, match="the file is missing"):
        load_exported(Path("model"), REGISTRY)
    with pytest.raises(DataError, match="no such file or folder") as caught:
        photos_in([tmp_path / "absent.png"])
    assert caught.value.problems == (str(tmp_path / "absent.png"),)


def test_a_folder_that_is_not_there_is_told_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path / "nix"), "a.png"]) == 2
    assert "nix: there is no such folder" in " ".join(capsys.readouterr().err.split())


def test_photos_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    described = Exported(
        model=PluginRef(name="mlp"), norm=PluginRef(name="none"), class_names=("a", "b"),
        image=ImageRule(height=8, width=8, channels=1),
    )  # fmt: skip
    with pytest.raises(DataError, match="2 photos cannot be read") as caught:
        pixels_of(described, [tmp_path / "a.png", tmp_path / "b.png"])
    assert len(caught.value.problems) == 2


def test_the_script_reads_photos_as_the_command_does(
    swept: Callable[..., StudyResults], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(TIMM)
    assert main(["model", "photos", "--out", "model"]) == 0
    values = np.random.default_rng(3).integers(0, 65536, (30, 40, 4), dtype=np.uint16)
    narrow = (values >> 8).astype(np.uint8)
    Path("odd").mkdir()
    Image.fromarray(values[..., 0]).save("odd/deep.png")
    Image.fromarray(values[..., 0]).save("odd/clear.png", transparency=int(values[0, 0, 0]))
    Image.fromarray(narrow).save("odd/alpha.png")
    Image.fromarray(narrow[..., 2:]).save("odd/grey alpha.png")
    Image.fromarray(narrow[..., :3]).quantize(8).save("odd/palette.png", transparency=3)
    Image.fromarray(narrow).convert("CMYK").save("odd/ink.tif")
    script, (described, _) = runpy.run_path("model/predict.py"), load_exported(Path("model"), REGISTRY)
    photos = photos_in([Path("odd")])
    for photo, pixels in zip(photos, pixels_of(described, photos), strict=True):
        assert np.array_equal(script["read"](photo), pixels), photo
    Path("odd/broken.png").write_text("no image")
    capsys.readouterr()
    assert main(["predict", "model", "odd"]) == main(["predict", "model", "odd", "--csv"]) == 2
    printed = capsys.readouterr()
    assert [printed.out.count(f"odd/{photo.name}") for photo in photos] == [2] * 6
    assert printed.err.count("1 photo cannot be read") == printed.err.count("odd/broken.png: no image") == 2
    monkeypatch.setattr(sys, "argv", ["predict.py", "odd/broken.png", "odd/deep.png"])
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path("model/predict.py", run_name="__main__")
    printed = capsys.readouterr()
    assert printed.out.startswith("odd/deep.png\tclass ") and "odd/broken.png: cannot identify" in printed.err


def test_input_is_normalised_as_numbers_say() -> None:
    described = Exported(
        model=PluginRef(name="mlp"), norm=PluginRef(name="none"), class_names=("a", "b"),
        image=ImageRule(height=2, width=2, channels=2),
        normalization=Normalization(source="model", mean=(0.5, 0.25), std=(0.5, 2.0)),
    )  # fmt: skip
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
    given = input_of(described)(images)
    assert given[0, :, 0, 0].tolist() == pytest.approx([-1.0, 0.375])


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="the extra onnx is not installed")
@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="the extra onnx is not installed")
@pytest.mark.slow
def test_onnx_gives_the_same_logits(swept: Callable[..., StudyResults], photos: Path) -> None:
    import onnxruntime

    results = swept(TIMM)
    assert main(["model", "photos", "--out", "model", "--onnx"]) == 0
    _, pixels = test_images(photos)
    session = onnxruntime.InferenceSession("model/model.onnx", providers=["CPUExecutionProvider"])
    given = session.run(["logits"], {"pixels": pixels.transpose(0, 3, 1, 2).astype(np.float32)})[0]
    np.testing.assert_allclose(given, choose(results).trial.predictions("test"), atol=1e-4)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["class_names"]) == ["class 0", "class 1", "class 2"] and "0 to 255" in known["pixels"]
    other = nn.Sequential(nn.Flatten(), nn.Linear(24 * 24 * 3, 3))
    with pytest.raises(DataError, match="ONNX gives other logits"):
        onnx_file._held_to(other, torch.rand(3, 3, 24, 24), Path("model/model.onnx"))
    assert not Path("model/model.onnx").exists()


def test_missing_packages_of_onnx_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_file, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    with pytest.raises(BenchkitError, match="ONNX needs onnx, onnxscript, onnxruntime") as caught:
        onnx_file.write_onnx(tmp_path, REGISTRY)
    assert "benchkit[onnx]" in caught.value.hint


def test_photos_are_read_by_the_rules_by_which_the_set_was_prepared(
    swept: Callable[..., StudyResults], photos: Path
) -> None:
    results = swept(TIMM)
    choice, (one, other) = choose(results), sorted(photos.rglob("*.png"))[:2]
    turned, clear = Path("turned.png"), Path("clear.png")
    with Image.open(one) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(turned, exif=exif)
    with Image.open(other) as image:
        image.putalpha(0)
        image.save(clear)
    now = exported(results).exported
    data = {**results.data, "notes": [EARLIER], "sets": []}
    before = exported(replace(results, data=data)).exported
    given = replace(choice.settings.data.dataset, options={**choice.settings.data.dataset.options, "rules": 1})
    asked = describe(
        results, replace(choice, settings=replace(choice.settings, data=replace(choice.settings.data, dataset=given))),
        REGISTRY, None,
    )  # fmt: skip
    assert [one.image.rules for one in (now, before, asked)] == [2, 1, 1]
    plain = pixels_of(before, [one, other])
    assert np.array_equal(pixels_of(before, [turned, clear]), plain), "neither turned nor laid on white"
    script = runpy.run_path("model/predict.py")
    assert np.array_equal(np.stack([script["read"](photo) for photo in (turned, clear)]), plain)
    today = pixels_of(now, [turned, clear])
    assert not np.array_equal(today[0], plain[0]) and (today[1] == 255).all()
