"""Which optimizers of timm and PyTorch are offered, and why others are not: each tried for six steps, with a break.

    python tests/peers/optimizer_table.py

It writes plugins/benchkit_optimizers/table.py, which the plugins read, and docs/optimizers.md.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from pathlib import Path

import timm
import timm.optim
import torch

from benchkit.testing import optimizer_fault

ROOT = Path(__file__).parents[2]
REASONS = {
    "torch:LBFGS": "asks for a closure, which it calls several times a step",
    "torch:SparseAdam": "is for sparse gradients alone",
    "torch:Muon": "takes matrices alone, and convolutions are none: timm:muon takes them",
}


def reason_of(name: str) -> str:
    """Return why an optimizer is not offered, or an empty string."""
    family, _, variant = name.partition(":")
    if name in REASONS:
        return REASONS[name]
    if family == "timm":
        if variant.startswith(("bnb", "fused")):
            return "needs a package for CUDA beside timm"
        if variant.startswith("kron"):
            return "compiles code inside its step, and does not go on to the bit after a break"
        if timm.optim.get_optimizer_info(variant).second_order:
            return "needs second derivatives"
        make = functools.partial(timm.optim.create_optimizer_v2, opt=variant, lr=1e-3, filter_bias_and_bn=False)
    else:
        make = functools.partial(getattr(torch.optim, variant), lr=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optimizer_fault(make)


LIKE_SGD = ("sgd", "momentum", "nesterov")
"""Names of plain gradient steps start like these; the libraries' own rate, 0.001 or none, is none to begin with."""


def rate_of(name: str) -> float | None:
    """Return the learning rate to begin with: the library's own default, or benchkit's for plain gradient steps."""
    family, _, variant = name.partition(":")
    if variant.lower().removeprefix("c").startswith(LIKE_SGD):
        return 0.1
    kind = timm.optim.get_optimizer_class(variant, bind_defaults=False) if family == "timm" else None
    rate = inspect.signature(kind or getattr(torch.optim, variant)).parameters["lr"].default
    return float(rate) if isinstance(rate, int | float) else None


def main() -> None:
    """Try all and write what came of it."""
    torch.set_num_threads(1)
    names = [f"timm:{name}" for name in timm.optim.list_optimizers()]
    kinds = {name: kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    names += [f"torch:{name}" for name in sorted(kinds) if name != "Optimizer"]
    found = {name: reason_of(name) for name in names}
    offered = {name: rate_of(name) for name, reason in found.items() if not reason}
    refused = {name: reason for name, reason in found.items() if reason}
    versions = {"timm": f"timm {timm.__version__}", "torch": f"PyTorch {torch.__version__.partition('+')[0]}"}
    lines = ['"""What `make optimizer-table` found: names offered, each with a rate to begin with, or why not."""', "",
             f"VERSIONS = {versions!r}", "", f"OFFERED = {offered!r}", "", f"REFUSED = {refused!r}", ""]  # fmt: skip
    (ROOT / "plugins/benchkit_optimizers/table.py").write_text("\n".join(lines).replace("'", '"'))
    rates = {name: f"offered | {offered[name] or ''}".rstrip() for name in offered}
    rows = [f"| `{name}` | {rates.get(name) or f'{reason} |'} |" for name, reason in found.items()]
    head = (
        "# Optimizers\n\n`train.optimizer` names `sgd`, `adam` and `adamw`, which are benchkit's own, a plugin "
        "([one of yours](how-to/own-plugin.md)), or one "
        f"of these.\nMade by `make optimizer-table` with {versions['timm']} and {versions['torch']}; {len(offered)} of "
        f"{len(found)} are offered. The rate is the one to\nbegin with: the library's own default (0.1 for plain "
        "gradient steps); look for it from a hundredth to ten times that.\n\nThe regularizer `weight-decay` gives each "
        "its own `weight_decay`. Whether that joins the gradient, as an L2 penalty does, or is\ndecoupled from it, as "
        "in `adamw` and `timm:lion`, is the library's choice: a strength does not carry over from one to the other.\n\n"
        "| name | | rate |\n|---|---|---|\n"
    )
    (ROOT / "docs/optimizers.md").write_text(head + "\n".join(rows) + "\n")
    print(f"{len(offered)} offered, {len(refused)} refused")


if __name__ == "__main__":
    main()
