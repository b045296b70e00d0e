"""Where weights start: the initialisations that a model offers as its option `init`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from benchkit import PluginError

INITIALISATIONS = ("default", "kaiming-uniform", "kaiming-uniform-conv", "xavier")
"""The values of the option `init`."""


def initialise(model: nn.Module, init: str) -> None:
    """Draw the weights of all convolutions and linear layers anew, in place; norms keep theirs.

    kaiming-uniform: uniform in +-sqrt(6 / fan_in), which keeps the variance through ReLU (He, Zhang, Ren and Sun,
    Delving Deep into Rectifiers, ICCV 2015). xavier: uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio,
    Understanding the Difficulty of Training Deep Feedforward Neural Networks, AISTATS 2010). Both set biases to zero.
    kaiming-uniform-conv draws the weights of convolutions alone, and leaves biases and linear layers by default.
    default leaves what PyTorch's layers draw: uniform in +-sqrt(1 / fan_in), weights and biases alike.
    """
    if init == "default":
        return
    convolutions_alone = init == "kaiming-uniform-conv"
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d if convolutions_alone else nn.Conv2d | nn.Linear):
            continue
        if init == "xavier":
            nn.init.xavier_uniform_(layer.weight)
        else:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        if layer.bias is not None and not convolutions_alone:
            nn.init.zeros_(layer.bias)


def require(model: str, problems: Sequence[str], *, init: str = "default") -> None:
    """Raise `PluginError` with the problems of a model's options, an unknown `init` among them, if there are any."""
    if init not in INITIALISATIONS:
        problems = [*problems, f"init = {init!r}: expected one of {', '.join(INITIALISATIONS)}"]
    if problems:
        raise PluginError(f"the model {model!r} cannot be built", problems=problems)
