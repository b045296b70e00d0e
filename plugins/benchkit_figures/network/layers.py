"""The network as a table: its layers in the order in which they run, with what they put out, hold and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np

from benchkit import PluginError, card
from benchkit.results import StudyResults
from benchkit_figures.encodings import COLOURS, WIDTH, heading, label_width
from benchkit_figures.network.inspections import inspections

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "layers"
MOST_ROWS = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLayer:
    """A layer: its module, kind, output of one image (channels first), own parameters, and FLOPs of one image.

    FLOPs count matrix products and convolutions alone, a multiplication and its addition as two.
    """

    layer: str
    kind: str
    shape: str
    parameters: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersData:
    """All layers of one condition's network that hold parameters or cost FLOPs; `rows` are those layers in groups."""

    condition: str
    conditions: int
    layers: tuple[NetworkLayer, ...]

    @property
    def rows(self) -> tuple[NetworkLayer, ...]:
        """Return the layers; of many, groups by as much of their names as leaves up to 36 of them."""
        deepest = max(layer.layer.count(".") + 1 for layer in self.layers)
        for depth in range(deepest, 0, -1):
            groups: dict[str, list[NetworkLayer]] = {}
            for layer in self.layers:
                groups.setdefault(".".join(layer.layer.split(".")[:depth]), []).append(layer)
            if len(groups) <= MOST_ROWS:
                break
        return tuple(_group(name, layers) for name, layers in groups.items())


@card(title="Layers", summary="Every layer of a network: output, parameters and FLOPs of one image.")
@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The layers of the network of `condition` (default: the first one that was inspected)."""

    condition: str = ""

    def inspect(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
        """Return `layer.PLACE.KIND.MODULE` int64 (parameters, FLOPs, output shape of one image...) of every layer."""
        from benchkit_figures.network.layer_outputs import layer_costs

        return layer_costs(model, images[:1])

    def data(self, results: StudyResults) -> LayersData:
        """Return the layers; raise `PluginError` for a condition that was not inspected."""
        inspected, _ = inspections(results, NAME)
        found = [one for one in inspected if self.condition in ("", one.condition)]
        if not found:
            problems = [f"{self.condition!r}: expected one of {', '.join(one.condition for one in inspected)}"]
            raise PluginError("the figure layers was asked for a condition that it has nothing of", problems=problems)
        keys = sorted(key for key in found[0].arrays if key.startswith("layer."))
        layers = [_layer(key, [int(value) for value in found[0].arrays[key]]) for key in keys]
        return LayersData(
            condition=found[0].condition,
            conditions=len(inspected),
            layers=tuple(layer for layer in layers if layer.parameters or layer.flops),
        )

    def draw(self, data: LayersData) -> Any:
        """Return a row for each layer: name, kind, output, and bars of parameters and FLOPs with their numbers."""
        rows: list[dict[str, Any]] = [
            {
                "layer": f"{place:04d} {row.layer or 'network'}",
                "kind": row.kind,
                "shape": row.shape,
                "parameters": row.parameters,
                "parameters_text": f"{row.parameters:,}" if row.parameters else "",
                "flops": row.flops / 1e6,
                "flops_text": f"{row.flops / 1e6:,.3g}" if row.flops else "",
            }
            for place, row in enumerate(data.rows)
        ]
        order, step = [row["layer"] for row in rows], alt.Step(15)
        axis = alt.Axis(domain=False, ticks=False, labelExpr="slice(datum.label, 5)", labelLimit=180)
        base = alt.Chart(alt.InlineData(values=rows))
        y, hidden = alt.Y("layer:N", sort=order, title=None, axis=axis), alt.Y("layer:N", sort=order, axis=None)
        labels = min(180, label_width([row.layer for row in data.rows]))
        kinds = base.mark_text(align="left", fontSize=10, dx=6).encode(y=y, x=alt.XValue(0), text=alt.Text("kind:N"))
        shapes = base.mark_text(align="right", fontSize=10).encode(y=hidden, x=alt.XValue(76), text=alt.Text("shape:N"))
        room = (WIDTH - labels - 110 - 76 - 2 * 58 - 5 * 8 - 20) // 2
        columns = [
            kinds.properties(width=110, height=step, title=heading("Kind", fontSize=10)),
            shapes.properties(width=76, height=step, title=heading("Output", fontSize=10)),
        ]
        for field, title in (("parameters", "Parameters"), ("flops", "MFLOPs")):
            numbers = base.mark_text(align="right", fontSize=10)
            numbers = numbers.encode(y=hidden, x=alt.XValue(58), text=alt.Text(f"{field}_text:N"))
            x = alt.X(f"{field}:Q", axis=None, scale=alt.Scale(zero=True, nice=False))
            bars = base.mark_bar(size=9, color=COLOURS[4]).encode(y=hidden, x=x)
            columns.append(numbers.properties(width=58, height=step, title=heading(title, fontSize=10)))
            columns.append(bars.properties(width=room, height=step))
        return alt.hconcat(*columns, spacing=8)

    def caption(self, data: LayersData) -> str:
        """Return whose network it is and what its columns count."""
        several = f" of {data.condition}, one of {data.conditions} conditions" if data.conditions > 1 else ""
        parts = [
            f"The network{several}: layers in the order in which they run, with the output of one image (channels, "
            "height, width), their own parameters, and FLOPs (matrix products and convolutions; a multiplication and "
            "its addition are two)."
        ]
        if len(data.rows) < len(data.layers):
            parts.append(f"{len(data.layers)} layers in {len(data.rows)} groups; each is in the data of this figure.")
        return " ".join(parts)

    def alt_text(self, data: LayersData) -> str:
        """Return one sentence with the totals and the layer that holds most parameters."""
        most = max(data.layers, key=lambda layer: layer.parameters)
        parameters, flops = (sum(getattr(one, name) for one in data.layers) for name in ("parameters", "flops"))
        return (
            f"The network of {data.condition} has {parameters:,} parameters and {flops / 1e6:,.3g} MFLOPs an image; "
            f"most of its parameters in one layer, {most.parameters:,}, are in {most.layer or 'the network itself'}."
        )


def _layer(key: str, values: Sequence[int]) -> NetworkLayer:
    _, _, kind, layer = key.split(".", 3)
    shape = " \N{MULTIPLICATION SIGN} ".join(map(str, values[2:]))
    return NetworkLayer(layer=layer, kind=kind, shape=shape, parameters=values[0], flops=values[1])


def _group(name: str, layers: Sequence[NetworkLayer]) -> NetworkLayer:
    if len(layers) == 1:
        return layers[0]
    return NetworkLayer(
        layer=name,
        kind=f"{len(layers)} layers",
        shape=layers[-1].shape,
        parameters=sum(layer.parameters for layer in layers),
        flops=sum(layer.flops for layer in layers),
    )
