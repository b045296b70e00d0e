"""Which trial's weights are exported: of the condition asked for, or of the best one, the repeat best on val."""

from __future__ import annotations

from dataclasses import dataclass

from benchkit.analysis.estimates import Estimate, best_repeats_metric, done_repeats, estimate_of
from benchkit.analysis.ranking import rank
from benchkit.errors import ReportError, nearest
from benchkit.ledger.cleaning import val_score
from benchkit.ledger.trials import TrialFolder
from benchkit.plan import Condition, typed_settings
from benchkit.results import StudyResults, Trial
from benchkit.study.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTrial:
    """The trial whose weights are exported, its condition and settings, and why it is this one.

    `estimate` is the condition's mean of `metric`, the study's main one, over its repeats. `among` is of how many
    conditions it is the best, 1 where it was asked for.
    """

    condition: Condition
    trial: Trial
    settings: Settings
    metric: str
    estimate: Estimate
    why: str
    among: int = 1


def choose(results: StudyResults, label: str = "") -> ChosenTrial:
    """Return the trial to export: of the condition with this label or key, else of the one with the best mean.

    Of its repeats it is the one that `clean` keeps, the best on val (`best_repeats_metric`); the test split chooses
    nothing. Raise `ReportError` when the condition is unknown or none of its trials has its weights here.
    """
    metric = results.study.report.metric
    condition, chosen = _condition(results, label, metric)
    settings = typed_settings(condition.settings, results.study.seed)
    goal = best_repeats_metric(results, condition)
    here = [t for t in done_repeats(results, condition).values() if TrialFolder(t.folder).weights.is_file()]
    scored = [(score, trial) for trial in here if (score := val_score(results, trial)) is not None]
    mean = estimate_of(results, condition, metric)
    if not scored or mean is None:
        raise ReportError(
            f"{results.study.name}: no finished trial of {condition.label!r} has its weights here",
            hint="train it to its end with benchkit sweep, or fetch another machine's files with benchkit merge",
        )
    trial = min(scored, key=lambda pair: (pair[0], pair[1].index))[1]
    here_of = f"the {len(scored)} of its {mean.n} repeats with weights here" if len(scored) < mean.n else ""
    of = f" of {here_of or f'its {mean.n} repeats'} the one whose {goal} is best"
    if len(scored) == 1:
        of = f" the one of its {mean.n} repeats with weights here" if mean.n > 1 else " its only repeat"
    return ChosenTrial(
        condition=condition,
        trial=trial,
        settings=settings,
        metric=metric,
        estimate=mean,
        why=f"{chosen};{of}",
        among=1 if label else len(rank(results, metric).rows),
    )


def _condition(results: StudyResults, label: str, metric: str) -> tuple[Condition, str]:
    """Return a condition by its label or key, the best one without, and in words why it is this one."""
    known = {condition.key: condition for condition in results.conditions if condition.kind != "search"}
    if not label:
        best = rank(results, metric).best
        if best is None:
            raise ReportError(f"{results.study.name}: no condition has a finished trial yet")
        return known[best.key], f"the condition with the best mean {metric}"
    found = [one for one in known.values() if one.label == label or one.key.startswith(label)]
    if len(found) != 1:
        labels = [one.label for one in known.values()]
        what = "several conditions" if found else "no condition"
        raise ReportError(
            f"{results.study.name}: {what} of the label or key {label!r}{nearest(label, labels)}",
            hint=f"its conditions: {'; '.join(labels)}",
        )
    return found[0], "the condition that was asked for"
