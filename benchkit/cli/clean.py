"""`benchkit clean`: files that nothing needs any more, out of a workspace."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.cli.completion import complete_study
from benchkit.cli.options import DEFAULT_WORKSPACE, MetricFiles, Storage, Workspace, study_name
from benchkit.storage import mebibytes

if TYPE_CHECKING:
    from benchkit.ledger.cleaning import Removable


def clean(
    studies: Annotated[
        list[str], typer.Argument(metavar="[STUDY...]", help="Studies; all without.", autocompletion=complete_study)
    ] = [],  # noqa: B006
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: MetricFiles = None,
    keep_best: Annotated[
        int, typer.Option("--keep-best", min=0, help="Trials of each condition whose weights stay, the best on val.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what no report, check, resume or export of a workspace needs: logs, traces and checkpoints of trials
    that are done, and the weights of all but the best.
    """
    from benchkit.cli.app import print_table, print_text
    from benchkit.errors import LedgerError
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
    if dry_run:
        print_table(("size", "why", "file"), [(_size([file]), file.why, _shown(file, workspace)) for file in files])
    else:
        counted = Counter(file.why for file in files)
        print_table(
            ("size", "files", "what"),
            [(_size([file for file in files if file.why == why]), count, why) for why, count in counted.items()],
        )
    total = f"{len(files)} files, {_size(files)}, of {', '.join(dict.fromkeys(file.study for file in files))}"
    if dry_run:
        print_text(f"{workspace}: {total} would go")
        return
    if not yes:
        _ask(f"Remove {total} from {workspace}?", workspace)
    gone = remove(ledger, files, keep_best)
    print_text(f"{workspace}: removed {len(gone)} files, {_size(gone)}")


def _ask(question: str, workspace: Path) -> None:
    """End the command unless the answer is yes."""
    from benchkit.errors import LedgerError

    if not sys.stdin.isatty():
        raise LedgerError(f"{workspace}: nothing was removed, as nobody can be asked", hint="say --yes, or --dry-run")
    typer.confirm(question, abort=True)


def _size(files: Sequence[Removable]) -> str:
    return mebibytes(sum(file.size for file in files))


def _shown(file: Removable, workspace: Path) -> str:
    return str(file.path.relative_to(workspace)) if file.path.is_relative_to(workspace) else str(file.path)
