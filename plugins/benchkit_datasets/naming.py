"""Telling which class a folder stands for, however its name is spelt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches


def plain(name: str) -> str:
    """Return a name in lower case without spaces, hyphens, underscores and the like; `grey` is `gray`."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).replace("grey", "gray")


def match_names(names: Sequence[str], known: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Return for each found name the index of the known one that it spells, and a line for each that fails.

    A name fails when it spells none of the known ones, or one that another found name spells too.
    """
    wanted = {plain(name): index for index, name in enumerate(known)}
    labels: dict[str, int] = {}
    owners: dict[int, str] = {}
    problems = []
    for name in names:
        index = wanted.get(plain(name))
        if index is None:
            close = get_close_matches(plain(name), wanted, n=1)
            meant = f" (did you mean {known[wanted[close[0]]]!r}?)" if close else ""
            problems.append(f"unknown class {name!r}{meant}")
        elif index in owners:
            problems.append(f"class {known[index]!r} has two folders, {owners[index]!r} and {name!r}")
        else:
            labels[name] = index
            owners[index] = name
    return labels, problems
