"""`benchkit merge`: trials that were trained on other machines, taken into a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchkit.cli.options import DEFAULT_WORKSPACE, Storage, Workspace


def merge(
    others: Annotated[
        list[Path], typer.Argument(metavar="WORKSPACE...", help="Copies of other workspaces.", file_okay=False)
    ],
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
) -> None:
    """Take the finished trials of other workspaces, copied here by any tool, into this one.

    Every file is held against its trial's list, and each trial is taken once; the copies stay as they are. With a
    --storage that the machines share, only files are missing, and they are brought.

    Exit code 1: some trials were trained twice, or some files are not what their lists say; they are named.
    """
    from benchkit.cli.app import print_note, print_text
    from benchkit.ledger import Ledger
    from benchkit.ledger.merge import merge as take_in

    merged = take_in(Ledger(workspace, storage or None), others)
    for name, count in merged.taken.items():
        print_text(f"{name}: {count} trial{'' if count == 1 else 's'} taken in")
    if merged.there:
        print_note(f"{merged.there} {'was' if merged.there == 1 else 'were'} here already")
    for line in (*merged.conflicts, *merged.broken):
        print_text(f"left: {line}", "yellow")
    if merged.conflicts or merged.broken:
        raise typer.Exit(1)
