"""The options that several commands have: workspace, storage, the device's memory, plugins in local files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_WORKSPACE = Path("benchkit-runs")
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
    list[Path] | None, typer.Option("--plugin", metavar="FILE", help="Add the plugins of a local Python file.")
]
AllowShadow = Annotated[
    bool, typer.Option("--allow-shadow", help="Let a --plugin file take the place of an installed plugin.")
]
