"""Where a plugin's source code lies, whether it can work at all, and whether it changed; nothing is imported."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
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
from benchkit.registry.entries import Entry

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
    modules: dict[tuple[Path | None, str], frozenset[str] | str] = {}
    for entry in entries:
        if (entry.file, entry.module) not in modules:
            modules[entry.file, entry.module] = _names_or_problem(entry)
    return {entry: _attribute_problem(entry, modules[entry.file, entry.module]) for entry in entries}


def _names_or_problem(entry: Entry) -> frozenset[str] | str:
    """Return the names that an entry's module binds (`*` for any), or why it cannot be imported."""
    if entry.file is None and (missing := missing_module(entry.module)):
        return f"there is no module {missing!r}"
    path = _source_file(entry)
    if path is None:
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
    stamps: dict[str, str] = {}
    result: dict[Entry, str] = {}
    roots = {module: _package_root(module) for module in {entry.module for entry in entries if not entry.file}}
    for entry in entries:
        root = "" if entry.file else roots[entry.module]
        if root and root not in stamps:
            try:
                stamps[root] = _stamp(Path(root))
            except OSError as error:
                stamps[root] = f"unreadable: {error}"
        result[entry] = entry.version if entry.file else stamps.get(root, "absent")
    return result


def source_hash(entry: Entry) -> str:
    """Return 12 hex digits of a sha256 over the Python files of a plugin's package (or its file), empty without any.

    Paths within the package and contents count, so that the same version installed elsewhere has the same hash.
    """
    root = str(entry.file or "") or _package_root(entry.module)
    if not root:
        return ""
    package, digest = Path(root), hashlib.sha256()
    files = [package] if package.is_file() else sorted(Path(path) for path in _python_files(root))
    for path in files:
        digest.update(f"{path.relative_to(package.parent).as_posix()}\n".encode())
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


def _source_file(entry: Entry) -> Path | None:
    """Return the Python file of an entry's module, or None when it is compiled or has none."""
    if entry.file is not None:
        return entry.file
    spec = find_module(entry.module)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _package_root(module: str) -> str:
    """Return the folder (or file) of the outermost ordinary package of a module; namespace packages are shared."""
    specs = [spec for spec in _step(module) if spec is not None and spec.origin is not None]
    if not specs:
        return ""
    folders = list(specs[0].submodule_search_locations or ())
    return folders[0] if folders else str(specs[0].origin)


def _stamp(root: Path) -> str:
    count, size, newest = 0, 0, 0
    for path in [str(root)] if root.is_file() else _python_files(str(root)):
        facts = os.stat(path)
        count, size, newest = count + 1, size + facts.st_size, max(newest, facts.st_mtime_ns)
    return f"{count}/{size}/{newest}"


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
