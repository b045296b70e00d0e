"""`benchkit clean`, `merge` and `ledger`: files out of a workspace, trials into it, and its ledger made again."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.cli.app import print_note, print_table, print_text
from benchkit.cli.options import DEFAULT_WORKSPACE, AllowChangedPlugins, MetricFiles, Storage, Workspace, complete_study
from benchkit.errors import LedgerError
from benchkit.storage import mebibytes
from benchkit.study.study import study_name

if TYPE_CHECKING:
    from benchkit.ledger.cleaning import Removable


def clean(
    studies: Annotated[
        list[str], typer.Argument(metavar="[STUDY...]", help="Studies; all without.", autocompletion=complete_study)
    ] = [],
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: MetricFiles = [],
    keep_best: Annotated[
        int, typer.Option("--keep-best", min=0, help="Trials of each condition whose weights stay, the best on val.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what no report, check, resume or export of a workspace needs: logs, traces and checkpoints of trials
    that are done, and the weights of all but the best.
    """
    from benchkit.ledger import Ledger
    from benchkit.ledger.cleaning import clean as remove
    from benchkit.ledger.cleaning import removables

    if not storage and not (workspace / "ledger.db").is_file():
        raise LedgerError(f"{workspace}: there is no ledger here", hint="name a workspace with --workspace")
    ledger = Ledger(workspace, storage or None)
    files = removables(ledger, [study_name(one) for one in studies], keep_best)
    if not files:
        print_text(f"{workspace}: nothing can go")
        return
    total = f"{len(files)} files, {_size(files)}, of {', '.join(dict.fromkeys(file.study for file in files))}"
    if dry_run:
        print_table(("size", "why", "file"), [(_size([file]), file.why, _shown(file, workspace)) for file in files])
        print_text(f"{workspace}: {total} would go")
        return
    counted = Counter(file.why for file in files)
    print_table(
        ("size", "files", "what"),
        [(_size([file for file in files if file.why == why]), count, why) for why, count in counted.items()],
    )
    if not yes:
        _ask(f"Remove {total} from {workspace}?", workspace)
    gone = remove(ledger, files, keep_best)
    print_text(f"{workspace}: removed {len(gone)} files, {_size(gone)}")


def _ask(question: str, workspace: Path) -> None:
    """End the command unless the answer is yes."""
    if not sys.stdin.isatty():
        raise LedgerError(f"{workspace}: nothing was removed, as nobody can be asked", hint="say --yes, or --dry-run")
    typer.confirm(question, abort=True)


def _size(files: Sequence[Removable]) -> str:
    return mebibytes(sum(file.size for file in files))


def _shown(file: Removable, workspace: Path) -> str:
    return str(file.path.relative_to(workspace)) if file.path.is_relative_to(workspace) else str(file.path)


def merge(
    others: Annotated[
        list[Path], typer.Argument(metavar="WORKSPACE...", help="Copies of other workspaces.", file_okay=False)
    ],
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    allow_changed_plugins: AllowChangedPlugins = False,
) -> None:
    """Take the finished trials of other workspaces, copied here by any tool, into this one.

    Every file is held against its trial's list, and each trial is taken once; the copies stay as they are. With a
    --storage that the machines share, only files are missing, and they are brought.

    Exit code 1: some trials were trained twice, or some files are not what their lists say; they are named.
    """
    from benchkit.ledger import Ledger
    from benchkit.ledger.merge import merge as take_in

    is_new = not workspace.exists()
    ledger = Ledger(workspace, storage or None)
    try:
        merged = take_in(ledger, others, changed_plugins=allow_changed_plugins)
    except LedgerError:
        if is_new and not (workspace / "trials").exists():  # nothing was taken into it
            shutil.rmtree(workspace)
        raise
    for name, count in merged.taken.items():
        print_text(f"{name}: {count} trial{'' if count == 1 else 's'} taken in")
    if merged.there:
        print_note(f"{merged.there} {'was' if merged.there == 1 else 'were'} here already")
    for line in (*merged.conflicts, *merged.broken):
        print_text(f"left: {line}", "yellow")
    if merged.conflicts or merged.broken:
        raise typer.Exit(1)


ledger_app = typer.Typer(help="Mend a workspace's ledger.", no_args_is_help=True, rich_markup_mode=None)


@ledger_app.callback()
def ledger() -> None:
    """Mend a workspace's ledger."""


@ledger_app.command()
def rebuild(workspace: Workspace = DEFAULT_WORKSPACE) -> None:
    """Make a lost ledger again from the folders of its trials.

    Exit code 1: some folders could not be read; the others are in the ledger again.
    """
    from benchkit.ledger.rebuild import rebuild_ledger

    rebuilt = rebuild_ledger(workspace)
    for name, count in rebuilt.trials.items():
        print_text(f"{name}: {count} trial{'' if count == 1 else 's'} put back")
    for line in rebuilt.left:
        print_text(f"left out: {line}", "yellow")
    print_note("what the folders hold no more, the same sweep trains again")
    if rebuilt.left:
        raise typer.Exit(1)
