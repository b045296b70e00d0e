"""Child processes: Python run apart, where what it does may crash, hang or fill the memory.

`run_python` runs one to its end; `PythonChild` does so with one that is begun before there is anything to do.
`LineChild` keeps one that answers lines of JSON with lines of JSON; the child's side of that is `answer_lines`. Last
comes what a process, child or not, does about its memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

MOST_DETAIL = 6000
"""So many bytes of the end of what a child printed are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildResult:
    """How a child ended: what it wrote to standard output, and why it failed in words, nothing where it did not.

    `code` is the exit status, negative for a signal, and None where it was `late` and killed or could not be started.
    """

    out: str
    problem: str = ""
    code: int | None = None
    late: bool = False


def import_path() -> str:
    """Return the `PYTHONPATH` with which a child finds what this process finds."""
    return os.pathsep.join(os.path.abspath(entry) for entry in sys.path)


def _begun(arguments: Sequence[str], environment: Mapping[str, str], **given: Any) -> subprocess.Popen[Any]:
    """Begin `python ARGUMENTS`, which imports what this process imports, with pipes for what it is told and says."""
    command = [sys.executable, "-P", *arguments]
    whole = {**os.environ, "PYTHONPATH": import_path(), **environment}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=whole, **given)


def run_python(
    arguments: Sequence[str], seconds: float, *, text: str = "", environment: Mapping[str, str] | None = None
) -> ChildResult:
    """Return how `python ARGUMENTS` ended within `seconds`, with `text` on its standard input.

    It imports what this process imports; `environment` is added to this process's.
    """
    with PythonChild(arguments, environment=environment) as child:
        return child.finish(seconds, text=text)


def begin_benchkit(arguments: Sequence[str], storage: str, **streams: Any) -> subprocess.Popen[bytes]:
    """Begin `benchkit ARGUMENTS` beside this process, which imports what this process imports.

    It has a session of its own, as Ctrl-C is this process's to hear, and an input by whose end it knows of this one's.
    `storage` is the ledger's address, as `BENCHKIT_STORAGE` has it; `streams` are other options of `Popen`.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "benchkit", *arguments],
        env={**os.environ, "PYTHONPATH": import_path(), "BENCHKIT_STORAGE": storage},
        stdin=subprocess.PIPE,
        start_new_session=True,
        **streams,
    )


PATIENCE = 5.0
"""So many seconds a child that was told nothing has to end by itself."""


class PythonChild:
    """A `python ARGUMENTS` that is begun now and told later what to do, so that its imports take no time then.

    It imports what this process imports; `environment` is added to this process's. Use it as a context manager: the
    process ends with it. One that was told nothing may end by itself first, for `PATIENCE` seconds: killed among its
    imports, it would leave what these have begun, such as a search for libraries.
    """

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Begin the process; where that fails, `finish` says so."""
        self._process: subprocess.Popen[str] | None = None
        self._failure = ""
        try:
            self._process = _begun(arguments, environment or {}, stderr=subprocess.PIPE, text=True, errors="replace")
        except OSError as error:
            self._failure = str(error)

    def __enter__(self) -> PythonChild:
        """Return the child."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, where it has not ended; what it has begun itself may keep its pipes."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def finish(self, seconds: float, *, text: str = "") -> ChildResult:
        """Return how it ended within `seconds` from now on, with `text` on its standard input."""
        process = self._process
        if process is None:
            return ChildResult(out="", problem=self._failure)
        try:
            out, errors = process.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired as late:
            out = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
            return ChildResult(out=out, problem=f"no answer within {seconds:g} s", late=True)
        last = errors.strip().splitlines()[-1:]
        reason = last[0] if last and process.returncode > 0 else f"it {exit_words(process.returncode)}"
        problem = reason if process.returncode else ""
        return ChildResult(out=out, problem=problem, code=process.returncode)


def exit_words(code: int) -> str:
    """Return how a process ended, as the end of a sentence: `ended the process by signal SIGKILL`."""
    if code < 0:
        names = {known.value: known.name for known in signal.Signals}  # of real-time signals two have a name
        return f"ended the process by signal {names.get(-code, -code)}"
    return f"ended the process with exit status {code}"


class ChildLost(Exception):
    """A `LineChild` ended, or was killed for being `late`, instead of answering.

    `reason` ends a sentence that begins with what it was asked; `detail` is the end of what it printed.
    """

    def __init__(self, reason: str, detail: str, *, late: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.late = late


class LineChild:
    """A Python process that answers each request, a line of JSON, with one within `seconds`.

    It starts with the first request, or before with `begin`, and anew with the first request after it was lost. Use it
    as a context manager: the process is killed with it, whatever threads and exit handlers it has.
    """

    def __init__(self, arguments: Sequence[str], seconds: float) -> None:
        """Start nothing yet."""
        self.seconds = seconds
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> LineChild:
        """Return the child."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._end(patience=0.0)

    def begin(self) -> None:
        """Start the process now, so that it is ready when it is asked."""
        self._process = self._process or self._start()

    def ask(self, request: Any) -> Any:
        """Return the answer; raise `ChildLost` when there is none."""
        try:
            self.begin()
        except OSError as error:
            raise ChildLost(f"could not be started: {error}", "", late=False) from error
        process = self._process
        assert process is not None
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.seconds, stop)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()
        if answer.endswith(b"\n"):
            if late.is_set():  # it was killed as it answered: the next request gets another process
                self._end(patience=0.0)
            return json.loads(answer)
        code, detail = self._end(patience=10.0)
        reason = f"did not finish within {self.seconds:g} s" if late.is_set() else exit_words(code)
        raise ChildLost(reason, detail, late=late.is_set())

    def _start(self) -> subprocess.Popen[bytes]:
        errors = tempfile.TemporaryFile()
        try:
            process = _begun(self._arguments, {}, stderr=errors)
        except OSError:
            errors.close()
            raise
        self._errors = errors
        return process

    def _end(self, patience: float) -> tuple[int, str]:
        """Wait so many seconds for the process to end, kill it, and return its exit code and the end of its words."""
        process, errors, self._process, self._errors = self._process, self._errors, None, None
        if process is None or errors is None:
            return 0, ""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            if patience:
                process.wait(timeout=patience)
        process.kill()
        code = process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        with errors:
            errors.seek(0)
            return code, errors.read()[-MOST_DETAIL:].decode(errors="replace")


def answer_stream() -> TextIO:
    """In the child: return what writes to standard output; whatever else prints from now on goes to standard error.

    Libraries do print: WeasyPrint, for one, where a system library is missing.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def answer_lines(answer: Callable[[Any], Any]) -> None:
    """In the child: answer every line of JSON on standard input until it ends.

    Whatever else prints goes to standard error, and nothing else reads the requests.
    """
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), answer_stream()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for line in requests:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


def limit_memory(mib: int, *, filled: bool = False) -> None:
    """Limit this process's address space, or the memory that it fills (not reserves), where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA if filled else resource.RLIMIT_AS, (mib * 2**20, mib * 2**20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def give_back_memory() -> None:
    """Return what this process has freed to the system, where its allocator keeps it (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows
        ctypes.CDLL(None).malloc_trim(0)
