"""The Python by which a script builds an exported network: timm's call where that is all, else the plugins'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchkit.errors import DataError, PluginError
from benchkit.export.described import Exported, ready
from benchkit.registry import Registry
from benchkit.registry.registry import BUILT_IN, Entry
from benchkit.study.settings import PluginRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Lines that import what an expression needs, the expression, and the distributions that are needed."""

    imports: tuple[str, ...]
    expression: str
    needs: tuple[str, ...]


def source_of(
    exported: Exported, registry: Registry, model: nn.Module, weights: Mapping[str, torch.Tensor]
) -> ModelSource:
    """Return the source that builds the network of an exported model, `model` with its `weights`.

    It is timm's own call where the network that this makes has the very weights and says the same of random images.
    Raise `PluginError` for plugins of a file, which no script can import.
    """
    entry, variant = registry.resolve("models", exported.model.name)
    if entry.distribution == BUILT_IN and entry.name == "timm" and variant:
        for call in _calls(exported, variant):
            if _same(call, exported, model, weights):
                return ModelSource(
                    imports=("import timm",), expression=_written("timm.create_model", call), needs=("timm",)
                )
    norm_entry, norm_variant = registry.resolve("norms", exported.norm.name)
    imports = ["from functools import partial", _import(entry), _import(norm_entry)]
    norm = _partial(norm_entry, norm_variant, exported.norm)
    options = {**exported.model.options, **({"variant": variant} if variant else {})}
    shape = f"{len(exported.class_names)}, {exported.image.input_shape}, {norm}"
    return ModelSource(
        imports=tuple(dict.fromkeys(imports)),
        expression=f"{entry.attribute}({', '.join([shape, *_keywords(options)])})",
        needs=tuple(dict.fromkeys((entry.distribution, norm_entry.distribution))),
    )


def _calls(exported: Exported, variant: str) -> Iterator[dict[str, Any]]:
    """Yield the arguments of timm's call that may make the network."""
    shape = exported.image.input_shape
    plain = {"model_name": variant, "num_classes": len(exported.class_names), "in_chans": shape[0]}
    yield plain
    yield {**plain, "img_size": shape[1:]}


def _same(call: Mapping[str, Any], exported: Exported, model: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    import timm

    images = torch.rand(2, *exported.image.input_shape, generator=torch.Generator().manual_seed(0))
    try:
        made = ready(timm.create_model(**call), exported, weights)
        with torch.inference_mode():
            return torch.equal(made(images), model(images))
    except (RuntimeError, TypeError, AssertionError, ValueError, DataError):
        return False  # another architecture than timm's own, or another size of images


def _import(entry: Entry) -> str:
    if entry.file is not None:
        raise PluginError(
            f"{entry.name!r} is a plugin of the file {entry.file}, which no script can import",
            hint="make it a package (benchkit plugins new), install it, and export again",
        )
    return f"from {entry.module} import {entry.attribute.partition('.')[0]}"


def _partial(entry: Entry, variant: str | None, ref: PluginRef) -> str:
    options = {**ref.options, **({"variant": variant} if variant else {})}
    return f"partial({', '.join([entry.attribute, *_keywords(options)])})"


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(_keywords(arguments))})"


def _keywords(options: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value!r}" for name, value in options.items()]
