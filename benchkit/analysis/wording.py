"""Sentences, numbers and times as text, in one place, so that every format of a report shows the same digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchkit.metrics import metric_of

MINUS = "\N{MINUS SIGN}"
TIE = 1e-12
"""A difference of means up to this is rounding: they are the same."""

NONE = "\N{EN DASH}"
"""What a cell without a value shows."""


def metric_words(metric: str) -> str:
    """Return a metric such as `test.accuracy` in words: test accuracy."""
    scope, words = metric.rpartition(".")[0], metric_of(metric).words
    return words if scope in ("", "cost") else f"{scope} {words}"


def metric_unit(metric: str) -> str:
    """Return the unit in which a metric's numbers are shown, or an empty string."""
    return metric_of(metric).unit


def lower_is_better(metric: str) -> bool:
    """Return whether smaller values of the metric are better."""
    return metric_of(metric).lower_is_better


def bare(metric: str, value: float | None) -> str:
    """Return a metric's value without its unit, as tables show it under a heading that names the unit."""
    if value is None or not math.isfinite(value):
        return NONE
    known = metric_of(metric)
    if known.style == "prefixed":
        return engineering(value)
    scaled = known.factor * value
    return number(scaled) if known.decimals is None else _signed(f"{scaled:,.{known.decimals}f}")


def measured(metric: str, value: float) -> str:
    """Return a metric's value with its unit: 71.24 %, 0.8130 nats, 2 min 13 s."""
    if metric_of(metric).style == "duration":
        return duration(value)
    return f"{bare(metric, value)} {metric_unit(metric)}".rstrip()


def bracket(metric: str, low: float | None, high: float | None) -> str:
    """Return an interval for a table cell, [69.02, 73.46], or an empty string without one."""
    if low is None or high is None:
        return ""
    return f"[{bare(metric, low)}, {bare(metric, high)}]"


def span(metric: str, low: float, high: float) -> str:
    """Return an interval for a sentence: 69.02 to 73.46 %."""
    return f"{bare(metric, low)} to {bare(metric, high)} {metric_unit(metric)}".rstrip()


def difference(metric: str, value: float | None) -> str:
    """Return a signed difference without unit: +1.32 (points) or -0.0340."""
    text = bare(metric, value)
    return f"+{text}" if value is not None and value > 0 else text


def difference_unit(metric: str) -> str:
    """Return the unit of a difference of two values: points for shares, else the metric's own."""
    return "points" if metric_of(metric).is_share else metric_unit(metric)


def amount(metric: str, value: float) -> str:
    """Return the size of a difference with its unit: 1.32 points."""
    return f"{bare(metric, abs(value))} {difference_unit(metric)}".rstrip()


def within_range(metric: str, value: float | None) -> str:
    """Return the size of a difference without unit, or that it is over the greatest one that the metric can have."""
    known = metric_of(metric)
    if value is None or value <= known.high:
        return bare(metric, value)
    return f"over {number(known.factor * known.high)}"


def p_value(p: float | None) -> str:
    """Return a p value to two significant digits, never 0."""
    if p is None:
        return NONE
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{min(p, 1.0):.2f}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number to `digits` significant digits, with thousands apart and exponents only far out."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return _signed(_exponent(value, digits))
    places = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{places}f}"
    return _signed(text.rstrip("0").rstrip(".") if "." in text else text)


def _exponent(value: float, digits: int) -> str:
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(power)}"


def setting(value: object) -> str:
    """Return a chosen setting as text: numbers to four significant digits, everything else as it is."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def prefix(value: float) -> tuple[float, str]:
    """Return the decimal prefix that a number is written with, as a factor and a letter, (1.0, "") below a thousand."""
    known = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next(((factor, letter) for factor, letter in known if abs(value) >= factor), (1.0, ""))


def engineering(value: float) -> str:
    """Return a count with k, M, G or T: 175.3 k, 41.2 M."""
    factor, unit = prefix(value)
    return f"{number(value / factor)} {unit}".rstrip()


def count(n: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: 1 repeat, 3 repeats."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {plural or noun + 's'}"


def quoted(label: str) -> str:
    """Return a condition's label as sentences show it, in quotation marks: some labels are words, such as none."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{label}\N{RIGHT DOUBLE QUOTATION MARK}"


def names(labels: Sequence[str], most: int = 6) -> str:
    """Return quoted labels as a phrase."""
    return listing([quoted(label) for label in labels], most)


def listing(items: Sequence[str], most: int = 6) -> str:
    """Return items as a phrase, `a, b and c`; beyond `most` the rest is counted."""
    names = list(items)
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _signed(text: str) -> str:
    """Replace a hyphen before a number by a minus sign; a rounded minus zero loses it."""
    if not text.startswith("-"):
        return text
    return text[1:] if not text.strip("-0.,") else MINUS + text[1:]


def p_words(p: float | None) -> str:
    """Return a p value with its relation: = 0.031 or < 0.001."""
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


Tone = Literal["answer", "note", "warning"]
"""answer: what the study asked; note: worth knowing; warning: something to mend or to distrust."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A sentence and what it rests on. `rule` names the rule, `about` the conditions it speaks of."""

    rule: str
    tone: Tone = "note"
    sentence: str
    evidence: str = ""
    about: tuple[str, ...] = ()


def duration(seconds: float, *, whole: bool = False) -> str:
    """Return a length of time in the two largest units that matter: 4.2 s, 2 min 13 s, 3 h 05 min.

    `whole` rounds to whole seconds, as suits what is still to come: 4 s.
    """
    if whole:
        seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s" if whole else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
