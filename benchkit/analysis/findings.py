"""Findings: sentences that named rules make from a study's numbers, each with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["answer", "note", "warning"]
"""answer: what the study asked; note: worth knowing; warning: something to mend or to distrust."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A sentence and what it rests on. `rule` names the rule, `about` the conditions it speaks of."""

    rule: str
    tone: Tone
    sentence: str
    evidence: str
    about: tuple[str, ...] = ()
