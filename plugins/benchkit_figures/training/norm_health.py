"""Norm health: mean and variance of activations from early to late layers over training, and the gradient norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit import NothingToDraw, Range, card
from benchkit.results import StudyResults, Trial
from benchkit_figures.encodings import (
    WIDTH,
    colour,
    dash,
    done_repeats,
    heading,
    left_out,
    listed,
    planned_labels,
    repeats_words,
    rounded,
    tooltips,
)
from benchkit_figures.training.curves import SeriesPoint, averaged, epoch_axis, most_running, thinned

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "norm-health"

HEIGHT = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCurve:
    """A condition's `quantity` (mean, variance or gradient norm) by epoch; `panel` is where it stands in the network.

    `layer` is the layer's name and `place` of `places` where it runs; empty and 0 for the gradient norm.
    """

    condition: str
    quantity: str
    panel: str
    layer: str
    place: int
    places: int
    n: int
    points: tuple[SeriesPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthData:
    """All curves, and the panels from early to late; `labels` are all planned conditions."""

    labels: tuple[str, ...]
    panels: tuple[str, ...]
    curves: tuple[HealthCurve, ...]
    without: tuple[str, ...]

    @property
    def epochs(self) -> set[int]:
        """Return all epochs of all curves."""
        return {point.epoch for curve in self.curves for point in curve.points}

    @property
    def drawn(self) -> tuple[str, ...]:
        """Return the conditions that have curves."""
        return tuple(dict.fromkeys(curve.condition for curve in self.curves))


@card(
    title="Norm health",
    summary="Mean and variance of activations after each norm, from early to late layers, and the gradient norm.",
    reference="Ioffe and Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal "
    "Covariate Shift, ICML 2015",
    url="https://arxiv.org/abs/1502.03167",
    ranges={"layers": Range(low=1, high=6)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class NormHealth:
    """Activations after the norms (or where a norm would stand) of up to `layers` layers, spread from first to last."""

    layers: int = 4

    def observe(self, model: nn.Module, images: torch.Tensor) -> dict[str, float]:
        """Return `PLACE-of-PLACES.LAYER.mean` and `.variance` over all elements; empty without hidden layers.

        A layer that is not finite is left out.
        """
        from benchkit_figures.network.layer_outputs import moments

        observed = moments(model, images)
        kept: dict[str, float] = {}
        for index in _spread(len(observed), self.layers):
            layer = observed[index]
            if math.isfinite(layer.mean) and math.isfinite(layer.variance):
                key = f"{index + 1:03d}-of-{len(observed):03d}.{layer.layer}"
                kept |= {f"{key}.mean": layer.mean, f"{key}.variance": layer.variance}
        return kept

    def data(self, results: StudyResults) -> HealthData:
        """Return mean and variance by layer and epoch, and the gradient norm, of every condition with a done repeat."""
        trials = {c.label: done_repeats(results, c) for c in results.conditions if c.kind != "search"}
        curves = [curve for label, repeats in trials.items() for curve in _curves(label, repeats)]
        if not curves:
            raise NothingToDraw("no repeat of any condition has finished with a recorded history")
        drawn = {curve.condition for curve in curves}
        named = {curve.panel: curve.place / max(1, curve.places) for curve in curves if curve.place}
        return HealthData(
            labels=planned_labels(results),
            panels=tuple(sorted(named, key=lambda panel: named[panel])),
            curves=tuple(curves),
            without=tuple(label for label in trials if label not in drawn),
        )

    def draw(self, data: HealthData) -> Any:
        """Return a column of panels for each layer, mean above variance, and the gradient norm below.

        Each row has one vertical axis, logarithmic for variances and gradient norms.
        """
        rows = []
        for quantity in ("mean", "variance"):
            curves = [curve for curve in data.curves if curve.quantity == quantity]
            if curves:
                panels = [_draw_panel(data, curves, quantity, panel) for panel in data.panels]
                rows.append(alt.hconcat(*panels, spacing=12, bounds="flush"))
        gradient = [curve for curve in data.curves if curve.quantity == "gradient norm"]
        if gradient:
            rows.append(alt.hconcat(_draw_panel(data, gradient, "gradient norm", "")))
        return alt.vconcat(*rows, data=alt.InlineData(values=_rows(data)), spacing=12)

    def caption(self, data: HealthData) -> str:
        """Return what is shown of which layers, over how many repeats, and what is left out."""
        n, parts = repeats_words(curve.n for curve in data.curves), []
        if data.panels:
            layers = tuple(dict.fromkeys(curve.layer for curve in data.curves if curve.place))
            parts.append(
                "Mean and variance of the activations after the norm (with norm none: where it would stand), over all "
                "channels and pixels of the first 64 validation images in evaluation mode, by epoch. Layers: "
                f"{listed(layers, 8)}."
            )
        else:
            parts.append(
                "The activations were not observed, or this is made from a report's capsule, which keeps no "
                "observations: norm-health must be in report.figures before the sweep."
            )
        parts.append(f"Gradient norm: mean over the steps of an epoch, before clipping. Lines: mean over {n}.")
        if any(curve.n > 1 for curve in data.curves):
            parts.append("No interval is drawn; ranges over repeats are in the data of this figure.")
        parts += left_out("Without a finished repeat", data.without)
        return " ".join(parts)

    def alt_text(self, data: HealthData) -> str:
        """Return one sentence with the greatest and least variance in the last layer, or with the gradient norms."""
        quantity = "variance" if data.panels else "gradient norm"
        last = [c for c in data.curves if c.quantity == quantity and c.panel == (data.panels or ("",))[-1]]
        ends = sorted((curve.points[-1].mean, curve.condition) for curve in last)
        what = "variance of the activations in the last layer" if data.panels else "gradient norm"
        if len(ends) == 1:
            return f"In its last epoch {ends[0][1]} has a {what} of {ends[0][0]:.3g}."
        least, most = (f"{value:.3g} ({label})" for value, label in (ends[0], ends[-1]))
        return f"In the last epoch the {what} reaches from {least} to {most}."


def _spread(count: int, most: int) -> list[int]:
    """Return up to `most` places from the first to the last of `count`, evenly spread."""
    if count <= most or most == 1:
        return list(range(count))[-most:]
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]


def _curves(label: str, trials: Sequence[Trial]) -> list[HealthCurve]:
    keys = sorted(
        {key for t in trials for record in t.history for key in record.observed if key.startswith(f"{NAME}.")}
    )
    layers = sorted({key.split(".")[1] for key in keys})
    curves = [_curve(label, trials, key, layers) for key in keys]
    gradient = averaged(trials, lambda record: record.gradient_norm)
    curves.append(
        HealthCurve(
            condition=label,
            quantity="gradient norm",
            panel="",
            layer="",
            place=0,
            places=0,
            n=most_running(gradient),
            points=gradient,
        )
    )
    return [curve for curve in curves if curve.points]


def _curve(label: str, trials: Sequence[Trial], key: str, layers: Sequence[str]) -> HealthCurve:
    _, ordinal, rest = key.split(".", 2)
    layer, _, quantity = rest.rpartition(".")
    rank, _, places = ordinal.partition("-of-")
    points = averaged(trials, lambda record: record.observed.get(key))
    return HealthCurve(
        condition=label,
        quantity=quantity,
        panel=_panel(layers.index(ordinal), len(layers)),
        layer=layer,
        place=int(rank),
        places=int(places),
        n=most_running(points),
        points=points,
    )


def _panel(rank: int, count: int) -> str:
    """Return where one of `count` observed layers stands: networks of different depth share their panels."""
    if rank == 0:
        return "first layer"
    if rank == count - 1:
        return "last layer"
    return "middle layer" if count == 3 else f"{round(100 * rank / (count - 1))} % of the depth"


def _draw_panel(data: HealthData, curves: Sequence[HealthCurve], quantity: str, panel: str) -> alt.Chart:
    first = panel == data.panels[0] if data.panels and panel else True
    title = {"mean": "Mean", "variance": "Variance", "gradient norm": "Gradient norm"}[quantity]
    y_axis = alt.Axis(labels=first, title=title if first else None, tickCount=4, values=_ticks(curves, quantity))
    chart = alt.Chart().transform_filter(f"datum.quantity == '{quantity}' && datum.panel == '{panel}'")
    tooltip = tooltips({"condition:N": "Condition", "epoch:Q": "Epoch"})
    tooltip.append(alt.Tooltip("value:Q", title=title, format=".4g"))
    lines = chart.mark_line(clip=True, strokeWidth=1.5, point=len(data.epochs) == 1).encode(
        x=epoch_axis(data.epochs, 6 if panel else 8, labelled=quantity != "mean"),
        y=alt.Y("value:Q", axis=y_axis, scale=_scale(curves, quantity)),
        color=colour(data.labels, data.drawn, "stroke"),
        strokeDash=dash(data.labels, data.drawn),
        tooltip=tooltip,
    )
    count = max(1, len(data.panels))
    width = (WIDTH - 84 - 10 * (count - 1)) // count if panel else WIDTH - 84
    drawn: alt.Chart = lines.properties(width=width, height=HEIGHT)
    return drawn.properties(title=heading(panel)) if quantity == "mean" else drawn


def _is_log(curves: Sequence[HealthCurve], quantity: str) -> bool:
    values = [point.mean for curve in curves for point in curve.points]
    return quantity != "mean" and min(values) > 0 and max(values) > 5 * min(values)


def _ticks(curves: Sequence[HealthCurve], quantity: str) -> Any:
    """Return the ticks of a log scale: decades, with 2 and 5 between them where there are few."""
    if not _is_log(curves, quantity):
        return alt.Undefined
    values = [point.mean for curve in curves for point in curve.points]
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if last - first < 3 else (1,)
    every = max(1, (last - first) // 5)
    return [float(f"{step}e{power}") for power in range(first, last + 1, every) for step in steps]


def _scale(curves: Sequence[HealthCurve], quantity: str) -> alt.Scale:
    values = sorted(point.mean for curve in curves for point in curve.points)
    low, high = values[0], values[-1]
    if _is_log(curves, quantity):
        return alt.Scale(type="log", domain=[float(f"{low * 0.9:.3g}"), float(f"{high * 1.1:.3g}")], nice=False)
    pad = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return alt.Scale(domain=[rounded(low - pad), rounded(high + pad)], nice=False, zero=False)


def _rows(data: HealthData) -> list[dict[str, Any]]:
    return [
        {
            "condition": curve.condition,
            "quantity": curve.quantity,
            "panel": curve.panel,
            "epoch": point.epoch,
            "value": rounded(point.mean),
        }
        for curve in data.curves
        for point in thinned(curve.points, 2)
    ]
