"""`benchkit plugins`: which plugins there are, whether they work, and what each takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchkit.cli.app import cell, line, print_facts, print_json, print_note, print_table, print_text
from benchkit.cli.completion import complete_kind, complete_plugin
from benchkit.cli.options import PluginFiles
from benchkit.cli.plugin_checks import check_plugins
from benchkit.errors import shortened
from benchkit.registry import Registry
from benchkit.registry.description import Description, to_json
from benchkit.registry.entries import Entry
from benchkit.registry.kinds import KINDS, kind_word, parse_kind
from benchkit.registry.options import REQUIRED, Option

KINDS_WRITTEN = tuple(kind for kind in KINDS if kind != "studies")
MOST_ROWS = 300
"""The most plugins of one kind that are listed of one distribution."""

app = typer.Typer(
    no_args_is_help=True, help="List, show, check and write plugins: norms, data sets, regularizers, models, figures."
)

KindOption = Annotated[
    str,
    typer.Option("--kind", metavar="KIND", autocompletion=complete_kind, help=f"Only this kind: {', '.join(KINDS)}."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_plugins(
    kind: KindOption = "",
    json: JsonOption = False,
    check: Annotated[bool, typer.Option("--check", help="Import every plugin; exit with 1 if one is broken.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """List plugins with origin and status, without importing them (unless --check)."""
    from benchkit.registry.description import describe_all, glance

    registry = Registry.installed(plugin or ())
    entries = registry.entries(kind or None)
    descriptions = describe_all(entries) if check else glance(entries)
    claims = Counter((entry.kind, entry.name) for entry in entries)
    claimed = [entry for entry in entries if claims[entry.kind, entry.name] > 1]
    if json:
        print_json([_row_json(description, description.entry in claimed) for description in descriptions])
    else:
        _print_list(descriptions, claimed)
    if check and any(description.status == "broken" for description in descriptions):
        raise typer.Exit(1)


@app.command("show")
def show_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_plugin, help="A plugin's name.")],
    kind: KindOption = "",
    json: JsonOption = False,
    plugin: PluginFiles = None,
) -> None:
    """Show a plugin's card and options; of all kinds and distributions that have the name. Exit with 1 if broken."""
    from benchkit.registry.description import describe_all

    kinds = [parse_kind(kind)] if kind else KINDS
    found = Registry.installed(plugin or ()).search(name, kinds)
    descriptions = [
        replace(one, rates=one.variant_rates.get(variant, one.rates)) if variant else one
        for one, (_, variant) in zip(describe_all([entry for entry, _ in found]), found, strict=True)
    ]
    if json:
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


app.command("check")(check_plugins)


@app.command("new")
def new_plugin(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=f"One of {', '.join(map(kind_word, KINDS_WRITTEN))}.", show_default=False),
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
    print_note(
        f"next: {install_command(folder)}, benchkit plugins check {name} --kind {project.kind}, "
        f"then edit {folder / project.source}"
    )


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
            kind_word(description.entry.kind),
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
