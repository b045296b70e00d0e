"""What a training step asks of a device at the least: kernels, floating-point operations, bytes read and written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchkit.results import FORWARD_PASSES

FREE = frozenset(
    "view _unsafe_view t transpose permute expand slice select split unbind alias detach as_strided unsqueeze squeeze "
    "reshape empty empty_like empty_strided new_empty new_empty_strided split_with_sizes diagonal resize_ set_ narrow "
    "view_as _reshape_alias".split()
)
"""Operations that make room, or another view of what is there."""

SEVERAL = {
    "native_batch_norm": 2,
    "native_batch_norm_backward": 2,
    "native_group_norm": 2,
    "native_group_norm_backward": 2,
    "_foreach_norm": 2,
    "sort": 2,
}
"""Operations of more than one kernel."""


def kernels_of(function: Any, args: Sequence[Any]) -> int:
    """Return how many kernels an operation is taken to be."""
    name = function.overloadpacket.__name__
    if name == "convolution_backward":
        return sum(map(bool, args[-1]))
    return 0 if name in FREE else SEVERAL.get(name, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """A training step: its floating-point operations, and its kernels and bytes by operation.

    `flops` are two for each multiplication with its addition, three times those of the forward pass. Bytes are those of
    each operation's inputs and outputs, each once an operation.
    """

    flops: int
    kernels_by_name: Mapping[str, int]
    bytes_by_name: Mapping[str, int]

    @property
    def kernels(self) -> int:
        """Return how many there are."""
        return sum(self.kernels_by_name.values())

    @property
    def bytes(self) -> int:
        """Return how many are read and written."""
        return sum(self.bytes_by_name.values())


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations while it is on; a floating-point number has `bytes_of_a_number` of them."""

    def __init__(self, bytes_of_a_number: int) -> None:
        """Count nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = bytes_of_a_number
        self.kernels: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        results = function(*args, **(kwargs or {}))
        if kernels := kernels_of(function, args):
            name = function.overloadpacket.__name__
            self.kernels[name] += kernels
            read = {id(one): one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
            written = {id(one): one for one in tree_leaves(results) if isinstance(one, torch.Tensor)}
            if not written and function._schema.is_mutable:  # such as _foreach_add_, which gives nothing back
                written = {id(one): one for one in tree_leaves(args[0]) if isinstance(one, torch.Tensor)}
            self.bytes[name] += sum(map(self._bytes, [*read.values(), *written.values()]))
        return results

    def _bytes(self, tensor: torch.Tensor) -> int:
        """Return those of a tensor, of one that repeats its numbers only those that are there."""
        there = tensor.untyped_storage().nbytes() // tensor.element_size()
        each = self.number if tensor.is_floating_point() else tensor.element_size()
        return min(tensor.numel(), there) * each


def counted_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, bytes_of_a_number: int) -> StepCounts:
    """Return the counts of an eager float32 step on normalised images (N, C, H, W): forward, backward, plain SGD.

    Its bytes are told as in a precision whose numbers have `bytes_of_a_number` each; labels, int64 (N,), keep theirs.
    """
    model.train()
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        model(images)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01) if parameters else None
    with Counting(bytes_of_a_number) as counting:
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if optimizer:
            optimizer.step()
    return StepCounts(
        flops=FORWARD_PASSES * int(forward.get_total_flops()),
        kernels_by_name=dict(counting.kernels),
        bytes_by_name=dict(counting.bytes),
    )


def limit_of(flops: float, size: float, matrix_rate: float, copy_rate: float) -> float:
    """Return the least seconds of a step: its operations at the one rate or its bytes at the other, whichever is more.

    The roofline (Williams, Waterman and Patterson, Roofline: an insightful visual performance model, Communications of
    the ACM 52(4), 2009).
    """
    return max(flops / matrix_rate, size / copy_rate) if matrix_rate and copy_rate else math.nan
