"""Charts for print: drawn in a child process, within limits, and only once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from synthetic_results import complete
from tiny_study import PATIENCE

from benchkit.child import LineChild
from benchkit.errors import ReportError
from benchkit.report import write
from benchkit.report.figures import chart_worker as chart_worker_module
from benchkit.report.figures.chart_worker import ChartCache, ChartWorker
from benchkit.report.figures.drawing import content_key, spec_to_svg
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.pdf import PdfPrinter
from benchkit.report.write import write_report

SPEC: dict[str, Any] = {"mark": "point", "data": {"values": [{"x": 1}]}, "encoding": {"x": {"field": "x"}}}
HUGE = {**SPEC, "data": {"sequence": {"start": 0, "stop": 30_000_000, "as": "x"}}}


def drawn(worker: ChartWorker, spec: dict[str, Any] = SPEC) -> bytes:
    """Return a chart as SVG, as the worker draws it."""
    return worker.begin(json.dumps(spec)).result()


def test_the_child_draws_what_this_process_would() -> None:
    with ChartWorker() as chart_worker:
        assert drawn(chart_worker).decode() == spec_to_svg(SPEC)
        with pytest.raises(ReportError, match="cannot be drawn"):
            drawn(chart_worker, {"mark": "point", "data": {"values": []}, "transform": [{"filter": "1 +"}]})
        assert drawn(chart_worker).startswith(b"<svg")
        assert chart_worker.drawn == 3


def test_a_chart_that_takes_too_long_costs_only_itself() -> None:
    with ChartWorker(seconds=0.05) as chart_worker:
        arguments = chart_worker._child._arguments
        chart_worker._child._arguments = ["-c", "import time; time.sleep(600)"]
        with pytest.raises(ReportError, match=r"longer than 0\.05 s"):
            drawn(chart_worker)
        chart_worker._child._arguments, chart_worker._child.seconds = arguments, PATIENCE
        assert drawn(chart_worker).startswith(b"<svg")


def test_who_ends_a_report_does_not_wait_for_the_chart_that_is_drawn() -> None:
    chart_worker = ChartWorker()
    with pytest.raises(KeyboardInterrupt), chart_worker:
        chart_worker._child = LineChild(["-c", "import time; time.sleep(600)"], 600)
        future = chart_worker.begin("{}")
        while chart_worker._child._process is None:
            time.sleep(0.01)
        raise KeyboardInterrupt
    with pytest.raises(ReportError, match="could not be drawn"):
        future.result()


def test_a_child_that_cannot_be_started_costs_charts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with ChartWorker() as chart_worker:
        chart_worker.begin_child()
        with pytest.raises(ReportError, match="could not be drawn") as told:
            drawn(chart_worker)
    assert "could not be started: [Errno 28] No space left on device" in told.value.problems[0]


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="Windows has no alarm")
def test_a_child_without_a_parent_ends_by_itself() -> None:
    script = (
        "import time\nfrom benchkit.report.figures import chart_worker\n"
        "chart_worker.answer = lambda request: time.sleep(600)\nchart_worker.answer_in_time({}, 1)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == -signal.SIGALRM


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux limits the memory that is filled")
def test_a_chart_that_fills_memory_costs_only_itself() -> None:
    with ChartWorker(memory_mib=700) as chart_worker:
        with pytest.raises(ReportError, match="could not be drawn"):
            drawn(chart_worker, HUGE)
        assert drawn(chart_worker).startswith(b"<svg")


def test_a_figure_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    draw = ChartWorker._asked
    monkeypatch.setattr(ChartWorker, "_asked", lambda self, spec: asked.append(spec) or draw(self, spec))
    monkeypatch.setattr(chart_worker_module.ChartCache, "of_user", lambda: ChartCache(tmp_path / "pictures"))
    monkeypatch.setattr(PdfPrinter, "finish", lambda *_: b"")
    results = complete(tmp_path / "trials", ("bn",), repeats=1, epochs=2)
    write_report(results, tmp_path / "first", "pdf")
    first = len(asked)
    assert first == len(list((tmp_path / "pictures").iterdir())) >= 3
    write_report(results, tmp_path / "second", "pdf")
    assert len(asked) == first
    write_report(results, tmp_path / "third", "pdf", cache=False)
    assert len(asked) == 2 * first


def test_the_pdf_is_printed_while_the_page_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, made = threading.Event(), write.screen_report

    def screen_report(*arguments: Any) -> Any:
        assert begun.wait(60)
        return made(*arguments)

    monkeypatch.setattr(write, "screen_report", screen_report)
    monkeypatch.setattr(PdfPrinter, "finish", lambda *_: begun.set() or b"%PDF")
    written = write_report(complete(tmp_path / "trials", ("bn",), repeats=1, epochs=2), tmp_path, "html", "pdf")
    assert [path.suffix for path in written.paths if path.is_file()] == [".html", ".pdf"] and not written.problems


def test_a_report_that_is_stopped_waits_for_no_pdf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, waited, close = threading.Event(), list[bool](), PdfPrinter.__exit__
    monkeypatch.setattr(PdfPrinter, "__exit__", lambda self, *about: (close(self, *about), ended.set())[0])
    monkeypatch.setattr(PdfPrinter, "finish", lambda *_: waited.append(ended.wait(30)) or b"%PDF")
    monkeypatch.setattr(write, "screen_report", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_report(complete(tmp_path / "trials", ("bn",), repeats=1, epochs=2), tmp_path, "html", "pdf")
    assert waited == [True] and not list(tmp_path.glob("*.*"))


def test_children_are_begun_before_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def noted(owner: object, name: str, words: str) -> None:
        before = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **named: told.append(words) or before(*given, **named))

    noted(ChartWorker, "begin_child", "what draws begins")
    noted(write, "build_study", "figures are made")
    noted(PdfPrinter, "begin", "what prints begins")
    noted(FigureSet, "_finished", "pictures are awaited")
    noted(write, "single_build", "files are made")
    noted(write, "prepare_pdf", "what it prints is ready")
    noted(write, "screen_report", "the page is made")
    monkeypatch.setattr(PdfPrinter, "finish", lambda *_: b"%PDF")
    results = complete(tmp_path / "trials", ("bn",), repeats=1, epochs=2)
    write_report(results, tmp_path, "html", "pdf", "figures")
    assert list(dict.fromkeys(told)) == [
        "what draws begins", "figures are made", "what prints begins", "pictures are awaited", "files are made",
        "what it prints is ready", "the page is made",
    ]  # fmt: skip
    told.clear()
    write_report(results, tmp_path, "json")
    assert told == ["figures are made", "files are made"]
    told.clear()
    write_report(results, tmp_path, "html")
    assert list(dict.fromkeys(told)) == ["figures are made", "files are made", "the page is made"]
    told.clear()
    write_report(results, tmp_path, "figures")
    assert list(dict.fromkeys(told)) == [
        "what draws begins", "figures are made", "pictures are awaited", "files are made"
    ]  # fmt: skip


def test_the_key_changes_with_spec_and_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_key(json.dumps(SPEC))
    assert before != content_key(json.dumps({**SPEC, "config": {"font": "Inter"}}))
    monkeypatch.setattr("benchkit.report.figures.drawing._renderer", lambda: ("other version",))
    assert before != content_key(json.dumps(SPEC))


def test_a_damaged_picture_is_drawn_anew(tmp_path: Path) -> None:
    cache = ChartCache(tmp_path)
    with ChartWorker(cache) as chart_worker:
        whole = drawn(chart_worker)
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-9])
        assert drawn(chart_worker) == whole
        assert chart_worker.drawn == 2
        assert cache.get(content_key(json.dumps(SPEC))) == whole


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = ChartCache(tmp_path, most_bytes=260)
    for place, name in enumerate("abc"):
        cache.put(name, 50 * b"x")
        os.utime(tmp_path / f"{name}.picture", (place, place))
    assert cache.get("a") == 50 * b"x"  # used now, so that b is the oldest
    cache.trim()
    assert [cache.get(name) is not None for name in "abc"] == [True, False, True]


def test_two_writers_leave_whole_pictures(tmp_path: Path) -> None:
    cache = ChartCache(tmp_path, most_bytes=10**6)
    contents = {size: bytes([size]) * 1000 * size for size in range(1, 60)}
    seen: list[bytes | None] = []

    def write() -> None:
        for content in contents.values():
            cache.put("key", content)
            seen.append(cache.get("key"))
            cache.trim()

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) <= set(contents.values())
    assert [path.name for path in tmp_path.iterdir()] == ["key.picture"]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = ChartCache(tmp_path / "file" / "pictures")
    cache.put("key", b"x")
    cache.trim()
    assert cache.get("key") is None
