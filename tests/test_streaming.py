"""Images gathered ahead by a thread: the same values in the same order as others, and no thread that stays."""

from __future__ import annotations

import errno
import threading
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_runs import learnt, make_run, make_settings, make_split, make_splits
from tiny_study import FACTOR, PATIENCE, all_facts, study_of, sweep_here

from benchkit import Split
from benchkit.data.dataset import Selected, select
from benchkit.errors import DivergedError
from benchkit.ledger import read_results
from benchkit.study.settings import DataSettings, PluginRef
from benchkit.train import placement, streaming
from benchkit.train.batches import channel_statistics, image_set, loader
from benchkit.train.checkpoint import load_checkpoint, save_checkpoint
from benchkit.train.evaluate import finish
from benchkit.train.fit import fit
from benchkit.train.placement import place_all, shown_bytes
from benchkit.train.streaming import LONGEST, SHORTEST, THREAD, Slot, stream

CPU = torch.device("cpu")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def threads() -> int:
    return sum(thread.name == THREAD for thread in threading.enumerate())


def numbered(count: int) -> torch.Tensor:
    """Return images (count, 2, 3, 1) of which each holds its own number."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 3, 1).contiguous()


def numbers(batches: Sequence[torch.Tensor]) -> list[list[int]]:
    return [batch[:, 0, 0, 0].tolist() for batch in batches]


def mapped(folder: Path, split: Split) -> Selected:
    """Return every third image of a split that is memory-mapped."""
    np.save(folder / "images.npy", split.images)
    images = np.load(folder / "images.npy", mmap_mode="r")
    return Selected(split=Split(images=images, labels=split.labels), rows=np.arange(0, len(images), 3))


@pytest.mark.parametrize("batches", [1, 3, 11])
def test_rows_come_in_order_and_the_thread_ends(batches: int) -> None:
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    rows = torch.split(order[: 4 * batches - 1], 4)
    found = list(stream(numbered(50), rows, CPU))
    assert numbers(found) == [part.tolist() for part in rows]
    assert found[0].shape == (len(rows[0]), 1, 2, 3) and found[0].dtype == torch.uint8
    assert threads() == 0
    assert list(stream(numbered(3), (), CPU)) == []


def test_batches_are_those_of_a_set_that_is_not_streamed_to_the_last_bit(tmp_path: Path) -> None:
    chosen = mapped(tmp_path, make_split(90, 3))
    still, streamed = image_set(chosen, CPU), image_set(chosen, CPU, budget=chosen.nbytes - 1)
    assert (still.streamed, streamed.streamed) == (False, True)
    epochs = [list(loader(images, 4, 8).epoch(torch.Generator().manual_seed(7))) for images in (still, streamed)]
    assert len(epochs[0]) == len(epochs[1]) == 4
    for one, other in zip(*epochs, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)
        assert one.images.stride() == other.images.stride()
    for one, other in zip(still.chunks(7), streamed.chunks(7), strict=True):
        assert torch.equal(one, other)
    assert all(map(torch.equal, channel_statistics(still), channel_statistics(streamed)))
    assert torch.equal(still.take(torch.tensor([4, 0])), streamed.take(torch.tensor([4, 0])))


def test_a_run_learns_and_scores_the_same_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    still, streamed = make_run(), make_run(device_memory=0)
    expected = [learnt(record) for record in fit(still)]
    records = fit(streamed)
    first = [learnt(next(records))]
    save_checkpoint(tmp_path / "checkpoint.pt", streamed)
    records.close()
    again = make_run(device_memory=0)
    assert load_checkpoint(tmp_path / "checkpoint.pt", again)
    assert first + [learnt(record) for record in fit(again)] == expected
    one, other = finish(still), finish(again)
    assert one.metrics == other.metrics
    assert all(np.array_equal(one.logits[split], other.logits[split]) for split in one.logits)
    assert one.notes == () and other.notes == (
        "the train, val and test images (26.11 kB) were gathered ahead by a thread: they exceed --device-memory, 0 B",
    )
    assert threads() == 0


def test_errors_of_the_thread_are_raised_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = OSError(errno.EIO, "the disk is gone")
    gather = Slot.gather

    def failing(slot: Slot, images: torch.Tensor, rows: torch.Tensor) -> None:
        if rows[0] == 4:
            raise broken
        gather(slot, images, rows)

    monkeypatch.setattr(Slot, "gather", failing)
    with pytest.raises(OSError) as caught:
        list(stream(numbered(9), torch.split(torch.arange(9), 2), CPU))
    assert caught.value is broken and threads() == 0


def test_an_epoch_that_is_left_early_ends_the_thread() -> None:
    batches = stream(numbered(60), torch.split(torch.arange(60), 2), CPU)
    next(batches)
    assert threads() == 1
    batches.close()  # type: ignore[attr-defined]
    assert threads() == 0
    run = make_run(make_settings(optimizer={"lr": 1e30}, batch_size=4), device_memory=0)
    with pytest.raises(DivergedError) as caught:
        list(fit(run))
    assert caught.value.__traceback__ is not None and threads() == 0


def test_the_thread_stays_no_further_ahead_than_the_ring_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[int] = []
    gather = Slot.gather

    def counting(slot: Slot, images: torch.Tensor, rows: torch.Tensor) -> None:
        gather(slot, images, rows)
        gathered.append(int(rows[0]))

    monkeypatch.setattr(Slot, "gather", counting)
    batches = stream(numbered(40), torch.split(torch.arange(40), 1), CPU)
    next(batches)
    wait_for(lambda: len(gathered) == LONGEST)
    time.sleep(0.05)
    assert gathered == list(range(LONGEST))
    next(batches)
    wait_for(lambda: len(gathered) == LONGEST + 1)
    batches.close()  # type: ignore[attr-defined]


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


class LateSlot(Slot):
    """A slot whose copy happens as late as it may, as a device's can: what was gathered must still be there then."""

    def __init__(self, size: int, shape: Sequence[int], *, pinned: bool = False) -> None:
        super().__init__(size, shape)
        self.there = torch.zeros_like(self.host)
        self.under_way = False

    def gather(self, images: torch.Tensor, rows: torch.Tensor) -> None:
        assert not self.under_way, "filled again before its copy has ended"
        super().gather(images, rows)

    def send(self) -> None:
        assert not self.under_way
        self.under_way = True

    def receive(self) -> torch.Tensor:
        self.there.copy_(self.host)
        return self.there[: self.count].clone()

    def is_sent(self) -> bool:
        return not self.under_way

    def wait(self) -> None:
        self.there.copy_(self.host)
        self.under_way = False


def test_a_buffer_is_filled_again_only_after_its_copy_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "Slot", LateSlot)
    rows = torch.split(torch.randperm(200, generator=torch.Generator().manual_seed(2)), 3)
    assert numbers(list(stream(numbered(200), rows, CPU))) == [part.tolist() for part in rows]
    assert threads() == 0


class Device:
    """Stands in for CUDA: what streams and events are told is noted, copies happen at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, ...]] = []
        empty = torch.empty
        main, beside = self.stream("main"), self.stream("beside")
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: main)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: beside)
        monkeypatch.setattr(torch.cuda, "Event", self.event)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **more: empty(*size, **more))

    def stream(self, name: str) -> SimpleNamespace:
        waited = lambda event: self.told.append((name, "waits for", event.name))  # noqa: E731
        return SimpleNamespace(name=name, device=CPU, wait_event=waited)

    def event(self, blocking: bool = False) -> SimpleNamespace:
        name = "copied" if blocking else "taken"
        made = SimpleNamespace(name=name, query=lambda: True, synchronize=lambda: None)
        made.record = lambda stream: self.told.append((stream.name, "records", name))
        return made


def test_for_cuda_copies_wait_for_what_was_taken_and_the_computing_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    rows = torch.split(torch.randperm(30, generator=torch.Generator().manual_seed(3)), 30)
    assert numbers(list(stream(numbered(30), rows, torch.device("cuda:0")))) == [rows[0].tolist()]
    first, end = [("main", "records", "taken")], [("main", "waits for", "copied")]
    sent = [("beside", "waits for", "taken"), ("beside", "records", "copied")]
    received = [("main", "waits for", "copied"), ("main", "records", "taken")]
    assert device.told == LONGEST * first + sent + received + LONGEST * end
    rows = torch.split(torch.randperm(200, generator=torch.Generator().manual_seed(3)), 3)
    assert numbers(list(stream(numbered(200), rows, torch.device("cuda:0")))) == [part.tolist() for part in rows]


def test_large_batches_make_a_short_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(streaming._ring(1, (8, 8, 3), CPU)) == LONGEST
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "Slot", lambda size, shape: size)  # no memory is taken
        assert len(streaming._ring(2**18, (16, 20, 1), CPU)) == 3  # 80 MiB each, 256 MiB at the most
    monkeypatch.setattr(streaming, "RING_BYTES", 3 * 5 * 192)
    assert len(streaming._ring(5, (8, 8, 3), CPU)) == 3
    monkeypatch.setattr(streaming, "RING_BYTES", 1)
    assert len(streaming._ring(5, (8, 8, 3), CPU)) == SHORTEST


@pytest.mark.parametrize(
    ("limit", "streamed", "told"),
    [
        # 80, 24 and 32 images of 8 x 8 x 3 = 192 bytes: 15,360, 4,608 and 6,144.
        (None, "", ""),
        (26112, "", ""),
        (26111, "test", "the test images (6.144 kB)"),
        (20000, "test", "the test images (6.144 kB)"),
        (15360, "val test", "the val and test images (10.75 kB)"),
        (15359, "train", "the train images (15.36 kB)"),
        (0, "train val test", "the train, val and test images (26.11 kB)"),
    ],
)
def test_train_has_the_room_first(limit: int | None, streamed: str, told: str) -> None:
    selection = select(make_splits(), DataSettings(dataset=PluginRef(name="made-up")), 0)
    placed, notes = place_all(selection, CPU, limit)
    assert " ".join(name for name, images in placed.items() if images.streamed) == streamed
    assert len(notes) == bool(streamed) and all(note.startswith(told) for note in notes)


def test_sizes_are_shown_with_a_prefix() -> None:
    assert [shown_bytes(n) for n in (1000, 1_000_000, 1_000_000_000)] == ["1 kB", "1 MB", "1 GB"]
    assert [shown_bytes(n) for n in (0, 999, 1500, 2_500_000, 153_000_000_000)] == [
        "0 B", "999 B", "1.5 kB", "2.5 MB", "153 GB",
    ]  # fmt: skip


def test_a_sweep_with_a_limit_has_the_same_keys_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(FACTOR, repeats=1)
    sweep_here(monkeypatch, tmp_path / "a", study)
    sweep_here(monkeypatch, tmp_path / "b", study, device_memory=0)
    free, limited = read_results(tmp_path / "a"), read_results(tmp_path / "b")
    assert all_facts(free) == all_facts(limited)
    assert [one.key for one in free.conditions] == [one.key for one in limited.conditions]
    told = {note for trial in limited.trials if trial.outcome for note in trial.outcome.notes}
    assert len(told) == 1 and "gathered ahead by a thread: they exceed --device-memory, 0 B" in told.pop()
    assert threads() == 0


def test_the_benchmark_measures_all_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "peers"))
    import bench_stream

    images = bench_stream.written(tmp_path / "images.npy", 70, 8)
    assert len(np.unique(images[:, 0, 0, 0])) > 40  # random from the first image to the last
    options = Namespace(device="cpu", limit="10kB", batch_size=16, threads=1, rounds=1, cold=False)
    rows = bench_stream.measured(images, tmp_path / "images.npy", options)
    assert [row.name for row in rows] == [
        "gather", "batches resident", "batches streamed", "training resident", "training streamed",
    ]  # fmt: skip
    assert all(row.rates[0] > 0 for row in rows) and rows[1].beside == rows[3].beside == 1
    assert rows[4].beside == rows[4].rates[0] / rows[3].rates[0]
    with pytest.raises(SystemExit, match=r"13\.44 kB of images fit into --limit 20kB"):
        bench_stream.measured(images, tmp_path, Namespace(**{**vars(options), "limit": "20kB"}))
    assert threads() == 0


@pytest.mark.gpu
@CUDA
def test_on_cuda_batches_are_those_of_resident_images(tmp_path: Path) -> None:
    device = torch.device("cuda:0")
    chosen = mapped(tmp_path, make_split(3000, 3, side=32))
    resident, streamed = image_set(chosen, device), image_set(chosen, device, budget=0)
    assert resident.images.is_cuda and not streamed.images.is_cuda
    heavy = torch.randn(2048, 2048, device=device)
    for seed in range(3):
        resident_epoch, streamed_epoch = (
            loader(images, 4, 32).epoch(torch.Generator().manual_seed(seed)) for images in (resident, streamed)
        )
        same = []
        for one, other in zip(resident_epoch, streamed_epoch, strict=True):
            heavy = (heavy @ heavy).softmax(0)  # the device falls behind: buffers could be overwritten too early
            same.append((one.images == other.images).all() & (one.targets == other.targets).all())
        assert len(same) == 32 and bool(torch.stack(same).all())
    assert threads() == 0


@pytest.mark.gpu
@CUDA
def test_on_cuda_an_epoch_left_early_leaves_memory_and_threads_as_they_were(tmp_path: Path) -> None:
    device = torch.device("cuda:0")
    images = image_set(mapped(tmp_path, make_split(600, 3, side=32)), device, budget=0)
    for size in (16, 64):
        batches = images.chunks(size)
        expected = next(batches).clone()
        batches.close()  # type: ignore[attr-defined]
        junk = torch.full((64, 1024, 1024), 255, dtype=torch.uint8, device=device)
        assert torch.equal(next(images.chunks(size)), expected) and bool((junk == 255).all())
        del junk
    assert threads() == 0


@pytest.mark.gpu
@CUDA
def test_on_cuda_a_run_with_streamed_images_learns() -> None:
    selection = select(make_splits(), DataSettings(dataset=PluginRef(name="made-up")), 0)
    assert place_all(selection, torch.device("cuda:0"))[1] == ()
    free = placement.half_of_free(torch.device("cuda:0"))
    assert free is not None and free > 0
    run = make_run(make_settings(epochs=12), device="cuda", device_memory=0)
    records = list(fit(run))
    assert records[-1].val_accuracy > 0.8 and threads() == 0
    assert finish(run).notes[0].endswith("were streamed to the device: they exceed --device-memory, 0 B")
