"""How many trials a device is given at once: the rule by worked examples, measuring with real workers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live
from tiny_study import DATA, FACTOR, InlinePool, Listener, study_of

import benchkit.sweep.orchestration
from benchkit.cli.live import Lines, Panel
from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.sweep import concurrency_search
from benchkit.sweep.concurrency_search import (
    Concurrency,
    ConcurrencyLevel,
    TimedWorkers,
    best_count,
    concurrency_text,
    explore,
    next_level,
    read_kept,
    trials_at_once,
)
from benchkit.sweep.devices import CPU, Device, Devices
from benchkit.sweep.messages import (
    ConcurrencyTried,
    Event,
    Job,
    RunReady,
    RunTimed,
    Said,
    WorkerLost,
    WorkerReady,
)
from benchkit.sweep.orchestration import Request, sweep
from benchkit.sweep.pool import Pool

GIB = 2**30

SLOT = Device(kind="cpu", uuid="slot-0", name="slot")
"""A GPU's stand-in: a device of its own, on which workers train on the CPU."""


def concurrency(*rates: float, **more: object) -> Concurrency:
    """Return what 1, 2, 4, ... trials at once were measured at; a trial has 1,000 images."""
    levels = tuple(ConcurrencyLevel(at_once=2**place, rate=rate) for place, rate in enumerate(rates))
    return Concurrency(**{"device": "cuda:0", "levels": levels, "images": 1000, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "most", "following", "best"),
    [
        (concurrency(), 16, 1, 1),
        (concurrency(12_000), 16, 2, 1),
        (concurrency(12_000, 21_000), 16, 4, 2),
        (concurrency(12_000, 21_000, 35_000), 16, 8, 4),
        (concurrency(12_000, 21_000, 35_000, 36_000), 16, None, 4),  # 3 % more: not worth it
        (concurrency(1000, 1100), 16, 4, 2),  # exactly a tenth more
        (concurrency(1000, 1099), 16, None, 1),
        (concurrency(1000, 900), 16, None, 1),
        (concurrency(12_000, 21_000), 3, 3, 2),  # three trials are missing, or three cores are there
        (concurrency(12_000, 21_000), 2, None, 2),
        (concurrency(12_000, 21_000, 35_000), 3, None, 3),  # known from when more were missing
        (concurrency(0.0), 16, None, 1),  # a failure
        (concurrency(12_000, 21_000, 0.0), 16, None, 2),
        (concurrency(12_000, 0.0), 16, None, 1),
        # 80 % of 20 GiB are 16 GiB: three trials of 5 GiB.
        (concurrency(12_000, 21_000, peak_bytes=5 * GIB, free_bytes=20 * GIB), 16, 3, 2),
        (concurrency(12_000, peak_bytes=8 * GIB, free_bytes=20 * GIB), 16, 2, 1),
        (concurrency(12_000, peak_bytes=9 * GIB, free_bytes=20 * GIB), 16, None, 1),
        (concurrency(12_000, peak_bytes=30 * GIB, free_bytes=20 * GIB), 16, None, 1),
    ],
)
def test_the_number_doubles_while_the_rate_rises_by_a_tenth(
    known: Concurrency, most: int, following: int | None, best: int
) -> None:
    assert next_level(known, most) == following
    assert best_count(known, most) == best


def test_little_work_is_not_worth_a_search() -> None:
    # 60 s at 1,000 images a second are 60 epochs of 1,000 images.
    assert next_level(concurrency(1000), 8, 59) is None
    assert next_level(concurrency(1000), 8, 60) == 2
    assert next_level(concurrency(), 8, 1) == 1


def test_the_choice_in_words() -> None:
    known = concurrency(12_000, 21_000, 35_000, 36_000)
    expected = "4 trials at once on cuda:0: probed 1: 12,000, 2: 21,000, 4: 35,000, 8: 36,000 images/s"
    assert concurrency_text(known, 4) == expected
    assert concurrency_text(concurrency(900, 0.0), 1) == "1 trial at once on cuda:0: probed 1: 900, 2: failed images/s"
    told: list[str] = []
    lines = Lines(told.append)
    lines.event(0, ConcurrencyTried(at_once=1))
    lines.event(0, ConcurrencyTried(at_once=2))
    lines.event(0, Said(words=expected))
    assert told == ["timing 1 trial at once", "timing 2 trials at once", expected]


def test_the_panel_keeps_the_choice_above_itself() -> None:
    out = Console(file=StringIO(), width=120)
    with Live(console=out, auto_refresh=False) as live:
        Panel(live).event(0, Said(words=concurrency_text(concurrency(900, 1700, device="cuda:[red]0"), 2)))
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert "2 trials at once on cuda:[red]0: probed 1: 900, 2: 1,700 images/s\n" in shown


def test_exploring_ends_where_more_trials_bring_little() -> None:
    def measure(known: Concurrency, at_once: int) -> Concurrency:
        # A device that is full with five trials of 100 images a second.
        rates = [*(level.rate for level in known.levels), 100.0 * min(at_once, 5)]
        return concurrency(*rates)

    found = explore(measure, Concurrency(), 64, math.inf)
    assert [level.rate for level in found.levels] == [100, 200, 400, 500, 500] and best_count(found, 64) == 8


class Scripted:
    """A pool whose workers answer at once; from `full` on, a worker that is made ready ends instead."""

    def __init__(self, full: int) -> None:
        self._full = full
        self._events: list[tuple[int, Event]] = []

    def give(self, number: int, job: Job) -> None:
        if number >= self._full:
            answer: Event = WorkerLost(code=-9)
        elif job.seconds:
            answer = RunTimed(images_per_second=100.0 - number)
        else:
            answer = RunReady(images=1000, peak_bytes=number + 1, free_bytes=10**6)
        self._events += [(number, WorkerReady(device="cuda:0")), (number, answer)]

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        while self._events:
            yield self._events.pop(0)


def job_of(workspace: Path, *parts: str) -> Job:
    study = study_of(*parts)
    request = Request(study=study, workspace=workspace, data_root=DATA, device="cpu")
    return request.job("concurrency", make_plan(study).conditions)


def test_a_worker_that_ends_means_fewer_trials(tmp_path: Path) -> None:
    workers = TimedWorkers(job_of(tmp_path), Scripted(full=3), Listener())  # type: ignore[arg-type]
    found = explore(workers.measure, Concurrency(), 16, math.inf)
    assert [(level.at_once, level.rate) for level in found.levels] == [(1, 100), (2, 199), (4, 0)]
    assert best_count(found, 16) == 2
    assert (found.device, found.peak_bytes, found.free_bytes) == ("cuda:0", 1, 10**6)


def test_several_runs_are_timed_in_one_process_before_another_one_starts(tmp_path: Path) -> None:
    given: list[tuple[int, int]] = []

    class Noting(Scripted):
        def give(self, number: int, job: Job) -> None:
            if job.seconds:
                given.append((number, job.at_once))
            super().give(number, job)

    job = replace(job_of(tmp_path), per_process=4)
    known, workers = Concurrency(), TimedWorkers(job, Noting(full=9), Listener())  # type: ignore[arg-type]
    for at_once in (1, 2, 4, 6):
        known = workers.measure(known, at_once)
    assert given == [(0, 1), (0, 2), (0, 4), (0, 4), (1, 2)]
    assert [level.rate for level in known.levels] == [100, 100, 100, 199]
    plan = make_plan(study_of())
    alone = Device(kind="cuda", name="H200", exclusive=True)
    searches = [
        concurrency_search.concurrency_search(replace(job, per_process=count), plan, device, missing=99, cores=3)
        for device, count in ((SLOT, 1), (SLOT, 4), (alone, 4))
    ]
    assert [one.most for one in searches] == [3, 12, 4], "a process feeds several with one core; one alone takes four"
    assert len({one.key for one in searches}) == 3


def test_runs_in_turns_are_timed_together(tmp_path: Path) -> None:
    from benchkit.sweep.timed_run import TimedRun
    from benchkit.sweep.training import WorkerContext

    job = replace(job_of(tmp_path), per_process=4)
    timed, context = TimedRun(), WorkerContext(job=job, device="cpu", registry=Registry.installed())
    for at_once in (1, 3):
        context.job = replace(job, at_once=at_once)
        assert timed.answer(context) == RunReady(images=60, peak_bytes=0, free_bytes=0)
        context.job = replace(job, at_once=at_once, seconds=1e-3)
        answer = timed.answer(context)
        assert isinstance(answer, RunTimed) and answer.images_per_second > 0
    epochs = [len(lane.run.history) for lane in timed._lanes]
    assert len(epochs) == 3 and min(epochs) >= 2, "each is trained while all are timed"


def test_an_exclusive_gpu_takes_one_process_of_several_trials() -> None:
    alone, shared = (Device(kind="cuda", number=number, exclusive=number == 0) for number in (0, 1))
    devices = Devices(used=(alone, shared))
    assert [one.number for one in devices.seats(6)] == [0, 1, 1, 1, 1, 1]
    assert [one.number for one in devices.seats(6, per_process=2)] == [0, 1, 0, 1, 1, 1]


def test_two_gpus_that_jobs_both_see_as_the_first_are_timed_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of()
    request, plan = Request(study=study, workspace=tmp_path, data_root=DATA, device="cuda"), make_plan(study)

    def key(device: Device) -> str:
        job = request.job("concurrency", plan.conditions)
        return concurrency_search.concurrency_search(job, plan, device, missing=4, cores=3).key

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    cards = [Device(kind="cuda", number=0, uuid=uuid, name="H200") for uuid in ("GPU-aa", "GPU-bb")]
    assert key(cards[0]) == key(cards[0]) != key(cards[1])
    found = []
    for number in ("4", "5"):  # without nvidia-smi nobody tells the UUID
        monkeypatch.setenv("SLURM_JOB_GPUS", number)
        found.append(key(Device(kind="cuda")))
    assert found[0] != found[1]


def test_what_is_timed_has_the_largest_batches_and_no_more_workers_than_trials(tmp_path: Path) -> None:
    study = study_of('[factors]\n"train.batch_size" = [10, 30, 20]\n')
    request = Request(study=study, workspace=tmp_path, data_root=DATA, device="cpu")
    plan = make_plan(study)
    task = concurrency_search.concurrency_search(
        request.job("concurrency", plan.conditions), plan, SLOT, missing=4, cores=3
    )
    assert [one.label for one in task.job.conditions] == ["30"]
    assert (task.most, task.threads, task.epochs) == (3, 1, 4 * 3)
    fewer = concurrency_search.concurrency_search(
        request.job("concurrency", plan.conditions), plan, SLOT, missing=2, cores=3
    )
    assert fewer.most == 2


def test_real_workers_are_timed_once_and_the_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole sweep as on a GPU, on the CPU: its probes in two processes, its trials in this one."""
    monkeypatch.setattr(concurrency_search, "WINDOW", 0.1)
    monkeypatch.setattr(concurrency_search, "WORTH", 0.0)
    monkeypatch.setattr(concurrency_search, "GAIN", 0.0)
    monkeypatch.setattr(benchkit.sweep.orchestration, "available_cores", lambda: 2)
    monkeypatch.setattr(benchkit.sweep.orchestration, "devices_of", lambda request: Devices(used=(SLOT,)))
    sizes: list[int] = []

    class Counting(InlinePool):
        def __init__(self, seats: Sequence[Device], threads: int, logs: Path, per_process: int = 1) -> None:
            super().__init__(seats, threads, logs, per_process)
            sizes.append(len(seats))

    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", Counting)
    study, view = study_of(FACTOR), Listener()
    request = Request(study=study, workspace=tmp_path, data_root=DATA, device="cpu")
    assert +sweep(request, Registry.installed(), view) == {"done": 4}
    (found,) = read_kept(tmp_path).values()
    assert [level.at_once for level in found.levels] == [1, 2]
    assert all(level.rate > 0 for level in found.levels) and found.images == 60
    assert sizes == [2] and found.device == "cpu"
    words = concurrency_text(found, 2)
    assert words.startswith("2 trials at once on cpu: probed 1: ") and Said(words=words) in view.events
    monkeypatch.setattr(concurrency_search, "Pool", None)  # nothing is timed again
    again, plan = Listener(), make_plan(study)
    task = concurrency_search.concurrency_search(
        request.job("concurrency", plan.conditions), plan, SLOT, missing=4, cores=2
    )
    assert trials_at_once(task, tmp_path, again) == 2
    assert again.events == [Said(words=f"{words} (an earlier sweep's probe)")]


@pytest.mark.parametrize("content", ["", "[]", '{"a": 3}', '{"a": {"levels": [7]}}', "\0"])
def test_a_damaged_file_of_measurements_counts_as_absent(tmp_path: Path, content: str) -> None:
    assert read_kept(tmp_path) == {}
    (tmp_path / concurrency_search.KEPT).write_text(content)
    assert read_kept(tmp_path) == {}


def test_a_failed_probe_is_not_kept_and_one_trial_is_trained_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(Pool):
        def give(self, number: int, job: Job) -> None:
            super().give(number, job)
            self._processes[number].line.kill()

    monkeypatch.setattr(concurrency_search, "Pool", Dying)
    plan, view = make_plan(study_of(FACTOR)), Listener()
    task = concurrency_search.concurrency_search(
        job_of(tmp_path, FACTOR), plan, CPU, missing=4, cores=max(2, os.cpu_count() or 2)
    )
    assert trials_at_once(task, tmp_path, view) == 1
    assert view.events == [ConcurrencyTried(at_once=1)] and read_kept(tmp_path) == {}


def test_a_trial_on_a_shared_gpu_says_so() -> None:
    import torch

    from benchkit.sweep.training import shared_device

    (note,) = shared_device(torch.device("cuda:0"), 4)
    assert "4 trials at once" in note and "images/s" in note
    assert shared_device(torch.device("cuda:0"), 1) == shared_device(torch.device("cpu"), 4) == ()


@pytest.mark.gpu
@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no CUDA device")
def test_on_cuda_a_trial_s_memory_is_told(tmp_path: Path) -> None:
    from benchkit.sweep.timed_run import CONTEXT_BYTES, TimedRun
    from benchkit.sweep.training import WorkerContext

    context = WorkerContext(job=job_of(tmp_path), device="cuda:0", registry=Registry.installed())
    ready = TimedRun().answer(context)
    assert isinstance(ready, RunReady) and ready.images == 60
    assert CONTEXT_BYTES < ready.peak_bytes < ready.free_bytes


def test_each_kind_of_gpu_is_timed_once_and_all_are_filled_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two large GPUs that take three trials at once, a small one that takes one, and one that is exclusive."""
    large = [Device(kind="cuda", number=number, uuid=f"GPU-{number}", name="large") for number in (0, 2)]
    small = Device(kind="cuda", number=1, uuid="GPU-1", name="small")
    alone = Device(kind="cuda", number=3, uuid="GPU-3", name="alone", exclusive=True)
    timed = []

    def best(search: concurrency_search.ConcurrencySearch, workspace: Path, view: Listener) -> int:
        timed.append((search.device.name, search.most))
        return {"large": 3, "small": 1}[search.device.name]

    monkeypatch.setattr(benchkit.sweep.orchestration, "trials_at_once", best)
    monkeypatch.setattr(benchkit.sweep.orchestration, "available_cores", lambda: 32)
    study = study_of(FACTOR, repeats=12)
    plan, ledger = make_plan(study), Ledger(tmp_path)
    ledger.register(plan, {}, "test", plan.conditions)
    request = Request(study=study, workspace=tmp_path, data_root=DATA)
    devices = Devices(used=(large[0], small, large[1], alone))
    seats = benchkit.sweep.orchestration.seats_of(request, ledger, plan, devices, Listener())
    assert timed == [("large", 6), ("small", 6)], "24 trials are missing, 6 for each GPU; 8 cores for each"
    assert [seat.number for seat in seats] == [0, 1, 2, 3, 0, 2, 0, 2]
    two = benchkit.sweep.orchestration.seats_of(replace(request, jobs=2), ledger, plan, devices, Listener())
    assert [seat.number for seat in two] == [0, 1]
