"""Findings: sentences that named rules make from a study's numbers, each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchkit.analysis.classes import ClassReport
from benchkit.analysis.costs import ConditionCost
from benchkit.analysis.coverage import Coverage, Trouble
from benchkit.analysis.curves import Onset, Race
from benchkit.analysis.effects import LevelEffect, Sensitivity
from benchkit.analysis.estimates import Estimate
from benchkit.analysis.filters import DeadFilters
from benchkit.analysis.images import ModelAccuracy, ModelPair
from benchkit.analysis.published import ImpliedN, PublishedComparison
from benchkit.analysis.published_doubts import ClassCount, Doubt, PublishedTie
from benchkit.analysis.ranking import Ranking
from benchkit.analysis.search import SearchSummary

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Train and validation accuracy of a condition, paired within its repeats: how much of what it learnt transfers."""

    key: str
    label: str
    difference: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A condition's estimates over its done repeats, by metric such as `test.accuracy`."""

    key: str
    label: str
    metrics: dict[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReads:
    """How often test images were read to score models: `reads` by `trials` trials, `repeated` of them repeatedly."""

    reads: int
    trials: int
    repeated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that the rules may speak of; a rule computes nothing that is not here."""

    metric: str
    smoke: bool
    ranking: Ranking
    scores: tuple[Scores, ...]
    effects: tuple[LevelEffect, ...]
    sensitivities: tuple[Sensitivity, ...]
    models: tuple[ModelAccuracy, ...]
    model_pairs: tuple[ModelPair, ...]
    searches: tuple[SearchSummary, ...]
    coverage: tuple[Coverage, ...]
    troubles: tuple[Trouble, ...]
    costs: tuple[ConditionCost, ...]
    onsets: tuple[Onset, ...]
    race: Race | None
    gaps: tuple[Gap, ...]
    classes: ClassReport | None
    filters: tuple[DeadFilters, ...]
    published: tuple[PublishedComparison, ...]
    implied: tuple[ImpliedN, ...]
    doubts: tuple[Doubt, ...]
    class_counts: tuple[ClassCount, ...]
    ties: tuple[PublishedTie, ...]
    reads: TestReads
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


Rule = Callable[[Evidence], Sequence[Finding]]
"""A rule returns the findings that the evidence supports: none, one, or one for each condition it speaks of."""


def find(evidence: Evidence, rules: Sequence[Rule]) -> tuple[Finding, ...]:
    """Return what the rules find, in their order."""
    return tuple(finding for rule in rules for finding in rule(evidence))
