"""The live page in Chromium, beside a real sweep: what ends appears without a reload, whoever else is there."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import nan
from pathlib import Path

import pytest
from live_pages import LivePage, live_page
from tiny_study import DONE, FACTOR, RECORD, command, environment, queue_of, study_of, write

from benchkit.results import Outcome
from benchkit.watch.server import Times

pytest.importorskip("resource", reason="the browser is driven over pipes of a POSIX system")
from chromium_page import CHROMIUM, Page
from live_heap import heap_growth

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

LIVE = "document.querySelector('.live').dataset.live === 'yes'"
STATES = "[...document.querySelectorAll('#table-states tbody tr')].map(row => row.innerText).join(' ')"
GLOBALS = "['View', 'vega', 'VEGA_DEBUG', 'vegaEmbed'].filter(name => name in globalThis)"


GATE = """
import time
from dataclasses import dataclass, field
from pathlib import Path
import torch
from benchkit import card

@card(title="Gate", summary="Training waits in its second epoch until a file is there.")
@dataclass(frozen=True)
class Gate:
    calls: list = field(default_factory=list, init=False)
    def penalty(self, model):
        self.calls.append("call")
        while len(self.calls) == 5 and not Path({path!r}).exists():
            time.sleep(0.02)
        return torch.zeros(())

PLUGINS = {{"benchkit.regularizers": {{"gate": Gate}}}}
"""


def visit(page: Page, address: str) -> None:
    page.send("Page.navigate", url=address)
    page.wait_for("document.readyState === 'complete' && location.search.indexOf('token') < 0")


def is_clean(page: Page, origin: str) -> None:
    """Hold a page to no error, and to no request to elsewhere."""
    assert page.console == []
    elsewhere = [one for one in page.requests if not one.startswith((origin, "data:", "blob:"))]
    assert elsewhere == []


@contextmanager
def sweeping(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """Yield a sweep with its live page, the page's address, and the file that lets training go on."""
    study, gate = write(folder / "tiny.toml", FACTOR, '[[regularizers]]\nname = "gate"\n', repeats=2), folder / "gate"
    (folder / "gates.py").write_text(GATE.format(path=str(gate)))
    ours = {**environment(), "BENCHKIT_CACHE": str(folder / "cache")}
    words = command("sweep", study, "-w", folder / "runs", "--jobs", "1", "--watch", "--plugin", "gates.py")
    with subprocess.Popen(words, env=ours, cwd=folder, stderr=subprocess.PIPE, text=True) as sweep:
        try:
            assert sweep.stderr is not None
            told = next(line for line in sweep.stderr if "watch at the address in" in line)
            yield sweep, Path(told.strip().rpartition(" ")[2]).read_text().strip(), gate
        finally:
            gate.touch()
            sweep.kill()


def test_a_real_sweep_is_followed_to_its_end_on_a_narrow_dark_page(tmp_path: Path) -> None:
    with sweeping(tmp_path) as (sweep, address, gate), Page(width=400, dark=True) as page:
        visit(page, address)
        page.wait_for(LIVE)
        page.wait_for("document.querySelector('#running .chart')")  # a first epoch
        page.run("document.querySelector('#running').scrollIntoView({behavior: 'instant'})")
        page.wait_for("document.querySelector('#running .chart[data-drawn]')")
        page.run("globalThis.stays = true")
        assert page.run("document.title") == "(0/4) tiny"
        gate.touch()
        _, rest = sweep.communicate(timeout=60)
        assert sweep.returncode == 0, rest
        page.wait_for("document.title === '(4/4) tiny'")
        page.wait_for("document.querySelector('.live').textContent.startsWith('ended at')")
        assert page.run("globalThis.stays") is True  # it was not loaded anew
        assert page.run("document.querySelectorAll('#table-ranking tbody tr').length") == 2
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.run(GLOBALS) == []
        gone = [line for line in page.console if "ERR_CONNECTION_REFUSED" not in line and "ERR_INCOMPLETE" not in line]
        assert gone == []


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[LivePage, object]]:
    _, _, queue = queue_of(tmp_path, study_of(FACTOR))
    with live_page(tmp_path, times=Times(ping=1.0)) as found:
        yield found, queue


def finish(queue: object, outcome: Outcome = DONE, epochs: int = 3) -> None:
    claim = queue.next()  # type: ignore[attr-defined]
    for epoch in range(1, epochs + 1):
        claim.folder.append_epoch(replace(RECORD, epoch=epoch))
    claim.finish(outcome)


def test_trials_appear_charts_are_drawn_and_a_trial_of_nan_is_shown(live: tuple[LivePage, object]) -> None:
    served, queue = live
    with Page() as page:
        visit(page, served.address)
        page.wait_for(LIVE)
        assert not page.run("document.querySelector('.chart')")
        claim = queue.next()  # type: ignore[attr-defined]
        for epoch in (1, 2):
            claim.folder.append_epoch(replace(RECORD, epoch=epoch))
        page.wait_for("document.querySelector('#running .chart')")
        page.run("document.querySelector('#running').scrollIntoView({behavior: 'instant'})")
        page.wait_for("document.querySelector('#running .chart[data-drawn] svg.marks')")
        page.run("document.querySelector('#table-states th button').click()")
        claim.folder.append_epoch(replace(RECORD, epoch=3, train_loss=nan))
        claim.finish(Outcome(state="diverged", reason="the loss is nan"))
        page.wait_for("document.querySelector('#failures')?.innerText.includes('the loss is nan')")
        assert page.run("document.querySelector('#table-states th').getAttribute('aria-sort')") == "ascending"
        finish(queue)
        page.wait_for("document.querySelector('#training .chart')")
        page.run("document.querySelector('#training').scrollIntoView({behavior: 'instant'})")
        page.wait_for("document.querySelector('#training .chart[data-drawn] svg.marks')")
        assert page.run("[...document.querySelectorAll('.side ol a')].map(a => a.textContent)")[0] == "Progress"
        assert page.run(GLOBALS) == []
        is_clean(page, f"http://127.0.0.1:{served.port}/")


def test_eight_pages_of_one_browser_all_load_and_all_follow(live: tuple[LivePage, object]) -> None:
    served, queue = live
    with Page() as page:
        visit(page, served.address)
        tabs = [page, *(page.another() for _ in range(7))]
        for tab in tabs[1:]:
            visit(tab, f"http://127.0.0.1:{served.port}/")
        for tab in tabs:
            tab.wait_for(LIVE)
        finish(queue)
        for tab in tabs:
            tab.wait_for("document.title === '(1/4) tiny'")
        assert served.server.viewers.count == 1


@contextmanager
def outlived(workspace: Path) -> Iterator[tuple[Page, int]]:
    """Yield an open page and the port of its server, which is gone; hold the page to going on when it is back."""
    _, _, queue = queue_of(workspace, study_of(FACTOR))
    with Page() as page:
        with live_page(workspace) as served:
            port = served.port
            visit(page, served.address)
            page.wait_for(LIVE)
            page.run("globalThis.stays = true")
        yield page, port
        finish(queue)
        with live_page(workspace, port=port):
            page.wait_for(f"{LIVE} && document.title === '(1/4) tiny'")
            assert page.run("globalThis.stays") is True


def test_an_open_page_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    with outlived(tmp_path) as (page, _):
        page.wait_for(f"!({LIVE})")


class Away(BaseHTTPRequestHandler):
    """A proxy whose server is gone: after such an answer, browsers ask for a stream of events no more."""

    asked = threading.Event()

    def do_GET(self) -> None:
        self.send_error(502)
        if self.path.startswith("/events"):
            self.asked.set()

    def log_message(self, *words: object) -> None:
        return


def test_an_open_page_outlives_a_proxy_that_says_its_server_is_gone(tmp_path: Path) -> None:
    with outlived(tmp_path) as (page, port), ThreadingHTTPServer(("127.0.0.1", port), Away) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        assert Away.asked.wait(60)
        page.wait_for(f"!({LIVE})")
        proxy.shutdown()


def test_a_page_that_follows_keeps_its_size(tmp_path: Path) -> None:
    found = heap_growth(tmp_path, 100, width=400)
    first, *_, last = found["mib"]
    assert last < 1.25 * first
    assert found["drawing_tasks"] == found["drawings"] > 2 * 100, "on a narrow page a chart is drawn until it fits"
