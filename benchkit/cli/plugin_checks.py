"""`benchkit plugins check`: the conformance kit, put to installed plugins and to local files."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchkit.cli.completion import complete_kind, complete_plugin
from benchkit.cli.options import PluginFiles
from benchkit.errors import BenchkitError, PluginError
from benchkit.registry import Registry
from benchkit.registry.entries import Entry
from benchkit.registry.kinds import KINDS, kind_word, parse_kind

if TYPE_CHECKING:
    from benchkit.registry.options import Option
    from benchkit.testing import Verdict

Pairs = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Give the plugin an option throughout.")
]
Expected = Annotated[
    list[str] | None,
    typer.Option("--expect", metavar="CHECK=REASON", help="A check known to fail; passing it is a failure."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of one plugin: passed, failed, broken (not importable) or skipped (options are missing)."""

    entry: Entry
    result: str
    reason: str
    verdicts: tuple[Verdict, ...]
    seconds: float
    unvaried: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How plugins are checked: options, stated failures, seed, and whether checks that need CUDA are made."""

    options: Mapping[str, Any]
    expected: Mapping[str, str]
    seed: int
    gpu: bool


def check_plugins(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", autocompletion=complete_plugin, help="A plugin's name.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Check every plugin, or every one of a kind.")] = False,
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", autocompletion=complete_kind, help="Only this kind.")
    ] = "",
    option: Pairs = None,
    expect: Expected = None,
    seed: Annotated[int, typer.Option(help="The seed of everything random in the checks.")] = 0,
    gpu: Annotated[bool, typer.Option("--gpu", help="Make the checks that need CUDA too.")] = False,
    plugin: PluginFiles = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name every check.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put plugins to the conformance kit; exit with 1 if one fails. A failure names check, input, expected and got."""
    from benchkit.cli.app import print_json

    if bool(name) == everything:
        raise PluginError("name one plugin, or give --all", hint="for example `benchkit plugins check gn`")
    registry = Registry.installed(plugin or ())
    terms = Terms(options=_values(option or ()), expected=_reasons(expect or ()), seed=seed, gpu=gpu)
    results = []
    for entry, variant in _chosen(registry, name, kind):
        checked = _checked(entry, variant, terms, lenient=everything)
        results.append(checked)
        if not json:
            _print(checked, verbose)
    if json:
        print_json(_to_json(results))
    if any(checked.result in ("failed", "broken") for checked in results):
        raise typer.Exit(1)


def _chosen(registry: Registry, name: str, kind: str) -> list[tuple[Entry, str | None]]:
    kinds = [checked for checked in ([parse_kind(kind)] if kind else KINDS) if checked != "studies"]
    if name:
        return registry.search(name, kinds)
    return [(entry, None) for checked in kinds for entry in registry.entries(checked)]


def _checked(entry: Entry, variant: str | None, terms: Terms, *, lenient: bool) -> Checked:
    """Return what the kit says of a plugin; what the plugin prints goes to stderr."""
    from benchkit.registry.options import options_of
    from benchkit.registry.registry import load_plugin
    from benchkit.testing import run_checks
    from benchkit.testing.kit import BAD
    from benchkit.testing.record import remember
    from benchkit.testing.subject import missing_options, unvaried_options

    start = time.perf_counter()
    options = {**terms.options, **({"variant": variant} if variant else {})}
    with contextlib.redirect_stdout(sys.stderr):
        try:
            known = options_of(load_plugin(entry), entry.kind)
            lacking = missing_options(known, options)
        except BenchkitError as error:
            return _without(entry, "broken", (*error.problems, error.what)[0], start)
        if lacking and lenient:
            needed = ", ".join(f"{option.name} ({option.expected})" for option in lacking)
            return _without(entry, "skipped", f"it needs options: {needed}", start)
        verdicts = run_checks(
            entry.kind,
            entry,
            options=options,
            expected_failures=terms.expected,
            seed=terms.seed,
            gpu=terms.gpu,
        )
    remember(entry, verdicts)
    failed = any(verdict.state in BAD for verdict in verdicts)
    return Checked(
        entry=entry,
        result="failed" if failed else "passed",
        reason="",
        verdicts=verdicts,
        seconds=time.perf_counter() - start,
        unvaried=tuple(unvaried_options(known, options)),
    )


def _without(entry: Entry, result: str, reason: str, start: float) -> Checked:
    return Checked(entry=entry, result=result, reason=reason, verdicts=(), seconds=time.perf_counter() - start)


def _values(pairs: Sequence[str]) -> dict[str, Any]:
    from benchkit.study.factors import parse_value

    return {name: parse_value(text) for name, text in _split(pairs, "--option", "NAME=VALUE, as in groups=8")}


def _reasons(pairs: Sequence[str]) -> dict[str, str]:
    return dict(_split(pairs, "--expect", "CHECK=REASON, as in compile='it calls item()'"))


def _split(pairs: Sequence[str], flag: str, example: str) -> list[tuple[str, str]]:
    wrong = [f"{flag} {pair}: expected {example}" for pair in pairs if not all(pair.partition("=")[::2])]
    if wrong:
        raise PluginError("the plugin cannot be checked as asked", problems=wrong)
    return [(pair.partition("=")[0].strip(), pair.partition("=")[2].strip()) for pair in pairs]


def _print(checked: Checked, verbose: bool) -> None:
    from benchkit.cli.app import print_text
    from benchkit.testing.kit import summary

    entry, colour = checked.entry, {"passed": "green", "skipped": "yellow"}.get(checked.result, "bold red")
    outcome = summary(checked.verdicts) if checked.verdicts else f"{checked.result}: {checked.reason}"
    print_text(f"{kind_word(entry.kind)} {entry.name} ({entry.origin}): {outcome}", colour)
    for verdict in checked.verdicts:
        if verdict.failure is not None and verdict.state == "failed":
            print_text(verdict.failure)
        elif verdict.state == "unexpected":
            print_text(f"  {verdict.check} passed, though it was {verdict.note}")
        elif verbose:
            note = f" ({verdict.note})" if verdict.note else ""
            print_text(f"  {verdict.check}: {verdict.state}, {verdict.seconds:.1f} s{note}. {verdict.promise}")
    for option in checked.unvaried if entry.kind == "regularizers" or verbose else ():
        hint = f"`--option {option.name}=...` checks another value"
        print_text(f"  not varied: {option.name} ({option.type}); {hint}")


def _to_json(results: Sequence[Checked]) -> dict[str, Any]:
    from benchkit.testing import KIT_VERSION

    return {
        "kit": KIT_VERSION,
        "plugins": [
            {
                "kind": checked.entry.kind,
                "name": checked.entry.name,
                "distribution": checked.entry.distribution,
                "version": checked.entry.version,
                "origin": checked.entry.origin,
                "result": checked.result,
                "reason": checked.reason,
                "seconds": round(checked.seconds, 3),
                "not_varied": [option.name for option in checked.unvaried],
                "checks": [_verdict_json(verdict) for verdict in checked.verdicts],
            }
            for checked in results
        ],
    }


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    failure = verdict.failure
    facts = {name: getattr(failure, name, "") for name in ("given", "expected", "got", "likely")}
    return {
        "check": verdict.check,
        "promise": verdict.promise,
        "state": verdict.state,
        "seconds": round(verdict.seconds, 3),
        "note": verdict.note,
        **facts,
    }
