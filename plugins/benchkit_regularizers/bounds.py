"""The check of a regularizer's options: all that is wrong, in one error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchkit import PluginError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """An option's value and what it may be: from `low` to `high`, inclusive where it is not said to be open."""

    option: str
    value: object
    low: float = 0.0
    high: float = math.inf
    whole: bool = False
    open_low: bool = False
    open_high: bool = False

    @property
    def problem(self) -> str:
        """Return what is wrong with the value and what is expected, or an empty string."""
        kinds = (int,) if self.whole else (int, float)
        number = isinstance(self.value, kinds) and not isinstance(self.value, bool)
        if number and self._holds(float(self.value)):  # type: ignore[arg-type]
            return ""
        return f"{self.option} = {self.value!r}: expected {self._expected()}"

    def _holds(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def _expected(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"{'above' if self.open_low else 'from'} {self.low:g}"
        if self.high == math.inf:
            return f"{kind} {low}{'' if self.open_low else ' up'}"
        return f"{kind} {low} {'to below' if self.open_high else 'to'} {self.high:g}"


def require(plugin: str, *bounds: Bound, problems: tuple[str, ...] = ()) -> None:
    """Raise `PluginError` naming every option out of its bounds, and the further `problems`, if there are any."""
    outside = [bound.problem for bound in bounds if bound.problem]
    if outside or problems:
        raise PluginError(f"the regularizer {plugin!r} was given wrong options", problems=[*outside, *problems])
