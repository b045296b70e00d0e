"""What several commands take: studies, workspace, storage, the device's memory, plugins in local files.

What the shell completes is read from metadata alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchkit import storage
from benchkit.errors import TrainingError, nearest
from benchkit.registry import Registry
from benchkit.registry.kinds import KINDS, kind_word

DEFAULT_WORKSPACE = Path(storage.DEFAULT_WORKSPACE)


def complete_plugin(incomplete: str) -> list[tuple[str, str]]:
    """Return the plugin names that start with `incomplete`, each with its kind and origin."""
    return _matches(incomplete, [kind for kind in KINDS if kind != "studies"])


def complete_study(incomplete: str) -> list[tuple[str, str]]:
    """Return the names of installed studies that start with `incomplete`, each with its origin."""
    return _matches(incomplete, ["studies"])


def complete_kind(incomplete: str) -> list[str]:
    """Return the plugin kinds that start with `incomplete`."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _matches(incomplete: str, kinds: Sequence[str]) -> list[tuple[str, str]]:
    return [
        (entry.name, f"{kind_word(entry.kind)}, {entry.origin}")
        for entry in Registry.installed().entries()
        if entry.kind in kinds and entry.name.startswith(incomplete) and not entry.problem
    ]


def know_metrics(files: list[Path] | None) -> list[Path]:
    """Let this process know the metrics of plugin files, and return the files."""
    if files:
        Registry.installed(files, allow_shadow=True)
    return files or []


StudyFile = Annotated[
    str, typer.Argument(help="A built-in study's name or a TOML file.", autocompletion=complete_study)
]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name.", autocompletion=complete_study)]
LatestStudy = Annotated[
    str, typer.Argument(help="A study's name; without one, the latest.", autocompletion=complete_study)
]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Workspace = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar="BENCHKIT_WORKSPACE",
        help="The folder of the ledger and of all trials.",
        file_okay=False,
    ),
]
Storage = Annotated[
    str,
    typer.Option(envvar="BENCHKIT_STORAGE", metavar="URL", help="An Optuna storage to share between machines."),
]
DeviceMemory = Annotated[
    str,
    typer.Option(
        metavar="LIMIT",
        help="The most that a trial's images take on the device, such as 500MB or 2GiB; beyond it they are streamed. "
        "Default: half of what is free.",
    ),
]
PluginFiles = Annotated[
    list[Path], typer.Option("--plugin", metavar="FILE", help="Add the plugins of a local Python file.")
]
MetricFiles = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Add the metrics of a local Python file, which a study may ask for.",
        callback=know_metrics,
    ),
]
AllowChangedPlugins = Annotated[
    bool,
    typer.Option(
        "--allow-changed-plugins", help="Add trials to those with another source of a plugin; the report tells it."
    ),
]
AllowShadow = Annotated[
    bool, typer.Option("--allow-shadow", help="Let a --plugin file take the place of an installed plugin.")
]


UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
"""The bytes of each unit: decimal ones (1 MB is 1,000,000 bytes) and binary ones (1 MiB is 1,048,576)."""

NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]*)")


def parse_size(option: str, text: str) -> int:
    """Return the bytes that `text` (500MB, 1.5 GiB, 0) means; capital or small letters are all one.

    Raise `TrainingError`, which names the `option`, for anything else.
    """
    written = NUMBER.fullmatch(text.strip())
    if written:
        number, unit = written.groups()
        known = {name.lower(): count for name, count in UNITS.items()}
        if unit.lower() in known:
            return int(float(number) * known[unit.lower()])
        if not unit and float(number) == 0:
            return 0
    close = nearest(written[2], UNITS) if written else ""
    raise TrainingError(
        f"{option} {text}: expected a number with a unit, or 0{close}",
        hint=f"for example 500MB or 2GiB; the units are {', '.join(UNITS)}",
    )
