"""The files of one trial, and the lock of its owner."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tiny_study import RECORD

from benchkit.ledger.trials import TrialFolder
from benchkit.results import Outcome
from benchkit.storage import write_atomically

HOLD = """
import sys, time
from pathlib import Path
from benchkit.ledger.trials import TrialFolder
lock = TrialFolder(Path(sys.argv[1])).own()
print("held", flush=True)
time.sleep(600)
"""


def test_the_history_is_appended_read_and_rewritten(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    assert folder.read_history() == ()
    folder.append_epoch(RECORD)
    folder.append_epoch(replace(RECORD, epoch=2))
    assert folder.read_history() == (RECORD, replace(RECORD, epoch=2))
    folder.write_history([RECORD])
    assert folder.read_history() == (RECORD,)


def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    folder.append_epoch(RECORD)
    whole = (tmp_path / "history.jsonl").read_text()
    for length in range(len(whole)):
        (tmp_path / "history.jsonl").write_text(whole + whole[:length])
        assert folder.read_history() == (RECORD,)


def test_the_outcome_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "deep" / "er")
    assert folder.read_outcome() is None
    folder.write_outcome(Outcome(state="failed", reason="because"))
    assert folder.read_outcome() == Outcome(state="failed", reason="because")
    assert [path.name for path in folder.path.iterdir()] == ["result.json"]


def test_text_is_replaced_without_leaving_parts(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"one")
    write_atomically(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_text() == "two" and len(list(tmp_path.iterdir())) == 1


def test_a_trial_has_one_owner_until_that_process_dies(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "trial")
    assert not folder.owned() and not folder.path.exists()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert folder.owned() and folder.own() is None
        other.kill()
        other.wait()
        assert not folder.owned()
        lock = folder.own()
    assert lock is not None
    lock.release()
