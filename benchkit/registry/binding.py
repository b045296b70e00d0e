"""From a plugin that settings name to a callable with its options bound. Imports the plugin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from benchkit.protocols import Splits
from benchkit.registry.options import bind_options, options_of
from benchkit.registry.registry import Registry
from benchkit.study.settings import PluginRef


def bind(registry: Registry, kind: str, ref: PluginRef) -> Callable[..., Any]:
    """Return a plugin with its options bound: what is left to give is what benchkit itself passes.

    Raises `PluginError` for an unknown or broken plugin and for options it does not take.
    """
    _, variant = registry.resolve(kind, ref.name)
    plugin = cast(Callable[..., Any], registry.load(kind, ref.name))
    given = {**ref.options, **({"variant": variant} if variant else {})}
    return functools.partial(plugin, **bind_options(options_of(plugin, kind), given))


def load_data(registry: Registry, ref: PluginRef, root: Path) -> Splits:
    """Return a data set's splits, preparing it under `root` when that has not been done."""
    return cast(Splits, bind(registry, "datasets", ref)(root))
