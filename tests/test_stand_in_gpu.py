"""Steps recorded on the stand-in of a GPU are eager ones bit for bit; and what the stand-in itself notices."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from benchkit_models.resnet import resnet
from benchkit_models.timm_models import timm_model
from benchkit_norms.batch import BatchNorm
from benchkit_norms.batch_instance import BatchInstanceNorm
from benchkit_norms.group import GroupNorm
from benchkit_norms.instance import InstanceNorm
from benchkit_norms.layer import LayerNorm
from benchkit_regularizers.crop_flip import CropFlip
from benchkit_regularizers.dropout import Dropout
from benchkit_regularizers.erasing import Erasing
from benchkit_regularizers.grad_clip import GradClip
from benchkit_regularizers.mixup import Mixup
from benchkit_regularizers.weight_decay import WeightDecay
from engine_runs import learnt, make_run, make_settings, make_splits
from step_stand_ins import Counts, Reads, StandIn
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchkit import is_cpu
from benchkit.gradients import gradient_norm
from benchkit.testing.stand_in_gpu import Graph, StandInGpu, stand_in_gpu
from benchkit.train import fit as fit_module
from benchkit.train.fit import fit
from benchkit.train.run import Run
from benchkit.train.step import EagerSteps
from benchkit.train.steps import backends, cuda_graph, executor
from benchkit.train.steps.cuda_graph import CudaGraphSteps
from benchkit.train.steps.executor import executor_for

RATE = 2**-4
"""A learning rate that float32 holds exactly, so that eager steps and those that read it from the device agree."""


@pytest.fixture
def gpu() -> Iterator[StandInGpu]:
    with stand_in_gpu() as stand_in:
        yield stand_in


SMALL = partial(resnet, n=1, width=8)


def run_of(
    model: Any = SMALL, norm: Any = nn.BatchNorm2d, regularizers: Sequence[Any] = (), n: int = 40, **train: Any
) -> Run:
    """Return a run of two epochs over `n` images of 16 pixels, in batches of 16 and a smaller last one."""
    device_memory, side = train.pop("device_memory", None), train.pop("side", 16)
    optimizer = {"lr": RATE, **train.pop("optimizer", {})}
    settings = make_settings(
        optimizer=optimizer, **{"epochs": 2, "schedule": {"name": "cosine"}, "compile": "never", **train}
    )
    parts = [(str(at), one) for at, one in enumerate(regularizers)]
    splits = make_splits(train=n, val=16, test=8, side=side)

    def built(classes: int, shape: tuple[int, int, int], _: Any) -> nn.Module:
        made: nn.Module = model(classes, shape, norm)
        return made

    return make_run(settings, splits, built, parts, device_memory=device_memory)


def weights(run: Run) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in run.model.state_dict().values()])


def recorded_as_single(gpu: StandInGpu, make: Callable[[], Run]) -> Run:
    """Train in recorded and in single steps, require the same to the bit, and return the recorded run."""
    recorded, single = make(), make()
    assert [learnt(one) for one in fit(recorded, gpu)] == [learnt(one) for one in fit(single)]
    assert gpu.replays > 0 and [note for note in recorded.notes if "CUDA" in note] == []
    assert torch.equal(weights(recorded), weights(single))
    states = recorded.state()["randomness"], single.state()["randomness"]
    assert all(torch.equal(states[0][name], states[1][name]) for name in ("order", "augment"))
    return recorded


CASES: dict[str, dict[str, Any]] = {
    **{
        f"{norm.__name__}-bf16": {"norm": norm, "precision": "bf16"}
        for norm in (nn.BatchNorm2d, BatchNorm, BatchInstanceNorm, GroupNorm, InstanceNorm, LayerNorm)
    },
    "no-momentum": {"optimizer": {"momentum": 0.0}},
    "nesterov": {"optimizer": {"nesterov": True}},
    "adam": {"optimizer": {"name": "adam", "lr": 2**-9}, "schedule": {"name": "constant"}},
    "adamw": {"optimizer": {"name": "adamw", "lr": 2**-9}, "schedule": {"name": "constant"}},
    "fp16": {"precision": "fp16"},
    "fp16-adam": {"precision": "fp16", "optimizer": {"name": "adam", "lr": 2**-9}, "schedule": {"name": "constant"}},
    "streamed": {"device_memory": 0, "regularizers": [CropFlip(padding=2)]},
    "one-cycle": {"regularizers": [GradClip(), WeightDecay()], "schedule": {"name": "one-cycle", "max_lr": 2**-3}},
    "best": {"select": "best"},
    "one-batch": {"batch_size": 40},
    "erasing-mean": {"regularizers": [Erasing(fill="mean", probability=1.0), Mixup(), Dropout(rate=0.3)]},
    "contiguous": {"channels_last": False, "norm": GroupNorm},
}
TIMM = {
    trained: {"model": partial(timm_model, variant="test_resnet", trained=trained), "side": 32}
    for trained in ("all", "head", "discriminative")
}
TIMM["head-dropout"] = {**TIMM["head"], "regularizers": [Dropout(rate=0.1, after=("global_pool",)), GradClip()]}
TIMM["head-other-norm"] = {**TIMM["head"], "norm": GroupNorm}


@pytest.mark.parametrize("case", [*CASES.values(), *TIMM.values()], ids=[*CASES, *(f"timm-{name}" for name in TIMM)])
def test_recorded_steps_are_single_ones_bit_for_bit(case: dict[str, Any], gpu: StandInGpu) -> None:
    recorded_as_single(gpu, lambda: run_of(**case))


def test_convolutions_are_timed_before_they_are_recorded_and_never_after(gpu: StandInGpu) -> None:
    """What cuDNN meets for the first time it times, which no recording allows and a smaller last batch need not."""
    timed: list[tuple[int, bool]] = []
    run = run_of(norm=GroupNorm)
    run.model.register_forward_pre_hook(lambda _, given: timed.append((len(given[0]), torch.backends.cudnn.benchmark)))
    list(fit(run, gpu))
    assert {size for size, on in timed if on} == {16} and (8, False) in timed
    assert timed.index((16, True)) < timed.index((8, False)) and not torch.backends.cudnn.benchmark


def test_a_frozen_body_stays_as_it_was(gpu: StandInGpu) -> None:
    """Its layers are put into evaluation by a hook in each step, which no replay calls and none needs."""
    before = run_of(**TIMM["head"]).model.state_dict()
    run = recorded_as_single(gpu, lambda: run_of(**TIMM["head"]))
    changed = [name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["fc.weight", "fc.bias"]


def test_what_changes_back_and_forth_is_not_taken_for_steady(gpu: StandInGpu) -> None:
    class Turns(nn.Identity):
        turned = 0

        def __init__(self) -> None:
            super().__init__()
            self.turned = 0

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            self.turned = 1 - self.turned
            return input * (1 + self.turned)

    run = run_of(lambda *given: nn.Sequential(Turns(), SMALL(*given)))
    list(fit(run, gpu))
    assert run.notes == ["CUDA graph not used: Turns changes its attribute turned in each step; steps ran eagerly"]


# What the stand-in notices.


def record(gpu: StandInGpu, work: Callable[[], object]) -> Callable[[], None]:
    return gpu.capture(work, ())


def test_a_recording_does_nothing_and_a_replay_runs_no_python(gpu: StandInGpu) -> None:
    total, calls = torch.zeros(3), [0]

    def counts() -> None:
        calls[0] += 1
        total.add_(calls[0])

    replay = record(gpu, counts)
    assert total.tolist() == [0, 0, 0]
    replay()
    replay()
    assert total.tolist() == [2, 2, 2] and calls == [1], "a counter is frozen; eagerly it would be 5"


def test_a_rate_and_a_replaced_tensor_are_frozen(gpu: StandInGpu) -> None:
    total, held = torch.zeros(1), {"rate": 1.0, "moved": torch.ones(1)}
    replay = record(gpu, lambda: total.add_(held["moved"] * held["rate"]))
    held |= {"rate": 5.0, "moved": torch.full((1,), 9.0)}
    replay()
    assert total.item() == 1


def test_the_memory_of_a_graph_holds_no_number_before_its_replay(gpu: StandInGpu) -> None:
    made: list[torch.Tensor] = []
    replay = record(gpu, lambda: made.extend((torch.ones(2) * 2, torch.arange(2))))
    assert made[0].isnan().all() and made[1].min() > 2**60
    replay()
    assert made[0].tolist() == [2, 2] and made[1].tolist() == [0, 1]


def test_random_numbers_are_drawn_anew_and_not_while_recording(gpu: StandInGpu) -> None:
    drawn, own = torch.zeros(2), torch.Generator().manual_seed(1)
    before = own.get_state(), torch.get_rng_state()
    replay = gpu.capture(lambda: drawn.copy_(torch.cat((torch.rand(1, generator=own), torch.rand(1)))), (own,))
    assert torch.equal(own.get_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])
    replay()
    first = drawn.tolist()
    replay()
    assert all(one != other for one, other in zip(first, drawn.tolist(), strict=True))


READS: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "cpu": lambda x: x.cpu(),
    "print": lambda x: str(x),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "host data": lambda x: x.add_(torch.tensor(1.0)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_waits_for_the_device_is_refused(read: Callable[[torch.Tensor], object], gpu: StandInGpu) -> None:
    numbers = torch.arange(3.0)
    with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"), gpu.without_waiting():
        read(numbers)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        record(gpu, lambda: read(numbers))
    read(numbers)
    assert numbers.tolist()[1] in (1, 2)


def test_a_second_living_graph_is_a_mistake(gpu: StandInGpu) -> None:
    first = record(gpu, lambda: torch.ones(1))
    with pytest.raises(AssertionError, match="while the one before it lives"):
        record(gpu, lambda: torch.ones(1))
    del first
    gpu.tape = None
    record(gpu, lambda: torch.ones(1))


def test_a_graph_in_a_cycle_is_gone_before_the_next_is_recorded(gpu: StandInGpu) -> None:
    cycle: list[object] = [record(gpu, lambda: torch.ones(1))]
    cycle.append(cycle)
    gpu.tape = None
    gc.disable()
    try:
        del cycle
        record(gpu, lambda: torch.ones(1))
    finally:
        gc.enable()


class Told:
    """A CUDA graph of a version that wants to be told of generators, and of one that warns of being told."""

    def __init__(self, words: str) -> None:
        self.words = words
        self.told: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.told.append(generator)
        if self.words:
            warnings.warn(self.words, DeprecationWarning, stacklevel=1)


def test_graphs_are_told_of_generators_where_they_ask_for_it() -> None:
    generator = torch.Generator()
    for words in ("", "CUDAGraph.register_generator_state() is deprecated and now a no-op"):
        graph = Told(words)
        backends.register(graph, (generator,))  # type: ignore[arg-type]
        assert graph.told == [generator]
    backends.register(Graph.__new__(Graph), (generator,))  # type: ignore[arg-type]


def test_the_stand_in_takes_the_ways_of_a_gpu_while_it_lasts() -> None:
    gradients = [torch.ones(2), torch.ones(3)]
    with stand_in_gpu():
        assert not is_cpu(gradients[0]) and gradient_norm(gradients).item() == pytest.approx(5**0.5)
        assert torch.cuda.CUDAGraph is Graph
    assert is_cpu(gradients[0]) and torch.cuda.CUDAGraph is not Graph


# What else a GPU would meet.


def test_after_a_recording_that_broke_off_the_process_records_no_more(
    gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some versions of PyTorch keep the memory of a broken recording, and take the device to be recording still."""
    monkeypatch.setattr(StandInGpu, "without_waiting", lambda self: nullcontext())
    broken, after, eager = run_of(regularizers=[Reads()]), run_of(), run_of()
    list(fit(broken, gpu))
    assert broken.notes == [
        "CUDA graph not used: a step cannot be recorded (operation not permitted when stream is capturing: "
        "Tensor.__float__); steps ran eagerly"
    ]
    assert [learnt(one) for one in fit(after, gpu)] == [learnt(one) for one in fit(eager)]
    assert "an earlier recording of this process broke off" in after.notes[0]


class Memory(TorchDispatchMode):
    """Counts the bytes of the tensors that were made since and live, as a device's allocator does."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.living:
                self.living[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.living.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.living.values()))
        return found

    def forget(self) -> None:
        self.peak = sum(self.living.values())


def test_the_peak_of_a_recorded_step_is_that_of_a_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What choosing takes, copies of all weights and three traces, is not the training's."""
    memory = Memory()
    for module in (cuda_graph, fit_module):
        monkeypatch.setattr(module, "forget_peak", lambda device: memory.forget())
        monkeypatch.setattr(module, "peak_memory", lambda device: memory.peak / 2**20)
    monkeypatch.setattr(executor, "FEWEST", 1)
    recorded, single = (run_of(partial(resnet, n=1, width=32), n=20) for _ in range(2))
    recorded.model.train()
    with memory:
        steps = executor_for(recorded, StandIn())
    assert isinstance(steps, CudaGraphSteps)
    memory = Memory()
    with memory:
        list(fit(single))
    size = sum(parameter.nbytes for parameter in single.parameters) / 2**20
    # A single step's forward pass meets the gradients of the step before, which a recording has let go of.
    assert -1.5 * size < steps.memory - single.history[-1].peak_memory < size / 4


def test_peak_memory_is_that_of_training_not_of_choosing(gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"peak": 0.0}
    monkeypatch.setattr(cuda_graph, "peak_memory", lambda device: 50.0)
    monkeypatch.setattr(fit_module, "peak_memory", lambda device: told["peak"])
    monkeypatch.setattr(fit_module, "forget_peak", lambda device: told.update(peak=3.0))
    monkeypatch.setattr(cuda_graph, "forget_peak", lambda device: told.update(peak=900.0))
    recorded, single = run_of(), run_of()
    list(fit(recorded, gpu))
    list(fit(single))
    assert 49 < recorded.history[-1].peak_memory < 50 and single.history[-1].peak_memory == 3.0


@pytest.mark.parametrize("how", ["whole", "left", "refused"])
def test_a_run_dies_by_reference_count_alone(how: str, gpu: StandInGpu) -> None:
    """A graph in a cycle would die at any time later, and take memory along that a younger one uses."""
    run = run_of(regularizers=[Counts()] if how == "refused" else [Dropout(rate=0.1)], optimizer={"name": "adamw"})
    watched = [*map(weakref.ref, run.parameters), weakref.ref(run.model)]
    gc.collect()
    gc.disable()
    try:
        records = fit(run, gpu)
        next(records)
        graphs = len(Graph.living)
        if how == "whole":
            list(records)
        gpu.tape = None
        del run, records
        assert [one for one in watched if one() is not None] == []
        assert graphs == (how != "refused") and not Graph.living
    finally:
        gc.enable()


def accumulators(run: Run) -> list[Any]:
    """Return the node of each parameter that adds up its gradient: autograd makes it anew where none is left."""
    return [parameter.view_as(parameter).grad_fn.next_functions[0][0] for parameter in run.parameters]  # type: ignore[union-attr]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_step_leaves_no_node_of_its_graph_behind(keeps: bool) -> None:
    """A node remembers the stream that it was made on, and a recording on another one is then invalid."""
    run = run_of(norm=BatchInstanceNorm, regularizers=[Dropout(rate=0.1)])
    kept: list[torch.Tensor] = []

    def mark(model: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        for node in accumulators(run):
            node.metadata["seen"] = True
        if keeps:
            kept.append(output)

    run.model.train().register_forward_hook(mark)
    batch_indices = run.train.batch_indices(run.randomness.order)
    EagerSteps(run).take(next(iter(batch_indices)), 0)
    left = sum("seen" in node.metadata for node in accumulators(run))
    assert left == (len(run.parameters) if keeps else 0)
