"""What the shell completes: names of plugins and studies, read from metadata alone."""

from __future__ import annotations

from benchkit.registry import Registry
from benchkit.registry.kinds import KINDS, kind_word


def complete_plugin(incomplete: str) -> list[tuple[str, str]]:
    """Return the plugin names that start with `incomplete`, each with its kind and origin."""
    return _matches(incomplete, tuple(kind for kind in KINDS if kind != "studies"))


def complete_study(incomplete: str) -> list[tuple[str, str]]:
    """Return the names of installed studies that start with `incomplete`, each with its origin."""
    return _matches(incomplete, ("studies",))


def complete_kind(incomplete: str) -> list[str]:
    """Return the plugin kinds that start with `incomplete`."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _matches(incomplete: str, kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    return [
        (entry.name, f"{kind_word(entry.kind)}, {entry.origin}")
        for entry in Registry.installed().entries()
        if entry.kind in kinds and entry.name.startswith(incomplete) and not entry.problem
    ]
