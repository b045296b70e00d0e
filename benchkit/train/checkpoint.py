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


CHECKPOINT = "checkpoint.pt"
"""The name of a trial's checkpoint in its folder."""


def checkpoint_of(run: Run) -> bytes:
    """Return the run's state, with a digest before it."""
    buffer = io.BytesIO()
    torch.save(run.state(), buffer)
    payload = buffer.getvalue()
    return MAGIC + hashlib.sha256(payload).digest() + payload


def save_checkpoint(path: Path, run: Run) -> None:
    """Write the run's state to `path`, replacing an earlier one only when the new one is complete."""
    write_atomically(path, checkpoint_of(run))


def load_checkpoint(path: Path, run: Run) -> bool:
    """Restore the run from `path` as `restore_checkpoint` does; return False also when there is no checkpoint."""
    return path.exists() and restore_checkpoint(path.read_bytes(), run, path.name)


def restore_checkpoint(content: bytes, run: Run, name: str = CHECKPOINT) -> bool:
    """Restore the run from what `checkpoint_of` returned and return True.

    Damaged content, of a file called `name`, counts as none: False, and a note in the run. Pickled code in it is never
    executed.
    """
    start = len(MAGIC) + hashlib.sha256().digest_size
    digest, payload = content[len(MAGIC) : start], content[start:]
    if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
        run.notes.append(f"the checkpoint {name} was damaged ({len(content)} bytes): training started over")
        return False
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        run.notes.append(f"the checkpoint {name} could not be read ({error}): training started over")
        return False
    run.restore(state)
    return True
