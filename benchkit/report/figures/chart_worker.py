"""The child process that draws charts for print: a chart that takes for ever, or all memory, costs only itself.

It is a process of its own for three reasons: Vega's engine ends the process that it runs in when its memory is used
up, its time can be limited, and its memory is given back before the PDF is laid out. The child (`python -m
benchkit.report.figures.chart_worker`) reads one spec's JSON as a line of JSON and answers with a line of JSON, until
its input ends.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchkit.child import ChildLost, LineChild, answer_lines, limit_memory
from benchkit.errors import ReportError
from benchkit.report.figures.drawing import Files, chart_files, content_key, spec_to_svg
from benchkit.storage import cache_folder, write_atomically

SECONDS = 120.0
"""How long one chart may take; the largest of a study of 1,000 trials takes three."""

MEMORY_MIB = 4096
"""How much memory the child may fill (not reserve: Vega's engine reserves far more than it ever touches)."""


class ChartWorker:
    """Draws specs as SVG, from the cache where it has them, in one child process where it has not.

    Use it as a context manager: the child ends with it. `drawn` counts the charts that the child was asked for.
    """

    def __init__(
        self, cache: ChartCache | None = None, *, seconds: float = SECONDS, memory_mib: int = MEMORY_MIB
    ) -> None:
        """Start nothing yet; without a cache everything is drawn."""
        self.drawn = 0
        self._cache = cache
        limits = (str(memory_mib), str(math.ceil(seconds)))
        self._child = LineChild(["-m", "benchkit.report.figures.chart_worker", *limits], seconds)
        self._asking = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> ChartWorker:
        """Return the worker."""
        return self

    def begin_child(self) -> None:
        """Begin the child now, so that it has imported what it needs when the first chart is made."""
        with contextlib.suppress(OSError):  # the first chart tells of it
            self._child.begin()

    def __exit__(self, *_: object) -> None:
        """End the child, and keep the cache within its size."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._child.__exit__()  # a chart that is being drawn may take for long: what asks for it waits no longer
        self._asking.shutdown()
        if self._cache is not None and self.drawn:
            self._cache.trim()

    def begin(self, spec: str) -> Future[bytes]:
        """Return what will be the spec, JSON, as SVG, or `ReportError` when it cannot be drawn within the limits.

        One is drawn at a time, in this order.
        """
        return self._asking.submit(self._svg, spec)  # as text: read, a large one takes many times its memory

    def files(self, charts: Sequence[tuple[str, bytes]]) -> Iterator[Files | ReportError]:
        """Yield the files of charts, each a spec and its SVG, or why there are none.

        This process takes them from the first on while the child takes them from the last on, until they meet.
        """
        asked = [self._asking.submit(self._asked, {"spec": spec, "svg": svg.decode()}) for spec, svg in charts[::-1]]
        for (spec, svg), future in zip(charts, asked[::-1], strict=True):
            try:
                yield chart_files(spec, svg.decode()) if future.cancel() else future.result()
            except ReportError as error:
                yield error

    def _svg(self, spec: str) -> bytes:
        key = content_key(spec)
        known = self._cache.get(key) if self._cache else None
        if known is not None:
            return known
        self.drawn += 1
        content = self._asked({"spec": spec})[".svg"]
        if self._cache is not None:
            self._cache.put(key, content)
        return content

    def _asked(self, request: Mapping[str, str]) -> Files:
        try:
            answer = self._child.ask(request)
        except ChildLost as lost:
            if lost.late:
                what = f"a figure took longer than {self._child.seconds:g} s to draw and was given up"
                raise ReportError(what) from lost
            problems = [f"drawing it {lost.reason}, perhaps out of memory"]
            raise ReportError("a figure could not be drawn", problems=problems) from lost
        if "files" not in answer:
            raise ReportError(answer["what"], problems=answer["problems"])
        return {suffix: base64.b64decode(content) for suffix, content in answer["files"].items()}


def answer_in_time(request: Mapping[str, str], seconds: int) -> dict[str, Any]:
    """Return what `answer` does; the process ends after so many seconds, also where nobody is left to end it."""
    set_alarm = getattr(signal, "alarm", lambda seconds: None)  # Windows has none
    set_alarm(seconds)
    try:
        return answer(request)
    finally:
        set_alarm(0)


def answer(request: Mapping[str, str]) -> dict[str, Any]:
    """Return what the child answers to a spec, JSON: its SVG, or its files where it comes with that, or why not."""
    try:
        if "svg" in request:
            files = chart_files(**request)
        else:
            files = {".svg": spec_to_svg(json.loads(request["spec"])).encode()}
    except ReportError as error:
        return {"what": error.what, "problems": list(error.problems)}
    return {"files": {suffix: base64.b64encode(content).decode() for suffix, content in files.items()}}


MOST_BYTES = 256 * 2**20
"""The most that a cache keeps; what was not used for longest goes first."""


@dataclass(frozen=True, slots=True)
class ChartCache:
    """A folder of pictures by key. A picture is there whole or not at all, whatever other processes do meanwhile.

    A cache that cannot be written is done without: it saves time, and nothing depends on it.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    @classmethod
    def of_user(cls) -> ChartCache:
        """Return the user's cache: `pictures` in `BENCHKIT_CACHE`, else in the user's cache folder."""
        return cls(cache_folder() / "pictures")

    def get(self, key: str) -> bytes | None:
        """Return the picture of a key, or None when there is none or its file is damaged."""
        path = self._path(key)
        try:
            digest, _, content = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now: it goes last
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep a picture under its key."""
        with contextlib.suppress(OSError):
            write_atomically(self._path(key), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def trim(self) -> None:
        """Remove pictures until the rest is within `most_bytes`; another process may do the same at once."""
        kept = 0
        for _, size, path in sorted(self._files(), reverse=True):
            kept += size
            if kept > self.most_bytes:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of last use, size and path of every file; unfinished ones of killed processes are among them."""
        files = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                with contextlib.suppress(OSError):  # gone meanwhile
                    status = path.stat()
                    files.append((status.st_mtime, status.st_size, path))
        return files

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.picture"


FIRST = {"mark": "point", "data": {"values": [{"x": 1}]}, "encoding": {"x": {"field": "x", "type": "quantitative"}}}
"""A chart to begin with: Vega's engine takes longest for its first one."""


if __name__ == "__main__":
    limit_memory(int(sys.argv[1]), filled=True)
    spec_to_svg(FIRST)
    answer_lines(partial(answer_in_time, seconds=int(sys.argv[2]) + 5))
