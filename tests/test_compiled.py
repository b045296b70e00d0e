"""Models compiled for the CPU: the numbers of eager steps, and the same bits after an interruption."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchkit_models.resnet import resnet
from benchkit_norms.batch_instance import BatchInstanceNorm
from benchkit_norms.group import GroupNorm
from engine_runs import learnt, make_run, make_settings, make_splits
from torch import nn

from benchkit.results import WAS_COMPILED
from benchkit.train.checkpoint import load_checkpoint, save_checkpoint
from benchkit.train.compiler import cpp_compiler, without_its_own_warnings
from benchkit.train.fit import fit
from benchkit.train.run import Run
from benchkit.train.step import augmented, train_step
from benchkit.train.steps.backends import StepBackend
from benchkit.train.steps.compiled import PlanewiseBatchNorm2d, sum_by_planes

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "gn": lambda channels: GroupNorm(channels, groups=2),
}


def run_of(compile: str, norm: str) -> Run:
    """Return the run of a small residual network, whose smaller last batch is not compiled."""
    settings = make_settings(batch_size=24, epochs=2, compile=compile, optimizer={"momentum": 0.9})
    return make_run(settings, model=lambda *given: resnet(*given[:2], LAYERS[norm], n=1, width=4))


@pytest.mark.slow
@pytest.mark.skipif(not cpp_compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("norm", LAYERS)
def test_a_model_compiled_for_the_cpu_trains_as_eagerly_and_goes_on_to_the_bit(
    norm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled-models"))
    eager, whole, first, second = (run_of(compile, norm) for compile in ("never", "always", "always", "always"))
    expected = torch.tensor([learnt(record) for record in fit(eager)])
    with without_its_own_warnings():
        history = [learnt(record) for record in fit(whole)]
        begun = [learnt(next(fit(first)))]
        save_checkpoint(tmp_path / "checkpoint.pt", first)
        assert load_checkpoint(tmp_path / "checkpoint.pt", second)
        assert begun + [learnt(record) for record in fit(second)] == history
    assert all(run.notes == [WAS_COMPILED] for run in (whole, first, second))
    torch.testing.assert_close(torch.tensor(history), expected, rtol=1e-3, atol=1e-5)


OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "plain": {"affine": False},
    "own momentum": {"momentum": 0.3, "eps": 1e-3},
    "average": {"momentum": None},
    "no running": {"track_running_stats": False},
    "double": {"dtype": torch.float64},
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_batch_norm_summed_by_planes_is_pytorchs(options: dict[str, Any], training: bool) -> None:
    torch.manual_seed(1)
    layer = nn.BatchNorm2d(5, **options).train(training)
    if layer.affine:
        nn.init.uniform_(layer.weight)
        nn.init.uniform_(layer.bias)
    ours = copy.deepcopy(layer)
    sum_by_planes(nn.Sequential(ours))
    assert type(ours) is PlanewiseBatchNorm2d
    x = torch.randn(4, 5, 3, 6, dtype=options.get("dtype")) * 2 + 1
    grad = torch.randn_like(x)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        found = results(torch.compile(ours, backend="aot_eager"), ours, given, grad)
        torch.testing.assert_close(found, results(layer, layer, given, grad))
        torch.testing.assert_close(results(ours, ours, given, grad), results(layer, layer, given, grad), rtol=0, atol=0)
        torch.testing.assert_close(dict(ours.named_buffers()), dict(layer.named_buffers()))
    torch.compiler.reset()


def results(forward: Any, layer: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """Return the output of a pass and the gradients of its input and parameters."""
    x = x.detach().requires_grad_()
    with without_its_own_warnings():
        output = forward(x)
    return [output.detach(), *torch.autograd.grad(output, [x, *layer.parameters()], grad)]


def test_what_is_derived_from_batch_norm_stays_what_it_is() -> None:
    class Own(nn.BatchNorm2d):
        pass

    model = nn.Sequential(Own(2), nn.BatchNorm1d(2), nn.BatchNorm2d(2))
    sum_by_planes(model)
    assert [type(layer) for layer in model] == [Own, nn.BatchNorm1d, PlanewiseBatchNorm2d]
    with pytest.raises(ValueError, match="more than 1 value"):
        model[2](torch.zeros(1, 2, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "most"), [(nn.BatchNorm2d, 100), (BatchInstanceNorm, 81)])
def test_a_compiled_step_has_no_more_kernels_than_it_had(
    norm: type[nn.Module], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ResNet-14's, in float32: loops for the C++ compiler, which is not run here, and what stays a library's call."""
    from torch._dynamo.utils import counters
    from torch._inductor.async_compile import AsyncCompile

    loops: list[str] = []

    def cpp_pybinding(compiler: AsyncCompile, types: list[str], source: str, *more: Any) -> Callable[..., None]:
        loops.append(source)
        return lambda *given: None

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(AsyncCompile, "cpp_pybinding", cpp_pybinding)
    settings = make_settings(epochs=2, batch_size=4, optimizer={"lr": 2**-10, "momentum": 0.9}, compile="never")
    splits = make_splits(train=4, val=4, test=4, channels=3, side=32)
    run = make_run(settings, splits, lambda *given: resnet(*given[:2], norm, n=2))
    run.model.train()
    with run.randomness.in_charge(), without_its_own_warnings():
        batch = augmented(run, next(run.train.epoch(run.randomness.order)))
        train_step(run, next(run.train.epoch(run.randomness.order)), 0)
        counters.clear()
        StepBackend(run.device).compile(run, batch)
    assert len(loops) + counters["inductor"]["extern_calls"] <= most
