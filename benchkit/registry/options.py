"""The options of a plugin, read from its signature and card, and the check of what a study gives for them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from benchkit.errors import PluginError, nearest
from benchkit.protocols import Card, card_of
from benchkit.registry.kinds import KIND_TABLE, Kind
from benchkit.storage import in_words

_SCALARS: dict[Any, str] = {
    int: "int",
    float: "float",
    bool: "bool",
    str: "str",
    Path: "path",
    type(None): "None",
    None: "None",
}


class MismatchError(Exception):
    """A value does not have the type that an option's text asks for."""


def type_text(annotation: object) -> str:
    """Return the text of an evaluated annotation; a `Literal` gives the types of its values."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(parts[0])
    if origin is typing.Literal:
        return _union(_SCALARS.get(type(part), "any") for part in parts)
    if origin in (typing.Union, types.UnionType):
        return _union(type_text(part) for part in parts)
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return f"tuple[{type_text(parts[0])}, ...]"
    if origin is tuple and parts:
        return f"tuple[{', '.join(type_text(part) for part in parts)}]"
    if annotation is tuple:
        return "tuple[any, ...]"
    if isinstance(origin, type) and issubclass(origin, Sequence) and len(parts) == 1:
        return f"list[{type_text(parts[0])}]"
    return "list[any]" if annotation is list else "any"


def literal_values(annotation: object) -> tuple[Any, ...]:
    """Return the values of a `Literal`, also inside a union or tuple, or an empty tuple when there is none."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return parts
    return tuple(value for part in parts for value in literal_values(part))


def convert(text: str, value: Any) -> Any:
    """Return `value` as the type that `text` names: lists become tuples, whole numbers floats, strings paths.

    Raises `MismatchError` when it does not fit. A bool is no number, and nan fits nothing.
    """
    members = _split(text, " | ")
    exact = [member for member in members if _exactly(member, value)]
    for member in exact or members:
        try:
            return _convert(member, value)
        except MismatchError:
            continue
    raise MismatchError(f"expected {text}, got {value!r}")


def _exactly(member: str, value: Any) -> bool:
    """Return whether a scalar already has a member's type, so that `1` stays int in `float | int`."""
    return _SCALARS.get(type(value)) == member


def _convert(member: str, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, float) and math.isnan(value):
        raise MismatchError("nan")
    if member == "any" or _exactly(member, value):
        return value
    if member == "float" and number:
        return float(value)
    if member == "path" and isinstance(value, str | Path):
        return Path(value)
    if member.startswith(("tuple[", "list[")) and isinstance(value, list | tuple):
        return _convert_sequence(member, value)
    raise MismatchError(member)


def _convert_sequence(member: str, value: Sequence[Any]) -> Any:
    name, _, inner = member[:-1].partition("[")
    parts = _split(inner, ", ")
    if name == "list":
        return [convert(inner, item) for item in value]
    if parts[-1] == "...":
        return tuple(convert(parts[0], item) for item in value)
    if len(parts) != len(value):
        raise MismatchError(member)
    return tuple(convert(part, item) for part, item in zip(parts, value, strict=True))


def _union(texts: typing.Iterable[str]) -> str:
    unique = list(dict.fromkeys(texts))
    return "any" if "any" in unique else " | ".join(unique)


def _split(text: str, separator: str) -> list[str]:
    """Return the parts of `text` between separators that stand outside all brackets."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if depth == 0 and text.startswith(separator, position):
            parts.append(text[start:position])
            start = position + len(separator)
    return [*parts, text[start:]]


class Missing(Enum):
    """The type of `REQUIRED`."""

    REQUIRED = "required"


REQUIRED: Final = Missing.REQUIRED
"""The default of an option that must be given."""

ANY_OPTION = "**"
"""The name of the pseudo-option that stands for `**options`: the plugin takes any further option as it is."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """A default that is no plain data, such as a function: only its text is kept, and the plugin applies it itself."""

    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a plugin.

    `type` is text in the grammar of `benchkit.registry.options`, `default` is `REQUIRED` when there is none, `low`
    and `high` bound numbers (inclusive) and `log` tells that a search goes over their logarithm, `choices` are the
    allowed values, `help` is the docstring's sentence about it. Bounds and choices hold for each item of a tuple or
    list.
    """

    name: str
    type: str
    default: Any = REQUIRED
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    help: str = ""

    @property
    def expected(self) -> str:
        """Return in words what the option takes, for example `float in 0.0..1.0`."""
        if self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        bounds = "" if self.low is None or self.high is None else f" in {self.low:g}..{self.high:g}"
        return self.type + bounds


def options_of(plugin: Callable[..., Any], kind: str) -> tuple[Option, ...]:
    """Return the options of a plugin in the order of its signature or dataclass fields.

    What benchkit itself passes is left out: a norm's channel count, device and dtype, a data set's root, a model's
    class count, image shape and norm. Raises `PluginError` when the plugin takes no such arguments, an option cannot
    be given by name, or the card describes options that do not exist.
    """
    known = KIND_TABLE[kind]
    facts = card_of(plugin)
    every = _parameters(plugin)
    passed = {parameter.name for parameter in every[: known.passed]}
    parameters = [one for one in every[known.passed :] if one.name not in known.passed_names]
    name = getattr(plugin, "__name__", type(plugin).__name__)
    unnamed = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.POSITIONAL_ONLY]
    described = {*facts.ranges, *facts.choices} - {parameter.name for parameter in parameters}
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    problems = [f"the parameter {text!r} cannot be given by name" for text in unnamed]
    for text in () if open_ended else sorted(described):
        instead = f" but what a {known.word} is called with" if text in passed else ""
        problems.append(f"the card describes {text!r}, which is no option{instead}")
    if misfit := _misfit(plugin, known):
        problems = [misfit]
    if problems:
        raise PluginError(f"the options of {name!r} cannot be read", problems=problems)
    hints = _hints(plugin, parameters)
    text = inspect.cleandoc(_documentation(plugin))
    return tuple(_option(parameter, hints.get(parameter.name), facts, text) for parameter in parameters)


def check_options(
    options: Sequence[Option], given: Mapping[str, Any], where: str, beside: Sequence[str] = ()
) -> list[str]:
    """Return one line for every problem with the given options, each starting with `where` (a dotted path).

    `beside` are the keys that stand there beside a plugin's options.
    """
    known = {option.name: option for option in options if option.name != ANY_OPTION}
    takes_any = len(known) < len(options)
    others = f"; other keys: {', '.join(beside)}" if beside else ""
    problems = [
        f"{where}.{name} is not an option{nearest(name, (*known, *beside))}; "
        f"options: {', '.join(known) or 'none'}{others}"
        for name in given
        if name not in known and not takes_any
    ]
    for name, option in known.items():
        if name in given:
            problems += [f"{where}.{name} {line}" for line in _problems(option, given[name])]
        elif option.default is REQUIRED:
            problems.append(f"{where}.{name} is missing (expected {option.expected})")
    return problems


def bind_options(options: Sequence[Option], given: Mapping[str, Any], *, defaults: bool = False) -> dict[str, Any]:
    """Return the given options as the plugin wants them: lists as tuples, whole numbers as floats, strings as paths.

    With `defaults`, options that are not given follow with their default where that is plain data. Raises
    `PluginError` with every problem when `check_options` finds any.
    """
    problems = check_options(options, given, "options")
    if problems:
        raise PluginError("a plugin was given wrong options", problems=problems)
    types = {option.name: option.type for option in options}
    bound = {name: convert(types.get(name, "any"), value) for name, value in given.items()}
    if defaults:
        plain = [option for option in options if option.name not in bound and is_plain(option.default)]
        bound |= {option.name: option.default for option in plain if option.name != ANY_OPTION}
    return bound


def is_plain(value: Any) -> bool:
    """Return whether a default is data that can be written down: text, numbers, None, tuples and lists of them."""
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float | Path)


def _problems(option: Option, value: Any) -> Iterator[str]:
    try:
        converted = convert(option.type, value)
    except MismatchError:
        yield f"= {value!r} is {in_words(value)}; expected {option.expected}"
        return
    for item in converted if isinstance(converted, list | tuple) else [converted]:
        number = isinstance(item, int | float) and not isinstance(item, bool)
        # A logarithmic range cannot hold 0, which still means "off" for every strength.
        off = option.log and item == 0
        too_low = number and option.low is not None and item < option.low and not off
        too_high = number and option.high is not None and item > option.high
        if too_low or too_high:
            yield f"= {value!r} is out of range; expected {option.expected}"
        elif option.choices and item is not None and item not in option.choices:
            close = nearest(str(item), [str(choice) for choice in option.choices])
            yield f"= {value!r} is not allowed{close}; expected {option.expected}"


def _parameters(plugin: Callable[..., Any]) -> list[inspect.Parameter]:
    if isinstance(plugin, type) and dataclasses.is_dataclass(plugin):
        return [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=_field_default(field))
            for field in dataclasses.fields(plugin)
            if field.init
        ]
    try:
        parameters = inspect.signature(plugin).parameters.values()
    except (TypeError, ValueError) as error:
        raise PluginError(f"the signature of {plugin!r} cannot be read: {error}") from error
    return [parameter for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_POSITIONAL]


def _misfit(plugin: Callable[..., Any], known: Kind) -> str:
    """Return why a plugin cannot be called as its kind is, or an empty string."""
    try:
        inspect.signature(plugin).bind_partial(*range(known.passed))
    except TypeError:
        arguments = f"{known.passed} argument{'s' if known.passed > 1 else ''}"
        return f"it is no {known.word}: a {known.word} is called with {arguments} by position, and it takes fewer"
    return ""


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else inspect.Parameter.empty


def _option(parameter: inspect.Parameter, hint: Any, facts: Card, documentation: str) -> Option:
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return Option(name=ANY_OPTION, type="any", default=None, help="passed on as given")
    limits = facts.ranges.get(parameter.name)
    empty = parameter.default is inspect.Parameter.empty
    return Option(
        name=parameter.name,
        type="any" if hint is None and empty else type_text(type(parameter.default) if hint is None else hint),
        default=_default(parameter),
        low=None if limits is None else float(limits.low),
        high=None if limits is None else float(limits.high),
        log=limits is not None and limits.log,
        choices=tuple(facts.choices.get(parameter.name, ())) or literal_values(hint),
        help=sentence_about(parameter.name, documentation),
    )


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.default is inspect.Parameter.empty:
        return REQUIRED
    return parameter.default if is_plain(parameter.default) else Opaque(repr(parameter.default))


def _hints(plugin: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> dict[str, Any]:
    """Return the evaluated annotations by parameter name; those that name nothing at run time are left out."""
    target: Any = inspect.unwrap(plugin.func if isinstance(plugin, functools.partial) else plugin)
    if isinstance(target, type):
        target = target if dataclasses.is_dataclass(target) else getattr(target, "__init__", target)
    elif not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return typing.get_type_hints(target)
    except NameError:
        # One name imported for type checkers only must not hide the types of all options.
        names = vars(sys.modules[target.__module__]) | getattr(target, "__globals__", {})
        return dict(_each_hint(target, parameters, names))


def _each_hint(
    target: Any, parameters: Sequence[inspect.Parameter], names: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    for parameter in parameters:
        annotation = getattr(target, "__annotations__", {}).get(parameter.name, parameter.annotation)
        if annotation is inspect.Parameter.empty:
            continue
        holder = type("Holder", (), {"__annotations__": {parameter.name: annotation}})
        try:
            yield parameter.name, typing.get_type_hints(holder, globalns=names)[parameter.name]
        except NameError:
            yield parameter.name, Any


def _documentation(plugin: Callable[..., Any]) -> str:
    texts = [inspect.getdoc(plugin), inspect.getdoc(vars(plugin).get("__init__")) if isinstance(plugin, type) else None]
    return "\n\n".join(text for text in texts if text)


def sentence_about(name: str, documentation: str) -> str:
    """Return the docstring's sentence that begins with the name in backticks, else the first with it, on one line."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z`])|\n\s*\n", documentation)
    having = [sentence for sentence in sentences if f"`{name}`" in sentence]
    about = [sentence for sentence in having if sentence.strip().startswith(f"`{name}`")]
    return " ".join((about or having or [""])[0].split())
