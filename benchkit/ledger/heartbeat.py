"""Signs of life of a running trial, for workers on other machines that share the storage."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

EVERY = 30.0
"""Seconds between signs of life."""


class Heartbeat:
    """Tells who works on a trial, at once and every `every` seconds from a thread of its own, until it is stopped."""

    def __init__(self, tell: Callable[[str, Any], None], *, every: float = EVERY) -> None:
        """Tell by `tell("worker", {host, pid, seen})`."""
        self._tell = tell
        self._every = every
        self._stopped = threading.Event()
        self._beat()
        threading.Thread(target=self._go_on, daemon=True).start()

    def _beat(self) -> None:
        self._tell("worker", {"host": socket.gethostname(), "pid": os.getpid(), "seen": time.time()})

    def _go_on(self) -> None:
        while not self._stopped.wait(self._every):
            self._beat()

    def stop(self) -> None:
        """Tell nothing any more."""
        self._stopped.set()
