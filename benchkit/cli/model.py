"""`benchkit model` and `benchkit predict`: a condition's model as a folder to use, and what it says of photos."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchkit.cli.app import print_note, print_table, print_text
from benchkit.cli.options import (
    DEFAULT_WORKSPACE,
    AllowShadow,
    LatestStudy,
    PluginFiles,
    Storage,
    Workspace,
)
from benchkit.registry import Registry
from benchkit.storage import each_once
from benchkit.study.study import study_name


def model(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.", file_okay=False)],
    study: LatestStudy = "",
    condition: Annotated[
        str, typer.Option(metavar="LABEL", help="A condition's label or key; default the one with the best mean.")
    ] = "",
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, too, compared within 1e-4.")] = False,
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: PluginFiles = [],
    allow_shadow: AllowShadow = False,
) -> None:
    """Write the model of STUDY's winner into a folder: weights, settings, classes, a card, and predict.py.

    Of the condition's repeats it is the one that does best on validation images. misclassified.csv lists the test
    images that it gets wrong, where the data are here.
    """
    from benchkit.export.choice import choose
    from benchkit.export.writing import export
    from benchkit.ledger import read_results
    from benchkit.preparation import data_root

    results = read_results(workspace, study_name(study) or None, storage or None)
    registry = Registry.installed(plugin, allow_shadow=allow_shadow)
    choice = choose(results, condition)
    written = export(results, choice, registry, data_root(), out)
    for note in written.notes:
        print_note(note)
    print_text(f"{choice.condition.label}, repeat {choice.trial.index}: {choice.why}")
    for file in written.files:
        print_text(str(file))
    if onnx:
        from benchkit.export.onnx_file import write_onnx

        print_text(write_onnx(out, registry))
    print_note(f"next: benchkit predict {out} PHOTO...")


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that benchkit model wrote.")],
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Image files, or folders of them.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with the probability of every class.")] = False,
    plugin: PluginFiles = [],
    allow_shadow: AllowShadow = False,
) -> None:
    """Say which class the model in DIR sees in each PHOTO, and with what probability.

    Photos are read as the study's data were: upright, on white, in the model's size. Those that cannot be
    read are named at the end. No code in DIR is run.
    """
    from benchkit.export.described import load_exported
    from benchkit.export.prediction import photos_in
    from benchkit.export.prediction import predict as predicted

    exported, network = load_exported(folder, Registry.installed(plugin, allow_shadow=allow_shadow))
    found = predicted(network, exported, photos_in(photos))
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(each_once(("photo", "class", "probability", *exported.class_names)))
        for one in found:
            chances = [f"{chance:.6g}" for chance in one.probabilities]
            writer.writerow((one.photo, one.name, f"{max(one.probabilities):.6g}", *chances))
        return
    rows: list[tuple[object, ...]] = []
    try:
        rows.extend((one.photo, one.name, f"{max(one.probabilities):.1%}") for one in found)
    finally:
        print_table(("photo", "class", "probability"), rows)
