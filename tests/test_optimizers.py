"""The optimizer step, whatever layout in memory a plugin leaves gradients in."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from engine_runs import learnt, make_run, make_settings
from torch import nn

from benchkit.train.fit import fit


class Replace:
    """Puts an equal gradient of another layout in the place of each."""

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad = parameter.grad.clone(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_plugin_may_leave_gradients_in_another_layout(name: str) -> None:
    settings = make_settings(optimizer={"name": name, "lr": 0.01})
    plain, replaced = make_run(settings), make_run(settings, regularizers=[("replace", Replace())])
    assert not plain.model[0].weight.is_contiguous()  # type: ignore[index,union-attr,operator]
    assert [learnt(record) for record in fit(plain)] == [learnt(record) for record in fit(replaced)]
