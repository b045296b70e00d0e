"""The check of a regularizer's options: all that is wrong, in one error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchkit import PluginError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a number may be: from `low` to `high`, inclusive where it is not said to be open."""

    low: float = 0.0
    high: float = math.inf
    whole: bool = False
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: object) -> bool:
        """Return whether a value is a finite number within the bound."""
        kinds = (int,) if self.whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        """Return what is expected, in words."""
        kind = "a whole number" if self.whole else "a number"
        low = f"{'above' if self.open_low else 'from'} {self.low:g}"
        if self.high == math.inf:
            return f"{kind} {low}{'' if self.open_low else ' up'}"
        return f"{kind} {low} {'to below' if self.open_high else 'to'} {self.high:g}"


AT_LEAST_0 = Bound()
SHARE = Bound(high=1.0)
SHARE_ABOVE_0 = Bound(high=1.0, open_low=True)
SHARE_BELOW_1 = Bound(high=1.0, open_high=True)


def require(plugin: str, options: object, *, problems: tuple[str, ...] = (), **bounds: Bound) -> None:
    """Raise `PluginError` naming each of the `options` that is out of its bound, and the further `problems`, if any."""
    values = {name: getattr(options, name) for name in bounds}
    outside = [
        f"{name} = {values[name]!r}: expected {one}" for name, one in bounds.items() if not one.holds(values[name])
    ]
    if outside or problems:
        raise PluginError(f"the regularizer {plugin!r} was given wrong options", problems=[*outside, *problems])
