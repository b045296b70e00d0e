"""The optimizer step: to the bits of PyTorch's own, and whatever layout in memory a plugin leaves gradients in."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext

import pytest
import torch
from engine_runs import learnt, make_run, make_settings
from torch import nn

from benchkit.study.settings import OptimizerSettings
from benchkit.train import optimizers
from benchkit.train.compiler import skip_dynamo_import
from benchkit.train.fit import fit
from benchkit.train.step import SGD, Precision, precision, set_rate


def layers(memory_format: torch.memory_format) -> nn.Sequential:
    """Return layers whose weights have one to four dimensions, one of them frozen; the last has another rate."""
    torch.manual_seed(3)
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 17, 1), nn.Conv1d(2, 3, 2), nn.Linear(5, 7)
    ).to(memory_format=memory_format)
    made[1].requires_grad_(False)
    for parameter in made[4].parameters():
        vars(parameter)["rate_factor"] = 0.5
    return made


def stepped(model: nn.Module, given: Mapping[str, float | bool], ours: bool) -> list[torch.Tensor]:
    """Return parameters and momenta after steps along random gradients, by our SGD or PyTorch's.

    In between, a weight without a gradient is left out, and one is moved to other memory.
    """
    decay = {"weight_decay": given.get("weight_decay", 0.0)}
    own = OptimizerSettings(lr=0.1, **{name: value for name, value in given.items() if name not in decay})
    sgd = optimizers.optimizer(own, model.parameters(), decay)
    torch.manual_seed(4)
    for step, rate in enumerate((0.1, 0.05, 0.2, 0.01, 0.3, 0.1)):
        set_rate(sgd, rate)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
        if step == 3:
            model[2].weight.grad = None
        if step == 4:
            model[0].weight.data = model[0].weight.data.clone()
        with torch.no_grad():
            inspect.unwrap((SGD if ours else torch.optim.SGD).step)(sgd)
    return [*(p.detach() for p in model.parameters()), *(s["momentum_buffer"] for s in sgd.state.values() if s)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("given", [{}, {"nesterov": True, "weight_decay": 0.01}, {"momentum": 0.0}])
def test_the_sgd_step_is_pytorchs_to_the_bit(
    memory_format: torch.memory_format, given: Mapping[str, float | bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = stepped(layers(memory_format), given, ours=False)
    ways_out: list[SGD] = []
    usual = inspect.unwrap(torch.optim.SGD.step)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda sgd, closure: ways_out.append(sgd) or usual(sgd, closure))
    ours = stepped(layers(memory_format), given, ours=True)
    assert len(ours) == len(plain) == (10 if "momentum" in given else 18)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    assert len(ways_out) == ("momentum" not in given)  # the first step alone, which makes the momenta, is PyTorch's


def test_weights_of_several_types_are_updated_as_by_pytorch() -> None:
    ours, plain = (layers(torch.channels_last) for _ in range(2))
    for model in (ours, plain):
        model[3].double()
    found, expected = stepped(ours, {}, ours=True), stepped(plain, {}, ours=False)
    assert sorted({str(tensor.dtype) for tensor in found}) == ["torch.float32", "torch.float64"]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_momentum_that_is_switched_off_is_neither_used_nor_changed() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = SGD([weight], lr=0.5, momentum=0.5, fused=True)
    for momentum in (0.5, 0.0):
        optimizer.param_groups[0]["momentum"] = momentum
        weight.grad = torch.tensor([1.0, 2.0])
        optimizer.step()
    # By hand: the first step's momentum is the gradient; both steps subtract half of the gradient.
    assert weight.tolist() == [0.0, -1.0]
    assert optimizer.state[weight]["momentum_buffer"].tolist() == [1.0, 2.0]


def test_a_closure_gives_the_gradients_and_the_loss() -> None:
    weight = nn.Parameter(torch.ones(2))

    def loss() -> float:
        total = (weight * torch.tensor([1.0, 3.0])).sum()
        total.backward()
        return total.item()

    assert SGD([weight], lr=0.5, fused=True).step(loss) == 4.0
    assert weight.tolist() == [0.5, -0.5]


class Replace:
    """Puts an equal gradient of another layout in the place of each."""

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad = parameter.grad.clone(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_plugin_may_leave_gradients_in_another_layout(name: str) -> None:
    settings = make_settings(optimizer={"name": name, "lr": 0.01})
    plain, replaced = make_run(settings), make_run(settings, regularizers=[("replace", Replace())])
    assert not plain.model[0].weight.is_contiguous()  # type: ignore[index,union-attr,operator]
    assert [learnt(record) for record in fit(plain)] == [learnt(record) for record in fit(replaced)]


@pytest.fixture
def empty_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("empty_memory_is_nan")
def test_momenta_begin_with_the_first_step_that_does_not_overflow() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = SGD([weight], lr=0.1, momentum=0.9, fused=True)
    scaled = Precision(name="fp16", autocast=nullcontext(), scaler=torch.amp.GradScaler("cpu", init_scale=4.0))
    found = []
    for slope in (float("inf"), 1.0, 1.0):
        optimizer.zero_grad()
        scaled.backward((weight * slope).sum(), optimizer)
        scaled.step(optimizer)
        found.append(weight.tolist()[0])
    # By hand: skipped; the momentum is 1; the momentum is 0.9 + 1.
    assert found == pytest.approx([1.0, 0.9, 0.9 - 0.19])


@pytest.mark.parametrize(("name", "scales"), [("float32", False), ("bf16", False), ("fp16", True)])
def test_fp16_alone_scales_its_loss(name: str, scales: bool) -> None:
    assert (precision(name, torch.device("cpu")).scaler is not None) == scales


def test_rates_on_the_device_make_an_optimizer_capturable_until_they_are_plain_again() -> None:
    adam = torch.optim.Adam([nn.Parameter(torch.zeros(3))], lr=0.25)
    optimizers.use_device_rates(adam, torch.device("cpu"))
    group = adam.param_groups[0]
    assert isinstance(group["lr"], torch.Tensor) and group["lr"].item() == 0.25 and group["capturable"] is True
    assert optimizers.state(adam)["param_groups"][0]["lr"] == 0.25
    optimizers.use_plain_rates(adam)
    assert group["lr"] == 0.25 and isinstance(group["lr"], float) and group["capturable"] is False


def test_a_wrapped_method_is_its_own_replacement_and_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)

    def plain() -> None:
        """Do nothing."""

    @functools.wraps(plain)
    def wrapped() -> None:
        plain()

    skip_dynamo_import(wrapped, plain)
    assert vars(plain)["__dynamo_disable"] is plain and "__dynamo_disable" not in vars(wrapped)
