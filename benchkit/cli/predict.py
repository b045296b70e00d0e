"""`benchkit predict`: what an exported model says of photos."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchkit.cli.options import AllowShadow, PluginFiles


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that benchkit model wrote.")],
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Image files, or folders of them.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with the probability of every class.")] = False,
    plugin: PluginFiles = None,
    allow_shadow: AllowShadow = False,
) -> None:
    """Say which class the model in DIR sees in each PHOTO, and with what probability.

    Photos are read as the study's data were: upright, on white, in the model's size. No code in DIR is run.
    """
    from benchkit.cli.app import print_table
    from benchkit.export.described import load_exported
    from benchkit.export.prediction import photos_in, predict
    from benchkit.registry import Registry

    registry = Registry.installed(plugin or (), allow_shadow=allow_shadow)
    exported, network = load_exported(folder, registry)
    found = predict(network, exported, photos_in(photos))
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(("photo", "class", "probability", *exported.class_names))
        for one in found:
            chances = [f"{chance:.6f}" for chance in one.probabilities]
            writer.writerow((one.photo, one.name, f"{max(one.probabilities):.6f}", *chances))
        return
    rows = [(one.photo, one.name, f"{max(one.probabilities):.1%}") for one in found]
    print_table(("photo", "class", "probability"), rows)
