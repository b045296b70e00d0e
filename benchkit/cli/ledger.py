"""`benchkit ledger`: what to do with the ledger itself."""

from __future__ import annotations

import typer

from benchkit.cli.options import DEFAULT_WORKSPACE, Workspace

app = typer.Typer(help="Mend a workspace's ledger.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def ledger() -> None:
    """Mend a workspace's ledger."""


@app.command()
def rebuild(workspace: Workspace = DEFAULT_WORKSPACE) -> None:
    """Make a lost ledger again from the folders of its trials.

    Exit code 1: some folders could not be read; the others are in the ledger again.
    """
    from benchkit.cli.app import print_note, print_text
    from benchkit.ledger.rebuild import rebuild_ledger

    rebuilt = rebuild_ledger(workspace)
    for name, count in rebuilt.trials.items():
        print_text(f"{name}: {count} trial{'' if count == 1 else 's'} put back")
    for line in rebuilt.left:
        print_text(f"left out: {line}", "yellow")
    print_note("what the folders hold no more, the same sweep trains again")
    if rebuilt.left:
        raise typer.Exit(1)
