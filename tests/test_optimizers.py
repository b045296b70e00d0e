"""The optimizer step: to the bits of PyTorch's own, and whatever layout in memory a plugin leaves gradients in."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny_study
import torch
from benchkit_optimizers.table import OFFERED, REFUSED
from benchkit_regularizers.weight_decay import WeightDecay
from engine_runs import learnt, make_run, make_settings, make_splits, small_net
from torch import nn

from benchkit import PluginError, TrainingError
from benchkit.errors import StudyError
from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan
from benchkit.study.seeds import trial_seeds
from benchkit.study.settings import OptimizerSettings, PluginRef
from benchkit.train import optimizers
from benchkit.train.compiler import skip_dynamo_import
from benchkit.train.fit import fit
from benchkit.train.run import Plugins, Run, build_run
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
        scaled.backward((weight * slope).sum())
        scaled.unscale(optimizer)
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


def run_by(name: str, regularizers: Any = (), lr: float = 0.001, options: Any = None, **train: Any) -> Run:
    ref = PluginRef(name=name, options=options or {})
    plugin = Registry.installed().bind("optimizers", ref)
    settings = make_settings(optimizer={"name": name, "lr": lr, "options": options or {}}, **train)
    plugins = Plugins(model=small_net, norm=nn.BatchNorm2d, optimizer=plugin, regularizers=regularizers)
    return build_run(settings, make_splits(), plugins, seeds=trial_seeds(5, "grid", 0), device="cpu")


@pytest.mark.parametrize("name", ["timm:rmsproptf", "timm:adabelief", "torch:NAdam"])
def test_steps_of_a_plugin_are_eager_and_never_rehearsed(name: str) -> None:
    """The state of these is changed by a rehearsal that is undone, so there is none."""
    asked, plain = run_by(name, compile="always", epochs=1), run_by(name, compile="never", epochs=1)
    pair = [[learnt(record) for record in fit(run)] for run in (asked, plain)]
    assert pair[0] == pair[1]
    assert any(f"not used: its optimizer {name} is none that benchkit records" in note for note in asked.notes)


def test_a_trial_of_timm_goes_on_to_the_bit() -> None:
    for name in ("timm:lion", "timm:muon", "torch:Adafactor"):
        whole, first, second = (run_by(name) for _ in range(3))
        expected = [learnt(record) for record in fit(whole)]
        for record in fit(first):
            if record.epoch == 1:
                break
        second.restore(first.state())
        assert expected[1:] == [learnt(record) for record in fit(second)], name


def test_what_a_name_silently_means_is_noted() -> None:
    (muon,) = [note for note in run_by("timm:muon").notes if "AdamW" in note]
    network = small_net(4, (3, 8, 8), nn.BatchNorm2d)
    own = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    whole = sum(p.numel() for p in network.parameters())
    assert muon == f"timm:muon: {own:,} of {whole:,} parameters by it, the rest by AdamW at 1 times its rate"
    assert "timm:sgd: with Nesterov's momentum" in run_by("timm:sgd").notes
    run = run_by("timm:sgdc", schedule={"name": "one-cycle", "max_lr": 0.5}, lr=0.1)
    assert run.optimizer.defaults["lr"] == 0.5  # by which it corrects its decay


def test_no_option_is_passed_that_was_not_given() -> None:
    run = run_by("timm:adan")
    assert run.optimizer.param_groups[0]["betas"] == (0.98, 0.92, 0.99)  # its own three
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.0
    decayed = run_by("timm:lion", (("decay", WeightDecay(strength=0.1)),))
    assert decayed.optimizer.param_groups[0]["weight_decay"] == 0.1
    with pytest.raises(TrainingError, match="cannot be made"):
        run_by("torch:RMSprop", options={"betas": (0.1, 0.2)})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torch:LBFGS", "asks for a closure"),
        ("timm:adahessian", "needs second derivatives"),
        ("torch:Muon", "timm:muon takes them"),
        ("torch:SparseAdam", "sparse gradients"),
        ("timm:bnbadam", "a package for CUDA"),
        ("timm:nosuch", "can take no step here"),
        ("torch:NoSuch", "can take no step here"),
    ],
)
def test_a_name_that_is_not_offered_is_refused_with_its_reason(name: str, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        run_by(name)


def test_a_name_that_the_table_lacks_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a newer version of its library: offered or refused by what six steps show, the same trial as before."""
    known = run_by("timm:adan")
    monkeypatch.delitem(OFFERED, "timm:adan")
    monkeypatch.delitem(REFUSED, "torch:SparseAdam")
    tried = run_by("timm:adan")
    assert all(torch.equal(*pair) for pair in zip(known.model.parameters(), tried.model.parameters(), strict=True))
    assert type(tried.optimizer) is type(known.optimizer)
    with pytest.raises(PluginError, match="can take no step here: RuntimeError"):
        run_by("torch:SparseAdam")


def test_a_study_compares_optimizers_each_at_its_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = ", ".join(
        f'{{ label = "{name}", set = {{ "train.optimizer" = {{ name = "{name}", lr = {lr} }} }} }}'
        for name, lr in (("sgd", 0.1), ("timm:lion", 0.001), ("timm:muon", 0.01))
    )
    study = tiny_study.study_of(f"[factors]\noptimizer = [{levels}]\n", repeats=1)
    check_plan(make_plan(study), Registry.installed())
    assert tiny_study.sweep_here(monkeypatch, tmp_path, study) == {"done": 3}
    rates = {
        trial.condition.label: trial.history[-1].learning_rate for trial in Ledger(tmp_path).trials(make_plan(study))
    }
    assert rates == {"sgd": 0.1, "timm:lion": 0.001, "timm:muon": 0.01}


def test_a_misspelt_name_is_told_with_the_nearest() -> None:
    with pytest.raises(StudyError) as caught:
        check_plan(
            make_plan(tiny_study.study_of('[factors]\n"train.optimizer.name" = ["adan"]\n')), Registry.installed()
        )
    assert "train.optimizer: there is no optimizer 'adan' (did you mean 'adam'?)" in caught.value.problems


def test_a_refused_name_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_study.study_of('[factors]\n"train.optimizer.name" = ["torch:LBFGS"]\n', repeats=2)
    with pytest.raises(TrainingError) as caught:
        tiny_study.sweep_here(monkeypatch, tmp_path, study)
    assert "the optimizer 'torch:LBFGS' asks for a closure" in str(caught.value)


def decaying(name: str, decayed: str) -> Run:
    """Return a run with a weight decay, of any optimizer."""
    chosen = {"name": name, "lr": 0.01, "decayed": decayed}
    decay = (("decay", WeightDecay(strength=0.1)),)
    if ":" not in name:
        return make_run(make_settings(optimizer=chosen), regularizers=decay)
    plugin = Registry.installed().bind("optimizers", PluginRef(name=name))
    plugins = Plugins(model=small_net, norm=nn.BatchNorm2d, optimizer=plugin, regularizers=decay)
    return build_run(
        make_settings(optimizer=chosen), make_splits(), plugins, seeds=trial_seeds(5, "grid", 0), device="cpu"
    )


@pytest.mark.parametrize("name", ["sgd", "adamw", "timm:lion", "torch:NAdam"])
def test_matrices_alone_decay_where_the_study_says_so(name: str) -> None:
    run, plain = decaying(name, "matrices"), decaying(name, "all")
    sizes = [(p.ndim, p.numel()) for p in run.model.parameters()]
    own, whole = sum(size for ndim, size in sizes if ndim >= 2), sum(size for _, size in sizes)
    assert f"weight decay applies to the matrices alone: {own:,} of {whole:,} parameters" in run.notes
    assert not [note for note in plain.notes if "decay applies" in note]
    assert len(plain.optimizer.param_groups) == 1 < len(run.optimizer.param_groups)
    for one in (run, plain):
        before = [parameter.detach().clone().fill_(1.0) for parameter in one.parameters]
        for parameter in one.parameters:
            parameter.data.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
        set_rate(one.optimizer, 0.01)
        one.optimizer.step()
        still = [bool(torch.equal(was, now)) for was, now in zip(before, one.parameters, strict=True)]
        assert still == [one is run and parameter.ndim < 2 for parameter in one.parameters]


def test_which_parameters_decay_is_no_key_of_older_studies() -> None:
    keys = [
        make_plan(tiny_study.study_of(overrides=list(given))).conditions[0].key
        for given in ((), ("train.optimizer.decayed=matrices",))
    ]
    assert keys[0] != keys[1]
    with pytest.raises(StudyError) as caught:
        tiny_study.study_of(overrides=["train.optimizer.decayed=biases"])
    assert "train.optimizer.decayed: got 'biases', expected one of all, matrices" in "\n".join(caught.value.problems)


class TwoWeights(torch.optim.SGD):
    """Is told when its weights are evaluated, as schedule-free optimizers are."""

    def eval(self) -> None:
        """Put the averaged weights into the model."""


def test_an_optimizer_with_two_sets_of_weights_is_refused() -> None:
    settings = make_settings(optimizer={"name": "own", "lr": 0.1})
    plugins = Plugins(model=small_net, norm=nn.BatchNorm2d, optimizer=TwoWeights)
    with pytest.raises(TrainingError, match="other weights than it is evaluated with"):
        build_run(settings, make_splits(), plugins, seeds=trial_seeds(5, "grid", 0), device="cpu")
