"""Every regularizer against numbers worked by hand, numpy or the framework; and zero strength against the baseline."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from benchkit_regularizers.crop_flip import CropFlip
from benchkit_regularizers.cutmix import CutMix
from benchkit_regularizers.dropout import Dropout
from benchkit_regularizers.early_stopping import EarlyStopping
from benchkit_regularizers.grad_clip import GradClip
from benchkit_regularizers.l1 import L1
from benchkit_regularizers.label_smoothing import LabelSmoothing
from benchkit_regularizers.mixup import Mixup
from benchkit_regularizers.weight_decay import WeightDecay
from scipy import stats
from torch import nn

from benchkit import PluginError, card_of
from benchkit.results import EpochRecord
from benchkit.train.compiler import without_its_own_warnings

ALL = (WeightDecay, L1, GradClip, Dropout, LabelSmoothing, EarlyStopping, CropFlip, Mixup, CutMix)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.block1 = nn.Conv2d(4, 4, 1)
        self.block2 = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block2(self.block1(self.stem(x))).mean((2, 3)))


# --- what all share


@pytest.mark.parametrize("kind", ALL)
def test_regularizers_are_frozen_slotted_and_have_a_card_with_their_options(kind: type) -> None:
    regularizer, card = kind(), card_of(kind)
    fields = {field.name: getattr(regularizer, field.name) for field in dataclasses.fields(kind)}
    assert card.title and card.summary.endswith(".") and card.url.startswith("https://")
    assert set(card.ranges) | set(card.choices) <= set(fields) and card.ranges
    for option, limits in card.ranges.items():
        number = int if isinstance(fields[option], int) else float
        kind(**{option: number(limits.low)})
        kind(**{option: number(limits.high)})
        assert fields[option] is None or limits.low <= fields[option] <= limits.high
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(regularizer, next(iter(fields)), 0)
    assert not hasattr(regularizer, "__dict__")


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (WeightDecay, {"strength": -1.0}, "strength = -1.0: expected a number from 0 up"),
        (L1, {"strength": math.nan}, "strength = nan: expected a number from 0 up"),
        (GradClip, {"max_norm": 0}, "max_norm = 0: expected a number above 0"),
        (GradClip, {"max_value": 0.0}, "max_value = 0.0: expected a number above 0"),
        (GradClip, {"max_norm": 1.0, "max_value": 0.1}, "max_norm = 1.0 and max_value = 0.1: expected one of them"),
        (Dropout, {"rate": 1.0}, "rate = 1.0: expected a number from 0 to below 1"),
        (Dropout, {"after": "head"}, "after = 'head': expected a list of module names"),
        (LabelSmoothing, {"smoothing": 1.5}, "smoothing = 1.5: expected a number from 0 to 1"),
        (EarlyStopping, {"patience": 2.5}, "patience = 2.5: expected a whole number from 1 up"),
        (EarlyStopping, {"metric": "val.los"}, "did you mean 'val.loss'?"),
        (CropFlip, {"padding": -1}, "padding = -1: expected a whole number from 0 up"),
        (CropFlip, {"flip": True}, "flip = True: expected a number from 0 to 1"),
        (Mixup, {"alpha": -0.1}, "alpha = -0.1: expected a number from 0 up"),
        (CutMix, {"alpha": "1"}, "alpha = '1': expected a number from 0 up"),
    ],
)
def test_wrong_options_are_refused(kind: type, options: dict[str, object], expected: str) -> None:
    with pytest.raises(PluginError) as caught:
        kind(**options)
    assert expected in str(caught.value)


def test_all_wrong_options_are_reported_at_once() -> None:
    with pytest.raises(PluginError) as caught:
        EarlyStopping(patience=0, metric="accuracy", min_delta=-1.0)
    assert [problem.split(" = ")[0] for problem in caught.value.problems] == ["patience", "min_delta", "metric"]


# --- weight decay, L1, clipping


def test_weight_decay_is_the_optimizers_and_adds_its_share_of_the_weight() -> None:
    options = WeightDecay(strength=0.25).optimizer_options()
    weight = nn.Parameter(torch.tensor([2.0, -4.0]))
    weight.grad = torch.tensor([1.0, 1.0])
    torch.optim.SGD([weight], lr=0.5, **options).step()
    assert weight.tolist() == [2.0 - 0.5 * (1 + 0.5), -4.0 - 0.5 * (1 - 1.0)]
    assert WeightDecay(strength=0.0).optimizer_options() == {"weight_decay": 0.0}


def test_l1_sums_absolute_weights_and_pulls_by_their_sign() -> None:
    model = Small()
    with torch.no_grad():
        model.head.weight[0] = 0.0
    model.block1.weight.requires_grad_(False)
    counted = [model.stem[0].weight, model.block2.weight, model.head.weight]
    penalty = L1(strength=0.01).penalty(model)
    penalty.backward()
    expected = 0.01 * sum(np.abs(weight.detach().double().numpy()).sum() for weight in counted)
    assert penalty.dtype == torch.float32 and penalty.item() == pytest.approx(expected, rel=1e-6)
    for weight in counted:
        assert weight.grad is not None
        np.testing.assert_allclose(weight.grad.numpy(), 0.01 * np.sign(weight.detach().numpy()), rtol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters() if parameter.dim() < 2)


def test_l1_accumulates_low_precision_weights_in_float32() -> None:
    model = nn.Linear(100, 100, bias=False).to(torch.bfloat16)
    nn.init.constant_(model.weight, 0.5)
    assert L1(strength=1.0).penalty(model).item() == 5000.0


@pytest.mark.parametrize("model", [Small(), nn.Flatten(), nn.BatchNorm2d(3)])
def test_l1_of_strength_zero_or_without_weights_is_a_plain_zero(model: nn.Module) -> None:
    penalty = L1(strength=0.0 if isinstance(model, Small) else 1.0).penalty(model)
    assert penalty.item() == 0.0 and not penalty.requires_grad


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, [0.6, 0.8]), (10.0, [3.0, 4.0])])
def test_grad_clip_scales_the_joint_norm(max_norm: float, expected: list[float]) -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(3))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([[4.0]])
    GradClip(max_norm=max_norm).clip(iter(parameters))
    assert [parameters[0].grad.item(), parameters[1].grad.item()] == pytest.approx(expected, rel=1e-5)
    assert parameters[2].grad is None


def test_grad_clip_by_value_keeps_each_component_in_a_range() -> None:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(3))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, -0.05, -7.0]), torch.tensor([[0.1]])
    GradClip(max_value=0.1).clip(iter(parameters))
    assert parameters[0].grad.tolist() == pytest.approx([0.1, -0.05, -0.1])
    assert parameters[1].grad.item() == pytest.approx(0.1)
    assert parameters[2].grad is None


def test_grad_clip_without_options_holds_the_joint_norm_at_one() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    GradClip().clip([parameter])
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-5)


# --- dropout


def drop_rates(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the number of hooks before and after each module that has any."""
    found = {name: (len(m._forward_pre_hooks), len(m._forward_hooks)) for name, m in model.named_modules()}
    return {name: counts for name, counts in found.items() if any(counts)}


def test_dropout_zeroes_its_share_scales_the_rest_and_rests_in_evaluation() -> None:
    torch.manual_seed(0)
    model = Dropout(rate=0.25, after=("0",)).prepare(nn.Sequential(nn.Identity()))
    x = torch.ones(200, 200)
    values, counts = model(x).unique(return_counts=True)
    assert values.tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert stats.binomtest(int(counts[0]), x.numel(), 0.25).pvalue > 1e-4
    assert torch.equal(model.eval()(x), x)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ((), {"head": (1, 0)}),
        (("stem",), {"stem": (0, 1)}),
        (("block*",), {"block1": (0, 1), "block2": (0, 1)}),
        (("block1", "block?"), {"block1": (0, 1), "block2": (0, 1)}),
        (("stem.*",), {"stem.0": (0, 1), "stem.1": (0, 1)}),
    ],
)
def test_dropout_sites(after: tuple[str, ...], expected: dict[str, tuple[int, int]]) -> None:
    model = Small()
    keys = list(model.state_dict())
    assert Dropout(after=after).prepare(model) is model
    assert drop_rates(model) == expected and list(model.state_dict()) == keys


def test_dropout_takes_the_models_recommended_sites() -> None:
    model = Small()
    model.dropout_sites = ("stem", "block2")
    assert drop_rates(Dropout().prepare(model)) == {"stem": (0, 1), "block2": (0, 1)}
    assert drop_rates(Dropout(after=("block1",)).prepare(copy.deepcopy(Small()))) == {"block1": (0, 1)}


def test_dropout_equals_the_frameworks_layer_at_the_same_place() -> None:
    model = Small()
    hooked = Dropout(rate=0.5, after=("block1",)).prepare(copy.deepcopy(model))
    model.block1 = nn.Sequential(model.block1, nn.Dropout(0.5))
    x = torch.rand(4, 3, 8, 8, generator=generator())
    torch.manual_seed(7)
    expected = model(x)
    torch.manual_seed(7)
    assert torch.equal(hooked(x), expected)


def test_dropout_survives_copying_and_compiling() -> None:
    model = Dropout(rate=0.5).prepare(Small())
    x = torch.rand(4, 3, 8, 8, generator=generator())
    duplicate = copy.deepcopy(model)
    assert drop_rates(duplicate) == {"head": (1, 0)}
    duplicate.eval()
    assert torch.equal(duplicate(x), duplicate(x)) and not torch.equal(model(x), model(x))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with without_its_own_warnings():
        assert not torch.equal(compiled(x), compiled(x))
        compiled.eval()
        torch.testing.assert_close(compiled(x), duplicate(x))


def test_dropout_of_rate_zero_leaves_the_model_alone() -> None:
    assert drop_rates(Dropout(rate=0.0, after=("stem",)).prepare(Small())) == {}


def test_dropout_names_every_unknown_module() -> None:
    with pytest.raises(PluginError) as caught:
        Dropout(after=("blok1", "layer*", "head")).prepare(Small())
    assert caught.value.problems == (
        "no module is called 'blok1' (did you mean 'block1'?)",
        "no module is called 'layer*'",
    )
    assert "stem.0" in caught.value.hint
    with pytest.raises(PluginError, match="no linear layer"):
        Dropout().prepare(nn.Sequential(nn.Conv2d(1, 1, 1)))


# --- early stopping


def history(metric: str, *values: float) -> list[EpochRecord]:
    numbers = (one.name for one in dataclasses.fields(EpochRecord) if one.default is dataclasses.MISSING)
    plain = dict.fromkeys((name for name in numbers if name != "observed"), 0.0)
    return [EpochRecord(**plain | {"epoch": epoch, metric: value}) for epoch, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("options", "field", "values", "expected"),
    [
        ({"patience": 2}, "val_loss", [], False),
        ({"patience": 2}, "val_loss", [1.0, 0.9, 0.95], False),
        ({"patience": 2}, "val_loss", [1.0, 0.9, 0.95, 0.91], True),
        ({"patience": 2}, "val_loss", [1.0, 0.9, 0.9, 0.9], True),
        ({"patience": 2}, "val_loss", [1.0, 1.1, 0.99, 1.2], False),
        ({"patience": 2, "min_delta": 0.1}, "val_loss", [1.0, 0.95, 0.91], True),
        ({"patience": 2, "min_delta": 0.1}, "val_loss", [1.0, 0.95, 0.85], False),
        ({"patience": 2}, "val_loss", [math.nan, math.nan], True),
        ({"patience": 2}, "val_loss", [1.0, math.nan, 0.5], False),
        ({"patience": 1, "metric": "val.accuracy"}, "val_accuracy", [0.1, 0.2], False),
        ({"patience": 1, "metric": "val.accuracy"}, "val_accuracy", [0.2, 0.1], True),
        ({"patience": 1, "metric": "train.loss"}, "train_loss", [0.2, 0.3], True),
    ],
)
def test_early_stopping(options: dict[str, object], field: str, values: list[float], expected: bool) -> None:
    assert EarlyStopping(**options).stop(history(field, *values)) is expected
