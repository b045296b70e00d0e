"""Plugins from a local Python file (`--plugin PATH.py`), for trying one out before it has a distribution.

The file lists them in one literal table, so that they are known without running the file:

    PLUGINS = {"benchkit.norms": {"frn": FRN}}
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from benchkit.errors import PluginError
from benchkit.registry.entries import Entry, entry_problem
from benchkit.registry.kinds import KINDS

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
        for kind, name, attribute in _rows(_table(tree, path), path)
    )


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
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up there while it runs
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _table(tree: ast.Module, path: Path) -> ast.Dict:
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


def _built_by_code(node: ast.expr | None, where: str) -> PluginError:
    return PluginError(
        f"the PLUGINS table of {where}, is not literal: {_source(node)}",
        hint=f"the file is read without being run, so the table must be written out, for example {_EXAMPLE}",
    )


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _source(node: ast.expr | None) -> str:
    return ast.unparse(node) if node is not None else "**"
