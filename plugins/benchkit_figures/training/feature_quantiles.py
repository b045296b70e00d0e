"""Feature quantiles: how the features before the classifier spread over training, for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt

from benchkit import NothingToDraw, Range, card
from benchkit.results import EpochRecord, StudyResults
from benchkit_figures.encodings import (
    Layers,
    by_condition,
    colour,
    done_repeats,
    left_out,
    panel_columns,
    planned_labels,
    repeats_words,
    rounded,
    tooltips,
)
from benchkit_figures.training.curves import SmallPanel, averaged, epoch_axis, small_panels, thinned

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "feature-quantiles"
QUANTILES = {"q01": 0.01, "q20": 0.20, "q80": 0.80, "q99": 0.99}
SETTLED = 0.95
"""The share of the narrowing that must be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantilePoint:
    """Means over `running` repeats of four quantiles of the features after one epoch."""

    epoch: int
    running: int
    q01: float
    q20: float
    q80: float
    q99: float

    @property
    def spread(self) -> float:
        """Return the distance from the 1 % to the 99 % quantile."""
        return self.q99 - self.q01


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileCurves:
    """A condition's quantiles by epoch over `n` repeats.

    `settled` is the first epoch by which 95 % of the narrowing is done, from the spread (1 % to 99 % quantile) after
    the first epoch to the least one; 0 when the first is the least.
    """

    condition: str
    n: int
    settled: int
    points: tuple[QuantilePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantilesData:
    """The curves of the conditions that were observed; `labels` are all planned ones."""

    labels: tuple[str, ...]
    curves: tuple[QuantileCurves, ...]
    without: tuple[str, ...]

    @property
    def epochs(self) -> set[int]:
        """Return all epochs of all curves."""
        return {point.epoch for curves in self.curves for point in curves.points}


@card(
    title="Feature quantiles",
    summary="The 1, 20, 80 and 99 % quantiles of one validation image's features before the classifier, by epoch.",
    ranges={"images": Range(low=1, high=64)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureQuantiles:
    """The spread of the features before the classifier, after every epoch, a panel for each condition.

    The features are those of the first `images` validation images (default 1), taken together.
    """

    images: int = 1

    def observe(self, model: nn.Module, images: torch.Tensor) -> dict[str, float]:
        """Return the quantiles q01, q20, q80 and q99 (linear interpolation); empty without a classifier."""
        import torch

        from benchkit_figures.network.layer_outputs import classifier_input

        features = classifier_input(model, images[: max(1, self.images)])
        if features is None or not bool(torch.isfinite(features).all()):
            return {}
        places = torch.tensor(list(QUANTILES.values()), dtype=torch.float64)
        quantiles = torch.quantile(features.flatten().double().cpu(), places)
        return dict(zip(QUANTILES, map(float, quantiles), strict=True))

    def data(self, results: StudyResults) -> QuantilesData:
        """Return the mean quantiles by epoch of every condition with a done and observed repeat."""
        curves, without = by_condition(results, lambda condition: _curves(results, condition))
        if not curves:
            raise NothingToDraw(
                f"no finished repeat here has noted quantiles: {NAME} must be in report.figures before the sweep, "
                "and a report's capsule keeps no observations"
            )
        return QuantilesData(labels=planned_labels(results), curves=tuple(curves), without=without)

    def draw(self, data: QuantilesData) -> Any:
        """Return a panel for each condition on shared axes, with the inner band over the outer one."""
        labels = [curves.condition for curves in data.curves]
        return small_panels(labels, lambda panel: _panel(data, panel), _rows(data), columns=panel_columns(labels))

    def caption(self, data: QuantilesData) -> str:
        """Return what the bands are, of which image, over how many repeats."""
        what = "the first validation image" if self.images == 1 else f"the first {self.images} validation images"
        n = repeats_words(curves.n for curves in data.curves)
        averages = f"means over {n}" if any(curves.n > 1 for curves in data.curves) else "one repeat"
        parts = [
            f"Features before the classifier of {what} after every epoch. Light band: from their 1 % to their 99 % "
            f"quantile; dark band: from 20 % to 80 % ({averages}). The bands show the spread of the features, "
            "not an uncertainty."
        ]
        if any(curves.settled for curves in data.curves):
            parts.append("Dashed: the epoch by which 95 % of the narrowing from the first epoch to the least is done.")
        parts += left_out("Without an observed repeat", data.without)
        return " ".join(parts)

    def alt_text(self, data: QuantilesData) -> str:
        """Return one sentence with how the spread changed where it changed most."""
        most = max(data.curves, key=lambda curves: _change(curves))
        first, last = most.points[0], most.points[-1]
        if len(most.points) == 1:
            return f"After its only epoch the features of {most.condition} span {first.spread:.3g}."
        return (
            f"From epoch {first.epoch} to {last.epoch} the spread of the features (1 % to 99 % quantile) of "
            f"{most.condition} goes from {first.spread:.3g} to {last.spread:.3g}"
            f"{f', with 95 % of its narrowing done by epoch {most.settled}' if most.settled else ''}."
        )


def _change(curves: QuantileCurves) -> float:
    spreads = sorted(max(point.spread, 1e-12) for point in (curves.points[0], curves.points[-1]))
    return spreads[1] / spreads[0]


def _curves(results: StudyResults, condition: Any) -> QuantileCurves | None:
    trials = done_repeats(results, condition)
    series = {name: averaged(trials, _reading(name)) for name in QUANTILES}
    if not all(series.values()):
        return None
    points = tuple(
        QuantilePoint(
            epoch=row[0].epoch,
            running=row[0].running,
            **{name: point.mean for name, point in zip(QUANTILES, row, strict=True)},
        )
        for row in zip(*series.values(), strict=True)
    )
    n = max(point.running for point in points)
    return QuantileCurves(condition=condition.label, n=n, settled=_settled(points), points=points)


def _settled(points: tuple[QuantilePoint, ...]) -> int:
    first, least = points[0].spread, min(point.spread for point in points)
    enough = first - SETTLED * (first - least)
    return next(point.epoch for point in points if point.spread <= enough) if least < first else 0


def _reading(quantile: str) -> Any:
    def reading(record: EpochRecord) -> float | None:
        return record.observed.get(f"{NAME}.{quantile}")

    return reading


def _panel(data: QuantilesData, panel: SmallPanel) -> Layers:
    curves = data.curves[panel.index]
    scale = alt.Scale(domain=_domain(data), nice=False, zero=False)
    base = panel.own(alt.Chart()).encode(x=epoch_axis(data.epochs, 6, labelled=panel.bottom))
    marked = base.mark_bar(size=18) if len(curves.points) == 1 else base.mark_area()
    layers = [
        marked.encode(
            y=alt.Y(f"{low}:Q", axis=panel.y_axis("Feature value"), scale=scale),
            y2=alt.Y2(f"{high}:Q"),
            color=colour(data.labels),
            fillOpacity=alt.FillOpacityValue(opacity),
            tooltip=_tooltip(),
        )
        for low, high, opacity in (("q01", "q99", 0.25), ("q20", "q80", 0.65))
    ]
    if curves.settled:
        rule = base.transform_filter(f"datum.epoch == {curves.settled}")
        layers.append(rule.mark_rule(strokeDash=[3, 2], strokeWidth=1, strokeOpacity=0.8))
    return alt.layer(*layers).properties(width=min(panel.width, 300), height=100)


def _domain(data: QuantilesData) -> list[float]:
    points = [point for curves in data.curves for point in curves.points]
    low, high = min(point.q01 for point in points), max(point.q99 for point in points)
    pad = 0.05 * (high - low) or 1.0
    return [rounded(low - pad), rounded(high + pad)]


def _rows(data: QuantilesData) -> list[dict[str, Any]]:
    rows = []
    for curves in data.curves:
        kept = {point.epoch for point in thinned(curves.points, 2)} | {curves.settled}
        rows += [
            {"condition": curves.condition, "epoch": point.epoch}
            | {name: rounded(getattr(point, name)) for name in QUANTILES}
            for point in curves.points
            if point.epoch in kept
        ]
    return rows


def _tooltip() -> list[alt.Tooltip]:
    names = {"q01": "1 % quantile", "q20": "20 %", "q80": "80 %", "q99": "99 %"}
    quantiles = [alt.Tooltip(f"{name}:Q", title=title, format=".4g") for name, title in names.items()]
    return [*tooltips({"condition:N": "Condition", "epoch:Q": "Epoch"}), *quantiles]
