"""Random seeds derived from named parts, so that conditions are paired and repeats are fresh."""

from __future__ import annotations

import hashlib

PURPOSES = {"init": "initial weights", "order": "order of images", "augment": "augmentation", "dropout": "dropout"}
"""What a trial draws random numbers for, in words, by the name that its seed is derived from."""


def derive_seed(seed: int, *parts: str | int) -> int:
    """Return a seed in 0..2**63-1: sha256 over the study's seed and the named parts.

    The parts name what is drawn for, never a factor, so that all conditions see the same numbers.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def trial_seeds(seed: int, phase: str, index: int) -> dict[str, int]:
    """Return the seed of each of a trial's `PURPOSES`, from the study's seed and the trial's repeat alone.

    Repeats of the phases grid and confirm draw the same numbers at the same `index`; the trials of a search draw
    others. Training, capsule, report and `benchkit verify` all take a trial's seeds from here.
    """
    repeat = "repeat" if phase in ("grid", "confirm") else phase
    return {purpose: derive_seed(seed, repeat, index, purpose) for purpose in PURPOSES}
