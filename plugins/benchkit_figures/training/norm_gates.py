"""Gates of batch-instance normalisation by layer and epoch: 1 is batch normalisation, 0 instance normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit import NothingToDraw, card
from benchkit.results import StudyResults, Trial
from benchkit_figures.encodings import (
    COLOURS,
    WIDTH,
    Steps,
    done_repeats,
    heading,
    label_width,
    listed,
    repeats_words,
    rounded,
    tooltips,
)
from benchkit_figures.training.curves import SeriesPoint, averaged, most_running, thinned

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "norm-gates"
STEPS = Steps(
    ends=(0.2, 0.4, 0.6, 0.8, 0.95),
    names=("under 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "0.8 to 0.95", "0.95 and over"),
    colours=(COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[4], COLOURS[5], COLOURS[7]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCurve:
    """A layer's mean gate by epoch in one condition, and the mean share of its gates at 0.99 and above at the end."""

    condition: str
    layer: str
    place: int
    n: int
    open_share: float
    points: tuple[SeriesPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateData:
    """All curves, by condition and from the first layer to the last."""

    curves: tuple[GateCurve, ...]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Return the conditions that have gates, in the order of the study."""
        return tuple(dict.fromkeys(curve.condition for curve in self.curves))


@card(
    title="Norm gates",
    summary="The learned gates between batch and instance normalisation, by layer and epoch.",
    reference="H. Nam and H.-E. Kim, Batch-Instance Normalization for Adaptively Style-Invariant Neural Networks, "
    "NeurIPS 2018",
    url="https://arxiv.org/abs/1805.07925",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class NormGates:
    """The mean gate of every layer whose module has gates: a parameter `rho` with one number in [0, 1] a channel."""

    def observe(self, model: nn.Module, images: torch.Tensor) -> dict[str, float]:
        """Return `PLACE.LAYER.mean` and `.open`, the share of gates at 0.99 and above; empty without gates."""
        modules = ((name, getattr(module, "rho", None)) for name, module in model.named_modules())
        gated = [(name, rho) for name, rho in modules if rho is not None]
        kept: dict[str, float] = {}
        for place, (name, rho) in enumerate(gated, 1):
            values = rho.detach().float()
            kept[f"{place:03d}.{name}.mean"] = float(values.mean())
            kept[f"{place:03d}.{name}.open"] = float((values >= 0.99).float().mean())
        return kept

    def data(self, results: StudyResults) -> GateData:
        """Return the mean gate by layer and epoch of every condition that has gates and a done repeat."""
        conditions = [condition for condition in results.conditions if condition.kind != "search"]
        curves = [curve for c in conditions for curve in _curves(c.label, done_repeats(results, c))]
        if not curves:
            raise NothingToDraw("no finished repeat recorded gates: no norm has any, or norm-gates was not asked for")
        return GateData(curves=tuple(curves))

    def draw(self, data: GateData) -> Any:
        """Return a map of layers by epochs for each condition."""
        panels = [_panel(data, condition) for condition in data.conditions]
        return panels[0] if len(panels) == 1 else alt.vconcat(*panels, spacing=14)

    def caption(self, data: GateData) -> str:
        """Return what a cell is, and over how many repeats."""
        n = repeats_words(curve.n for curve in data.curves)
        return (
            "Mean gate of each layer after each epoch, first layer on top: 1 is batch normalisation alone, 0 instance "
            f"normalisation alone; gates begin at 1. Mean over {n}. Conditions: {listed(data.conditions)}. The share "
            "of gates at 0.99 and above is in the data of this figure."
        )

    def alt_text(self, data: GateData) -> str:
        """Return one sentence with the layers of the least and the greatest mean gate in the last epoch."""
        ends = sorted((curve.points[-1].mean, curve.layer) for curve in data.curves)
        (least, low), (most, high) = ends[0], ends[-1]
        return f"In the last epoch mean gates reach from {least:.2f} (layer {low}) to {most:.2f} (layer {high})."


def _curves(label: str, trials: Sequence[Trial]) -> list[GateCurve]:
    keys = {key for trial in trials for record in trial.history for key in record.observed}
    curves = []
    for key in sorted(key for key in keys if key.startswith(f"{NAME}.") and key.endswith(".mean")):
        _, place, rest = key.split(".", 2)
        points = averaged(trials, lambda record, key=key: record.observed.get(key))  # type: ignore[misc]
        opened = averaged(trials, lambda record, key=f"{key[:-5]}.open": record.observed.get(key))  # type: ignore[misc]
        if points:
            curves.append(
                GateCurve(
                    condition=label,
                    layer=rest.removesuffix(".mean"),
                    place=int(place),
                    n=most_running(points),
                    open_share=opened[-1].mean if opened else 0.0,
                    points=points,
                )
            )
    return curves


def _panel(data: GateData, condition: str) -> alt.Chart:
    curves = [curve for curve in data.curves if curve.condition == condition]
    layers = [curve.layer for curve in curves]
    rows = [
        {
            "layer": curve.layer,
            "epoch": point.epoch,
            "gate": rounded(point.mean),
            "step": STEPS.name(point.mean),
        }
        for curve in curves
        for point in thinned(curve.points)
    ]
    epochs = sorted({point.epoch for curve in curves for point in thinned(curve.points)})
    ticks = epochs[:: max(1, len(epochs) // 8)]
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("epoch:O", title="Epoch", axis=alt.Axis(values=ticks, labelAngle=0, ticks=False, domain=False)),
            y=alt.Y("layer:N", sort=layers, title="Layer", axis=alt.Axis(ticks=False, domain=False)),
            color=STEPS.encoding("Mean gate"),
            tooltip=tooltips({"layer:N": "Layer", "epoch:O": "Epoch", "gate:Q": "Mean gate"}),
        )
        .properties(width=WIDTH - label_width(layers) - 30, height=16 * len(layers))
    )
    several = len(data.conditions) > 1
    return chart.properties(title=heading(condition)) if several else chart
