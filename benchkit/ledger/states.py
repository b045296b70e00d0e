"""The trials of a study: which are planned, which attempt counts, and how each stands by its owner and its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from benchkit.errors import LedgerError, StudyError
from benchkit.ledger.files import TrialFile, TrialFolder, lost_or_changed, notes_of, trial_files
from benchkit.ledger.leases import Sweep, lease_of
from benchkit.ledger.samplers import stored_params
from benchkit.ledger.tables import NewTrial
from benchkit.plan import Condition, Plan, make_plan
from benchkit.results import EpochRecord, Outcome, State
from benchkit.storage import encode
from benchkit.study import Study
from benchkit.study.factors import default_params, grid_points


def whole_of(study: Study) -> tuple[Condition, ...]:
    """Return all conditions of a study, none when some cannot be trained: a sweep may leave those out."""
    try:
        return make_plan(study).conditions
    except StudyError:
        return ()


def planned(plan: Plan, conditions: Sequence[Condition], before: Mapping[str, Any]) -> list[str]:
    """Return the keys of the study's conditions in report order: those of the plan, and those planned before.

    `conditions` are all of the study. A sweep of some does not make the report forget the others, as long as the study
    still has them.
    """
    now, whole = ([one.key for one in part] for part in (plan.conditions, conditions))
    known = before.get("conditions", [])
    if before.get("study") == encode(plan.study):
        kept = {*known, *now}
    else:
        kept = {key for key in known if key in whole} | set(now)
    return [key for key in dict.fromkeys([*whole, *known, *now]) if key in kept]


def new_trial(name: str, index: int, attempt: int, given: Mapping[str, Any]) -> NewTrial:
    """Return an attempt at a trial of the Optuna study of this name."""
    attributes = {"index": index, "attempt": attempt, **({"given": dict(given)} if given else {})}
    return NewTrial(study=name, attributes=attributes, given=given)


def given_of(plan: Plan, condition: Condition, index: int) -> dict[str, Any]:
    """Return what a trial is queued with: a grid search's point, or the study's own settings as a search's first."""
    search = plan.search_of(condition)
    if search is None:
        return {}
    if search.sampler == "grid":
        return stored_params(search, grid_points(search)[index])
    return stored_params(search, default_params(search, condition.settings)) if index == 0 else {}


STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.WAITING: "waiting",
}


def effective(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the trial that counts for each index, by index: the latest attempt, and of two queued at once the first.

    Trials without an index, which others put into the storage, never count.
    """
    counted: dict[int, FrozenTrial] = {}
    for trial in trials:
        if "index" not in trial.user_attrs:
            continue
        index, attempt = trial.user_attrs["index"], trial.user_attrs["attempt"]
        current = counted.get(index)
        if current is None or (attempt, -trial.number) > (current.user_attrs["attempt"], -current.number):
            counted[index] = trial
    return dict(sorted(counted.items()))


class Attempts:
    """All attempts at a study's trials, read at one time."""

    def __init__(
        self, read: Callable[[Condition], Sequence[FrozenTrial]], sweeps: Mapping[str, Sweep] = MappingProxyType({})
    ) -> None:
        """Take the attempts at a condition's trials, in the order in which they were queued, from `read`."""
        self.of = read
        self.sweeps = sweeps

    def counted(self, condition: Condition) -> dict[int, FrozenTrial]:
        """Return the trial that counts for each index of a condition, by index."""
        return effective(self.of(condition))

    def finished(self, condition: Condition) -> list[FrozenTrial]:
        """Return the trials of a condition that count and have ended, in the order of their indices."""
        return [trial for trial in self.counted(condition).values() if trial.state.is_finished()]

    def ended(self, condition: Condition, count: int) -> int:
        """Return how many of the first `count` trials of a condition have ended."""
        return sum(int(trial.user_attrs["index"]) < count for trial in self.finished(condition))


def finished_state(trial: FrozenTrial) -> State:
    """Return how a finished trial ended; Optuna has no word of its own for diverged."""
    return STATES.get(trial.state) or ("diverged" if trial.user_attrs.get("state") == "diverged" else "failed")


def state_of(
    trial: FrozenTrial, folder: TrialFolder, sweeps: Mapping[str, Sweep] = MappingProxyType({}), *, files: bool = True
) -> State:
    """Return the state of a trial in benchkit's words; a running trial whose owner is gone is stale.

    `sweeps` are the records of the study's sweeps. With `files`, a finished trial that lacks files, or has some of
    other sizes, is told so; contents are not read.
    """
    if trial.state is TrialState.RUNNING:
        return "running" if is_alive(trial, folder, sweeps) else "stale"
    if files and trial.state.is_finished():
        broken = lost_or_changed(trial_files(folder.path, trial.user_attrs.get("files"), contents=False))
        return broken[0] if broken else finished_state(trial)
    return finished_state(trial)


def numbers_of(
    trial: FrozenTrial, folder: TrialFolder, sweeps: Mapping[str, Sweep] = MappingProxyType({})
) -> tuple[State, tuple[EpochRecord, ...], Outcome | None]:
    """Return a trial's state, its history and its outcome, none of the last two where its files do not stand any more.

    Every file of a finished trial is held against its digest; the reason is then that of the outcome.
    """
    kept = trial.user_attrs.get("files")
    files = trial_files(folder.path, kept) if trial.state.is_finished() else ()
    state, broken = state_of(trial, folder, sweeps, files=False), lost_or_changed(files)
    try:
        if broken is None and not trial.state.is_finished():
            return state, folder.read_history(), None
        if broken is None:
            return state, folder.read_history(), _noted(folder, files, kept)
    except LedgerError as error:
        broken = ("changed files" if trial.state.is_finished() else state), error.what
    return broken[0], (), Outcome(state=broken[0], reason=broken[1])


def _noted(folder: TrialFolder, files: Sequence[TrialFile], kept: object) -> Outcome | None:
    """Return the outcome on file, with a note of what is gone and of what only a newer version understands."""
    outcome = folder.read_outcome()
    if kept is None:
        folder.check_predictions()
    notes = notes_of(files)
    if newer := folder.newer_keys():
        notes = (*notes, f"written by a newer version: not read are {', '.join(newer)}")
    return replace(outcome, notes=(*outcome.notes, *notes)) if outcome and notes else outcome


def is_alive(trial: FrozenTrial, folder: TrialFolder, sweeps: Mapping[str, Sweep]) -> bool:
    """Return whether the owner of a running trial lives: by its lock here, by its sweep's record on another machine."""
    lease = lease_of(trial)
    holder = sweeps.get(lease.owner) if lease else None
    return folder.owned() if holder is None or holder.here else holder.lives
