"""Optuna's storage: opened, and its tables read and written for all conditions of a study at once.

Each condition is an Optuna study; through Optuna's own interface each takes some ten transactions to be queued and five
queries to be read. What is written here is what `create_study` and `enqueue_trial` write.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models  # the tables have no public home
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, insert, select

STUDIES = models.StudyModel.__table__
DIRECTIONS = models.StudyDirectionModel.__table__
STUDY_ATTRIBUTES = models.StudyUserAttributeModel.__table__
TRIALS = models.TrialModel.__table__
TRIAL_ATTRIBUTES = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES = models.TrialSystemAttributeModel.__table__

VALUES = models.TrialValueModel.__table__
PARAMS = models.TrialParamModel.__table__
TIMES = ("datetime_start", "datetime_complete")

READ = ("index", "attempt", "state", "lease", "files")
"""The attributes of trials that are read for all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """A trial to queue in the Optuna study of this name, with what it is to be given of a search's settings."""

    study: str
    attributes: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)


def study_ids(storage: RDBStorage, prefix: str) -> dict[str, int]:
    """Return the ids of the Optuna studies whose name begins with `prefix`, by name."""
    with storage.engine.connect() as connection:
        return _ids(connection, prefix)


def study_attributes(storage: RDBStorage, prefix: str, key: str) -> dict[str, Any]:
    """Return a user attribute of the Optuna studies whose name begins with `prefix`, by name, in order of creation."""
    query = (
        select(STUDIES.c.study_name, STUDY_ATTRIBUTES.c.value_json)
        .join(STUDY_ATTRIBUTES, STUDY_ATTRIBUTES.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix), STUDY_ATTRIBUTES.c.key == key)
        .order_by(STUDIES.c.study_id)
    )
    with storage.engine.connect() as connection:
        return {name: json.loads(text) for name, text in connection.execute(query) if name.startswith(prefix)}


def trials_of(storage: RDBStorage, prefix: str, *, scored: bool = False) -> dict[str, list[FrozenTrial]]:
    """Return the trials of the Optuna studies whose name begins with `prefix`, by the study's name, in their order.

    They hold number, state, times and the attributes of `READ`, and, where they are `scored`, values and parameters; no
    reported epochs.
    """
    trials = (
        select(STUDIES.c.study_name, *(TRIALS.c[name] for name in ("trial_id", "number", "state", *TIMES)))
        .join(TRIALS, TRIALS.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix))
        .order_by(TRIALS.c.trial_id)
    )
    values, params = defaultdict[int, list[float]](list), defaultdict[int, _Params](_Params)
    attributes = defaultdict[int, dict[str, Any]](dict)
    with storage.engine.connect() as connection:
        rows = connection.execute(trials).all()
        beside = _beside(prefix, TRIAL_ATTRIBUTES, "key", "value_json").where(TRIAL_ATTRIBUTES.c.key.in_(READ))
        for trial_id, key, text in connection.execute(beside):
            attributes[trial_id][key] = json.loads(text)
        if scored:
            for trial_id, value, kind in connection.execute(
                _beside(prefix, VALUES, "value", "value_type").order_by(VALUES.c.objective)
            ):
                values[trial_id].append(models.TrialValueModel.stored_repr_to_value(value, kind))
            for trial_id, key, value, text in connection.execute(
                _beside(prefix, PARAMS, "param_name", "param_value", "distribution_json").order_by(PARAMS.c.param_id)
            ):
                params[trial_id].add(key, value, text)
    found: dict[str, list[FrozenTrial]] = defaultdict(list)
    for name, trial_id, number, state, started, finished in rows:
        if not name.startswith(prefix):
            continue
        trial = FrozenTrial(
            number=number,
            trial_id=trial_id,
            state=state,
            value=None,
            values=values.get(trial_id),
            datetime_start=_local(started),
            datetime_complete=_local(finished),
            params=params[trial_id].values,
            distributions=params[trial_id].distributions,
            user_attrs=attributes[trial_id],
            system_attrs={},
            intermediate_values={},
        )
        found[name].append(trial)
    return dict(found)


def _beside(prefix: str, table: sqlalchemy.Table, *columns: str) -> sqlalchemy.Select[Any]:
    """Return what asks for the rows of a table that belong to trials: their trials' ids and these columns."""
    return (
        select(table.c.trial_id, *(table.c[name] for name in columns))
        .join(TRIALS, TRIALS.c.trial_id == table.c.trial_id)
        .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Params:
    """A trial's parameters and what they were drawn from, by name."""

    values: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def add(self, name: str, stored: float, text: str) -> None:
        """Note a parameter as it is stored, and the text of its distribution."""
        self.distributions[name] = _distribution(text)
        self.values[name] = self.distributions[name].to_external_repr(stored)


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _local(stored: datetime.datetime | None) -> datetime.datetime | None:
    """Return a stored time as Optuna tells it: this machine's."""
    return stored and stored.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)


def add_studies(storage: RDBStorage, studies: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]]) -> None:
    """Make Optuna studies of these names, directions and user attributes, those that are there already left out."""
    if not studies:
        return
    prefix = _prefix(studies)
    with storage.engine.begin() as connection:
        there = _ids(connection, prefix)
        new = [name for name in studies if name not in there]
        if not new:
            return
        connection.execute(insert(STUDIES), [{"study_name": name} for name in new])
        ids = _ids(connection, prefix)
        directions = [
            {"study_id": ids[name], "objective": objective, "direction": StudyDirection[direction.upper()]}
            for name in new
            for objective, direction in enumerate(studies[name][0])
        ]
        connection.execute(insert(DIRECTIONS), directions)
        attributes = [
            {"study_id": ids[name], "key": key, "value_json": json.dumps(value)}
            for name in new
            for key, value in studies[name][1].items()
        ]
        if attributes:
            connection.execute(insert(STUDY_ATTRIBUTES), attributes)


def add_trials(storage: RDBStorage, trials: Sequence[NewTrial]) -> None:
    """Queue trials, in their order, behind those that their Optuna studies have."""
    if not trials:
        return
    prefix = _prefix([trial.study for trial in trials])
    with storage.engine.begin() as connection:
        numbered = _numbered(connection, _ids(connection, prefix, lock=True), prefix, trials)
        rows = [{"study_id": study_id, "number": number, "state": TrialState.WAITING} for study_id, number in numbered]
        connection.execute(insert(TRIALS), rows)
        query = (
            select(TRIALS.c.study_id, TRIALS.c.number, TRIALS.c.trial_id)
            .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
            .where(_named(prefix))
        )
        trial_ids = {(study_id, number): trial_id for study_id, number, trial_id in connection.execute(query)}
        made = [(trial_ids[place], trial) for place, trial in zip(numbered, trials, strict=True)]
        attributes = [_attribute(at, key, value) for at, trial in made for key, value in trial.attributes.items()]
        connection.execute(insert(TRIAL_ATTRIBUTES), attributes)
        fixed = [_attribute(at, "fixed_params", dict(trial.given)) for at, trial in made]
        connection.execute(insert(SYSTEM_ATTRIBUTES), fixed)


def set_times(
    storage: RDBStorage, trial_id: int, started: datetime.datetime | None, finished: datetime.datetime | None
) -> None:
    """Set when a trial began and ended, in this machine's time as Optuna tells it."""
    values = {"datetime_start": started, "datetime_complete": finished}
    stored = {name: value and value.astimezone(datetime.UTC).replace(tzinfo=None) for name, value in values.items()}
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.update(TRIALS).where(TRIALS.c.trial_id == trial_id).values(**stored))


def _numbered(
    connection: Connection, ids: Mapping[str, int], prefix: str, trials: Sequence[NewTrial]
) -> list[tuple[int, int]]:
    """Return the Optuna study and the number that each trial gets in it."""
    query = (
        select(TRIALS.c.study_id, sqlalchemy.func.count())
        .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
        .where(_named(prefix))
        .group_by(TRIALS.c.study_id)
    )
    following = defaultdict(int, {study_id: count for study_id, count in connection.execute(query)})
    numbered = []
    for trial in trials:
        study_id = ids[trial.study]
        numbered.append((study_id, following[study_id]))
        following[study_id] += 1
    return numbered


def _attribute(trial_id: int, key: str, value: Any) -> dict[str, Any]:
    return {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _ids(connection: Connection, prefix: str, *, lock: bool = False) -> dict[str, int]:
    query = select(STUDIES.c.study_name, STUDIES.c.study_id).where(_named(prefix))
    rows = connection.execute(query.with_for_update() if lock else query)
    return {name: study_id for name, study_id in rows if name.startswith(prefix)}


def _named(prefix: str) -> sqlalchemy.ColumnElement[bool]:
    """Return the condition on names; SQLite looks away from capitals, so that readers look at the names again."""
    named: sqlalchemy.ColumnElement[bool] = STUDIES.c.study_name.startswith(prefix, autoescape=True)
    return named


def _prefix(names: Iterable[str]) -> str:
    """Return the study's part that all names have in common, its stroke included."""
    return next(iter(names)).partition("/")[0] + "/"
