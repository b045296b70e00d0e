"""`benchkit templates`: list, copy and describe what a report's pages are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, copy and describe the report's templates.")


@app.command("list")
def list_() -> None:
    """List the templates, style sheets and scripts that `benchkit report --templates DIR` can replace."""
    from benchkit.cli.app import print_text
    from benchkit.report.files.html import template_names

    for name in template_names():
        print_text(name)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="The file's name, as `benchkit templates list` has it.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder for `benchkit report --templates`.")],
) -> None:
    """Copy a shipped template or style sheet into DIR, to be changed there; nothing is overwritten."""
    from benchkit.cli.app import print_text
    from benchkit.errors import ReportError, nearest
    from benchkit.report.files.html import template_names, text_of

    if name not in template_names():
        raise ReportError(
            f"{name}: the report has no template of this name{nearest(name, template_names())}",
            hint=f"known: {', '.join(template_names())}",
        )
    if (folder / name).exists():
        raise ReportError(f"{folder / name}: there is a file of that name already", hint="nothing was changed")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text_of(name), encoding="utf-8")
    print_text(f"{folder / name} written; next: benchkit report --templates {folder}")


@app.command()
def describe() -> None:
    """Print, as Markdown, what templates see: every class and field with its meaning."""
    from benchkit.report.files.html import describe_context

    typer.echo(describe_context(), nl=False)
