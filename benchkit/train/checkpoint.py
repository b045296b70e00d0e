"""A run on disk: written whole or not at all, and verified before it is believed."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import torch

from benchkit.storage import write_atomically
from benchkit.train.run import Run

MAGIC = b"benchkit-checkpoint-1\n"


def save_checkpoint(path: Path, run: Run) -> None:
    """Write the run's state to `path`, replacing an earlier one only when the new one is complete."""
    buffer = io.BytesIO()
    torch.save(run.state(), buffer)
    payload = buffer.getvalue()
    write_atomically(path, MAGIC + hashlib.sha256(payload).digest() + payload)


def load_checkpoint(path: Path, run: Run) -> bool:
    """Restore the run from `path` and return True; return False when there is no checkpoint.

    A damaged file counts as absent and leaves a note in the run. Pickled code in it is never executed.
    """
    if not path.exists():
        return False
    content = path.read_bytes()
    start = len(MAGIC) + hashlib.sha256().digest_size
    digest, payload = content[len(MAGIC) : start], content[start:]
    if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
        run.notes.append(f"the checkpoint {path.name} was damaged ({len(content)} bytes): training started over")
        return False
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        run.notes.append(f"the checkpoint {path.name} could not be read ({error}): training started over")
        return False
    run.restore(state)
    return True
