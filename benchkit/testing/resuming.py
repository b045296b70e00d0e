"""Whether a run that is saved and continued ends as one that was not, and how two runs differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from benchkit.testing.check import attempt, require
from benchkit.testing.specimens import losses
from benchkit.train.checkpoint import load_checkpoint, save_checkpoint
from benchkit.train.evaluate import logits_of
from benchkit.train.fit import fit
from benchkit.train.run import Run


def hold_to_resuming(make: Callable[[], Run], path: Path) -> None:
    """Train `make()` of four epochs in one go, and saved to `path` after two and continued anew; require the same."""
    whole, first, second = make(), make(), make()
    for _ in fit(whole):
        pass
    for record in fit(first):
        if record.epoch == 2:
            save_checkpoint(path, first)
            break
    if path.exists():
        with attempt("a checkpoint after epoch 2, loaded into a new run"):
            load_checkpoint(path, second)
    for _ in fit(second):
        pass
    given = "four epochs, saved after two and continued by a new instance"
    got = difference(second, whole)
    require(not got, given=given, expected="the weights and losses of four epochs in one go", got=got)


def difference(run: Run, reference: Run) -> str:
    """Return how two runs differ, an empty string when they are equal bit for bit."""
    pairs = list(zip(losses(run.history), losses(reference.history), strict=False))
    for position, (loss, expected) in enumerate(pairs):
        if loss != expected:
            what = "validation" if position % 2 else "training"
            return f"{what} loss {loss!r} instead of {expected!r} in epoch {position // 2 + 1}"
    if len(run.history) != len(reference.history):
        return f"{len(run.history)} epochs instead of {len(reference.history)}"
    logits = [logits_of(loss, loss.val) for loss in (run, reference)]
    return "" if torch.equal(*logits) else "other validation logits after training"
