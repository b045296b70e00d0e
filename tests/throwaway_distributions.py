"""Distributions made on disk for a test: a folder with modules and the metadata that an installer would write."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

NORM = '''
from benchkit import Range, card

@card(title="Fixed response", summary="Divides by one.", reference="A. Author, 2020", url="https://example.org",
      ranges={"eps": Range(low=1e-8, high=1e-2, log=True)})
class Norm:
    """A norm for tests. `eps` keeps the root from zero."""

    def __init__(self, num_channels: int, eps: float = 1e-5, *, device: object = None, dtype: object = None) -> None:
        self.num_channels = num_channels
'''
"""A norm that needs no framework, with a card."""


def write_distribution(
    folder: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    *,
    modules: Mapping[str, str] | None = None,
    version: str = "1.0",
) -> Path:
    """Write a distribution with entry points {kind: {name: target}} and modules {file: source}; return the folder."""
    facts = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not this\n")
    groups = [
        f"[benchkit.{kind}]\n" + "".join(f"{key} = {target}\n" for key, target in targets.items())
        for kind, targets in entry_points.items()
    ]
    (facts / "entry_points.txt").write_text("\n".join(groups))
    for file, source in (modules or {}).items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return folder
