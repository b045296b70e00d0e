"""What figures are shown of a model while it trains, and that looking changes nothing."""

from __future__ import annotations

import numpy as np
import torch
from engine_runs import learnt, make_run
from torch import nn

from benchkit.train.evaluate import finish, inspect, spread
from benchkit.train.fit import fit


class Watching:
    """A figure that observes and inspects, and uses up random numbers while it does."""

    def observe(self, model: nn.Module, images: torch.Tensor) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        torch.rand(3)
        return {"images": float(len(images)), "channels": float(images.shape[1])}

    def inspect(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
        images = images.clone().requires_grad_()
        model(images).sum().backward()
        assert images.grad is not None
        return {"labels_seen": labels.cpu().numpy()}


def test_observing_changes_no_number() -> None:
    watched, alone = make_run(figures=[("watching", Watching())]), make_run()
    records = list(fit(watched))
    assert [learnt(record) for record in records] == [learnt(record) for record in fit(alone)]
    assert records[0].observed == {"watching.images": float(len(watched.val)), "watching.channels": 3.0}


def test_inspecting_takes_arrays_originals_and_labels_and_leaves_no_gradient() -> None:
    run = make_run(figures=[("watching", Watching()), ("blind", object())])
    list(fit(run))
    finish(run)
    found = inspect(run)
    assert list(found) == ["watching"]
    np.testing.assert_array_equal(found["watching"]["labels"], run.test.labels.numpy())
    np.testing.assert_array_equal(found["watching"]["labels_seen"], run.test.labels.numpy())
    np.testing.assert_array_equal(found["watching"]["images"], run.test.images[run.test.rows].numpy())
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_positions_are_spread_from_the_first_image_to_the_last() -> None:
    run = make_run()
    assert spread(run.test, 3).tolist() == [0, round((len(run.test) - 1) / 2), len(run.test) - 1]
    assert spread(run.test, 999).tolist() == list(range(len(run.test)))
