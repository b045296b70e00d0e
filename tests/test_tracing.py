"""Whole steps traced as one graph, against eager ones.

Here the graph itself is run, which compiled code must agree with; `test_compiled.py` compiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from benchkit_models.mlp import mlp
from benchkit_models.resnet import resnet
from benchkit_norms.batch_instance import BatchInstanceNorm
from benchkit_regularizers.crop_flip import CropFlip
from benchkit_regularizers.dropout import Dropout
from benchkit_regularizers.grad_clip import GradClip
from benchkit_regularizers.l1 import L1
from benchkit_regularizers.mixup import Mixup
from benchkit_regularizers.rand_augment import RandAugment
from benchkit_regularizers.stochastic_depth import StochasticDepth
from engine_runs import Flip, learnt, make_run, make_settings, small_net
from step_stand_ins import Counts, DrawsNumpy, Reads, Replaces
from torch import nn

from benchkit import Batch
from benchkit.results import WAS_COMPILED
from benchkit.train.checkpoint import checkpoint_of, restore_checkpoint
from benchkit.train.compiler import without_its_own_warnings
from benchkit.train.fit import fit
from benchkit.train.run import Run
from benchkit.train.step import EagerSteps, learn
from benchkit.train.steps.compiled import CompiledLearning
from benchkit.train.steps.executor import executor_for

Net = Callable[..., nn.Module]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Return a list that gets each graph to compile; the graph itself is taken for what compiling makes of it."""
    import torch._inductor

    found: list[torch.fx.GraphModule] = []

    def uncompiled(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> torch.fx.GraphModule:
        found.append(graph)
        return graph

    monkeypatch.setattr(torch._inductor, "compile", uncompiled)
    return found


def pooled_mlp(classes: int, shape: tuple[int, int, int], norm: Any) -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(2), mlp(classes, (shape[0], shape[1] // 2, shape[2] // 2), norm, hidden=(12,)))


def constrained(classes: int, shape: tuple[int, int, int], norm: Any) -> nn.Module:
    return small_net(classes, shape, BatchInstanceNorm)


def rated(classes: int, shape: tuple[int, int, int], norm: Any) -> nn.Module:
    model = small_net(classes, shape, norm)
    vars(model[0].weight)["rate_factor"] = 0.25  # type: ignore[index]
    return model


def tied(classes: int, shape: tuple[int, int, int], norm: Any) -> nn.Module:
    """Return a network two of whose layers share their weight, and whose first layer is frozen."""
    first, second, third = nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, 16)
    third.weight = second.weight
    first.weight.requires_grad_(False)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), third, nn.Linear(16, classes))


def residual(classes: int, shape: tuple[int, int, int], norm: Any) -> nn.Module:
    return resnet(classes, shape, norm, n=1, width=4)


RUNS: dict[str, tuple[Net, dict[str, Any], list[Any]]] = {
    "dropout": (small_net, {}, [Flip(), Dropout(rate=0.3)]),
    "clipped": (small_net, {"optimizer": {"nesterov": True}}, [GradClip(max_norm=0.05), L1(strength=1e-2)]),
    "constraint": (constrained, {"optimizer": {"lr": 0.5}}, []),
    "rates": (rated, {"optimizer": {"name": "adamw"}, "schedule": {"name": "one-cycle"}}, []),
    "adam": (residual, {"optimizer": {"name": "adam"}}, [StochasticDepth(rate=0.5)]),
    "plain sgd": (pooled_mlp, {"optimizer": {"momentum": 0.0}}, []),
    "tied": (tied, {}, []),
}


def run_of(
    model: Net = small_net, regularizers: Sequence[Any] = (), device_memory: int | None = None, **train: Any
) -> Run:
    """Return a run with a smaller last batch and a falling rate."""
    settings = make_settings(**{"batch_size": 24, "schedule": {"name": "cosine"}, **train})
    named = [(type(one).__name__, one) for one in regularizers]
    return make_run(settings, model=model, regularizers=named, device_memory=device_memory)


def trained(run: Run) -> torch.Tensor:
    with without_its_own_warnings():
        return torch.tensor([learnt(record) for record in fit(run)], dtype=torch.float64)


@pytest.mark.parametrize(("model", "train", "regularizers"), RUNS.values(), ids=RUNS.keys())
def test_a_traced_step_trains_as_an_eager_one(
    model: Net, train: dict[str, Any], regularizers: list[Any], graphs: list[torch.fx.GraphModule]
) -> None:
    eager = run_of(model, regularizers, **train)
    traced = run_of(model, regularizers, **train, compile="always")
    torch.testing.assert_close(trained(traced), trained(eager), rtol=1e-4, atol=1e-6)
    assert traced.notes == [WAS_COMPILED] and len(graphs) == 1
    ours, plain = traced.state(), eager.state()
    torch.testing.assert_close(ours["randomness"], plain["randomness"], rtol=0, atol=0)
    torch.testing.assert_close(ours["model"], plain["model"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours["optimizer"]["state"], plain["optimizer"]["state"], rtol=1e-3, atol=1e-4)
    for found, expected in zip(ours["optimizer"]["param_groups"], plain["optimizer"]["param_groups"], strict=True):
        assert found.pop("lr") == pytest.approx(expected.pop("lr")) and found == expected


def test_the_graph_holds_the_whole_step_and_no_weight(graphs: list[torch.fx.GraphModule]) -> None:
    run = run_of(regularizers=[GradClip(max_norm=1.0)], compile="always")
    trained(run)
    (graph,) = graphs
    names = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert {"aten.convolution.default", "aten.convolution_backward.default", "aten._foreach_sub_.List"} <= names
    kept = [*graph.buffers(), *graph.parameters()]
    assert {tuple(one.shape) for one in kept} == {(1, 3, 8, 8)}  # what normalises the images


def test_trials_that_differ_in_rate_momentum_or_decay_share_one_graph(graphs: list[torch.fx.GraphModule]) -> None:
    class Decay:
        def __init__(self, strength: float) -> None:
            self.strength = strength

        def optimizer_options(self) -> dict[str, float]:
            return {"weight_decay": self.strength}

    first = run_of(regularizers=[Decay(0.01)], compile="always", optimizer={"lr": 0.1, "momentum": 0.9})
    second = run_of(regularizers=[Decay(0.5)], compile="always", optimizer={"lr": 0.01, "momentum": 0.5})
    assert not torch.equal(trained(first), trained(second))
    assert graphs[0].code == graphs[1].code


def learning(run: Run) -> tuple[CompiledLearning, Batch]:
    """Return a run's traced learning and the batch that it was made with."""
    run.model.train()
    batch = next(run.train.epoch(run.randomness.order))
    learn(run, batch)
    return CompiledLearning(run, batch), batch


@pytest.mark.usefixtures("graphs")
def test_batches_of_another_form_are_learnt_from_eagerly() -> None:
    run = run_of()
    traced, batch = learning(run)
    others = {
        "smaller": replace(batch, images=batch.images[:7], targets=batch.targets[:7]),
        "layout": replace(batch, images=batch.images.contiguous()),
        "type": replace(batch, targets=batch.targets.double()),
    }
    run.optimizer.zero_grad()
    traced(batch)
    assert all(parameter.grad is None for parameter in run.parameters)
    for name, other in others.items():
        run.optimizer.zero_grad()
        assert traced(other)[0] == len(other.targets)
        assert all(parameter.grad is not None for parameter in run.parameters), name


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("device_memory", [None, 0], ids=["placed", "streamed"])
@pytest.mark.parametrize("augments", [[], [CropFlip()], [RandAugment(), Mixup()]], ids=["bare", "crop-flip", "mixed"])
def test_every_whole_batch_goes_through_the_graph(
    augments: list[Any], device_memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def counted(run: Run, batch: Batch) -> torch.Tensor:
        batches.append(len(batch.targets))
        return learn(run, batch)

    monkeypatch.setattr("benchkit.train.steps.compiled.learn", counted)
    run = run_of(regularizers=augments, device_memory=device_memory, compile="always")
    trained(run)
    assert run.train.images.streamed == (device_memory == 0)
    assert WAS_COMPILED in run.notes
    # One is traced; of each epoch's 80 images in batches of 24, the 8 left over are learnt from eagerly.
    assert batches == [24, 8, 8, 8]


class Averages:
    """A penalty on the distance to an average of the weights, which it keeps to itself."""

    def __init__(self) -> None:
        self.average = torch.zeros(4)

    def penalty(self, model: nn.Module) -> torch.Tensor:
        bias = next(reversed(list(model.parameters())))
        with torch.no_grad():
            self.average.lerp_(bias, 0.5)
        return (bias - self.average).square().sum()


@pytest.mark.usefixtures("graphs")
def test_tensors_that_a_plugin_keeps_to_itself_go_on_changing() -> None:
    eager, traced = Averages(), Averages()
    one, other = run_of(regularizers=[eager]), run_of(regularizers=[traced], compile="always")
    torch.testing.assert_close(trained(other)[:, 1], trained(one)[:, 1], rtol=1e-2, atol=0)
    assert other.notes == [WAS_COMPILED] and traced.average.any()


class Branches:
    """Clipping that decides by the gradients."""

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.abs().max() > 1:
                parameter.grad.clamp_(-1, 1)


REFUSALS: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "reads": (Reads, {}, "RuntimeError: It appears that you're trying to get value out of a tracing tensor"),
    "branches": (Branches, {}, "RuntimeError: It appears that you're trying to get value out of a tracing tensor"),
    "counts": (Counts, {}, "Counts changes its attribute calls in each step"),
    "numpy": (DrawsNumpy, {}, "a step draws NumPy's random numbers"),
    "fp16": (Flip, {"precision": "fp16"}, "fp16 scales the loss by what it finds in each step"),
}


@pytest.mark.parametrize(("make", "train", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_cannot_be_traced_runs_eagerly_and_says_so(
    make: Callable[[], Any], train: dict[str, Any], reason: str
) -> None:
    run, eager = (run_of(regularizers=[make()], compile=compile, **train) for compile in ("always", "never"))
    assert torch.equal(trained(run), trained(eager))
    (note,) = run.notes
    assert note.startswith(f"compiled model not used: {reason}")
    assert isinstance(run.optimizer.param_groups[0]["lr"], float)


def test_a_buffer_that_is_replaced_is_not_traced() -> None:
    def replacing(classes: int, shape: tuple[int, int, int], norm: Any) -> nn.Module:
        return small_net(classes, shape, Replaces)

    run, eager = run_of(replacing, compile="always"), run_of(replacing)
    assert torch.equal(trained(run), trained(eager))
    assert run.notes == ["compiled model not used: Replaces replaces its tensor mean in each step"]


def test_code_that_differs_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor

    def wrong(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
        return lambda images, *others: graph(1 - images, *others)

    monkeypatch.setattr(torch._inductor, "compile", wrong)
    run, eager = run_of(compile="always"), run_of()
    assert torch.equal(trained(run), trained(eager))
    assert run.notes == ["compiled model not used: its steps differ from the plain model's"]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_another_dropout_mask_is_no_rounding(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor

    def drawing(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
        def drawn(*given: torch.Tensor) -> Any:
            torch.rand(())
            return graph(*given)

        return drawn

    monkeypatch.setattr(torch._inductor, "compile", drawing)
    run = run_of(compile="always", precision=precision)
    run.model.train()
    executor_for(run)
    assert run.notes == ["compiled model not used: its steps differ from the plain model's"]


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_a_wrong_update_is_noticed(momentum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchkit.train.steps.functional_optimizers._sgd", lambda *_: None)
    run = run_of(compile="always", optimizer={"momentum": momentum})
    run.model.train()
    assert isinstance(executor_for(run), EagerSteps)
    assert run.notes == ["compiled model not used: its steps differ from the plain model's"]


def test_without_a_compiler_steps_are_eager_and_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setattr("benchkit.train.steps.backends.CompiledLearning", None)
    run = run_of(compile="always")
    assert type(executor_for(run)) is EagerSteps and len(run.optimizer.state) == 0
    assert run.notes == [
        "compiled model not used: this machine lacks a C++ compiler (on Debian: apt install g++); steps ran eagerly"
    ]


def test_a_run_that_goes_on_with_other_steps_than_it_began_with_says_so(
    graphs: list[torch.fx.GraphModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, same, other = (run_of(compile="always", epochs=3, batch_size=8) for _ in range(3))
    with without_its_own_warnings():
        next(fit(first))
    assert first.notes == [WAS_COMPILED] and first.compiled
    for run in (same, other):
        assert restore_checkpoint(checkpoint_of(first), run)
    trained(same)
    assert same.notes == [WAS_COMPILED]
    monkeypatch.setenv("CXX", "/nonexistent")
    trained(other)
    assert other.notes[-1] == "begun with compiled steps and gone on with eager ones: not to the bit what one go gives"
    assert other.compiled and len(other.notes) == 2
