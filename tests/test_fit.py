"""The training loop against a plain loop written by hand, and what it promises about stopping and diverging."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from engine_runs import Flip, StopAfter, learnt, make_run, make_settings, make_splits, plain_net, small_net
from tiny_study import study_of
from torch import nn
from torch.nn import functional

from benchkit import Batch, TrainingError
from benchkit.errors import DivergedError, StudyError
from benchkit.study.seeds import derive_seed
from benchkit.train.device import has_bf16
from benchkit.train.fit import epoch_means, fit

RECORDED = (1.31322, 0.74362, 0.22445)
"""Train losses of the default test run, float32 on one thread."""


def hand_written(epochs: int, seed: int = 5, batch_size: int = 16, lr: float = 0.05) -> list[tuple[float, float]]:
    """Return (train loss, val loss) per epoch of an ordinary PyTorch loop over the same images in the same order."""
    splits = make_splits()
    torch.manual_seed(derive_seed(seed, "grid", 0, "init"))
    model = plain_net(4, (3, 8, 8), nn.BatchNorm2d)
    order = torch.Generator().manual_seed(derive_seed(seed, "grid", 0, "order"))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    pictures = {name: getattr(splits, name).images for name in ("train", "val")}
    pictures = {name: torch.from_numpy(images).permute(0, 3, 1, 2) / 255 for name, images in pictures.items()}
    labels = {name: torch.from_numpy(getattr(splits, name).labels) for name in ("train", "val")}
    mean = pictures["train"].mean((0, 2, 3), keepdim=True)
    std = pictures["train"].double().std((0, 2, 3), correction=0, keepdim=True).float()
    losses = []
    for _ in range(epochs):
        model.train()
        total = 0.0
        for index in torch.randperm(len(labels["train"]), generator=order).split(batch_size):
            loss = functional.cross_entropy(model((pictures["train"][index] - mean) / std), labels["train"][index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
        model.eval()
        with torch.no_grad():
            val = functional.cross_entropy(model((pictures["val"] - mean) / std), labels["val"]).item()
        losses.append((total / len(labels["train"]), val))
    return losses


def test_the_loop_equals_a_plain_one() -> None:
    ours = [(record.train_loss, record.val_loss) for record in fit(make_run(model=plain_net))]
    assert ours == [pytest.approx(pair, abs=1e-6) for pair in hand_written(3)]


def test_the_loop_learns() -> None:
    records = list(fit(make_run(make_settings(epochs=12, precision="float32"))))
    assert [record.epoch for record in records] == list(range(1, 13))
    assert records[-1].val_accuracy > 0.9
    assert all(record.seconds > 0 and record.images_per_second > 0 and record.peak_memory > 1 for record in records)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_two_runs_with_one_seed_are_identical(precision: str) -> None:
    settings = make_settings(precision=precision)
    first, second = (
        make_run(settings, regularizers=[("flip", Flip())]),
        make_run(settings, regularizers=[("flip", Flip())]),
    )
    torch.rand(7)
    assert [learnt(record) for record in fit(first)] == [learnt(record) for record in fit(second)]
    states = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_process_and_the_run_do_not_disturb_each_others_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run = make_run()
    quiet = [learnt(record) for record in fit(run)]
    assert torch.equal(torch.rand(4), expected)
    noisy = []
    for record in fit(make_run()):
        noisy.append(learnt(record))
        torch.manual_seed(record.epoch)
    assert noisy == quiet


def test_a_parameters_rate_factor_multiplies_its_learning_rate() -> None:
    def rated(*arguments: Any) -> nn.Module:
        model = plain_net(*arguments)
        vars(model[0].weight)["rate_factor"] = 0.25
        vars(model[1].weight)["rate_factor"] = 0.0
        return model

    def change(model: Any) -> dict[str, torch.Tensor]:
        """Return what one step of plain gradient descent, over all images at once, adds to each parameter."""
        run = make_run(make_settings(epochs=1, batch_size=80, optimizer={"momentum": 0.0}), model=model)
        start = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
        list(fit(run))
        return {name: parameter.detach() - start[name] for name, parameter in run.model.named_parameters()}

    plain, ours = change(plain_net), change(rated)
    assert plain["0.weight"].abs().max() > 1e-4
    torch.testing.assert_close(ours["0.weight"], 0.25 * plain["0.weight"], atol=1e-7, rtol=1e-3)
    assert ours["1.weight"].count_nonzero() == 0 and plain["1.weight"].count_nonzero() > 0
    torch.testing.assert_close(ours["1.bias"], plain["1.bias"])


def test_an_epochs_learning_rate_is_that_of_its_last_step() -> None:
    # lr * (1 + cos(pi * step / 15)) / 2 for steps 4, 9 and 14: three epochs of 80 images in batches of 16.
    settings = make_settings(optimizer={"lr": 0.2}, schedule={"name": "cosine"})
    rates = [record.learning_rate for record in fit(make_run(settings))]
    assert rates == pytest.approx([0.1669131, 0.0690983, 0.0021852], abs=1e-7)


def test_repeats_differ() -> None:
    losses = {next(fit(make_run(repeat=repeat))).train_loss for repeat in range(3)}
    assert len(losses) == 3


def test_a_recorded_loss_curve_is_kept() -> None:
    losses = [record.train_loss for record in fit(make_run())]
    assert losses == pytest.approx(RECORDED, abs=1e-4)


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="the processor has no bf16")
def test_auto_precision_is_bf16_where_the_processor_has_it() -> None:
    run = make_run(make_settings(precision="auto"))
    assert run.precision.name == "bf16"
    assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())


def test_fp16_scales_the_loss_and_still_learns() -> None:
    records = list(fit(make_run(make_settings(precision="fp16", epochs=6))))
    assert records[-1].train_loss < records[0].train_loss
    assert math.isfinite(records[0].gradient_norm)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_the_loop_learns_on_cuda_from_the_same_start(precision: str) -> None:
    settings = make_settings(epochs=12, precision=precision)
    run = make_run(settings, model=plain_net, device="cuda")
    start = make_run(settings, model=plain_net).model.state_dict()
    assert all(torch.equal(tensor.cpu(), start[name]) for name, tensor in run.model.state_dict().items())
    records = list(fit(run))
    assert records[-1].val_accuracy > 0.9
    with pytest.raises(DivergedError, match="epoch 1"):
        list(fit(make_run(make_settings(optimizer={"lr": 1e30}), model=plain_net, device="cuda")))


def test_a_stop_ends_training_and_stays_in_force() -> None:
    run = make_run(make_settings(epochs=9), regularizers=[("stop", StopAfter(2))])
    assert len(list(fit(run))) == 2
    assert list(fit(run)) == []


def test_a_diverging_loss_names_epoch_and_step() -> None:
    run = make_run(make_settings(optimizer={"lr": 1e30}))
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) in step [23] of epoch 1"):
        list(fit(run))


def test_the_epochs_table_finds_the_first_broken_step_on_any_device() -> None:
    steps = [torch.tensor([2.0, 1.0, 1.0, 1.0]), torch.tensor([2.0, math.nan, 0.0, 1.0])]
    with pytest.raises(DivergedError, match="loss is nan in step 2 of epoch 4"):
        epoch_means(steps, 4)


def test_epoch_means_weigh_batches_by_their_images_and_skip_overflowed_norms() -> None:
    steps = [torch.tensor([3.0, 6.0, 3.0, math.inf]), torch.tensor([1.0, 4.0, 0.0, 5.0])]
    assert epoch_means(steps, 1) == (2.5, 0.75, 5.0)


def test_a_validation_loss_that_is_not_finite_is_divergence() -> None:
    run = make_run(make_settings(batch_size=80, optimizer={"lr": 1e30}))
    with pytest.raises(DivergedError, match=r"validation loss is .* after epoch 1"):
        list(fit(run))


class Gate(nn.Module):
    """A scale that is kept in [0, 0.5]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.gate[:, None, None]

    def constrain(self) -> None:
        with torch.no_grad():
            self.gate.clamp_(0, 0.5)


def test_constraints_hold_after_every_step() -> None:
    run = make_run(model=lambda classes, shape, norm: small_net(classes, shape, Gate))
    next(fit(run))
    assert float(run.model[1].gate.detach().max()) <= 0.5  # type: ignore[index, union-attr, arg-type]


@dataclass(slots=True)
class Witness:
    """A regularizer with every method, that notes the order of the calls."""

    calls: list[str]

    def optimizer_options(self) -> dict[str, Any]:
        self.calls.append("optimizer_options")
        return {"weight_decay": 0.5}

    def prepare(self, model: nn.Module) -> nn.Module:
        self.calls.append("prepare")
        return model

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        self.calls.append("augment")
        assert batch.images.shape[1:] == (3, 8, 8)
        assert 0 <= float(batch.images.min()) and float(batch.images.max()) <= 1
        assert torch.equal(batch.targets.sum(1), torch.ones(len(batch.targets)))
        return batch

    def penalty(self, model: nn.Module) -> torch.Tensor:
        self.calls.append("penalty")
        return torch.tensor(7.0)

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        self.calls.append("clip")
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.zero_()

    def stop(self, history: Any) -> bool:
        self.calls.append("stop")
        return False


def test_regularizers_act_at_their_lines_of_the_loop() -> None:
    witness = Witness([])
    run = make_run(make_settings(epochs=1, batch_size=80), regularizers=[("witness", witness)], model=plain_net)
    record = next(fit(run))
    assert witness.calls == ["prepare", "optimizer_options", "augment", "penalty", "clip"]
    plain = next(fit(make_run(make_settings(epochs=1, batch_size=80), model=plain_net)))
    assert record.train_loss == pytest.approx(plain.train_loss + 7.0, abs=1e-5)
    assert record.gradient_norm == pytest.approx(plain.gradient_norm, abs=1e-6)
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.5


def test_conflicting_optimizer_options_are_refused_all_at_once() -> None:
    class Momentum:
        def optimizer_options(self) -> dict[str, Any]:
            return {"momentum": 0.5, "weight_decay": 0.1}

    with pytest.raises(TrainingError) as caught:
        make_run(regularizers=[("witness", Witness([])), ("second", Momentum())])
    assert "momentum is set by train.optimizer and by the regularizer 'second'" in str(caught.value)
    assert "weight_decay is set by the regularizer 'witness' and by the regularizer 'second'" in str(caught.value)


def test_wrong_settings_never_reach_the_engine_and_are_refused_all_at_once() -> None:
    wrong = {
        "train.epochs=0": "got 0, expected at least 1",
        "train.threads=0": "got 0, expected at least 1",
        "train.select=bets": "(did you mean 'best'?)",
        "train.select_by=val.los": "(did you mean 'val.loss'?)",
        "train.precision=bf61": "(did you mean 'bf16'?)",
        "train.compile=alway": "(did you mean 'always'?)",
        "train.schedule.every=0": "got 0, expected at least 1",
        "train.schedule.warmup=1.5": "got 1.5, expected 0 to 1",
    }
    with pytest.raises(StudyError) as caught:
        study_of(overrides=tuple(wrong))
    assert len(caught.value.problems) == len(wrong)
    for override, words in wrong.items():
        key = override.partition("=")[0]
        assert any(line.startswith(f"{key}: ") and line.endswith(words) for line in caught.value.problems), key
