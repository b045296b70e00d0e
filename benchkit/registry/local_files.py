"""Plugins in a file of the user's own (--plugin): listed in its `PLUGINS` table, for which it is not run."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from benchkit.errors import PluginError
from benchkit.registry.kinds import KINDS
from benchkit.registry.registry import Entry, entry_problem

_EXAMPLE = 'PLUGINS = {"benchkit.norms": {"frn": FRN}}'


def file_entries(path: Path) -> tuple[Entry, ...]:
    """Return the plugins that the file's `PLUGINS` table names; the file is parsed, not run.

    Raises `PluginError` when the file cannot be read or parsed, or when the table is missing or not literal.
    """
    path = path.expanduser().resolve()
    try:
        content = path.read_bytes()
        tree = ast.parse(content, filename=str(path))
    except OSError as error:
        raise PluginError(f"cannot read the plugin file {path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise PluginError(f"the plugin file {path} is not valid Python: {error}") from error
    rows = list(_rows(_table(tree, path), path))
    if not rows:
        raise PluginError(
            f"the PLUGINS table of {path} names no plugin",
            hint=f"list the file's plugins in it, for example {_EXAMPLE}",
        )
    digest = hashlib.sha256(content).hexdigest()[:12]
    return tuple(
        Entry(
            kind=kind,
            name=name,
            value=f"{path.stem}:{attribute}",
            distribution=path.stem,
            version=f"sha256:{digest}",
            file=path,
            problem=entry_problem(kind, name, f"plugin:{attribute}"),
        )
        for kind, name, attribute in rows
    )


class _Uncached(SourceFileLoader):
    """Runs a file as it is: Python's bytecode is told by time and length alone from what an edit has made of it."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Tell nothing by which bytecode could be read or kept."""
        raise OSError


def load_file(entry: Entry) -> ModuleType:
    """Return the module of a local file, run at most once for each content; whatever it raises passes through."""
    assert entry.file is not None
    path_digest = hashlib.sha256(str(entry.file).encode()).hexdigest()[:8]
    name = f"benchkit_file_{path_digest}_{entry.version.removeprefix('sha256:')}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, entry.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{entry.file} is not a Python file")
    spec.loader = _Uncached(name, str(entry.file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up there while it runs
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _table(tree: ast.Module, path: Path) -> ast.Dict:
    """Return the PLUGINS table as it is written; raise `PluginError` where there is none, or code adds to it."""
    for node in ast.walk(tree):
        if _adds_to_table(node):
            raise _built_by_code(node, f"{path}, in line {getattr(node, 'lineno', 0)}")
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "PLUGINS" for target in targets):
            table = getattr(statement, "value", None)
            if isinstance(table, ast.Dict):
                return table
            raise _built_by_code(table, f"{path}, in line {statement.lineno}")
    raise PluginError(
        f"the plugin file {path} has no literal PLUGINS table",
        hint=f"list its plugins at top level, for example {_EXAMPLE}",
    )


def _adds_to_table(node: ast.AST) -> bool:
    """Return whether code changes the PLUGINS table: by a key, by `|=`, or by `update` or `setdefault`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("update", "setdefault") and _is_of_table(node.func.value)
    if isinstance(node, ast.AugAssign):
        return _is_of_table(node.target)
    return isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and _is_of_table(node)


def _is_of_table(node: ast.expr) -> bool:
    while isinstance(node, ast.Subscript):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "PLUGINS"


def _rows(table: ast.Dict, path: Path) -> Iterator[tuple[str, str, str]]:
    for group, members in zip(table.keys, table.values, strict=True):
        kind = _text(group).removeprefix("benchkit.")
        if kind not in KINDS or kind == "studies":
            expected = ", ".join(f"benchkit.{kind}" for kind in KINDS if kind != "studies")
            raise PluginError(
                f"the PLUGINS table of {path} has no plugins of a known kind at {_source(group)}",
                hint=f"its keys are {expected}; for example {_EXAMPLE}",
            )
        if not isinstance(members, ast.Dict):
            raise _built_by_code(members, f"{path}, at {_source(group)}")
        for name, target in zip(members.keys, members.values, strict=True):
            if not _text(name) or not isinstance(target, ast.Name | ast.Attribute):
                raise PluginError(
                    f"the PLUGINS table of {path} maps {_source(name)} to {_source(target)}",
                    hint=f"map a literal name to a class or function defined above, for example {_EXAMPLE}",
                )
            yield kind, _text(name), _source(target)


def _built_by_code(node: ast.AST | None, where: str) -> PluginError:
    return PluginError(
        f"the PLUGINS table of {where}, is not literal: {_source(node)}",
        hint=f"the file is read without being run, so the table must be written out, for example {_EXAMPLE}",
    )


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _source(node: ast.AST | None) -> str:
    return ast.unparse(node) if node is not None else "**"
