"""The figure of several studies: each study's means and intervals side by side, and mean ranks where they are tested.

It speaks the figure plugins' language (data, draw, caption, alternative text), but sees several studies at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from benchkit.analysis.agreement import Agreement
from benchkit.analysis.wording import count, listing, metric_unit, metric_words, number
from benchkit.metrics import metric_of
from benchkit.report.figures.drawing import FIGURE_WIDTH

MOST_COLUMNS = 4
"""Panels in a row; further ones start another row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelRow:
    """A condition in one study: mean, ends of the t interval (at the mean when n = 1), n, and rank if ranked."""

    condition: str
    mean: float
    low: float
    high: float
    n: int
    rank: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPanel:
    """One study's conditions."""

    study: str
    rows: tuple[PanelRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanRank:
    """A condition's mean rank; `low` and `high` are half a critical difference away."""

    condition: str
    rank: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementData:
    """Panels of shared conditions in one order, best mean rank first; `ranks` are empty without a test.

    `planned` are the labels of all conditions, by whose places these have their colours. `looks` are the studies whose
    intervals are wide enough for those of all their planned looks together.
    """

    metric: str
    planned: tuple[str, ...]
    conditions: tuple[str, ...]
    panels: tuple[StudyPanel, ...]
    ranks: tuple[MeanRank, ...]
    looks: tuple[str, ...] = ()


def agreement_data(agreement: Agreement, planned: Sequence[str], looks: Sequence[str] = ()) -> AgreementData:
    """Return the plain numbers that the figure shows; `planned` are all studies' labels in report order.

    `looks` are the studies whose intervals are wide enough for those of all their planned looks together.
    """
    panels = tuple(
        StudyPanel(study=study, rows=tuple(_rows(agreement, index))) for index, study in enumerate(agreement.studies)
    )
    half = (agreement.critical_difference or 0.0) / 2
    ranks = tuple(
        MeanRank(condition=row.label, rank=row.mean_rank, low=row.mean_rank - half, high=row.mean_rank + half)
        for row in agreement.shared
        if agreement.test is not None and row.mean_rank is not None
    )
    labels = tuple(row.label for row in agreement.shared)
    return AgreementData(
        metric=agreement.metric,
        planned=tuple(planned),
        conditions=labels,
        panels=panels,
        ranks=ranks,
        looks=tuple(looks),
    )


def looks_words(studies: Sequence[str]) -> str:
    """Return of which studies an interval is wider than one of 95 %, after that has been named."""
    return f", of {listing(studies)} so wide that those of all planned looks hold together with 95 %" if studies else ""


def _rows(agreement: Agreement, index: int) -> Sequence[PanelRow]:
    rows = []
    for row in agreement.shared:
        standing = row.standings[index]
        if standing is not None:
            estimate = standing.estimate
            low, high = (estimate.mean if end is None else end for end in (estimate.low, estimate.high))
            rows.append(
                PanelRow(condition=row.label, mean=estimate.mean, low=low, high=high, n=estimate.n, rank=standing.rank)
            )
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementChart:
    """Small multiples with common rows."""

    def draw(self, data: AgreementData) -> Any:
        """Return one panel for each study, and one of mean ranks with half a critical difference to either side."""
        columns = min(MOST_COLUMNS, len(data.panels) + bool(data.ranks))
        labels = min(200, 14 + round(6.4 * max(len(label) for label in data.conditions)))
        width = int((FIGURE_WIDTH - labels - 22 * columns) / columns)
        axes = [_y(data, first=index % columns == 0) for index in range(len(data.panels) + 1)]
        panels = [_study_panel(panel, data, y) for panel, y in zip(data.panels, axes, strict=False)]
        if data.ranks:
            panels.append(_rank_panel(data, axes[len(panels)]))
        panels = [panel.properties(width=width, height=alt.Step(24)) for panel in panels]
        rows = [alt.hconcat(*panels[start : start + columns], spacing=14) for start in range(0, len(panels), columns)]
        return rows[0] if len(rows) == 1 else alt.vconcat(*rows)

    def caption(self, data: AgreementData) -> str:
        """Return what points and bars are, and over how many repeats."""
        counts = sorted({row.n for panel in data.panels for row in panel.rows})
        n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        ranked = any(row.rank is not None for panel in data.panels for row in panel.rows)
        metric = metric_words(data.metric)
        words = (
            f"{metric[0].upper()}{metric[1:]} of the shared conditions in each study, "
            f"{'best mean rank first' if ranked else 'in planned order'}. Points: mean of {n} repeats; bars: 95 % t "
            f"interval{looks_words(data.looks)}. The panels have scales of their own."
        )
        if not data.ranks:
            return words
        return (
            f"{words} Mean rank: mean over studies, bars half of Nemenyi's critical difference to either side; "
            "conditions whose bars do not meet differ beyond chance."
        )

    def alt_text(self, data: AgreementData) -> str:
        """Return one sentence with the best condition of every study."""
        best = []
        for panel in data.panels:
            ranked = [row for row in panel.rows if row.rank is not None]
            if ranked:
                best.append(f"{min(ranked, key=lambda row: row.rank or 0.0).condition} in {panel.study}")
        shared = count(len(data.conditions), "shared condition")
        return f"Of {shared}, the best mean {metric_words(data.metric)} is that of {listing(best) or 'none in all'}."


def _y(data: AgreementData, *, first: bool) -> alt.Y:
    axis = alt.Axis(domain=False, ticks=False, grid=True, labels=first)
    return alt.Y("condition:N", sort=list(data.conditions), scale=alt.Scale(domain=list(data.conditions)), title=None,
                 axis=axis)  # fmt: skip


def _colour(data: AgreementData) -> alt.Color:
    return alt.Color("condition:N", scale=alt.Scale(domain=list(data.planned)), legend=None)


def _study_panel(panel: StudyPanel, data: AgreementData, y: alt.Y) -> Any:
    scale = metric_of(data.metric).factor
    rows = [
        {"condition": row.condition, "n": row.n, "rank": row.rank, "mean": scale * row.mean, "low": scale * row.low,
         "high": scale * row.high}
        for row in panel.rows
    ]  # fmt: skip
    title = metric_words(data.metric) + (f" ({metric_unit(data.metric)})" if metric_unit(data.metric) else "")
    made = alt.Chart(alt.InlineData(values=rows)).encode(y=y, color=_colour(data))
    x = alt.X("mean:Q", title=title, scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(tickCount=4))
    hints = [alt.Tooltip(f"{name}:{kind}") for name, kind in
             (("condition", "N"), ("mean", "Q"), ("low", "Q"), ("high", "Q"), ("n", "Q"), ("rank", "Q"))]  # fmt: skip
    layers = alt.layer(
        made.mark_rule(strokeWidth=2.2).encode(x=alt.X("low:Q", title=title), x2=alt.X2("high:Q")),
        made.mark_point(filled=True, size=60).encode(x=x, tooltip=hints),
    )
    return layers.properties(title=_short(panel.study))


def _rank_panel(data: AgreementData, y: alt.Y) -> Any:
    rows = [{"condition": r.condition, "rank": r.rank, "low": r.low, "high": r.high} for r in data.ranks]
    made = alt.Chart(alt.InlineData(values=rows)).encode(y=y)
    x = alt.X("rank:Q", title="mean rank", scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(tickCount=4))
    hints = [alt.Tooltip("condition:N"), alt.Tooltip("rank:Q", title="mean rank")]
    layers = alt.layer(
        made.mark_rule(strokeWidth=5, opacity=0.35).encode(x=alt.X("low:Q", title="mean rank"), x2=alt.X2("high:Q")),
        made.mark_point(filled=True, size=60, shape="diamond", color="currentColor").encode(x=x, tooltip=hints),
    )
    return layers.properties(title=f"mean rank over {number(len(data.panels))} studies")


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}\N{HORIZONTAL ELLIPSIS}"
