"""Captured and compiled steps on a GPU: `pytest -m gpu tests/test_step_executor_gpu.py` on a machine that has one."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from benchkit_models.resnet import resnet
from benchkit_norms.batch import BatchNorm
from benchkit_norms.batch_instance import BatchInstanceNorm
from benchkit_norms.group import GroupNorm
from benchkit_norms.instance import InstanceNorm
from benchkit_norms.layer import LayerNorm
from benchkit_regularizers.auto_augment import AutoAugment
from benchkit_regularizers.crop_flip import CropFlip
from benchkit_regularizers.cutmix import CutMix
from benchkit_regularizers.dropout import Dropout
from benchkit_regularizers.erasing import Erasing
from benchkit_regularizers.grad_clip import GradClip
from benchkit_regularizers.l1 import L1
from benchkit_regularizers.label_smoothing import LabelSmoothing
from benchkit_regularizers.mixup import Mixup
from benchkit_regularizers.rand_augment import RandAugment
from benchkit_regularizers.resized_crop import ResizedCrop
from benchkit_regularizers.stochastic_depth import StochasticDepth
from engine_runs import make_run, make_settings, make_splits
from step_stand_ins import Reads

from benchkit.train.checkpoint import load_checkpoint, save_checkpoint
from benchkit.train.fit import fit
from benchkit.train.run import Run
from benchkit.train.steps import executor
from benchkit.train.steps.backends import CudaBackend
from benchkit.train.steps.cuda_graph import CudaGraphSteps
from benchkit.train.steps.executor import executor_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CLOSE = {"float32": 2e-3, "bf16": 5e-2, "fp16": 5e-2}
"""The relative difference of two epochs' losses and weights that rounding explains."""


@pytest.fixture(autouse=True)
def chosen_by_agreement_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearse short runs too, and take what agrees, however long it takes: no test depends on a clock."""
    monkeypatch.setattr(executor, "FEWEST", 1)
    monkeypatch.setattr(executor, "FASTER", float("inf"))


def run_of(regularizers: Sequence[Any] = (), *, streamed: bool = False, **train: Any) -> Run:
    """Return a run of a small ResNet with dropout and crop-flip over 520 images: 8 whole batches and one of 8."""
    settings = make_settings(
        **{"epochs": 2, "batch_size": 64, "schedule": {"name": "cosine"}, "compile": "never", **train}
    )
    parts = [("dropout", Dropout(rate=0.3)), ("crop-flip", CropFlip(padding=1)), ("clip", GradClip(max_norm=5.0))]
    more = [(type(one).__name__, one) for one in regularizers]
    splits = make_splits(train=520, val=128, test=64)
    model, device_memory = partial(resnet, n=1, width=8), 0 if streamed else None
    return make_run(settings, splits, model, [*parts, *more], device="cuda", device_memory=device_memory)


def weights(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().float().flatten() for p in run.model.parameters()])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def eagerly(run: Run) -> Run:
    run.eager = "the test asks for it"
    list(fit(run))
    return run


@pytest.mark.parametrize("optimizer", [{}, {"name": "adamw", "lr": 0.004}], ids=["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_captured_steps_agree_with_eager_ones(optimizer: dict[str, Any], precision: str) -> None:
    run = run_of([Mixup()], optimizer=optimizer, precision=precision)
    run.model.train()
    assert isinstance(executor_for(run), CudaGraphSteps), run.notes
    captured, eager = run_of([Mixup()], optimizer=optimizer, precision=precision), None
    list(fit(captured))
    eager = eagerly(run_of([Mixup()], optimizer=optimizer, precision=precision))
    assert captured.notes == []
    for one, other in zip(captured.history, eager.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=CLOSE[precision])
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=10 * CLOSE[precision])
    assert apart(weights(captured), weights(eager)) < 10 * CLOSE[precision]
    drawn = captured.randomness.state(), eager.randomness.state()
    assert torch.equal(drawn[0]["augment"], drawn[1]["augment"])  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(drawn[0]["layers"], drawn[1]["layers"], strict=True))


def test_streamed_images_are_trained_on_by_the_same_graph() -> None:
    placed, streamed = run_of(), run_of(streamed=True)
    streamed.model.train()
    assert isinstance(executor_for(streamed), CudaGraphSteps), streamed.notes
    streamed = run_of(streamed=True)
    for one, other in zip(fit(placed), fit(streamed), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=CLOSE["float32"])
    assert apart(weights(streamed), weights(placed)) < 10 * CLOSE["float32"]
    assert streamed.notes == run_of(streamed=True).notes and len(streamed.notes) == 1


AUGMENTED = (
    AutoAugment(),
    CutMix(),
    Erasing(probability=1.0),
    L1(),
    LabelSmoothing(),
    RandAugment(),
    ResizedCrop(),
    StochasticDepth(rate=0.3),
)


@pytest.mark.parametrize("regularizer", AUGMENTED, ids=lambda one: type(one).__name__)
def test_built_in_regularizers_are_captured(regularizer: Any) -> None:
    run = run_of([regularizer])
    list(fit(run))
    assert run.notes == []


@pytest.mark.parametrize("norm", [BatchNorm, BatchInstanceNorm, InstanceNorm, GroupNorm, LayerNorm])
def test_built_in_norms_are_captured(norm: Any) -> None:
    def model(classes: int, shape: tuple[int, int, int], _: Any) -> Any:
        return resnet(classes, shape, norm, n=1, width=8)

    settings = make_settings(epochs=2, batch_size=64, compile="never", precision="bf16")
    run = make_run(settings, make_splits(train=520), model, device="cuda")
    list(fit(run))
    assert run.notes == []


def test_every_epoch_draws_new_random_numbers() -> None:
    run = run_of()
    records = fit(run)
    states = [run.randomness.state()]
    for _ in range(2):
        next(records)
        states.append(run.randomness.state())
    augment = [state["augment"] for state in states]
    layers = [state["layers"][1] for state in states]
    for drawn in (augment, layers):
        assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])  # type: ignore[arg-type]


def test_replays_with_a_rate_of_zero_still_differ_in_what_they_drop() -> None:
    """One batch that is the whole data set, and no learning: only dropout and augmentation change the loss."""
    settings = make_settings(epochs=4, batch_size=80, optimizer={"lr": 0.0}, compile="never")
    run = make_run(settings, regularizers=[("crop-flip", CropFlip(padding=1))], device="cuda")
    losses = [record.train_loss for record in fit(run)]
    assert run.notes == [] and len(set(losses)) == 4


def test_a_step_that_waits_runs_eagerly_with_a_note() -> None:
    run, eager = run_of([Reads()]), eagerly(run_of([Reads()]))
    list(fit(run))
    (note,) = run.notes
    assert note.startswith("CUDA graph not used: a step waits for the device's results")
    assert run.history[-1].train_loss == pytest.approx(eager.history[-1].train_loss, rel=CLOSE["float32"])


def test_after_a_broken_recording_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The capture itself meets what the look beforehand would have found; random numbers are drawn afterwards."""
    monkeypatch.setattr(CudaBackend, "without_waiting", lambda self: nullcontext())
    run, eager = run_of([Reads()]), eagerly(run_of([Reads()]))
    list(fit(run))
    (note,) = run.notes
    assert note.startswith("CUDA graph not used: a step cannot be recorded")
    assert run.history[-1].train_loss == pytest.approx(eager.history[-1].train_loss, rel=CLOSE["float32"])
    after = run_of()
    list(fit(after))
    assert "an earlier recording of this process broke off" in after.notes[0]
    monkeypatch.setattr(CudaBackend, "broken", False)


def test_a_checkpoint_of_captured_steps_goes_on(tmp_path: Path) -> None:
    whole, first, second = run_of(), run_of(), run_of()
    list(fit(whole))
    next(fit(first))
    save_checkpoint(tmp_path / "checkpoint.pt", first)
    assert load_checkpoint(tmp_path / "checkpoint.pt", second)
    list(fit(second))
    assert second.history[-1].train_loss == pytest.approx(whole.history[-1].train_loss, rel=CLOSE["float32"])
    assert apart(weights(second), weights(whole)) < 10 * CLOSE["float32"]


def test_many_trials_of_one_process_leave_no_graph_behind() -> None:
    left = []
    for _ in range(4):
        run = run_of()
        list(fit(run))
        assert run.notes == []
        del run
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        left.append(torch.cuda.memory_reserved())
    assert left[-1] <= left[1] + 2**21


@pytest.mark.filterwarnings("default")
def test_after_a_compiled_graph_was_given_up_the_plain_one_draws_the_run_s_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled_steps = executor._compiled_steps
    monkeypatch.setattr(executor, "_compiled_steps", lambda *given, **named: compiled_steps(*given, **named) and None)
    run, eager = run_of(compile="always"), eagerly(run_of())
    list(fit(run))
    assert run.notes == ["the model was compiled"]
    drawn = run.randomness.state(), eager.randomness.state()
    assert torch.equal(drawn[0]["augment"], drawn[1]["augment"])  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(drawn[0]["layers"], drawn[1]["layers"], strict=True))
    assert run.history[-1].train_loss == pytest.approx(eager.history[-1].train_loss, rel=CLOSE["float32"])


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_compiled_steps_agree_with_eager_ones(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, names = run_of(compile="always", precision=precision), list(run_of().model.state_dict())
    list(fit(run))
    assert run.notes == ["the model was compiled"]
    eager = eagerly(run_of(precision=precision))
    assert run.history[-1].train_loss == pytest.approx(eager.history[-1].train_loss, rel=2 * CLOSE[precision])
    assert list(run.model.state_dict()) == names
    assert executor.TOLERANCE[precision] < 1
