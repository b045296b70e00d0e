"""What a folder with an exported model says of it (`model.json`), and the network that this describes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from benchkit.errors import DataError
from benchkit.registry import Registry
from benchkit.results import Normalization
from benchkit.storage import decode
from benchkit.study.settings import PluginRef

FORMAT = 1
DESCRIPTION, WEIGHTS, ONNX = "model.json", "model.safetensors", "model.onnx"
"""The files with a model's description, its parameters and buffers, and both as ONNX where that is asked for."""

PRETRAINED = ("pretrained", "pretrained_url")
"""Options of timm's models that say where a training began: an exported one brings its weights along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRule:
    """How a photo becomes the pixels that the study's data set had: uint8 (H, W, C).

    `fit` is how one of another shape becomes (H, W), bilinearly with antialiasing: squash, crop (its largest middle
    part of that shape) or pad. `side` is what the model then takes, resized so again; 0: as they are. `rules` are those
    of `benchkit.data.decoding` by which the set's files were read.
    """

    height: int
    width: int
    channels: int
    fit: str = "squash"
    side: int = 0
    rules: int = 2

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return the shape (C, H, W) of the model's input."""
        return self.channels, self.side or self.height, self.side or self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported model: what it is made of, the classes in the order of its outputs, and how images come to it.

    `batch` is how many images the study evaluated at once, `precision` what it computed in; both bear on last digits.
    `facts` are for people: study, condition, score, data.
    """

    format: int = FORMAT
    model: PluginRef
    norm: PluginRef
    class_names: tuple[str, ...]
    image: ImageRule
    normalization: Normalization | None = None
    precision: str = "float32"
    channels_last: bool = True
    batch: int = 256
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_exported(folder: Path) -> Exported:
    """Return what a folder says of the model in it; raise `DataError` when it holds none, or none that is known."""
    file = folder / DESCRIPTION
    if not folder.exists():
        raise DataError(f"{folder}: there is no such folder", hint="benchkit model writes one")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = f"{DESCRIPTION}: {getattr(error, 'strerror', '') or error}"
        raise DataError(f"{folder}: there is no exported model: {reason}", hint="benchkit model writes one") from error
    found = decode(Exported, content, str(file), error=DataError)
    if found.format != FORMAT:
        raise DataError(f"{file}: format {found.format}, expected {FORMAT}", hint="use the benchkit that wrote it")
    return found


def network_of(exported: Exported, registry: Registry) -> nn.Module:
    """Return the described network without its weights, as training built it.

    Raise `PluginError` when its plugins are not installed or take other options.
    """
    norm = registry.bind("norms", exported.norm)
    built = registry.bind("models", exported.model)
    model: nn.Module = built(len(exported.class_names), exported.image.input_shape, norm)
    return model


def ready(model: nn.Module, exported: Exported, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return the network with these weights, for evaluation.

    Raise `DataError` when they are another network's.
    """
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise DataError(f"the weights are not those of the network that is described: {error}") from error
    memory_format = torch.channels_last if exported.channels_last else torch.contiguous_format
    ready_model: nn.Module = model.eval().to(memory_format=memory_format)
    return ready_model


def load_exported(folder: Path, registry: Registry) -> tuple[Exported, nn.Module]:
    """Return the model in a folder, ready for images; raise `DataError` or `PluginError` when it cannot be had."""
    exported = read_exported(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise DataError(f"{file}: the file is missing", hint="export the model again with benchkit model")
    return exported, ready(network_of(exported, registry), exported, load_file(file))
