"""Dropout after named modules of any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn import functional

from benchkit import PluginError, Range, card
from benchkit_regularizers.bounds import SHARE_BELOW_1, require


@dataclass(frozen=True, slots=True)
class DropOutput:
    """A forward hook that drops values of a module's output while that module trains."""

    rate: float

    def __call__(self, module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> Tensor:
        """Return the output with a share `rate` of its values zeroed and the others scaled by 1 / (1 - rate)."""
        return functional.dropout(output, self.rate, module.training)


@dataclass(frozen=True, slots=True)
class DropInput:
    """A forward pre-hook that drops values of a module's first input while that module trains."""

    rate: float

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs, the first with a share `rate` of its values zeroed and the others scaled."""
        return (functional.dropout(inputs[0], self.rate, module.training), *inputs[1:])


def matching(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Return the modules whose dotted name equals or matches a pattern (`*` matches dots too), in the model's order.

    Raise `PluginError` that names every pattern without a match.
    """
    named = {name: module for name, module in model.named_modules() if name}
    problems = []
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            close = get_close_matches(pattern, list(named), n=1)
            problems.append(f"no module is called {pattern!r}{f' (did you mean {close[0]!r}?)' if close else ''}")
    if problems:
        shown = [*list(named)[:40], *(["..."] if len(named) > 40 else [])]
        raise PluginError(
            f"dropout cannot be put into {type(model).__name__}", problems=problems, hint="modules: " + ", ".join(shown)
        )
    return [module for name, module in named.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]


@card(
    title="Dropout",
    summary="In training, values of chosen layers are zeroed at random and the others scaled up to make up for it.",
    reference="N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, Dropout: A Simple Way to "
    "Prevent Neural Networks from Overfitting, JMLR 15, 2014",
    url="https://jmlr.org/papers/v15/srivastava14a.html",
    ranges={"rate": Range(low=0.0, high=0.9)},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """Zero a share `rate` of the values after the modules named in `after` (dotted names or glob patterns).

    With `after` empty: after the modules in the model's attribute `dropout_sites`, and without one before its last
    linear layer. Dropout is attached as forward hooks: names and keys of the state dict stay those of the plain model,
    so that weights move between runs with and without it, and copies and compiled models keep it. It draws from
    PyTorch's global random state, as `nn.Dropout` does.
    """

    rate: float = 0.5
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = isinstance(self.after, str) or not all(isinstance(name, str) and name for name in self.after)
        require(
            "dropout",
            self,
            rate=SHARE_BELOW_1,
            problems=(f"after = {self.after!r}: expected a list of module names",) if wrong else (),
        )

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the same model with dropout attached; at rate 0 unchanged.

        Raise `PluginError` where a name is not in the model, or the model has no linear layer to fall back on.
        """
        sites = matching(model, self.after or tuple(getattr(model, "dropout_sites", ())))
        before = [] if sites else [_last_linear(model)]
        if self.rate > 0:
            for module in sites:
                module.register_forward_hook(DropOutput(self.rate))
            for module in before:
                module.register_forward_pre_hook(DropInput(self.rate))
        return model


def _last_linear(model: nn.Module) -> nn.Module:
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise PluginError(
            f"dropout finds no linear layer in {type(model).__name__}", hint="name modules with the option `after`"
        )
    return linear[-1]
