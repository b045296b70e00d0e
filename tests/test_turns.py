"""Several trials in one process: to the bit what each is alone, and no one's fault is another's."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import make_run, make_settings
from tiny_study import DATA, FACTOR, all_facts, study_of, sweep_here
from turning_pool import turning

import benchkit.sweep.training
from benchkit.errors import TrainingError
from benchkit.ledger import read_results
from benchkit.registry import Registry
from benchkit.results import EpochRecord
from benchkit.sweep.devices import Device
from benchkit.sweep.messages import (
    EpochEnded,
    Event,
    Job,
    Seat,
    Train,
    TrialBegan,
    TrialFinished,
    WorkerIdle,
    WorkerLost,
    WorkerReady,
)
from benchkit.sweep.orchestration import Request, sweep
from benchkit.sweep.pool import SharedProcess, groups
from benchkit.testing.stand_in_gpu import StandInGpu, stand_in_gpu
from benchkit.train import surroundings
from benchkit.train.fit import Pause, fit, fit_in_turns
from benchkit.train.run import Run
from benchkit.train.surroundings import FLAGS, Surroundings

FOUR = {"jobs": 4, "per_process": 4}
DROPOUT = '[[regularizers]]\nname = "dropout"\nrate = 0.3\n'


@contextmanager
def on_stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[StandInGpu]]:
    """Train on the stand-in of a GPU; yield what each trial is recorded by."""
    gpus: list[StandInGpu] = []
    with ExitStack() as stack:
        stack.enter_context(stand_in_gpu())

        def fit(run: Run) -> Iterator[EpochRecord | Pause]:
            gpus.append(StandInGpu())
            return fit_in_turns(run, gpus[-1])

        monkeypatch.setattr("benchkit.sweep.training.fit_in_turns", fit)
        yield gpus


def changes(told: list[tuple[int, Event]]) -> int:
    """Return how often, from one epoch to the next that was told of, the trial was another one."""
    trials = [event.trial for _, event in told if isinstance(event, EpochEnded)]
    return sum(one != other for one, other in itertools.pairwise(trials))


def test_trials_in_turns_are_single_ones_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(DROPOUT, FACTOR, epochs=4)
    sweep_here(monkeypatch, tmp_path / "single", study)
    pool = turning(monkeypatch)
    # A trial that saves a checkpoint gives up a turn for it, at times that the clock tells.
    monkeypatch.setattr(benchkit.sweep.training, "CHECKPOINT_SHARE", 0.0)
    assert sweep_here(monkeypatch, tmp_path / "turns", study, **FOUR) == {"done": 4}
    assert changes(pool.told) == 15, "after each of 16 epochs another trial has its turn"
    turns = read_results(tmp_path / "turns")
    assert all_facts(turns) == all_facts(read_results(tmp_path / "single"))
    assert {note for trial in turns.trials if trial.outcome for note in trial.outcome.notes} == {
        "trained in turns with up to 4 trials of one process, which share its time and memory"
    }


def test_recorded_trials_in_turns_are_single_ones_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four graphs live at a time, each on a stream of its own: the stand-in refuses a second one on a stream."""
    study = study_of(DROPOUT, FACTOR, epochs=4)
    sweep_here(monkeypatch, tmp_path / "single", study)
    pool = turning(monkeypatch)
    monkeypatch.setattr(benchkit.sweep.training, "CHECKPOINT_SHARE", 0.0)
    with on_stand_in(monkeypatch) as gpus:
        assert sweep_here(monkeypatch, tmp_path / "turns", study, **FOUR) == {"done": 4}
    assert changes(pool.told) == 15 and [gpu.replays >= 4 * 3 for gpu in gpus] == [True] * 4
    assert all_facts(read_results(tmp_path / "turns")) == all_facts(read_results(tmp_path / "single"))


def test_trials_go_on_to_the_bit_whatever_was_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(DROPOUT, FACTOR, epochs=6)
    sweep_here(monkeypatch, tmp_path / "single", study)
    monkeypatch.setattr(benchkit.sweep.training, "CHECKPOINT_SHARE", math.inf)
    pool = turning(monkeypatch)
    for jobs in (3, 2):

        def interrupted(self: Any, wait: float, whole: Any = pool.events) -> Iterator[tuple[int, Event]]:
            for count, told in enumerate(whole(self, wait)):
                if count == 12:
                    raise KeyboardInterrupt
                yield told

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pool, "events", interrupted)
            sweep_here(monkeypatch, tmp_path / "turns", study, jobs=jobs, per_process=jobs)
    assert sweep_here(monkeypatch, tmp_path / "turns", study, **FOUR) == {"done": 4}
    began = [len(event.history) for _, event in pool.told if isinstance(event, TrialBegan)]
    assert max(began) > 0, "some trial went on from its checkpoint"
    assert all_facts(read_results(tmp_path / "turns")) == all_facts(read_results(tmp_path / "single"))


HURT = """
from dataclasses import dataclass
import torch
from benchkit import card

DEVICE = []  # what broke it; a process that ends takes this along

@card(title="Hurt", summary="Goes wrong on purpose.", choices={"how": ("0", "raise", "2", "3", "memory", "device")})
@dataclass(frozen=True)
class Hurt:
    how: str = "0"

    def stop(self, history):
        if len(history) == 2:
            if self.how == "raise":
                raise ValueError("no good")
            if self.how == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            if self.how == "device":
                torch.broken = True
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return False

PLUGINS = {"benchkit.regularizers": {"hurt": Hurt}}
"""


def hurting(tmp_path: Path, second: str, epochs: int = 4) -> tuple[Path, Any]:
    """Return a plugin file, and a study of four trials of which the second goes wrong."""
    path = tmp_path / "hurtful.py"
    path.write_text(HURT)
    levels = f'[[regularizers]]\nname = "hurt"\n[factors]\n"regularizers.hurt.how" = ["0", "{second}", "2", "3"]\n'
    return path, study_of(levels, repeats=1, epochs=epochs)


@pytest.fixture
def breakable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stand-in refuse all work of a process whose device a trial has broken."""
    from turning_pool import TurningPool

    begin = TurningPool._begin

    def anew(self: TurningPool) -> None:
        monkeypatch.setattr(torch, "broken", False, raising=False)
        begin(self)

    monkeypatch.setattr(TurningPool, "_begin", anew)
    monkeypatch.setattr("benchkit.sweep.training.is_usable", lambda device: not torch.broken)  # type: ignore[attr-defined]
    seat = Seat(node="here", kind="cuda", device="Stand-in")
    monkeypatch.setattr("benchkit.sweep.work.seat_of", lambda device: seat)


@pytest.mark.usefixtures("breakable")
@pytest.mark.parametrize(
    ("second", "processes", "reason"),
    [
        ("raise", 1, "ValueError: no good (hurtful.py:"),
        ("memory", 1, "out of memory: CUDA out of memory. Tried to allocate 2 GiB"),
        ("device", 3, "RuntimeError: CUDA error: an illegal memory access was encountered"),
    ],
)
def test_what_goes_wrong_in_the_second_of_four_is_its_own(
    second: str, processes: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the device ends the process: all are tried again, each alone, and the one that fails then fails."""
    plugin, study = hurting(tmp_path, second)
    pool = turning(monkeypatch)
    with on_stand_in(monkeypatch):
        states = sweep_here(monkeypatch, tmp_path / "turns", study, plugins=(plugin,), **FOUR)
    assert states == {"done": 3, "failed": 1} and pool.processes == processes
    trials = read_results(tmp_path / "turns").trials
    assert [trial.state for trial in trials] == ["done", "failed", "done", "done"]
    assert trials[1].reason.startswith(reason)
    began = [(event.trial, event.lease) for _, event in pool.told if isinstance(event, TrialBegan)]
    again = {trial for trial, lease in began if lease > 1}
    assert len(again) == {"raise": 0, "memory": 1, "device": 4}[second]
    assert len(began) == 4 + len(again), "nothing is tried a third time"
    assert all(lease <= 2 for _, lease in began), "nothing is handed to a process that ends"


@pytest.mark.usefixtures("breakable")
def test_after_an_error_of_the_device_trials_go_on_alone_from_their_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, study = hurting(tmp_path, "device")
    monkeypatch.setattr(benchkit.sweep.training, "CHECKPOINT_SHARE", math.inf)
    pool = turning(monkeypatch)
    with on_stand_in(monkeypatch):
        sweep_here(monkeypatch, tmp_path / "turns", study, plugins=(plugin,), **FOUR)
    under_way: set[int] = set()
    for _, event in pool.told:
        if isinstance(event, TrialBegan):
            under_way.add(event.trial)
            if event.lease > 1:
                assert len(event.history) in (1, 2) and under_way == {event.trial}
        elif isinstance(event, TrialFinished):
            under_way.discard(event.trial)
        elif isinstance(event, WorkerLost):
            under_way.clear()


LEAK = """
import random
from dataclasses import dataclass
import numpy, torch
from benchkit import card
from benchkit.train.surroundings import FLAGS

FOUND = {}

@card(title="Leak", summary="Changes what is kept for a process.", choices={"how": ("change", "look")})
@dataclass(frozen=True)
class Leak:
    how: str = "look"

    def stop(self, history):
        if self.how == "change":
            torch.set_deterministic_debug_mode("warn")
            torch.set_num_threads(3)
            torch.autograd.set_detect_anomaly(True, check_nan=False)
            torch.set_default_dtype(torch.float64)
            torch.backends.cudnn.benchmark = True
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
            torch.manual_seed(len(history))
            random.seed(len(history))
            numpy.random.seed(len(history))
        found = [repr(read()) for read, _ in FLAGS]
        drawn = [torch.initial_seed(), random.getstate()[1][:3], numpy.random.get_state()[1][:3].tolist()]
        FOUND.setdefault(self.how, []).append(repr((found, drawn)))
        torch.found = FOUND
        return False

PLUGINS = {"benchkit.regularizers": {"leak": Leak}}
"""


def test_nothing_of_the_process_leaks_from_one_trial_into_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "leaky.py"
    path.write_text(LEAK)
    monkeypatch.setattr(torch, "found", {}, raising=False)
    levels = '[[regularizers]]\nname = "leak"\n[factors]\n"regularizers.leak.how" = ["look", "change"]\n'
    study = study_of(levels, repeats=2)
    before = [read() for read, _ in FLAGS], random.getstate(), torch.get_rng_state()
    turning(monkeypatch)
    sweep_here(monkeypatch, tmp_path / "turns", study, plugins=(path,), jobs=2, per_process=2)
    found: dict[str, list[str]] = torch.found  # type: ignore[attr-defined]
    assert len(set(found["look"])) == 1 and not {*found["look"]} & {*found["change"]}
    assert [read() for read, _ in FLAGS] == before[0] and random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


class Generator:
    """A GPU's generator: its state is an object, which a recording holds."""

    def __init__(self) -> None:
        self.state: object = "the process's"

    def clone_state(self) -> object:
        return object()

    def graphsafe_get_state(self) -> object:
        return self.state

    def graphsafe_set_state(self, state: object) -> None:
        self.state = state


def test_on_cuda_each_trial_has_its_stream_and_its_state_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording puts another state in place, which the trial then has in each of its turns."""
    generator = Generator()
    with stand_in_gpu():
        monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
        streams = [torch.cuda.Stream(), torch.cuda.Stream()]
        one, other = (Surroundings(stream) for stream in streams)
        with one.in_place():
            assert torch.cuda.current_stream() is streams[0]
            generator.graphsafe_set_state("recorded")
        assert generator.state == "the process's" and torch.cuda.current_stream() is torch.cuda.default_stream()
        with other.in_place():
            assert generator.state not in ("recorded", "the process's")
            assert torch.cuda.current_stream() is streams[1]
        with pytest.raises(KeyError), one.in_place():
            assert generator.state == "recorded"
            raise KeyError
        assert generator.state == "the process's"
    assert surroundings.own_stream(torch.device("cpu")) is None


def test_numpys_and_pythons_draws_go_on_where_they_were() -> None:
    """Also the second of two normal numbers, which NumPy draws together."""
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    alone = [(random.random(), np.random.randn(), torch.rand(1).item()) for _ in range(4)]
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    one, other, drawn = Surroundings(), Surroundings(), []
    for _ in range(4):
        with one.in_place():
            drawn.append((random.random(), np.random.randn(), torch.rand(1).item()))
        with other.in_place():
            random.random(), np.random.randn(), torch.rand(1)
    assert drawn == alone


def test_a_trial_that_waits_for_its_device_leaves_the_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event is not there when it is asked for the first two times; the step before is."""
    asked = iter([False, False, True, True])
    event = SimpleNamespace(record=lambda stream: None, query=lambda: next(asked))
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    run = make_run(make_settings(epochs=1))
    told = []
    for one in fit_in_turns(run):
        if len(told) == len(run.train) - 1:
            run.takes_turns, run.device = True, SimpleNamespace(type="cuda")  # type: ignore[assignment]
        told.append(one)
        if told[-2:] == [Pause.WAIT, Pause.WAIT]:
            run.takes_turns, run.device = False, torch.device("cpu")
    assert told[:-1] == [*[Pause.STEP] * len(run.train), Pause.WAIT, Pause.WAIT]
    assert [one.epoch for one in fit(make_run(make_settings(epochs=1)))] == [1], "alone nobody pauses"


# Which seats share a process, and whom its events concern.


def test_eight_jobs_on_two_gpus_are_two_processes_of_four() -> None:
    gpus = [Device(kind="cuda", number=number, uuid=f"GPU-{number}") for number in (0, 1)]
    assert set(groups(gpus * 4, 4).values()) == {(0, 2, 4, 6), (1, 3, 5, 7)}
    assert set(groups(gpus * 3, 2).values()) == {(0, 2), (4,), (1, 3), (5,)}
    assert set(groups(gpus * 2, 1).values()) == {(0,), (1,), (2,), (3,)}


def order(trial: int) -> Train:
    return Train(trial=trial, lease=1, settings={}, phase="repeat", index=0, decided={})


def test_events_are_told_of_the_seat_that_they_concern() -> None:
    process = SharedProcess((0, 2, 4))
    process.jobs.extend([(2, False), (0, True), (2, True), (4, True)])
    ready = WorkerReady(device="cuda:0")
    told = [*process.told(ready), *process.told(WorkerIdle()), *process.told(ready), *process.told(ready)]
    assert [number for number, _ in told] == [2, 2, 0, 2]
    process.begin(4, order(7))
    assert [number for number, _ in process.told(TrialBegan(trial=7, lease=1, epochs=1))] == [4]
    assert [(number, event.shared) for number, event in process.told(WorkerLost(code=1))] == [  # type: ignore[union-attr]
        (0, True),
        (2, True),
        (4, False),
    ], "the trial was alone, and whoever had none did not end the process"
    process.begin(0, order(8))
    assert [event.shared for _, event in process.told(WorkerLost(code=1))] == [True] * 3  # type: ignore[union-attr]
    assert [number for number, _ in process.told(TrialBegan(trial=9, lease=1, epochs=1))] == [0]


@pytest.mark.parametrize("more", [{"profile": True}, {"cluster": "local"}])
def test_what_does_not_go_with_several_trials_in_a_process_is_refused(
    more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.sweep.orchestration.check_cluster", lambda request: None)
    request = Request(study=study_of(), workspace=tmp_path, data_root=DATA, per_process=2, **more)
    with pytest.raises(TrainingError, match=rf"--per-process 2 does not go with --{next(iter(more))}"):
        sweep(request, Registry.installed(), None)  # type: ignore[arg-type]


def test_a_job_says_how_many_trials_its_worker_gets() -> None:
    assert Job(task="train", study=study_of(), data_root=DATA).per_process == 1
