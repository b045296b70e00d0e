"""`benchkit plugins`: which plugins there are, what each takes, and whether it works, by the conformance kit too."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchkit.cli.app import cell, line, print_facts, print_json, print_note, print_table, print_text
from benchkit.cli.options import AsJson, PluginFiles, complete_kind, complete_plugin
from benchkit.errors import BenchkitError, PluginError, shortened
from benchkit.registry import Registry
from benchkit.registry.description import Description, describe_all, glance, to_json
from benchkit.registry.kinds import KINDS, kind_word, parse_kind
from benchkit.registry.options import REQUIRED, Option, options_of
from benchkit.registry.registry import Entry, load_plugin
from benchkit.study.tree import parse_value

if TYPE_CHECKING:
    from benchkit.testing import Verdict

KINDS_WRITTEN = tuple(kind for kind in KINDS if kind != "studies")
MOST_ROWS = 300
"""The most plugins of one kind that are listed of one distribution."""

app = typer.Typer(no_args_is_help=True, help=f"List, show, check and write plugins. Kinds: {', '.join(KINDS)}.")

KindOption = Annotated[
    str,
    typer.Option("--kind", metavar="KIND", autocompletion=complete_kind, help=f"Only this kind: {', '.join(KINDS)}."),
]
Pairs = Annotated[
    list[str], typer.Option("--option", metavar="NAME=VALUE", help="Give the plugin an option throughout.")
]
Expected = Annotated[
    list[str],
    typer.Option("--expect", metavar="CHECK=REASON", help="A check known to fail; passing it is a failure."),
]


@app.command("list")
def list_plugins(
    kind: KindOption = "",
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="Import every plugin; exit with 1 if one is broken.")] = False,
    plugin: PluginFiles = [],
) -> None:
    """List plugins with origin and status, without importing them (unless --check)."""
    registry = Registry.installed(plugin)
    entries = registry.entries(parse_kind(kind) if kind else None)
    descriptions = describe_all(entries) if check else glance(entries)
    claims = Counter((entry.kind, entry.name) for entry in entries)
    claimed = [entry for entry in entries if claims[entry.kind, entry.name] > 1]
    if as_json:
        print_json([_row_json(description, description.entry in claimed) for description in descriptions])
    else:
        _print_list(descriptions, claimed)
    if check and any(description.status == "broken" for description in descriptions):
        raise typer.Exit(1)


@app.command("show")
def show_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_plugin, help="A plugin's name.")],
    kind: KindOption = "",
    as_json: AsJson = False,
    plugin: PluginFiles = [],
) -> None:
    """Show a plugin's card and options; of all kinds and distributions that have the name. Exit with 1 if broken."""
    kinds = [parse_kind(kind)] if kind else KINDS
    found = Registry.installed(plugin).search(name, kinds)
    descriptions = [
        replace(one, rates=one.variant_rates.get(variant, one.rates)) if variant else one
        for one, (_, variant) in zip(describe_all([entry for entry, _ in found]), found, strict=True)
    ]
    if as_json:
        print_json([to_json(description) for description in descriptions])
    else:
        for position, description in enumerate(descriptions):
            if position:
                print_text("")
            _print_description(description)
        if len({description.entry.kind for description in descriptions}) < len(descriptions):
            print_note("several distributions have this name; in a study, write one as distribution:name")
    if any(description.status == "broken" for description in descriptions):
        raise typer.Exit(1)


@app.command("check")
def check_plugins(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", autocompletion=complete_plugin, help="A plugin's name.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Check every plugin, or every one of a kind.")] = False,
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", autocompletion=complete_kind, help="Only this kind.")
    ] = "",
    option: Pairs = [],
    expect: Expected = [],
    seed: Annotated[int, typer.Option(help="The seed of everything random in the checks.")] = 0,
    gpu: Annotated[bool, typer.Option("--gpu", help="Make the checks that need CUDA too.")] = False,
    plugin: PluginFiles = [],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name every check.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put plugins to the conformance kit; exit with 1 if one fails. A failure names check, input, expected and got."""
    if bool(name) == everything:
        raise PluginError("name one plugin, or give --all", hint="for example `benchkit plugins check gn`")
    registry = Registry.installed(plugin)
    pairs = _pairs(option, "--option", "NAME=VALUE, as in groups=8")
    options = {name: parse_value(text) for name, text in pairs.items()}
    reasons = _pairs(expect, "--expect", "CHECK=REASON, as in compile='it calls item()'")
    kinds = [one for one in ([parse_kind(kind)] if kind else KINDS) if one != "studies"]
    found = (
        registry.search(name, kinds) if name else [(entry, None) for one in kinds for entry in registry.entries(one)]
    )
    results = []
    for entry, variant in found:
        given = {**options, **({"variant": variant} if variant else {})}
        checked = _checked(entry, given, lenient=everything, expected_failures=reasons, seed=seed, gpu=gpu)
        results.append(checked)
        if not as_json:
            _print_checked(checked, verbose)
    if as_json:
        print_json(_checked_json(results))
    if any(checked.result in ("failed", "broken") for checked in results):
        raise typer.Exit(1)


@app.command("new")
def new_plugin(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS_WRITTEN)}.", show_default=False),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name: lower case, hyphens.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write it; ./benchkit-NAME by default.")
    ] = None,
    author: Annotated[str, typer.Option(help="The author's name, for the licence.")] = "",
) -> None:
    """Write a complete package with a small working plugin: source, card, test with the kit, README, licence."""
    from benchkit.registry.scaffolding import install_command, plan_project, write_project

    project = plan_project(kind, name, Registry.installed(), author=author)
    folder = out or Path(project.distribution)
    for path in write_project(project, folder):
        print_text(path.as_posix())
    print_note("next:")
    for command in (install_command(folder), f"benchkit plugins check {name} --kind {project.kind}"):
        print_note(f"  {command}")
    print_note(f"then edit {folder / project.source}")


def _row_json(description: Description, claimed: bool) -> dict[str, Any]:
    names = ("kind", "name", "distribution", "version", "target", "origin", "status", "reason", "title", "summary")
    values = to_json(description)
    return {name: values[name] for name in names} | {"ambiguous": claimed}


def _print_list(descriptions: Sequence[Description], claimed: Sequence[Entry]) -> None:
    """Print a line for each plugin: of one distribution and kind at most `MOST_ROWS`, the others counted."""
    counts = Counter((description.entry.kind, description.entry.distribution) for description in descriptions)
    places = Counter[tuple[str, str]]()
    shown = []
    for description in descriptions:
        group = description.entry.kind, description.entry.distribution
        places[group] += 1
        if places[group] <= MOST_ROWS:
            shown.append(description)
    rows = [
        (
            description.entry.kind,
            shortened(description.entry.qualified if description.entry in claimed else description.entry.name),
            shortened(description.entry.origin),
            cell(description.status, {"ok": "green", "broken": "bold red"}.get(description.status, "")),
            shortened(line(description.reason or description.title)),
        )
        for description in shown
    ]
    print_table(("kind", "name", "origin", "status", ""), rows)
    for (kind, distribution), count in counts.items():
        if count > MOST_ROWS:
            print_note(f"{count - MOST_ROWS:,} more {kind} of {shortened(distribution)} are not shown; --json has all")
    states = [description.status for description in descriptions]
    totals = [(states.count("broken"), "broken"), (states.count("unchecked"), "not imported yet")]
    notable = ", ".join(f"{count} {what}" for count, what in totals if count)
    if notable:
        print_note(f"{notable}; `benchkit plugins list --check` imports all, `benchkit plugins show NAME` one")


def _print_description(description: Description) -> None:
    entry = description.entry
    print_text(f"{entry.name}: {line(description.title) or kind_word(entry.kind)}", "bold")
    if description.summary:
        print_text(line(description.summary))
    print_facts(
        {
            "kind": kind_word(entry.kind),
            "origin": entry.origin,
            "target": entry.value,
            "reference": line(description.reference),
            "url": line(description.url),
            "learning rates": description.rates,
            "status": description.status,
            "reason": description.reason,
        }
    )
    if description.detail:
        print_text("\n" + description.detail.rstrip(), "dim")
    if description.options:
        print_text("\noptions", "bold")
        print_table(("name", "type", "default", "allowed", ""), [_option_row(option) for option in description.options])


def _option_row(option: Option) -> tuple[str, ...]:
    default = "required" if option.default is REQUIRED else repr(option.default)
    return option.name, option.type, default, _allowed(option), option.help


def _allowed(option: Option) -> str:
    if option.choices:
        return ", ".join(str(choice) for choice in option.choices)
    if option.low is None or option.high is None:
        return ""
    return f"{option.low:g}..{option.high:g}" + (" (log)" if option.log else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of one plugin: passed, failed, broken (not importable) or skipped (options are missing)."""

    entry: Entry
    result: str
    seconds: float
    reason: str = ""
    verdicts: tuple[Verdict, ...] = ()
    unvaried: tuple[Option, ...] = ()


def _checked(entry: Entry, options: Mapping[str, Any], *, lenient: bool, **terms: Any) -> Checked:
    """Return what the kit says of a plugin, checked on the terms that `run_checks` takes.

    What the plugin prints goes to stderr. With `lenient`, one that lacks options is skipped.
    """
    from benchkit.testing import run_checks
    from benchkit.testing.kit import BAD, remember
    from benchkit.testing.subject import missing_options, unvaried_options

    start = time.perf_counter()

    def checked(result: str, **more: Any) -> Checked:
        return Checked(entry=entry, result=result, seconds=time.perf_counter() - start, **more)

    with contextlib.redirect_stdout(sys.stderr):
        try:
            known = options_of(load_plugin(entry), entry.kind)
            lacking = missing_options(known, options)
        except BenchkitError as error:
            return checked("broken", reason=(*error.problems, error.what)[0])
        if lacking and lenient:
            needed = ", ".join(f"{option.name} ({option.expected})" for option in lacking)
            return checked("skipped", reason=f"it needs options: {needed}")
        verdicts = run_checks(entry.kind, entry, options=options, **terms)
    remember(entry, verdicts)
    result = "failed" if any(verdict.state in BAD for verdict in verdicts) else "passed"
    return checked(result, verdicts=verdicts, unvaried=tuple(unvaried_options(known, options)))


def _pairs(given: Sequence[str], flag: str, example: str) -> dict[str, str]:
    """Return what `NAME=TEXT` texts say by name; raise `PluginError` with all that do not."""
    pairs = [text.partition("=")[::2] for text in given]
    wrong = [f"{flag} {text}: expected {example}" for text, pair in zip(given, pairs, strict=True) if not all(pair)]
    if wrong:
        raise PluginError("the plugin cannot be checked as asked", problems=wrong)
    return {name.strip(): text.strip() for name, text in pairs}


def _print_checked(checked: Checked, verbose: bool) -> None:
    from benchkit.testing.kit import folded, summary

    entry, colour = checked.entry, {"passed": "green", "skipped": "yellow"}.get(checked.result, "bold red")
    outcome = summary(checked.verdicts) if checked.verdicts else f"{checked.result}: {checked.reason}"
    print_text(f"{kind_word(entry.kind)} {entry.name} ({entry.origin}): {outcome}", colour)
    alike = dict(folded(checked.verdicts))
    for verdict in checked.verdicts:
        if verdict in alike or (verdict.state == "failed" and verbose):
            print_text(verdict.failure)
            if others := () if verbose else alike[verdict]:
                print_text(f"  the same in {len(others)} more, which --verbose tells in full: {', '.join(others)}")
        elif verdict.state == "failed":
            continue
        elif verdict.state == "unexpected":
            print_text(f"  {verdict.check} passed, though it was {verdict.note}")
        elif verbose:
            note = f" ({verdict.note})" if verdict.note else ""
            print_text(f"  {verdict.check}: {verdict.state}, {verdict.seconds:.1f} s{note}. {verdict.promise}")
    for option in checked.unvaried if entry.kind == "regularizers" or verbose else ():
        hint = f"`--option {option.name}=...` checks another value"
        print_text(f"  not varied: {option.name} ({option.type}); {hint}")


def _checked_json(results: Sequence[Checked]) -> dict[str, Any]:
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
