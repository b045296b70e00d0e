"""What each worker slot is at, told by the sweep and read without a lock."""

from __future__ import annotations

from pathlib import Path

import pytest
from postgres_server import PostgresServer
from test_leases import run_out
from tiny_study import queue_of, study_of

from benchkit.ledger import Ledger
from benchkit.ledger.seat_lines import FOLDER, forget_seats, read_seats, write_seats
from benchkit.plan import make_plan

LINES = [{"node": "here", "device": "cpu", "trial": "0.1 repeat 0", "epoch": 3, "images_per_second": 12.5}]


def test_a_sweeps_lines_stand_beside_the_ledger(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    claim = queue.next()
    assert claim is not None and read_seats(ledger, plan.study) == {}
    write_seats(ledger, plan.study, [{"node": "before"}])
    write_seats(ledger, plan.study, LINES)
    other = Ledger(tmp_path)
    assert list(read_seats(other, plan.study).values()) == [LINES]
    (file,) = (tmp_path / FOLDER).iterdir()
    file.write_text("[half")
    assert read_seats(other, plan.study) == {}
    write_seats(ledger, plan.study, LINES)
    run_out(claim)
    assert read_seats(other, plan.study) == {}
    (tmp_path / FOLDER / "of-a-sweep-that-was.json").write_text("[]")
    forget_seats(ledger, plan.study)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_lines_that_cannot_be_written_end_no_sweep(tmp_path: Path) -> None:
    ledger, plan, _ = queue_of(tmp_path, study_of(repeats=1))
    (tmp_path / FOLDER).write_text("no folder")
    write_seats(ledger, plan.study, LINES)
    assert read_seats(ledger, plan.study) == {}


@pytest.mark.postgres
def test_a_sweeps_lines_stand_in_a_ledger_on_a_server(tmp_path: Path, postgres: PostgresServer) -> None:
    database, plan = postgres.database("seats"), make_plan(study_of(repeats=1))
    ledger, other = (Ledger(tmp_path / name, database) for name in ("a", "b"))
    ledger.register(plan, {"sets": []}, "")
    for lines in ([{"node": "before"}], LINES):
        write_seats(ledger, plan.study, lines)
    assert list(read_seats(other, plan.study).values()) == [LINES]
    assert not (tmp_path / "a" / FOLDER).exists()
