"""An exported model as ONNX, held to PyTorch's logits before it is believed."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchkit.errors import DataError, first_line
from benchkit.export.described import ONNX, Exported, load_exported
from benchkit.export.prediction import input_of
from benchkit.registry import Registry

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""How far logits may be from PyTorch's, absolutely and relative to theirs."""

OPSET = 18


class _FromPixels(nn.Module):
    """The network with what comes before it: images float32 (N, C, H, W) in 0..255 in, logits (N, K) out."""

    def __init__(self, model: nn.Module, exported: Exported) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.contiguous_format)
        made = input_of(exported)
        ones = torch.ones(1, exported.image.channels, 1, 1)
        self.scale = nn.Buffer((ones if made.scale is None else made.scale[:, :, :1, :1]).contiguous() / 255)
        self.shift = nn.Buffer((0 * ones if made.shift is None else made.shift[:, :, :1, :1]).contiguous())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixels * self.scale + self.shift)
        return logits


def write_onnx(folder: Path, registry: Registry) -> str:
    """Write an exported model beside its other files as ONNX and return the file's path.

    It takes float32 (N, C, H, W) in 0..255 of the size that the model sees, N as it comes, and has the normalisation in
    it; its metadata name the classes. Raise `DataError` where the packages are missing, PyTorch cannot export the
    network, or its logits of random images differ from PyTorch's by more than `TOLERANCE`.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(f"ONNX needs {', '.join(missing)}", hint="pip install 'benchkit[onnx]'")
    exported, model = load_exported(folder, registry)
    whole, file = _FromPixels(model, exported).eval(), folder / ONNX
    images = 255 * torch.rand(3, *exported.image.input_shape, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own packages warn of each other
            torch.onnx.export(
                whole,
                (images,),
                file,
                input_names=["pixels"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # each network that cannot be exported fails in its own way
        file.unlink(missing_ok=True)
        raise DataError(
            f"PyTorch cannot export this network as ONNX: {type(error).__name__}: {first_line(error)}"
        ) from error
    _held_to(whole, images, file)
    described = {"class_names": json.dumps(exported.class_names), "pixels": "float32, 0 to 255, normalised within"}
    onnx = importlib.import_module("onnx")
    proto = onnx.load(file)
    onnx.helper.set_model_props(proto, described)
    onnx.save(proto, file)
    return str(file)


def _held_to(model: nn.Module, images: torch.Tensor, file: Path) -> None:
    """Raise `DataError`, and take the file away, where its logits are not the model's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for part in (images, images[:1]):
        given = session.run(["logits"], {"pixels": part.numpy()})[0]
        with torch.inference_mode():
            wanted = model(part).numpy()
        if not np.allclose(given, wanted, rtol=TOLERANCE, atol=TOLERANCE):
            file.unlink()
            raise DataError(f"ONNX gives other logits: up to {np.abs(given - wanted).max():.2g} apart")
