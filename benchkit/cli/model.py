"""`benchkit model`: a study's winner, or another condition's model, as a folder to use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchkit.cli.completion import complete_study
from benchkit.cli.options import DEFAULT_WORKSPACE, AllowShadow, PluginFiles, Storage, Workspace, study_name


def model(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.", file_okay=False)],
    study: Annotated[
        str, typer.Argument(help="A study's name; without one, the latest.", autocompletion=complete_study)
    ] = "",
    condition: Annotated[
        str, typer.Option(metavar="LABEL", help="A condition's label or key; default the one with the best mean.")
    ] = "",
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx, too, compared within 1e-4.")] = False,
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: PluginFiles = None,
    allow_shadow: AllowShadow = False,
) -> None:
    """Write the model of STUDY's winner into a folder: weights, settings, classes, a card, and predict.py.

    Of the condition's repeats it is the one that does best on validation images. misclassified.csv lists the test
    images that it gets wrong, where the data are here.
    """
    from benchkit.cli.app import print_note, print_text
    from benchkit.export.choice import choose
    from benchkit.export.writing import export
    from benchkit.ledger import read_results
    from benchkit.preparation import data_root
    from benchkit.registry import Registry

    results = read_results(workspace, study_name(study) or None, storage or None)
    registry = Registry.installed(plugin or (), allow_shadow=allow_shadow)
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
