"""Checks of trackers: any name and number, nothing twice, runs that go on, nothing beside the folder that they get."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchkit.testing.check import NotApplicable, attempt, require, rule
from benchkit.testing.subject import Subject
from benchkit.tracking import TrackedRow, TrackedRun

RUN = TrackedRun(
    id="0123456789abcdef01234567",
    kind="trial",
    study="some-study",
    name='model.norm="bn"@x, repeat 0',
    state="done",
    started=1.7e9,
    finished=1.7e9 + 300,
    parameters={"model.norm": "bn", "a=b@c/../d": "strange", "data.text": "long " * 2000},
    tags={"condition": 'model.norm="bn"@x', "reason": "zu früh"},
    rows=tuple(
        TrackedRow(step=step, time=1.7e9 + step, values={"val_loss": 1 / step, "val.a=b": float(step)})
        for step in range(1, 120)
    ),
    scores={"test.accuracy": 0.5},
)


@rule("writes", likely="names, long texts or numbers are passed on that the tracker refuses")
def writes(subject: Subject) -> None:
    """It takes a run with strange names and long values, and one that diverged, with NaN and infinite values."""
    broken = TrackedRow(step=120, time=1.7e9 + 120, values={"val_loss": math.nan, "train_loss": math.inf})
    for run in (RUN, replace(RUN, id="d" * 24, name="diverged", state="diverged", rows=(*RUN.rows, broken), scores={})):
        _written(subject, run)
    require(bool(_sizes(subject.scratch("writes"))), given="two runs and no address", expected="files in the folder of "
            "the workspace", got="none")  # fmt: skip


@rule("again", likely="it does not look for what an earlier process wrote: find a run by its id, and its end by mark")
def again(subject: Subject) -> None:
    """Another process that writes the same run again leaves all files as they were."""
    _written(subject, RUN)
    before = _sizes(subject.scratch("writes"))
    _written(subject, RUN)
    after = _sizes(subject.scratch("writes"))
    apart = sorted({path for path in before | after if before.get(path) != after.get(path)})
    require(not apart, given="the same run again", expected="the same files", got=", ".join(apart[:3]))


@rule("grows", likely="a run that was begun is not gone on with")
def grows(subject: Subject) -> None:
    """A run that goes on comes again with more rows, to the same process and to a later one, until it has ended."""
    if not getattr(subject.plugin, "live", True):
        raise NotApplicable("it takes runs that have ended")
    running = replace(RUN, id="e" * 24, name="goes on", state="running", finished=0.0, scores={})
    parts: list[Any] = [replace(running, rows=running.rows[:count]) for count in (0, 2, 3)]
    _written(subject, *parts)
    _written(subject, running, replace(RUN, id="e" * 24, name="goes on"))


@rule("beside", likely="a path without the folder that it is given")
def beside(subject: Subject) -> None:
    """It writes nothing into the folder that happens to be the current one."""
    folder, was = subject.scratch("current"), Path.cwd()
    os.chdir(folder)
    try:
        _written(subject, RUN)
    finally:
        os.chdir(was)
    found = sorted(_sizes(folder))
    require(not found, given="a current folder of its own", expected="no file in it", got=", ".join(found[:3]))


def _written(subject: Subject, *runs: TrackedRun) -> None:
    with attempt(f"runs such as {runs[-1].name!r} of {len(runs[-1].rows)} rows"):
        tracker = subject.plugin(subject.scratch("writes") / subject.name, "", **subject.options)
        for run in runs:
            tracker.write(run)
        tracker.close()


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


RULES = (writes, again, grows, beside)
