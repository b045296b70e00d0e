"""From a study to its conditions and trials, with their seeds and fingerprints. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchkit.study import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One combination of levels, and after a search the chosen settings.

    `key` is the first 12 hex digits of a sha256 over everything that determines its trials but the repeat. `label` is
    short and unique within the study, `levels` maps factor paths to level labels. `kind` says whether it comes from
    the grid, is the frame of a search, or is what the confirm stage trains again (`confirm-best`, `confirm-default`);
    a confirm condition's `parent` is the key of the searched condition and `chosen` the settings in which it differs
    from it.
    """

    key: str
    label: str
    levels: Mapping[str, str]
    settings: Tree
    kind: Literal["grid", "search", "confirm-best", "confirm-default"]
    parent: str = ""
    chosen: Mapping[str, object]
