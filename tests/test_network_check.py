"""Networks are built once and run on two images before anything is trained; weights that changed or do not fit."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
import timm
import tiny_study
import torch
from torch import nn

import benchkit.sweep.estimate
import benchkit.sweep.training
from benchkit.errors import LedgerError, TrainingError
from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.results import FINISHED
from benchkit.study import Study
from benchkit.sweep.messages import Job
from benchkit.sweep.network_check import check_networks
from benchkit.sweep.training import WorkerContext

PLUGIN = """
import torch
from pathlib import Path
from torch import nn

BUILT = Path(__file__).with_name("built.txt")


class Odd(nn.Module):
    def __init__(self, classes, shape, how):
        super().__init__()
        self.how = how
        self.last = nn.Linear(shape[0], classes)

    def forward(self, images):
        logits = self.last(images.mean((2, 3)))
        if self.how == "tuple":
            return logits, logits
        if self.how == "narrow":
            return logits[:, :1]
        if self.how == "fixed" and images.shape[-1] != 64:
            raise AssertionError(f"side {images.shape[-1]} is not 64\\nsecond line")
        return logits


def odd(num_classes, image_shape, norm, /, *, how: str = "fine"):
    with BUILT.open("a") as built:
        built.write(how + "\\n")
    if how == "unbuilt":
        raise ValueError("never")
    return Odd(num_classes, image_shape, how)


PLUGINS = {"benchkit.models": {"odd": odd}}
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "odd.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


def study_with(model: str, factors: str, repeats: int = 2) -> Study:
    text = tiny_study.text_of(f"\n[factors]\n{factors}\n", epochs=1, repeats=repeats)
    return tiny_study.parse_study(text.replace('name = "mlp"\nhidden = [8]', model), name="tiny")


def test_a_network_that_fails_is_one_error_for_all_its_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: Path
) -> None:
    hows = '"model.how" = ["fine", "tuple", "narrow", "fixed", "unbuilt"]\n'
    study = study_with('name = "odd"', hows + '"train.optimizer.lr" = [0.1, 0.2, 0.3, 0.4]\n')
    with pytest.raises(TrainingError) as caught:
        tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(odd,))
    assert caught.value.what == "tiny: 4 of 5 different networks cannot be trained"
    problems = caught.value.problems
    assert len(problems) == 4 and all(" and 1 more: " in problem for problem in problems)
    assert problems[0].endswith(": its model returns a tuple: return logits (N, K), one tensor")
    assert "its model returns float32 (2, 1) for 2 images of 10 classes: return logits (N, K)" in problems[1]
    assert "AssertionError: side 8 is not 64 (odd.py:" in problems[2] and "second" not in problems[2]
    assert problems[2].endswith("; it runs with data.image_size = 64")
    assert "it cannot be built: ValueError: never (odd.py:" in problems[3]
    assert sorted((tmp_path / "built.txt").read_text().split()) == ["fine", "fixed", "narrow", "tuple", "unbuilt"]
    plan = make_plan(study)
    assert not any(trial.state in FINISHED for trial in Ledger(tmp_path / "runs").trials(plan))


def test_networks_whose_trials_have_ended_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: Path
) -> None:
    study = study_with('name = "odd"', '"model.how" = ["fine"]')
    states = tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(odd,))
    assert states == {"done": 2}
    built = (tmp_path / "built.txt").read_text()
    assert built == "fine\n" * 3  # once beforehand, and for each of two trials
    tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(odd,))
    assert (tmp_path / "built.txt").read_text() == built


def test_a_model_of_timm_for_one_size_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_with('name = "timm"\nvariant = "test_vit"', '"train.optimizer.lr" = [0.1, 0.2]')
    with pytest.raises(TrainingError) as caught:
        tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert "timm's 'test_vit' is made for images of 160 x 160 pixels and cannot be for 8 x 8 pixels" in problem
    assert problem.endswith("hint: set data.image_size = 160, or choose another model")


def weights_study(path: Path, repeats: int, model: str = 'name = "timm"\nvariant = "test_resnet"') -> Study:
    named = f'{model}\nweights = "{path}"'
    return study_with(named, '"train.optimizer.lr" = [0.1]', repeats)


def save(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(timm.create_model("test_resnet", num_classes=10, in_chans=1).state_dict(), path)


def test_start_weights_that_were_replaced_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, runs = tmp_path / "current.pth", tmp_path / "runs"
    save(path, 1)
    before = sha256(path.read_bytes()).hexdigest()
    assert tiny_study.sweep_here(monkeypatch, runs, weights_study(path, 1)) == {"done": 1}
    outcome = Ledger(runs).trials(make_plan(weights_study(path, 1)))[0].outcome
    assert outcome is not None and outcome.start_weights == before
    save(path, 2)
    now = sha256(path.read_bytes()).hexdigest()
    with pytest.raises(LedgerError, match=f"sha256 {before[:12]}, now {now[:12]}"):
        tiny_study.sweep_here(monkeypatch, runs, weights_study(path, 2))
    save(path, 1)
    assert tiny_study.sweep_here(monkeypatch, runs, weights_study(path, 2)) == {"done": 2}


def test_trials_of_earlier_versions_tell_their_start_weights_in_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, runs = tmp_path / "current.pth", tmp_path / "runs"
    save(path, 1)
    scored = benchkit.sweep.training._scored
    monkeypatch.setattr(
        benchkit.sweep.training,
        "_scored",
        lambda order, run, *more: (setattr(run, "start_weights", ""), scored(order, run, *more))[1],
    )
    tiny_study.sweep_here(monkeypatch, runs, weights_study(path, 1))
    save(path, 2)
    with pytest.raises(LedgerError, match="was trained from other weights"):
        tiny_study.sweep_here(monkeypatch, runs, weights_study(path, 2))


def test_pretrained_weights_that_were_replaced_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    save(tmp_path / "w.pth", 1)
    url, runs = (tmp_path / "w.pth").as_uri(), tmp_path / "runs"
    model = f'name = "timm"\nvariant = "test_resnet"\npretrained = true\npretrained_url = "{url}"'
    factor = '"train.optimizer.lr" = [0.1]'
    assert tiny_study.sweep_here(monkeypatch, runs, study_with(model, factor, repeats=1)) == {"done": 1}
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "w.pth"
    before = sha256(cached.read_bytes()).hexdigest()
    trial = Ledger(runs).trials(make_plan(study_with(model, factor, repeats=1)))[0]
    assert trial.outcome is not None and trial.outcome.start_weights == before
    save(cached, 2)
    now = sha256(cached.read_bytes()).hexdigest()
    with pytest.raises(LedgerError, match=f"other weights in timm: sha256 {before[:12]}, now {now[:12]}"):
        tiny_study.sweep_here(monkeypatch, runs, study_with(model, factor, repeats=2))
    save(cached, 1)
    assert tiny_study.sweep_here(monkeypatch, runs, study_with(model, factor, repeats=2)) == {"done": 2}


def test_weights_that_do_not_fit_are_told_once_and_briefly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.pth"
    torch.save(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 10)).state_dict(), path)
    for model in ('name = "timm"\nvariant = "test_resnet"', 'name = "resnet"\nn = 1'):
        with pytest.raises(TrainingError) as caught:
            tiny_study.sweep_here(monkeypatch, tmp_path / "runs", weights_study(path, 3, model))
        assert len(caught.value.problems) == 1 and len(caught.value.problems[0]) < 600
        assert ": 0 of its " in caught.value.problems[0] and "0.weight" in caught.value.problems[0]


def test_weights_out_of_reach_are_told_once_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = 'name = "timm"\nvariant = "test_resnet"\npretrained = true\npretrained_url = "http://127.0.0.1:9/w.pth"'
    study = study_with(model, '"train.optimizer.lr" = [0.1, 0.2]', repeats=3)
    with pytest.raises(TrainingError) as caught:
        tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study)
    assert len(caught.value.problems) == 1
    assert "the pretrained weights of timm's 'test_resnet' cannot be loaded" in caught.value.problems[0]


@pytest.mark.parametrize("arguments", [("studies", "check", "vit.toml", "--run"), ("sweep", "vit.toml", "--dry-run")])
def test_commands_that_train_nothing_find_networks_that_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    text = tiny_study.text_of().replace('name = "mlp"\nhidden = [8]', 'name = "timm"\nvariant = "test_vit"')
    (tmp_path / "vit.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(benchkit.sweep.estimate, "Pool", tiny_study.InlinePool)
    assert tiny_study.run_here(monkeypatch, tmp_path, *arguments) == 2
    said = capsys.readouterr()
    assert "vit: 1 of 1 different networks cannot be trained" in said.err
    assert "set data.image_size = 160" in said.err.replace("\n", " ") and "Traceback" not in said.err
    assert tiny_study.run_here(monkeypatch, tmp_path, "studies", "check", "vit.toml") == 0


def test_what_regularizers_warn_of_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # 60 images in batches of 20, 3 epochs: 9 steps, and 0.9^9 = 0.387.
    slow = '[[regularizers]]\nname = "ema"\ndecay = 0.9\nwarm_up = false\n'
    (tmp_path / "slow.toml").write_text(tiny_study.text_of(slow), encoding="utf-8")
    assert tiny_study.run_here(monkeypatch, tmp_path, "studies", "check", "slow.toml", "--run") == 0
    assert "warning: ema: 38.7% of the average after 9 steps is the first weights" in capsys.readouterr().err


def test_passes_that_a_precision_cannot_take_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tiny_study.text_of('[[regularizers]]\nname = "sam"\n').replace('"float32"', '"fp16"')
    (tmp_path / "passes.toml").write_text(text, encoding="utf-8")
    assert tiny_study.run_here(monkeypatch, tmp_path, "studies", "check", "passes.toml", "--run") == 2
    assert "fp16 with a regularizer that takes each step in two passes" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("tables", "overrides", "reason"),
    [
        ("", (), ""),
        (
            '[[regularizers]]\nname = "sam"\n',
            (),
            "train.precision = fp16 with a regularizer that takes each step in two",
        ),
        ('[[regularizers]]\nname = "ema"\n', (), "the state of ema stays where fp16 skips a step"),
        ("", ("train.optimizer.name=timm:lion",), "its optimizer timm:lion is none that benchkit records"),
    ],
    ids=["recorded", "sam", "ema", "optimizer"],
)
def test_what_keeps_steps_in_fp16_from_being_recorded_is_found(
    tables: str, overrides: tuple[str, ...], reason: str
) -> None:
    factor = '[factors]\n"train.optimizer.lr" = [0.1, 0.3]\n'
    study = tiny_study.study_of(tables, factor, overrides=overrides)
    job = Job(task="check", study=study, conditions=make_plan(study).conditions, data_root=tiny_study.DATA)
    found = check_networks(WorkerContext(job=job, device="cpu", registry=Registry.installed()))
    assert found.problems == () and found.unrecorded.startswith(reason) and bool(reason) == bool(found.unrecorded)
