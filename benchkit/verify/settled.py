"""Whether a capsule fits itself: conditions have the keys of their settings, trials the seeds of their repeats."""

from __future__ import annotations

import math
from collections.abc import Iterator

from benchkit.capsule.contents import CapsuleStudy, CapsuleTrial
from benchkit.capsule.reading import Capsule
from benchkit.errors import StudyError
from benchkit.plan import Condition, make_plan, typed_settings
from benchkit.report.privacy import HOME
from benchkit.study import Study
from benchkit.study.fingerprint import fingerprint
from benchkit.study.seeds import trial_seeds
from benchkit.verify.check import Check, judged

MOST_CONDITIONS = 5000
"""A study of strangers with more combinations of levels is not planned anew."""


def settled_checks(capsule: Capsule) -> Iterator[Check]:
    """Yield the checks of conditions and seeds."""
    pairs = list(zip(capsule.head.studies, capsule.studies, strict=True))
    grid = [(c, study.seed) for one, study in pairs for c in one.conditions if c.kind == "grid"]
    checked = [(condition, seed) for condition, seed in grid if HOME not in str(condition.settings)]
    problems = [f"{c.label}: key {c.key}" for c, seed in checked if not _fits(c, seed)]
    good = f"the keys of {len(checked)} conditions follow from their settings"
    yield judged("settings", good, "conditions have settings that do not give their key", problems)
    yield from _planned(pairs)
    wrong, trials = [], 0
    for study, listed in zip(capsule.studies, capsule.trials, strict=True):
        trials += len(listed)
        wrong += [
            f"trial {trial.number} ({trial.phase} {trial.index})" for trial in listed if not _seeded(trial, study.seed)
        ]
    yield judged("seeds", f"the seeds of {trials} trials follow from the study's", "trials have other seeds", wrong)


def _planned(pairs: list[tuple[CapsuleStudy, Study]]) -> Iterator[Check]:
    """Yield whether the study files describe the conditions that were trained."""
    problems, count = [], 0
    for described, study in pairs:
        if math.prod(len(factor.levels) for factor in study.factors) > MOST_CONDITIONS:
            told = f"{described.name} has more combinations of levels than are looked at"
            yield Check(name="study files", state="unchecked", told=told)
            continue
        planned = {condition.key for condition in make_plan(study).conditions}
        levels = {factor.path: {level.label for level in factor.levels} for factor in study.factors}
        for one in described.conditions:
            # Levels that the study lacks were asked for with --only.
            asked = any(label not in levels.get(path, ()) for path, label in one.levels.items())
            if one.kind == "confirm-best" or asked or HOME in str(one.settings):
                continue
            count += 1
            problems += [f"{described.name}: {one.label}"] if one.key not in planned else []
    good = f"the study files describe {count} of the conditions that were trained"
    yield judged("study files", good, "conditions do not follow from the study file of the capsule", problems)


def _fits(condition: Condition, seed: int) -> bool:
    try:
        return fingerprint(typed_settings(condition.settings, seed)) == condition.key
    except StudyError:
        return False


def _seeded(trial: CapsuleTrial, seed: int) -> bool:
    derived = trial_seeds(seed, trial.phase, trial.index)
    return all(derived.get(purpose) == recorded for purpose, recorded in trial.seeds.items())
