"""The plugins by kind and name: listed from metadata, found by name, imported only when asked for, and only here.

An `Entry` is a plugin before it is imported. Files of the user's own (--plugin) are read by `local_files`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import metadata
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

from benchkit import metrics
from benchkit.errors import PluginError, listed, nearest
from benchkit.protocols import API_VERSION, card_of
from benchkit.registry.kinds import KINDS, kind_word
from benchkit.registry.options import bind_options, options_of
from benchkit.study.settings import PluginRef

BUILT_IN = "benchkit"
"""The distribution of the built-in plugins."""

DISABLE_VARIABLE = "BENCHKIT_DISABLE_PLUGINS"
"""Environment variable: `all` hides every third-party plugin, else a comma-separated list of names to hide."""

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
        """Return the module part of the target (of a local file its stem), or an empty string when it is malformed."""
        if self.file:
            return self.file.stem
        target = _TARGET.fullmatch(self.value)
        return target["module"] if target else ""

    @property
    def attribute(self) -> str:
        """Return the attribute part of the target (dotted), or an empty string when there is none."""
        if self.file:
            return self.value.rpartition(":")[2]
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

    @property
    def is_own(self) -> bool:
        """Return whether it is a built-in plugin, which changes with benchkit's version."""
        return is_own(self.distribution, self.file)

    @property
    def shown_origin(self) -> str:
        """Return the origin as results tell it: of a local file the name alone, as its folder tells who trained."""
        return self.origin.replace(str(self.file), self.file.name) if self.file else self.origin


def recorded_origin(record: Mapping[str, str]) -> str:
    """Return where a recorded plugin (`source_record`) came from, in words: its file, or distribution and version."""
    return record.get("file") or f"{record.get('distribution')} {record.get('version')}"


def is_own(distribution: str, file: object) -> bool:
    """Return whether a plugin of a distribution, or of a local file where that is given, is one of benchkit's own."""
    return not file and normalized(distribution) == BUILT_IN


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
    hidden = {name.strip().lower() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")} - {""}
    return tuple(entry for entry in entries if hidden.isdisjoint(_disabled_by(entry)))


def _disabled_by(entry: Entry) -> set[str]:
    """Return the words of `DISABLE_VARIABLE` that hide a plugin."""
    distribution = normalized(entry.distribution)
    everyone = set() if distribution == BUILT_IN else {"all"}
    return {entry.name, distribution, entry.qualified.lower()} | everyone


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
    kind = misspelt = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            group = line.strip("[] ")
            kind = _kind_meant(group.removeprefix("benchkit.")) if group.startswith("benchkit.") else ""
            wrong = f"there is no entry-point group {group!r} (did you mean 'benchkit.{kind}'?)"
            misspelt = "" if group == f"benchkit.{kind}" else wrong
        elif kind in KINDS and line and not line.startswith(("#", ";")):
            name, _, value = (part.strip() for part in line.partition("="))
            yield Entry(
                kind=kind,
                name=name,
                value=value,
                distribution=distribution,
                version=version,
                problem=misspelt or entry_problem(kind, name, value),
            )


def _kind_meant(word: str) -> str:
    """Return the kind of an entry-point group, or that nearest to a misspelt one; nothing where none is near."""
    return word if word in KINDS else next(iter(get_close_matches(word, KINDS, n=1)), "")


@dataclass(frozen=True, slots=True)
class Registry:
    """All known plugins, as a value: tests and commands make their own. Making one imports no plugin.

    A name is written `name`, `distribution:name` where two distributions claim it, or `family:variant` (such as
    `timm:resnet18`), where the family is a plugin that takes the rest as its option `variant`.
    """

    plugins: tuple[Entry, ...]

    @classmethod
    def installed(cls, extra: Sequence[Path] = (), *, allow_shadow: bool = False) -> Registry:
        """Return the plugins of the installed distributions and of the local files in `extra`.

        Words and directions of the files' metrics are known to this process from then on. Raises `PluginError` when a
        file cannot be used, or has a name that is taken already, unless `allow_shadow` lets it replace the installed
        plugin (which its `origin` then says).
        """
        announced = installed_entries()
        if not extra:
            return cls(tuple(sorted(announced, key=_order)))
        from benchkit.registry.local_files import file_entries

        taken: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in announced:
            taken[entry.kind, entry.name].append(entry)
        local: list[Entry] = []
        problems: list[str] = []
        files = dict.fromkeys(path.expanduser().resolve() for path in extra)
        for entry in (entry for path in files for entry in file_entries(path)):
            shadowed = taken[entry.kind, entry.name]
            if shadowed and (not allow_shadow or any(other.file for other in shadowed)):
                origins = " and ".join(other.origin for other in shadowed)
                problems.append(f"{entry.file} has the {kind_word(entry.kind)} {entry.name!r}, which {origins} has too")
            shadows = " and ".join(other.origin for other in shadowed)
            local.append(replace(entry, shadows=shadows))
            taken[entry.kind, entry.name] = [local[-1]]
        if problems:
            raise PluginError("a plugin file uses names that are taken", problems=problems, hint="rename its plugins")
        replaced = {(entry.kind, entry.name) for entry in local}
        for entry in local:
            if entry.kind == "metrics":
                metrics.know(entry.name, FileMetric(entry=entry))
        kept = [entry for entry in announced if (entry.kind, entry.name) not in replaced]
        return cls(tuple(sorted([*kept, *local], key=_order)))

    def entries(self, kind: str | None = None) -> tuple[Entry, ...]:
        """Return the plugins of one kind, or all, by kind, name and distribution; broken ones are among them."""
        return tuple(entry for entry in self.plugins if kind in (None, entry.kind))

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of a kind in alphabetical order, each once."""
        return tuple(dict.fromkeys(entry.name for entry in self.entries(kind)))

    def claims(self, kind: str, name: str) -> tuple[Entry, ...]:
        """Return every plugin that `name` or `distribution:name` can mean: none, one, or the colliding ones."""
        known = self.entries(kind)
        plain = tuple(entry for entry in known if entry.name == name)
        distribution, _, rest = name.partition(":")
        exact = (entry for entry in known if entry.name == rest)
        found = plain or tuple(entry for entry in exact if same_distribution(entry.distribution, distribution))
        # What can never be loaded takes no name from what can.
        return tuple(entry for entry in found if not entry.problem) or found

    def find(self, kind: str, name: str) -> Entry:
        """Return the plugin that `name` or `distribution:name` means; raise `PluginError` when none or several do."""
        claims = self.claims(kind, name)
        if not claims:
            raise self._unknown(kind, name)
        if len(claims) > 1:
            raise _collision(claims)
        return claims[0]

    def resolve(self, kind: str, text: str) -> tuple[Entry, str | None]:
        """Return the plugin that `text` means, and the variant when `text` is `family:variant`.

        An existing `distribution:name` wins over `family:variant`; `distribution:family:variant` is understood too.
        Raises `PluginError` as `find` does.
        """
        head, colon, rest = text.partition(":")
        if not colon or self.claims(kind, text):
            return self.find(kind, text), None
        if not self.claims(kind, head) and ":" in rest:
            name, _, rest = rest.partition(":")
            head = f"{head}:{name}"
        if rest and self.claims(kind, head):
            return self.find(kind, head), rest
        raise self._unknown(kind, text)

    def search(self, name: str, kinds: Sequence[str]) -> list[tuple[Entry, str | None]]:
        """Return every plugin of some kinds that a name can mean; of `family:variant`, the families with the variant.

        Raises `PluginError` with the nearest name when there is none.
        """
        parts = name.split(":")
        for length in range(len(parts), 0, -1):
            family, variant = ":".join(parts[:length]), ":".join(parts[length:]) or None
            if claims := [(entry, variant) for kind in kinds for entry in self.claims(kind, family)]:
                return claims
        if len(kinds) == 1:
            raise self._unknown(kinds[0], name)
        known = sorted({known for kind in kinds for known in self.names(kind)})
        raise PluginError(
            f"there is no plugin {name!r}{nearest(name, known)}",
            hint=_elsewhere(),
        )

    def load(self, kind: str, name: str) -> object:
        """Return the plugin itself, importing it; of `family:variant`, the family, which takes `variant` as an option.

        Raises `PluginError` as `find` does, and when the plugin is broken (`load_plugin`).
        """
        return load_plugin(self.resolve(kind, name)[0])

    def bind(self, kind: str, ref: PluginRef) -> Callable[..., Any]:
        """Return a plugin with its options bound, importing it: what is left to give is what benchkit itself passes.

        Of `family:variant` it is the family, with `variant` as an option. Raises `PluginError` for an unknown or broken
        plugin and for options it does not take.
        """
        entry, variant = self.resolve(kind, ref.name)
        plugin = load_plugin(entry)
        given = {**ref.options, **({"variant": variant} if variant else {})}
        return functools.partial(plugin, **bind_options(options_of(plugin, kind), given))

    def study_file(self, name: str) -> Path:
        """Return the TOML file of an installed study; raise `PluginError` when the study or its file is missing."""
        return study_path(self.find("studies", name))

    def _unknown(self, kind: str, name: str) -> PluginError:
        names = self.names(kind)
        close = nearest(name, names) or nearest(name.rpartition(":")[2], names)
        return PluginError(
            f"there is no {kind_word(kind)} {name!r}{close}",
            problems=[f"known {kind}: {listed(names) or 'none'}"],
            hint=_elsewhere(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMetric:
    """A local file's metric, as `benchkit.metrics` asks for it."""

    entry: Entry

    @property
    def value(self) -> str:
        """Return the file."""
        return str(self.entry.file)

    def load(self) -> Any:
        """Return the plugin; raise `PluginError` as `load_plugin` does."""
        return load_plugin(self.entry)


def metric_entry(name: str) -> Entry | None:
    """Return the plugin of a metric that is called so in results, such as `cohen_kappa`, None where none is known."""
    claim = next(iter(metrics.plugin_metrics().get(name, ())), None)
    if isinstance(claim, FileMetric):
        return claim.entry
    known = (entry for entry in installed_entries() if entry.kind == "metrics")
    return next((entry for entry in known if metrics.metric_name(entry.name) == name), None)


def _collision(claims: Sequence[Entry]) -> PluginError:
    entry = claims[0]
    return PluginError(
        f"the {kind_word(entry.kind)} {entry.name!r} is claimed {len(claims)} times",
        problems=[f"{claim.origin} ({claim.value})" for claim in claims],
        hint=f"to go on with what was trained as {entry.name!r}, uninstall the other or hide it, as "
        f"{DISABLE_VARIABLE}={claims[-1].qualified} does with one; a new study may write "
        f"{' or '.join(sorted({repr(claim.qualified) for claim in claims}))}: another name is another condition, whose "
        "trials begin anew",
    )


def _order(entry: Entry) -> tuple[int, str, str]:
    return KINDS.index(entry.kind), entry.name, entry.distribution


def load_plugin(entry: Entry) -> Callable[..., Any]:
    """Return the plugin that an entry names, importing it.

    Raises `PluginError`, with the original error as its cause, when the module cannot be imported, the attribute is
    missing or not callable, or the plugin's card states another version of the plugin interface.
    """
    if entry.problem or entry.kind == "studies":
        raise broken(entry, entry.problem or "a study is a file, not an object to import")
    try:
        module = _module(entry)
    except (Exception, SystemExit) as error:
        raise broken(entry, f"importing {entry.module!r} failed: {type(error).__name__}: {error}") from error
    try:
        plugin = functools.reduce(getattr, entry.attribute.split("."), module)
    except AttributeError as error:
        close = nearest(entry.attribute, [name for name in vars(module) if not name.startswith("_")])
        raise broken(entry, f"{entry.module!r} has no {entry.attribute!r}{close}") from error
    if not callable(plugin):
        raise broken(entry, f"{entry.value!r} is {type(plugin).__name__}, not a class or function")
    stated = card_of(plugin).api
    if stated != API_VERSION:
        raise broken(
            entry,
            f"it was written for version {stated} of the plugin interface, and this benchkit has version {API_VERSION}",
            hint=f"install a version of {entry.distribution} that fits, or another benchkit",
        )
    return plugin


def _module(entry: Entry) -> ModuleType:
    if entry.file:
        from benchkit.registry.local_files import load_file

        return load_file(entry)
    return importlib.import_module(entry.module)


def study_path(entry: Entry) -> Path:
    """Return the file `NAME.toml` in the package that a study's entry names; nothing is imported.

    Raises `PluginError` when the package or the file is missing.
    """
    if entry.problem:
        raise broken(entry, entry.problem)
    spec = find_module(entry.module)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise broken(entry, f"there is no package {entry.module!r}")
    for folder in folders:
        path = Path(folder) / f"{entry.name}.toml"
        if path.is_file():
            return path
    raise broken(entry, f"there is no file {entry.name}.toml in {folders[0]}")


def broken(entry: Entry, reason: str, *, hint: str = "") -> PluginError:
    """Return the error that a plugin cannot be used, with its origin, target and the reason."""
    mend = "mend it" if entry.file else f"mend or update {entry.distribution}"
    given = f" --plugin {shlex.quote(str(entry.file))}" if entry.file else ""
    return PluginError(
        f"the {kind_word(entry.kind)} {entry.name!r} of {entry.origin} is broken",
        problems=[reason, f"its target is {entry.value!r}"],
        hint=hint or f"{mend}; `benchkit plugins show {entry.name}{given}` tells more",
    )


def _elsewhere() -> str:
    """Return where a plugin may be that is not known here; the same for all, so that one error says it once."""
    disabled = os.environ.get(DISABLE_VARIABLE)
    return (
        "`benchkit plugins list` shows all; a distribution may have to be installed, and a plugin in a file of yours "
        f"needs --plugin FILE{f'; {DISABLE_VARIABLE}={disabled} hides plugins' if disabled else ''}"
    )


_LOADERS = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


def find_module(name: str) -> ModuleSpec | None:
    """Return the spec of a dotted module without importing its parents, or None when there is no such module."""
    spec = module_specs(name)[-1]
    return spec if spec is not None and spec.name == name else None


def module_specs(name: str) -> list[ModuleSpec | None]:
    """Return the specs of a dotted module's parts from the top level down, ending with None where one is missing."""
    parts = name.split(".")
    try:
        specs = [importlib.util.find_spec(parts[0])]
    except (ImportError, ValueError):
        return [None]
    for depth in range(2, len(parts) + 1):
        parent = specs[-1]
        if parent is None:
            break
        specs.append(_child(".".join(parts[:depth]), list(parent.submodule_search_locations or ())))
    return specs


def _child(name: str, folders: Sequence[str]) -> ModuleSpec | None:
    """Return the spec of a module in its parent's folders; the path finder would want the parent imported."""
    shared: list[str] = []
    for folder in folders:
        spec = FileFinder(folder, *_LOADERS).find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        shared += (spec.submodule_search_locations or ()) if spec is not None else ()
    if not shared:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = shared
    return namespace


def package_root(module: str) -> str:
    """Return the folder (or file) of the outermost ordinary package of a module; namespace packages are shared."""
    specs = [spec for spec in module_specs(module) if spec is not None and spec.origin is not None]
    if not specs:
        return ""
    folders = list(specs[0].submodule_search_locations or ())
    return folders[0] if folders else str(specs[0].origin)


def python_files(folder: str) -> Iterator[str]:
    """Yield the paths of all Python files in a folder and those within."""
    for item in os.scandir(folder):
        if item.is_dir(follow_symlinks=False) and item.name != "__pycache__":
            yield from python_files(item.path)
        elif item.name.endswith(".py") and item.is_file():
            yield item.path
