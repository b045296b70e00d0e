"""Many conditions queued and read at once, held against Optuna's own interface."""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState
from tiny_study import FACTOR, SEARCH, finish_all, study_of

from benchkit.errors import LedgerError
from benchkit.ledger import Ledger
from benchkit.ledger.readback import results_of
from benchkit.ledger.tables import NewTrial, add_studies, add_trials, storage_errors, study_attributes, trials_of
from benchkit.plan import Plan, make_plan

ATTRIBUTES = {"index": 0, "attempt": 2, "given": {"x": 0.5}}


def table_rows(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of a ledger's tables but the ids of attributes, which nothing refers to."""
    with sqlite3.connect(file) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in sorted(names)}
    connection.close()
    return {name: sorted((row[1:] if "attributes" in name else row for row in rows[name]), key=repr) for name in rows}


def test_what_is_queued_at_once_is_what_optuna_would_have_written(tmp_path: Path) -> None:
    names = {"s/a@1": ("minimize",), "s/b_%@2": ("maximize", "minimize")}
    by_optuna, at_once = Ledger(tmp_path / "optuna"), Ledger(tmp_path / "once")
    for name, directions in names.items():
        study = optuna.create_study(study_name=name, storage=by_optuna.storage, directions=directions)
        study.set_user_attr("condition", {"key": name})
        for index in range(2):
            study.enqueue_trial({"x": 0.5}, user_attrs={**ATTRIBUTES, "index": index})
    add_studies(
        at_once.storage, {name: (directions, {"condition": {"key": name}}) for name, directions in names.items()}
    )
    queued = [(name, {**ATTRIBUTES, "index": index}) for name in names for index in range(2)]
    add_trials(at_once.storage, [NewTrial(study=name, attributes=one, given={"x": 0.5}) for name, one in queued])
    assert table_rows(tmp_path / "once" / "ledger.db") == table_rows(tmp_path / "optuna" / "ledger.db")


def test_trials_are_read_as_optuna_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")  # half an hour off every other clock
    time.tzset()
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan)
    ledger.enqueue(plan, ["done"])
    by_name = trials_of(ledger.storage, "tiny/")
    by_optuna = {name: optuna.load_study(study_name=name, storage=ledger.storage).trials for name in by_name}
    monkeypatch.undo()
    time.tzset()
    for name, trials in by_name.items():
        frozen = by_optuna[name]
        assert [(t.number, t.state, t.datetime_start, t._trial_id) for t in trials] == [
            (t.number, t.state, t.datetime_start, t._trial_id) for t in frozen
        ]
        assert [t.user_attrs["index"] for t in trials] == [t.user_attrs["index"] for t in frozen] == [0, 1, 0, 1]


def test_what_trials_scored_is_read_as_optuna_reads_it(tmp_path: Path) -> None:
    storage = Ledger(tmp_path).storage
    study = optuna.create_study(study_name="s/a@1", storage=storage, directions=["minimize", "maximize"])
    other = optuna.create_study(study_name="s/b@2", storage=storage)
    told = [(0.25, -0.5), (math.inf, 1.0), (2.0, -math.inf), None]
    for index, values in enumerate(told):
        trial = study.ask()
        trial.set_user_attr("index", index)
        trial.set_user_attr("unread", "x")
        trial.suggest_float("rate", 1e-4, 1.0, log=True)
        trial.suggest_categorical("norm", ["bn", None, 3])
        trial.suggest_int("width", 8, 64, step=8)
        study.tell(trial, values, state=None if values else TrialState.FAIL)
    study.enqueue_trial({"rate": 0.5})
    other.tell(other.ask(), 1.5)

    def seen(trial: FrozenTrial) -> tuple[Any, ...]:
        attributes = {key: value for key, value in trial.user_attrs.items() if key != "unread"}
        times = trial.datetime_start, trial.datetime_complete
        return trial.number, trial.state, trial.values, trial.params, trial.distributions, attributes, times

    found = trials_of(storage, "s/", scored=True)
    assert list(found) == ["s/a@1", "s/b@2"]
    for name, trials in found.items():
        by_optuna = optuna.load_study(study_name=name, storage=storage).trials
        assert [seen(trial) for trial in trials] == [seen(trial) for trial in by_optuna]
        assert [list(trial.params) for trial in trials] == [list(trial.params) for trial in by_optuna]


def test_a_study_whose_name_begins_alike_is_another(tmp_path: Path) -> None:
    storage = Ledger(tmp_path).storage
    for name in ("a_b", "aXb", "A_B", "a"):
        add_studies(storage, {f"{name}/x@1": (("minimize",), {"condition": name})})
    assert study_attributes(storage, "a_b/", "condition") == {"a_b/x@1": "a_b"}
    assert study_attributes(storage, "a/", "condition") == {"a/x@1": "a"}


def many(count: int) -> Plan:
    study = study_of('[factors]\n"train.optimizer.lr" = [0.1]\n', repeats=2)
    (condition,) = make_plan(study).conditions
    conditions = tuple(replace(condition, key=f"{number:012x}", label=f"level {number}") for number in range(count))
    return Plan(study=study, conditions=conditions)


def test_ten_times_the_conditions_take_no_more_queries(tmp_path: Path) -> None:
    told: dict[int, Counter[str]] = {}
    for count in (30, 300):
        told[count] = Counter()
        ledger, plan = Ledger(tmp_path / str(count)), many(count)

        def note(*event: Any, counted: Counter[str] = told[count]) -> None:
            counted[str(event[2]).partition(" ")[0]] += 1

        sqlalchemy.event.listen(ledger.storage.engine, "before_cursor_execute", note)
        ledger.register(plan, {}, "", plan.conditions)
        assert ledger.enqueue(plan) == 2 * count and ledger.enqueue(plan) == 0
        assert ledger.states(plan) == {"waiting": 2 * count, "missing": 0}
        assert len(list(ledger.conditions(plan.study))) == count
    assert told[30] == told[300] and told[30].total() < 80


def test_what_is_recorded_of_a_study_is_read_once_for_its_results(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR))
    ledger.register(plan, {"sets": []}, "")
    ledger.enqueue(plan)
    asked = []
    sqlalchemy.event.listen(ledger.storage.engine, "before_cursor_execute", lambda *event: asked.append(event[2]))
    assert len(results_of(ledger).trials) == len(plan.units())
    assert sum("FROM trial_values" in statement for statement in asked) == 1


def test_a_searchs_first_trial_is_queued_with_the_studys_own_settings(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(SEARCH))
    ledger.enqueue(plan)
    frame = plan.conditions[1]
    trials = ledger.open(plan.study, frame).get_trials()
    assert [t.system_attrs["fixed_params"] for t in trials] == [{"train.optimizer.lr": 0.1}, {}, {}, {}]


def test_a_ledger_that_was_written_over_is_one_error(tmp_path: Path) -> None:
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR))
    ledger.register(plan, {}, "")
    ledger.storage.engine.dispose()
    file = tmp_path / "ledger.db"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(LedgerError, match=r"the ledger cannot be read or written: .*malformed") as caught:
        ledger.attempts(plan.study)
    assert "benchkit ledger rebuild" in caught.value.hint


def test_what_a_ledger_is_not_to_blame_for_is_told_without_mending_it(tmp_path: Path) -> None:
    """Moved away as damaged, a whole ledger would be lost: on a full disk, with a path beyond SQLite's 512 bytes."""
    with pytest.raises(LedgerError, match="disk is full") as full, storage_errors():
        with sqlalchemy.create_engine("sqlite://").begin() as connection:
            connection.exec_driver_sql("pragma max_page_count = 2")
            connection.exec_driver_sql("create table t (x)")
            connection.exec_driver_sql("insert into t values (zeroblob(100000))")
    deep = tmp_path.joinpath(*["d" * 200] * 3)
    with pytest.raises(LedgerError, match="unable to open database file") as long:
        Ledger(deep)
    ledger, plan = Ledger(tmp_path / "moved"), make_plan(study_of(FACTOR))
    ledger.attempts(plan.study)
    (tmp_path / "moved" / "ledger.db").unlink()
    with pytest.raises(LedgerError, match="readonly database") as moved:
        ledger.register(plan, {}, "")
    assert "make room" in full.value.hint and "its path no longer" in long.value.hint
    assert "is the workspace, or the file of --storage, where it was" in moved.value.hint
    assert not [one for one in (full, long, moved) if "rebuild" in one.value.hint]


def test_a_server_that_refuses_connections_is_no_wrong_url(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(LedgerError, match="cannot be opened") as refused:
        Ledger(tmp_path, "postgresql://me:secret@127.0.0.1:1/x")
    assert "does the server run" in refused.value.hint and "secret" not in str(refused.value)
