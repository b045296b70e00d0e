"""`benchkit plugins new`: a complete package to start a plugin from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KindArgument = Annotated[
    str, typer.Argument(metavar="KIND", help="norm, dataset, regularizer, model or figure.", show_default=False)
]


def new_plugin(
    kind: KindArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name: lower case, hyphens.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write it; ./benchkit-NAME by default.")
    ] = None,
    author: Annotated[str, typer.Option(help="The author's name, for the licence.")] = "",
) -> None:
    """Write a complete package with a small working plugin: source, card, test with the kit, README, licence."""
    from benchkit.cli.printing import print_note, print_text
    from benchkit.registry import Registry
    from benchkit.registry.scaffolding import plan_project, write_project

    project = plan_project(kind, name, Registry.installed(), author=author)
    folder = out or Path(project.distribution)
    for path in write_project(project, folder):
        print_text(path.as_posix())
    print_note(
        f"next: pip install -e {folder}, benchkit plugins check {name} --kind {project.kind}, "
        f"then edit {folder / project.source}"
    )
