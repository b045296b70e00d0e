"""The plugins that installed distributions announce, read from their metadata without importing anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import metadata

from benchkit.registry.entries import BUILT_IN, KINDS, Entry, entry_problem, normalized

DISABLE_VARIABLE = "BENCHKIT_DISABLE_PLUGINS"
"""Environment variable: `all` hides every third-party plugin, else a comma-separated list of names to hide."""


def installed_entries() -> tuple[Entry, ...]:
    """Return the plugins of every distribution on the import path, those hidden by the environment left out.

    As for imports, the first distribution of a name on the path hides later ones. Malformed lines become entries with a
    `problem`, so that one broken distribution is shown and harms no other.
    """
    seen: set[str] = set()
    found: list[Entry] = []
    for distribution in metadata.distributions():
        text = _read(distribution, "entry_points.txt")
        if "[benchkit." not in text:
            continue
        name, version = _identity(distribution)
        if normalized(name) not in seen:
            seen.add(normalized(name))
            found.extend(_entries(text, name, version))
    hidden = disabled_names(os.environ)
    return tuple(entry for entry in found if not _is_disabled(entry, hidden))


def disabled_names(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the plugin and distribution names that the environment disables; `all` stands for every third party."""
    names = environment.get(DISABLE_VARIABLE, "").split(",")
    return frozenset(name.strip().lower() for name in names if name.strip())


def _is_disabled(entry: Entry, hidden: frozenset[str]) -> bool:
    third_party = normalized(entry.distribution) != BUILT_IN
    return (third_party and "all" in hidden) or not hidden.isdisjoint(
        {entry.name, normalized(entry.distribution), entry.qualified.lower()}
    )


def _read(distribution: metadata.Distribution, file: str) -> str:
    try:
        return distribution.read_text(file) or ""
    except (OSError, UnicodeDecodeError):
        # Metadata that nobody can read announces no plugin; pip itself reports such a distribution.
        return ""


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    """Return name and version from the metadata's header lines; parsing it as e-mail would take most of the time."""
    header = (_read(distribution, "METADATA") or _read(distribution, "PKG-INFO")).partition("\n\n")[0]
    fields = {
        key.strip().lower(): value.strip()
        for key, colon, value in (line.partition(":") for line in header.splitlines())
        if colon and not key.startswith((" ", "\t"))
    }
    return fields.get("name") or f"unnamed distribution in {distribution.locate_file('')}", fields.get("version", "?")


def _entries(text: str, distribution: str, version: str) -> Iterator[Entry]:
    kind = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            group = line.strip("[] ")
            kind = group.removeprefix("benchkit.") if group.startswith("benchkit.") else ""
        elif kind in KINDS and line and not line.startswith(("#", ";")):
            name, _, value = (part.strip() for part in line.partition("="))
            yield Entry(
                kind=kind,
                name=name,
                value=value,
                distribution=distribution,
                version=version,
                problem=entry_problem(kind, name, value),
            )
