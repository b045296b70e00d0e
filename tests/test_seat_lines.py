"""What each seat of a sweep is at: a line for each, written together and seldom, read without a lock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from test_leases import run_out
from test_sweep_kill import end, start, wait_for_line
from tiny_study import (
    FACTOR,
    PATIENCE,
    RECORD,
    Listener,
    finish_all,
    queue_of,
    run_command,
    run_here,
    study_of,
    write,
)

from benchkit.ledger import Ledger
from benchkit.ledger.claims import Queue
from benchkit.plan import make_plan
from benchkit.storage import encode
from benchkit.sweep import seat_lines
from benchkit.sweep.messages import EpochEnded, Seat, SeatsElsewhere, TrialEnded, TrialStarted, WorkerLost, WorkerReady
from benchkit.sweep.seat_lines import SeatLine, SeatLines, read_seats, seats_of, tell_of

STARTED = TrialStarted(condition="gn", phase="grid", index=2, key="abc", number=7, epochs=20)
ENDED = TrialEnded(condition="gn", phase="grid", index=2, state="done", reason="", seconds=1.0, scores={})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still until it is told to go on."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def lines_in(folder: Path) -> SeatLines:
    return SeatLines(Listener(), folder, "norms", lambda key, number: Path(key) / str(number))


def ready(node: str) -> WorkerReady:
    return WorkerReady(device=f"{node} cuda:1", seat=Seat(node=node, kind="cuda"))


def test_a_seat_tells_its_trial_speed_and_use(tmp_path: Path, clock: Callable[[float], None]) -> None:
    lines = lines_in(tmp_path)
    lines.event(0, ready("a"))
    lines.event(1, ready("b"))
    lines.event(1, STARTED)
    record = replace(RECORD, epoch=5, images_per_second=1200.0, energy=30.0)
    lines.event(1, EpochEnded(record=record, processor=1.5, device_use=0.8))
    clock(5)
    lines.tick()
    first, second = read_seats(tmp_path, "norms", time.time())
    assert first.words == "a cuda:1 on a: no trial"
    assert second.words == (
        "b cuda:1 on b: gn repeat 2, epoch 5/20, 1,200 images/s, 1.5 cores, device 80% in use, 30 J an epoch; abc/7"
    )
    lines.event(1, ENDED)
    lines.event(0, WorkerLost(code=-9))
    clock(5)
    lines.tick()
    (left,) = read_seats(tmp_path, "norms", time.time())
    assert left.trial == "" and left.epoch == 0
    lines.close()
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_seldom_and_only_what_is_new_is_read(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(seat_lines, "write_atomically", lambda path, content: written.append(path.write_bytes(content)))
    lines = lines_in(tmp_path)
    lines.event(0, ready("a"))
    for _ in range(2000):
        lines.event(0, STARTED)
        lines.event(0, EpochEnded(record=RECORD))
        lines.event(0, ENDED)
        clock(0.01)
    assert len(written) == 4, "20 s, a writing every 5 s"
    now = time.time()
    (tmp_path / "seats-half.jsonl").write_text("{\n")
    assert len(read_seats(tmp_path, "norms", now)) == 1
    assert read_seats(tmp_path, "dropout", now) == read_seats(tmp_path, "norms", now + 61) == []


def test_status_tells_of_the_seats_of_a_sweep_under_way(tmp_path: Path) -> None:
    study = write(tmp_path / "tiny.toml", FACTOR, epochs=100000, repeats=1)
    sweep = start(tmp_path, "sweep", study, "--jobs", 1)
    wait_for_line(sweep, r"epoch \d+/100000")
    deadline = time.monotonic() + PATIENCE
    told: list[dict[str, object]] = []
    while not (told and told[0]["epoch"]) and time.monotonic() < deadline:
        told = json.loads(run_command(tmp_path, "status", "tiny", "--json").stdout)["seats"]
    assert told[0]["device"] == "cpu" and told[0]["trial"] and Path(str(told[0]["log"])).name == "log.txt"
    assert (tmp_path / str(told[0]["log"])).parent.is_dir()
    sweep.terminate()
    end(sweep)
    assert json.loads(run_command(tmp_path, "status", "tiny", "--json").stdout)["seats"] == []


def test_what_a_killed_sweep_left_names_no_trial_that_has_ended_and_goes_with_the_next_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, plan, _ = queue_of(tmp_path / "runs", study_of(repeats=2))
    finish_all(ledger, plan)
    logs = tmp_path / "runs" / "logs"
    logs.mkdir()
    line = SeatLine(study="tiny", node="a", device="cpu", at=time.time())
    trials = ["0.1 repeat 0", f"{plan.conditions[0].display_label} repeat 1", ""]
    old, new = logs / "seats-old.jsonl", logs / "seats-new.jsonl"
    for file in (old, new):
        file.write_text("".join(f"{json.dumps(encode(replace(line, trial=trial)))}\n" for trial in trials))
    assert run_here(monkeypatch, tmp_path, "status", "tiny", "--workspace", "runs", "--json") == 0
    told = json.loads(capsys.readouterr().out)["seats"]
    assert {seat["trial"] for seat in told} == {"0.1 repeat 0", ""}, "of these it is not known that they have ended"
    os.utime(old, (time.time() - 61,) * 2)
    lines_in(logs)
    assert list(logs.iterdir()) == [new]


def test_a_sweep_is_told_of_the_seats_of_others_that_go_on(tmp_path: Path, clock: Callable[[float], None]) -> None:
    view = Listener()
    ours, theirs = SeatLines(view, tmp_path, "norms", lambda key, number: Path(key)), lines_in(tmp_path)
    for lines, node in ((theirs, "far"), (ours, "near")):
        lines.event(0, ready(node))
        clock(5)
        lines.tick()
    theirs.close()
    for _ in range(2):
        clock(5)
        ours.tick()
    told = [event.words for event in view.events if isinstance(event, SeatsElsewhere)]
    assert told == [("far cuda:1 on far: no trial",), ()]


@pytest.mark.postgres
def test_sweeps_on_a_server_are_told_of_each_others_seats(tmp_path: Path, postgres: PostgresServer) -> None:
    database, plan = postgres.database("others"), make_plan(study_of(repeats=1))
    ledgers = [Ledger(tmp_path / name, database) for name in ("a", "b")]
    ledgers[0].register(plan, {"sets": []}, "")
    shows = [tell_of(ledger, plan.study) for ledger in ledgers]
    assert [show and show([name]) for show, name in zip(shows, "ab", strict=True)] == [[], [["a"]]]
    assert shows[0] is not None and shows[0](["a"]) == [["b"]]


@pytest.mark.postgres
def test_lines_stand_in_a_ledger_on_a_server(
    tmp_path: Path, postgres: PostgresServer, clock: Callable[[float], None]
) -> None:
    database, plan = postgres.database("seats"), make_plan(study_of(repeats=1))
    ledger = Ledger(tmp_path / "a", database)
    ledger.register(plan, {"sets": []}, "")
    ledger.enqueue(plan)
    lines = SeatLines(Listener(), tmp_path / "a", "tiny", lambda key, number: Path(key), tell_of(ledger, plan.study))
    for node in ("a", "b"):
        lines.event(0, ready(node))
        clock(5)
        lines.tick()
    (told,) = seats_of(tmp_path / "b", database, "tiny")
    assert told.words == "b cuda:1 on b: no trial" and not list((tmp_path / "a").glob("seats-*"))
    claim = Queue(ledger, plan).next()
    assert claim is not None
    run_out(claim)
    assert seats_of(tmp_path / "b", database, "tiny") == []
    ledger.holder(plan.study).renew()
    assert len(seats_of(tmp_path / "b", database, "tiny")) == 1
    lines.close()
    assert seats_of(tmp_path / "b", database, "tiny") == []
