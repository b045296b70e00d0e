"""What is decided of how all trials of a study are trained, and settings that obey it. Imports no ledger, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchkit.study.settings import Settings

TRAINING = {"precision": "precision", "threads": "threads", "compiling": "compile"}
"""What is decided of how trials are trained, by name, and the key of `train` that asks for it."""

AS_TIMED = "as timed"
"""What is decided of compiling where each network's steps are timed for it."""


def obeying(settings: Settings, decided: Mapping[str, str]) -> Settings:
    """Return a trial's settings in which `auto` is what was decided."""
    automatic: dict[str, Any] = {
        key: decided[name]
        for name, key in TRAINING.items()
        if getattr(settings.train, key) == "auto" and decided.get(name, AS_TIMED) != AS_TIMED
    }
    return replace(settings, train=replace(settings.train, **automatic)) if automatic else settings
