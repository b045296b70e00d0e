"""A study's tree of settings: tables read strictly, dotted paths and `--set`, and the typed `Settings` that it spells.

Trees are never changed in place. Imports no torch.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import MISSING, fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from benchkit.errors import BenchkitError, StudyError, first_of, nearest
from benchkit.metrics import selection_problem
from benchkit.storage import WORDS
from benchkit.study.settings import (
    MOST,
    OWN_NAMES,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    PluginRef,
    RegularizerSettings,
    ScheduleSettings,
    Settings,
    TrainSettings,
)

T = TypeVar("T")

MOST_LINES = 50
"""The most problems that one error tells; a factor of thousands of wrong levels has as many."""
MOST_LETTERS = 120
"""The most letters of a wrong value that a problem quotes."""

ELSEWHERE = {
    **{key: f"train.{key}" for key in ("epochs", "batch_size", "optimizer", "schedule", "loss")},
    **{key: f"report.{key}" for key in ("metric", "metrics", "figures")},
    **{key: f"data.{key}" for key in ("val_size", "train_size", "test_size", "image_size", "normalize")},
    **{"lr": "train.optimizer.lr", "max_lr": "train.schedule.max_lr", "norm": "model.norm"},
    **{key: f"the regularizer {key.replace('_', '-')!r}" for key in ("weight_decay", "dropout", "grad_clip")},
}
"""Keys that are looked for in other places than theirs, and where they stand."""


class Problems:
    """The problems noted so far, each a line `where: what is wrong`, each once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, line: str) -> bool:
        return line in self._lines

    @property
    def lines(self) -> list[str]:
        """Return the lines in the order in which they were noted."""
        return list(self._lines)

    @property
    def first_lines(self) -> list[str]:
        """Return the lines that an error tells: at most `MOST_LINES`, and how many more there are."""
        return first_of(self.lines, MOST_LINES)

    def add(self, where: str, what: str) -> None:
        """Note one problem at a key path."""
        self._lines[f"{where}: {what}" if where else what] = None

    def add_error(self, where: str, error: BenchkitError) -> None:
        """Note an error as one problem at a key path, with its hint."""
        self.add(where, f"{error.what}; {error.hint}" if error.hint else error.what)

    def unknown(self, where: str, key: str, known: Sequence[str]) -> None:
        """Note a key that does not exist, with what does."""
        meant = nearest(key, known) or (f" (did you mean {ELSEWHERE[key]}?)" if key in ELSEWHERE else "")
        self.add(f"{where}.{key}" if where else key, f"unknown key{meant}; known: {', '.join(known)}")


def quoted(value: Any) -> str:
    """Return a value as a message shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}... ({len(text):,} letters)"


def fits(value: Any, hint: Any) -> bool:
    """Return whether a TOML value fits a type hint: whole numbers are floats too, lists tuples; nan and inf nothing."""
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return not isinstance(value, float) or math.isfinite(value)


def expected(hint: Any, value: Any = None) -> str:
    """Return what a type hint asks for, in words, given a value that does not fit it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(parts)}{nearest(value, parts) if isinstance(value, str) else ''}"
    if origin is Annotated and fits(value, parts[0]):
        low, high = parts[1].ge, parts[1].le
        return f"at least {low:,}" if high in (None, MOST) else f"{low:,} to {high:,}"
    if origin is Annotated or type(None) in parts:
        return expected(parts[0], value)
    if origin is Mapping and parts[1] is str:
        return "a table of text"
    kind = {tuple: "array", Mapping: "object", dict: "object"}.get(origin or hint, getattr(hint, "__name__", str(hint)))
    return WORDS.get(kind, kind)


def each_table(listed: Any, where: str, problems: Problems) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the tables of a list, each with its place, noting what is no list and no table."""
    if not isinstance(listed, list):
        problems.add(where, f"got {quoted(listed)}, expected a list of tables")
        return
    for at, table in enumerate(listed):
        if isinstance(table, Mapping):
            yield f"{where}[{at}]", table
        else:
            problems.add(f"{where}[{at}]", f"got {quoted(table)}, expected a table")


def typed(
    cls: type[T], table: Mapping[str, Any], where: str, problems: Problems, *, also: Sequence[str] = (), **given: Any
) -> T | None:
    """Return `cls` made from a table (and `given` fields), or None after noting what is wrong with it.

    `also` names keys that the table may have beside the fields; they were read before.
    """
    hints, required = _fields(cast(Any, cls))
    values: dict[str, Any] = dict(given)
    before = len(problems)
    for key, value in table.items():
        if key not in hints or key in given:
            problems.unknown(where, key, [*(name for name in hints if name not in given), *also])
            continue
        try:
            values[key] = msgspec.convert(value, hints[key])
        except msgspec.ValidationError:
            problems.add(f"{where}.{key}", f"got {quoted(value)}, expected {expected(hints[key], value)}")
    for name in required:
        if name not in values and name not in table:
            problems.add(f"{where}.{name}", "is missing")
    return cls(**values) if len(problems) == before else None


@cache
def _fields(cls: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the types of a dataclass's fields by name, and the names of those without a default."""
    hints = get_type_hints(cls, include_extras=True)
    needed = (f for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)
    return {field.name: hints[field.name] for field in fields(cls)}, tuple(field.name for field in needed)


MOST_BYTES = 2**20
"""The largest study file."""
DEEPEST = 32
"""The most levels of tables and lists inside each other, and the most parts of a dotted path."""
MOST_VALUES = 200_000
LARGEST = 2**63 - 1
"""The largest whole number that TOML knows, and that a ledger can hold."""


def note_extremes(table: Mapping[str, Any], problems: Problems) -> None:
    """Note every value of a table that no setting can have, by its path.

    That is: whole numbers beyond 64 bits, text with a NUL character or half a surrogate pair, and more levels or values
    than a study may have.
    """
    pending: list[tuple[str, Any, int]] = [("", table, 0)]
    for path, value, depth in pending:  # which grows meanwhile
        if len(pending) > MOST_VALUES:
            problems.add("", f"has more than {MOST_VALUES:,} values")
            return
        if isinstance(value, Mapping | list) and depth > DEEPEST:
            problems.add(f"{path[:60]}...", f"is nested too deeply, expected at most {DEEPEST} levels")
        elif isinstance(value, Mapping):
            for key, item in value.items():
                inner = f"{path}.{key}" if path else key
                if key.count(".") >= DEEPEST or not _is_fit(key):
                    problems.add(path, f"got the key {quoted(key)}, expected at most {DEEPEST} parts of Unicode text")
                pending.append((inner, item, depth + 1))
        elif isinstance(value, list):
            pending += [(f"{path}[{at}]", item, depth + 1) for at, item in enumerate(value)]
        elif isinstance(value, str) and not _is_fit(value):
            problems.add(path, f"got {quoted(value)}, expected Unicode text without NUL characters")
        elif isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
            problems.add(path, f"is a whole number of {value.bit_length():,} bits, expected at most 64")


def _is_fit(text: str) -> bool:
    """Return whether a text can be written to files, databases and commands."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


SECTIONS = ("data", "model", "train", "regularizers")


def identity(regularizer: Mapping[str, Any]) -> str:
    """Return the id by which paths name a regularizer: its `id`, else its `name`."""
    return str(regularizer.get("id", regularizer.get("name", "")))


def regularizer_tables(listed: Any) -> list[dict[str, Any]]:
    """Return the regularizers of a tree as new tables; raise `StudyError` for what is no list of names and tables."""
    if not isinstance(listed, list | tuple):
        raise StudyError(f"regularizers: got {quoted(listed)}, expected a list of tables ([[regularizers]])")
    what = "expected a plugin's name or a table with name and options"
    problems = [
        f"regularizers[{at}]: got {quoted(item)}, {what}"
        for at, item in enumerate(listed)
        if not isinstance(item, str | Mapping)
    ]
    if problems:
        raise StudyError(problems[0], problems=problems[1:])
    return [{"name": item} if isinstance(item, str) else dict(item) for item in listed]


def changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tree` with the dotted paths in `changes` set; raise `StudyError` for one that leads nowhere.

    What no path goes through is shared with `tree`, so that thousands of conditions cost what they differ in.
    """
    result = dict(tree)
    for path, value in changes.items():
        parts = path.split(".")
        if parts[0] == "regularizers" and len(parts) > 1:
            result["regularizers"] = _changed_regularizers(result.get("regularizers", []), path, parts[1:], value)
        else:
            _set(result, path, parts, value)
    return result


def _set(node: dict[str, Any], path: str, parts: list[str], value: Any) -> None:
    """Set a path in a tree whose outermost table is ours alone."""
    for part in parts[:-1]:
        child = node.get(part, {})
        if isinstance(child, str):
            child = {"name": child}
        if not isinstance(child, Mapping):
            raise StudyError(f"{path}: {part} is {quoted(child)}, not a table")
        node[part] = dict(child)
        node = node[part]
    node[parts[-1]] = value


def _changed_regularizers(listed: Any, path: str, parts: list[str], value: Any) -> list[dict[str, Any]]:
    try:
        tables = regularizer_tables(listed)
    except StudyError as error:
        raise StudyError(f"{path}: {error.what}") from error
    known = [identity(table) for table in tables]
    if parts[0] not in known:
        raise StudyError(
            f"{path}: the study has no regularizer {parts[0]!r}{nearest(parts[0], known)}",
            hint=f"known: {', '.join(known) or 'none'}; add one with [[regularizers]] and name = {parts[0]!r}",
        )
    at = known.index(parts[0])
    if len(parts) == 1:
        if value is not False:
            raise StudyError(
                f"{path}: got {quoted(value)}, expected false (to leave it out) or a path to one of its options"
            )
        del tables[at]
    elif len(parts) == 2:
        tables[at][parts[1]] = value
    else:
        raise StudyError(f"{path}: expected regularizers.ID.OPTION")
    return tables


def value_at(tree: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None where the tree says nothing."""
    parts = path.split(".")
    if parts[0] == "regularizers" and len(parts) > 1:
        named = [table for table in regularizer_tables(tree.get("regularizers", [])) if identity(table) == parts[1]]
        return named[0].get(parts[2]) if named and len(parts) == 3 else None
    node: Any = tree
    for part in parts:
        if not isinstance(node, Mapping):
            return None
        node = node.get(part)
    return node


DATA_KEYS = frozenset(field.name for field in fields(DataSettings)) - {"dataset"}
"""The keys of [data] that are benchkit's; all others are options of the data set."""


def resolve(tree: Mapping[str, Any], *, seed: int, problems: Problems) -> Settings | None:
    """Return the settings that a tree spells out, or None after noting every problem in `problems`."""
    before = len(problems)
    for key in tree:
        if key not in SECTIONS:
            problems.unknown("", key, SECTIONS)
    data = _data(tree.get("data"), problems)
    model = _model(tree.get("model"), problems)
    train = _train(tree.get("train", {}), problems)
    regularizers = _regularizers(tree.get("regularizers", []), problems)
    if len(problems) > before or data is None or model is None or train is None:
        return None
    return Settings(data=data, model=model, train=train, regularizers=regularizers, seed=seed)


def plugin_ref(value: Any, where: str, problems: Problems) -> PluginRef | None:
    """Return the plugin that a name, or a table with `name` and options, refers to."""
    if isinstance(value, str):
        return PluginRef(name=value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return PluginRef(name=value["name"], options={k: v for k, v in value.items() if k != "name"})
    problems.add(where, f"got {quoted(value)}, expected a plugin's name or a table with name and options")
    return None


def _section(table: Any, name: str, thing: str, problems: Problems) -> Mapping[str, Any] | None:
    if isinstance(table, Mapping):
        return table
    missing = f'is missing: name a {thing} with [{name}] and name = "..."'
    problems.add(name, missing if table is None else "must be a table")
    return None


def _data(written: Any, problems: Problems) -> DataSettings | None:
    table = _section(written, "data", "data set", problems)
    if table is None:
        return None
    ref = plugin_ref({k: v for k, v in table.items() if k not in DATA_KEYS}, "data", problems)
    return typed(
        DataSettings, {k: v for k, v in table.items() if k in DATA_KEYS}, "data", problems, dataset=ref
    )  # fmt: skip


def _model(written: Any, problems: Problems) -> ModelSettings | None:
    table = _section(written, "model", "model", problems)
    if table is None:
        return None
    model = plugin_ref({k: v for k, v in table.items() if k not in ("norm", "weights")}, "model", problems)
    norm = plugin_ref(table.get("norm", "torch-bn"), "model.norm", problems)
    weights = {key: table[key] for key in ("weights",) if key in table}
    return typed(ModelSettings, weights, "model", problems, model=model, norm=norm)


def _train(table: Any, problems: Problems) -> TrainSettings | None:
    if not isinstance(table, Mapping):
        problems.add("train", f"got {quoted(table)}, expected a table")
        return None
    named: dict[str, Any] = {}
    for key, cls in (("optimizer", OptimizerSettings), ("schedule", ScheduleSettings)):
        value = table.get(key, {})
        value = {"name": value} if isinstance(value, str) else value
        if isinstance(value, Mapping):
            named[key] = _named(cls, value, f"train.{key}", problems)
        else:
            problems.add(f"train.{key}", f"got {quoted(value)}, expected a name or a table")
            named[key] = None
    if "loss" in table:
        named["loss"] = plugin_ref(table["loss"], "train.loss", problems)
    rest = {k: v for k, v in table.items() if k not in named}
    if told := selection_problem(rest.get("select_by", "val.loss")):
        problems.add("train.select_by", told)
    return typed(TrainSettings, rest, "train", problems, also=tuple(named), **named)


def _named(cls: type[T], table: Mapping[str, Any], where: str, problems: Problems) -> T | None:
    """Return settings of benchkit's own; where a table names a plugin, what is no key of every such is its option."""
    name = table.get("name", OWN_NAMES[where][0])
    if name in OWN_NAMES[where] or not isinstance(name, str):
        return typed(cls, table, where, problems, options={})
    kept = {key: value for key, value in table.items() if key in ("name", "lr", "decayed")}
    options = {key: value for key, value in table.items() if key not in kept}
    return typed(cls, kept, where, problems, options=options)


def _regularizers(listed: Any, problems: Problems) -> tuple[RegularizerSettings, ...]:
    try:
        tables = regularizer_tables(listed)
    except StudyError as error:
        for line in (error.what, *error.problems):
            problems.add("", line)
        return ()
    read = []
    for at, table in enumerate(tables):
        ref = plugin_ref(table, f"regularizers[{at}]", problems)
        if ref is not None:
            options = {k: v for k, v in ref.options.items() if k != "id"}
            read.append(RegularizerSettings(id=identity(table), plugin=PluginRef(name=ref.name, options=options)))
    for name, times in sorted(Counter(regularizer.id for regularizer in read).items()):
        if times > 1:
            problems.add(f"regularizers.{name}", "stands twice; give each its own id")
    return tuple(read)


def in_quotes(path: str, value: Any, ends: Set[str] = frozenset()) -> str:
    """Return what cures a dotted path without quotes, of which TOML makes tables; empty where `value` is none.

    Tables with a key of `ends` are what a path leads to.
    """
    keys = [path]
    while isinstance(value, Mapping) and len(value) == 1 and not value.keys() & ends:
        ((key, value),) = value.items()
        keys.append(key)
    return f'; a path of several names stands in quotes: "{".".join(keys)}"' if len(keys) > 1 else ""


def try_changes(
    settings: Mapping[str, Any], changes: Mapping[str, Any], seed: int, where: str, problems: Problems
) -> None:
    """Note what is wrong with the settings after some changes and was not wrong before."""
    inner = Problems()
    for path, value in changes.items():
        try:
            settings = changed(settings, {path: value})
        except StudyError as error:
            problems.add_error(where, error)
    resolve(settings, seed=seed, problems=inner)
    for line in inner.lines:
        if line not in problems:
            problems.add(where, line)


def label_of(value: Any) -> str:
    """Return the short text by which a setting's value is known in tables, for example `gn(groups=4)`."""
    if isinstance(value, Mapping):
        options = ", ".join(f"{key}={label_of(item)}" for key, item in value.items() if key != "name")
        return f"{value.get('name', '')}({options})" if options else str(value.get("name", ""))
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " + ".join(label_of(item) for item in value) or "none"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def hashable(value: Any) -> Any:
    """Return what equals another's exactly where two values of TOML are equal, and can be looked up at once."""
    if isinstance(value, Mapping):
        return frozenset((key, hashable(item)) for key, item in value.items())
    return tuple(hashable(item) for item in value) if isinstance(value, list | tuple) else value


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""Numbers as people type them; TOML knows no `.001` and no `1.e-3`."""


def parse_value(text: str) -> Any:
    """Return the TOML value that a text spells (`5`, `0.1`, `true`, `["bn", "gn"]`), else a number, else the text.

    Raises `StudyError` for a value that is nested too deeply or has too many digits.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return float(text) if NUMBER.fullmatch(text.strip()) else text
    except RecursionError as error:
        raise StudyError(f"is nested too deeply, expected at most {DEEPEST} levels") from error
    except ValueError as error:
        raise StudyError("has a whole number of too many digits, expected at most 64 bits") from error


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[str], problems: Problems) -> dict[str, Any]:
    """Return the study's table with every `path=value` applied; what cannot be applied is noted in `problems`.

    `false` takes away a regularizer (`regularizers.ID`), a factor, a searched path, the search or the confirmation.
    """
    result = dict(table)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            problems.add(f"--set {override[:120]}", "expected KEY=VALUE, for example train.epochs=5")
            continue
        try:
            _apply(result, path.strip(), parse_value(text))
        except StudyError as error:
            problems.add_error(f"--set {override[:120]}", error)
    return result


def _apply(table: dict[str, Any], path: str, value: Any) -> None:
    first, _, rest = path.partition(".")
    if first in SECTIONS:
        sections = {key: table[key] for key in SECTIONS if key in table}
        table.update(changed(sections, {path: value}))
    elif first == "factors" and rest:
        name = rest.replace('"', "")
        if value is False or value == []:
            _remove(_table(table, "factors"), name)
        else:
            _table(table, "factors")[name] = value
    elif path.startswith("search.space."):
        space, name = _table(_table(table, "search"), "space"), path.removeprefix("search.space.").replace('"', "")
        if value is False:
            _remove(space, name)
        else:
            space[name] = value
    elif path in ("search", "confirm") and value is False:
        table.pop(path, None)
    elif rest:
        _table(table, first)[rest.replace('"', "")] = value
    else:
        table[path] = value


def _table(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a table within ours, as a copy that may be changed."""
    table = parent.get(key, {})
    if not isinstance(table, dict):
        raise StudyError(f"{key} is {quoted(table)}, not a table")
    parent[key] = dict(table)
    return parent[key]  # type: ignore[no-any-return]


def _remove(table: dict[str, Any], name: str) -> None:
    if name not in table:
        raise StudyError(f"there is no {name!r} to leave out{nearest(name, table)}")
    del table[name]
