"""`benchkit report`: what the ledger holds becomes HTML, PDF, JSON and tables."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.cli.completion import complete_study
from benchkit.cli.places import Storage, Workspace

if TYPE_CHECKING:
    from benchkit.report.write import Written


class Format(StrEnum):
    """The formats that a report can be asked for."""

    html = "html"
    pdf = "pdf"
    all = "all"


def report(
    ctx: typer.Context,
    studies: Annotated[
        list[str] | None,
        typer.Argument(help="Names of studies; without one, the latest.", autocompletion=complete_study),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Which file to make.")] = Format.all,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the reports.", file_okay=False)] = Path(
        "reports"
    ),
    workspace: Workspace = Path("benchkit-runs"),
    storage: Storage = "",
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Use charts that an earlier report drew.")] = True,
) -> None:
    """Make the report of every STUDY from what the ledger holds, finished or not; nothing is trained.

    Exit code 1: the report is there, but a figure failed. Exit code 2: a file could not be made, such as the PDF
    without Pango; the others are there.
    """
    from benchkit.ledger import read_results
    from benchkit.report.write import write_report

    code = 0
    for name in studies or [""]:
        known = name.removesuffix(".toml").rpartition("/")[2] or None
        results = read_results(workspace, known, storage or None)
        written = write_report(results, out, html=format != Format.pdf, pdf=format != Format.html, cache=cache)
        code = max(code, _tell(written, debug=bool((ctx.find_root().params or {}).get("debug"))))
    if code:
        raise typer.Exit(code)


def _tell(written: Written, *, debug: bool) -> int:
    """Print the paths of a report's files and what went wrong, and return the exit code that follows from it."""
    from benchkit.cli.printing import print_error, print_note, print_text

    for path in written.paths:
        print_text(path)
    for problem in written.problems:
        print_note(problem)
    for trace in written.tracebacks if debug else ():
        print_note(trace)
    if written.error is not None:
        print_error(written.error)
        return written.error.exit_code
    return 1 if written.problems else 0
