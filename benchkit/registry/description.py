"""What a plugin says of itself (card, options, whether it works), without importing it into this process.

Cards and options live in modules that import torch, which takes seconds; so a plugin is imported once in a child
process, and what it said is kept in the user's cache until its code, its version or Python's changes. Where torch is
imported already, the plugin is imported here instead. A description `ok` is final until then; a `broken` one is tried
again whenever the plugin is asked for by name, because what it lacked may have been installed since. The child
(`python -m benchkit.registry.description`) answers each entry, a line of JSON, with its description, so that a plugin
that crashes, hangs or is slow to import harms nothing here. What source files tell alone comes last.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import msgspec

from benchkit import __version__
from benchkit.child import ChildLost, LineChild, answer_lines
from benchkit.errors import PluginError, nearest
from benchkit.protocols import ALONE, API_VERSION, Range, card_of
from benchkit.registry.options import REQUIRED, MismatchError, Opaque, Option, convert, is_plain, options_of
from benchkit.registry.registry import (
    Entry,
    broken,
    find_module,
    load_plugin,
    module_specs,
    package_root,
    python_files,
    study_path,
)
from benchkit.storage import CachedRecords, decode, encode

CACHE = CachedRecords("descriptions", most=2000)

TIMEOUT = 120.0
"""Seconds that one plugin's import may take."""

_READERS = ("description.py", "kinds.py", "options.py", "../protocols.py")

Status = Literal["ok", "broken", "unchecked"]
"""ok: it was imported; broken: it cannot be, or its source shows that; unchecked: its source looks right so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A plugin's entry with its card, options and status; `reason` and `detail` (a traceback) say why it is broken."""

    entry: Entry
    status: Status
    reason: str = ""
    detail: str = ""
    title: str = ""
    summary: str = ""
    reference: str = ""
    url: str = ""
    api: int = API_VERSION
    options: tuple[Option, ...] = ()
    ignores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alone: tuple[str, ...] = ()
    """The methods that it has and no second regularizer of a condition may have."""
    rates: str = ""
    variant_rates: Mapping[str, str] = field(default_factory=dict)
    """An optimizer's learning rates in words, and those of a family's variants."""

    def usable(self) -> Description:
        """Return this description; raise `PluginError` with the reason when the plugin is broken."""
        if self.status == "broken":
            raise broken(self.entry, self.reason)
        return self


def to_json(description: Description) -> dict[str, Any]:
    """Return a description as JSON values; `from_json` undoes it. Keys are only ever added."""
    entry = description.entry
    plain = encode(description)
    del plain["entry"]
    plain["options"] = [_option_to_json(option) for option in description.options]
    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "target": entry.value,
        "origin": entry.origin,
        **plain,
    }


def from_json(entry: Entry, values: Mapping[str, Any]) -> Description:
    """Return the description of `entry` that `to_json` wrote.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    options = [{**option, "default": _default(option)} for option in values["options"]]
    return msgspec.convert({**values, "entry": entry, "options": options}, Description)


def read_cache(stamps: Mapping[Entry, str]) -> dict[Entry, Description]:
    """Return the cached descriptions whose stamp is still the given one."""
    records = CACHE.read({entry.key: stamp for entry, stamp in stamps.items()})
    known: dict[Entry, Description] = {}
    for entry in stamps:
        if entry.key in records:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a damaged record is made anew
                known[entry] = from_json(entry, records[entry.key])
    return known


def write_cache(descriptions: Sequence[Description], stamps: Mapping[Entry, str]) -> None:
    """Add descriptions to the cache, replacing older ones of the same plugins."""
    keyed = {entry.key: stamp for entry, stamp in stamps.items()}
    CACHE.write({description.entry.key: to_json(description) for description in descriptions}, keyed)


def _option_to_json(option: Option) -> dict[str, Any]:
    required, plain = option.default is REQUIRED, is_plain(option.default)
    return {
        "name": option.name,
        "type": option.type,
        "required": required,
        "default": encode(option.default) if plain and not required else None,
        "default_text": "" if plain or required else repr(option.default),
        "low": option.low,
        "high": option.high,
        "log": option.log,
        "choices": list(option.choices),
        "help": option.help,
    }


def _default(values: Mapping[str, Any]) -> Any:
    if values["required"]:
        return REQUIRED
    if values["default_text"]:
        return Opaque(str(values["default_text"]))
    try:
        return convert(str(values["type"]), values["default"])
    except MismatchError:
        return values["default"]  # an author may write a default that is outside the annotation, such as None


def describe_all(entries: Sequence[Entry]) -> tuple[Description, ...]:
    """Return the descriptions of plugins in the given order, each ok or broken; one broken plugin stops no other.

    Those that the cache does not hold as ok are imported: here when torch is imported already, else all in one child
    process, which takes some seconds.
    """
    stamps = _stamps(entries)
    described = {entry: known for entry, known in read_cache(stamps).items() if known.status == "ok"}
    described |= _without_import([entry for entry in entries if entry.problem or entry.kind == "studies"])
    missing = [entry for entry in dict.fromkeys(entries) if entry not in described]
    if missing:
        new = [describe_here(entry) for entry in missing] if "torch" in sys.modules else describe_in_child(missing)
        write_cache(new, stamps)
        described |= {description.entry: description for description in new}
    return tuple(described[entry] for entry in entries)


def glance(entries: Sequence[Entry]) -> tuple[Description, ...]:
    """Return what is known of plugins without importing any: cached descriptions, or what their source files show.

    A plugin that no cache knows is `broken` when its module, syntax or attribute is wrong, else `unchecked`.
    """
    stamps = _stamps(entries)
    cached = read_cache(stamps)
    new = _without_import([entry for entry in entries if entry not in cached])
    write_cache([new[entry] for entry in new if not entry.problem and entry.kind != "studies"], stamps)
    return tuple((cached | new)[entry] for entry in entries)


def describe_here(entry: Entry) -> Description:
    """Return a plugin's description by importing it into this process; what it prints goes to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            plugin = load_plugin(entry)
            facts = card_of(plugin)
            options = options_of(plugin, entry.kind)
        description = Description(
            entry=entry,
            status="ok",
            title=str(facts.title),
            summary=str(facts.summary),
            reference=str(facts.reference),
            url=str(facts.url),
            api=facts.api,
            options=options,
            ignores=facts.ignores,
            rates=_rates(facts.rates, facts.rate),
            variant_rates={
                name: _rates(Range(low=rate / 100, high=10 * rate, log=True), rate)
                for name, rate in facts.variant_rates.items()
            },
            alone=tuple(one for one in ALONE if entry.kind == "regularizers" and callable(getattr(plugin, one, None))),
        )
        # Raises for a card that holds other things than the interface says, or more than text and numbers.
        from_json(entry, json.loads(json.dumps(to_json(description))))
        return description
    except PluginError as error:
        reason, cause = (*error.problems, error.what)[0], error.__cause__
    except Exception as error:  # noqa: BLE001 - a card may hold anything; whatever it raises is this plugin's fault
        reason, cause = f"{type(error).__name__}: {error}", error
    return Description(entry=entry, status="broken", reason=reason, detail=_traceback(cause, entry))


def _without_import(entries: Sequence[Entry]) -> dict[Entry, Description]:
    """Return what is known of entries that are not imported: their problem, a study's file, what their source shows."""
    reasons = {entry: entry.problem for entry in entries}
    reasons |= source_problems([entry for entry in entries if not entry.problem and entry.kind != "studies"])
    described = {}
    for entry, reason in reasons.items():
        status: Status = "broken" if reason else "unchecked"
        described[entry] = Description(entry=entry, status=status, reason=reason)
        if entry.kind == "studies" and not reason:
            described[entry] = _study(entry)
    return described


def _study(entry: Entry) -> Description:
    try:
        return Description(entry=entry, status="ok", title=entry.name, summary=str(study_path(entry)))
    except PluginError as error:
        return Description(entry=entry, status="broken", reason=error.problems[0])


def _stamps(entries: Sequence[Entry]) -> dict[Entry, str]:
    """Return a text for each entry that changes with anything its description depends on."""
    own = max((Path(__file__).parent / name).stat().st_mtime_ns for name in _READERS)
    common = f"python {platform.python_version()}, benchkit {__version__} of {own}"
    return {entry: f"{entry.version}, {source}, {common}" for entry, source in source_stamps(entries).items()}


def _rates(searched: Range | None, first: float) -> str:
    """Return an optimizer's learning rates in words, empty where its card says none."""
    if searched is None:
        return ""
    begin = f", {first:g} to begin with" if first else ""
    return f"{searched.low:g}..{searched.high:g}{' (log)' if searched.log else ''}{begin}"


def _traceback(error: BaseException | None, entry: Entry) -> str:
    """Return an error's traceback from the plugin's own code on, empty where none of it ran: the reason says it all."""
    frames = error.__traceback__ if error else None
    while frames and not _is_of(frames.tb_frame, entry):
        frames = frames.tb_next
    if error is None or frames is None:
        return ""
    import traceback

    return "".join(traceback.format_exception(error.with_traceback(frames)))[-6000:]


def _is_of(frame: FrameType, entry: Entry) -> bool:
    """Return whether a plugin's file or a module of its package runs in a frame."""
    if entry.file:
        return frame.f_code.co_filename == str(entry.file)
    running = str(frame.f_globals.get("__name__", ""))
    return running.partition(".")[0] == entry.module.partition(".")[0]


def describe_in_child(entries: Sequence[Entry], *, timeout: float = TIMEOUT) -> list[Description]:
    """Return the descriptions of `entries` in order, importing all in one child process.

    A plugin whose import ends the process or takes longer than `timeout` seconds is broken, with that as the reason;
    another child goes on with the next.
    """
    with LineChild(["-m", "benchkit.registry.description"], timeout) as child:
        return [_answer(child, entry) for entry in entries]


def _answer(child: LineChild, entry: Entry) -> Description:
    try:
        return from_json(entry, child.ask(encode(entry)))
    except ChildLost as lost:
        reason = f"it {lost.reason}" if lost.late else f"importing it {lost.reason}"
        if "SIGKILL" in reason:
            reason += ", as a system does whose memory, or a job's limit of it, is too little"
        return Description(entry=entry, status="broken", reason=reason, detail=lost.detail)


def missing_module(name: str) -> str:
    """Return the first part of a dotted module that does not exist, or an empty string."""
    parts = name.split(".")
    specs = [spec for spec in module_specs(name) if spec is not None]
    return ".".join(parts[: len(specs) + 1]) if len(specs) < len(parts) else ""


def source_problems(entries: Sequence[Entry]) -> dict[Entry, str]:
    """Return why importing each entry must fail, as far as files tell: module, syntax or attribute; else nothing.

    A module that many entries name is looked for and read once.
    """
    bound = functools.cache(_names_or_problem)
    return {entry: _attribute_problem(entry, bound(entry.module, entry.file)) for entry in entries}


def _names_or_problem(module: str, file: Path | None) -> frozenset[str] | str:
    """Return the names that a module, or a local file, binds (`*` for any), or why it cannot be imported."""
    if file is None and (missing := missing_module(module)):
        return f"there is no module {missing!r}"
    spec = None if file else find_module(module)
    path = file or (Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None)
    if path is None:  # it is compiled, or has no file
        return frozenset({"*"})
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"{type(error).__name__} in {path}{f', line {line}' if line else ''}: {getattr(error, 'msg', error)}"
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
    return frozenset(_top_level_names(tree.body))


def _attribute_problem(entry: Entry, names: frozenset[str] | str) -> str:
    if isinstance(names, str):
        return names
    wanted = entry.attribute.partition(".")[0]
    if wanted in names or not names.isdisjoint({"*", "__getattr__"}) or find_module(f"{entry.module}.{wanted}"):
        return ""
    return f"{entry.module!r} has no {wanted!r}{nearest(wanted, names)}"


def source_stamps(entries: Sequence[Entry]) -> dict[Entry, str]:
    """Return a text for each entry that changes when any Python file of its package does (count, size, newest)."""
    root, stamp = functools.cache(package_root), functools.cache(_stamp)
    return {entry: entry.version if entry.file else stamp(root(entry.module)) for entry in entries}


def _stamp(root: str) -> str:
    if not root:
        return "absent"
    try:
        facts = [os.stat(path) for path in ([root] if os.path.isfile(root) else python_files(root))]
    except OSError as error:
        return f"unreadable: {error}"
    newest = max((one.st_mtime_ns for one in facts), default=0)
    return f"{len(facts)}/{sum(one.st_size for one in facts)}/{newest}"


def _top_level_names(body: Sequence[ast.AST]) -> Iterator[str]:
    """Yield the names that statements bind at top level, also inside `if`, `try` and `with`; `*` for star imports."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr):
            nodes = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            yield from (node.id for node in nodes if isinstance(node.ctx, ast.Store))
        else:
            for name in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from _top_level_names(getattr(statement, name, ()))


if __name__ == "__main__":
    answer_lines(lambda values: to_json(describe_here(decode(Entry, values))))
