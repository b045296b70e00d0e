"""`benchkit templates`: list, copy and describe what a report's pages are made from; copy job scripts for clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchkit.cli.app import print_text
from benchkit.errors import ReportError, nearest

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, copy and describe the report's templates, and copy job scripts.",
)


@app.command("list")
def list_() -> None:
    """List what can be copied: the report's templates, and by one name the job scripts for a kind of cluster."""
    from benchkit.report.files.html import template_names

    for name in (*template_names(), *_machines()):
        print_text(name)


def _machines() -> dict[str, list[Path]]:
    """Return the job scripts for each kind of cluster."""
    from benchkit.report.files.html import template_folder

    folder = template_folder() / "machines"
    return {kind.name: sorted(kind.iterdir()) for kind in sorted(folder.iterdir()) if kind.is_dir()}


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A name, as `benchkit templates list` has it.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write into.")],
) -> None:
    """Copy a template of reports, or the job scripts for a kind of cluster, into DIR, to be changed there."""
    from benchkit.report.files.html import template_names, text_of

    machines = _machines()
    if name in machines:
        texts = {path.name: path.read_text(encoding="utf-8") for path in machines[name]}
    elif name in template_names():
        texts = {name: text_of(name)}
    else:
        known = (*template_names(), *machines)
        raise ReportError(
            f"{name}: there is no template of this name{nearest(name, known)}", hint=f"known: {', '.join(known)}"
        )
    for there in (folder / file for file in texts if (folder / file).exists()):
        raise ReportError(f"{there}: there is a file of that name already", hint="nothing was changed")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
        if name in template_names():
            print_text(f"{folder / file} written; next: benchkit report --templates {folder}")
        else:
            print_text(f"{folder / file} written; its first lines say how to start it")


@app.command()
def describe() -> None:
    """Print, as Markdown, what templates see: every class and field with its meaning."""
    from benchkit.report.files.html import describe_context

    typer.echo(describe_context(), nl=False)
