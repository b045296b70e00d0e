"""The first step of each training is taken beforehand, and a plugin that fails in it is told by name and hook."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_study

from benchkit.errors import TrainingError
from benchkit.ledger import Ledger
from benchkit.plan import make_plan
from benchkit.results import FINISHED
from benchkit.sweep.rehearsal import FEW

HEAD = """
from dataclasses import dataclass

import torch
from torch import nn

from benchkit import Batch


"""
REGULARIZER = (
    "@dataclass(frozen=True)\nclass Odd:\n    p: float = 0.1\n\n    BODY\n\n\n"
    'PLUGINS = {"benchkit.regularizers": {"odd": Odd}}\n'
)
FROZEN = "@dataclass(frozen=True)\nclass Odd:\n"
NAMED = '[[regularizers]]\nname = "odd"\n'
WHOLE = 20
"""The batch size of the tiny study."""


WHERE = {
    "loss": ("[train]\n", '[train]\nloss = "odd"\n'),
    "schedule": ("[train]\n", '[train]\nschedule = "odd"\n'),
    "optimizer": ('"sgd"', '"odd"'),
    "model": ('name = "mlp"\nhidden = [8]', 'name = "odd"'),
    "norm": ('name = "mlp"\nhidden = [8]', 'name = "resnet"\nnorm = "odd"'),
    "regularizer": ("[train]\n", '[[regularizers]]\nname = "odd"\n[train]\n'),
}
"""How the tiny study names a plugin of each kind."""


def problems_of(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, kind: str) -> tuple[str, ...]:
    """Return what a sweep says is wrong; fail where it trained anything."""
    path = folder / "odd.py"
    path.write_text(HEAD + source, encoding="utf-8")
    study = tiny_study.parse_study(tiny_study.text_of(epochs=2, repeats=1).replace(*WHERE[kind]), name="tiny")
    with pytest.raises(TrainingError) as caught:
        tiny_study.sweep_here(monkeypatch, folder / "runs", study, plugins=(path,))
    assert not any(trial.state in FINISHED for trial in Ledger(folder / "runs").trials(make_plan(study)))
    return caught.value.problems


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("def augment(self, batch): return batch",
         "the regularizer 'odd', augment: TypeError: Odd.augment() takes 2 positional arguments but 3 were given"),
        ("def augment(self, batch, generator): return batch.images",
         "the regularizer 'odd', augment: returned float32 (20, 1, 8, 8), expected a Batch"),
        ("def augment(self, batch, generator): return Batch(images=batch.images, targets=batch.targets.argmax(1))",
         "the regularizer 'odd', augment: returned targets int64 (20,), expected float32 (20, 10)"),
        ("def penalty(self, model): sum(w.abs().sum() for w in model.parameters())",
         "the regularizer 'odd', penalty: returned None, expected a scalar tensor"),
        ("def loss(self, loss, logits, targets): return logits.sum(1)",
         "the regularizer 'odd', loss: returned float32 (20,), expected a scalar tensor"),
        ("def clip(self, parameters): raise KeyError('rate')",
         "the regularizer 'odd', clip: KeyError: 'rate' (odd.py:14, in Odd.clip)"),
        ("def after_step(self, model): return model.nothing",
         "the regularizer 'odd', after_step: AttributeError: 'MLP' object has no attribute 'nothing'"),
        ("def around_step(self, parameters, again): again(1)",
         "the regularizer 'odd', around_step: TypeError: "),
        ("def optimizer_options(self): return {'weight_decy': 0.1}",
         "the optimizer 'sgd' cannot be made: SGD.__init__() got an unexpected keyword argument 'weight_decy'"),
        ("def start(self, model, steps, epochs): return {'t': 0}\n\n    def clip(self, parameters, state): return",
         "the regularizer 'odd', start: returned a dict, expected a torch.nn.Module or what has state_dict"),
        ("def averaged(self, model): return {'wieght': torch.zeros(3)}",
         "the regularizer 'odd', averaged: returned no "),
        ("def prepare(self, model): return None",
         "the regularizer 'odd', prepare: returned a NoneType, expected a torch.nn.Module"),
    ],
)  # fmt: skip
def test_a_regularizer_that_fails_in_the_first_step_is_told_with_its_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    (problem,) = problems_of(tmp_path, monkeypatch, REGULARIZER.replace("BODY", body), "regularizer")
    assert told.removesuffix(")") in problem and "data.image_size" not in problem


@pytest.mark.parametrize(
    ("kind", "source", "told"),
    [
        ("schedule", FROZEN + "    def start(self, lr, steps_per_epoch, epochs):\n        return lambda step: None\n",
         "the schedule 'odd' in step 1 of 6 gives None: expected a finite rate, 0 at least"),
        ("optimizer", "class Steps(torch.optim.SGD):\n    def step(self):\n        raise ValueError('oops')\n\n\n"
         "def Odd(groups, lr, /):\n    return Steps(groups, lr=lr)\n",
         "the optimizer 'odd', step: ValueError: oops (odd.py:12, in Steps.step)"),
        ("loss", FROZEN + "    def __call__(self, logits, targets):\n        return logits.detach().square().mean()\n",
         "its loss returns a tensor without a gradient"),
        ("loss", FROZEN + "    def __call__(self, logits, targets):\n        return logits.nothing\n",
         "it cannot be trained by its loss: AttributeError: 'Tensor' object has no attribute 'nothing' (odd.py:13, in "
         "Odd.__call__)"),
        ("model", "def Odd(num_classes, image_shape, norm, /):\n    nn.Linear(64, num_classes)\n",
         "the model 'odd': returned a NoneType, expected a torch.nn.Module"),
        ("norm", "class Odd(nn.Module):\n    def __init__(self, num_channels):\n        super().__init__()\n\n"
         "    def forward(self, x):\n        return x.mean((2, 3))\n",
         "the norm 'odd': returned float32 (2, 16), expected float32 (2, 16, 8, 8) as it was given"),
    ],
)  # fmt: skip
def test_so_is_any_other_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str, told: str
) -> None:
    kinds = {"loss": "losses"}.get(kind, f"{kind}s")
    source += f'\n\nPLUGINS = {{"benchkit.{kinds}": {{"odd": Odd}}}}\n'
    (problem,) = problems_of(tmp_path, monkeypatch, source, kind)
    assert told in problem and "data.image_size" not in problem


def test_what_does_with_the_studys_batches_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A regularizer may need more images than are tried first; it is refused where the study's are too few as well."""
    source = "def augment(self, batch, generator):\n        assert len(batch.images) > NUMBER\n        return batch"
    path = tmp_path / "odd.py"
    path.write_text(HEAD + REGULARIZER.replace("BODY", source.replace("NUMBER", str(FEW))), encoding="utf-8")
    study = tiny_study.study_of(NAMED, epochs=1, repeats=1)
    assert tiny_study.sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(path,)) == {"done": 1}
    body = REGULARIZER.replace("BODY", source.replace("NUMBER", str(WHOLE)))
    (problem,) = problems_of(tmp_path, monkeypatch, body, "regularizer")
    assert "the regularizer 'odd', augment: AssertionError: " in problem
