"""What a live page in Chromium keeps in memory while its server tells it of changes, again and again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chromium_page import Page
from live_pages import live_page
from tiny_study import DONE, FACTOR, RECORD, queue_of, study_of

STATES = 3
"""So many different states of the page are told of in turn."""

TOLD = """
globalThis.tasks = [];
new PerformanceObserver((list) => tasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask" });
globalThis.EventSource = class {
  constructor() { globalThis.feed = (told) => this.onmessage({ data: JSON.stringify(told) }); }
  addEventListener() {}
  close() {}
};
globalThis.EventSource.CLOSED = 2;
"""
"""A stand-in for the stream of events, by which the updates come as fast as the page takes them."""

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


def recorded(workspace: Path, epochs: int, trials: int) -> Sequence[dict[str, Any]]:
    """Return what the server tells of a study with a trial under way, in states that differ by an epoch."""
    _, _, queue = queue_of(workspace, study_of(FACTOR, repeats=trials // 2))
    for _ in range(trials - 1):
        queue.next().finish(DONE)
    claim = queue.next()
    claim.folder.write_history([replace(RECORD, epoch=epoch) for epoch in range(1, epochs + 1)])
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


def heap_growth(workspace: Path, updates: int, *, trials: int = 4, epochs: int = 10) -> dict[str, Any]:
    """Return the heap of a page in MiB after each tenth of its updates, and its longest task in ms.

    Each update changes the curves of a trial under way, which are in sight, so that the chart is drawn anew.
    """
    told = recorded(workspace, epochs, trials)
    with live_page(workspace, every=60.0) as served, Page() as page:
        page.send("Page.addScriptToEvaluateOnNewDocument", source=TOLD)
        page.send("Page.navigate", url=served.address)
        page.wait_for("document.readyState === 'complete' && globalThis.feed")
        page.run(f"globalThis.told = {json.dumps(told)}; undefined")
        page.run("document.querySelector('#running').scrollIntoView({behavior: 'instant'})")
        page.wait_for(DRAWN)
        heaps, first, step = [], 0, max(1, updates // 10)
        for last in range(step, updates + 1, step):
            page.run(UPDATES % (DRAWN, first, last))
            page.send("HeapProfiler.collectGarbage")
            heaps.append(page.send("Runtime.getHeapUsage")["usedSize"] / 2**20)
            first = last
        tasks = page.run("tasks")
        assert page.console == []
    return {"trials": trials, "updates": first, "mib": heaps, "longest_task_ms": max(tasks, default=0)}
