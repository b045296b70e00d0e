"""The conformance kit: the checks of a plugin, each with its verdict, or as pytest parameters."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchkit.errors import PluginError, nearest
from benchkit.registry.kinds import kind_word, parse_kind
from benchkit.registry.kit_record import KIT_VERSION, KitResult, keep
from benchkit.registry.registry import Entry
from benchkit.testing.check import Check, CheckFailure, CheckRule, NotApplicable
from benchkit.testing.subject import subject_of

if TYPE_CHECKING:
    import pytest

State = Literal["passed", "failed", "expected", "unexpected", "skipped"]
"""expected: it fails, as was stated with a reason; unexpected: it was stated to fail and passes, which is a failure."""

BAD: frozenset[State] = frozenset({"failed", "unexpected"})

Plugin = str | Entry | Callable[..., Any]
"""An installed plugin's name, a registry's entry, or the plugin itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one check; `note` is the reason of a skip or of a failure that was stated."""

    check: str
    promise: str
    state: State
    seconds: float
    failure: CheckFailure | None = None
    note: str = ""


def rules_of(kind: str) -> tuple[CheckRule, ...]:
    """Return the rules of a kind of plugin in the order in which they are tried."""
    kind = parse_kind(kind)
    if kind == "studies":
        raise PluginError("a study is a file, which `benchkit studies check` checks")
    modules = (importlib.import_module(f"benchkit.testing.{name}") for name in ("cards", kind))
    return tuple(rule for module in modules for rule in module.RULES)


def checks(
    kind: str, plugin: Plugin, *, options: Mapping[str, Any] | None = None, seed: int = 0
) -> Iterator[tuple[str, Check]]:
    """Yield (id, check) for every check of a plugin; calling a check runs it.

    `plugin` is an installed plugin's name (best: its entry point is tested too) or the object itself; `options` are
    given to it throughout, and everything random derives from `seed`. Checks whose `rule.gpu` is true need CUDA.
    Raises `PluginError` for an unknown or broken plugin, and for options that it does not take or lacks.
    """
    rules, subject = rules_of(kind), subject_of(kind, plugin, options, seed=seed)
    for rule in rules:
        yield rule.id, Check(rule, subject)


def run_checks(
    kind: str,
    plugin: Plugin,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
    gpu: bool = False,
) -> tuple[Verdict, ...]:
    """Return the verdict of every check of a plugin; those that need CUDA are left out unless `gpu`.

    `expected_failures` maps the ids of checks that are known to fail to the reason; one that passes is a failure then.
    Raises `PluginError` as `checks` does, and for an id that no check has.
    """
    stated = dict(expected_failures or {})
    known_ids(kind, stated)
    wanted = [check for _, check in checks(kind, plugin, options=options, seed=seed) if gpu or not check.rule.gpu]
    return tuple(_verdict(check, stated.get(check.id)) for check in wanted)


def known_ids(kind: str, stated: Mapping[str, str]) -> None:
    """Raise `PluginError` when a stated failure names no check of the kind, or has no reason."""
    ids = [rule.id for rule in rules_of(kind)]
    problems = [f"no check is called {id!r}{nearest(id, ids)}" for id in stated if id not in ids]
    problems += [f"{id}: the reason is missing" for id, reason in stated.items() if not reason.strip()]
    if problems:
        raise PluginError(
            "the expected failures are wrong", problems=problems, hint=f"checks of a {kind_word(parse_kind(kind))}: "
            + ", ".join(ids),
        )  # fmt: skip


def summary(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts counted in words, such as `18 passed, 1 skipped`."""
    words = {
        "failed": "failed",
        "unexpected": "passed against expectation",
        "passed": "passed",
        "expected": "failed as expected",
        "skipped": "skipped",
    }
    states = [verdict.state for verdict in verdicts]
    return ", ".join(f"{states.count(state)} {word}" for state, word in words.items() if state in states)


def folded(verdicts: Sequence[Verdict]) -> list[tuple[Verdict, tuple[str, ...]]]:
    """Return the failures that differ in more than numbers, each with the names of the checks that fail alike."""
    alike: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.state == "failed" and (failure := verdict.failure) is not None:
            cause = failure.got if failure.__cause__ else f"{failure.expected}\n{failure.got}"
            alike.setdefault(re.sub(r"\d+", "#", cause), []).append(verdict)
    return [(first, tuple(other.check for other in others)) for first, *others in alike.values()]


def _verdict(check: Check, stated: str | None) -> Verdict:
    start = time.perf_counter()
    state, failure, note = _tried(check, stated)
    return Verdict(
        check=check.id,
        promise=check.rule.promise,
        state=state,
        seconds=time.perf_counter() - start,
        failure=failure,
        note=note,
    )


def _tried(check: Check, stated: str | None) -> tuple[State, CheckFailure | None, str]:
    try:
        check()
    except CheckFailure as failure:
        return ("failed", failure, "") if stated is None else ("expected", failure, stated)
    except NotApplicable as reason:
        return "skipped", None, str(reason)
    return ("passed", None, "") if stated is None else ("unexpected", None, f"stated to fail: {stated}")


def parametrize_checks(
    kind: str,
    plugin: Plugin,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pytest.MarkDecorator:
    """Return a pytest decorator that gives a test its argument `check`, once for each check of a plugin.

        @parametrize_checks("norms", "pixel")
        def test_kit(check):
            check()

    `plugin`, `options` and `seed` are those of `benchkit.testing.checks`. `expected_failures` maps the ids of checks
    that are known to fail to the reason: such a test counts as xfailed, and fails when the check passes. Checks that
    need CUDA carry the marker `gpu` and are skipped without it. Raises `PluginError` at collection as `checks` does.
    """
    import pytest

    stated = dict(expected_failures or {})
    known_ids(kind, stated)
    parameters = []
    for id, check in checks(kind, plugin, options=options, seed=seed):
        marks = [pytest.mark.gpu, pytest.mark.skipif(not _has_cuda(), reason="needs CUDA")] if check.rule.gpu else []
        if id in stated:
            marks.append(pytest.mark.xfail(raises=CheckFailure, strict=True, reason=stated[id]))
        parameters.append(pytest.param(check, id=id, marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def remember(entry: Entry, verdicts: Sequence[Verdict]) -> None:
    """Keep the verdicts of a plugin for reports, which tell them beside its name."""
    states = [verdict.state for verdict in verdicts]
    result = KitResult(
        kit=KIT_VERSION,
        passed=states.count("passed"),
        skipped=states.count("skipped"),
        failed=tuple(verdict.check for verdict in verdicts if verdict.state in BAD),
        known={verdict.check: verdict.note for verdict in verdicts if verdict.state == "expected"},
        when=time.time(),
    )
    keep(entry, result)
