"""`benchkit verify`: does a report say what its trials gave, and do they give it again?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.cli.app import cell, print_json, print_note, print_table, print_text
from benchkit.cli.options import AllowShadow, AsJson, PluginFiles
from benchkit.errors import StudyError
from benchkit.registry import Registry

if TYPE_CHECKING:
    from benchkit.capsule import Capsule
    from benchkit.verify import ReportCheck, Verification
    from benchkit.verify.retraining import Scratch

STYLES = {"holds": "green", "differs": "yellow", "fails": "bold red", "unchecked": "dim"}


def verify(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="The .html or .pdf file of a report.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where this machine differs from the report's.")
    ] = False,
    retrain: Annotated[int, typer.Option(metavar="N", min=0, help="Train N trials of the report again.")] = 0,
    seed: Annotated[int, typer.Option(help="Chooses the trials of --retrain.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N, for --retrain.")] = "auto",
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", help="An empty folder to keep what --retrain trains.", file_okay=False),
    ] = None,
    plugin: PluginFiles = [],
    allow_shadow: AllowShadow = False,
    as_json: AsJson = False,
) -> None:
    """Check REPORT against the capsule inside it, and against this machine; --retrain N trains N trials again.

    The digests must fit, those of the files in the folder beside it too, and tables and sentences must be those that
    the capsule's trials give when they are summarised anew. Other versions, plugins and data on this machine are told;
    they fail with --strict alone. --retrain takes the conditions in turn, those that trained fastest first, and holds
    what comes of it against what the report says: identical, or inside the 95 % prediction interval of the condition's
    repeats (one in twenty is outside by chance).

    No code comes from a report: plugins are those installed here, and the files given with --plugin.

    Exit code 0: all that was checked holds. 1: something does not. 2: no report by benchkit, no capsule, or damaged.
    """
    from benchkit.capsule import read_capsule
    from benchkit.preparation import data_root
    from benchkit.verify import Verification, open_report
    from benchkit.verify import verify as verify_report

    registry = Registry.installed(plugin, allow_shadow=allow_shadow)
    opened = open_report(report)
    capsule = read_capsule(opened.capsule)
    verification = verify_report(opened, capsule, registry, data_root())
    if retrain:
        from benchkit.verify.retraining import Scratch

        with nullcontext(workspace) if workspace else TemporaryDirectory(prefix="benchkit-verify-") as folder:
            scratch = Scratch(
                workspace=Path(folder),
                data_root=data_root(),
                device=device,
                plugins=tuple(plugin),
                allow_shadow=allow_shadow,
            )
            verification = Verification(
                checks=(*verification.checks, *_retrained(capsule, registry, scratch, retrain, seed))
            )
    _tell(report, capsule, verification, strict=strict, as_json=as_json)
    if verification.failed(strict=strict):
        raise typer.Exit(1)


def _retrained(capsule: Capsule, registry: Registry, scratch: Scratch, count: int, seed: int) -> Iterator[ReportCheck]:
    """Yield what trials trained again say, after a word on which they are and how long they took."""
    from benchkit.analysis.wording import count as counted
    from benchkit.analysis.wording import duration
    from benchkit.capsule.reading import restored
    from benchkit.verify.retraining import compare_retrained, paths_of, retrain, sample_trials, seconds_of

    sampled = sample_trials(capsule, count, seed)
    if not sampled:
        raise StudyError("the report has no done trial that could be trained again")
    took = duration(seconds_of(sampled))
    trials = counted(len(sampled), "trial")
    print_note(f"training {trials} again, cheapest conditions first, seed {seed}; they took {took} in all:")
    for sample in sampled:
        print_note(f"  {sample.name}")
    for path in paths_of(capsule, sampled):
        print_note(f"the report's settings name this path, which is read here: {path}")
    again = retrain(capsule, sampled, registry, scratch)
    with restored(capsule) as studies:
        for sample, trial in zip(sampled, again, strict=True):
            yield compare_retrained(sample, trial, studies[sample.study])


def _tell(report: Path, capsule: Capsule, verification: Verification, *, strict: bool, as_json: bool) -> None:
    from benchkit.verify.check import WORDS

    studies = [study.name for study in capsule.head.studies]
    failed = verification.failed(strict=strict)
    if as_json:
        checks = verification.plain()
        print_json({"report": str(report), "studies": studies, "holds": not failed, "checks": checks})
        return
    rows = [
        (check.name, cell(WORDS[check.state], STYLES[check.state]), cell(check.words)) for check in verification.checks
    ]
    print_table(("check", "result", "what"), rows)
    print_text(
        f"{report}: {'does NOT hold' if failed else 'all that was checked holds'} ({', '.join(studies)})", "bold"
    )
