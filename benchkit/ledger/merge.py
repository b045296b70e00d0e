"""Trials that were trained elsewhere, taken into a workspace: copies of other workspaces, brought by any tool.

Every file is held against the list of its trial before and after it is copied, and each trial is taken once. Imports no
torch.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from benchkit.data.building import building_folder, put, remove_leftovers
from benchkit.errors import LedgerError
from benchkit.ledger.ledger import CONDITION_FILE, STUDY_FILE, Ledger, decide, decisions_of
from benchkit.ledger.readback import UntouchedLedger, plugin_sources
from benchkit.ledger.rebuild import frozen_trial
from benchkit.ledger.tables import attributes_of, set_times, storage_errors
from benchkit.ledger.trials import LIST, TrialFolder, is_alive, numbers_of, trial_files
from benchkit.locks import held
from benchkit.plan import Condition, Plan, search_of
from benchkit.registry.kinds import kind_word
from benchkit.registry.registry import is_own
from benchkit.results import WITHOUT_FILES
from benchkit.storage import decode, write_atomically
from benchkit.study import Study

ONE_STUDY = ("settings", "factors", "search", "seed")
"""What of a study's file must be equal for its trials to be those of one study."""

APART = "benchkit report A B compares two studies"
ALLOWED = "; or let trials of several sources be put together, which the report then tells: --allow-changed-plugins"

SAME_VERSIONS = ("benchkit", "torch", "torchvision", "timm", "numpy")


@dataclass(slots=True, kw_only=True)
class Merged:
    """What became of the trials elsewhere: how many were `taken` in by study, how many were `there`, which were left.

    `conflicts` name trials that both workspaces trained, of which the one that was here stays; `broken` those whose
    files are not what their lists say.
    """

    taken: dict[str, int] = field(default_factory=dict)
    there: int = 0
    conflicts: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def merge(ledger: Ledger, others: Sequence[Path], *, changed_plugins: bool = False) -> Merged:
    """Take the finished trials of other workspaces into a ledger and its workspace, and return what became of them.

    Of a workspace without a ledger of its own, the files of trials that this ledger knows are taken. Raises
    `LedgerError`, before anything of it is copied, for a workspace that is none or that holds another study of the same
    name, or, unless `changed_plugins` may be put together, trials of one condition with other sources of its plugins.
    """
    merged, opened, known = Merged(), [], dict[str, Ledger]()
    for other in others:
        if not other.is_dir() or other.resolve() == ledger.workspace.resolve():
            raise LedgerError(f"{other}: expected the folder of another workspace", hint="name a copy of one")
        if (other / "ledger.db").exists():
            theirs = UntouchedLedger(other)
            for name in theirs.studies():
                first = ledger if _entry(ledger, name) else known.setdefault(name, theirs)
                if first is not theirs:
                    _refuse(first, theirs, name, changed_plugins)
            opened.append(theirs)
        elif not (other / "trials").is_dir():
            raise LedgerError(f"{other}: there are no trials here", hint="name a copy of a workspace")
    with held(ledger.workspace / "merge.lock"):
        for theirs in opened:
            for name in theirs.studies():
                _refuse(ledger, theirs, name, changed_plugins)  # what others of these brought counts, too
                _take_study(ledger, theirs, name, merged)
        for other in others:
            _take_files(ledger, other, merged)
    return merged


def _entry(ledger: Ledger, name: str) -> dict[str, Any]:
    """Return what a ledger holds of a study itself, nothing where it does not know it."""
    found = attributes_of(ledger.storage, name)
    return {key: found[key] for key in ("study", "conditions", "data", "command", "updated", "folder") if key in found}


def _refuse(ledger: Ledger, theirs: Ledger, name: str, changed_plugins: bool) -> None:
    """Raise `LedgerError` where the trials of a study there are not to be put together with those of a ledger."""
    _refuse_another_study(ledger, theirs, name)
    weights, plugins = _other_origins(ledger, theirs, name)
    for problems, what, more in (
        (weights, "from other weights", ""),
        (() if changed_plugins else plugins, "with other sources of its plugins", ALLOWED),
    ):
        if problems:
            raise LedgerError(
                f"{theirs.workspace}: its {name} was trained {what}",
                problems=list(dict.fromkeys(problems)),
                hint=f"report them apart: {APART}{more}",
            )


def _refuse_another_study(ledger: Ledger, theirs: Ledger, name: str) -> None:
    """Raise `LedgerError` where a study of this name is here already and is another one, with what differs."""
    ours, other = _entry(ledger, name), _entry(theirs, name)
    if not ours:
        return
    differing = [part for part in ONE_STUDY if ours["study"].get(part) != other["study"].get(part)]
    data = [sorted(one["fingerprint"] for one in entry["data"].get("sets", ())) for entry in (ours, other)]
    differing += ["data"] if data[0] != data[1] and all(data) else []
    used = [_versions(one, name) for one in (ledger, theirs)]
    here, there = decisions_of(ledger, name), decisions_of(theirs, name)
    differing += [
        f"the {known} that was decided, {here[known].value} and {there[known].value}"
        for known in here
        if known in there and here[known].value != there[known].value
    ]
    differing += [
        f"{package} {used[0][package]} and {used[1][package]}"
        for package in SAME_VERSIONS
        if package in used[0] and package in used[1] and used[0][package] != used[1][package]
    ]
    if differing:
        raise LedgerError(
            f"{theirs.workspace}: its {name} is not the study of that name in {ledger.workspace}",
            problems=[f"they differ in {part}" for part in differing],
            hint=f"report them apart: {APART}",
        )


def _other_origins(ledger: Ledger, theirs: Ledger, name: str) -> tuple[list[str], list[str]]:
    """Return of which conditions trials there and here started from other weights, or rest on other plugins' sources.

    benchkit's own plugins may change with its version.
    """
    study = decode(Study, _entry(theirs, name)["study"])
    keys = {condition.key for condition in ledger.conditions(study)}
    ours, others = ledger.attempts(study), theirs.attempts(study)
    weights, plugins = list[str](), list[str]()
    for condition in theirs.conditions(study):
        if condition.key in keys:
            plan = Plan(study=study, conditions=(condition,))
            there = tuple(theirs.outcomes(plan, others))
            begun = {one.started_from for one in there} - {""}
            foreign = [one for one in plugin_sources(study, there) if one[2] and not is_own(*one[3:])]
            here = tuple(ledger.outcomes(plan, ours)) if begun or foreign else ()
            from_here = {one.started_from for one in here} - {""}
            if from_here and begun - from_here:
                pair = (", ".join(sorted(each)) for each in (begun, from_here))
                weights.append(f"{condition.display_label}: sha256 {' there, '.join(pair)} here")
            sources = plugin_sources(study, here)
            for kind, plugin, source, distribution, file in foreign:
                known = {one[2] for one in sources if one[:2] == (kind, plugin)} - {""}
                if known and source not in known:
                    which = f"{kind_word(kind)} {plugin!r} of {file or distribution}"
                    plugins.append(f"{which}: source {source} there, {', '.join(sorted(known))} here")
    return weights, plugins


def _versions(ledger: Ledger, name: str) -> Mapping[str, str]:
    """Return the versions of packages that the first finished trial of a study was trained with."""
    study = decode(Study, _entry(ledger, name)["study"])
    outcomes = ledger.outcomes(Plan(study=study, conditions=tuple(ledger.conditions(study))))
    found: Iterator[Mapping[str, str]] = (outcome.environment.get("versions", {}) for outcome in outcomes)
    return next((versions for versions in found if versions), {})


@storage_errors()
def _take_study(ledger: Ledger, theirs: Ledger, name: str, merged: Merged) -> None:
    entry = _entry(theirs, name)
    study = decode(Study, entry["study"])
    ours = _entry(ledger, name)
    if not ours:
        ledger.register_as(study, entry)
        for decision in decisions_of(theirs, name).values():
            decide(ledger, name, decision.name, decision.value, decision.why)
    elif more := [key for key in entry["conditions"] if key not in ours["conditions"]]:
        ledger.register_as(study, {**ours, "conditions": [*ours["conditions"], *more]})
    merged.taken.setdefault(name, 0)
    for condition in theirs.conditions(study):
        for trial in theirs.storage.get_all_trials(theirs.open(study, condition)._study_id, deepcopy=False):
            if trial.state.is_finished() and "index" in trial.user_attrs:
                _take_trial(ledger, theirs, (study, condition, trial), merged)


def _take_trial(ledger: Ledger, theirs: Ledger, trial: tuple[Study, Condition, FrozenTrial], merged: Merged) -> None:
    """Take one finished trial in, in the place of one that waits here, or behind those that are here."""
    study, condition, other = trial
    source, label = theirs.folder(study, condition, other.number), f"{study.name}: {condition.display_label}"
    index, attempt = int(other.user_attrs["index"]), int(other.user_attrs["attempt"])
    which = f"{label}, {'trial' if condition.kind == 'search' else 'repeat'} {index}"
    kept = other.user_attrs.get("files")
    state, _, outcome = numbers_of(other, source, {})
    if kept is None or outcome is None or state in WITHOUT_FILES:
        merged.broken.append(f"{which}: {outcome.reason if outcome else state}")
        return
    here = [one for one in ledger.attempts_at(study, condition) if one.user_attrs.get("index") == index]
    ended = (one for one in here if one.state.is_finished())  # else a merge was killed while it filled it
    if any(one.user_attrs.get("files", {}).get("sha256") == kept["sha256"] for one in ended):
        merged.there += 1
        return
    rivals = [one for one in here if int(one.user_attrs["attempt"]) >= attempt]
    sweeps = ledger.sweeps(study, rivals)
    for rival in rivals:
        if rival.state.is_finished() or is_alive(rival, ledger.folder(study, condition, rival.number), sweeps):
            merged.conflicts.append(f"{which}: trained in {theirs.workspace} and here; the one that was here stays")
            return
    place = rivals[0] if rivals else ledger.queue_attempt(study, condition, index, attempt, {})
    folder = ledger.folder(study, condition, place.number)
    if rivals and place.state is TrialState.RUNNING:
        shutil.rmtree(folder.path, ignore_errors=True)
    _copy(source.path, folder.path, kept["sha256"])
    _bring(source.path.parent, folder.path.parent, CONDITION_FILE)
    _fill(ledger, place, frozen_trial(folder, search_of(study, condition)))
    merged.taken[study.name] += 1


def _bring(source: Path, target: Path, name: str) -> None:
    """Copy a file that describes its folder, where it is not there yet."""
    if (source / name).exists() and not (target / name).exists():
        write_atomically(target / name, (source / name).read_bytes())


def _fill(ledger: Ledger, place: FrozenTrial, trial: FrozenTrial) -> None:
    """Let a queued trial of the ledger be one that was trained elsewhere."""
    storage, number = ledger.storage, place._trial_id
    if place.state is TrialState.WAITING:
        storage.set_trial_state_values(number, TrialState.RUNNING)
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        storage.set_trial_param(number, name, distribution.to_internal_repr(value), distribution)
    for step, reported in trial.intermediate_values.items():
        storage.set_trial_intermediate_value(number, step, reported)
    for key, told in trial.user_attrs.items():
        if key not in ("index", "attempt", "lease"):
            storage.set_trial_user_attr(number, key, told)
    storage.set_trial_state_values(number, trial.state, trial.values)
    set_times(storage, number, trial.datetime_start, trial.datetime_complete)


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Copy a trial's files, and hold each against its list; raise `LedgerError` where the copy is not the same.

    The folder has its name only when it is whole.
    """
    remove_leftovers(target)
    part = building_folder(target)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns("owner.lock", "*.part", "checkpoint.pt"))
    wrong = [file.name for file in trial_files(part, {"sha256": sha256, "host": ""}) if file.state == "changed"]
    if wrong or hashlib.sha256((part / LIST).read_bytes()).hexdigest() != sha256:
        shutil.rmtree(part)
        raise LedgerError(f"{source}: its files changed while they were copied: {', '.join(wrong)}")
    put(part, target)  # what is there is of a start that came to no end here


@storage_errors()
def _take_files(ledger: Ledger, other: Path, merged: Merged) -> None:
    """Take the files of trials that this ledger knows and whose files are elsewhere."""
    for study, condition, trial in _elsewhere(ledger):
        folder = ledger.folder(study, condition, trial.number).path
        source = other / folder.relative_to(ledger.workspace)
        if not (source / LIST).exists():
            continue
        sha256 = trial.user_attrs["files"]["sha256"]
        files = trial_files(source, {"sha256": sha256, "host": ""})
        wrong = [file.name for file in files if file.state in ("changed", "lost")]
        if wrong:
            merged.broken.append(f"{source}: not what the ledger holds of them: {', '.join(wrong)}")
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, folder, sha256)
        _bring(source.parent, folder.parent, CONDITION_FILE)
        _bring(source.parent.parent, folder.parent.parent, STUDY_FILE)
        merged.taken[study.name] = merged.taken.get(study.name, 0) + 1


def _elsewhere(ledger: Ledger) -> Iterator[tuple[Study, Condition, FrozenTrial]]:
    for name in ledger.studies():
        study = decode(Study, _entry(ledger, name)["study"])
        attempts = ledger.attempts(study)
        for condition in ledger.conditions(study):
            for trial in attempts.of(condition):
                folder: TrialFolder = ledger.folder(study, condition, trial.number)
                kept = trial.user_attrs.get("files")
                if trial.state.is_finished() and kept and not (folder.path / LIST).exists():
                    yield study, condition, trial
