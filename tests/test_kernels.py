"""How many kernels a GPU launches for a training step: small networks are bound by their number.

Counted on the stand-in: each operation that computes is a kernel, some are more. A number here may fall, and then is to
be lowered; it must not creep up.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from benchkit_models.basenet import basenet
from benchkit_models.mlp import mlp
from benchkit_models.net3 import net3
from benchkit_models.resnet import resnet
from benchkit_models.skipnet import skipnet
from benchkit_models.timm_models import timm_model
from benchkit_norms.batch import BatchNorm
from benchkit_norms.batch_instance import BatchInstanceNorm
from benchkit_norms.group import GroupNorm
from benchkit_norms.identity import Identity
from benchkit_norms.instance import InstanceNorm
from benchkit_norms.layer import LayerNorm
from benchkit_regularizers.crop_flip import CropFlip
from engine_runs import make_run, make_settings, make_splits
from torch import nn

from benchkit.testing.stand_in_gpu import Operation, Tape, stand_in_gpu
from benchkit.train.steps.executor import executor_for

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


def kernels_of(operation: Operation) -> int:
    """Return how many kernels an operation is taken to be."""
    name = operation.function.overloadpacket.__name__
    if name == "convolution_backward":
        return sum(map(bool, operation.args[-1]))
    return 0 if name in FREE else SEVERAL.get(name, 1)


def kernels(tape: Tape) -> Counter[str]:
    found: Counter[str] = Counter()
    for operation in tape.operations:
        found[operation.function.overloadpacket.__name__] += kernels_of(operation)
    return found


def kernels_of_a_step(model: Any, norm: Any = nn.BatchNorm2d, shape: tuple[int, int] = (3, 32), **train: Any) -> int:
    channels, side = shape
    settings = make_settings(
        **{"epochs": 2, "batch_size": 4, "precision": "bf16", "optimizer": {"lr": 2**-10}, "compile": "never", **train}
    )
    augment = [("crop-flip", CropFlip())] if channels == 3 else []
    splits = make_splits(train=4, val=4, test=4, channels=channels, side=side)
    run = make_run(settings, splits, lambda classes, shape, _: model(classes, shape, norm), augment)
    run.model.train()
    with stand_in_gpu() as gpu:
        executor_for(run, gpu)
        assert run.notes == [] and gpu.tape is not None
        return sum(kernels(gpu.tape).values())


RESNET = partial(resnet, n=2)
COUNTS: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet-14": (228, {"model": RESNET}),
    "resnet-14 bn": (228, {"model": RESNET, "norm": BatchNorm}),
    "resnet-14 bin": (488, {"model": RESNET, "norm": BatchInstanceNorm}),
    "resnet-14 gn": (319, {"model": RESNET, "norm": GroupNorm}),
    "resnet-14 in": (319, {"model": RESNET, "norm": InstanceNorm}),
    "resnet-14 ln": (319, {"model": RESNET, "norm": LayerNorm}),
    "resnet-14 none": (163, {"model": RESNET, "norm": Identity}),
    "resnet-14 adam": (229, {"model": RESNET, "optimizer": {"name": "adam", "lr": 2**-10}}),
    "resnet-14 fp16": (239, {"model": RESNET, "precision": "fp16"}),
    "resnet-14 float32": (195, {"model": RESNET, "precision": "float32"}),
    "mlp": (60, {"model": mlp, "shape": (1, 28)}),
    "net3": (185, {"model": net3}),
    "basenet": (287, {"model": basenet}),
    "skipnet-16": (373, {"model": partial(skipnet, depth=16)}),
    "resnet-18": (305, {"model": partial(timm_model, variant="resnet18", stem="cifar")}),
}
"""Kernels of a recorded step, images fetched, cropped, flipped and learnt from; one of them writes the summary."""


@pytest.mark.parametrize(("most", "given"), COUNTS.values(), ids=COUNTS)
def test_a_step_has_no_more_kernels_than_it_had(most: int, given: dict[str, Any]) -> None:
    assert kernels_of_a_step(**given) <= most


def test_views_and_room_are_no_kernels_and_backward_passes_are_several() -> None:
    """A convolution, counted by hand: forward one, backward one for the weight, none for images that ask for none."""
    layer, images = nn.Conv2d(3, 4, 3, bias=False), torch.rand(2, 3, 8, 8)
    with stand_in_gpu() as gpu:

        def work() -> None:
            total = layer(images.view(2, 3, 8, 8)).sum()
            total.backward()

        gpu.capture(work, ())
        assert gpu.tape is not None
        counted = kernels(gpu.tape)
    assert counted["convolution"] == 1 and counted["convolution_backward"] == 1 and counted["sum"] == 1
    assert not set(counted) & FREE or all(counted[name] == 0 for name in FREE)
