"""What runs on a node: every call may come twice, since one that failed on its way may have run."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_study import PATIENCE

from benchkit.sweep import node_side
from benchkit.sweep.node_side import Node, NodeWorker, own_environment

COPY = "import os, sys\nwhile piece := os.read(0, 65536):\n    os.write(1, piece)\nos.write(2, b'end')"


@pytest.fixture
def seat() -> Iterator[NodeWorker]:
    seat = NodeWorker()
    first = seat.open(COPY, {"PATH": os.environ["PATH"]}, False)
    assert seat.open(COPY, {}, False) == first, "a call that is repeated starts no second process"
    yield seat
    seat._process.stdin.close()


def heard(seat: NodeWorker, place: int, length: int) -> bytes:
    """Ask for what comes after a place until so much is there."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        out, _, _ = seat.hear(place, 0, 1.0)
        if len(out) >= length:
            return out
    raise AssertionError(f"{length} bytes did not come")


def test_what_was_not_taken_is_told_again_and_what_came_twice_is_written_once(seat: NodeWorker) -> None:
    seat.tell(0, b"abc")
    seat.tell(0, b"abc")
    seat.tell(1, b"bcdef")
    assert heard(seat, 0, 6) == b"abcdef"
    assert heard(seat, 0, 6) == b"abcdef", "the answer was lost on its way, and is asked for again"
    assert heard(seat, 4, 2) == b"ef"
    seat.signal(9)
    out, printed, code = seat.hear(6, 0, PATIENCE)
    assert (out, printed, code) == (b"", b"", -9)


def test_the_exit_status_comes_after_the_last_byte(seat: NodeWorker) -> None:
    seat.tell(0, b"last")
    heard(seat, 0, 4)
    seat._process.stdin.close()
    end = time.monotonic() + PATIENCE
    told = [seat.hear(0, 0, 1.0)]
    while not told[-1][1] and time.monotonic() < end:
        told.append(seat.hear(0, 0, 1.0))
    assert told[-1] == (b"last", b"end", None)
    assert seat.hear(4, 3, PATIENCE) == (b"", b"", 0)


def test_what_is_told_without_a_pause_travels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_side, "LINGER", PATIENCE)
    monkeypatch.setattr(node_side, "LONGEST", PATIENCE)
    telling = NodeWorker()
    telling.open("import os, time\nos.write(1, b'epoch')\ntime.sleep(0.3)\nos.write(1, b' and checkpoint')", {}, False)
    assert telling.hear(0, 0, PATIENCE)[0] == b"epoch and checkpoint"
    telling._process.stdin.close()
    monkeypatch.setattr(node_side, "LONGEST", 0.0)
    endless = NodeWorker()
    endless.open("import os\nwhile True:\n    os.write(1, bytes(65536))", {}, False)
    assert endless.hear(0, 0, PATIENCE)[0], "a process that is never silent is heard all the same"
    endless.signal(9)
    endless._process.stdin.close()


def test_children_see_nothing_of_rays_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_JOB_ID", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTHONBREAKPOINT"):
        monkeypatch.setenv(name, "1")
    assert not {"RAY_JOB_ID", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTHONBREAKPOINT"} & own_environment().keys()
    code, out, _ = Node().run("import os, sys; print(sys.stdin.read() + os.environ['MORE'])", "a", {"MORE": "b"})
    assert (code, out) == (0, "ab\n")


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    node, folder = Node(), tmp_path / "data" / "digits"
    fresh = node.begin(str(folder), 4)
    node.write(fresh, "a/b.npy", 0, b"123")
    node.write(fresh, "a/b.npy", 3, b"456")
    node.write(fresh, "a/b.npy", 3, b"456")
    assert not folder.exists()
    node.finish(fresh, str(folder))
    assert (folder / "a" / "b.npy").read_bytes() == b"123456"
    second = node.begin(str(folder), 4)
    node.write(second, "a/b.npy", 0, b"other")
    node.finish(second, str(folder))
    assert (folder / "a" / "b.npy").read_bytes() == b"123456" and len(list(folder.parent.iterdir())) == 1


def test_what_has_no_room_on_a_node_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=999))
    node, folder = Node(), tmp_path / "data" / "cifar10"
    with pytest.raises(OSError, match=r"1,000 bytes are to be kept where 999 are free: '.*/data/cifar10'") as refused:
        node.begin(str(folder), 1000)
    assert refused.value.errno == errno.ENOSPC and list(folder.parent.iterdir()) == []
    assert node.begin(str(folder), 999)
