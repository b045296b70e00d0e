"""Weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchkit import Range, card
from benchkit_regularizers.bounds import AT_LEAST_0, require


@card(
    title="Weight decay",
    summary="Every step pulls the weights towards zero in proportion to themselves, as an L2 penalty does under SGD.",
    reference="A. Krogh and J. A. Hertz, A Simple Weight Decay Can Improve Generalization, NeurIPS 1991",
    url="https://proceedings.neurips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html",
    ranges={"strength": Range(low=1e-6, high=1e-1, log=True)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDecay:
    """The optimizer's `weight_decay`: `strength` * w joins the gradient of w; decoupled from it under adamw."""

    strength: float = 5e-4

    def __post_init__(self) -> None:
        require("weight-decay", self, strength=AT_LEAST_0)

    def optimizer_options(self) -> dict[str, Any]:
        """Return the optimizer's keyword argument."""
        return {"weight_decay": self.strength}
