"""`benchkit doctor`: what this machine can do for benchkit, what is broken, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from benchkit.cli.app import print_json, print_text
from benchkit.cli.options import DEFAULT_WORKSPACE, AsJson, Workspace
from benchkit.storage import encode

STYLES = {"good": "green", "note": "yellow", "bad": "bold red"}


def doctor(
    device: Annotated[str, typer.Option(help="The device to examine: auto, cpu, mps, cuda or cuda:N.")] = "auto",
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Examine device, precision, speed, PDF printing, disk, allocator and plugins. Exit with 1 if something is bad."""
    from benchkit.doctor import examine
    from benchkit.preparation import data_root

    findings = []
    for finding in examine(workspace, data_root(), device):
        findings.append(finding)
        if not as_json:
            print_text(f"{finding.state:5} {finding.name}: {finding.value}", STYLES[finding.state])
            if finding.advice:
                print_text(f"      {finding.advice}", "dim")
    bad = sum(finding.state == "bad" for finding in findings)
    if as_json:
        print_json({"healthy": not bad, "findings": encode(findings)})
    else:
        print_text(
            f"{bad} of {len(findings)} findings {'is' if bad == 1 else 'are'} bad" if bad else "benchkit can work here"
        )
    if bad:
        raise typer.Exit(1)
