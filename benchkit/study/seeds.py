"""Random seeds derived from named parts, so that conditions are paired and repeats are fresh."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: str | int) -> int:
    """Return a seed in 0..2**63-1: sha256 over the study's seed and the named parts.

    The parts name the repeat and the purpose (`"split"`, `"init"`, `"order"`, `"augment"`), never a factor, so that
    the same repeat of two conditions sees the same initial numbers and the same order of images.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
