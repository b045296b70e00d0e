"""Colour in a few round steps that fit the values at hand: no gradients, and a legend that can be read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from benchkit_figures.conditions import rounded

COLOURS = ("#E8EFF7", "#C7DAEC", "#A0C3E1", "#73A8D3", "#488CC2", "#2570AC", "#135590", "#0B3A69")
"""From light to dark blue."""

LIGHT, DARK = "#F6F8FB", "#1f2328"
"""Numbers on dark cells and on light ones."""

DARK_STEPS = 4
"""Of the colours, the last four carry light numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steps of a quantity: their inner ends, ascending, their names and colours in the same order."""

    ends: tuple[float, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...]

    def name(self, value: float) -> str:
        """Return the step that a value is in; a value on an end is in the step above it."""
        return self.names[sum(value >= end for end in self.ends)]

    def dark(self, value: float) -> bool:
        """Return whether the value's colour needs light numbers."""
        return self.colours[self.names.index(self.name(value))] in COLOURS[-DARK_STEPS:]

    def encoding(self, title: str) -> alt.Color:
        """Return the colour of the field `step`, with a legend below the figure."""
        return step_colour(self.names, self.colours, title)


def step_colour(names: Sequence[str], colours: Sequence[str], title: str, columns: int = 4) -> alt.Color:
    """Return the colour of the field `step`, with a legend of squares below the figure."""
    legend = alt.Legend(
        title=title,
        orient="bottom",
        direction="horizontal",
        columns=columns,
        symbolType="square",
        symbolSize=140,
        symbolStrokeWidth=0,
    )
    return alt.Color("step:O", scale=alt.Scale(domain=list(names), range=list(colours)), legend=legend)


def colour_steps(values: Sequence[float], *, lower_is_better: bool = False) -> Steps:
    """Return up to eight steps of round width over the values; the better end is the darker one."""
    ends = _ends(min(values), max(values))
    if not ends:
        return Steps(ends=(), names=(f"{values[0]:.4g}",), colours=(COLOURS[2],))
    inner = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(ends)]
    names = (f"under {ends[0]:g}", *inner, f"{ends[-1]:g} and over")
    colours = _spread(len(names))
    return Steps(ends=ends, names=names, colours=colours[::-1] if lower_is_better else colours)


def _spread(count: int) -> tuple[str, ...]:
    """Return colours as far apart as there is room for, without the lightest one where there are few."""
    first, last = (0 if count == len(COLOURS) else 1), len(COLOURS) - 1
    return tuple(COLOURS[round(first + index * (last - first) / (count - 1))] for index in range(count))


def _ends(low: float, high: float) -> tuple[float, ...]:
    """Return ends that are multiples of 1, 2, 2.5 or 5 times a power of ten; none when all values are equal."""
    if high - low <= 1e-9 * max(abs(high), 1.0):
        return ()
    power = 10.0 ** math.floor(math.log10((high - low) / len(COLOURS)))
    for width in (factor * power for factor in (1, 2, 2.5, 5, 10, 20, 25)):
        first, last = math.floor(low / width + 1e-9) + 1, math.ceil(high / width - 1e-9) - 1
        if last - first + 2 <= len(COLOURS):
            return tuple(float(f"{index * width:.10g}") for index in range(first, max(first, last) + 1))
    return (rounded((low + high) / 2),)
