"""A ledger on a PostgreSQL server: shared by machines with a disk each, cut off, restarted, made by many at once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE
from threading import Barrier

import pytest
import sqlalchemy
from postgres_server import PostgresServer
from test_leases import run_out
from test_locks import refused
from tiny_study import (
    FACTOR,
    RECORD,
    SEARCH,
    all_facts,
    command,
    environment,
    run_command,
    study_of,
    sweep_here,
    write,
)

from benchkit.errors import LedgerError
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.claims import Claim, Queue
from benchkit.ledger.ledger import decide
from benchkit.ledger.readback import LedgerReader, results_of
from benchkit.plan import Plan, make_plan
from benchkit.registry import Registry
from benchkit.results import Outcome
from benchkit.storage import encode
from benchkit.study.studyfile import read_study
from benchkit.sweep.seat_lines import SHOWN, SeatLine
from benchkit.watch.watched import Watched

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
        assert postgres.cut(name_of(request)) >= 1  # one that was cut before may still be ending
        assert claim.note("starts", 1)
        assert postgres.cut(name_of(request)) >= 1
        assert claim.finish(FAILED)
        assert postgres.cut(name_of(request)) >= 1
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
    ledger = opened(tmp_path, database, plan, patience=30)
    claim = taken(ledger, plan)
    holder, trial_id, lease = claim._held.holder, claim.trial._trial_id, claim._held.lease
    claim.finish(FAILED)
    (kept,) = ledger.open(plan.study, plan.conditions[0]).trials
    assert holder.end(trial_id, lease, kept.state, None, {"reason": "again"})
    (kept,) = ledger.open(plan.study, plan.conditions[0]).trials
    assert kept.user_attrs["reason"] == "x"


def test_a_disk_without_locks_will_do(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", refused)
    plan = make_plan(study_of(repeats=2))
    ledgers = [opened(tmp_path, database, plan) for _ in range(2)]
    first, second = (taken(ledger, plan) for ledger in ledgers)
    assert (first.index, second.index) == (0, 1)
    assert Queue(ledgers[0], plan).next() is None
    run_out(second)
    assert taken(ledgers[0], plan).lease == 2 and not second.finish(FAILED) and first.finish(FAILED)


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


MEETING = """
import os, time
from dataclasses import dataclass
from pathlib import Path
from benchkit import card

@card(title="Meeting", summary="Ends its second epoch once so many processes have begun one.")
@dataclass(frozen=True)
class Meeting:
    def stop(self, history):
        if "MEETING" in os.environ and len(history) > 1:
            folder, count = os.environ["MEETING"].split(":")
            Path(folder, str(os.getpid())).touch()
            end = time.monotonic() + 200
            while len(os.listdir(folder)) < int(count) and time.monotonic() < end:
                time.sleep(0.05)
        return False

PLUGINS = {"benchkit.regularizers": {"meeting": Meeting}}
"""
"""What keeps machines that begin at different moments together, however slow one of them is."""


def meeting_of(folder: Path, count: int) -> dict[str, str]:
    """Return the environment in which so many workers wait for each other."""
    (folder / "meeting").mkdir(exist_ok=True)
    return {"MEETING": f"{folder / 'meeting'}:{count}"}


def write_meeting(folder: Path, *parts: str, **more: int) -> Path:
    """Write a study whose trials wait where their environment says so, and its plugin."""
    (folder / "meeting.py").write_text(MEETING)
    return write(folder / "tiny.toml", '[[regularizers]]\nname = "meeting"\n', *parts, **more)


def swept(folder: Path, study: Path, url: str, lease: int = 3, **changed: str) -> subprocess.Popen[str]:
    """Begin a sweep on a machine with a disk of its own."""
    folder.mkdir(exist_ok=True)
    asked = ["sweep", study, "--jobs", 1, "--storage", url, "--lease", lease, "--patience", 240]
    asked += ["--plugin", plugin] if (plugin := study.with_name("meeting.py")).exists() else []
    return subprocess.Popen(
        command(*asked), cwd=folder, env={**environment(), **changed}, stdout=PIPE, stderr=PIPE, text=True
    )


@pytest.mark.parametrize(
    ("lease", "away"),
    [(3, 4), pytest.param(60, 90, marks=pytest.mark.long), pytest.param(60, 60, marks=pytest.mark.long)],
)
def test_a_sweep_survives_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer, lease: int, away: int
) -> None:
    name = f"survives-{away}"
    database = postgres.database(name)
    study = write(tmp_path / "tiny.toml", FACTOR, epochs=30, repeats=2)
    with swept(tmp_path / "shared", study, database, lease) as sweep:
        assert sweep.stderr is not None
        next(line for line in sweep.stderr if "repeat 0" in line)
        postgres.cut(name)
        next(line for line in sweep.stderr if "repeat 1" in line)
        postgres.kill()
        time.sleep(away)
        postgres.start()
        told = sweep.communicate(timeout=240)[1]
    assert sweep.returncode == 0, told
    results = read_results(tmp_path / "shared" / "benchkit-runs", storage=database)
    assert [(trial.state, trial.attempt) for trial in results.trials] == [("done", 0)] * 4
    sweep_here(monkeypatch, tmp_path / "alone", read_study(study))
    assert all_facts(results) == all_facts(read_results(tmp_path / "alone"))


def test_two_machines_of_one_name_with_a_disk_each_end_with_the_right_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    """Here both have this machine's name; one of them is in another time zone."""
    study = write_meeting(tmp_path, FACTOR, epochs=20, repeats=3)
    zones, meeting = {"east": "UTC", "west": "America/Los_Angeles"}, meeting_of(tmp_path, 2)
    running = {name: swept(tmp_path / name, study, database, TZ=zone, **meeting) for name, zone in zones.items()}
    told = {name: sweep.communicate(timeout=240)[1] for name, sweep in running.items()}
    assert [sweep.returncode for sweep in running.values()] == [0, 0], told
    runs = {name: tmp_path / name / "benchkit-runs" for name in zones}
    here = {name: len(list(folder.rglob("result.json"))) for name, folder in runs.items()}
    assert sum(here.values()) == 6 and all(here.values()), here
    for name, folder in runs.items():
        states = Counter(trial.state for trial in read_results(folder, storage=database).trials)
        assert states == {"done": here[name], "files elsewhere": 6 - here[name]}
    assert (
        run_command(tmp_path, "merge", runs["west"], "--workspace", runs["east"], "--storage", database).returncode == 0
    )
    results = read_results(runs["east"], storage=database)
    sweep_here(monkeypatch, tmp_path / "alone", read_study(study), plugins=(tmp_path / "meeting.py",))
    assert all_facts(results) == all_facts(read_results(tmp_path / "alone"))
    assert all(0 <= trial.finished - trial.started < 240 for trial in results.trials)


def test_a_sweep_that_is_told_to_end_while_its_database_is_away_leaves_its_trials_to_others(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    study, database = write_meeting(tmp_path, epochs=200, repeats=1), postgres.database("told")
    with swept(tmp_path / "first", study, database, **meeting_of(tmp_path, 99)) as sweep:
        assert sweep.stderr is not None
        next(line for line in sweep.stderr if "repeat 0" in line)
        postgres.kill()
        try:
            sweep.send_signal(signal.SIGTERM)
            sweep.communicate(timeout=100)
        finally:
            postgres.start()
    assert sweep.returncode == 143
    ledger, plan = Ledger(tmp_path / "second" / "benchkit-runs", database), make_plan(read_study(study))
    assert ledger.states(plan)["failed"] == 0
    with swept(tmp_path / "second", study, database) as sweep:
        told = sweep.communicate(timeout=240)[1]
    assert sweep.returncode == 0, told
    assert ledger.states(plan)["done"] == 1


def test_a_page_reads_what_the_server_holds_and_can_change_nothing(tmp_path: Path, database: str) -> None:
    plan = make_plan(study_of(FACTOR))
    ledger = opened(tmp_path, database, plan)
    claim = taken(ledger, plan)
    claim.folder.append_epoch(RECORD)
    ledger.holder(plan.study).show(SHOWN, [encode(SeatLine(study="tiny", node="n", device="d"))])
    reader = LedgerReader(tmp_path / "nowhere", database)
    states = Counter(trial.state for trial in results_of(reader, "tiny").trials)
    assert states == {"running": 1, "waiting": 3}
    watched = Watched(reader, "tiny", Registry.installed())
    assert watched.look() and 'id="table-seats"' in watched.shown.parts["overview"]
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError, match="read-only"), reader.storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("delete from trials"))
