"""The command `benchkit`: its sub-commands, its global options, and what becomes of errors."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from benchkit import __version__
from benchkit.cli.printing import print_error
from benchkit.errors import BenchkitError
from benchkit.storage import home_folder

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "sweep": "benchkit.cli.sweep:sweep",
        "status": "benchkit.cli.status:status",
        "report": "benchkit.cli.report:report",
        "verify": "benchkit.cli.verify:verify",
        "templates": "benchkit.cli.templates:app",
        "studies": "benchkit.cli.studies:app",
        "data": "benchkit.cli.data:app",
        "plugins": "benchkit.cli.plugins:app",
        "ledger": "benchkit.cli.ledger:app",
        "doctor": "benchkit.cli.doctor:doctor",
    }
)
"""The commands in the order of `--help`, and where each is: a function, or a Typer app with commands of its own."""


class CommandGroup(TyperGroup):
    """The top-level group: imports a command when it is asked for, and turns errors into messages and exit codes."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the command names in the order of `COMMANDS`."""
        return [name for name, target in COMMANDS.items() if importlib.util.find_spec(target.partition(":")[0])]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, importing its module, or None when there is none."""
        names = self.list_commands(ctx)
        # An unknown name needs all commands: typer suggests the nearest from those that are there.
        for name in [cmd_name] if cmd_name in names else names:
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
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error


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
    """Run the command line and return its exit code: 0, 2 for errors that a user can mend, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal must not turn output into a crash
    command = typer.main.get_command(build_app())
    try:
        command.main(args=None if arguments is None else list(arguments), prog_name="benchkit")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    return 0
