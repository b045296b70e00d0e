"""The tables as Arrow has them, with a declared schema, and as files. Needs pyarrow, and for SQL DuckDB."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.errors import BenchkitError, first_line
from benchkit.frames.tables import TABLES, VERSION, FrameColumn, Kind, Row, rows_of
from benchkit.results import StudyResults
from benchkit.storage import each_once, write_atomically


def need(module: str) -> Any:
    """Return a module of the extra `tables`; raise `BenchkitError` with the command where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BenchkitError(f"{module} cannot be imported: {error}", hint="pip install 'benchkit[tables]'") from error


def schema_of(columns: Sequence[FrameColumn]) -> Any:
    """Return the `pyarrow.Schema` of columns; their meanings and the version of the columns are its metadata."""
    pa = need("pyarrow")
    kinds: Mapping[Kind, Any] = {
        "text": pa.string(),
        "whole": pa.int64(),
        "number": pa.float64(),
        "yes-no": pa.bool_(),
        "time": pa.timestamp("us"),
        "texts": pa.map_(pa.string(), pa.string()),
        "numbers": pa.map_(pa.string(), pa.float64()),
    }
    fields = [pa.field(one.name, kinds[one.kind], metadata={"meaning": one.meaning}) for one in columns]
    return pa.schema(fields, metadata={"benchkit.columns": VERSION})


def arrow_table(results: StudyResults, table: str) -> Any:
    """Return one table of a study as a `pyarrow.Table`."""
    columns, _ = TABLES[table]
    maps = [one.name for one in columns if one.kind in ("texts", "numbers")]
    rows = [row | {name: sorted(row[name].items()) for name in maps} for row in rows_of(results, table)]
    return need("pyarrow").Table.from_pylist(rows, schema=schema_of(columns))


def parquet_bytes(results: StudyResults, table: str) -> bytes:
    """Return one table of a study as a Parquet file."""
    target = io.BytesIO()
    need("pyarrow.parquet").write_table(arrow_table(results, table), target)
    return target.getvalue()


def csv_bytes(results: StudyResults, table: str) -> bytes:
    """Return one table of a study as CSV: null is empty, maps are JSON, times ISO 8601."""
    target = io.StringIO(newline="")
    writer = csv.DictWriter(target, [one.name for one in TABLES[table][0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows_of(results, table))
    return target.getvalue().encode()


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value


def write_tables(results: StudyResults, folder: Path, kind: str) -> list[Path]:
    """Write every table of a study into a folder, each file whole or not at all; return their paths.

    Raises `BenchkitError` for a folder that cannot be written, and where Parquet is asked for without pyarrow.
    """
    written = []
    for table in TABLES:
        content = parquet_bytes(results, table) if kind == "parquet" else csv_bytes(results, table)
        path = folder / f"{results.study.name}-{table}.{kind}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise BenchkitError(f"{path}: cannot be written: {error}") from error
        written.append(path)
    return written


def query(results: Sequence[StudyResults], question: str) -> list[Row]:
    """Return the rows that a SQL query gives over the tables `trials`, `conditions` and `epochs` of some studies.

    It runs in memory and reaches no file and no net. Raises `BenchkitError` with the database's words for a query that
    it refuses.
    """
    duckdb, pa = need("duckdb"), need("pyarrow")
    if not question.strip("; \t\n"):
        raise BenchkitError("the query is empty", hint='ask for example: "select condition, test_accuracy from trials"')
    with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as connection:
        for table in TABLES:
            connection.register(table, pa.concat_tables([arrow_table(one, table) for one in results]))
        try:
            found = connection.sql(question)
            names = list(found.columns) if found is not None else []
            rows = found.fetchall() if found is not None else []
        except duckdb.Error as error:
            raise BenchkitError(
                f"the query was refused: {first_line(error)}",
                hint=f"the tables are {', '.join(TABLES)}; DESCRIBE trials lists columns, of which other_scores holds "
                "the metrics of plugins",
            ) from error
    heads = each_once(names)  # a join has columns of one name
    return [dict(zip(heads, row, strict=True)) for row in rows]
