"""`benchkit studies`: list, show, check and write study files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.analysis.wording import count
from benchkit.cli.app import clean, print_json, print_note, print_table, print_text
from benchkit.cli.options import AllowShadow, AsJson, Overrides, PluginFiles, StudyFile
from benchkit.errors import BenchkitError, StudyError
from benchkit.registry import Registry
from benchkit.storage import write_atomically
from benchkit.study.studyfile import find_study

if TYPE_CHECKING:
    from benchkit.plan import Condition, Plan

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show, check and write studies.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the installed studies with their questions."""
    registry = Registry.installed()
    rows = []
    for entry in registry.entries("studies"):
        try:
            study = find_study(entry.name, registry)
            title, question, problem = study.title, study.question, ""
        except BenchkitError as error:
            title, question, problem = "", "", error.what
        rows.append(
            {"name": entry.name, "title": title, "question": question, "origin": entry.origin, "problem": problem}
        )
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("study", "question", "from"),
            [(r["name"], r["question"] or f"broken: {r['problem']}", r["origin"]) for r in rows],
        )


@app.command()
def show(name: StudyFile) -> None:
    """Print a study's file."""
    source = find_study(name, Registry.installed()).source.rstrip()
    # A file that is written elsewhere stays as it is; a terminal obeys some of the characters that TOML allows.
    typer.echo(clean(source) if sys.stdout.isatty() else source)


@app.command()
def check(
    name: StudyFile,
    set_: Overrides = [],
    run: Annotated[
        bool, typer.Option("--run", help="Also build each different network and run it on two images.")
    ] = False,
    plugin: PluginFiles = [],
    allow_shadow: AllowShadow = False,
    as_json: AsJson = False,
) -> None:
    """Check a study file, its plugins and their options, and list its conditions."""
    from benchkit.data.dataset import check_data
    from benchkit.plan import make_plan
    from benchkit.study.checks import check_plan, data_sets

    registry = Registry.installed(plugin, allow_shadow=allow_shadow)
    study = find_study(name, registry, overrides=set_)
    plan = make_plan(study)
    warnings = check_plan(plan, registry)
    for warning in warnings:
        print_note(f"warning: {warning}")
    check_data(registry, data_sets(plan), study.path)
    for warning in _run_networks(plan, registry, plugin, allow_shadow) if run else ():
        print_note(f"warning: {warning}")
        warnings = (*warnings, warning)
    if as_json:
        found = [
            {"label": c.display_label, "kind": c.kind, "key": c.key, "trials": plan.count(c)} for c in plan.conditions
        ]
        print_json({"study": study.name, "conditions": found, "most": study.most, "warnings": list(warnings)})
        return
    print_table(
        ("condition", "kind", "trials", "key"),
        [(c.display_label, c.kind, _trials(plan, c), c.key) for c in plan.conditions],
    )
    wrong = count(len(warnings), "warning") if warnings else "nothing wrong"
    print_text(
        f"{study.name}: {wrong}, {count(len(plan.conditions), 'condition')}, {count(len(plan.units()), 'trial')}"
    )


def _trials(plan: Plan, condition: Condition) -> str:
    """Return how many trials a condition has, `3 to 20` where repeats are added until it is decided."""
    more = plan.study.most if condition.kind != "search" else 0
    return f"{plan.count(condition)} to {more}" if more else str(plan.count(condition))


def _run_networks(plan: Plan, registry: Registry, plugins: Sequence[Path], allow_shadow: bool) -> tuple[str, ...]:
    from benchkit.preparation import data_root
    from benchkit.sweep.orchestration import Request, check_networks

    request = Request(
        study=plan.study,
        workspace=Path(),
        data_root=data_root(),
        plugins=tuple(path.resolve() for path in plugins),
        allow_shadow=allow_shadow,
    )
    return check_networks(request, plan, registry)


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the schema to this file instead of printing it.")
    ] = None,
) -> None:
    """Print the JSON schema of a study file, by which editors complete and check one."""
    from benchkit.study.schema import study_schema

    found = study_schema(Registry.installed())
    if out is None:
        print_json(found)
    else:
        write_atomically(out, f"{json.dumps(found, indent=2)}\n".encode())
        print_text(f"{out} written; name it in the first line of a study file: #:schema {out.resolve().as_uri()}")


@app.command()
def new(
    path: Annotated[Path, typer.Argument(help="The file to write, ending in .toml.")],
    from_folder: Annotated[
        Path | None,
        typer.Option(
            "--from-folder", metavar="PHOTOS", help="Fit the study to this folder of class folders of images."
        ),
    ] = None,
) -> None:
    """Write a small complete study to start from; of photographs, after at most three questions."""
    from benchkit.study.schema import write_schema

    if path.suffix != ".toml":
        raise StudyError(f"{path}: a study's file name ends in .toml")
    if path.exists():
        raise StudyError(
            f"{path}: there is a file of that name already", hint="choose another name; nothing was changed"
        )
    title = path.stem.replace("-", " ").capitalize()
    text = _example(title) if from_folder is None else _of_photographs(title, from_folder)
    schema_line = f"#:schema {write_schema(Registry.installed()).as_uri()}\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(schema_line + text, encoding="utf-8")
    print_text(f"{path} written; next: benchkit studies check {path}, then benchkit sweep {path}")


def _example(title: str) -> str:
    from importlib.resources import files

    return files("benchkit_templates").joinpath("study.toml.txt").read_text(encoding="utf-8").replace("TITLE", title)


def _of_photographs(title: str, folder: Path) -> str:
    from benchkit.data.photo_study import COMPARISONS, LEAST, look, study_text

    photos = look(folder)
    print_text(
        f"{photos.path}: {photos.total:,} images of {len(photos.images)} classes, about {photos.side} pixels a side"
    )
    compare = _asked("What is to be compared", "norms", tuple(COMPARISONS))
    side = int(_asked("Pixels a side to train at", str(photos.proposed_side), number=(8, 1024)))
    names = ", ".join(photos.few[:8]) + (", ..." if len(photos.few) > 8 else "")
    question = f"Leave out the classes of fewer than {LEAST} images, which cannot be split ({names})"
    leave_out = not photos.few or _asked(question, "yes", ("yes", "no")) == "yes"
    return study_text(title, photos, compare=compare, side=side, leave_out_few=leave_out)


def _asked(question: str, usual: str, choices: Sequence[str] = (), number: tuple[int, int] | None = None) -> str:
    """Return an answer, asked for again until it is one; where nobody can answer, the usual one, which is told."""
    allowed = ", ".join(choices) or (f"{number[0]} to {number[1]}" if number else "")
    if not sys.stdin.isatty():
        print_note(f"{question}: {usual} ({allowed})")
        return usual
    while True:
        answer: str = typer.prompt(f"{question}? ({allowed})", default=usual).strip().lower()
        if answer in choices or (number and answer.isdecimal() and number[0] <= int(answer) <= number[1]):
            return answer
        print_note(f"got {answer!r}, expected {'one of ' if choices else ''}{allowed}")
