"""Where a study stands: every condition's trials by state, failures with their reason, the time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchkit.analysis.candidates import (
    UNTIL,
    Standing,
    plan_for,
    standing,
    standing_words,
    sweep_command,
)
from benchkit.analysis.estimates import compared
from benchkit.analysis.wording import duration, measured
from benchkit.plan import Condition, InterimAnalysis, Plan, planned_looks
from benchkit.results import FINISHED, REPEATED, RETRIED, WITHOUT_FILES, StudyResults, Trial
from benchkit.storage import encode
from benchkit.study.study import UNTIL_DECIDED
from benchkit.sweep.progress import trial_name

STATES = (
    "done", "pruned", "diverged", "failed", "missing files", "changed files", "files elsewhere",
    "running", "stale", "waiting", "missing",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionStatus:
    """One condition: its trials by state, and the mean of the study's main metric over `scored` done trials."""

    condition: str
    kind: str
    states: Mapping[str, int]
    score: float | None
    scored: int

    def words(self, metric: str) -> str:
        """Return the score, which is of a metric, as people read it: `98.12 % (n = 3)`, nothing without one."""
        return "" if self.score is None else f"{measured(metric, self.score)} (n = {self.scored})"


@dataclass(frozen=True, slots=True, kw_only=True)
class InterimStatus:
    """Which conditions (labels) may still be the best after `taken` looks, and what the `next` one costs, if any.

    `trials` are to be trained for it, which takes `seconds` one after another if that is known. Nothing is `planned`
    where repeats are fixed: then this is how it would go on.
    """

    planned: tuple[InterimAnalysis, ...]
    taken: int
    decided: bool
    open: tuple[str, ...]
    next: InterimAnalysis | None
    trials: int
    seconds: float | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStatus:
    """A study's state in rows, lines and one closing sentence."""

    study: str
    metric: str
    rows: tuple[ConditionStatus, ...]
    failures: tuple[str, ...]
    running: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds_left: float | None
    sentence: str
    interim: InterimStatus | None = None
    states: tuple[str, ...] = STATES

    @property
    def broken(self) -> bool:
        """Return whether files of trials were lost or changed."""
        return any(row.states.get(state) for row in self.rows for state in WITHOUT_FILES)

    def plain(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return dict(encode(self))


def status_of(results: StudyResults) -> StudyStatus:
    """Return where a study stands."""
    looks = planned_looks(results.decisions)
    state = standing(results, looks) if looks else None
    plan = Plan(study=results.study, conditions=results.conditions, more=state.asked if state else {})
    rows = tuple(_row(results, plan, condition) for condition in results.conditions)
    left = seconds_left(results, plan)
    return StudyStatus(
        study=results.study.name,
        metric=results.study.report.metric,
        rows=rows,
        failures=tuple(
            f"{_name(t)}: {t.state}: {t.reason}"
            for t in results.trials
            if t.state in ("failed", "diverged", *WITHOUT_FILES)
        ),
        running=tuple(_running(t) for t in results.trials if t.state == "running"),
        left_out=results.left_out,
        seconds_left=left,
        sentence=_sentence(results, rows, left),
        interim=_interim(results, state),
    )


def _interim(results: StudyResults, state: Standing | None) -> InterimStatus | None:
    """Return how the looks stand; of a study with fixed repeats once all have ended, else None."""
    planned = state.plan if state else ()
    if state is None:
        if len(compared(results)) < 2 or results.study.smoke or results.study.splits == "folds":
            return None
        state = standing(results, plan_for(results, UNTIL_DECIDED))
        if not state.taken or not (state.decided or state.next):
            return None
    words = standing_words(state)
    if not planned and state.next:
        words += f"; to go on until it is decided: {sweep_command(results, UNTIL, workspace=results.workspace)}"
    return InterimStatus(
        planned=planned,
        taken=len(state.taken),
        decided=state.decided,
        open=tuple(state.open.values()),
        next=state.next,
        trials=state.missing,
        seconds=state.seconds,
        words=words,
    )


def _row(results: StudyResults, plan: Plan, condition: Condition) -> ConditionStatus:
    of = (trial for trial in results.trials if trial.condition.key == condition.key)
    trials = [trial for trial in of if trial.index < plan.count(condition)]
    states: Counter[str] = Counter(trial.state for trial in trials)
    missing = max(0, plan.count(condition) - sum(states.values()))
    scores = _scores(results, [trial for trial in trials if trial.state == "done"])
    return ConditionStatus(
        condition=condition.label,
        kind=condition.kind,
        states={**states, **({"missing": missing} if missing else {})},
        score=sum(scores) / len(scores) if scores else None,
        scored=len(scores),
    )


def _scores(results: StudyResults, done: list[Trial]) -> list[float]:
    metric = results.study.report.metric
    split = metric.partition(".")[0]
    return [trial.score(metric) for trial in done if trial.outcome and split in trial.outcome.metrics]


def _name(trial: Trial) -> str:
    return trial_name(trial.condition.label, trial.phase, trial.index)


def _running(trial: Trial) -> str:
    epoch = trial.history[-1].epoch if trial.history else 0
    return f"{_name(trial)}: running, epoch {epoch} done"


def seconds_left(results: StudyResults, plan: Plan) -> float | None:
    """Return the seconds that unfinished trials will take at the pace of the finished ones, or None without a pace."""
    costs = [trial.outcome.cost.seconds for trial in results.trials if trial.outcome and trial.outcome.cost]
    at_once = max(1, sum(trial.state == "running" for trial in results.trials))
    ended = sum(trial.state in FINISHED or trial.state in WITHOUT_FILES for trial in results.trials)
    left = len(plan.units()) - ended
    if left <= 0:
        return 0.0
    return sum(costs) / len(costs) * left / at_once if costs else None


def _sentence(results: StudyResults, rows: tuple[ConditionStatus, ...], left: float | None) -> str:
    states: Counter[str] = sum((Counter(row.states) for row in rows), Counter())
    told = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    open_ = sum(states[state] for state in ("running", "stale", "waiting", "missing"))
    until = [UNTIL] if planned_looks(results.decisions) and not results.study.most else []
    if not open_:
        retry = [word for state in REPEATED if states[state] for word in ("--retry", RETRIED[state])]
        command = sweep_command(results, *until, *retry, workspace=results.workspace)
        again = f"; train again with: {command}" if retry else ""
        if states["files elsewhere"]:
            again += "; bring the files that are elsewhere with: benchkit merge WORKSPACE"
        ended = "finished; " if not any(states[state] for state in WITHOUT_FILES) else ""
        return f"{results.study.name}: {ended}{told}{again}"
    rest = f"; about {duration(left, whole=True)} of training left" if left else ""
    command = sweep_command(results, *until, workspace=results.workspace)
    go_on = "" if states["running"] else f"; go on with: {command}"
    return f"{results.study.name}: {told}{rest}{go_on}"
