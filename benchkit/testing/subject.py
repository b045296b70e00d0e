"""The plugin under test: the object, its options, and what the checks share of it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchkit.errors import PluginError
from benchkit.registry import Registry
from benchkit.registry.kinds import kind_word, parse_kind
from benchkit.registry.options import ANY_OPTION, REQUIRED, Option, bind_options, options_of
from benchkit.registry.registry import Entry, load_plugin
from benchkit.study.seeds import derive_seed

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Subject:
    """A plugin of a kind with the options that the checks use; `given` are the options as they were written.

    `entry` is how another process finds it, None when it cannot. `memo` holds what several checks need.
    """

    kind: str
    name: str
    plugin: Callable[..., Any]
    given: Mapping[str, Any]
    options: Mapping[str, Any]
    known_options: tuple[Option, ...]
    seed: int
    entry: Entry | None
    memo: dict[str, Any] = field(default_factory=dict)

    def once(self, what: str, make: Callable[[], Made]) -> Made:
        """Return what `make` returns, made at the first call under this name."""
        if what not in self.memo:
            self.memo[what] = make()
        made: Made = self.memo[what]
        return made

    def scratch(self, name: str) -> Path:
        """Return a folder of this subject that goes away with it."""
        folder = self.once("scratch", self._temporary) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def seed_for(self, purpose: str) -> int:
        """Return a seed that depends on the kit's seed and the purpose alone."""
        return derive_seed(self.seed, "kit", purpose)

    def _temporary(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="benchkit-kit-")).resolve()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder


def subject_of(
    kind: str, plugin: str | Entry | Callable[..., Any], options: Mapping[str, Any] | None = None, *, seed: int = 0
) -> Subject:
    """Return the subject for an installed plugin's name, a registry's entry, or the plugin itself.

    Raises `PluginError` for an unknown or broken plugin, and for options that it does not take or lacks.
    """
    kind = parse_kind(kind)
    given = dict(options or {})
    entry: Entry | None
    if isinstance(plugin, str):
        resolved, variant = Registry.installed().resolve(kind, plugin)
        given |= {"variant": variant} if variant else {}
        name, entry, made = plugin, resolved, load_plugin(resolved)
    elif isinstance(plugin, Entry):
        name, entry, made = plugin.name, plugin, load_plugin(plugin)
    else:
        name, made = str(getattr(plugin, "__name__", type(plugin).__name__)), plugin
        entry = _entry_of(kind, name, plugin)
    known = options_of(made, kind)
    lacking = [f"{option.name}: expected {option.expected}" for option in missing_options(known, given)]
    if lacking:
        raise PluginError(f"the {kind_word(kind)} {name!r} cannot be checked without its options", problems=lacking)
    return Subject(
        kind=kind,
        name=name,
        plugin=made,
        given=given,
        options=bind_options(known, given),
        known_options=known,
        seed=seed,
        entry=entry,
    )


def missing_options(known: tuple[Option, ...], given: Mapping[str, Any]) -> list[Option]:
    """Return the options that must be given and are not."""
    return [
        option
        for option in known
        if option.default is REQUIRED and option.name not in given and option.name != ANY_OPTION
    ]


def unvaried_options(known: tuple[Option, ...], given: Mapping[str, Any]) -> list[Option]:
    """Return the options that stay at their default in every check: neither given, nor numbers, bools or choices."""
    varied = ("int", "float", "bool")
    return [option for option in known if option.name not in given and not option.choices and option.type not in varied]


def _entry_of(kind: str, name: str, plugin: Callable[..., Any]) -> Entry | None:
    """Return how another process imports an object that a module holds at top level, None for any other."""
    module, path = getattr(plugin, "__module__", None), getattr(plugin, "__qualname__", "")
    if not module or module == "__main__" or not path or "<" in path:
        return None
    return Entry(kind=kind, name=name, value=f"{module}:{path}", distribution="the kit's caller", version="?")
