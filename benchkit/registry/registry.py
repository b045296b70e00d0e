"""The plugins by kind and name: listed from metadata, found by name, imported only when asked for, and only here."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from benchkit import metrics
from benchkit.errors import PluginError, listed, nearest
from benchkit.protocols import API_VERSION, card_of
from benchkit.registry.entries import (
    DISABLE_VARIABLE,
    Entry,
    entry_problem,
    find_module,
    installed_entries,
    same_distribution,
)
from benchkit.registry.kinds import KINDS, kind_word
from benchkit.registry.options import bind_options, options_of
from benchkit.study.settings import PluginRef


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
        announced = list(installed_entries())
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
        module = load_file(entry) if entry.file else importlib.import_module(entry.module)
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
