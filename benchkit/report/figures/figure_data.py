"""The plain numbers behind a figure as CSV tables: what a reader downloads, opens or attaches."""

from __future__ import annotations

import csv
import io
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from benchkit.report.tables.table import plain

Row = dict[str, Any]


def data_tables(data: Any) -> tuple[tuple[str, str], ...]:
    """Return (name, CSV) for every kind of record in a figure's data, the deepest nesting of records first.

    Records are dataclasses; a record inside another repeats the other's plain fields. A tuple of fixed length becomes
    numbered columns; tuples of open length that a record has several of at one length become rows, a single one a
    text of values parted by blanks in the record's own row.
    """
    tables: dict[str, list[Row]] = {}
    _collect(data, "", {}, tables)
    return tuple((name or "values", _csv(rows)) for name, rows in tables.items() if rows and any(rows))


def _collect(record: Any, name: str, above: Row, tables: dict[str, list[Row]]) -> None:
    own, nested, series = _parted(record)
    texts = {_joined(name, key): text for key, text in _texts(series).items()}
    here = {**above, **{_joined(name, key): value for key, value in own.items()}}
    for key, children in nested.items():
        for child in children:
            _collect(child, _joined(name, key), here, tables)
    if series:
        tables.setdefault(_joined(name, "values"), []).extend(_exploded(series, here, name))
    elif (own or texts) and not nested:
        tables.setdefault(name, []).append({**here, **texts})


def _parted(record: Any) -> tuple[Row, dict[str, Sequence[Any]], dict[str, Sequence[Any]]]:
    """Return a record's plain fields, its fields that hold records, and its series of one length."""
    own: Row = {}
    nested: dict[str, Sequence[Any]] = {}
    series: dict[str, Sequence[Any]] = {}
    for key, value, is_open in _fields(record):
        if is_dataclass(value) and not isinstance(value, type):
            nested[key] = [value]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            if value and all(is_dataclass(item) for item in value):
                nested[key] = value
            elif is_open and value:
                series[key] = value
            else:
                own.update(_spread(key, value))
        elif isinstance(value, Mapping):
            own.update({f"{key}_{name}": item for name, item in value.items()})
        elif not isinstance(value, bytes):
            own[key] = value
    return own, nested, series


def _texts(series: dict[str, Sequence[Any]]) -> Row:
    """Take the series out that have no partner of their length, and return plain ones as text."""
    lengths = [len(values) for values in series.values()]
    alone = [key for key, values in series.items() if lengths.count(len(values)) == 1 and not _is_deep(values)]
    texts = {key: " ".join(str(plain(item)) for item in series.pop(key)) for key in alone}
    longest = max((len(values) for values in series.values()), default=0)
    for key in [key for key, values in series.items() if len(values) < longest]:
        del series[key]  # one table has one length
    return texts


def _is_deep(values: Sequence[Any]) -> bool:
    return isinstance(values[0], Sequence) and not isinstance(values[0], str)


def _fields(record: Any) -> Iterator[tuple[str, Any, bool]]:
    hints = get_type_hints(type(record))
    for field in fields(record):
        yield field.name, getattr(record, field.name), _is_open(hints.get(field.name))


def _is_open(hint: Any) -> bool:
    """Return whether a type is a sequence of open length, such as tuple[float, ...]."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is_open(part) for part in get_args(hint))
    return get_origin(hint) is not tuple or Ellipsis in get_args(hint)


def _spread(key: str, value: Any) -> Row:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {f"{key}_{place}": item for place, item in enumerate(value, 1)}
    return {key: value}


def _exploded(series: Mapping[str, Sequence[Any]], above: Row, name: str) -> list[Row]:
    length = max(len(values) for values in series.values())
    rows = []
    for place in range(length):
        row = dict(above)
        for key, values in series.items():
            row.update(_spread(_joined(name, key), values[place]))
        rows.append(row if len(series) > 1 else {**above, _joined(name, "index"): place, **row})
    return rows


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _csv(rows: Sequence[Row]) -> str:
    heads = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([plain(head) for head in _short(heads)])
    for row in rows:
        writer.writerow([_written(row.get(key)) for key in heads])
    return out.getvalue()


def _short(heads: Sequence[str]) -> list[str]:
    """Return headings without the path of their record where the last part is unique."""
    last = [head.rpartition(".")[2] for head in heads]
    return [tail if last.count(tail) == 1 else head for head, tail in zip(heads, last, strict=True)]


def _written(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return plain(value) if isinstance(value, str) or value is None else value
