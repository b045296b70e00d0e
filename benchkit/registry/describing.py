"""What a plugin says of itself (card, options, whether it works), without importing it into this process.

Cards and options live in modules that import torch, which takes seconds; so a plugin is imported once in a child
process, and what it said is kept in the user's cache until its code, its version or Python's changes. Where torch is
imported already, the plugin is imported here instead. A description `ok` is final until then; a `broken` one is tried
again whenever the plugin is asked for by name, because what it lacked may have been installed since. The child
(`python -m benchkit.registry.describing`) reads entries as JSON from stdin and writes one line of JSON for each, so
that a plugin that crashes, hangs or is slow to import harms nothing here.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from benchkit import __version__
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
    found = {entry: known for entry, known in read_cache(stamps).items() if known.status == "ok"}
    found |= {entry: _without_import(entry) for entry in entries if entry.problem or entry.kind == "studies"}
    missing = [entry for entry in dict.fromkeys(entries) if entry not in found]
    if missing:
        new = _describe_new(missing)
        write_cache(new, stamps)
        found |= {description.entry: description for description in new}
    return tuple(found[entry] for entry in entries)


def glance(entries: Sequence[Entry]) -> tuple[Description, ...]:
    """Return what is known of plugins without importing any: cached descriptions, or what their source files show.

    A plugin that no cache knows is `broken` when its module, syntax or attribute is wrong, else `unchecked`.
    """
    stamps = _stamps(entries)
    found = read_cache(stamps)
    new = {entry: _without_import(entry) for entry in entries if entry not in found}
    write_cache([new[entry] for entry in new if not entry.problem and entry.kind != "studies"], stamps)
    return tuple((found | new)[entry] for entry in entries)


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
    done: list[Description] = []
    while len(done) < len(entries):
        answers, reason, detail = _ask(entries[len(done) :], timeout)
        done += answers
        if len(done) < len(entries):
            done.append(Description(entry=entries[len(done)], status="broken", reason=reason, detail=detail))
    return done


def _ask(entries: Sequence[Entry], timeout: float) -> tuple[list[Description], str, str]:
    """Return the descriptions that one child made, then why it made no more and the end of what it printed."""
    request = json.dumps([entry_to_json(entry) for entry in entries]).encode()
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    late = threading.Event()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchkit.registry.describing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": paths},
        )
        try:
            answers = list(_answers(child, entries, request, timeout, late))
            if len(answers) < len(entries):
                child.wait(timeout=10)
        finally:
            child.kill()  # a plugin's threads or exit handlers must not keep a child that has answered
            code = child.wait()
        errors.seek(0)
        detail = errors.read()[-6000:].decode(errors="replace")
    return answers, f"it did not finish within {timeout:g} s" if late.is_set() else _exit_reason(code), detail


def _answers(
    child: subprocess.Popen[bytes], entries: Sequence[Entry], request: bytes, timeout: float, late: threading.Event
) -> Iterator[Description]:
    """Yield the descriptions that the child writes, until all are there or it ends."""
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
        stdin.write(request)
    with child.stdout as stdout:
        for entry in entries:
            line = _line_within(child, stdout, timeout, late)
            if not line.endswith(b"\n"):
                return
            yield from_json(entry, json.loads(line))


def _line_within(child: subprocess.Popen[bytes], stream: IO[bytes], timeout: float, late: threading.Event) -> bytes:
    """Return the child's next line, or an empty one when it ended or was killed for being late."""

    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(timeout, stop)
    timer.start()
    try:
        return stream.readline()
    finally:
        timer.cancel()


def _exit_reason(code: int) -> str:
    if code < 0:
        return f"importing it ended the process by signal {signal.Signals(-code).name}"
    return f"importing it ended the process with exit status {code}"


def main() -> None:
    """Describe the entries on stdin, one line of JSON each; whatever plugins print goes to stderr."""
    entries = [entry_from_json(values) for values in json.load(sys.stdin)]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for entry in entries:
        answers.write(json.dumps(to_json(describe_here(entry))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
