"""Notices of a sweep to wherever apprise can send: done, failed, undecided after the last look, disk nearly full.

An address is a credential: it goes to a child process alone, whose words are never passed on.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from benchkit.child import run_python
from benchkit.errors import BenchkitError
from benchkit.storage import node_name
from benchkit.trackers.address import Address

SECONDS = 60.0
"""How long sending may take."""

EVERY = 60.0
"""Seconds between two looks at the disk."""

NEARLY_FULL = 2 * 2**30
"""Bytes that are left on a disk that is nearly full."""


class Notices:
    """Sends one message for each thing that happens to a sweep, and looks at its disk meanwhile."""

    def __init__(
        self, addresses: Sequence[Address], study: str, workspace: Path, note: Callable[[str], object]
    ) -> None:
        """Send nothing yet. Raises `BenchkitError` without apprise, and for an address that it does not understand."""
        if addresses and importlib.util.find_spec("apprise") is None:
            raise BenchkitError("--notify needs apprise", hint="pip install 'benchkit[notify]'")
        self._addresses, self._study, self._note = addresses, study, note
        self._folder = workspace.resolve()
        self._end, self._sent = threading.Event(), set[str]()
        self._watcher = threading.Thread(target=self._watch_disk, daemon=True)
        for one in addresses:
            if problem := _send(one, "", ""):
                raise BenchkitError(f"--notify {one.spoken}: {problem}", hint="`apprise` has a page for each service")

    def __enter__(self) -> Notices:
        """Begin to look at the disk."""
        if self._addresses:
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell of an error that ended the sweep."""
        self._end.set()
        if isinstance(error, BenchkitError):
            self.tell("failed", error.what)
        if self._watcher.is_alive():
            self._watcher.join(SECONDS)

    def tell(self, event: str, words: str) -> None:
        """Send a message, the first time that this happens."""
        if event in self._sent:
            return
        self._sent.add(event)
        for one in self._addresses:
            if problem := _send(one, f"{self._study}: {event}", f"{words}\n({self._study} on {node_name()})"):
                self._note(f"the notice {event!r} was not sent to {one.spoken}: {problem}")

    def _watch_disk(self) -> None:
        while True:
            there = next(one for one in (self._folder, *self._folder.parents) if one.exists())
            if (free := shutil.disk_usage(there).free) < NEARLY_FULL:
                self.tell("disk nearly full", f"{free / 2**30:.1f} GiB are left for {self._folder.name}")
            if self._end.wait(EVERY):
                return


def _send(address: Address, title: str, body: str) -> str:
    """Return why a message was not sent, or nothing; without a title, whether the address is understood."""
    told = json.dumps([address.value, title, body])
    done = run_python(["-m", __name__], SECONDS, text=told, environment={"PYTHONWARNINGS": "ignore"})
    return "no answer" if done.late else json.loads(done.out) if done.out.strip() else "apprise ended early"


def _main() -> None:
    """Send what standard input says, and tell why it failed."""
    import apprise

    address, title, body = json.load(sys.stdin)
    sender = apprise.Apprise()
    known = sender.add(address)
    sent = known and (not title or sender.notify(title=title, body=body))
    sys.stdout.write(json.dumps("" if sent else "it was not taken" if known else "apprise does not understand it"))


if __name__ == "__main__":
    _main()
