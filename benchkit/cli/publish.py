"""`benchkit publish`: reports as a site of static pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchkit.cli.app import print_note, print_text
from benchkit.errors import ReportError
from benchkit.registry import Registry
from benchkit.storage import mebibytes


def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder: new, empty, or published before.")],
    reports: Annotated[
        list[Path], typer.Argument(metavar="[REPORT.html...]", help="Reports; those in ./reports without.")
    ] = [],
    title: Annotated[str, typer.Option("--title", help="What the site is called.")] = "Reports",
) -> None:
    """Write a site of reports into DIR, for any web host or to be opened from disk: an index to search, a page for
    each report and plugin, and a table across studies of the same data and protocol. Earlier versions stay.
    """
    from benchkit.analysis.wording import count
    from benchkit.publish import publish as write
    from benchkit.publish import read_report
    from benchkit.publish.site import LARGE

    files = reports or sorted(Path("reports").glob("*.html"))
    if not files:
        raise ReportError("reports: there is no report here", hint="name the .html files of reports")
    site = write(folder, [read_report(file) for file in files], title=title, registry=Registry.installed())
    older = f", {count(site.older, 'older version')}" if site.older else ""
    print_text(
        f"{folder / 'index.html'}: {count(site.reports, 'report')}{older}, {site.files} files, {mebibytes(site.size)}"
    )
    print_text("largest: " + ", ".join(f"{name} ({mebibytes(size)})" for name, size in site.largest))
    if site.size > LARGE:
        print_note(
            f"{mebibytes(site.size)} is near the 1 GB that hosts of pages allow; remove folders of older versions"
        )
