"""Gradients of several batches that make one optimizer step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from benchkit_losses.cross_entropy import CrossEntropy
from engine_runs import make_run, make_settings, make_splits, unbalanced
from torch import nn

from benchkit import Batch
from benchkit.train.fit import fit
from benchkit.train.run import Plugins, build_run
from benchkit.train.step import take_gradients


class Wide(nn.Module):
    """A network without batch statistics, in float64."""

    def __init__(self, classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 6), nn.Tanh(), nn.Linear(6, classes))
        self.double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(images.double())
        return logits


@pytest.mark.parametrize("loss", [None, CrossEntropy(balanced=True)], ids=["usual", "weighted"])
def test_a_window_of_batches_has_the_gradient_of_all_its_images(loss: Any) -> None:
    splits = unbalanced((4, 3, 2, 1))
    gradients = []
    for size, accumulate in ((10, 1), (4, 2)):
        settings = make_settings(batch_size=size, accumulate=accumulate)
        plugins = Plugins(model=lambda classes, shape, _: Wide(classes, shape), norm=nn.BatchNorm2d, loss=loss)
        seeds = dict.fromkeys(("init", "order", "augment", "dropout"), 1)
        run = build_run(settings, splits, plugins, seeds=seeds, device="cpu")
        found = []
        for first, last in ((0, 8), (8, 10), (2, 9)):  # windows of 4 and 4, of 2, of 4 and 3
            batch = run.train.batch(run.train.batch_index(torch.arange(first, last)))
            value, logits = take_gradients(run, Batch(images=batch.images, targets=batch.targets.double()))
            assert logits.shape == (last - first, 4) and value.dtype == torch.float64
            found.append(torch.cat([value[None], *(p.grad.flatten() for p in run.parameters if p.grad is not None)]))
        gradients.append(torch.stack(found))
    assert (gradients[0] - gradients[1]).abs().max() < 1e-12


def test_a_schedule_counts_optimizer_steps_and_batch_norm_sees_single_batches() -> None:
    settings = make_settings(batch_size=16, accumulate=2, schedule={"name": "cosine"}, epochs=2)
    run = make_run(settings, make_splits(train=144))  # 9 batches: windows of 2, 2, 2, 2 and 1
    assert len(run.train) == 5 and run.train.images_per_epoch == 144
    assert len(list(fit(run))) == 2
    # Cosine over 10 steps, 0.05 (1 + cos(pi step / 10)) / 2 at the last step of each epoch.
    rates = [0.05 * (1 + np.cos(np.pi * step / 10)) / 2 for step in (4, 9)]
    assert [one.learning_rate for one in run.history] == pytest.approx(rates)
    tracked = [int(t) for name, t in run.model.state_dict().items() if name.endswith("num_batches_tracked")]
    assert tracked == [18]
    assert any("adds up the gradients of 2 batches of 16: layers that use a batch's" in note for note in run.notes)


def test_a_single_image_in_a_part_is_left_out() -> None:
    run = make_run(make_settings(batch_size=4, accumulate=2), make_splits(train=13))  # 4 and 4, 4 and 1
    assert run.train.images_per_epoch == 12 and len(run.train) == 2
    assert "the last batch of each epoch, a single image, is left out" in run.notes
