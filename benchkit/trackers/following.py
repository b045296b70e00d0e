"""Telling trackers: all of a study at once, or what is new again and again in a process beside a sweep.

That process reads the ledger as the live page does, so a sweep does nothing for it but start and end it: whatever a
tracker does costs no trial. What it could not be told stands in the record, and `benchkit export` tells it later.
"""

from __future__ import annotations

import io
import json
import logging
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import TracebackType

from benchkit.child import begin_benchkit
from benchkit.errors import BenchkitError, first_line
from benchkit.ledger import read_results
from benchkit.ledger.readback import LedgerReader, results_of
from benchkit.registry import Registry
from benchkit.results import StudyResults
from benchkit.storage import placed
from benchkit.study.settings import PluginRef
from benchkit.trackers.address import Address
from benchkit.tracking import Tracker

EVERY = 2.0
"""Seconds between two looks at the ledger at the least."""

SHARE = 0.005
"""The share of one core that looks may take, beyond the first."""

ENDING, STOPPED = 60.0, 5.0
"""Seconds that a tracker has for the rest after a sweep that came to its end, and after one that was stopped."""

logger = logging.getLogger(__name__)


def opened(address: Address, workspace: Path, plugins: Sequence[Path] = ()) -> Tracker:
    """Return a tracker, an installed one or one of the `plugins` files, with its folder in a workspace.

    Raises `PluginError` where there is none of this name, and `BenchkitError` where it cannot be used.
    """
    plugin = _known(plugins).bind("trackers", PluginRef(name=address.name))
    with failures_told(address):
        tracker: Tracker = plugin(workspace.resolve() / address.name, address.value)
    return tracker


def _known(plugins: Sequence[Path]) -> Registry:
    """Return the installed plugins and those of files: that one may take another's place, the sweep has been told."""
    return Registry.installed(plugins, allow_shadow=True)


def tell(results: StudyResults, tracker: Tracker) -> int:
    """Write what a tracker lacks of a study; return how many runs there are for it."""
    from benchkit.trackers.runs import runs_of

    live = getattr(tracker, "live", True)
    count = 0
    for run in runs_of(results):
        if run.ended or live:
            tracker.write(run)
            count += 1
    return count


def export(
    workspace: Path, study: str, storage: str, address: Address, plugins: Sequence[Path] = ()
) -> tuple[int, str]:
    """Tell a tracker all of a study; return how many runs it then has, and how to look at them or where they are.

    That is its own command, else the address or the folder that it was given, nothing where it left the folder alone.

    Raises `BenchkitError` where it fails.
    """
    results = read_results(workspace, study, storage or None)
    tracker = opened(address, workspace, plugins)
    with failures_told(address):
        count = tell(results, tracker)
        tracker.close()
    if viewed_by := getattr(tracker, "viewed_by", ""):
        return count, f"next: {viewed_by}"
    folder = workspace / address.name
    where = address.spoken or (folder if folder.is_dir() else "")
    return count, f"they are at {where}" if where else ""


@contextmanager
def failures_told(address: Address) -> Iterator[None]:
    """Turn whatever a tracker raises into a `BenchkitError` with nothing of a secret address in it or behind it.

    What its libraries print meanwhile is dropped: MLflow prints its address.
    """
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    except Exception as error:  # noqa: BLE001 - its traceback could show the address
        raise problem_of(error, address) from None


def problem_of(error: Exception, address: Address) -> BenchkitError:
    """Return an error of a tracker as a user meets it: its first line, with nothing of a secret address."""
    if isinstance(error, BenchkitError):
        return BenchkitError(address.masked(error.what), hint=address.masked(error.hint))
    words = address.masked(f"{type(error).__name__}: {first_line(error)}")
    return BenchkitError(f"the tracker {address.name} failed: {words}")


def follow(
    workspace: Path, study: str, storage: str, address: Address, stream: int, plugins: Sequence[Path] = ()
) -> str:
    """Tell a tracker what is new of a study until `stream` ends, and then the rest; return what went wrong last.

    A tracker that fails is opened anew at the next look, since what it had taken last is not known.
    """
    tracker, reader, pause, problem, last = None, None, EVERY, "", False
    while not last:
        last = bool(select.select([stream], [], [], pause)[0])
        try:
            first = tracker is None or reader is None
            tracker = tracker or opened(address, workspace, plugins)
            reader = reader or LedgerReader(workspace, storage or None)
            began = time.process_time()
            if study in reader.studies():
                with failures_told(address):
                    tell(results_of(reader, study, upcoming=True), tracker)
            pause = EVERY if first else max(EVERY, (time.process_time() - began) / SHARE)
            problem = ""
        except Exception as error:
            logger.debug("told at the end", exc_info=error)
            tracker = None
            problem, pause = problem_of(error, address).what, min(2 * pause, 60.0)
    if tracker is not None:
        with failures_told(address):
            tracker.close()
    return problem


class TrackersBeside:
    """A process for each tracker while a sweep lasts; at the end a note of each that was not told everything."""

    def __init__(
        self,
        addresses: Sequence[Address],
        workspace: Path,
        storage: str,
        study: str,
        note: Callable[[str], object],
        plugins: Sequence[Path] = (),
    ) -> None:
        """Start nothing yet. Raises `BenchkitError` for a tracker that there is not or that takes no running trials."""
        self._addresses, self._study, self._note = addresses, study, note
        self._workspace, self._storage, self._plugins = workspace, storage, plugins
        self._processes: list[subprocess.Popen[bytes]] = []
        for one in addresses:
            if not getattr(_known(plugins).load("trackers", one.name), "live", True):
                raise BenchkitError(
                    f"--track {one.name}: this tracker takes trials that have ended",
                    hint=f"after the sweep: {self._export_command(one)}",
                )

    def __enter__(self) -> TrackersBeside:
        """Start the processes."""
        for one in self._addresses:
            command = ["export", self._study, "--to", one.option, "--follow", "--workspace", str(self._workspace)]
            command += [f"--plugin={file}" for file in self._plugins]
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._processes.append(begin_benchkit(command, self._storage, **streams))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let each tell the rest, for as long as a tracker may take."""
        end = time.monotonic() + (ENDING if error is None else STOPPED)
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        for one, process in zip(self._addresses, self._processes, strict=True):
            try:
                out, _ = process.communicate(timeout=max(0.1, end - time.monotonic()))
                problem = json.loads(out)["problem"] if process.returncode == 0 else "its process ended early"
            except ValueError:
                problem = "its process printed something else than how it ended"
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                problem = "it did not answer in time"
            if problem:
                self._note(f"not all is told to {one.name}: {problem}; {self._export_command(one)}")

    def _export_command(self, address: Address) -> str:
        where = placed(self._workspace, self._plugins)
        return shlex.join(["benchkit", "export", self._study, "--to", address.option, *where])
