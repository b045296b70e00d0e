"""Captured and compiled steps against eager ones, with a stand-in for the device: the same numbers, bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from benchkit_regularizers.grad_clip import GradClip
from engine_runs import Flip, learnt, make_run, make_settings, small_net
from step_stand_ins import Counts, DrawsNumpy, DrawsPython, Lists, OptsOut, Reads, Replaces, StandIn
from torch import nn

from benchkit.train.checkpoint import load_checkpoint, save_checkpoint
from benchkit.train.fit import fit
from benchkit.train.profile import Stopwatch, watch
from benchkit.train.run import Run
from benchkit.train.step import EagerSteps
from benchkit.train.steps import executor
from benchkit.train.steps.cuda_graph import CudaGraphSteps
from benchkit.train.steps.executor import executor_for
from benchkit.train.steps.validation import LOOKS, STEPS, StepValidation

RATE = 0.0625
"""A learning rate that float32 holds exactly, so that eager steps and those that read it from the device agree."""


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "FEWEST", 1)


def rated_net(*arguments: Any) -> nn.Module:
    model = small_net(*arguments)
    vars(model[0].weight)["rate_factor"] = 0.25  # type: ignore[index]
    return model


def run_of(optimizer: dict[str, Any] | None = None, regularizers: Sequence[Any] = (), **train: Any) -> Run:
    """Return a run with dropout, flips, clipping, two learning rates, a falling rate and a smaller last batch."""
    model, device_memory = train.pop("model", rated_net), train.pop("device_memory", None)
    settings = make_settings(
        optimizer={"lr": RATE, **(optimizer or {})},
        **{"batch_size": 24, "epochs": 4, "schedule": {"name": "step", "every": 1, "gamma": 0.5}, **train},
    )
    parts = [("flip", Flip()), ("clip", GradClip(max_norm=2.0)), *((type(one).__name__, one) for one in regularizers)]
    return make_run(settings, model=model, regularizers=parts, device_memory=device_memory)


def trained(run: Run, backend: StandIn | None = None) -> list[tuple[float, ...]]:
    return [learnt(record) for record in fit(run, backend)]


def same(one: Any, other: Any) -> bool:
    """Return whether two nested states hold the same values, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def states_agree(one: Run, other: Run) -> bool:
    """Return whether two runs could be continued from each other's checkpoints.

    Records hold times, which differ, and how steps were taken may.
    """
    first, second = one.state(), other.state()
    return all(same(first[key], second[key]) for key in first if key not in ("history", "compiled"))


OPTIMIZERS = ({}, {"momentum": 0.0}, {"nesterov": True}, {"name": "adam"}, {"name": "adamw"})


@pytest.mark.parametrize("device_memory", [None, 0], ids=["placed", "streamed"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_captured_steps_equal_eager_ones_bit_for_bit(optimizer: dict[str, Any], device_memory: int | None) -> None:
    eager, captured, graphs = run_of(optimizer), run_of(optimizer, device_memory=device_memory), StandIn()
    assert captured.train.images.streamed == (device_memory == 0)
    assert trained(captured, graphs) == trained(eager)
    assert states_agree(eager, captured)
    assert captured.notes == run_of(optimizer, device_memory=device_memory).notes
    assert len(captured.notes) == (device_memory == 0)
    # Each epoch's three whole batches are replayed, the fourth of 8 images is not.
    assert graphs.calls["replay"] >= 4 * 3 and graphs.calls["capture"] == 1


def test_choosing_leaves_the_run_as_it_was() -> None:
    run, untouched = run_of(), run_of()
    run.model.train()
    assert isinstance(executor_for(run, StandIn()), CudaGraphSteps)
    zeros = [moments["momentum_buffer"] for moments in run.optimizer.state.values()]
    assert zeros and not any(moment.any() for moment in zeros)
    before, after = untouched.state(), run.state()
    assert same(before["model"], after["model"]) and same(before["randomness"], after["randomness"])
    assert isinstance(run.optimizer.param_groups[0]["lr"], torch.Tensor)
    assert isinstance(after["optimizer"]["param_groups"][0]["lr"], float)


def test_steps_are_tried_at_rates_that_the_schedule_has() -> None:
    """Training is one step long, and beyond it this schedule has no rate: three steps are tried all the same."""
    schedule = {"name": "one-cycle", "warmup": 1.0}
    runs = [run_of(batch_size=80, epochs=1, schedule=schedule, compile=way) for way in ("always", "never")]
    assert trained(runs[0], StandIn()) == trained(runs[1])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("graphs", [(True, False), (False, True), (True, True)], ids=str)
def test_a_checkpoint_goes_on_either_way(name: str, graphs: tuple[bool, bool], tmp_path: Path) -> None:
    whole = trained(run_of({"name": name}))
    first = run_of({"name": name})
    records = fit(first, StandIn() if graphs[0] else None)
    history = [learnt(next(records)) for _ in range(2)]
    save_checkpoint(tmp_path / "checkpoint.pt", first)
    second = run_of({"name": name})
    assert load_checkpoint(tmp_path / "checkpoint.pt", second)
    assert history + trained(second, StandIn() if graphs[1] else None) == whole


def test_a_run_restored_between_epochs_goes_on_with_its_graph() -> None:
    whole = trained(run_of())
    run, other = run_of(), run_of()
    records, others = fit(run, StandIn()), fit(other, StandIn())
    assert learnt(next(records)) == whole[0]
    after_first = run.state()
    list(others)
    other.history.clear()
    others = fit(other, StandIn())
    next(others)
    other.restore(after_first)
    assert [learnt(record) for record in others] == whole[1:]


REFUSALS = {
    "reads": (
        [Reads()],
        "waits for the device's results (called a synchronizing CUDA operation: ",
    ),
    "python": ([DrawsPython()], "a step draws Python's random numbers"),
    "numpy": ([DrawsNumpy()], "a step draws NumPy's random numbers"),
    "opts-out": ([OptsOut()], "OptsOut says capturable = False"),
}


@pytest.mark.parametrize(("regularizers", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_cannot_be_captured_runs_eagerly_and_says_so(
    regularizers: list[Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    graphs, run = StandIn(), run_of(regularizers=regularizers)
    with caplog.at_level(logging.WARNING):
        history = trained(run, graphs)
    eager = run_of(regularizers=regularizers)
    assert history == trained(eager) and states_agree(run, eager)
    (note,) = run.notes
    assert note.startswith("CUDA graph not used: ") and note.endswith("; steps ran eagerly") and reason in note
    assert caplog.messages == [note]
    assert graphs.calls["replay"] == 0


@pytest.mark.parametrize("make", [Counts, lambda: Lists([])], ids=["attribute", "list"])
def test_a_plugin_that_keeps_count_runs_eagerly_with_its_count_put_back(make: Callable[[], Any]) -> None:
    run, eager = run_of(regularizers=[make()]), run_of(regularizers=[make()])
    assert trained(run, StandIn()) == trained(eager)
    assert run.notes == [
        f"CUDA graph not used: {type(make()).__name__} changes its attribute calls in each step; steps ran eagerly"
    ]


def test_a_buffer_that_is_replaced_is_noticed() -> None:
    def replacing(classes: int, shape: tuple[int, int, int], norm: Any) -> nn.Module:
        return small_net(classes, shape, Replaces)

    run, eager = run_of(model=replacing), run_of(model=replacing)
    assert trained(run, StandIn()) == trained(eager)
    assert "Replaces replaces its tensor mean in each step" in run.notes[0]


def test_a_recording_that_fails_tells_its_first_reason() -> None:
    run, eager = run_of(), run_of()
    assert trained(run, StandIn(refuses="operation not permitted\nin detail")) == trained(eager)
    assert run.notes == ["CUDA graph not used: a step cannot be recorded (operation not permitted); steps ran eagerly"]
    assert states_agree(run, eager) and isinstance(run.optimizer.param_groups[0]["lr"], float)


@pytest.mark.parametrize("part", ["weight", "running_mean"])
def test_replays_that_differ_are_not_trusted(part: str) -> None:
    run, eager, graphs = run_of(), run_of(), StandIn(drifts=0.01)

    def spoil() -> None:
        with torch.no_grad():
            run.model.get_parameter("0.weight").mul_(1.02) if part == "weight" else run.model.get_buffer(
                "1.running_mean"
            ).mul_(1.02)

    graphs.spoil = spoil  # type: ignore[method-assign]
    assert trained(run, graphs) == trained(eager)
    assert run.notes == ["CUDA graph not used: replayed steps differ from eager ones; steps ran eagerly"]


def test_replays_that_are_slower_are_not_used() -> None:
    run = run_of()
    run.model.train()
    assert isinstance(executor_for(run, StandIn(replayed=3.4)), EagerSteps)
    assert run.notes == ["CUDA graph not used: replaying it is slower; steps ran eagerly"]
    assert run.optimizer.state == {}
    tied = run_of()
    tied.model.train()
    assert isinstance(executor_for(tied, StandIn(replayed=3.1)), CudaGraphSteps)  # it costs nothing, and clocks tremble
    assert tied.notes == []


def test_what_needs_no_validation_is_refused_without_recording() -> None:
    class Dampened:
        def optimizer_options(self) -> dict[str, Any]:
            return {"dampening": 0.5}

    graphs = StandIn()
    runs = {"dampening": run_of(regularizers=[Dampened()]), "profiled": run_of()}
    watch(runs["profiled"], Stopwatch(torch.device("cpu")))
    for reason, run in runs.items():
        run.model.train()
        assert isinstance(executor_for(run, graphs), EagerSteps)
        assert reason in run.notes[-1]
    assert graphs.calls["capture"] == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_fp16_steps_are_captured_with_what_scales_their_loss(optimizer: dict[str, Any]) -> None:
    run, eager, graphs = run_of(optimizer, precision="fp16"), run_of(optimizer, precision="fp16"), StandIn()
    assert trained(run, graphs) == trained(eager) and states_agree(run, eager)
    assert run.notes == [] and graphs.calls["replay"] >= 4 * 3


def test_fp16_steps_are_not_compiled() -> None:
    run, eager, graphs = run_of(precision="fp16", compile="always"), run_of(precision="fp16"), StandIn(captures=False)
    assert trained(run, graphs) == trained(eager) and graphs.calls["compile"] == 0
    assert run.notes == ["compiled model not used: fp16 scales the loss by what it finds in each step"]


def test_an_error_of_the_step_itself_is_not_taken_for_waiting() -> None:
    class Breaks:
        calls = 0

        def penalty(self, model: nn.Module) -> torch.Tensor:
            Breaks.calls += 1
            if Breaks.calls > STEPS + LOOKS * STEPS:  # the first of those that nothing may wait in
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return torch.zeros(())

    run = run_of(regularizers=[Breaks()])
    run.model.train()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        executor_for(run, StandIn())
    assert run.notes == []


def test_short_runs_validate_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "FEWEST", 13)
    graphs, run = StandIn(), run_of()
    trained(run, graphs)
    assert run.notes == [] and sum(graphs.calls.values()) == 0
    monkeypatch.setattr(executor, "FEWEST", 12)
    trained(run_of(), graphs)
    assert graphs.calls["capture"] == 1


def test_a_diverging_run_still_says_where() -> None:
    run = run_of({"lr": 1e30})
    assert executor_for(run, StandIn()) is not None
    assert "the first losses are not finite" in run.notes[0]


LONG = 1e4
"""Seconds of a step with which any run is long enough to compile."""


def test_a_long_runs_model_is_compiled_for_whole_batches_in_training_only() -> None:
    graphs, run, eager = StandIn(eager=3 * LONG, replayed=LONG, compiled=LONG / 2), run_of(), run_of()
    run.model.train()
    chosen = executor_for(run, graphs)
    assert isinstance(chosen, CudaGraphSteps) and graphs.calls["compile"] == 1
    del chosen
    assert run.notes == ["the model was compiled"]
    before = graphs.calls["compiled"]
    fresh = run_of()
    assert trained(fresh, graphs) == trained(eager)
    validated, replays = before, 4 * 3
    assert graphs.calls["compiled"] == 2 * validated + replays
    assert states_agree(fresh, eager)


CLAIMS = {
    "fails": (StandIn(broken_compiler="no C compiler\nat all"), "ValueError: no C compiler"),
    "wrong": (StandIn(wrong_compiler=True, compiled=1.0), "its steps differ from the plain model's"),
    "slow": (StandIn(compiled=LONG), "compiled steps are not faster"),
}


@pytest.mark.parametrize(("graphs", "reason"), CLAIMS.values(), ids=CLAIMS.keys())
def test_a_compiled_model_that_does_not_pay_is_left_alone(graphs: StandIn, reason: str) -> None:
    graphs.eager, graphs.replayed = 3 * LONG, LONG
    run, eager = run_of(), run_of()
    assert trained(run, graphs) == trained(eager)
    assert [note.startswith("compiled model not used: ") and reason in note for note in run.notes] == [True]
    assert states_agree(run, eager)


def test_the_study_decides_on_compiling() -> None:
    never, graphs = run_of(compile="never"), StandIn(eager=3 * LONG, replayed=LONG, compiled=1.0)
    trained(never, graphs)
    assert graphs.calls["compile"] == 0 and never.notes == []
    plain = StandIn(captures=False, compiled=9.0)
    tried = run_of(compile="always")
    tried.model.train()
    executor_for(tried, plain)
    validated = plain.calls["compiled"]
    always, eager = run_of(compile="always"), run_of()
    assert trained(always, plain) == trained(eager)
    assert plain.calls["compiled"] == 2 * validated + 4 * 4  # then every batch of four epochs
    assert plain.calls["compile"] == 2 and plain.calls["capture"] == 0
    assert always.notes == ["the model was compiled"]
    assert states_agree(always, eager)


def test_a_cpu_takes_eager_steps_without_looking_for_more() -> None:
    run = make_run(make_settings(epochs=1000))
    assert isinstance(executor_for(run), EagerSteps)
    assert run.notes == [] and run.optimizer.state == {}


@pytest.mark.parametrize(("momentum", "share"), [(0.9, 0.0), (0.0, 2.0**-23)])
def test_rounding_of_the_parameters_excuses_only_what_they_themselves_move(momentum: float, share: float) -> None:
    run = run_of({"momentum": momentum})
    size = torch.cat([parameter.detach().flatten() for parameter in run.parameters]).norm().item()
    with run.randomness.in_charge():
        validation = StepValidation(run, StandIn())
        validation.walk(EagerSteps(run).take)
        assert validation._resolution() == pytest.approx(share * size, rel=1e-6)
