"""Images that are not on the device: a thread gathers the next batches ahead of their use, and copies run beside the
computing.

The thread writes into a small ring of host buffers and calls nothing of CUDA, so that it cannot disturb the capture of
a graph; all of CUDA's calls are made where the batches are asked for. There a gathered buffer is copied on a stream of
its own, which waits until the buffer's last images on the device were taken, and the computing stream waits for that
copy. So neither side runs more than the ring's length ahead of the other.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence

import torch

from benchkit.data.mapped import Ask
from benchkit.errors import PinningRefusedError, first_line

LONGEST, SHORTEST = 4, 2
"""Buffers in a ring: as many as fit into `RING_BYTES`, within these bounds."""
RING_BYTES = 2**28

AHEAD = 2
"""Batches that the system is asked to read before they are gathered."""

PINNED = True
"""Whether buffers for a GPU are in pinned memory; where that is refused, copies from pageable memory are slower."""

THREAD = "benchkit-gather"
"""The name of the thread that gathers."""


class Slot:
    """One buffer of the ring on the CPU, uint8 (size, H, W, C): the thread fills it, `receive` empties it."""

    def __init__(self, size: int, shape: Sequence[int], *, pinned: bool = False) -> None:
        """Allocate the buffer, in memory that the device can copy from by itself when it is `pinned`."""
        try:
            self.host = torch.empty((size, *shape), dtype=torch.uint8, pin_memory=pinned)
        except RuntimeError as error:
            if not pinned:
                raise
            raise PinningRefusedError(f"pinned memory is refused: {first_line(error)}") from error
        self.count = 0

    def gather(self, images: torch.Tensor, rows: torch.Tensor) -> None:
        """Put the images (M, H, W, C) at `rows`, int64 (N,), into the buffer. Called by the thread."""
        self.count = len(rows)
        torch.index_select(images, 0, rows, out=self.host[: self.count])

    def send(self) -> None:
        """Begin to copy what was gathered to the device."""

    def receive(self) -> torch.Tensor:
        """Return what was gathered, uint8 (N, H, W, C) on the device, in memory of its own."""
        return self.host[: self.count].clone()

    def is_sent(self) -> bool:
        """Return whether the buffer may be filled again."""
        return True

    def wait(self) -> None:
        """Return when the buffer may be filled again."""

    def end(self) -> None:
        """Make it safe to give the memory to others, whatever is still under way."""


class CudaSlot(Slot):
    """One buffer of the ring for CUDA: pinned memory, and as much on the device."""

    def __init__(self, size: int, shape: Sequence[int], stream: torch.cuda.Stream) -> None:
        """Allocate both buffers; copies run on `stream`, the rest on the stream that is current where it is called."""
        super().__init__(size, shape, pinned=PINNED)
        self._stream = stream
        self._there = torch.empty((size, *shape), dtype=torch.uint8, device=stream.device)
        self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._taken = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # The memory on the device may have been another tensor's, which the current stream has not done with.
        self._taken.record(self._current())

    def _current(self) -> torch.cuda.Stream:
        return torch.cuda.current_stream(self._there.device)

    def send(self) -> None:
        """Begin to copy once the images that were here before are taken."""
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._taken)
            self._there[: self.count].copy_(self.host[: self.count], non_blocking=True)
            self._copied.record(self._stream)

    def receive(self) -> torch.Tensor:
        """Return the images; whatever follows on the current stream comes after their copy."""
        current = self._current()
        current.wait_event(self._copied)
        images = self._there[: self.count].clone()
        self._taken.record(current)
        return images

    def is_sent(self) -> bool:
        """Return whether the copy has ended."""
        return bool(self._copied.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Return when the copy has ended."""
        self._copied.synchronize()

    def end(self) -> None:
        """Let the current stream, whose allocator the memory goes back to, wait for the copy."""
        self._current().wait_event(self._copied)


def stream(
    images: torch.Tensor, rows: Sequence[torch.Tensor], device: torch.device, ask: Ask | None = None
) -> Iterator[torch.Tensor]:
    """Yield the images uint8 (M, H, W, C) at each of `rows`, int64 (N,), as uint8 (N, C, H, W) on `device`, in order.

    `ask` has the system read them from a file before (see `asked_ahead`). What the thread raises is raised here. When
    the iterator is closed or forgotten, the thread has ended.
    """
    if not rows:
        return
    ring = _ring(max(map(len, rows)), images.shape[1:], device)
    free: queue.SimpleQueue[Slot | None] = queue.SimpleQueue()
    gathered: queue.SimpleQueue[Slot | Exception] = queue.SimpleQueue()
    for slot in ring:
        free.put(slot)
    stop = threading.Event()
    told = asked_ahead(rows, ask)
    thread = threading.Thread(target=_gather, args=(images, told, free, gathered, stop), name=THREAD, daemon=True)
    thread.start()
    try:
        yield from _received(len(rows), len(ring), free, gathered)
    finally:
        stop.set()
        free.put(None)
        thread.join()
        for slot in ring:
            slot.end()


def asked_ahead(rows: Sequence[torch.Tensor], ask: Ask | None) -> Iterator[torch.Tensor]:
    """Yield `rows`, int64 (N,) each, when the system has been asked for the images of those that follow."""
    for number, some in enumerate(rows):
        if ask is not None:
            for later in rows[number + AHEAD : number + AHEAD + 1] if number else rows[: AHEAD + 1]:
                ask(later.tolist())
        yield some


def _ring(size: int, shape: Sequence[int], device: torch.device) -> list[Slot]:
    length = min(LONGEST, max(SHORTEST, RING_BYTES // max(1, size * torch.Size(shape).numel())))
    # Evaluation asks in inference mode, and the tensors of that mode cannot be written to outside of it.
    with torch.inference_mode(False):
        if device.type != "cuda":
            return [Slot(size, shape) for _ in range(length)]
        copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return [CudaSlot(size, shape, copying) for _ in range(length)]


def _gather(
    images: torch.Tensor,
    rows: Iterator[torch.Tensor],
    free: queue.SimpleQueue[Slot | None],
    gathered: queue.SimpleQueue[Slot | Exception],
    stop: threading.Event,
) -> None:
    """Fill slots as they become free, until all is gathered or `stop` is set."""
    try:
        for some in rows:
            slot = free.get()
            if slot is None or stop.is_set():
                return
            slot.gather(images, some)
            gathered.put(slot)
    except Exception as error:  # noqa: BLE001 - raised where the images are asked for
        gathered.put(error)


def _received(
    count: int, length: int, free: queue.SimpleQueue[Slot | None], gathered: queue.SimpleQueue[Slot | Exception]
) -> Iterator[torch.Tensor]:
    """Yield `count` batches, sending what is gathered meanwhile and handing the ring's `length` slots round."""
    sent: deque[Slot] = deque()
    used: deque[Slot] = deque()
    for _ in range(count):
        while used and used[0].is_sent():
            free.put(used.popleft())
        while not gathered.empty():
            sent.append(_sent(gathered.get()))
        if not sent:
            if len(used) == length:  # the thread has no slot to fill before the oldest copy has ended
                used[0].wait()
                free.put(used.popleft())
            sent.append(_sent(gathered.get()))
        slot = sent.popleft()
        images = slot.receive()
        used.append(slot)
        yield images.permute(0, 3, 1, 2)


def _sent(slot: Slot | Exception) -> Slot:
    if isinstance(slot, Exception):
        raise slot
    slot.send()
    return slot
