from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest

from benchkit import PluginError, Range, card
from benchkit.registry.options import (
    ANY_OPTION,
    REQUIRED,
    MismatchError,
    Opaque,
    Option,
    bind_options,
    check_options,
    convert,
    options_of,
    type_text,
)

if TYPE_CHECKING:
    from decimal import Decimal


@card(
    title="A",
    summary="B",
    ranges={
        "alpha": Range(low=0.0, high=1.0),
        "sizes": Range(low=1, high=9),
        "rate": Range(low=1e-5, high=1, log=True),
    },
    choices={"mode": ("fast", "slow")},
)
@dataclass(frozen=True)
class Everything:
    """A regularizer for tests.

    `alpha` is the strength. The `mode` says how. `sizes` are widths, e.g. 3; more of `alpha` later.
    """

    alpha: float
    mode: str = "fast"
    sizes: tuple[int, ...] = (1, 2)
    rate: float | None = None
    names: list[str] = field(default_factory=list)
    computed: int = field(default=0, init=False)


BY_NAME = {option.name: option for option in options_of(Everything, "regularizers")}


def test_dataclass_fields_are_options_in_order() -> None:
    assert list(BY_NAME) == ["alpha", "mode", "sizes", "rate", "names"]
    assert BY_NAME["alpha"] == Option(
        name="alpha", type="float", default=REQUIRED, low=0.0, high=1.0, help="`alpha` is the strength."
    )
    assert BY_NAME["mode"].choices == ("fast", "slow") and BY_NAME["mode"].help == "The `mode` says how."
    assert (BY_NAME["sizes"].type, BY_NAME["sizes"].default) == ("tuple[int, ...]", (1, 2))
    assert (BY_NAME["rate"].type, BY_NAME["rate"].log) == ("float | None", True)
    assert (BY_NAME["names"].type, BY_NAME["names"].default) == ("list[str]", [])


def norm_function(
    channels: int, groups: int = 32, *, eps: float = 1e-5, device: object = None, dtype: object = None
) -> object:
    """A norm. `eps` is small."""
    return channels, groups, eps, device, dtype


class NormClass:
    """A norm as a class."""

    def __init__(self, num_channels: int, /, affine: bool = True, **options: Any) -> None:
        """`affine` adds a scale."""


def dataset(root: Path, *, source: Path | None = None, size: Literal[32, 64] = 32) -> object:
    return root, source, size


def model(num_classes: int, image_shape: tuple[int, int, int], norm: object, *, variant: str) -> object:
    return num_classes, image_shape, norm, variant


class Instance:
    def __call__(self, num_channels: int, depth: int = 2) -> object:
        return num_channels, depth


@pytest.mark.parametrize(
    ("plugin", "kind", "expected"),
    [
        (norm_function, "norms", [("groups", "int", 32), ("eps", "float", 1e-5)]),
        (NormClass, "norms", [("affine", "bool", True), (ANY_OPTION, "any", None)]),
        (dataset, "datasets", [("source", "path | None", None), ("size", "int", 32)]),
        (model, "models", [("variant", "str", REQUIRED)]),
        (Instance(), "norms", [("depth", "int", 2)]),
        (functools.partial(norm_function, eps=0.5), "norms", [("groups", "int", 32), ("eps", "float", 0.5)]),
    ],
)
def test_what_benchkit_passes_is_no_option(
    plugin: Callable[..., Any], kind: str, expected: list[tuple[str, str, Any]]
) -> None:
    assert [(option.name, option.type, option.default) for option in options_of(plugin, kind)] == expected


def test_literals_are_choices_and_docstrings_of_init_are_read() -> None:
    assert options_of(dataset, "datasets")[1].choices == (32, 64)
    assert options_of(NormClass, "norms")[0].help == "`affine` adds a scale."


def test_types_known_to_checkers_only_leave_the_others_checked() -> None:
    def plugin(root: Decimal, *, size: int = 3, weight: Decimal | None = None) -> object:
        return root, size, weight

    assert [(option.name, option.type) for option in options_of(plugin, "datasets")] == [
        ("size", "int"),
        ("weight", "any"),
    ]


def test_without_annotation_the_default_tells_the_type() -> None:
    def plugin(root, size=3, free=None, *, wanted):  # type: ignore[no-untyped-def]
        return root, size, free, wanted

    assert [option.type for option in options_of(plugin, "datasets")] == ["int", "None", "any"]


def test_a_default_that_is_no_data_keeps_its_text_and_is_not_bound() -> None:
    def plugin(root: Path, act: Callable[[float], float] = math.sqrt, size: int = 3) -> object:
        return root, act, size

    options = options_of(plugin, "datasets")
    assert options[0].default == Opaque("<built-in function sqrt>") and options[0].type == "any"
    assert bind_options(options, {}, defaults=True) == {"size": 3}


def test_a_card_that_describes_no_option_is_refused() -> None:
    plugin = card(title="A", summary="B", ranges={"epz": Range(low=0, high=1)})(lambda num_channels: None)
    with pytest.raises(PluginError, match="describes 'epz', which is no option"):
        options_of(plugin, "norms")


@dataclass(frozen=True, kw_only=True)
class SomeLoss:
    """A loss."""

    epsilon: float = 1.0


@dataclass(frozen=True)
class LossByPlace:
    """A loss that can be called with its option by position."""

    epsilon: float = 1.0


def test_a_plugin_of_another_kind_is_told_so() -> None:
    ranges = {"epsilon": Range(low=0, high=1)}
    with pytest.raises(PluginError) as caught:
        options_of(card(title="A", summary="B", ranges=ranges)(SomeLoss), "norms")
    assert caught.value.problems == ("it is no norm: a norm is called with 1 argument by position, and it takes fewer",)
    with pytest.raises(PluginError) as caught:
        options_of(card(title="A", summary="B", ranges=ranges)(LossByPlace), "norms")
    (problem,) = caught.value.problems
    assert problem == "the card describes 'epsilon', which is no option but what a norm is called with"
    with pytest.raises(PluginError, match="cannot be read") as caught:
        options_of(lambda num_classes, image_shape: None, "models")
    assert "a model is called with 3 arguments by position" in caught.value.problems[0]


def test_the_help_of_an_option_is_the_sentence_that_begins_with_it() -> None:
    def plugin(root: Path, size: int = 3, width: int = 3) -> object:
        """Return maps of `size` pixels, `width` channels at first.

        `size` is that of a side.
        """
        return root, size, width

    helps = {option.name: option.help for option in options_of(plugin, "datasets")}
    assert helps["size"] == "`size` is that of a side."
    assert helps["width"] == "Return maps of `size` pixels, `width` channels at first."


def test_an_option_without_a_name_is_refused() -> None:
    def plugin(root: Path, size: int, /) -> object:
        return root, size

    with pytest.raises(PluginError, match="'size' cannot be given by name"):
        options_of(plugin, "datasets")


def test_all_problems_are_told_at_once() -> None:
    given = {"alpah": 1, "mode": "fats", "sizes": [1, 20], "rate": "x", "names": "x"}
    lines = check_options(tuple(BY_NAME.values()), given, "regularizers.everything")
    assert lines == [
        "regularizers.everything.alpah is not an option (did you mean 'alpha'?);"
        " options: alpha, mode, sizes, rate, names",
        "regularizers.everything.alpha is missing (expected float in 0..1)",
        "regularizers.everything.mode = 'fats' is not allowed (did you mean 'fast'?); expected one of 'fast', 'slow'",
        "regularizers.everything.sizes = [1, 20] is out of range; expected tuple[int, ...] in 1..9",
        "regularizers.everything.rate = 'x' is text; expected float | None in 1e-05..1",
        "regularizers.everything.names = 'x' is text; expected list[str]",
    ]


@pytest.mark.parametrize("alpha", [0, 1, 0.0, 1.0, 0.5])
def test_bounds_are_inclusive(alpha: float) -> None:
    assert check_options(tuple(BY_NAME.values()), {"alpha": alpha}, "x") == []


@pytest.mark.parametrize("alpha", [-1e-9, 1.0001, math.inf, math.nan, True, None, "0.5", [0.5]])
def test_what_is_no_number_in_range_is_a_problem(alpha: object) -> None:
    assert len(check_options(tuple(BY_NAME.values()), {"alpha": alpha}, "x")) == 1


def test_bound_options_have_the_types_that_the_plugin_declared() -> None:
    bound = bind_options(tuple(BY_NAME.values()), {"alpha": 1, "sizes": [3, 4]})
    assert bound == {"alpha": 1.0, "sizes": (3, 4)}
    assert isinstance(bound["alpha"], float)
    everything = bind_options(tuple(BY_NAME.values()), {"alpha": 1, "sizes": [3, 4]}, defaults=True)
    assert everything == {"alpha": 1.0, "sizes": (3, 4), "mode": "fast", "rate": None, "names": []}
    assert Everything(**everything) == Everything(alpha=1.0, sizes=(3, 4))


def test_wrong_options_are_not_bound() -> None:
    with pytest.raises(PluginError, match=r"alpha = 'x' is text"):
        bind_options(tuple(BY_NAME.values()), {"alpha": "x"})


def test_a_plugin_that_passes_options_on_takes_any() -> None:
    options = options_of(NormClass, "norms")
    assert check_options(options, {"anything": [1], "affine": False}, "x") == []
    assert len(check_options(options, {"affine": 1}, "x")) == 1
    assert bind_options(options, {"anything": [1]}, defaults=True) == {"anything": [1], "affine": True}


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (Optional[int], "int | None"),  # noqa: UP045 - the older spelling must work too
        (int | str | None, "int | str | None"),
        (tuple[int, float], "tuple[int, float]"),
        (tuple[tuple[int, str], ...], "tuple[tuple[int, str], ...]"),
        (list[int | None], "list[int | None]"),
        (Literal["a", 1] | None, "str | int | None"),
        (Annotated[float, "unit"], "float"),
        (Path, "path"),
        (dict[str, int], "any"),
        (int | dict[str, int], "any"),
        (tuple, "tuple[any, ...]"),
        (Any, "any"),
    ],
)
def test_annotations_become_text(annotation: object, text: str) -> None:
    assert type_text(annotation) == text


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("float", 1, 1.0),
        ("float | int", 1, 1),
        ("int | float", 1.5, 1.5),
        ("bool | int", True, True),
        ("path", "a/b", Path("a/b")),
        ("str | path", "a/b", "a/b"),
        ("tuple[int, float]", [1, 2], (1, 2.0)),
        ("tuple[tuple[int, str], ...]", [[1, "a"]], ((1, "a"),)),
        ("tuple[int, ...] | None", None, None),
        ("list[int | None]", (1, None), [1, None]),
        ("any", {"a": 1}, {"a": 1}),
    ],
)
def test_values_become_what_the_text_says(text: str, value: object, expected: object) -> None:
    got = convert(text, value)
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("int", 1.0),
        ("int", True),
        ("float", True),
        ("bool", 1),
        ("str", 1),
        ("path", 1),
        ("None", 0),
        ("float", math.nan),
        ("tuple[int, float]", [1]),
        ("tuple[int, ...]", "12"),
        ("list[str]", ["a", 1]),
        ("int | None", "None"),
    ],
)
def test_values_that_do_not_fit_are_refused(text: str, value: object) -> None:
    with pytest.raises(MismatchError):
        convert(text, value)
