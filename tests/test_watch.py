"""The live page of a study: what it shows, how it follows the ledger, and that it leaves no trace there."""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy
from live_pages import live_page, until
from tiny_study import FACTOR, METRICS, RECORD, command, environment, finish_all, queue_of, study_of

from benchkit.analysis.wording import NONE
from benchkit.errors import LedgerError
from benchkit.ledger import Ledger
from benchkit.ledger.claims import Queue
from benchkit.ledger.readback import LedgerReader, results_of
from benchkit.results import Cost, Outcome
from benchkit.storage import encode
from benchkit.sweep.seat_lines import SeatLine
from benchkit.sweep.status import status_of
from benchkit.watch import watched
from benchkit.watch.live_sections import MOST_POINTS, overview_section, thinned
from benchkit.watch.server import Dropping, Times
from benchkit.watch.watched import BEHIND, FOLLOWS, Budget, Watch

COST = Cost(parameters=1, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="")
DONE = Outcome(state="done", metrics={"val": METRICS, "test": METRICS}, cost=COST)


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cells(text: str, table: str) -> list[list[str]]:
    """Return the rows of a table of a page as text."""
    body = text.partition(f'id="table-{table}"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [
        [
            html.unescape(re.sub(r"<[^>]*>", " ", one)).strip()
            for one in re.findall(r"<t[dh] .*?</t[dh]>", row, re.DOTALL)
        ]
        for row in rows
    ]


def test_what_ends_while_the_page_is_open_is_told_and_only_that(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    with live_page(tmp_path) as page:
        assert [row[:3] for row in cells(page.page(), "states")] == [["0.1", "grid", "2"], ["0.3", "grid", "2"]]
        with page.stream() as stream:
            told = stream.told()
            first = next(told)
            assert list(first["parts"]) == first["order"] and "overview" in first["parts"]
            claim = queue.next()
            assert claim is not None
            claim.finish(DONE)
            second = next(one for one in told if one["title"] == "(1/4) tiny")
        assert cells(second["parts"]["overview"], "states")[0][:4] == ["0.1", "grid", "1", "1"]
        with page.stream(state=second["state"]) as stream:
            claim = queue.next()
            assert claim is not None
            claim.finish(Outcome(state="failed", reason="ValueError: <b>"))
            news = next(one for one in stream.told() if "failures" in one["parts"])
        assert "ValueError: &lt;b&gt;" in news["parts"]["failures"]
        assert "running" not in news["parts"] and set(news["order"]) > set(news["parts"])


def test_a_trial_with_nan_and_inf_is_shown_and_every_event_parses(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    bad, claims = replace(RECORD, train_loss=math.nan, val_loss=math.inf), [queue.next(), queue.next(), queue.next()]
    for claim in claims:
        assert claim is not None
        claim.folder.append_epoch(RECORD if claim is claims[2] else bad)
    assert claims[0] is not None
    claims[0].finish(Outcome(state="diverged", reason="the loss is nan"))
    with live_page(tmp_path) as page, page.stream() as stream:
        news = next(one for one in stream.told() if "cover" in one["parts"])  # json.loads refuses NaN there
    assert "diverged" in news["parts"]["failures"] and "the loss is nan" in news["parts"]["failures"]
    spec = news["parts"]["running"].partition('class="spec">')[2].partition("</script>")[0]
    assert spec and "NaN" not in spec and "Infinity" not in spec


def test_curves_under_way_grow_and_long_ones_are_thinned(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    claim = queue.next()
    assert claim is not None
    with live_page(tmp_path) as page, page.stream() as stream:
        told = stream.told()
        assert "No trial under way has ended an epoch" in next(told)["parts"]["running"]
        claim.folder.append_epoch(RECORD)
        assert (
            "0.1 repeat 0" in next(one for one in told if "spec" in one["parts"].get("running", ""))["parts"]["running"]
        )
    for length in (0, 1, MOST_POINTS, MOST_POINTS + 1, 3 * MOST_POINTS + 1):
        records = [replace(RECORD, epoch=epoch + 1) for epoch in range(length)]
        found = [record.epoch for record in thinned(records)]
        assert len(found) <= MOST_POINTS and found[-1:] == ([length] if length else [])
        assert len({b - a for a, b in pairwise(found)}) <= 1


def test_a_large_study_shows_how_far_it_is_before_the_report_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.watch.watched.AT_ONCE", 3)
    ledger, plan, _ = queue_of(tmp_path, study_of(FACTOR))
    finish_all(ledger, plan)
    watch, read = Watch(tmp_path, "", ["tiny"]), []
    monkeypatch.setattr(watched, "results_of", lambda *a, **k: read.append(a) or results_of(*a, **k))
    tiny = watch.study("tiny")
    assert tiny is not None and tiny.look() and tiny.follows
    assert list(tiny.shown.parts) == ["overview"] and FOLLOWS in tiny.shown.parts["overview"]
    assert cells(tiny.shown.parts["overview"], "states")[0][:3] == ["0.1", "grid", "2"]
    assert tiny.look() and not tiny.follows and len(read) == 1  # nothing is read twice for it
    assert list(tiny.shown.parts)[:3] == ["cover", "overview", "findings"]
    assert FOLLOWS not in tiny.shown.parts["overview"]
    whole = Watch(tmp_path, "", ["tiny"]).study("tiny")
    assert whole is not None and whole.look(final=True)
    assert whole.shown.parts == tiny.shown.parts
    with live_page(tmp_path, every=600.0) as page:  # no look but those that are due at once
        until(lambda: 'id="findings"' in page.page())


def test_results_that_are_older_than_the_progress_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(FACTOR))
    first, second = queue.next(), queue.next()
    assert first is not None and second is not None
    first.finish(DONE)
    tiny = Watch(tmp_path, "", ["tiny"]).study("tiny")
    assert tiny is not None and tiny.look()
    assert "made anew" not in tiny.shown.parts["overview"]
    monkeypatch.setattr(tiny, "_looks", Budget(1.0, math.inf))
    monkeypatch.setattr(tiny, "_reports", Budget(0.0, -1.0))
    second.finish(DONE)
    running = queue.next()
    assert running is not None and tiny.look()
    assert BEHIND.format("1 trial") in tiny.shown.parts["overview"]
    finish_all(ledger, plan)
    assert tiny.look(final=True) and "made anew" not in tiny.shown.parts["overview"]
    running.release()


def test_a_report_that_cannot_be_made_is_told_once_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchkit.watch.watched.AT_ONCE", 3)
    queue_of(tmp_path, study_of(FACTOR))
    monkeypatch.setattr(watched, "report_part", lambda *_: 1 / 0)
    tiny = Watch(tmp_path, "", ["tiny"]).study("tiny")
    assert tiny is not None and tiny.look() and tiny.follows
    with pytest.raises(ZeroDivisionError):
        tiny.look()
    assert not tiny.follows  # the next look waits for its time


def test_seats_show_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    ledger, _, _ = queue_of(tmp_path, study_of(FACTOR))
    status = status_of(results_of(ledger))
    bare = SeatLine(study="tiny", node="a", device="cpu", trial="0.1 repeat 0", epoch=2, epochs=3)
    whole = replace(bare, node="b", images_per_second=1234.5, processor=1.5, device_use=0.5, joules=7.0)
    tables = {}
    for seats in ((bare,), (bare, whole)):
        block = next(block for block in overview_section(status, seats).blocks if getattr(block, "name", "") == "seats")
        tables[len(seats)] = block.table  # type: ignore[union-attr]
    assert [column.key for column in tables[1].columns] == ["node", "device", "trial", "epoch", "epochs"]
    assert [cell.text for cell in tables[2].rows[0]][-4:] == [NONE] * 4
    assert [cell.text for cell in tables[2].rows[1]][-4:] == ["1,234", "1.5", "50%", "7"]


def test_the_seats_of_a_sweep_are_shown_from_its_lines(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    line = SeatLine(study="tiny", node="node7", device="H200", trial="0.1 repeat 0", epoch=1, epochs=3, at=time.time())
    claim = queue.next()
    assert claim is not None
    (tmp_path / "logs").mkdir(exist_ok=True)
    (tmp_path / "logs" / "seats-1.jsonl").write_text(json.dumps(encode(line)) + "\n")
    with live_page(tmp_path) as page:
        assert cells(page.page(), "seats") == [["node7", "H200", "0.1 repeat 0", "1", "3"]]
        for epoch in (1, 2):
            claim.folder.append_epoch(replace(RECORD, epoch=epoch))
        until(lambda: cells(page.page(), "seats") == [["node7", "H200", "0.1 repeat 0", "2", "3"]])


def test_looking_changes_no_byte_and_takes_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    for outcome in (DONE, Outcome(state="failed", reason="x")):
        claim = queue.next()
        assert claim is not None
        claim.finish(outcome)
    running = queue.next()
    assert running is not None
    running.folder.append_epoch(RECORD)
    before = digests(tmp_path)
    monkeypatch.setattr("fcntl.flock", lambda *args: pytest.fail("a lock was tried"))
    reader = LedgerReader(tmp_path)
    for _ in range(3):
        states = sorted(trial.state for trial in results_of(reader, "tiny", upcoming=True).trials)
    assert states == ["done", "failed", "running", "waiting"]
    assert digests(tmp_path) == before
    with pytest.raises(sqlalchemy.exc.OperationalError, match="readonly"), reader.storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("delete from trials"))


def test_a_folder_that_cannot_be_written_is_shown(tmp_path: Path) -> None:
    ledger, plan, _ = queue_of(tmp_path / "a b#?%41", study_of(FACTOR))
    finish_all(ledger, plan)
    for folder, _, files in os.walk(tmp_path / "a b#?%41"):
        for name in files:
            os.chmod(Path(folder) / name, 0o444)
        os.chmod(folder, 0o555)
    try:
        assert len(results_of(LedgerReader(tmp_path / "a b#?%41")).trials) == 4
    finally:
        for folder, _, _ in os.walk(tmp_path / "a b#?%41"):
            os.chmod(folder, 0o755)


def test_a_trial_whose_sweep_was_killed_is_free_at_once_while_pages_look(tmp_path: Path) -> None:
    _, plan, queue = queue_of(tmp_path, study_of(FACTOR))
    claim = queue.next()
    assert claim is not None
    claim.release()
    ended, looks = threading.Event(), []
    reader = LedgerReader(tmp_path)

    def look() -> None:
        while not ended.is_set():
            looks.append(len(results_of(reader, "tiny").trials))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(20):
            seen = len(looks)
            until(lambda seen=seen: len(looks) > seen)  # type: ignore[misc]
            again = Queue(Ledger(tmp_path), plan).next()
            assert again is not None and again.folder.path == claim.folder.path
            again.release()
    finally:
        ended.set()
        thread.join()


def test_a_ledger_that_cannot_be_read_is_told_and_the_page_stays(tmp_path: Path) -> None:
    ledger, plan, _ = queue_of(tmp_path, study_of(FACTOR))
    finish_all(ledger, plan)
    with live_page(tmp_path) as page:
        shown = page.page()
        assert "Progress" in shown
        head = shown[shown.index('id="table-states"') :].partition("</thead>")[0]
        assert 'test accuracy <span class="unit">%</span>' in head  # as in all other tables of the page
        with page.stream() as stream:
            told = stream.told()
            next(told)
            (tmp_path / "ledger.db").rename(tmp_path / "away.db")
            assert "cannot be read" in next(one for one in told if one["note"])["note"]
            (tmp_path / "away.db").rename(tmp_path / "ledger.db")
            assert next(one for one in told if not one["note"])["order"][0] == "cover"


def test_the_page_points_to_a_section_that_it_has(tmp_path: Path) -> None:
    queue_of(tmp_path, study_of(FACTOR))
    with live_page(tmp_path) as page:
        text = page.page()
    assert "section Progress says what is missing" in text and "section Trials" not in text
    assert re.search(r"<h2[^>]*>\s*Progress", text)


def test_a_viewer_that_does_not_read_is_dropped_and_the_others_stay(tmp_path: Path) -> None:
    queue_of(tmp_path, study_of(FACTOR))
    with live_page(tmp_path, times=Times(stalled=2.0, ping=0.05)) as page:
        viewers = page.server.viewers
        page.page()
        watched = page.watch.study("tiny")
        assert watched is not None
        with page.stream() as reading, page.stream(buffer=1), page.stream(buffer=1):
            told = reading.told()
            next(told)
            until(lambda: viewers.count == 3)
            for number in range(100):  # much more than the system keeps for a connection
                shown = watched.shown
                parts = {**shown.parts, "overview": f'<section id="overview">{number}{"x" * 200_000}</section>'}
                changed = {**shown.changed, "overview": shown.version + 1}
                watched.shown = replace(shown, version=shown.version + 1, parts=parts, changed=changed)
                viewers.notify()
                next(told)
                if viewers.count == 1:
                    break
            until(lambda: viewers.count == 1)


def test_a_reader_that_takes_some_of_it_stays_and_a_process_that_stood_still_drops_nobody() -> None:
    waiting: list[Callable[[], None]] = []
    sizes, dropped = [9], []

    def call_later(seconds: float, do: Callable[..., None], *given: int) -> SimpleNamespace:
        assert seconds == 3.0
        waiting.append(lambda: do(*given))
        return SimpleNamespace(cancel=waiting.clear)

    connection = Dropping.__new__(Dropping)
    connection.flow = SimpleNamespace(pause_writing=lambda: None, resume_writing=lambda: None)  # type: ignore[assignment]
    connection.loop = SimpleNamespace(call_later=call_later)  # type: ignore[assignment]
    connection.transport = SimpleNamespace(  # type: ignore[assignment]
        get_write_buffer_size=lambda: sizes[0], abort=lambda: dropped.append(True)
    )

    def look(times: int) -> None:
        """Let a timer go off so many times, however late it is."""
        for _ in range(times):
            waiting.pop()()

    connection.pause_writing()
    look(9)
    sizes[0] = 8
    look(10)
    assert not dropped and len(waiting) == 1
    connection.resume_writing()
    assert not waiting
    connection.pause_writing()
    look(10)
    assert dropped == [True] and not waiting


def test_whoever_comes_late_gets_the_newest_state_alone(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    with live_page(tmp_path) as page:
        page.page()
        watched = page.watch.study("tiny")
        assert watched is not None
        seen = page.server.viewers.state(watched.shown)
        claim = queue.next()
        assert claim is not None
        claim.finish(DONE)
        until(lambda: watched.shown.title == "(1/4) tiny")
        newest = page.server.viewers.state(watched.shown)
        with page.stream(state=seen) as stream:
            assert next(stream.told())["title"] == "(1/4) tiny"
        with page.stream(state="ffff.999") as stream:  # of a server before this one
            first = next(stream.told())
            assert list(first["parts"]) == first["order"]
        assert newest.partition(".")[0] == seen.partition(".")[0]


def test_one_signal_ends_the_server_while_pages_are_open(tmp_path: Path) -> None:
    queue_of(tmp_path / "runs", study_of(FACTOR))
    with live_page(tmp_path / "runs", times=Times(ping=600)) as page:
        page.page()
        with page.stream() as stream:
            blocks = stream.blocks()
            until(lambda: "id" in next(blocks))
            page.server.handle_exit(2, None)
            assert [block.get("event") for block in blocks] == ["ended"]  # by its own word, not cut off


def test_the_budget_is_a_share_of_the_time_after_what_is_free() -> None:
    now = [0.0]
    budget = Budget(0.01, 3.0, lambda: now[0])
    spent = 0
    for second in range(3600):
        now[0] = float(second)
        if budget.allows():
            budget.spend(0.5)
            spent += 1
    assert 0.5 * spent == pytest.approx(3.0 + 0.01 * 3600, abs=0.5)


def test_a_study_that_is_not_there_is_named(tmp_path: Path) -> None:
    queue_of(tmp_path, study_of(FACTOR))
    done = subprocess.run(command("watch", "tinny", "-w", tmp_path), env=environment(), capture_output=True, text=True)
    assert done.returncode == 2 and "'tinny'" in done.stderr and "tiny" in done.stderr
    with pytest.raises(LedgerError, match="no ledger here"):
        LedgerReader(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_commands_that_show_nothing_import_no_server() -> None:
    code = (
        "import sys; from benchkit.cli import main; code = main({!r}); "
        "assert not {{'starlette', 'uvicorn', 'anyio'}} & sys.modules.keys(), 'imported'; sys.exit(code)"
    )
    for arguments in (["--help"], ["plugins", "list"], ["watch", "--help"]):
        done = subprocess.run([sys.executable, "-c", code.format(arguments)], env=environment(), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
