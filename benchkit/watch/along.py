"""The live page beside a sweep: served by a process of its own, which ends with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from benchkit.child import begin_benchkit
from benchkit.sweep.progress import View, ViewBeside
from benchkit.watch.watched import Watch

STOPPED, ENDING = 5.0, 25.0
"""Seconds that the page's process has to end after a sweep that was stopped, and after one that came to its end."""

LAST_LOOK, DELIVERY = 20.0, 0.5
"""Of these, the most for a last look, where somebody watches, and those in which browsers get what came of it."""


class PageAlong(ViewBeside):
    """A view of a sweep that starts the page's process when there is something to see, and passes everything on.

    The socket listens already: who opens the page before waits a little.
    """

    def __init__(
        self, view: View, sock: socket.socket, workspace: Path, storage: str, study: str, plugins: Sequence[Path] = ()
    ) -> None:
        super().__init__(view)
        self._socket = sock
        self._command = ["watch", study, "--workspace", str(workspace), "--socket", str(sock.fileno())]
        self._command += [f"--plugin={file}" for file in plugins]
        self._storage = storage
        self._process: subprocess.Popen[bytes] | None = None

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        """Start the page, and pass it on."""
        if self._process is None:
            self._process = begin_benchkit(
                self._command, self._storage, stdout=subprocess.DEVNULL, pass_fds=[self._socket.fileno()]
            )
        super().stage(title, states, total)

    def __enter__(self) -> PageAlong:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the page show the end, and end it."""
        self._socket.close()
        if self._process is None:
            return
        assert self._process.stdin is not None
        if error is not None:
            self._process.terminate()
        self._process.stdin.close()
        try:
            self._process.wait(ENDING if error is None else STOPPED)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def end_with(stream: int, watch: Watch) -> None:
    """Let this process end when a stream does, whose other end a sweep holds: after a last look, as by a signal."""

    def wait() -> None:
        while os.read(stream, 1):
            pass
        watch.finish(LAST_LOOK)
        time.sleep(DELIVERY)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
