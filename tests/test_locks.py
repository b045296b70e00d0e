"""Locks between processes, the disks that have none, and what a workspace on one of them may be."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from test_leases import run_out
from tiny_study import queue_of, run_here, study_of, write

from benchkit import locks
from benchkit.errors import LedgerError
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.claims import Queue
from benchkit.locks import Lock, disk_of, exclude, held, place_of, shared_disk
from benchkit.plan import make_plan
from benchkit.results import Outcome


def refused(file: int, how: int) -> None:
    """As some disks of several machines answer."""
    raise OSError(errno.ENOSYS, "Function not implemented")


def granted(file: int, how: int) -> None:
    """As disks answer on which locks keep nobody out."""


def test_a_lock_is_one_holders(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.acquire(wait=False) and not second.acquire(wait=False)
    first.release()
    assert second.acquire(wait=False)
    del second  # a lock that nobody knows any more is free
    with held(tmp_path / "lock"):
        assert not first.acquire(wait=False)
    first.release()


@pytest.mark.parametrize("answer", [refused, granted])
def test_locks_are_tried_before_they_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    assert exclude(tmp_path / "lock") and place_of(tmp_path, tmp_path / "lock") != ""
    monkeypatch.setattr("fcntl.flock", answer)
    assert not exclude(tmp_path / "lock") and place_of(tmp_path, tmp_path / "lock") == ""
    with held(tmp_path / "lock"):
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".id"] == ["lock"]  # no marker file


@pytest.mark.parametrize("answer", [refused, granted])
def test_a_workspace_without_locks_is_refused_for_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    monkeypatch.setattr("fcntl.flock", answer)
    monkeypatch.setattr("benchkit.ledger.ledger.disk_of", lambda folder: "lustre")
    with pytest.raises(LedgerError, match=r"locks on its disk \(lustre\) keep nobody out") as caught:
        Ledger(tmp_path)
    assert "--storage" in caught.value.hint


def test_without_locks_the_lease_decides(tmp_path: Path) -> None:
    """A killed sweep's trial is free after its lease, and a live one's is not, whatever a lock says."""
    ledger, plan, _ = queue_of(tmp_path, study_of(repeats=1))
    ledger.place = ""
    held_by_us = Queue(ledger, plan).next()
    assert held_by_us is not None
    other = Ledger(tmp_path)
    other.place = ""
    assert Queue(other, plan).next() is None and other.states(plan)["running"] == 1
    run_out(held_by_us)
    taken = Queue(other, plan).next()
    assert taken is not None and taken.lease == 2
    assert not held_by_us.finish(Outcome(state="failed", reason="late"))


def test_who_only_reads_tries_locks_where_a_trial_runs_and_else_trusts_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, queue = queue_of(tmp_path, study_of(repeats=1))
    claim = queue.next()
    assert claim is not None and read_results(tmp_path).trials[0].state == "running"
    claim._unlock()  # as when its process was killed
    assert read_results(tmp_path).trials[0].state == "stale"
    monkeypatch.setattr("fcntl.flock", refused)
    assert read_results(tmp_path).trials[0].state == "running"
    run_out(claim)
    assert read_results(tmp_path).trials[0].state == "stale"


def test_a_lock_that_another_machine_holds_for_ever_keeps_nobody_from_its_trial(tmp_path: Path) -> None:
    _, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    old = queue.next()
    assert old is not None and old.folder.owned()
    other = Ledger(tmp_path)
    other.place = "elsewhere"
    run_out(old)
    taken = Queue(other, plan).next()
    assert taken is not None and old.folder.owned() and not old.holds()


def test_a_copy_of_a_workspace_with_the_same_ledger_leaves_the_trials_of_the_first_alone(tmp_path: Path) -> None:
    """Both have one id, as where a job takes a copy to a disk of its own, and run on one machine."""
    storage, plan = f"sqlite:///{tmp_path / 'shared.db'}", make_plan(study_of(repeats=1))
    first = Ledger(tmp_path / "first", storage)
    first.register(plan, {"sets": []}, "")
    first.enqueue(plan)
    held_by_first = Queue(first, plan).next()
    assert held_by_first is not None
    shutil.copytree(first.workspace, tmp_path / "copy")
    copy, other = Ledger(tmp_path / "copy", storage), Ledger(tmp_path / "first", storage)
    assert other.place == first.place != copy.place
    assert Queue(copy, plan).next() is None and copy.states(plan)["running"] == 1
    run_out(held_by_first)
    assert Queue(other, plan).next() is None, "its lock is seen"
    taken = Queue(copy, plan).next()
    assert taken is not None and taken.lease == 2


def test_disks_that_machines_share_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    (tmp_path / "home" / "runs").mkdir(parents=True)
    mounts.write_text(
        "22 1 0:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        f"23 22 0:2 / {tmp_path}/home rw - nfs4 server:/home rw\n"
        f"24 22 0:3 / {tmp_path}/with\\040space rw - lustre server:/x rw\n"
        f"25 22 0:4 / {tmp_path}/données-漢字 rw - nfs server:/d rw\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(locks, "MOUNTS", mounts)
    assert (disk_of(tmp_path), disk_of(tmp_path / "home" / "runs")) == ("ext4", "nfs4")
    assert (shared_disk(tmp_path), shared_disk(tmp_path / "home"), shared_disk(tmp_path / "with space" / "x")) == (
        "",
        "nfs4",
        "lustre",
    )
    assert shared_disk(tmp_path / "données-漢字" / "x") == "nfs"
    monkeypatch.setattr(locks, "MOUNTS", tmp_path / "none")
    assert disk_of(tmp_path) == ""


def test_a_workspace_on_a_disk_that_machines_share_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchkit.sweep.orchestration.shared_disk", lambda folder: "nfs4")
    assert run_here(monkeypatch, tmp_path, "sweep", write(tmp_path / "tiny.toml", epochs=1, repeats=1)) == 0
    told = capsys.readouterr().err
    assert "the workspace is on a disk that machines share (nfs4): SQLite is safe there for one machine" in told
