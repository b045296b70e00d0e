"""Whether a plugin's steps could be recorded on a GPU, and are right then: tried on the stand-in of a GPU."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable

from benchkit.testing.check import NotApplicable, attempt, require
from benchkit.testing.specimens import losses
from benchkit.testing.subject import Subject
from benchkit.train.fit import fit
from benchkit.train.run import Run

LIKELY = (
    "a step looks at its own numbers, keeps count in Python or puts a new tensor in an old one's place: compute on "
    "tensors alone, or say so with the class attribute capturable = False"
)
"""The likely reason why steps cannot be recorded."""

ROUNDING = 1e-6
"""By how much the losses of recorded and single steps may differ, relative."""

OTHERWISE = re.compile(r"\.is_cuda\b|\.is_cpu\b|\bdevice\.type\b")


def hold_to_recording(subject: Subject, make: Callable[[], Run]) -> None:
    """Train `make()` in recorded and in single steps, both in the way of a GPU, and require the same losses.

    Raise `NotApplicable` for a plugin that says `capturable = False`, or decides by a tensor's device itself.
    """
    from benchkit.testing.stand_in_gpu import stand_in_gpu

    given = "training in steps recorded as on a GPU"
    with attempt(given), stand_in_gpu() as gpu:
        recorded, single = make(), make()
        histories = [list(losses(list(steps))) for steps in (fit(recorded, gpu), fit(single))]
    if recorded.eager:
        raise NotApplicable(f"on a GPU its steps run one operation at a time: {recorded.eager}")
    reasons = [note for note in recorded.notes if note.startswith("CUDA graph not used")]
    require(not reasons, given=given, expected="steps that can be recorded", got="; ".join(reasons))
    got = f"losses {histories[0]} instead of {histories[1]}"
    # Where memory lies decides by which of a processor's paths sums are taken: the last bits may differ.
    same = all(math.isclose(one, other, rel_tol=ROUNDING) for one, other in zip(*histories, strict=True))
    require(same, given=given, expected="the losses of single steps", got=got)
    if asked := _asks_otherwise(subject):
        raise NotApplicable(f"what it does on a GPU was not tried: it asks {asked}, and not benchkit.is_cpu(tensor)")


def _asks_otherwise(subject: Subject) -> str:
    """Return by what a plugin's module decides by a tensor's device, empty where it does not or asks benchkit."""
    module = sys.modules.get(str(getattr(subject.plugin, "__module__", None)))
    try:
        found = OTHERWISE.search(inspect.getsource(module)) if module else None
    except (OSError, TypeError):
        return ""
    return found.group().lstrip(".") if found else ""
