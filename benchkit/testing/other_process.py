"""What a data set does in another process: asked once for each subject."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchkit.registry.description import entry_to_json
from benchkit.testing.check import CheckFailure, NotApplicable
from benchkit.testing.preparing import Prepared, from_json
from benchkit.testing.subject import Subject

TIMEOUT = 600.0
"""Seconds that the other process may take."""


def prepared_elsewhere(subject: Subject) -> Prepared:
    """Return what another process sees that prepares the subject's data set from scratch.

    Raises `NotApplicable` when the plugin cannot be imported there, and `CheckFailure` when the process fails.
    """
    return subject.once("elsewhere", lambda: _ask(subject))


def _ask(subject: Subject) -> Prepared:
    if subject.entry is None:
        raise NotApplicable("another process cannot import this object: give the plugin by name, or at module level")
    request = {
        "entry": entry_to_json(subject.entry),
        "options": subject.given,
        "folder": str(subject.scratch("elsewhere")),
    }
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path)
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-m", "benchkit.testing.preparing"],
        input=json.dumps(request, default=str),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode == 0:
        return from_json(json.loads(done.stdout))
    lines = done.stderr.strip().splitlines()
    got = f"exit status {done.returncode}: {lines[-1] if lines else 'no message'}"
    raise CheckFailure(given="preparation in another process", expected="the data set", got=got)
