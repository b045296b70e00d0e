"""The command line: its commands, what they print, and how every error ends."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer
import typer.main
from typer.core import TyperGroup

from benchkit import __version__
from benchkit.errors import BenchkitError
from benchkit.storage import home_folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


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


class Notes:
    """Standard error as a stream on which what cannot be written is left out: days of work do not end for a note."""

    def __init__(self) -> None:
        """Write to what is standard error now."""
        self._stream = sys.stderr

    def write(self, text: str) -> int:
        """Write where that can be: a full disk, a pipe that nobody reads or a terminal that is gone is no error."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush where that can be."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has."""
        return getattr(self._stream, name)


def console(*, stderr: bool = False) -> Console:
    """Return a console that writes to stdout or stderr; lines are broken for terminals only, never in pipes."""
    from rich.console import Console

    target = Console(file=cast("IO[str]", Notes()) if stderr else None, highlight=False, markup=False, emoji=False)
    if not target.is_terminal:
        target.width = 9999
    return target


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


NO_THREAD = "can't start new thread"
"""What Python says where the system has no thread left."""


COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "sweep": "benchkit.cli.sweep:sweep",
        "status": "benchkit.cli.status:status",
        "watch": "benchkit.cli.watch:watch",
        "report": "benchkit.cli.report:report",
        "verify": "benchkit.cli.verify:verify",
        "model": "benchkit.cli.model:model",
        "predict": "benchkit.cli.model:predict",
        "merge": "benchkit.cli.workspace:merge",
        "clean": "benchkit.cli.workspace:clean",
        "publish": "benchkit.cli.publish:publish",
        "export": "benchkit.cli.export:export",
        "query": "benchkit.cli.export:query",
        "templates": "benchkit.cli.templates:app",
        "studies": "benchkit.cli.studies:app",
        "data": "benchkit.cli.data:app",
        "plugins": "benchkit.cli.plugins:app",
        "ledger": "benchkit.cli.workspace:ledger_app",
        "doctor": "benchkit.cli.doctor:doctor",
    }
)
"""The commands in the order of `--help`, and where each is: a function, or a Typer app with commands of its own."""


class CommandGroup(TyperGroup):
    """The top-level group: imports a command when it is asked for, and turns errors into messages and exit codes."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the command names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, importing its module, or None when there is none."""
        # An unknown name needs all commands: typer suggests the nearest from those that are there.
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = load_command(name)
        return self.commands.get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a `BenchkitError` is printed and exits with its code, with a traceback under `--debug`."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BenchkitError as error:
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError as error:
            # The reader (such as `head`) has gone; without this, closing stdout would complain once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
        except (OSError, RuntimeError) as error:
            if not isinstance(error, OSError) and str(error) != NO_THREAD:
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            print_error(refused(error))
            raise typer.Exit(BenchkitError.exit_code) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(getattr(error, "exit_code", 130)) from error


def refused(error: OSError | RuntimeError) -> BenchkitError:
    """Return what the system refused, such as to write to a full disk, as an error of one line."""
    if not isinstance(error, OSError) or (isinstance(error, BlockingIOError) and error.filename is None):
        return BenchkitError(
            "no further process or thread can be started: a limit of this machine, container or job is reached",
            hint="raise it (ulimit -u, the container's limit of processes), or do less at once (sweep --jobs 1)",
        )
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = f"{' -> '.join(names)}: " if names else ""
    return BenchkitError(f"{where}{error.strerror or error}", hint="benchkit --debug ... shows where this came from")


def load_command(name: str) -> Any:
    """Return the click command for a name in `COMMANDS`."""
    module, _, attribute = COMMANDS[name].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    holder = typer.Typer(rich_markup_mode=None)
    if isinstance(command, typer.Typer):
        holder.add_typer(command, name=name)
    else:
        holder.command(name)(command)
    return typer.main.get_group(holder).commands[name]


def build_app() -> typer.Typer:
    """Return the application. Help is plain text: rich's help would take longer than all the rest of `--help`."""
    app = typer.Typer(
        name="benchkit",
        cls=CommandGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(benchkit)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"benchkit {__version__}")
        raise typer.Exit()


def benchkit(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Turn an experiment described in one small file into a finished, honest report.

    `benchkit sweep STUDY` trains what is missing, `benchkit report STUDY` prints the report.
    """
    home_folder()  # where there is none, libraries would end with a traceback when they look for it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for errors that a user can mend, 130 for Ctrl-C, 143
    for a sweep that another signal ended.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as some daemons do; no file of a study may get its number
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal must not turn output into a crash
    command = typer.main.get_command(build_app())
    try:
        command.main(args=None if arguments is None else list(arguments), prog_name="benchkit")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    return 0
