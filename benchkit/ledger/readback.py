"""What a ledger holds of a study, read back: for reports, for status and confirmation, and for who only looks at it."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from benchkit.analysis.candidates import standing, without_options
from benchkit.analysis.wording import count
from benchkit.errors import LedgerError, nearest
from benchkit.ledger.leases import LEASE, Sweep
from benchkit.ledger.ledger import Attempts, Ledger, decisions_of, optuna_name
from benchkit.ledger.tables import (
    attributes_of,
    chosen_params,
    file_of,
    open_file,
    open_read_only,
    open_storage,
    storage_errors,
)
from benchkit.ledger.trials import TrialFolder
from benchkit.locks import place_of
from benchkit.metrics import (
    UNDEFINED,
    Metric,
    Predictions,
    asked_names,
    know_recorded,
    plugin_name,
    unbalanced,
    value_of,
)
from benchkit.plan import Condition, Plan, confirm_condition, fingerprint, planned_looks
from benchkit.registry.kinds import KINDS
from benchkit.registry.registry import Entry, metric_entry
from benchkit.registry.sources import source_record
from benchkit.results import SPLITS, WITHOUT_FILES, Outcome, SplitMetrics, SplitName, StudyResults, Trial, sources_of
from benchkit.storage import decode
from benchkit.study import Search, Study
from benchkit.study.checks import REPORTED


def read_results(
    workspace: Path, study: str | None = None, storage: str | None = None, *, upcoming: bool = False
) -> StudyResults:
    """Return what a workspace's ledger holds of a study, or of its latest; raise `LedgerError` when nothing.

    `upcoming` is told in `results_of`.
    """
    return results_of(UntouchedLedger(workspace, storage), study, upcoming=upcoming)


def is_there(workspace: Path, storage: str | None) -> bool:
    """Return whether a workspace's ledger, or that of a `storage`, is there; whether a server's is, it tells itself."""
    file = file_of(storage) if storage else workspace / "ledger.db"
    return file is None or file.is_file()


def _check_there(workspace: Path, storage: str | None) -> None:
    if not is_there(workspace, storage):
        raise LedgerError(
            f"{storage or workspace}: there is no ledger here",
            hint=f"name its {'file with --storage' if storage else 'folder with --workspace'}, or run benchkit sweep "
            "first",
        )


class UntouchedLedger(Ledger):
    """A workspace's trials, for who only reads them: nothing is written, and locks are tried where a trial runs."""

    def _opened(self, storage: str | None, patience: float) -> tuple[str, RDBStorage]:
        _check_there(self.workspace, storage)
        self._may_have_copies = bool(storage)
        return "", open_storage(storage, patience) if storage else open_file(self.workspace / "ledger.db")

    def _create(self, study: Study, condition: Condition) -> optuna.Study:
        return optuna.load_study(study_name=optuna_name(study, condition), storage=self.storage)

    def sweeps(self, study: Study, trials: Sequence[FrozenTrial]) -> Mapping[str, Sweep]:
        """Return the records of a study's sweeps where a trial runs: whether that is alive, locks may tell at once."""
        if any(trial.state is TrialState.RUNNING for trial in trials):
            with suppress(OSError):  # where nothing can be written, the lease alone tells
                lock = self.workspace / "place.lock"
                self.place = place_of(self.workspace, lock, copies=self._may_have_copies)
        return super().sweeps(study, trials)


@contextmanager
def uncollected() -> Iterator[None]:
    """Put off the search for unreachable circles of objects: what is read has none, and each search looks at it all."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@storage_errors()
@uncollected()
def results_of(ledger: Ledger, name: str | None = None, *, upcoming: bool = False) -> StudyResults:
    """Return all that the ledger holds of a study (default: the latest); raise `LedgerError` when it has none.

    Where repeats are added until it is decided, those of the last complete interim analysis, or, with `upcoming`, those
    that the next one needs, too.
    """
    known = known_studies(ledger, (name,) if name else ())
    attrs = attributes_of(ledger.storage, name or known[0])
    study = decode(Study, attrs["study"])
    found = {condition.key: condition for condition in ledger.conditions(study)}
    plan = Plan(study=study, conditions=tuple(found[key] for key in attrs["conditions"] if key in found))
    attempts = ledger.attempts(study, scored=True)
    confirms = tuple(one for one in confirm_conditions(ledger, plan, attempts=attempts) if one.key in found)
    decisions = tuple(decisions_of(ledger, study.name).values())
    looks = planned_looks(decisions)
    whole = replace(plan, conditions=(*plan.conditions, *confirms))
    if looks:
        whole = replace(whole, more={one.key: looks[-1].n for one in whole.conditions if one.kind != "search"})
    shown = {condition.key: replace(condition, label=condition.display_label) for condition in whole.conditions}
    read = ledger.trials_and_earlier(whole, attempts)
    for environment in (trial.outcome.environment for trial in read[0] if trial.outcome):
        know_recorded(environment)
    asked, entry_of = study.asked_metrics, cache(metric_entry)
    uneven = unbalanced(attrs["data"], folds=study.splits == "folds")

    def scored(trial: Trial) -> Trial:
        found = measured(replace(trial, condition=shown[trial.condition.key]), asked, entry_of)
        return balanced(found) if uneven else found

    counted, earlier = (
        tuple(scored(trial) for trial in trials if trial.index < whole.count(trial.condition)) for trials in read
    )
    results = StudyResults(
        study=study,
        conditions=tuple(shown.values()),
        trials=counted,
        earlier=earlier,
        decisions=decisions,
        labels=StoredLabels([trial.folder for trial in counted if trial.state == "done"]),
        class_names=tuple(attrs["data"].get("class_names", ())),
        data=attrs["data"],
        workspace=str(ledger.workspace),
        command=attrs["command"],
    )
    if looks and not upcoming:
        whole = replace(whole, more=standing(results, looks).shown)
        trials, earlier = (
            tuple(trial for trial in group if trial.index < whole.count(trial.condition))
            for group in (results.trials, results.earlier)
        )
        results = replace(results, trials=trials, earlier=earlier)
    return replace(results, left_out=tuple(_left_out(attempts, whole, found)))


def known_studies(ledger: Ledger, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the studies of a ledger, the latest first; raise `LedgerError` where it lacks one of these or has none."""
    known = ledger.studies()
    absent = next((name for name in names if name not in known), "")
    hint = f"known: {', '.join(known)}" if known else "train one first: benchkit sweep quickstart"
    if (tiny := f"{absent}-smoke") in known:
        whole = without_options(attributes_of(ledger.storage, tiny)["command"].split(), (), ("--smoke", "--json"))
        raise LedgerError(
            f"{ledger.workspace}: {absent!r} was not swept yet, only its tiny version, {tiny!r}",
            hint=f"{' '.join(whole) or 'benchkit sweep STUDY'} trains it",
        )
    if absent:
        raise LedgerError(
            f"{ledger.workspace}: the ledger holds no study {absent!r}{nearest(absent, known)}", hint=hint
        )
    if not known:
        raise LedgerError(f"{ledger.workspace}: the ledger holds no studies yet", hint=hint)
    return known


class StoredLabels(Mapping[SplitName, np.ndarray]):
    """The true labels of val and test beside the predictions of the first of some trials' folders, read when asked for.

    Empty where no folder holds any that can be read.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders

    @cached_property
    def _found(self) -> dict[SplitName, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        for folder in self.folders:
            try:
                arrays = load_file(TrialFolder(folder).predictions)
            except (OSError, SafetensorError):
                continue  # searched trials store none; damaged files are named where they are verified
            return {split: arrays[f"{split}_labels"] for split in SPLITS if f"{split}_labels" in arrays}
        return {}

    def __getitem__(self, split: SplitName) -> np.ndarray:
        """Return the labels int64 (n,) of a split; raise `KeyError` without them."""
        return self._found[split]

    def __iter__(self) -> Iterator[SplitName]:
        """Return the splits that have labels."""
        return iter(self._found)

    def __len__(self) -> int:
        """Return how many splits have labels."""
        return len(self._found)


def confirm_conditions(
    ledger: Ledger, plan: Plan, *, finished: bool = False, attempts: Attempts | None = None
) -> tuple[Condition, ...]:
    """Return the conditions that train the best trial of each search again, of `finished` searches alone if asked.

    `attempts` are the study's, scored, where they were read before. With several goals the first decides. A search
    whose best is a condition of the grid has none, and one whose best is that of another sampler's, neither: the
    repeats are there already.
    """
    search = plan.study.search
    if search is None or plan.study.confirm < 1:
        return ()
    grid = {condition.key for condition in plan.conditions if condition.kind == "grid"}
    attempts = attempts or ledger.attempts(plan.study, scored=True)
    confirms: dict[tuple[str, str], Condition] = {}
    for condition in plan.conditions:
        count = plan.count(condition)
        if condition.kind != "search" or (finished and attempts.ended(condition, count) < count):
            continue
        asked = [trial for index, trial in attempts.counted(condition).items() if index < count]
        best = _best(asked, search)
        if best is None:
            continue
        confirm = confirm_condition(plan.study, condition, chosen_params(search, best.params))
        trained = fingerprint(plan.settings_of(confirm))
        if trained not in grid:
            confirms.setdefault((condition.parent, trained), confirm)
    return tuple(confirms.values())


def _best(trials: Iterable[FrozenTrial], search: Search) -> FrozenTrial | None:
    """Return the done trial with the best value of the first goal, the earliest of equals."""
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values]
    done.sort(key=lambda trial: trial.number)
    return search.goals[0].best((trial.values[0], trial) for trial in done)


def _left_out(attempts: Attempts, plan: Plan, found: dict[str, Condition]) -> Iterator[str]:
    """Yield a line for every condition in the ledger that the study no longer has, if anything was trained of it."""
    kept = {condition.key for condition in plan.conditions}
    for condition in (one for key, one in found.items() if key not in kept):
        finished = len(attempts.finished(condition))
        if not finished:
            continue
        why = "of another version of this study"
        if condition.kind == "confirm-best" and condition.parent in kept:
            why = "of what was the best of its search at the time"
        yield f"{condition.display_label}: {count(finished, 'finished trial')} {why} (key {condition.key})"
    for condition in plan.conditions:
        asked = plan.count(condition)
        surplus = sum(trial.user_attrs["index"] >= asked for trial in attempts.finished(condition))
        if surplus:
            by = "the last complete look used" if plan.more else "the study asks for"
            yield f"{condition.display_label}: {count(surplus, 'finished trial')} beyond the {asked} that {by}"


BALANCED = "balanced_accuracy"
"""The metric that stands beside the accuracy where classes are unbalanced."""


def measured(trial: Trial, asked: Sequence[Metric], entry_of: Callable[[str], Entry | None] = metric_entry) -> Trial:
    """Return a trial with every metric that its kept predictions give; without these it stays not measured.

    The sources by which it is measured here are added to those that it was trained with; `entry_of` finds a metric's.
    """
    scored = trial.outcome.metrics if trial.outcome and trial.state == "done" else {}
    lacking = [split for split, known in scored.items() if any(one.name not in known.more for one in asked)]
    if not lacking or trial.outcome is None:
        return trial
    found: dict[SplitName, SplitMetrics] = dict(scored)
    notes, here = dict.fromkeys(trial.outcome.notes), set[str]()
    for split in lacking:
        computed = _computed(trial, split, asked)
        more = {name: value for name, value in computed.items() if value is not None}
        here |= more.keys() - scored[split].more.keys()
        found[split] = replace(scored[split], more={**more, **scored[split].more})
        undefined = [one for one in asked if one.name in computed and one.name not in found[split].more]
        notes |= dict.fromkeys(f"{split}.{one.name}{UNDEFINED}{one.undefined}" for one in undefined)
    environment = _measured_by(trial.outcome.environment, filter(None, map(entry_of, sorted(here))))
    return replace(trial, outcome=replace(trial.outcome, metrics=found, notes=tuple(notes), environment=environment))


def _measured_by(environment: Mapping[str, Any], entries: Iterable[Entry]) -> Mapping[str, Any]:
    """Return a trial's environment with the sources of metrics that were measured after it had ended."""
    sources, told = dict[str, Any](), dict[str, str]()
    for entry in entries:
        sources[f"{REPORTED}.{entry.name}"] = record = source_record(entry, entry.name)
        told[f"{REPORTED}.{entry.name}"] = (
            f"{entry.name} ({entry.shown_origin}, source {record['source']}, measured when the results were read)"
        )
    if not sources:
        return environment
    both = {"plugins": told, "sources": sources}
    return {**environment, **{key: {**environment.get(key, {}), **more} for key, more in both.items()}}


def _computed(trial: Trial, split: SplitName, asked: Sequence[Metric]) -> Mapping[str, float | None]:
    from safetensors import SafetensorError

    try:
        kept = Predictions(trial.predictions(split), trial.labels(split))
    except (OSError, KeyError, SafetensorError):
        return {}  # a searched trial's, train's, those of another host; damaged files are named where they are verified
    return {one.name: value_of(one, kept) for one in asked}


def balanced(trial: Trial) -> Trial:
    """Return a trial with the balanced accuracy of each split that it was scored on, from its counts by class."""
    if trial.outcome is None:
        return trial
    scored = {split: _with_balanced(known) for split, known in trial.outcome.metrics.items()}
    return replace(trial, outcome=replace(trial.outcome, metrics=scored))


def _with_balanced(known: SplitMetrics) -> SplitMetrics:
    recalls = [row[at] / sum(row) for at, row in enumerate(known.confusion) if sum(row)]
    if not recalls or BALANCED in known.more:
        return known
    return replace(known, more={**known.more, BALANCED: sum(recalls) / len(recalls)})


def plugin_sources(study: Study, outcomes: Iterable[Outcome]) -> Counter[tuple[str, ...]]:
    """Return how many trials rest on each source of a plugin, by its kind, name, source, distribution and file.

    Of metrics, those count that the study asks for.
    """
    asked = {f"{REPORTED}.{plugin_name(name)}" for name in asked_names(study.named_metrics)}
    return Counter(
        tuple(source.get(key, "") for key in ("kind", "name", "source", "distribution", "file"))
        for outcome in outcomes
        if outcome.state in ("done", "pruned")
        for where, source in sources_of(outcome.environment).items()
        if source.get("kind") in KINDS and (where in asked or not where.startswith(REPORTED))
    )


class SeenFolder(TrialFolder):
    """The files of a trial that is only looked at."""

    __slots__ = ()

    def owned(self) -> bool:
        """Return whether a trial of a version without leases wrote something lately: its lock is not touched."""
        try:
            return time.time() - (self.path / "history.jsonl").stat().st_mtime < 10 * LEASE
        except OSError:
            return False


class LedgerReader(Ledger):
    """A workspace's trials as they stand. What a finished trial left is read once, and kept.

    Whether a sweep lives is told by its lease alone, as this process sees no locks.
    """

    def __init__(self, workspace: Path, storage: str | None = None) -> None:
        """Look at the ledger of `workspace`, or at the `storage` of this URL; raise `LedgerError` where none is."""
        super().__init__(workspace, storage)
        self._read: dict[tuple[Path, str], Trial] = {}

    def _opened(self, storage: str | None, patience: float) -> tuple[str, RDBStorage]:
        _check_there(self.workspace, storage)
        return "", open_read_only(storage, self.workspace / "ledger.db")

    def folder(self, study: Study, condition: Condition, number: int) -> TrialFolder:
        """Return the folder of an Optuna trial of a condition, whose lock is never taken."""
        return SeenFolder(super().folder(study, condition, number).path)

    def _create(self, study: Study, condition: Condition) -> optuna.Study:
        return optuna.load_study(study_name=optuna_name(study, condition), storage=self.storage)

    def read_trial(self, study: Study, condition: Condition, frozen: FrozenTrial, sweeps: Mapping[str, Sweep]) -> Trial:
        """Return a trial as it stands now; one that has ended as it was when it was first read."""
        key = self.folder(study, condition, frozen.number).path, condition.key
        if key in self._read:
            return self._read[key]
        trial = super().read_trial(study, condition, frozen, sweeps)
        if frozen.state.is_finished() and trial.state not in WITHOUT_FILES:
            self._read[key] = trial
        return trial
