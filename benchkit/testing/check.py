"""One check of one plugin: what it promises, how it fails, and what a failure tells."""

from __future__ import annotations

import random
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchkit.errors import BenchkitError
from benchkit.registry.entries import kind_word
from benchkit.testing.subject import Subject

KIT_VERSION = 1
"""The version of the conformance kit; raised when a check is added or made stricter."""


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


class NotApplicable(unittest.SkipTest):
    """The check cannot be made here; the message says what it lacks. pytest counts it as skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A promise that every plugin of a kind keeps: `promise` in one sentence, `likely` why it is usually broken."""

    id: str
    promise: str
    likely: str
    test: Callable[[Subject], None]
    gpu: bool = False


def rule(id: str, *, likely: str, gpu: bool = False) -> Callable[[Callable[[Subject], None]], Rule]:
    """Return a decorator that makes a rule of a function; the promise is the docstring's first line."""

    def made(test: Callable[[Subject], None]) -> Rule:
        promise = (test.__doc__ or "").strip().partition("\n")[0]
        return Rule(id=id, promise=promise, likely=likely, test=test, gpu=gpu)

    return made


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A rule and the plugin it is put to. Calling it returns None, or raises `CheckFailure` or `NotApplicable`."""

    rule: Rule
    subject: Subject

    @property
    def id(self) -> str:
        """Return the rule's name, lower case with hyphens."""
        return self.rule.id

    def __call__(self) -> None:
        """Put the rule to the plugin; the random state and thread count of the process stay as they were."""
        with _process_state():
            try:
                self.rule.test(self.subject)
            except CheckFailure as failure:
                raise self._named(failure) from failure.__cause__
            except Exception as error:
                if isinstance(error, NotApplicable):
                    raise
                raise self._named(
                    CheckFailure(given=self.rule.promise, expected="no error", got=error_text(error))
                ) from error

    def _named(self, failure: CheckFailure) -> CheckFailure:
        failure.check = self.id
        failure.plugin = f"the {kind_word(self.subject.kind)} {self.subject.name!r}"
        failure.likely = failure.likely or self.rule.likely
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
    """Return an error's kind and message."""
    lines = [error.what, *error.problems] if isinstance(error, BenchkitError) else str(error).strip().splitlines()[:6]
    return f"{type(error).__name__}: " + "\n".join(lines)


@contextmanager
def _process_state() -> Iterator[None]:
    import numpy as np
    import torch

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the checks' tensors are small, and sums over threads differ from machine to machine
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        torch.set_num_threads(threads)


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 12)
