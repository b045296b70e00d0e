"""What commands print: tables, facts, JSON and errors. Text from plugins and studies is never read as markup.

rich is imported where something is printed, because `--help` does without it.
"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from benchkit.errors import BenchkitError


def clean(text: object) -> str:
    """Return text that is safe on a terminal: control, escape and direction-changing characters become `?`."""
    written = str(text)
    if written.isprintable():
        return written
    return "".join(letter if letter in "\n\t" or not _is_control(letter) else "?" for letter in written)


def line(text: object) -> str:
    """Return clean text on one line."""
    return " ".join(clean(text).split())


def cell(text: object, style: str = "") -> Text:
    """Return clean text for a table or a line of output, in a rich style; square brackets in it mean nothing."""
    from rich.text import Text

    return Text(clean(text), style=style)


def console(*, stderr: bool = False) -> Console:
    """Return a console that writes to stdout or stderr; lines are broken for terminals only, never in pipes."""
    from rich.console import Console

    target = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    return (
        target if target.is_terminal else Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=9999)
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table without rules to stdout; cells are text (made clean) or what `cell` returns."""
    from rich.table import Table
    from rich.text import Text

    cells = [[item if isinstance(item, Text) else line(item) for item in row] for row in rows]
    if not console().is_terminal:
        # Nothing is folded or styled then, and thousands of rows take rich seconds.
        _print_plain([columns, *([str(item) for item in row] for row in cells)])
        return
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(item if isinstance(item, Text) else Text(item) for item in row))
    _print_trimmed(table)


def _print_plain(rows: Sequence[Sequence[str]]) -> None:
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def print_facts(facts: Mapping[str, object]) -> None:
    """Print `name  value` lines to stdout, those without a value left out."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in ("", None):
            table.add_row(name, cell(value))
    _print_trimmed(table)


def print_text(text: object, style: str = "") -> None:
    """Print one paragraph of clean text to stdout."""
    console().print(cell(text, style))


def print_note(text: object) -> None:
    """Print one paragraph of clean text to stderr, for what is not the command's result."""
    console(stderr=True).print(cell(text, "dim"))


def print_json(value: Any) -> None:
    """Print a value as strict JSON in ASCII to stdout; numbers that JSON lacks become the texts inf, -inf and nan."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def print_error(error: BenchkitError) -> None:
    """Print an error to stderr: what happened, one line for each problem, and what to do about it."""
    from rich.text import Text

    text = Text()
    text.append("error: ", style="bold red")
    text.append(clean(error.what))
    for problem in error.problems:
        text.append("\n  - " + clean(problem).replace("\n", "\n    "))
    if error.hint:
        text.append("\nhint: ", style="bold")
        text.append(clean(error.hint))
    console(stderr=True).print(text)


def _print_trimmed(table: Table) -> None:
    """Print a table without the blanks that rich pads its lines with."""
    target = console()
    with target.capture() as captured:
        target.print(table)
    sys.stdout.write("".join(f"{text.rstrip()}\n" for text in captured.get().splitlines()))


def _is_control(letter: str) -> bool:
    # Cf holds the marks that reverse or hide text, Cs halves of surrogate pairs, which no stream can encode.
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
