"""Whole sweeps in this process: results, failures as results, going on, determinism."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_study import DATA, FACTOR, SEARCH, Listener, all_facts, facts_of, study_of, sweep_here

import benchkit.sweep.orchestration
import benchkit.sweep.training
from benchkit.errors import BenchkitError, DataError, LedgerError, StudyError
from benchkit.ledger import read_results
from benchkit.ledger.trials import TrialFolder
from benchkit.registry import Registry
from benchkit.study import Study
from benchkit.sweep.devices import CPU, Device, Devices
from benchkit.sweep.messages import EpochEnded, TrialEnded, TrialStarted
from benchkit.sweep.orchestration import Request, worker_count

HURT = """
import errno, os, signal, sys
from dataclasses import dataclass
import torch
from benchkit import card

@card(title="Hurt", summary="Goes wrong on purpose.", choices={"how": (
    "not", "raise", "cuda-memory", "memory", "exit", "disk", "die", "segfault", "deliver")})
@dataclass(frozen=True)
class Hurt:
    how: str = "not"
    at: int = 2

    def stop(self, history):
        if len(history) < self.at:
            return False
        if self.how == "raise":
            raise ValueError("no good\\nsecond line")
        if self.how == "cuda-memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if self.how == "memory":
            raise MemoryError
        if self.how == "exit":
            sys.exit("enough")
        if self.how == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/disk")
        if self.how == "die":
            os._exit(7)
        if self.how == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        return False

PLUGINS = {"benchkit.regularizers": {"hurt": Hurt}}
"""
HURTING = '[[regularizers]]\nname = "hurt"\n[factors]\n"regularizers.hurt.how" = [{levels}]\n'


@pytest.fixture
def hurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "hurtful.py"
    path.write_text(HURT)
    return path


def hurting(*levels: str) -> str:
    return HURTING.format(levels=", ".join(f'"{level}"' for level in levels))


def test_a_sweep_trains_everything_and_a_second_one_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Listener(), Listener()
    assert sweep_here(monkeypatch, tmp_path, study_of(FACTOR), view=first) == {"done": 4}
    assert Counter(type(event).__name__ for event in first.events)["TrialEnded"] == 4
    results = read_results(tmp_path)
    assert [(len(t.history), t.outcome.test_reads if t.outcome else 0) for t in results.trials] == [(3, 1)] * 4
    before = all_facts(results)
    assert sweep_here(monkeypatch, tmp_path, study_of(FACTOR), view=second) == {"done": 4}
    assert second.events == [] and second.stages == []
    assert all_facts(read_results(tmp_path)) == before


def test_two_sweeps_give_the_same_numbers_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(FACTOR, SEARCH, repeats=1)
    for name in ("a", "b"):
        sweep_here(monkeypatch, tmp_path / name, study)
    assert all_facts(read_results(tmp_path / "a")) == all_facts(read_results(tmp_path / "b"))


def test_conditions_are_paired_by_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factor = '[factors]\nlabelled = [{ label = "a", set = { "train.optimizer.lr" = 0.0 } }, '
    factor += '{ label = "b", set = { "train.optimizer.lr" = 0.0, "train.optimizer.momentum" = 0.5 } }]\n'
    sweep_here(monkeypatch, tmp_path, study_of(factor))
    facts = all_facts(read_results(tmp_path))
    # At a rate of zero a trial is its initial weights: the same for both levels, another for each repeat.
    assert facts["a", 0]["logits"] == facts["b", 0]["logits"] != facts["a", 1]["logits"]
    assert [r["train_loss"] for r in facts["a", 0]["history"]] == [r["train_loss"] for r in facts["b", 0]["history"]]


def test_predictions_reproduce_the_recorded_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_here(monkeypatch, tmp_path, study_of(repeats=1))
    results = read_results(tmp_path)
    (trial,) = results.trials
    from safetensors.numpy import load_file

    stored = load_file(trial.folder / "predictions.safetensors")
    assert set(results.labels) == {"val", "test"} and "train" not in results.labels
    for split in ("val", "test"):
        logits, labels = stored[split].astype(np.float64), stored[f"{split}_labels"]
        np.testing.assert_array_equal(results.labels[split], labels)  # type: ignore[index]
        np.testing.assert_array_equal(trial.labels(split), labels)  # type: ignore[arg-type]
        assert trial.score(f"{split}.accuracy") == pytest.approx((logits.argmax(1) == labels).mean())
        shifted = logits - logits.max(1, keepdims=True)
        chances = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
        loss = -np.log(chances[np.arange(len(labels)), labels]).mean()
        assert trial.score(f"{split}.loss") == pytest.approx(loss)
    assert (trial.folder / "weights.safetensors").exists() and not (trial.folder / "checkpoint.pt").exists()
    (trial.folder / "predictions.safetensors").write_bytes(b"damaged")
    assert not read_results(tmp_path).labels


@pytest.mark.parametrize(("pace", "saved"), [(1e9, True), (1.0, False)])
def test_the_first_checkpoint_is_worth_its_time(
    pace: float, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[int] = []
    taken = benchkit.sweep.training.checkpoint_of
    monkeypatch.setattr(
        benchkit.sweep.training, "checkpoint_of", lambda run: (saves.append(len(run.history)), taken(run))[1]
    )
    monkeypatch.setattr(benchkit.sweep.training, "CHECKPOINT_SHARE", 1.0)
    monkeypatch.setattr(benchkit.sweep.training, "CHECKPOINT_PACE", pace)
    assert sweep_here(monkeypatch, tmp_path, study_of(repeats=1)) == {"done": 1}
    assert saves[:1] == ([1] if saved else [])


def test_failures_are_results_with_reasons_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurt: Path
) -> None:
    exit_itself = sys.exit

    def hooked(code: object = 0) -> None:
        """End as by `sys.exit`, in whose place W&B puts its own once a run was tracked in this process."""
        exit_itself(code)

    monkeypatch.setattr(sys, "exit", hooked)
    study = study_of(hurting("raise", "cuda-memory", "memory", "exit", "not"), repeats=1)
    view = Listener()
    assert sweep_here(monkeypatch, tmp_path, study, view=view, plugins=(hurt,)) == {"failed": 4, "done": 1}
    reasons = {trial.condition.label: trial.reason for trial in read_results(tmp_path).trials}
    assert reasons["raise"].startswith("ValueError: no good\nsecond line (hurtful.py:")
    assert reasons["cuda-memory"] == (
        "out of memory: CUDA out of memory. Tried to allocate 2 GiB; try a smaller train.batch_size or --jobs"
    )
    assert reasons["memory"] == "out of memory: MemoryError; try a smaller train.batch_size or --jobs"
    assert reasons["exit"].startswith("a plugin called sys.exit('enough') (hurtful.py:")
    assert reasons["not"] == ""
    assert {event.state for event in view.events if isinstance(event, TrialEnded)} == {"failed", "done"}


def test_a_worker_whose_device_is_of_no_more_use_ends_after_recording_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurt: Path
) -> None:
    def leave(code: int) -> None:
        raise ConnectionAbortedError(code)

    looked: list[str] = []
    monkeypatch.setattr(benchkit.sweep.training, "is_usable", lambda device: bool(looked.append(device)))
    monkeypatch.setattr(os, "_exit", leave)
    study = study_of(hurting("not", "raise", "memory"), repeats=1)
    with pytest.raises(ConnectionAbortedError):
        sweep_here(monkeypatch, tmp_path, study, plugins=(hurt,))
    states = {trial.condition.label: trial.state for trial in read_results(tmp_path).trials}
    assert states["raise"] == "failed" and states["memory"] != "failed" and len(looked) == 1


def test_a_device_that_is_of_no_more_use_may_be_the_doing_of_those_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurt: Path
) -> None:
    """NVIDIA MPS tells every client of the fault of one: beside others such a trial is tried again, alone."""
    told: list[str] = []
    finished = benchkit.sweep.training.TrialFinished

    def tell(**fields: Any) -> Any:
        told.append(fields["memory"])
        return finished(**fields)

    monkeypatch.setattr(benchkit.sweep.training, "TrialFinished", tell)
    monkeypatch.setattr(benchkit.sweep.training, "is_usable", lambda device: False)
    monkeypatch.setattr(os, "_exit", lambda code: None)
    sweep_here(monkeypatch, tmp_path, study_of(hurting("not", "raise"), repeats=1), plugins=(hurt,))
    assert told == ["", "device"]


def test_a_processor_is_always_of_use() -> None:
    from benchkit.train.device import is_usable

    assert is_usable("cpu")


def test_a_gpu_that_refuses_the_smallest_piece_of_work_is_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose memory is full is of use: others' trials may leave it."""
    from benchkit.train.device import is_usable

    ones = torch.ones

    def on_gpu(words: str, kind: type[RuntimeError]) -> Callable[..., torch.Tensor]:
        def made(count: int, device: str) -> torch.Tensor:
            if words:
                raise kind(words)
            return ones(count)

        return made

    monkeypatch.setattr("torch.ones", on_gpu("", RuntimeError))
    assert is_usable("cuda:0")
    monkeypatch.setattr("torch.ones", on_gpu("CUDA out of memory", torch.OutOfMemoryError))
    assert is_usable("cuda:0")
    monkeypatch.setattr("torch.ones", on_gpu("CUDA error: an illegal memory access was encountered", RuntimeError))
    assert not is_usable("cuda:0")


def test_a_diverging_trial_is_a_result_and_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of('[factors]\n"train.optimizer.lr" = [1e30, 0.1]\n', repeats=1)
    assert sweep_here(monkeypatch, tmp_path, study) == {"diverged": 1, "done": 1}
    trial = read_results(tmp_path).trials[0]
    assert trial.state == "diverged" and trial.reason.startswith("training diverged:") and trial.attempt == 0
    assert sweep_here(monkeypatch, tmp_path, study) == {"diverged": 1, "done": 1}
    assert sweep_here(monkeypatch, tmp_path, study, retry=("failed",)) == {"diverged": 1, "done": 1}
    assert sweep_here(monkeypatch, tmp_path, study, retry=("diverged",)) == {"diverged": 1, "done": 1}
    assert read_results(tmp_path).trials[0].attempt == 1


def test_a_full_disk_stops_the_sweep_and_leaves_the_trial_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurt: Path
) -> None:
    monkeypatch.setattr(benchkit.sweep.training, "CHECKPOINT_SHARE", math.inf)  # save after each epoch, however short
    study = study_of(hurting("disk"), repeats=1)
    with pytest.raises(BenchkitError, match="No space left on device"):
        sweep_here(monkeypatch, tmp_path, study, plugins=(hurt,))
    (trial,) = read_results(tmp_path).trials
    assert trial.state == "stale" and len(trial.history) == 2
    hurt.write_text(HURT.replace('if self.how == "disk":', 'if self.how == "not any more":'))
    view = Listener()
    assert sweep_here(monkeypatch, tmp_path, study, view=view, plugins=(hurt,)) == {"done": 1}
    (started,) = [event for event in view.events if isinstance(event, TrialStarted)]
    assert started.epoch == 2


@pytest.mark.parametrize("method", ["append_epoch", "write_outcome"])
def test_whatever_cannot_be_written_leaves_the_ledger_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    study = study_of(repeats=1)
    with monkeypatch.context() as patch:
        patch.setattr(TrialFolder, method, full)
        with pytest.raises((LedgerError, OSError), match="No space left"):
            sweep_here(monkeypatch, tmp_path, study)
    assert sweep_here(monkeypatch, tmp_path, study) == {"done": 1}
    expected = tmp_path / "uninterrupted"
    sweep_here(monkeypatch, expected, study)
    assert all_facts(read_results(tmp_path)) == all_facts(read_results(expected))


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cma-es", "nsga-ii"])
def test_a_search_reaches_its_total_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    search = SEARCH.replace("tpe", sampler) + 'space."train.optimizer.momentum" = { low = 0.0, high = 0.9 }\n'
    study = study_of(search, epochs=1, repeats=1)
    assert sweep_here(monkeypatch, tmp_path, study)["done"] >= 1
    trials = [trial for trial in read_results(tmp_path).trials if trial.phase == "search"]
    assert [trial.index for trial in trials] == [0, 1, 2, 3]
    assert set(trials[1].params) == {"train.optimizer.lr", "train.optimizer.momentum"}
    assert all(trial.outcome and "test" not in trial.outcome.metrics for trial in trials)
    more = replace(study, search=replace(study.search, trials=6))  # type: ignore[type-var]
    view = Listener()
    sweep_here(monkeypatch, tmp_path, more, view=view)
    started = [event for event in view.events if isinstance(event, TrialStarted) and event.phase == "search"]
    assert [event.index for event in started] == [4, 5]


def test_a_search_is_confirmed_on_repeats_that_its_trials_did_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = Listener()
    search = SEARCH.replace("low = 0.01", "low = 0.11")  # the study's own rate lies outside
    assert sweep_here(monkeypatch, tmp_path, study_of(search, repeats=2), view=view)["done"] >= 4
    assert view.stages == ["training", "confirming the searches' best"]
    results = read_results(tmp_path)
    searched = {trial.index: trial for trial in results.trials if trial.phase == "search" and trial.state == "done"}
    best = min(searched.values(), key=lambda trial: (trial.score("val.loss"), trial.number))
    confirm = results.conditions[-1]
    assert confirm.chosen == best.params and [t.index for t in results.of(confirm, "done")] == [0, 1]
    assert all(t.history[0].train_loss != best.history[0].train_loss for t in results.of(confirm))


def test_a_grid_search_trains_its_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = '[search]\ntrials = 50\nsampler = "grid"\npruner = "none"\n'
    search += (
        'space."train.optimizer.lr" = { low = 0.0, high = 0.3, step = 0.1 }\nspace."model.norm" = ["bn", "none"]\n'
    )
    sweep_here(monkeypatch, tmp_path, study_of(search, epochs=1, repeats=1))
    trials = [trial for trial in read_results(tmp_path).trials if trial.phase == "search"]
    assert [tuple(trial.params.values()) for trial in trials] == [
        (rate, norm) for rate in (0.0, 0.1, 0.2, 0.3) for norm in ("bn", "none")
    ]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_hopeless_trials_are_pruned_with_their_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
    search = f'[search]\ntrials = 8\nsampler = "grid"\npruner = "{pruner}"\n'
    search += 'space."train.optimizer.lr" = [0.3, 0.25, 0.2, 0.15, 0.0, 0.00001, 0.00002, 0.00003]\n'
    sweep_here(monkeypatch, tmp_path, study_of(search, "[confirm]\nn = 0\n", epochs=6, repeats=1))
    trials = [trial for trial in read_results(tmp_path).trials if trial.phase == "search"]
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert {5, 6, 7} <= {trial.index for trial in pruned} and 0 not in {trial.index for trial in pruned}
    assert all(trial.reason == f"given up by the pruner after epoch {len(trial.history)}" for trial in pruned)


def test_several_goals_are_searched_and_the_first_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = SEARCH.replace('sampler = "tpe"', 'sampler = "nsga-ii"\ngoal = ["val.accuracy", "cost.parameters"]')
    search += 'space."model.hidden" = [[4], [8], [16]]\n'
    sweep_here(monkeypatch, tmp_path, study_of(search, repeats=1))
    results = read_results(tmp_path)
    trials = [trial for trial in results.trials if trial.phase == "search"]
    assert all(trial.params["model.hidden"] in ([4], [8], [16]) for trial in trials)
    best = max(trials, key=lambda trial: (trial.score("val.accuracy"), -trial.number))
    assert [c.chosen for c in results.conditions if c.kind == "confirm-best"] in ([best.params], [])


def test_other_data_of_the_same_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_here(monkeypatch, tmp_path, study_of(repeats=1))
    original = benchkit.sweep.orchestration.facts_of
    monkeypatch.setattr(benchkit.sweep.orchestration, "facts_of", lambda *a: {**original(*a), "fingerprint": "f" * 64})
    with pytest.raises(LedgerError, match=r"was trained on other data: fingerprint [0-9a-f]{12}, now ffffffffffff"):
        sweep_here(monkeypatch, tmp_path, study_of(repeats=2))


def test_a_sweep_that_cannot_be_trained_as_asked_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StudyError, match="cannot be trained"):
        sweep_here(monkeypatch, tmp_path / "runs", study_of('[factors]\n"model.norm" = ["no-norm"]\n'))
    assert not (tmp_path / "runs").exists()


def test_a_trial_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurt: Path) -> None:
    sweep_here(monkeypatch, tmp_path, study_of(hurting("not"), repeats=1), plugins=(hurt,))
    (trial,) = read_results(tmp_path).trials
    assert trial.outcome is not None
    environment = trial.outcome.environment
    told = {"python", "system", "release", "processor", "device", "versions", "distributions", "git"}
    assert set(environment) == {*told, "plugins", "sources"}
    assert environment["sources"]["regularizers.hurt"]["file"] == "hurtful.py"
    assert environment["distributions"]["numpy"] == environment["versions"]["numpy"]
    assert environment["plugins"]["model.norm"].startswith("torch-bn (benchkit ")
    assert environment["plugins"]["regularizers.hurt"].startswith("hurt (hurtful.py, source ")


def test_epochs_are_shown_as_they_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = Listener()
    sweep_here(monkeypatch, tmp_path, study_of(repeats=1), view=view)
    shown = [event.record for event in view.events if isinstance(event, EpochEnded)]
    assert tuple(shown) == read_results(tmp_path).trials[0].history
    assert facts_of(read_results(tmp_path).trials[0])["state"] == "done"


def test_workers_fill_the_cores_but_are_no_more_than_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchkit.plan import make_plan

    study = study_of(FACTOR)
    plan, request = make_plan(study), Request(study=study, workspace=tmp_path, data_root=DATA, device="cpu")
    monkeypatch.setattr(benchkit.sweep.orchestration, "available_cores", lambda: 3)
    cpu, gpus = Devices(used=(CPU,)), Devices(used=tuple(Device(kind="cuda", uuid=f"GPU-{n}") for n in range(8)))
    wide = make_plan(study_of(FACTOR.replace("[0.1, 0.3]", '[0.1, 0.3]\n"train.threads" = [2]')))
    assert worker_count(request, plan, cpu) == 3
    assert worker_count(request, wide, cpu) == 1
    assert worker_count(replace(request, jobs=64), plan, cpu) == 4
    assert worker_count(request, plan, replace(gpus, used=gpus.used[:1])) == 1
    assert worker_count(request, plan, gpus) == 4, "eight GPUs, four trials"
    assert Registry.installed().names("norms")


@pytest.mark.parametrize(
    "study",
    [study_of(FACTOR, overrides=("data.val_size=1500",)), study_of('[factors]\n"data.val_size" = [20, 1500]\n')],
    ids=["all", "one level"],
)
def test_a_data_set_that_is_too_small_is_told_once_before_any_trial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, study: Study
) -> None:
    with pytest.raises(DataError, match="fewer images than the study asks for") as told:
        sweep_here(monkeypatch, tmp_path, study)
    assert "data.val_size = 1500: there are 1397 images to draw from" in told.value.problems
    assert not (tmp_path / "trials").exists()
