"""Describing plugins in a child process, so that one that crashes, hangs or is slow to import harms nothing here.

The child (`python -m benchkit.registry.describing`) reads the entries as JSON from stdin and writes one line of JSON
for each.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from benchkit.registry.description import Description, entry_from_json, entry_to_json, from_json, to_json
from benchkit.registry.entries import Entry

TIMEOUT = 120.0
"""Seconds that one plugin's import may take."""


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
    from benchkit.registry.descriptions import describe_here

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
