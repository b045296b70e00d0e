"""A ledger on a PostgreSQL server: shared by machines with a disk each, cut off, restarted, made by many at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from postgres_server import PostgresServer
from test_leases import run_out
from tiny_study import FACTOR, RECORD, SEARCH, study_of

from benchkit.errors import LedgerError
from benchkit.ledger import Ledger
from benchkit.ledger.claims import Claim, Queue
from benchkit.ledger.decisions import decide
from benchkit.plan import Plan, make_plan
from benchkit.results import Outcome

pytestmark = pytest.mark.postgres

FAILED = Outcome(state="failed", reason="x")


@pytest.fixture
def database(postgres: PostgresServer, request: pytest.FixtureRequest) -> str:
    return postgres.database(name_of(request))


def name_of(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("[", "-").replace("]", "")[-60:]


def opened(workspace: Path, url: str, plan: Plan, *, patience: float = 0.0, lease: float = 60.0) -> Ledger:
    ledger = Ledger(workspace, url, patience=patience, lease=lease)
    ledger.register(plan, {"sets": []}, "")
    ledger.enqueue(plan)
    return ledger


def taken(ledger: Ledger, plan: Plan) -> Claim:
    claim = Queue(ledger, plan).next()
    assert claim is not None
    return claim


def test_a_process_has_one_connection(
    tmp_path: Path, database: str, postgres: PostgresServer, request: pytest.FixtureRequest
) -> None:
    plan = make_plan(study_of(FACTOR, SEARCH))
    ledger = opened(tmp_path, database, plan, lease=0.3)
    queue = Queue(ledger, plan)
    while claim := queue.next():
        claim.should_prune(RECORD)
        time.sleep(0.05)  # the lease is renewed meanwhile
        claim.finish(FAILED)
    ledger.trials(plan)
    where = f"datname = '{name_of(request)}' and pid <> pg_backend_pid()"
    assert postgres.ask("postgres", f"select count(*) from pg_stat_activity where {where}") == "1"


@pytest.mark.parametrize("again", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 20))])
def test_many_machines_begin_an_empty_database_at_once(tmp_path: Path, database: str, again: int) -> None:
    plan = make_plan(study_of(FACTOR, repeats=4))
    together = Barrier(8)

    def host(number: int) -> list[tuple[str, int]]:
        together.wait(60)
        ledger = opened(tmp_path / f"disk-{number}", database, plan, patience=60)
        queue, found = Queue(ledger, plan), []
        while claim := queue.next():
            found.append((claim.condition.label, claim.index))
            claim.finish(FAILED)
        return found

    with ThreadPoolExecutor(8) as pool:
        found = [one for each in pool.map(host, range(8)) for one in each]
    assert sorted(found) == [(label, index) for label in ("0.1", "0.3") for index in range(4)]
    ledger = Ledger(tmp_path / "disk-0", database)
    assert sum(len(ledger.attempts_at(plan.study, condition)) for condition in plan.conditions) == 8


def test_a_takeover_has_one_winner_and_the_old_owner_drops_out(tmp_path: Path, database: str) -> None:
    plan = make_plan(study_of(repeats=1))
    old = taken(opened(tmp_path / "a", database, plan), plan)
    others = [opened(tmp_path / name, database, plan) for name in "bcdef"]
    assert [Queue(other, plan).next() for other in others] == [None] * 5
    run_out(old)
    queues = [Queue(other, plan) for other in others]
    for queue in queues:
        queue._seen.extend(queue._look())
    with ThreadPoolExecutor(5) as pool:
        claims = [claim for claim in pool.map(lambda one: one.next(), queues) if claim]
    assert [claim.lease for claim in claims] == [2]
    assert not old.note("starts", 1) and not old.finish(Outcome(state="failed", reason="late"))
    assert claims[0].finish(FAILED)
    assert [trial.user_attrs["reason"] for trial in others[0].open(plan.study, plan.conditions[0]).trials] == ["x"]


def test_cut_connections_are_made_anew(
    tmp_path: Path, database: str, postgres: PostgresServer, request: pytest.FixtureRequest
) -> None:
    plan = make_plan(study_of(FACTOR, repeats=1))
    ledger = opened(tmp_path, database, plan)
    queue = Queue(ledger, plan)
    while claim := queue.next():
        assert postgres.cut(name_of(request)) == 1
        assert claim.note("starts", 1)
        assert postgres.cut(name_of(request)) == 1
        assert claim.finish(FAILED)
        assert postgres.cut(name_of(request)) == 1
    assert ledger.states(plan)["failed"] == 2


def test_a_database_that_is_away_is_waited_for(tmp_path: Path, postgres: PostgresServer) -> None:
    database = postgres.database("away")
    plan = make_plan(study_of(SEARCH, repeats=1))
    impatient, patient = (
        opened(tmp_path / name, database, plan, patience=time) for name, time in (("a", 0), ("b", 60))
    )
    first, second = taken(impatient, plan), taken(patient, plan)
    postgres.kill()
    try:
        with pytest.raises(LedgerError, match="cannot be read or written") as caught:
            first.note("starts", 1)
        assert "goes on when the database answers again" in caught.value.hint
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(second.finish, FAILED)
            time.sleep(1)
            assert not ended.done()
            postgres.start()
            assert ended.result(60)
    finally:
        if not postgres._answers():
            postgres.start()
    assert first.finish(FAILED)
    assert patient.states(plan, files=False)["failed"] == 2


def test_an_end_whose_answer_was_lost_is_told_once(tmp_path: Path, database: str) -> None:
    plan = make_plan(study_of(repeats=1))
    claim = taken(opened(tmp_path, database, plan, patience=30), plan)
    holder, trial_id, lease = claim._held.holder, claim.trial._trial_id, claim._held.lease
    claim.finish(FAILED)
    assert holder.end(trial_id, lease, claim.trial.study.trials[0].state, None, {"reason": "again"})
    assert claim.trial.study.trials[0].user_attrs["reason"] == "x"


def test_what_is_decided_by_many_at_once_is_decided_once(tmp_path: Path, database: str) -> None:
    plan = make_plan(study_of(repeats=1))
    ledgers = [opened(tmp_path / str(number), database, plan) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        said = pool.map(
            lambda one: decide(ledgers[one], plan.study.name, "precision", f"p{one}", "it said so"), range(6)
        )
    assert len({decision.value for decision in said}) == 1


def test_the_clock_is_the_databases(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(study_of(repeats=1))
    ledger = opened(tmp_path, database, plan)
    before = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 1.0)
        taken(ledger, plan).finish(FAILED)
    (trial,) = ledger.trials(plan)
    assert before - 60 < trial.started <= trial.finished < time.time() + 60
