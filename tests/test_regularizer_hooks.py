"""What regularizers do beyond one pass and one batch: two passes, averages, noise, sampling, states."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchkit_regularizers.class_balance import BalancedSampling, quotas
from benchkit_regularizers.cutmix import CutMix
from benchkit_regularizers.ema import Ema
from benchkit_regularizers.grad_clip import GradClip
from benchkit_regularizers.gradient_noise import GradientNoise
from benchkit_regularizers.label_smoothing import LabelSmoothing
from benchkit_regularizers.mixup import Mixup
from benchkit_regularizers.sam import Sam
from engine_runs import learnt, make_run, make_settings, make_splits, plain_net, unbalanced
from torch import nn
from torch.nn import functional

from benchkit import Batch, TrainingError
from benchkit.testing.stand_in_gpu import stand_in_gpu
from benchkit.train.checkpoint import load_checkpoint, save_checkpoint
from benchkit.train.evaluate import finish, logits_of
from benchkit.train.fit import fit
from benchkit.train.run import Run
from benchkit.train.step import augmented, learn


def first_batch(run: Run, count: int = 16) -> Batch:
    return run.train.batch(run.train.batch_index(torch.arange(count)))


def state_of(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def finished(run: Run) -> Run:
    for _ in fit(run):
        pass
    return run


def test_sam_is_the_step_that_two_plain_passes_make_by_hand() -> None:
    run = make_run(make_settings(optimizer={"momentum": 0.0}), model=plain_net, regularizers=[("sam", Sam(rho=0.1))])
    run.model.train()
    plain, batch = copy.deepcopy(run.model), first_batch(run)
    images, labels = run.input_transform(batch.images), batch.targets.argmax(1)
    start = [parameter.detach().clone() for parameter in plain.parameters()]
    gradients = torch.autograd.grad(functional.cross_entropy(plain(images), labels), list(plain.parameters()))
    moved = {name: tensor.clone() for name, tensor in plain.named_buffers()}
    norm = float(np.sqrt(sum(float(one.double().square().sum()) for one in gradients)))
    with torch.no_grad():
        for parameter, gradient in zip(plain.parameters(), gradients, strict=True):
            parameter.add_(gradient, alpha=0.1 / norm)
    climbed = torch.autograd.grad(functional.cross_entropy(plain(images), labels), list(plain.parameters()))
    run.optimizer.param_groups[0]["lr"] = 0.05
    summary = learn(run, batch)
    assert float(summary[3]) == pytest.approx(norm, rel=1e-5)  # of the first pass
    for parameter, before, gradient in zip(run.model.parameters(), start, climbed, strict=True):
        assert torch.allclose(parameter, before - 0.05 * gradient, rtol=1e-4, atol=1e-7)
    for name, tensor in run.model.named_buffers():  # the statistics of one pass
        assert torch.allclose(tensor, moved[name], rtol=1e-6), name


@dataclass(frozen=True, slots=True)
class Shake:
    """Climb far away, take the gradients there or do not, and put nothing back."""

    passes: int = 0

    def around_step(self, parameters: Sequence[nn.Parameter], again: Callable[[], None]) -> None:
        first = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
        for _ in range(self.passes):
            again()
            assert all(torch.equal(one, p.grad) for one, p in zip(first, parameters, strict=True) if p.grad is not None)
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(3.7).add_(11)


def test_a_pass_repeats_the_first_and_weights_and_random_numbers_come_back_to_the_bit() -> None:
    # The network has dropout: other draws in the second pass would be other gradients, which Shake refuses.
    plain, shaken = finished(make_run()), finished(make_run(regularizers=[("shake", Shake(passes=2))]))
    assert [learnt(one) for one in shaken.history] == [learnt(one) for one in plain.history]
    assert all(torch.equal(one, state_of(plain)[name]) for name, one in state_of(shaken).items())
    assert torch.equal(shaken.randomness.layers[0], plain.randomness.layers[0])


def test_targets_are_smoothed_once_whatever_mixes_them() -> None:
    mixing = [("mixup", Mixup(alpha=1.0)), ("cutmix", CutMix(alpha=1.0))]
    for named in ([], mixing[:1], mixing[1:], mixing):
        run = make_run(regularizers=[*named, ("smooth", LabelSmoothing(smoothing=0.1))])
        targets = augmented(run, first_batch(run)).targets
        assert targets.shape == (16, 4) and torch.allclose(targets.sum(1), torch.ones(16))
        # Of 4 classes, 0.1 / 4 each, and the rest to the image's own, or to those of the pair that was mixed.
        assert targets.min().item() == pytest.approx(0.025, abs=1e-6) and targets.max() <= 0.925 + 1e-6
        rest = (targets - 0.025).clamp(min=0).sum(1)
        assert torch.allclose(rest, torch.full((16,), 0.9), atol=1e-6)


@dataclass(frozen=True, slots=True)
class Nothing:
    """Lower nothing: every gradient is 0."""

    def loss(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert logits.shape == targets.shape
        return loss * 0 + 3


def test_a_gradient_of_zero_climbs_nowhere() -> None:
    run = make_run(regularizers=[("sam", Sam()), ("nothing", Nothing())], model=plain_net)
    run.model.train()
    before = [parameter.detach().clone() for parameter in run.parameters]
    summary = learn(run, first_batch(run))
    assert float(summary[1]) == 3 * 16 and float(summary[3]) == 0
    assert all(torch.equal(one, other) for one, other in zip(run.parameters, before, strict=True))


def test_two_passes_run_eagerly_and_are_refused_in_fp16() -> None:
    assert "Sam takes each step in two passes" in make_run(regularizers=[("sam", Sam())]).eager
    with pytest.raises(TrainingError, match="fp16 with a regularizer that takes each step in two passes"):
        make_run(make_settings(precision="fp16"), regularizers=[("sam", Sam())])


def test_two_that_do_what_one_can_are_refused_together() -> None:
    pairs = [(name, made) for name in ("one", "two") for made in (Sam(), Ema(), BalancedSampling())]
    named = [(f"{name}-{type(made).__name__}", made) for name, made in pairs]
    with pytest.raises(TrainingError) as caught:
        make_run(regularizers=named)
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        f"one-{kind} and two-{kind}" for kind in ("Sam", "BalancedSampling", "Ema")
    ]


def test_the_average_follows_the_weights_by_its_formula() -> None:
    run = make_run(regularizers=[("ema", Ema(decay=0.6))], model=plain_net)
    run.model.train()
    expected = {name: tensor.double() for name, tensor in run.model.state_dict().items()}
    for step in range(12):
        learn(run, first_batch(run))
        decay = min(0.6, (1 + step) / (10 + step))
        for name, tensor in run.model.state_dict().items():
            mean = decay * expected[name] + (1 - decay) * tensor.double()
            expected[name] = mean if tensor.is_floating_point() else tensor.double()
    assert run.hooks.averaged is not None
    found = run.hooks.averaged(run.model)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor.double(), expected[name], rtol=1e-5, atol=1e-7), name
    counted = [tensor for name, tensor in found.items() if name.endswith("num_batches_tracked")]
    assert [(one.dtype, int(one)) for one in counted] == [(torch.int64, 12)]


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_average_is_what_is_judged_selected_kept_and_tested(select: str) -> None:
    seen: list[tuple[float, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    run = make_run(make_settings(select=select), regularizers=[("ema", Ema(decay=0.9))])
    for record in fit(run):
        assert run.hooks.averaged is not None
        average = {name: tensor.clone() for name, tensor in run.hooks.averaged(run.model).items()}
        seen.append((record.val_loss, average, state_of(run)))
    judge = make_run()
    for loss, average, trained in seen:
        assert not all(torch.equal(average[name], tensor) for name, tensor in trained.items())
        judge.model.load_state_dict(average)
        logits = logits_of(judge, judge.val)
        assert loss == pytest.approx(float(functional.cross_entropy(logits, judge.val.labels)), abs=1e-7)
    chosen = min(range(3), key=lambda at: seen[at][0]) if select == "best" else 2
    ended = finish(run)
    assert ended.selected_epoch == chosen + 1
    kept = state_of(run)
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[chosen][1].items())
    judge.model.load_state_dict(kept)
    assert np.array_equal(ended.logits["test"], logits_of(judge, judge.test).numpy())


def test_before_the_first_step_and_at_decay_0_the_average_is_the_model() -> None:
    run = make_run(regularizers=[("ema", Ema(decay=0))])
    for _ in range(2):
        assert run.hooks.averaged is not None
        averaged = run.hooks.averaged(run.model)
        assert all(torch.equal(averaged[name], tensor) for name, tensor in run.model.state_dict().items())
        run.model.train()
        learn(run, first_batch(run))


def test_an_average_that_is_mostly_the_start_warns() -> None:
    model = nn.Linear(2, 2)
    long = Ema(decay=0.9999, warm_up=False)
    assert long.left_of_start(750) == pytest.approx(0.9277, abs=1e-4)
    assert "92.8% of the average after 750 steps is the first weights" in long.start(model, 75, 10).warnings[0]
    assert long.start(model, 75, 1000).warnings == ()  # 0.9999^75,000 = 0.0006
    assert Ema(decay=0.9999).start(model, 75, 10).warnings == ()  # warmed up
    assert "of decay 0.988142 in the last of 750 steps" in Ema(decay=0.9999).start(model, 75, 10).notes[0]


STATES: dict[str, list[tuple[str, Any]]] = {
    "ema": [("ema", Ema(decay=0.9))],
    "sam": [("sam", Sam())],
    "noise": [("clip", GradClip(max_norm=1.0)), ("noise", GradientNoise(strength=0.01))],
    "balance": [("balance", BalancedSampling())],
    "all": [("ema", Ema()), ("sam", Sam()), ("noise", GradientNoise()), ("balance", BalancedSampling(strength=0.5))],
}


@pytest.mark.parametrize("named", STATES.values(), ids=STATES)
def test_a_run_that_is_killed_after_any_epoch_goes_on_to_the_bit(tmp_path: Path, named: list[tuple[str, Any]]) -> None:
    settings = make_settings(accumulate=2, batch_size=8)
    whole = make_run(settings, regularizers=named)
    for record in fit(whole):
        save_checkpoint(tmp_path / f"{record.epoch}", whole)
    expected = state_of(whole), whole.state()["regularizers"]
    for epoch in (1, 2, 3):
        resumed = make_run(settings, regularizers=named)
        assert load_checkpoint(tmp_path / f"{epoch}", resumed)
        finished(resumed)
        assert [learnt(one) for one in resumed.history] == [learnt(one) for one in whole.history]
        assert all(torch.equal(one, expected[0][name]) for name, one in state_of(resumed).items())
        for name, kept in resumed.state()["regularizers"].items():
            assert all(torch.equal(tensor, expected[1][name][key]) for key, tensor in kept.items())


@pytest.mark.parametrize("name", ["ema", "noise", "balance"])
def test_recorded_steps_do_what_single_ones_do_and_a_rehearsal_leaves_no_trace(name: str, tmp_path: Path) -> None:
    settings = make_settings(optimizer={"lr": 2**-6}, compile="never", epochs=2)
    with stand_in_gpu() as gpu:
        recorded, single, resumed = (make_run(settings, make_splits(val=16), plain_net, STATES[name]) for _ in range(3))
        for record in fit(recorded, gpu):
            save_checkpoint(tmp_path / f"{record.epoch}", recorded)
        finished(single)
        load_checkpoint(tmp_path / "1", resumed)
        assert len(list(fit(resumed, gpu))) == 1
        assert gpu.replays > 0 and not [note for note in recorded.notes + resumed.notes if "CUDA" in note]
    for other in (single, resumed):
        for one, expected in zip(recorded.history, other.history, strict=True):
            assert learnt(one) == pytest.approx(learnt(expected), rel=1e-6)
        for key, kept in recorded.state()["regularizers"].items():
            for entry, tensor in kept.items():
                assert torch.allclose(tensor, other.state()["regularizers"][key][entry], rtol=1e-5, atol=1e-7), entry
    if name == "ema":
        assert int(recorded.hooks.states["ema"].updates) == 2 * 5


@pytest.mark.slow
def test_compiled_steps_move_the_average_as_eager_ones_do_and_go_on_to_the_bit(tmp_path: Path) -> None:
    always, never = (make_settings(compile=way, epochs=2) for way in ("always", "never"))
    compiled, eager, resumed = (
        make_run(one, model=plain_net, regularizers=STATES["ema"]) for one in (always, never, always)
    )
    for record in fit(compiled):
        save_checkpoint(tmp_path / f"{record.epoch}", compiled)
    finished(eager)
    load_checkpoint(tmp_path / "1", resumed)
    finished(resumed)
    assert [learnt(one) for one in resumed.history] == [learnt(one) for one in compiled.history]
    kept = (run.hooks.states["ema"].state_dict() for run in (resumed, compiled))
    assert all(torch.equal(*pair) for pair in zip(*(one.values() for one in kept), strict=True))
    assert any("compiled" in note and "not used" not in note for note in compiled.notes), compiled.notes
    states = [run.hooks.states["ema"].state_dict() for run in (compiled, eager)]
    assert int(states[0]["updates"]) == int(states[1]["updates"]) == 10
    for name, tensor in states[1].items():
        assert torch.allclose(states[0][name], tensor, rtol=1e-3, atol=1e-4), name


class Counted:
    """A state that is no module."""

    def __init__(self) -> None:
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


@dataclass(frozen=True, slots=True)
class Witness:
    """Count the steps in a state, by each of the hooks that get it."""

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> Counted:
        assert (steps_per_epoch, epochs) == (5, 3)
        return Counted()

    def penalty(self, model: nn.Module, state: Counted) -> torch.Tensor:
        return torch.zeros(())

    def stop(self, history: Sequence[Any], state: Counted) -> bool:
        return state.steps >= 10

    def after_step(self, model: nn.Module, state: Counted) -> None:
        assert not torch.is_grad_enabled()
        state.steps += 1


def test_any_state_is_kept_and_its_steps_run_eagerly(tmp_path: Path) -> None:
    run = make_run(make_settings(compile="always"), regularizers=[("witness", Witness())])
    assert next(fit(run)).epoch == 1
    assert "compiled model not used: the state of witness is no torch.nn.Module; steps ran eagerly" in run.notes
    save_checkpoint(tmp_path / "checkpoint", run)
    resumed = make_run(regularizers=[("witness", Witness())])
    load_checkpoint(tmp_path / "checkpoint", resumed)
    assert len(finished(resumed).history) == 2  # stopped by what it kept
    with pytest.raises(TrainingError, match="states of other regularizers: witness, expected none"):
        load_checkpoint(tmp_path / "checkpoint", make_run())


def test_a_step_that_fp16_skips_moves_no_state() -> None:
    run = make_run(make_settings(precision="fp16"), regularizers=STATES["ema"])
    assert "ema stays where fp16 skips a step" in run.eager
    run.model.train()
    assert run.precision.scaler is not None
    run.precision.scaler.scale(torch.ones(()))  # which makes its scale
    run.precision.scaler.update(2.0**100)
    learn(run, first_batch(run))
    assert int(run.hooks.states["ema"].updates) == 0
    run.precision.scaler.update(2.0)
    learn(run, first_batch(run))
    assert int(run.hooks.states["ema"].updates) == 1


def test_noise_has_the_variance_of_its_step_and_the_recorded_norm_is_without_it() -> None:
    noise = GradientNoise(strength=0.04)
    weight = nn.Parameter(torch.zeros(200_000))
    state = noise.start(nn.ParameterList([weight]), 1, 1)
    torch.manual_seed(3)
    for step in range(3):
        weight.grad = torch.full_like(weight, 2.0)
        noise.clip([weight], state)
        assert weight.grad.mean().item() == pytest.approx(2, abs=0.01)
        assert weight.grad.var().item() == pytest.approx(0.04 / (1 + step) ** 0.55, rel=0.03)
    runs = [make_run(model=plain_net, regularizers=named) for named in ([], [("noise", GradientNoise(strength=100))])]
    for run in runs:
        run.model.train()
    norms = [float(learn(run, first_batch(run))[3]) for run in runs]
    assert norms[0] == norms[1]


def test_a_balanced_epoch_has_every_class_equally_often_and_spares_no_image_before_its_time() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    generator = torch.Generator().manual_seed(1)
    before = torch.get_rng_state()
    drawn = BalancedSampling().batch_sampling(labels, 3, 100, generator)
    assert torch.equal(torch.get_rng_state(), before) and not torch.equal(generator.get_state(), before)
    assert torch.equal(drawn, BalancedSampling().batch_sampling(labels, 3, 100, torch.Generator().manual_seed(1)))
    assert drawn.shape == (100,) and sorted(torch.bincount(labels[drawn]).tolist()) == [33, 33, 34]
    often = torch.bincount(drawn, minlength=100)
    assert often[:60].max() == 1 and set(often[60:90].tolist()) <= {1, 2} and set(often[90:].tolist()) <= {3, 4}
    assert quotas(torch.tensor([64, 16, 4]), 70, 0.5, generator).tolist() == [40, 20, 10]  # by roots 8, 4 and 2
    with pytest.raises(TrainingError, match="no image of 1 of 4 classes, first number 3"):
        BalancedSampling().batch_sampling(labels, 4, 100, generator)


def test_a_balanced_run_trains_as_many_images_and_says_what_its_accuracy_is_of() -> None:
    run = make_run(splits=unbalanced((20, 10, 5, 5)), regularizers=STATES["balance"])
    seen = torch.cat([batch.targets.argmax(1) for batch in run.train.epoch(torch.Generator().manual_seed(0))])
    assert torch.bincount(seen).tolist() == [10, 10, 10, 10]
    assert "balance draws the images of an epoch: its training accuracy is on those that it draws" in run.notes
