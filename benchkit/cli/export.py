"""`benchkit export` and `benchkit query`: a study's results as tables or a tracker's runs, and questions in SQL."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchkit.cli.app import print_json, print_note, print_table, print_text
from benchkit.cli.options import DEFAULT_WORKSPACE, AsJson, MetricFiles, Storage, StudyName, Workspace, know_metrics
from benchkit.errors import BenchkitError, nearest
from benchkit.registry import Registry
from benchkit.study.study import study_name


def export(
    study: StudyName,
    to: Annotated[str, typer.Option("--to", metavar="KIND", help="parquet, csv, or TRACKER[=ADDRESS|env:VARIABLE].")],
    out: Annotated[
        Path | None, typer.Option("--out", show_default=False, help="The folder for files of tables: ./tables.")
    ] = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: Annotated[
        list[Path],
        typer.Option(
            "--plugin",
            metavar="FILE",
            help="Add the metrics and trackers of a local Python file.",
            callback=know_metrics,
        ),
    ] = [],
    follow: Annotated[
        bool, typer.Option("--follow", hidden=True, help="Until standard input ends, for a sweep.")
    ] = False,
) -> None:
    """Write the trials of STUDY as files of tables, or as runs of a tracker: mlflow, tensorboard or wandb.

    Tables have the same columns for every study; what was not measured is empty, and so are the scores of trials that
    did not end as done. A tracker gets what it lacks; a second time adds nothing. Its address, if it holds a secret, is
    named by an environment variable: --to mlflow=env:VARIABLE.
    """
    study = study_name(study)
    if to in ("parquet", "csv"):
        from benchkit.frames.arrow import write_tables
        from benchkit.ledger import read_results

        for path in write_tables(read_results(workspace, study, storage or None), out or Path("tables"), to):
            print_text(path)
        return
    from benchkit.trackers import following
    from benchkit.trackers.address import tracker_of

    address = tracker_of(to, "--to")
    known = ("parquet", "csv", *Registry.installed(plugin, allow_shadow=True).names("trackers"))
    if not follow and address.name.rpartition(":")[2] not in known:
        what = f"--to {address.name}: expected {', '.join(known)}{nearest(address.name, known)}"
        raise BenchkitError(what, hint="a tracker in a file of yours needs --plugin FILE")
    if out is not None:
        what = f"--to {address.name} --out: expected parquet or csv, which alone are written into a folder"
        raise BenchkitError(what, hint=f"a tracker gets its address so: --to {address.name}=ADDRESS")
    if follow:
        os.nice(10)
        print_json({"problem": following.follow(workspace, study, storage, address, sys.stdin.fileno(), plugin)})
    else:
        count, where = following.export(workspace, study, storage, address, plugin)
        print_note(f"{address.name} has {count} runs of {study}{f'; {where}' if where else ''}")


def query(
    study: StudyName,
    question: Annotated[str, typer.Argument(metavar="SQL", help="Over the tables trials, conditions, epochs.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: MetricFiles = [],
    as_json: AsJson = False,
) -> None:
    """Ask the results of STUDY a question in SQL (DuckDB's), in memory: benchkit query quickstart
    "select condition, avg(test_accuracy) from trials group by condition".
    """
    from benchkit.frames.arrow import query as ask
    from benchkit.ledger import read_results

    rows = ask([read_results(workspace, study_name(study), storage or None)], question)
    if as_json:
        print_json([_plain(row) for row in rows])
    elif rows:
        print_table(tuple(rows[0]), [["" if value is None else str(value) for value in row.values()] for row in rows])
    else:
        print_note("no row answers the query")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: null where a number is none, as in results.json."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
