"""Plugins before they are imported: one entry each, where it comes from, read from installed metadata and files."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

from benchkit.errors import nearest
from benchkit.registry.kinds import KINDS

_LOADERS = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


def find_module(name: str) -> ModuleSpec | None:
    """Return the spec of a dotted module without importing its parents, or None when there is no such module."""
    spec = _step(name)[-1]
    return spec if spec is not None and spec.name == name else None


def missing_module(name: str) -> str:
    """Return the first part of a dotted module that does not exist, or an empty string."""
    parts = name.split(".")
    specs = [spec for spec in _step(name) if spec is not None]
    return ".".join(parts[: len(specs) + 1]) if len(specs) < len(parts) else ""


def source_problems(entries: Sequence[Entry]) -> dict[Entry, str]:
    """Return why importing each entry must fail, as far as files tell: module, syntax or attribute; else nothing.

    A module that many entries name is looked for and read once.
    """
    bound = functools.cache(_names_or_problem)
    return {entry: _attribute_problem(entry, bound(entry.module, entry.file)) for entry in entries}


def _names_or_problem(module: str, file: Path | None) -> frozenset[str] | str:
    """Return the names that a module, or a local file, binds (`*` for any), or why it cannot be imported."""
    if file is None and (missing := missing_module(module)):
        return f"there is no module {missing!r}"
    spec = None if file else find_module(module)
    path = file or (Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None)
    if path is None:  # it is compiled, or has no file
        return frozenset({"*"})
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"{type(error).__name__} in {path}{f', line {line}' if line else ''}: {getattr(error, 'msg', error)}"
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
    return frozenset(_top_level_names(tree.body))


def _attribute_problem(entry: Entry, names: frozenset[str] | str) -> str:
    if isinstance(names, str):
        return names
    wanted = entry.attribute.partition(".")[0]
    if wanted in names or not names.isdisjoint({"*", "__getattr__"}) or find_module(f"{entry.module}.{wanted}"):
        return ""
    return f"{entry.module!r} has no {wanted!r}{nearest(wanted, names)}"


def source_stamps(entries: Sequence[Entry]) -> dict[Entry, str]:
    """Return a text for each entry that changes when any Python file of its package does (count, size, newest)."""
    root, stamp = functools.cache(_package_root), functools.cache(_stamp)
    return {entry: entry.version if entry.file else stamp(root(entry.module)) for entry in entries}


def source_hash(entry: Entry) -> str:
    """Return 12 hex digits of a sha256 over the Python files of a plugin's package (or its file), empty without any.

    Paths within the package and contents count, so that the same version installed elsewhere has the same hash.
    """
    return _sources_digest(str(entry.file or "") or _package_root(entry.module))


def source_record(entry: Entry, name: str) -> dict[str, str]:
    """Return what a trial keeps of a plugin that it names so: kind, name, distribution, version and source hash.

    `file` is the name of the local file that it comes from, empty for an installed one.
    """
    return {
        "kind": entry.kind,
        "name": name,
        "distribution": entry.distribution,
        "version": entry.version,
        "source": source_hash(entry),
        "file": entry.file.name if entry.file else "",
    }


def recorded_origin(record: Mapping[str, str]) -> str:
    """Return where a recorded plugin (`source_record`) came from, in words: its file, or distribution and version."""
    return record.get("file") or f"{record.get('distribution')} {record.get('version')}"


def sources_digest(module: str) -> str:
    """Return 12 hex digits of a sha256 over the Python files of a module's package, empty without any."""
    return _sources_digest(_package_root(module))


def source_files(module: str) -> tuple[Path, list[Path]]:
    """Return the folder that a module's package is imported from, and its Python files."""
    package = Path(_package_root(module))
    return package.parent, [package] if package.is_file() else sorted(map(Path, _python_files(str(package))))


def _sources_digest(root: str) -> str:
    if not root:
        return ""
    package = Path(root)
    files = [package] if package.is_file() else sorted(Path(path) for path in _python_files(root))
    facts = [path.stat() for path in files]
    return _digest(
        package.parent,
        *((path, one.st_size, one.st_mtime_ns, one.st_ino) for path, one in zip(files, facts, strict=True)),
    )


@functools.lru_cache(maxsize=256)
def _digest(parent: Path, *files: tuple[Path, int, int, int]) -> str:
    """Return the digest of files as they are, empty without any; each is read once, as every trial records it."""
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(f"{path.relative_to(parent).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12] if files else ""


def _step(name: str) -> list[ModuleSpec | None]:
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


def _package_root(module: str) -> str:
    """Return the folder (or file) of the outermost ordinary package of a module; namespace packages are shared."""
    specs = [spec for spec in _step(module) if spec is not None and spec.origin is not None]
    if not specs:
        return ""
    folders = list(specs[0].submodule_search_locations or ())
    return folders[0] if folders else str(specs[0].origin)


def _stamp(root: str) -> str:
    if not root:
        return "absent"
    try:
        facts = [os.stat(path) for path in ([root] if os.path.isfile(root) else _python_files(root))]
    except OSError as error:
        return f"unreadable: {error}"
    newest = max((one.st_mtime_ns for one in facts), default=0)
    return f"{len(facts)}/{sum(one.st_size for one in facts)}/{newest}"


def _python_files(folder: str) -> Iterator[str]:
    for item in os.scandir(folder):
        if item.is_dir(follow_symlinks=False) and item.name != "__pycache__":
            yield from _python_files(item.path)
        elif item.name.endswith(".py") and item.is_file():
            yield item.path


def _top_level_names(body: Sequence[ast.AST]) -> Iterator[str]:
    """Yield the names that statements bind at top level, also inside `if`, `try` and `with`; `*` for star imports."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr):
            nodes = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            yield from (node.id for node in nodes if isinstance(node.ctx, ast.Store))
        else:
            for name in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from _top_level_names(getattr(statement, name, ()))


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
