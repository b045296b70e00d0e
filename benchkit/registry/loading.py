"""From an entry to the plugin object itself: the one place where plugin code is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

from benchkit.errors import PluginError, nearest
from benchkit.protocols import API_VERSION, card_of
from benchkit.registry.entries import Entry, kind_word
from benchkit.registry.plugin_files import load_file
from benchkit.registry.sources import find_module


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
        plugin = reduce(getattr, entry.attribute.split("."), module)
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
    return PluginError(
        f"the {kind_word(entry.kind)} {entry.name!r} of {entry.origin} is broken",
        problems=[reason, f"its target is {entry.value!r}"],
        hint=hint or f"mend or update {entry.distribution}; `benchkit plugins show {entry.name}` tells more",
    )
