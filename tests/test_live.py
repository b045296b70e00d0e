"""The live panel: drawn seldom enough to leave the processor to the trials, and right when it ends."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.live import Live

from benchkit.cli import live as live_view
from benchkit.cli.live import Lines, Panel
from benchkit.data.prepared import report_progress
from benchkit.sweep.messages import Said, SeatsElsewhere, TrialEnded, TrialTaken, dump, event_of


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live_view.time, "monotonic", clock.monotonic)
    return clock


def terminal() -> Console:
    return Console(file=StringIO(), width=100, force_terminal=True)


def shown(out: Console) -> str:
    return out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def ended(index: int) -> TrialEnded:
    scores = {"val.accuracy": 0.5 + index / 100}
    return TrialEnded(
        condition="norm=bn", phase="repeat", index=index, state="done", reason="", seconds=1, scores=scores
    )


def test_the_panel_is_drawn_at_most_twice_a_second_and_last_of_all(clock: Clock) -> None:
    out = terminal()
    with Live(console=out, auto_refresh=False) as live:
        panel = Panel(live)
        panel.stage("repeats", {}, 5)
        for index in range(5):
            panel.event(0, TrialTaken(condition="norm=bn", phase="repeat", index=index, key="k", number=index))
            panel.event(0, ended(index))
            clock.now += 0.2
        drawings = shown(out).count("Repeats")
        assert drawings == 1 + 1  # at its begin, and after 0.6 of 0.8 seconds
        assert "54.0%" not in shown(out)
    assert shown(out).count("Repeats") == drawings + 1
    assert "5/5" in shown(out) and "54.0%" in shown(out)


def test_the_progress_of_preparing_data_is_drawn_seldom(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal()
    monkeypatch.setattr(live_view, "console", lambda **_: out)
    with live_view.watching():
        for done in range(1, 1001):
            report_progress(done, 1000, "decoding")
            clock.now += 0.001
    # At the first, after half a second, at the last; and once more as the display ends.
    assert [shown(out).count(f": {done:,} of 1,000") for done in (1, 501, 1000)] == [1, 1, 2]
    assert shown(out).count("decoding") == 4


def test_what_looks_found_is_told_in_lines_and_above_the_panel() -> None:
    lines: list[str] = []
    Lines(write=lines.append).event(0, Said(words="look 1 of 5"))
    assert lines == ["look 1 of 5"]
    out = terminal()
    with Live(console=out, auto_refresh=False) as live:
        Panel(live).event(0, Said(words="look 1 of 5"))
    assert "look 1 of 5" in shown(out)
    assert event_of(dump(Said(words="x"))) == Said(words="x")


def test_the_panel_shows_what_other_sweeps_are_at_as_long_as_they_are(clock: Clock) -> None:
    out = terminal()
    with Live(console=out, auto_refresh=False) as live:
        panel = Panel(live)
        panel.stage("repeats", {}, 5)
        clock.now += 1
        panel.event(0, SeatsElsewhere(words=("cuda:0 on far: norm=gn repeat 2, epoch 5/20",)))
        assert shown(out).count("other sweep: cuda:0 on far: norm=gn repeat 2") == 1
        clock.now += 1
        panel.event(0, SeatsElsewhere(words=()))
        assert shown(out).count("other sweep") == 1
