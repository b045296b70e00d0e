"""`benchkit report`: what the ledger holds becomes HTML, PDF, tables, figures and JSON."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.cli import stoppable
from benchkit.cli.app import print_error, print_note, print_text
from benchkit.cli.options import (
    DEFAULT_WORKSPACE,
    AllowShadow,
    PluginFiles,
    Storage,
    Workspace,
    complete_study,
)
from benchkit.errors import ReportError, nearest
from benchkit.registry import Registry
from benchkit.report import FORMATS
from benchkit.study.study import study_name

if TYPE_CHECKING:
    from benchkit.report.context.blocks import FigureBlock
    from benchkit.report.write import ReportOptions, Written
    from benchkit.results import StudyResults


def report(
    ctx: typer.Context,
    studies: Annotated[
        list[str],
        typer.Argument(help="Names of studies, or files of reports to make anew.", autocompletion=complete_study),
    ] = [],
    format: Annotated[
        list[str],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT[,FORMAT...]",
            help="Which files to make: html, pdf, tables (CSV, Markdown, LaTeX), figures (SVG, PDF, PNG), json, or "
            "all. html and pdf bring tables and json along; json alone loads no figure.",
            autocompletion=lambda: [*FORMATS, "all"],
        ),
    ] = ["all"],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the reports.", file_okay=False)] = Path(
        "reports"
    ),
    templates: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of own templates and style sheets: see benchkit templates."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="The name of the report's files; default the study's, or A+B for several.")
    ] = "",
    separate: Annotated[bool, typer.Option("--separate", help="One report for each study, not one of all.")] = False,
    against: Annotated[
        Path | None,
        typer.Option(metavar="OLD", help="Say what changed since OLD: a workspace, or a report's HTML or JSON."),
    ] = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: PluginFiles = [],
    allow_shadow: AllowShadow = False,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Use charts that an earlier report drew.")] = True,
) -> None:
    """Make the report of STUDY from what the ledger holds, finished or not; nothing is trained.

    Several studies make one report: of the conditions that they share, then each whole. A report's file is made anew.

    Exit code 1: the report is there, but a figure failed, or files of trials were lost or changed. Exit code 2: a file
    could not be made, such as the PDF without Pango; the others are there.
    """
    from benchkit.report.write import ReportOptions

    atexit.register(_end_quickly)
    options = ReportOptions(formats=_formats(format), templates=templates, name=name, against=against, cache=cache)
    registry = Registry.installed(plugin, allow_shadow=allow_shadow) if plugin else None
    debug = bool((ctx.find_root().params or {}).get("debug"))
    with stoppable(), TemporaryDirectory(prefix="benchkit-") as scratch:
        results, kept = _given(studies or [""], workspace, storage, Path(scratch))
        groups = _groups(results, name) if separate else [results]
        code = _tell_broken(results)
        del results  # a report lets go of what it has read
        written = _written(groups, out, replace(options, kept=kept), registry)
        code = max(code, *(_tell(one, debug=debug) for one in written))
    raise typer.Exit(code)


def _end_quickly() -> None:
    """Spare the last look for garbage before the process ends, half a second of a report's; PyTorch needs it."""
    if "torch" not in sys.modules:
        gc.freeze()


@contextmanager
def _spared_collector() -> Iterator[None]:
    """Look for garbage less often: a large study is a million objects that stay to the end."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


MADE = (".html", ".pdf", ".json", ".zip")
"""How the files of reports end; of the last two, which lie beside the page, it is told what to name instead."""


def _given(
    studies: Sequence[str], workspace: Path, storage: str, scratch: Path
) -> tuple[list[StudyResults], dict[str, FigureBlock]]:
    """Return the results of studies, of reports' files from their capsules, and the figures that these files keep.

    They keep the order in which they were given; a study that is named twice stands once.
    """
    results: list[StudyResults] = []
    kept: dict[str, FigureBlock] = {}
    for place, given in enumerate(_each_once(studies)):
        if given.endswith(MADE):
            found, figures = _from_report(Path(given), scratch / str(place))
            results += found
            kept |= figures
        else:
            results.append(_read(given, workspace, storage))
    return results, kept


def _each_once(studies: Sequence[str]) -> list[str]:
    """Return names and files of studies, of those that mean one study the last, and all files of reports."""
    meant = [(at, given) if given.endswith(MADE) else study_name(given) for at, given in enumerate(studies)]
    return list(dict(zip(meant, studies, strict=True)).values())


def _from_report(file: Path, folder: Path) -> tuple[list[StudyResults], Mapping[str, FigureBlock]]:
    """Return the studies of a report from its capsule, with today's words where they are built in, and its figures.

    What a model showed, such as its activations, is in no capsule: of that a page's own figures are kept.
    """
    from benchkit.capsule import read_capsule
    from benchkit.capsule.reading import results_of
    from benchkit.report.figures.figure_files import kept_figures
    from benchkit.verify.opening import open_report

    opened = open_report(file)
    capsule = read_capsule(opened.capsule)
    found = [results_of(capsule, place, folder / str(place)) for place in range(len(capsule.studies))]
    kept = kept_figures(file.read_text(encoding="utf-8")) if opened.kind == "html" else {}
    if opened.kind == "pdf":
        print_note(
            f"{file}: what figures showed of models and their predictions is in no capsule; the HTML page keeps it"
        )
    return [_shown(study, Path(study.study.name)) for study in found], kept


def _groups(results: Sequence[StudyResults], name: str) -> list[list[StudyResults]]:
    """Return a group for each study; raise `ReportError` where one `name` is given for several."""
    if len(results) > 1 and name:
        raise ReportError("--name names one report, and --separate asks for several", hint="leave one of them out")
    return [[study] for study in results]


def _written(
    groups: list[list[StudyResults]], out: Path, options: ReportOptions, registry: Registry | None
) -> Iterator[Written]:
    """Yield what became of the report of each group of studies, which leaves `groups` before it is made."""
    from benchkit.report.write import write_reports

    while groups:
        with _spared_collector():
            written = write_reports(groups.pop(0), out, options, registry=registry)
        yield written


def _read(given: str, workspace: Path, storage: str) -> StudyResults:
    """Return the results of a study by its name or file, the latest without one; a file says how they are shown."""
    from benchkit.ledger import read_results

    return _shown(read_results(workspace, study_name(given) or None, storage or None), Path(given))


def _shown(results: StudyResults, given: Path) -> StudyResults:
    """Return results as the study file shows them now, if there is one; a note tells where it describes others."""
    from benchkit.report.write import file_now, presented

    file = file_now(results, given)
    if file is None:
        return results
    results, note = presented(results, file)
    if note:
        print_note(note)
    return results


def _tell_broken(results: Sequence[StudyResults]) -> int:
    """Print which trials' files were lost or changed; return the exit code for that."""
    from benchkit.results import WITHOUT_FILES
    from benchkit.sweep.progress import trial_name

    broken = [trial for one in results for trial in one.trials if trial.state in WITHOUT_FILES]
    for trial in broken:
        name = trial_name(trial.condition.label, trial.phase, trial.index)
        print_note(f"{name}: {trial.state}: {trial.reason}")
    return int(bool(broken))


def _formats(given: Sequence[str]) -> frozenset[str]:
    """Return the formats in lists parted by commas, or raise `ReportError` for those that do not exist."""
    text = ",".join(given)
    asked = [part.strip().lower() for part in text.split(",") if part.strip()]
    unknown = [part for part in asked if part not in (*FORMATS, "all")]
    if unknown or not asked:
        raise ReportError(
            f"--format {text!r}: expected one or more of {', '.join(FORMATS)}, all, parted by commas",
            problems=[f"unknown: {part}{nearest(part, (*FORMATS, 'all'))}" for part in unknown],
        )
    return frozenset(FORMATS if "all" in asked else asked)


def _tell(written: Written, *, debug: bool) -> int:
    """Print the paths of a report's files and what went wrong, and return the exit code that follows from it."""
    for path in written.paths:
        print_text(path)
    for problem in (*written.problems, *written.notes):
        print_note(problem)
    for trace in written.tracebacks if debug else ():
        print_note(trace)
    if written.error is not None:
        print_error(written.error)
        return written.error.exit_code
    return 1 if written.problems else 0
