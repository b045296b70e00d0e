"""Frames, and the line to a worker process of this machine."""

from __future__ import annotations

import io
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from tiny_study import PATIENCE

from benchkit.sweep import worker
from benchkit.sweep.devices import CPU
from benchkit.sweep.messages import Printed, WorkerLost, event_of, frame, frames, parted
from benchkit.sweep.pool import Line, LocalLine


def test_frames_are_lines_of_json_with_the_bytes_that_they_announce() -> None:
    payload = b"\n{\x00\xff\n" * 3
    told = [frame({"event": "a", "words": "\n\u2028é"}), frame({"event": "b"}, payload), frame({"event": "c"})]
    found = list(frames(io.BytesIO(b"".join(told))))
    assert found == told
    assert [parted(one) for one in found] == [
        ({"event": "a", "words": "\n\u2028é"}, b""),
        ({"event": "b", "bytes": len(payload)}, payload),
        ({"event": "c"}, b""),
    ]


@pytest.mark.parametrize("cut", [1, 5, 20, 27])
def test_a_frame_that_was_cut_off_is_left_out(cut: int) -> None:
    whole = frame({"event": "b"}, b"12345")
    assert list(frames(io.BytesIO(frame({}) + whole[:-cut]))) == [frame({})]


@pytest.fixture
def opened(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], tuple[Line, queue.Queue[bytes | WorkerLost]]]]:
    """Return what opens a line to a process that runs a script, and puts all that it hears into a queue."""
    lines = []

    def start(script: str) -> tuple[Line, queue.Queue[bytes | WorkerLost]]:
        monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", script))
        heard: queue.Queue[bytes | WorkerLost] = queue.Queue()
        lines.append(LocalLine(CPU, dict(os.environ), heard.put, heard.put))
        return lines[-1], heard

    yield start
    for line in lines:
        line.kill()


ECHO = """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
"""


def test_a_line_passes_frames_both_ways_and_tells_once_how_it_ended(
    opened: Callable[[str], tuple[Line, queue.Queue[bytes | WorkerLost]]],
) -> None:
    line, heard = opened(ECHO)
    for number in range(3):
        line.send(frame({"number": number}))
        assert heard.get(timeout=PATIENCE) == frame({"number": number})
    assert line.ended is None
    line.stop()
    end = WorkerLost(code=-signal.SIGTERM, words="ended the process by signal SIGTERM")
    assert heard.get(timeout=PATIENCE) == end == line.ended
    line.send(frame({}))
    assert heard.empty()


def test_what_a_process_prints_comes_whole_before_its_end(
    opened: Callable[[str], tuple[Line, queue.Queue[bytes | WorkerLost]]],
) -> None:
    _, heard = opened("import os, sys\nfor n in range(20000): print(n, file=sys.stderr)\nos._exit(3)\n")
    found: list[bytes] = []
    while not isinstance(one := heard.get(timeout=PATIENCE), WorkerLost):
        found.append(one)
    events = [event_of(one) for one in found]
    printed = b"".join(event.content for event in events if isinstance(event, Printed))
    assert printed == b"".join(b"%d\n" % number for number in range(20000))
    assert one.code == 3 and not one.machine


def test_sending_to_a_process_that_stands_still_waits_for_nobody(
    opened: Callable[[str], tuple[Line, queue.Queue[bytes | WorkerLost]]],
) -> None:
    line, heard = opened("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n")
    line.send(frame({"job": 1}, bytes(2**22)))
    line.kill()
    end = heard.get(timeout=PATIENCE)
    assert isinstance(end, WorkerLost) and end.code == -signal.SIGKILL
