"""Who hears of progress, and how often."""

from __future__ import annotations

from benchkit.data.prepared import listening, progress_lines, report_progress


def test_progress_reaches_the_listener_alone() -> None:
    heard: list[tuple[int, int, str]] = []
    report_progress(0, 1, "nobody hears this")
    with listening(lambda *report: heard.append(report)):
        report_progress(1, 2, "work")
    report_progress(2, 2, "work")
    assert heard == [(1, 2, "work")]


def test_progress_lines_are_few() -> None:
    lines: list[str] = []
    times = iter([100.0, 101.0, 104.9, 105.5, 106.0, 107.0, 108.0])
    listen = progress_lines(lines.append, every=5.0, clock=lambda: next(times))
    for done in (0, 100, 900, 1000, 1200):
        listen(done, 2000, "decoding")
    listen(2000, 2000, "decoding")
    listen(0, 0, "writing")
    assert lines == ["decoding: 0 of 2,000", "decoding: 1,000 of 2,000", "decoding: 2,000 of 2,000", "writing"]
