"""What is known of plugins before they are imported, read from the metadata of installed distributions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchkit.errors import PluginError, nearest

KINDS: tuple[str, ...] = ("norms", "datasets", "regularizers", "models", "figures", "studies")
"""The plugin kinds, in the order of every listing. The entry-point group of a kind is `benchkit.` and its name."""

BUILT_IN = "benchkit"
"""The distribution of the built-in plugins."""

DISABLE_VARIABLE = "BENCHKIT_DISABLE_PLUGINS"
"""Environment variable: `all` hides every third-party plugin, else a comma-separated list of names to hide."""

_WORDS = {
    "norms": "norm",
    "datasets": "data set",
    "regularizers": "regularizer",
    "models": "model",
    "figures": "figure",
    "studies": "study",
}
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TARGET = re.compile(r"(?P<module>\w+(\.\w+)*)(\s*:\s*(?P<attribute>\w+(\.\w+)*))?\s*(\[[^\]]*\])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One plugin as its entry point names it; nothing of it has been imported.

    `value` is the target, `module:attribute` (a study's is a package). `version` is that of the distribution; for a
    local file, `distribution` is the file's stem and `version` starts with `sha256:` and its content's first 12 hex
    digits. `shadows` names the distributions whose plugin of the same name the local file replaces. `problem` says why
    the entry can never be loaded, and is empty otherwise.
    """

    kind: str
    name: str
    value: str
    distribution: str
    version: str
    file: Path | None = None
    shadows: str = ""
    problem: str = ""

    @property
    def module(self) -> str:
        """Return the module part of the target, or an empty string when the target is malformed."""
        target = _TARGET.fullmatch(self.value)
        return target["module"] if target else ""

    @property
    def attribute(self) -> str:
        """Return the attribute part of the target (dotted), or an empty string when there is none."""
        target = _TARGET.fullmatch(self.value)
        return (target["attribute"] or "") if target else ""

    @property
    def qualified(self) -> str:
        """Return `distribution:name`, which stays unambiguous when another distribution claims the name."""
        return f"{self.distribution}:{self.name}"

    @property
    def key(self) -> str:
        """Return a text that no other plugin of this environment has, by which caches know it."""
        return f"{self.kind}/{self.file or self.distribution}/{self.name}/{self.value}"

    @property
    def origin(self) -> str:
        """Return where the plugin comes from, in words: a distribution with its version, or a file and its shadow."""
        if self.file is None:
            return f"{self.distribution} {self.version}"
        return f"{self.file}, in place of {self.shadows}" if self.shadows else str(self.file)


def kind_word(kind: str) -> str:
    """Return the word for one plugin of a kind, for example `data set` for `datasets`."""
    return _WORDS[kind]


def parse_kind(text: str) -> str:
    """Return the kind that `text` names, singular or plural, any case; raise `PluginError` for another word."""
    words = {spelling: kind for kind, word in _WORDS.items() for spelling in (kind, word, word.replace(" ", ""))}
    plain = text.strip().lower().replace("_", "").replace("-", "")
    if plain not in words:
        raise PluginError(f"there is no plugin kind {text!r}{nearest(plain, words)}", hint=f"kinds: {', '.join(KINDS)}")
    return words[plain]


def same_distribution(first: str, second: str) -> bool:
    """Return whether two spellings name one distribution: case and runs of `-`, `_` and `.` do not count."""
    return normalized(first) == normalized(second)


def normalized(distribution: str) -> str:
    """Return a distribution's name in the one spelling by which names are compared."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def entry_problem(kind: str, name: str, value: str) -> str:
    """Return why an entry point can never be loaded (a bad name or target), or an empty string."""
    if not _NAME.fullmatch(name):
        return f"the name {name!r} is not lower case letters and digits joined by hyphens"
    target = _TARGET.fullmatch(value)
    if target is None or bool(target["attribute"]) == (kind == "studies"):
        expected = "a package, as in `my_package.studies`" if kind == "studies" else "`module:attribute`"
        return f"the target {value!r} is not {expected}"
    return ""


def installed_entries() -> tuple[Entry, ...]:
    """Return the plugins of every distribution on the import path, those hidden by the environment left out.

    As for imports, the first distribution of a name on the path hides later ones. Malformed lines become entries with a
    `problem`, so that one broken distribution is shown and harms no other.
    """
    seen: set[str] = set()
    entries: list[Entry] = []
    for distribution in metadata.distributions():
        text = _read(distribution, "entry_points.txt")
        if "[benchkit." not in text:
            continue
        name, version = _identity(distribution)
        if normalized(name) not in seen:
            seen.add(normalized(name))
            entries.extend(_entries(text, name, version))
    hidden = disabled_names(os.environ)
    return tuple(entry for entry in entries if not _is_disabled(entry, hidden))


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
