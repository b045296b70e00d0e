"""What a live page in Chromium keeps in memory while its server tells it of changes, again and again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from chromium_page import Page
from live_pages import live_page, until
from tiny_study import DONE, FACTOR, RECORD, queue_of, study_of

STATES = 3
"""So many different states of the page are told of in turn."""

TOLD = """
let turn = 0, draw;
globalThis.drawings = [];
Object.defineProperty(globalThis, "drawFigure", {
  get: () => draw && ((...given) => {
    drawings.push(turn);
    setTimeout(() => { turn += 1; });
    return draw(...given);
  }),
  set: (own) => { draw = own; },
});
globalThis.EventSource = class {
  constructor() { globalThis.feed = (told) => this.onmessage({ data: JSON.stringify(told) }); }
  addEventListener() {}
  close() {}
};
globalThis.EventSource.CLOSED = 2;
"""
"""A stand-in for the stream of events, by which the updates come as fast as the page takes them.

It notes after how many other tasks each chart is drawn.
"""

DRAWN = "document.querySelector('#running .chart[data-drawn] svg.marks')"
UPDATES = """
(async () => {
  const drawn = () => %s;
  for (let n = %d; n < %d; n += 1) {
    feed({ ...told[n %% told.length], state: `again ${n}` });
    while (!drawn()) await new Promise((resolve) => setTimeout(resolve, 1));
  }
})()
"""


class TracedPage(Page):
    """A page that tells how long its tasks keep the processor, by the clock of their thread."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._events: list[dict[str, Any]] = []
        self._complete = False

    def _note(self, method: str, params: dict[str, Any]) -> None:
        super()._note(method, params)
        if method == "Tracing.dataCollected":
            self._events += [one for one in params["value"] if one["name"].endswith(("RunTask", "thread_name"))]
        self._complete = self._complete or method == "Tracing.tracingComplete"

    @contextmanager
    def traced(self, longest: list[float]) -> Iterator[None]:
        """Append the milliseconds of processor time of the page's longest task within the block."""
        self._events.clear()
        self._complete = False
        self.send("Tracing.start", categories="-*,toplevel", transferMode="ReportEvents")
        yield
        self.send("Tracing.end")
        while not self._complete:
            self._receive(60.0)
        threads = {(one["pid"], one["tid"]): one["args"]["name"] for one in self._events if "name" in one["args"]}
        mains = [one for one in self._events if threads.get((one["pid"], one["tid"])) == "CrRendererMain"]
        longest.append(max((one["tdur"] / 1000 for one in mains if "tdur" in one), default=0.0))


def recorded(workspace: Path, epochs: int, trials: int) -> Sequence[dict[str, Any]]:
    """Return what the server tells of a study with a trial under way, in states that differ by an epoch."""
    _, _, queue = queue_of(workspace, study_of(FACTOR, repeats=trials // 2))
    history = [replace(RECORD, epoch=epoch) for epoch in range(1, epochs + 1)]
    for _ in range(trials - 1):
        claim = queue.next()
        claim.folder.write_history(history)
        claim.finish(DONE)
    claim = queue.next()
    claim.folder.write_history(history)
    found: list[dict[str, Any]] = []
    with live_page(workspace) as page, page.stream() as stream:
        page.page()
        for told in stream.told():
            if "running" in told["parts"]:
                found.append(told)
                if len(found) == STATES:
                    return found
            claim.folder.append_epoch(replace(RECORD, epoch=epochs + len(found) + 1, val_loss=1.0 + len(found)))
    raise AssertionError("the stream has ended")


def heap_growth(
    workspace: Path, updates: int, *, trials: int = 4, epochs: int = 10, width: int = 1280
) -> dict[str, Any]:
    """Return the heap of a page in MiB after each tenth of its updates, and the longest tasks in ms of processor time.

    Of these the first is that of the page's beginning, in which all of it is brought into sight, the others are those
    of each tenth. Each update changes the curves of a trial under way, which are in sight, so that the chart is drawn
    anew. `drawings` are all drawings since then, `drawing_tasks` the tasks that they took.
    """
    told, heaps, tasks = recorded(workspace, epochs, trials), [], []
    with live_page(workspace, every=60.0) as served, TracedPage(width=width) as page:
        until(lambda: all(f'id="{part}"' in served.page() for part in ("running", "training")))  # all of it is made
        page.send("Page.addScriptToEvaluateOnNewDocument", source=TOLD)
        with page.traced(tasks):
            page.send("Page.navigate", url=served.address)
            page.wait_for("document.readyState === 'complete' && globalThis.feed")
            page.run(f"globalThis.told = {json.dumps(told)}; undefined")
            for part in page.run("[...document.querySelectorAll('section.part')].map((part) => part.id)"):
                page.run(f"document.getElementById('{part}').scrollIntoView({{behavior: 'instant'}})")
                page.wait_for(f"!document.querySelector('#{part} .chart:not([data-drawn])')")
            page.run("document.querySelector('#running').scrollIntoView({behavior: 'instant'})")
            page.wait_for(DRAWN)
        first, step = 0, max(1, updates // 10)
        for last in range(step, updates + 1, step):
            with page.traced(tasks):
                page.run(UPDATES % (DRAWN, first, last))
            page.send("HeapProfiler.collectGarbage")
            heaps.append(page.send("Runtime.getHeapUsage")["usedSize"] / 2**20)
            first = last
        drawings = page.run("drawings")
        assert page.console == []
    return {
        "trials": trials,
        "updates": first,
        "mib": heaps,
        "longest_task_ms": tasks,
        "drawings": len(drawings),
        "drawing_tasks": len(set(drawings)),
    }
