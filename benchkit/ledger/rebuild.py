"""A lost ledger made again from the folders of its trials, each of which holds all that the ledger held of it."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchkit.errors import BenchkitError, LedgerError, first_line
from benchkit.ledger.claims import STATES, summary_of
from benchkit.ledger.ledger import CONDITION_FILE, DECISIONS_FILE, STUDY_FILE, Ledger
from benchkit.ledger.samplers import distribution
from benchkit.ledger.trials import LIST, TrialFolder, home_of
from benchkit.plan import Condition, search_of
from benchkit.results import Outcome
from benchkit.storage import decode
from benchkit.study import Search, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What became of the folders: trials put back by study, and those that could not be, with the reason."""

    trials: Mapping[str, int]
    left: tuple[str, ...]


def rebuild_ledger(workspace: Path) -> Rebuilt:
    """Make a workspace's ledger from its folders; raise `LedgerError` where there is one, or nothing to make it of.

    A trial that was training is one to go on with. Folders of versions that did not describe their trials are left.
    """
    file = workspace / "ledger.db"
    if file.exists() and (not file.stat().st_size or Ledger(workspace).studies()):
        if file.stat().st_size:
            raise LedgerError(
                f"{file}: there is a ledger here already",
                hint="move it away if it is to be made again from the folders of its trials",
            )
        file.unlink()
    folders = sorted(path for path in (workspace / "trials").glob("*") if path.is_dir())
    if not folders:
        raise LedgerError(f"{workspace}: there are no folders of trials here", hint="name another with --workspace")
    ledger, trials, left = Ledger(workspace), {}, []
    for folder in folders:
        try:
            about = json.loads((folder / STUDY_FILE).read_text(encoding="utf-8"))
            study = decode(Study, about["study"], str(folder / STUDY_FILE))
            if (folder / DECISIONS_FILE).exists():
                about |= json.loads((folder / DECISIONS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, BenchkitError) as error:
            left.append(f"{folder}: {first_line(error)}")
            continue
        trials[study.name] = _add_study(ledger, study, folder, left)
        entry = optuna.create_study(study_name=study.name, storage=ledger.storage, load_if_exists=True)
        for key, value in about.items():
            entry.set_user_attr(key, value)
    return Rebuilt(trials=trials, left=tuple(left))


def _add_study(ledger: Ledger, study: Study, folder: Path, left: list[str]) -> int:
    """Put all trials of a study back, and return how many; add to `left` which cannot be."""
    added = 0
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            table = json.loads((inner / CONDITION_FILE).read_text(encoding="utf-8"))
            condition = decode(Condition, table, str(inner / CONDITION_FILE))
        except (OSError, ValueError, BenchkitError) as error:
            left.append(f"{inner}: {first_line(error)}")
            continue
        search = search_of(study, condition)
        handle, filled = ledger.open(study, condition), 0
        for path in sorted(path for path in inner.iterdir() if path.name.isdecimal()):
            try:
                trial = frozen_trial(TrialFolder(path), search)
            except (OSError, ValueError, KeyError, BenchkitError) as error:
                left.append(f"{path}: {first_line(error)}")
                continue
            for _ in range(filled, int(path.name)):  # a trial's number is its place
                handle.add_trial(create_trial(state=TrialState.FAIL))
            handle.add_trial(trial)
            filled, added = int(path.name) + 1, added + 1
    return added


def frozen_trial(folder: TrialFolder, search: Search | None) -> FrozenTrial:
    """Return a trial as Optuna held it; one without a list of its files had not ended for the ledger."""
    about = json.loads((folder.path / "trial.json").read_text(encoding="utf-8"))
    outcome = folder.read_outcome() if (folder.path / LIST).exists() else None
    state = STATES.get(outcome.state, TrialState.FAIL) if outcome else TrialState.RUNNING
    chosen = about.get("chosen", {})
    ranges = {one.path: distribution(one) for one in search.space if one.path in chosen} if search else {}
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=about["values"] if state is TrialState.COMPLETE else None,
        datetime_start=_time(about["started"]),
        datetime_complete=_time(about["finished"]) if outcome else None,
        params=chosen,
        distributions=ranges,
        user_attrs={
            "index": about["index"],
            "attempt": about["attempt"],
            **({"chosen": chosen} if "chosen" in about else {}),
            **({"lease": {"number": about["lease"], "owner": ""}} if "lease" in about else {}),
            **(_ended(folder, outcome) if outcome else {}),
        },
        system_attrs={},
        intermediate_values=_reported(folder, search),
    )


def _ended(folder: TrialFolder, outcome: Outcome) -> dict[str, Any]:
    digest = hashlib.sha256((folder.path / LIST).read_bytes()).hexdigest()
    return {**summary_of(outcome), "files": {"sha256": digest, **home_of(folder.path)}}


def _reported(folder: TrialFolder, search: Search | None) -> dict[int, float]:
    """Return what a search's pruner was told of a trial, by epoch."""
    if search is None or len(search.goals) > 1:
        return {}
    scores = {record.epoch: record.score(search.goals[0].metric) for record in folder.read_history()}
    return {epoch: score for epoch, score in scores.items() if not math.isnan(score)}


def _time(seconds: float) -> datetime.datetime | None:
    return datetime.datetime.fromtimestamp(seconds) if seconds else None
