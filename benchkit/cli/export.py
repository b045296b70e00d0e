"""`benchkit export` and `benchkit query`: a study's results as files of tables, and questions to them in SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchkit.cli.completion import complete_study
from benchkit.cli.options import DEFAULT_WORKSPACE, Storage, Workspace

Name = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name.", autocompletion=complete_study)]


def export(
    study: Name,
    to: Annotated[Literal["parquet", "csv"], typer.Option("--to", help="The kind of files.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for the files.")] = Path("tables"),
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
) -> None:
    """Write the trials, epochs and conditions of STUDY as tables, with the same columns for every study.

    What was not measured is empty, and so are the scores of trials that did not end as done; their state says so.
    """
    from benchkit.cli.app import print_text
    from benchkit.frames.arrow import write_tables
    from benchkit.ledger import read_results

    for path in write_tables(read_results(workspace, study, storage or None), out, to):
        print_text(path)


def query(
    study: Name,
    question: Annotated[str, typer.Argument(metavar="SQL", help="Over the tables trials, conditions, epochs.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask the results of STUDY a question in SQL (DuckDB's), in memory: benchkit query quickstart
    "select condition, avg(test_accuracy) from trials group by condition".
    """
    from benchkit.cli.app import print_json, print_table
    from benchkit.frames.arrow import query as ask
    from benchkit.ledger import read_results

    rows = ask([read_results(workspace, study, storage or None)], question)
    if as_json:
        print_json([{name: _plain(value) for name, value in row.items()} for row in rows])
    elif rows:
        print_table(tuple(rows[0]), [["" if value is None else str(value) for value in row.values()] for row in rows])


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str | dict | list) else str(value)
