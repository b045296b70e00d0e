"""What a worker prints, parted by trial: marks among it say whose what follows is. Imports no torch.

Output goes through the process's standard error, so that what a crash leaves unread there still comes to light.
"""

from __future__ import annotations

import os
import re
import sys

from benchkit.sweep.messages import Printed

MARK = re.compile(rb"\0benchkit trial (\d+) (\d+)\n")
LONGEST = 64
"""More bytes than a mark has."""


def mark(trial: int, lease: int) -> None:
    """Mark what is printed from now on, output of C libraries included, as a trial's; as none's where it is 0."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, b"\0benchkit trial %d %d\n" % (trial, lease))


class PrintSplitter:
    """Takes what was printed in pieces and parts it by trial; outside of any, trial and lease are 0."""

    def __init__(self) -> None:
        """Begin outside of any trial."""
        self._trial = self._lease = 0
        self._rest = b""

    def feed(self, piece: bytes) -> list[Printed]:
        """Return what is known to be a trial's, or none's, with this piece; an empty one brings what is left."""
        whole, found = self._rest + piece, []
        while mark := MARK.search(whole):
            found.append(self._part(whole[: mark.start()]))
            self._trial, self._lease, whole = int(mark[1]), int(mark[2]), whole[mark.end() :]
        start = whole.rfind(b"\0", max(0, len(whole) - LONGEST)) if piece else -1
        ready = whole if start < 0 or b"\n" in whole[start:] else whole[:start]  # a mark may be coming
        self._rest = whole[len(ready) :]
        return [part for part in (*found, self._part(ready)) if part.content]

    def _part(self, content: bytes) -> Printed:
        return Printed(trial=self._trial, lease=self._lease, content=content)
