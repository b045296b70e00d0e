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
from step_counts import FREE, counted_step, kernels_of
from torch import nn

from benchkit.testing.stand_in_gpu import Tape, stand_in_gpu
from benchkit.train.steps.executor import executor_for


def kernels(tape: Tape) -> Counter[str]:
    found: Counter[str] = Counter()
    for operation in tape.operations:
        found[operation.function.overloadpacket.__name__] += kernels_of(operation.function, operation.args)
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


def test_a_step_is_counted_as_by_hand() -> None:
    """A layer without bias, 4 images of 6 numbers to 5 classes, plain SGD: the products of matrices, by hand."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5, bias=False))
    images, labels = torch.rand(4, 1, 2, 3), torch.tensor([0, 1, 2, 3])
    found = counted_step(model, images, labels, bytes_of_a_number=2)
    assert found.flops == 3 * 2 * 4 * 6 * 5
    # Forward 24 + 30 read, 20 written; backward, for the weight alone, 20 + 24 read, 30 written.
    products = {"mm": 2 * (24 + 30 + 20) + 2 * (20 + 24 + 30)}
    assert {name: found.bytes_by_name[name] for name in products} == products
    # The loss reads labels of eight bytes each, whatever the precision: 20 numbers, 4 labels, then two results.
    assert found.bytes_by_name["nll_loss_forward"] == 2 * 20 + 8 * 4 + 2 * 2
    assert found.bytes_by_name["_log_softmax"] == 2 * (20 + 20) and "view" not in found.bytes_by_name
    assert found.kernels == sum(found.kernels_by_name.values()) and found.kernels_by_name["mm"] == 2
    assert counted_step(model, images, labels, bytes_of_a_number=4).flops == found.flops


def test_what_is_read_twice_by_one_operation_counts_once() -> None:
    class Squared(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            flat = images.flatten(1)
            return flat * flat

    found = counted_step(Squared(), torch.rand(2, 1, 2, 2).requires_grad_(), torch.tensor([0, 1]), bytes_of_a_number=4)
    # Forward: 8 numbers read once and 8 written. Backward: the gradient times 8 numbers, for each factor.
    assert found.bytes_by_name["mul"] == 4 * (8 + 8) + 2 * 4 * (8 + 8 + 8)
