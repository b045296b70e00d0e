"""One check of one plugin: what it promises, how it fails, and what a failure tells."""

from __future__ import annotations

import dis
import logging
import random
import re
import signal
import sysconfig
import threading
import traceback
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchkit.errors import BenchkitError
from benchkit.registry.kinds import kind_word
from benchkit.testing.subject import Subject

RAISED = "the plugin raised this error itself: its message and line say more"
"""The likely reason of an error where the check expects none."""

UNFIT = "benchkit or a library raised it, calling the plugin or using what it returned: see benchkit/protocols.py"
"""The likely reason of an error that no line of the plugin raised."""

_LIBRARY = sysconfig.get_path("stdlib")


class CheckFailure(AssertionError):
    """A plugin broke a promise: the check, what it was given, what was expected, what came, and the likely reason."""

    def __init__(self, *, given: str, expected: str, got: str, likely: str = "") -> None:
        super().__init__(given, expected, got)
        self.check = ""
        self.plugin = ""
        self.given = given
        self.expected = expected
        self.got = got
        self.likely = likely

    def __str__(self) -> str:
        lines = [f"check {self.check!r} failed for {self.plugin}"] if self.check else []
        facts = (("input", self.given), ("expected", self.expected), ("got", self.got), ("likely", self.likely))
        lines += [f"  {name + ':':<10}{_indented(text)}" for name, text in facts if text]
        return "\n".join(lines)


class TooLong(BaseException):
    """The check takes longer than it may. No `Exception`, so that a plugin that catches those does not catch this."""


class NotApplicable(unittest.SkipTest):
    """The check cannot be made here; the message says what it lacks. pytest counts it as skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRule:
    """A promise that every plugin of a kind keeps: `promise` in one sentence, `likely` why it is usually broken.

    A check of it may take `seconds` of processor time, and ten times as long by the clock.
    """

    id: str
    promise: str
    likely: str
    test: Callable[[Subject], None]
    gpu: bool = False
    seconds: float = 60.0


def rule(id: str, *, likely: str, gpu: bool = False) -> Callable[[Callable[[Subject], None]], CheckRule]:
    """Return a decorator that makes a rule of a function; the promise is the docstring's first line."""

    def made(test: Callable[[Subject], None]) -> CheckRule:
        promise = (test.__doc__ or "").strip().partition("\n")[0]
        return CheckRule(id=id, promise=promise, likely=likely, test=test, gpu=gpu)

    return made


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A rule and the plugin it is put to. Calling it returns None, or raises `CheckFailure` or `NotApplicable`."""

    rule: CheckRule
    subject: Subject

    @property
    def id(self) -> str:
        """Return the rule's name, lower case with hyphens."""
        return self.rule.id

    def __call__(self) -> None:
        """Put the rule to the plugin; the random state and thread count of the process stay as they were."""
        try:
            with (
                _process_state(),
                _time_limit(self.rule.seconds),
                attempt(self.rule.promise, likely=RAISED),
            ):
                self.rule.test(self.subject)
        except CheckFailure as failure:
            raise self._named(failure) from failure.__cause__
        except TooLong as late:
            unfinished = CheckFailure(
                given=self.rule.promise,
                expected=f"an end within {self.rule.seconds:g} s of processor time",
                got=f"still running{_place(late)}",
                likely="an option's value makes a loop long, or a loop has no end",
            )
            raise self._named(unfinished) from late

    def _named(self, failure: CheckFailure) -> CheckFailure:
        failure.check = self.id
        failure.plugin = f"the {kind_word(self.subject.kind)} {self.subject.name!r}"
        failure.likely = _whose(failure.__cause__, self.subject, failure.likely) or failure.likely or self.rule.likely
        return failure


def require(holds: object, *, given: str, expected: str, got: str, likely: str = "") -> None:
    """Raise `CheckFailure` unless `holds`; `likely` stands in for the rule's own likely reason."""
    if not holds:
        raise CheckFailure(given=given, expected=expected, got=got, likely=likely)


@contextmanager
def attempt(given: str, expected: str = "no error", likely: str = "") -> Iterator[None]:
    """Turn whatever the block raises into a `CheckFailure` with this input."""
    try:
        yield
    except (CheckFailure, NotApplicable):
        raise
    except Exception as error:
        raise CheckFailure(given=given, expected=expected, got=error_text(error), likely=likely) from error


def error_text(error: BaseException) -> str:
    """Return an error's kind and message, and the plugin's line where it was raised."""
    lines = [error.what, *error.problems] if isinstance(error, BenchkitError) else str(error).strip().splitlines()[:6]
    text = re.sub(r"\bbenchkit_file_[0-9a-f]+_[0-9a-f]+\.", "", "\n".join(lines))  # the module that a file became
    return f"{type(error).__name__}: {text}{_place(error)}"


def _place(error: BaseException) -> str:
    """Return the innermost line outside of benchkit, PyTorch and Python that an error passed, if there is any."""
    own = str(Path(__file__).parents[1])
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        pythons = frame.filename.startswith(_LIBRARY) and "-packages" not in frame.filename
        if not (pythons or frame.filename.startswith((own, "<")) or "site-packages/torch/" in frame.filename):
            return f" ({frame.filename}:{frame.lineno}, in {frame.name})"
    return ""


def _whose(error: BaseException | None, subject: Subject, guess: str) -> str:
    """Return the likely reason of an error that a line of the plugin raised, or none of its lines, else nothing.

    A `guess` of the check stands where the plugin's line called what raised a `RuntimeError`, as PyTorch does.
    """
    steps = list(_steps(error.__traceback__)) if error is not None else []
    if not steps or isinstance(error, TooLong):
        return ""
    own = [step for step in steps if _package(step.tb_frame.f_globals.get("__name__")) in _packages(subject)]
    innermost = steps[-1]
    if own and innermost is own[-1]:
        raised = dis.opname[innermost.tb_frame.f_code.co_code[innermost.tb_lasti]] == "RAISE_VARARGS"
        return RAISED if raised or not isinstance(error, RuntimeError | OSError) else ""
    told = isinstance(error, BenchkitError) or _package(innermost.tb_frame.f_globals.get("__name__")) == "torch"
    return UNFIT if not own and (guess == RAISED or not (guess or told)) else ""


def _steps(step: TracebackType | None) -> Iterator[TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next


def _packages(subject: Subject) -> set[str]:
    modules = [getattr(subject.plugin, "__module__", None), subject.entry.value if subject.entry else None]
    return {_package(module) for module in modules if module}


def _package(module: object) -> str:
    return str(module).partition(":")[0].partition(".")[0]


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the block after `seconds` of this process's time, or ten times as long by the clock.

    Only the main thread of a system with Python's interval timers can be interrupted; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGPROF"):
        yield
        return

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    clock = threading.Timer(10 * seconds, signal.pthread_kill, (threading.get_ident(), signal.SIGPROF))
    clock.daemon = True
    clock.start()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        clock.cancel()
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _process_state() -> Iterator[None]:
    import numpy as np
    import torch

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    threads, logger = torch.get_num_threads(), logging.getLogger("benchkit.train")
    level = logger.level
    logger.setLevel(logging.ERROR)  # how steps were taken is what some checks ask: the verdict tells it
    torch.set_num_threads(1)  # the checks' tensors are small, and sums over threads differ from machine to machine
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        torch.set_num_threads(threads)
        logger.setLevel(level)


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 12)
