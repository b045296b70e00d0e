"""What a plugin says of itself (card, options, whether it works), without importing it into this process.

Cards and options live in modules that import torch, which takes seconds; so a plugin is imported once in a child
process, and what it said is kept in the user's cache until its code, its version or Python's changes. Where torch is
imported already, the plugin is imported here instead. A description `ok` is final until then; a `broken` one is tried
again whenever the plugin is asked for by name, because what it lacked may have been installed since. The child
(`python -m benchkit.registry.describing`) answers each entry, a line of JSON, with its description, so that a plugin
that crashes, hangs or is slow to import harms nothing here.
"""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from benchkit import __version__
from benchkit.child import ChildLost, LineChild, answer_lines
from benchkit.errors import PluginError
from benchkit.protocols import card_of
from benchkit.registry.description import (
    Description,
    entry_from_json,
    entry_to_json,
    from_json,
    read_cache,
    to_json,
    write_cache,
)
from benchkit.registry.entries import Entry
from benchkit.registry.loading import load_plugin, study_path
from benchkit.registry.options import options_of
from benchkit.registry.sources import source_problem, source_stamps

TIMEOUT = 120.0
"""Seconds that one plugin's import may take."""

_READERS = ("describing.py", "description.py", "options.py", "option_types.py", "../protocols.py")


def describe(entry: Entry) -> Description:
    """Return one plugin's description, from the cache or by importing it (see `describe_all`)."""
    return describe_all([entry])[0]


def describe_all(entries: Sequence[Entry]) -> tuple[Description, ...]:
    """Return the descriptions of plugins in the given order, each ok or broken; one broken plugin stops no other.

    Those that the cache does not hold as ok are imported: here when torch is imported already, else all in one child
    process, which takes some seconds.
    """
    stamps = _stamps(entries)
    described = {entry: known for entry, known in read_cache(stamps).items() if known.status == "ok"}
    described |= {entry: _without_import(entry) for entry in entries if entry.problem or entry.kind == "studies"}
    missing = [entry for entry in dict.fromkeys(entries) if entry not in described]
    if missing:
        new = _describe_new(missing)
        write_cache(new, stamps)
        described |= {description.entry: description for description in new}
    return tuple(described[entry] for entry in entries)


def glance(entries: Sequence[Entry]) -> tuple[Description, ...]:
    """Return what is known of plugins without importing any: cached descriptions, or what their source files show.

    A plugin that no cache knows is `broken` when its module, syntax or attribute is wrong, else `unchecked`.
    """
    stamps = _stamps(entries)
    cached = read_cache(stamps)
    new = {entry: _without_import(entry) for entry in entries if entry not in cached}
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
        )
        json.dumps(to_json(description))  # raises for a card that holds more than text and numbers
        return description
    except PluginError as error:
        reason = (*error.problems, error.what)[0]
        return Description(entry=entry, status="broken", reason=reason, detail=_traceback(error.__cause__))
    except Exception as error:  # noqa: BLE001 - a card may hold anything; whatever it raises is this plugin's fault
        reason = f"{type(error).__name__}: {error}"
        return Description(entry=entry, status="broken", reason=reason, detail=_traceback(error))


def _describe_new(entries: Sequence[Entry]) -> list[Description]:
    if "torch" in sys.modules:
        return [describe_here(entry) for entry in entries]
    return describe_in_child(entries)


def _without_import(entry: Entry) -> Description:
    if entry.problem:
        return Description(entry=entry, status="broken", reason=entry.problem)
    if entry.kind == "studies":
        try:
            return Description(entry=entry, status="ok", title=entry.name, summary=str(study_path(entry)))
        except PluginError as error:
            return Description(entry=entry, status="broken", reason=error.problems[0])
    reason = source_problem(entry)
    return Description(entry=entry, status="broken" if reason else "unchecked", reason=reason)


def _stamps(entries: Sequence[Entry]) -> dict[Entry, str]:
    """Return a text for each entry that changes with anything its description depends on."""
    own = max((Path(__file__).parent / name).stat().st_mtime_ns for name in _READERS)
    common = f"python {platform.python_version()}, benchkit {__version__} of {own}"
    return {entry: f"{entry.version}, {source}, {common}" for entry, source in source_stamps(entries).items()}


def _traceback(error: BaseException | None) -> str:
    if error is None:
        return ""
    import traceback

    return "".join(traceback.format_exception(error))[-6000:]


def describe_in_child(entries: Sequence[Entry], *, timeout: float = TIMEOUT) -> list[Description]:
    """Return the descriptions of `entries` in order, importing all in one child process.

    A plugin whose import ends the process or takes longer than `timeout` seconds is broken, with that as the reason;
    another child goes on with the next.
    """
    with LineChild(["-m", "benchkit.registry.describing"], timeout) as child:
        return [_described(child, entry) for entry in entries]


def _described(child: LineChild, entry: Entry) -> Description:
    try:
        return from_json(entry, child.ask(entry_to_json(entry)))
    except ChildLost as lost:
        reason = f"it {lost.reason}" if lost.late else f"importing it {lost.reason}"
        return Description(entry=entry, status="broken", reason=reason, detail=lost.detail)


if __name__ == "__main__":
    answer_lines(lambda values: to_json(describe_here(entry_from_json(values))))
