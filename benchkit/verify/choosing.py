"""Which trials of a report are trained again: a few, spread over its conditions, the cheap ones first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchkit.capsule.contents import CapsuleTrial
from benchkit.capsule.reading import Capsule
from benchkit.plan import Condition, typed_settings
from benchkit.study.seeds import derive_seed
from benchkit.study.tree import changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A trial that is to be trained again: the place of its study in the capsule, its condition, and itself."""

    study: int
    condition: Condition
    trial: CapsuleTrial

    @property
    def name(self) -> str:
        """Return the trial in words."""
        return f"{self.condition.label}, {'slot' if self.trial.phase == 'search' else 'repeat'} {self.trial.index}"


def choose(capsule: Capsule, n: int, seed: int) -> tuple[Choice, ...]:
    """Return `n` done trials, or all when there are fewer; the same capsule and seed give the same choice.

    Conditions take turns, those whose trials took the least time first; within one, `seed` chooses.
    """
    groups: dict[tuple[int, str], list[Choice]] = defaultdict(list)
    for place, (described, trials) in enumerate(zip(capsule.head.studies, capsule.trials, strict=True)):
        conditions = {condition.key: condition for condition in described.conditions}
        for trial in trials:
            if trial.state == "done" and trial.metrics:
                groups[place, trial.condition].append(
                    Choice(study=place, condition=conditions[trial.condition], trial=trial)
                )
    for key, group in groups.items():
        group.sort(key=lambda one: derive_seed(seed, "retrain", key[0], key[1], one.trial.index))
    ordered = sorted(groups.values(), key=lambda group: fmean(one.trial.seconds for one in group))
    turns = max((len(group) for group in ordered), default=0)
    return tuple([group[turn] for turn in range(turns) for group in ordered if turn < len(group)][:n])


def seconds_of(choices: tuple[Choice, ...]) -> float:
    """Return how long the choices took when the report's trials were trained."""
    return sum(one.trial.seconds for one in choices)


def paths_of(capsule: Capsule, choices: tuple[Choice, ...]) -> tuple[str, ...]:
    """Return what looks like a path on this machine in the settings of the choices: training would read it."""
    found: dict[str, None] = {}
    for one in choices:
        settings = changed(one.condition.settings, one.trial.params)
        typed_settings(settings, capsule.studies[one.study].seed)
        found.update(dict.fromkeys(text for text in _texts(settings) if "/" in text or "\\" in text))
    return tuple(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
