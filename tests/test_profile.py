"""Profiles: every second is in one phase, nothing that is computed changes, traces stay small."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
import torch
from engine_runs import Flip, learnt, make_run, make_settings
from tiny_study import FACTOR, InlinePool, Listener, all_facts, environment, study_of, sweep_here, write

import benchkit.sweep.orchestration
from benchkit.cli import main
from benchkit.cli.live import Overheard
from benchkit.cli.profiling import Profiled
from benchkit.ledger import read_results
from benchkit.sweep.messages import TrialProfiled, WorkerReady, dump, event_of
from benchkit.train import profile
from benchkit.train.fit import fit
from benchkit.train.profile import FIRST_TRACED, PHASES, TRACED, Stopwatch, watch
from benchkit.train.run import Run

CPU = torch.device("cpu")


def trained(stopwatch: Stopwatch | None = None) -> tuple[Run, list[tuple[float, ...]]]:
    run = make_run(make_settings(epochs=3, batch_size=16), regularizers=[("flip", Flip())])
    if stopwatch:
        watch(run, stopwatch)
    return run, [learnt(record) for record in fit(run)]


def test_a_profiled_run_learns_the_same_bit_for_bit(tmp_path: Path) -> None:
    plain, history = trained()
    profiled, same = trained(Stopwatch(CPU, tmp_path / "trace.json.gz"))
    assert same == history
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), profiled.model.parameters(), strict=True))
    assert profiled.notes == ["profiled: its speed does not compare with that of other trials"]


def test_every_tick_of_the_clock_is_in_one_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(profile, "now", lambda device: float(next(ticks)))
    stopwatch = Stopwatch(CPU)
    trained(stopwatch)
    seconds = stopwatch.stop()
    assert tuple(seconds) == PHASES
    assert sum(seconds.values()) == next(ticks) - 1
    steps = 3 * 5 - 1  # 80 images in batches of 16, three epochs; the first is told apart
    assert seconds["first step"] == 9
    counted = {"augmentation": steps, "forward": steps, "loss": steps, "backward": steps, "optimizer": steps}
    assert {name: seconds[name] for name in counted} == counted
    assert seconds["data"] == 2 * steps + 3  # before augmentation and forward pass; after each last step
    assert seconds["gradient norm"] == steps and seconds["records"] == steps
    assert seconds["evaluation"] == 3 and seconds["scoring"] == 0
    # A step's batch is taken, and made the model's input; after an epoch's last there is none to take.
    assert seconds["data"] == 2 * steps + 3


def test_the_trace_holds_a_few_steps_and_their_phases(tmp_path: Path) -> None:
    path = tmp_path / "trial" / "trace.json.gz"
    stopwatch = Stopwatch(CPU, path)
    trained(stopwatch)
    stopwatch.stop()
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    # The first epoch has five steps: the trace ends with it, before the evaluation.
    assert names.count("backward") == 5 - FIRST_TRACED and "evaluation" not in names
    assert any(event["name"].startswith("aten::conv") for event in events)
    assert FIRST_TRACED + TRACED <= 10 and path.stat().st_size < 2**20


def test_a_trial_that_is_too_short_leaves_no_trace(tmp_path: Path) -> None:
    stopwatch = Stopwatch(CPU, tmp_path / "trace.json.gz")
    stopwatch.step()
    assert stopwatch.stop()["preparation"] > 0
    assert list(tmp_path.iterdir()) == []


def test_profiling_a_sweep_changes_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    view, profiled = Listener(), Profiled()
    study = study_of(FACTOR)
    sweep_here(monkeypatch, tmp_path / "plain", study)
    sweep_here(monkeypatch, tmp_path / "profiled", study, view=Overheard(view, profiled.hear), profile=True)
    plain, other = read_results(tmp_path / "plain"), read_results(tmp_path / "profiled")
    assert all_facts(plain) == all_facts(other) and len(plain.trials) == 4
    assert profiled.trials == 4 and len(profiled.traces) == 2
    assert all(Path(trace).stat().st_size > 0 for trace in profiled.traces)
    assert min(profiled.seconds[phase] for phase in ("data", "forward", "backward", "ledger", "scoring")) > 0


def test_each_start_of_a_worker_is_told_once() -> None:
    profiled = Profiled()
    view = Overheard(Listener(), profiled.hear)
    for worker, torch_takes in ((0, 2.0), (1, 3.0), (0, 2.0), (0, 4.0)):  # ready again for another job; started again
        ready = WorkerReady(device="cpu", imports={"import of torch": torch_takes, "import of the rest": 0.5})
        assert event_of(dump(ready)) == ready
        view.event(worker, ready)
    view.event(0, WorkerReady(device="cpu"))
    assert profiled.plain()["workers"] == 3
    assert profiled.seconds == {"import of torch": 9.0, "import of the rest": 1.5}


def test_the_event_survives_the_line_between_processes() -> None:
    event = TrialProfiled(seconds={"data": 0.5}, trace="t.json.gz")
    assert event_of(dump(event)) == event


def test_the_command_prints_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", InlinePool)
    write(tmp_path / "tiny.toml", repeats=1)
    assert main(["sweep", "tiny.toml", "--profile"]) == 0
    shown = capsys.readouterr()
    words = [line.split()[0] for line in shown.out.splitlines()]
    assert words[: len(PHASES) + 1] == ["where", *(phase.split()[0] for phase in PHASES)]
    assert "trace.json.gz (open it in ui.perfetto.dev)" in shown.err
    assert main(["sweep", "tiny.toml", "--profile", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"] == {"trials": 0, "workers": 0, "seconds": {}, "traces": []}
