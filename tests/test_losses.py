"""The losses: held against numbers worked by hand and PyTorch's own, and what a study trains and reports by them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import broken_losses as broken
import numpy as np
import pytest
import tiny_study
import torch
from benchkit_figures.training.learning_curves import LearningCurves
from benchkit_figures.training.loss_gap import LossGap
from benchkit_losses.binary_cross_entropy import BinaryCrossEntropy
from benchkit_losses.cross_entropy import CrossEntropy
from benchkit_losses.focal import Focal
from benchkit_regularizers.label_smoothing import LabelSmoothing
from engine_runs import learnt, make_settings, make_splits, small_net
from figure_results import learned
from kit_failures import failure_of
from torch import nn
from torch.nn import functional

from benchkit import NothingToDraw
from benchkit.errors import PluginError, StudyError, TrainingError
from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan, uses_of_settings
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import PluginRef
from benchkit.testing import checks
from benchkit.train.fit import fit
from benchkit.train.run import Plugins, Run, build_run
from benchkit.train.step import learn

KIT = [
    ("scalar", broken.NotFrozen, "a frozen dataclass"),
    ("scalar", broken.EachImage, "a finite float32 scalar"),
    ("finite", broken.LogOfSoftmax, "a finite loss and gradient"),
    ("order", broken.ByPlace, "for both"),
    ("mean", broken.Summed, "the mean of both parts"),
    ("mean", broken.DividedByTargets, "the mean of both parts"),
    ("soft-targets", broken.Hardened, "two values"),
    ("lowers", broken.WrongSign, "a lower loss at 3"),
    ("pure", broken.Random, "one value"),
    ("pure", broken.InPlace, "one value"),
    ("trains", broken.Cut, "a training loss that falls"),
    ("resume", broken.Counts, "four epochs in one go"),
    ("search-range", broken.RefusesItsRange, "an instance"),
    ("recorded", broken.LooksAtNumbers, "steps that can be recorded"),
]
HALVES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def ready(loss: Any, counts: tuple[int, ...]) -> Any:
    return loss.prepare(torch.tensor(counts))


def run_by(loss: Any, regularizers: Any = (), **train: Any) -> Run:
    settings = make_settings(**train)
    plugins = Plugins(model=small_net, norm=nn.BatchNorm2d, loss=loss, regularizers=regularizers)
    return build_run(settings, make_splits(), plugins, seeds=trial_seeds(5, "grid", 0), device="cpu")


@pytest.mark.parametrize(("check", "plugin", "expected"), KIT, ids=[f"{c[0]}-{c[1].__name__}" for c in KIT])
def test_a_broken_loss_is_caught(check: str, plugin: Any, expected: str) -> None:
    assert expected in failure_of("losses", plugin, check).expected


def test_a_loss_that_tells_its_divisor_counts_by_it() -> None:
    dict(checks("losses", broken.TellsItsDivisor))["mean"]()
    dict(checks("losses", CrossEntropy, options={"balanced": True}))["mean"]()


@pytest.mark.parametrize("kind", [CrossEntropy, Focal])
def test_class_weights_give_what_class_indices_give(kind: Any) -> None:
    options = {"gamma": 0.0} if kind is Focal else {}
    loss = ready(kind(class_weights=(20.0, 10.0), **options), (1, 1))
    assert loss(torch.zeros(2, 2), HALVES).item() == pytest.approx(math.log(2), abs=1e-6)  # 0.6931, and not 10.397
    logits, labels = torch.randn(9, 2), torch.arange(9) % 2
    expected = functional.cross_entropy(logits, labels, weight=torch.tensor([20.0, 10.0]))
    assert loss(logits, torch.eye(2)[labels]).item() == pytest.approx(expected.item(), rel=1e-5)
    alone = functional.cross_entropy(logits[:1], labels[:1])  # a batch of one class: weights have no effect
    assert loss(logits[:1], torch.eye(2)[labels[:1]]).item() == pytest.approx(alone.item(), rel=1e-5)


def test_balanced_weights_come_from_train_alone() -> None:
    loss = CrossEntropy(balanced=True).prepare(torch.tensor([6, 3, 1]))
    logits, labels = torch.randn(10, 3), torch.tensor([0] * 6 + [1] * 3 + [2])
    weight = torch.tensor([10 / 18, 10 / 9, 10 / 3])
    expected = functional.cross_entropy(logits, labels, weight=weight)
    assert loss(logits, torch.eye(3)[labels]).item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(TrainingError, match="no image of 1 of 3 classes, first number 1"):
        CrossEntropy(balanced=True).prepare(torch.tensor([6, 0, 1]))
    splits = make_splits()
    uneven = np.concatenate([np.arange(0, 80, 4)] * 3 + [np.arange(80)[np.arange(80) % 4 > 0]])
    train = replace(splits.train, images=splits.train.images[uneven], labels=splits.train.labels[uneven])
    seen: list[list[int]] = []

    class Spy:
        def prepare(self, counts: torch.Tensor) -> Any:
            seen.append(counts.tolist())
            return functional.cross_entropy

    plugins = Plugins(model=small_net, norm=nn.BatchNorm2d, loss=Spy())
    build_run(make_settings(), replace(splits, train=train), plugins,
              seeds=trial_seeds(5, "grid", 0), device="cpu")  # fmt: skip
    assert seen == [[60, 20, 20, 20]]


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TrainingError, match="has 2 numbers: expected 3, one a class"):
        Focal(class_weights=(1.0, 2.0)).prepare(torch.tensor([1, 1, 1]))
    with pytest.raises(PluginError) as caught:
        BinaryCrossEntropy(balanced=True, class_weights=(0.0, 1.0))
    assert len(caught.value.problems) == 2


def test_focal_is_finite_where_the_model_is_sure() -> None:
    logits = torch.tensor([[100.0, 0.0]], requires_grad=True)
    loss = Focal(gamma=0.5)(logits, torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and logits.grad.tolist() == [[0.0, 0.0]]


def test_focal_with_soft_targets() -> None:
    logits, targets = torch.randn(50, 7).double(), torch.rand(50, 7).double()
    targets /= targets.sum(1, keepdim=True)
    p = logits.softmax(1)
    for gamma in (0.5, 1.0, 2.0, 5.0):
        expected = -(targets * (1 - p) ** gamma * p.log()).sum(1).mean()
        assert Focal(gamma=gamma)(logits.float(), targets.float()).item() == pytest.approx(expected.item(), rel=1e-5)
    plain = functional.cross_entropy(logits.float(), targets.float())
    assert abs(Focal(gamma=0)(logits.float(), targets.float()).item() - plain.item()) < 1e-6


def test_binary_cross_entropy_is_a_mean_over_images_and_classes() -> None:
    logits = torch.tensor([[0.0, 2.0]])
    expected = (math.log(2) + math.log(1 + math.exp(2.0))) / 2
    targets = torch.tensor([[1.0, 0.0]])
    assert BinaryCrossEntropy()(logits, targets).item() == pytest.approx(expected, rel=1e-6)
    weighted = ready(BinaryCrossEntropy(class_weights=(3.0, 1.0)), (1, 1))(logits, targets).item()
    assert weighted == pytest.approx((3 * math.log(2) + math.log(1 + math.exp(2.0))) / 4, rel=1e-6)


def test_smoothing_is_applied_once() -> None:
    """It is a regularizer's, whatever the loss; a loss that smooths as well would do it twice."""
    first, second = run_by(Focal(), (("s", LabelSmoothing(smoothing=0.2)),)), run_by(Focal())
    batch = next(iter(first.train.epoch(first.randomness.order)))
    first.model.eval(), second.model.eval()
    smoothed = first.hooks.augments[0](batch, first.randomness.augment)
    logits = second.model(second.input_transform(batch.images))
    expected = Focal()(logits, batch.targets * 0.8 + 0.05)
    assert learn(first, smoothed)[1].item() / len(batch.targets) == pytest.approx(expected.item(), rel=1e-5)
    for kind in (CrossEntropy, Focal, BinaryCrossEntropy):
        assert not any("smooth" in field.name for field in dataclasses.fields(kind))


def test_plain_cross_entropy_trains_to_the_bit_as_ever() -> None:
    usual, plugin = run_by(None), run_by(CrossEntropy())
    assert usual.loss is functional.cross_entropy
    assert [learnt(record) for record in fit(usual)] == [learnt(record) for record in fit(plugin)]


def test_the_reported_loss_stays_cross_entropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = '[factors]\n"train.loss" = ["cross-entropy", { name = "focal", gamma = 2.0 }]\n'
    study = tiny_study.study_of(levels, repeats=1)
    assert tiny_study.sweep_here(monkeypatch, tmp_path, study) == {"done": 2}
    plain, focal = Ledger(tmp_path).trials(make_plan(study))
    assert plain.outcome and focal.outcome
    assert not any("trained by the loss" in note for note in plain.outcome.notes)
    assert any(note.startswith("trained by the loss focal (gamma = 2.0): the training loss") for note in
               focal.outcome.notes)  # fmt: skip
    last = focal.history[-1]
    assert last.train_loss < 0.9 * focal.outcome.metrics["train"].loss  # (1 - p)^2 of it
    assert last.val_loss == pytest.approx(focal.outcome.metrics["val"].loss, rel=0.5)


def test_the_usual_loss_has_no_key_and_uses_no_plugin() -> None:
    usual, named = (make_plan(tiny_study.study_of(text)) for text in ("", '[train.loss]\nname = "cross-entropy"\n'))
    assert [condition.key for condition in usual.conditions] == [condition.key for condition in named.conditions]
    assert not any(use.kind == "losses" for use in uses_of_settings(named.settings_of(named.conditions[0])))
    other = make_plan(tiny_study.study_of('[train.loss]\nname = "cross-entropy"\nbalanced = true\n'))
    assert other.conditions[0].key != usual.conditions[0].key
    assert other.settings_of(other.conditions[0]).train.loss == PluginRef(
        name="cross-entropy", options={"balanced": True}
    )


def test_a_loss_is_checked_with_its_options_and_searched_ends() -> None:
    def problems(*parts: str) -> str:
        with pytest.raises(StudyError) as caught:
            check_plan(make_plan(tiny_study.study_of(*parts)), Registry.installed())
        return "\n".join(caught.value.problems)

    assert "did you mean 'focal'?" in problems('[train.loss]\nname = "fokal"\n')
    assert "train.loss.gama is not an option (did you mean 'gamma'?)" in problems(
        '[train.loss]\nname = "focal"\ngama = 1.0\n'
    )
    searched = '[search]\ntrials = 2\nspace."train.loss.gamma" = { low = 1.0, high = 9.0 }\n'
    assert "search.space.train.loss.gamma: train.loss.gamma = 9.0 is out of range" in problems(
        '[train.loss]\nname = "focal"\n', searched
    )


def test_weights_that_do_not_fit_the_classes_are_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny_study.study_of('[train.loss]\nname = "cross-entropy"\nclass_weights = [1.0, 2.0]\n', repeats=2)
    with pytest.raises(TrainingError) as caught:
        tiny_study.sweep_here(monkeypatch, tmp_path, study)
    assert "train.loss.class_weights has 2 numbers: expected 10, one a class" in str(caught.value)


def test_figures_say_which_loss_was_trained() -> None:
    plain = learned({"a": 0.8, "b": 0.7})
    assert "what was trained by" not in LearningCurves().caption(LearningCurves().data(plain))
    by_focal = [replace(one, settings={**one.settings, "train": {"loss": "focal"}}) for one in plain.conditions]
    results = replace(plain, conditions=tuple(by_focal))
    caption = LearningCurves().caption(LearningCurves().data(results))
    assert "It is what was trained by (focal); validation loss is cross-entropy." in caption
    with pytest.raises(NothingToDraw, match="trained by focal"):
        LossGap().data(results)
