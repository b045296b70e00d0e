"""Images in mapped files: what the system is asked to read, when, and what is let go of."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import make_split
from PIL import Image

from benchkit.data import decoding, mapped, prepared
from benchkit.data.dataset import Selected
from benchkit.data.decoding import decode_images
from benchkit.train import batches
from benchkit.train.batches import image_set, loader
from benchkit.train.streaming import AHEAD, asked_ahead, stream

CPU = torch.device("cpu")


class Recorded:
    """Stands in for a map and keeps what it is told: the bytes from one place to another."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, int]] = []

    def madvise(self, option: int, start: int, length: int) -> None:
        assert start % mmap.PAGESIZE == 0 and length > 0
        self.told.append((option, start, start + length))


@pytest.mark.parametrize("side", [5, 100, 500])  # less than a page, several, more than is asked for at a time
def test_all_bytes_of_the_images_are_asked_for_and_no_other_pages(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, first = np.zeros((9, side, side, 3), np.uint8), 128
    recorded = Recorded()
    monkeypatch.setattr(mapped, "_mapping", lambda asked: (recorded, first))
    assert mapped.asking(images) is None  # few bytes stay in memory by themselves
    monkeypatch.setattr(mapped, "LARGE", images.nbytes)
    ask = mapped.asking(images)
    assert ask is not None
    ask([7, 2])
    size = side * side * 3
    needed = {byte // mmap.PAGESIZE for row in (7, 2) for byte in range(first + row * size, first + (row + 1) * size)}
    asked = {byte // mmap.PAGESIZE for _, start, end in recorded.told for byte in range(start, end)}
    assert asked == needed
    assert {option for option, _, _ in recorded.told} == {mmap.MADV_WILLNEED}
    assert max(end - start for _, start, end in recorded.told) <= mapped.PIECE


def test_a_large_set_is_let_go_of_each_time_that_so_much_of_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LARGE", 2**22)
    monkeypatch.setattr(prepared, "LARGE", 2**22)
    images = np.random.default_rng(0).integers(0, 256, (100, 128, 128, 3), dtype=np.uint8)  # 48 KiB each
    np.save(tmp_path / "images.npy", images)
    size, problems = (tmp_path / "images.npy").stat().st_size, list[str]()
    there = prepared._open_array(tmp_path / "images.npy", images.dtype, images.shape, size, problems)
    assert problems == [] and not there.flags.writeable  # no page of it is this process's own
    gone: list[np.ndarray] = []
    whole = mapped.let_go
    monkeypatch.setattr(mapped, "let_go", lambda one: (gone.append(one), whole(one)))
    ask = mapped.asking(there)
    assert ask is not None
    for number in range(200):  # of 86 images, 85 are less than 4 MiB
        ask([number % 100])
        np.testing.assert_array_equal(there[number % 100], images[number % 100])
        assert len(gone) == (number + 1) // 86
    assert all(one is there for one in gone)


def test_only_images_in_a_mapped_file_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGE", 0)
    images = make_split(30, 3).images
    np.save(tmp_path / "images.npy", images)
    there = np.load(tmp_path / "images.npy", mmap_mode="c")
    assert mapped.asking(images) is None and mapped.asking(there[::2]) is None and mapped.asking(there[:0]) is None
    found = mapped._mapping(there[10:])
    assert found is not None
    place = found[1]  # the file itself tells what is there
    assert (tmp_path / "images.npy").read_bytes()[place : place + 192] == images[10].tobytes()
    ask = mapped.asking(there[10:])
    assert ask is not None
    ask(range(20))  # the real system takes it


def test_batches_are_asked_for_ahead_each_once() -> None:
    rows = [torch.tensor([number, number + 100]) for number in range(6)]
    told: list[list[int]] = []
    for number, some in enumerate(asked_ahead(rows, lambda asked: told.append(list(asked)))):
        assert some is rows[number]
        assert told == [part.tolist() for part in rows[: number + AHEAD + 1]]
    assert list(asked_ahead(rows, None)) == rows


@pytest.mark.parametrize("budget", [None, 0])  # gathered where it is asked for, or ahead by a thread
def test_training_asks_for_its_images_and_gets_the_same(
    budget: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split(90, 3)
    np.save(tmp_path / "images.npy", split.images)
    there = type(split)(images=np.load(tmp_path / "images.npy", mmap_mode="c"), labels=split.labels)
    selected = Selected(split=there, rows=np.arange(0, 90, 3))
    asked: list[int] = []
    monkeypatch.setattr(batches, "asking", lambda images: asked.extend)
    for part in loader(image_set(selected, CPU, budget), 4, 8).epoch(torch.Generator().manual_seed(7)):
        expected = torch.from_numpy(split.images[asked[:8]]).permute(0, 3, 1, 2)
        if len(part.images) == 8:
            assert torch.equal(part.images, expected)
        del asked[:8]
    assert not asked


def test_what_the_thread_is_told_comes_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(rows: Iterable[int]) -> Any:
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        list(stream(torch.zeros(9, 2, 2, 1, dtype=torch.uint8), torch.split(torch.arange(9), 3), CPU, refused))


def test_what_is_let_go_of_stays_as_it_was(tmp_path: Path) -> None:
    written = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(40, 64, 64, 3))
    images = np.random.default_rng(0).integers(0, 256, written.shape, dtype=np.uint8)
    written[:] = images
    mapped.let_go(written[3:])
    np.testing.assert_array_equal(written, images)
    written.flush()
    changed = np.load(tmp_path / "a.npy", mmap_mode="c")
    changed[5] = 7
    mapped.let_go(changed)
    assert (changed[5] == 7).all() and (np.load(tmp_path / "a.npy")[5] == images[5]).all()
    own = np.ones((4, 2, 2, 1), np.uint8)
    mapped.let_go(own)
    assert own.all()


def test_a_pass_over_all_images_lets_go_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(50 * 12, dtype=np.uint16).astype(np.uint8).reshape(50, 2, 2, 3)
    gone: list[np.ndarray] = []
    monkeypatch.setattr(mapped, "let_go", gone.append)
    monkeypatch.setattr(mapped, "READ", 7 * 12)
    for number, part in enumerate(mapped.parts(images)):
        assert len(part) <= 7 and len(gone) == number
    np.testing.assert_array_equal(np.concatenate(gone), images)


def test_decoding_lets_go_of_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.png" for number in range(23)]
    for number, file in enumerate(files):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.uint8, shape=(23, 4, 4, 3))
    gone: list[np.ndarray] = []
    monkeypatch.setattr(decoding, "let_go", gone.append)
    monkeypatch.setattr(decoding, "READ", 4 * 48)
    monkeypatch.setattr(decoding, "_CHUNK", 10)
    decode_images(files, out, what="decoding")
    first = [int(row) for part in gone for row in part[:, 0, 0, 0]]
    assert set(first) == set(range(23))  # each image once it is written, however often


def test_a_file_that_can_be_mapped_for_reading_alone_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_split(30, 3).images
    np.save(tmp_path / "images.npy", images)
    load = np.load

    def refusing(file: Path, mmap_mode: str, allow_pickle: bool) -> np.ndarray:
        if mmap_mode != "r":  # as Linux does where the file is larger than memory
            raise OSError(codes[0], "refused")
        return load(file, mmap_mode="r", allow_pickle=allow_pickle)

    monkeypatch.setattr(prepared.np, "load", refusing)
    size, problems = (tmp_path / "images.npy").stat().st_size, list[str]()
    codes = [errno.ENOMEM, errno.EACCES]
    for expected in (images, np.empty(0, np.uint8)):
        found = prepared._open_array(tmp_path / "images.npy", images.dtype, images.shape, size, problems)
        np.testing.assert_array_equal(found, expected)
        del codes[0]
    assert problems == ["images.npy: [Errno 13] refused"]
