"""Interrupted and continued runs against uninterrupted ones, bit for bit, and files that cannot be trusted."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
import torch
from engine_runs import Flip, StopAfter, learnt, make_run, make_settings, plain_net
from safetensors.torch import load_file
from torch import nn

from benchkit import DataError, TrainingError
from benchkit.study.settings import Settings
from benchkit.train.checkpoint import MAGIC, load_checkpoint, save_checkpoint
from benchkit.train.evaluate import finish
from benchkit.train.fit import fit
from benchkit.train.processor import processor
from benchkit.train.run import Run
from benchkit.train.weights import load_weights, weights_of


def resumable(settings: Settings) -> Run:
    return make_run(settings, regularizers=[("flip", Flip()), ("stop", StopAfter(4))])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("cut", [1, 3, 4])
def test_a_continued_run_is_the_uninterrupted_one(tmp_path: Path, optimizer: str, precision: str, cut: int) -> None:
    settings = make_settings(
        epochs=6, precision=precision, optimizer={"name": optimizer, "lr": 0.01}, schedule={"name": "one-cycle"}
    )
    whole = resumable(settings)
    expected = [learnt(record) for record in fit(whole)]
    first = resumable(settings)
    for record in fit(first):
        save_checkpoint(tmp_path / "checkpoint", first)
        if record.epoch == cut:
            break
    second = resumable(settings)
    assert load_checkpoint(tmp_path / "checkpoint", second)
    assert [learnt(record) for record in second.history] == expected[:cut]
    assert [learnt(record) for record in fit(second)] == expected[cut:]
    left, right = finish(whole), finish(second)
    assert left.selected_epoch == right.selected_epoch
    assert left.metrics == right.metrics
    assert all((left.logits[split] == right.logits[split]).all() for split in ("val", "test"))
    states = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_each_epoch_names_where_it_was_trained_and_a_continued_run_keeps_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_run()
    monkeypatch.setattr("platform.node", lambda: "a")
    next(fit(first))
    threads = torch.get_num_threads()
    here = f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"
    save_checkpoint(tmp_path / "checkpoint", first)
    monkeypatch.setattr("platform.node", lambda: "b")
    monkeypatch.setattr("benchkit.train.fit.hardware_name", lambda device: "another card")
    second = make_run()
    assert load_checkpoint(tmp_path / "checkpoint", second)
    assert len(list(fit(second))) == 2
    assert [(record.device, record.node) for record in second.history] == [(here, "a"), *[("another card", "b")] * 2]


def test_the_best_epoch_so_far_is_kept_when_a_run_is_continued(tmp_path: Path) -> None:
    first = make_run()
    next(fit(first))
    first.best.score = 2.0  # no accuracy beats it
    weights = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    save_checkpoint(tmp_path / "checkpoint", first)
    second = make_run()
    assert load_checkpoint(tmp_path / "checkpoint", second)
    assert len(list(fit(second))) == 2
    assert finish(second).selected_epoch == 1
    scored = second.model.state_dict()
    assert all(torch.equal(scored[name], tensor) for name, tensor in weights.items())


def test_the_loss_scale_is_kept_when_a_run_is_continued(tmp_path: Path) -> None:
    settings = make_settings(precision="fp16")
    first, second = make_run(settings), make_run(settings)
    next(fit(first))
    scalers = first.precision.scaler, second.precision.scaler
    assert scalers[0] is not None and scalers[1] is not None
    scalers[0].update(512.0)
    steps = scalers[0].state_dict()["_growth_tracker"]
    assert steps == 5  # 80 images in batches of 16, none of which overflowed
    save_checkpoint(tmp_path / "checkpoint", first)
    load_checkpoint(tmp_path / "checkpoint", second)
    assert scalers[1].get_scale() == 512.0
    assert scalers[1].state_dict()["_growth_tracker"] == 5


def test_an_absent_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    run = make_run()
    assert not load_checkpoint(tmp_path / "checkpoint", run)
    assert run.notes == []


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_checkpoint_counts_as_absent(tmp_path: Path, damage: str) -> None:
    path, run = tmp_path / "checkpoint", make_run()
    next(fit(run))
    save_checkpoint(path, run)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    harmed = {"cut": content[:-9], "flip": content, "empty": b"", "foreign": b"hello" * 99}[damage]
    path.write_bytes(bytes(harmed))
    fresh = make_run()
    assert not load_checkpoint(path, fresh)
    assert fresh.history == [] and "was damaged" in fresh.notes[0]
    assert learnt(next(fit(fresh))) == learnt(run.history[0])


class Trap:
    """Pickles into a call that must never happen."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("executed",))


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"model": Trap()}, buffer)
    content = MAGIC + hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()
    (tmp_path / "checkpoint").write_bytes(content)
    run = make_run()
    assert not load_checkpoint(tmp_path / "checkpoint", run)
    assert not (tmp_path / "executed").exists() and "could not be read" in run.notes[0]


def test_a_failed_write_keeps_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, run = tmp_path / "checkpoint", make_run()
    next(fit(run))
    save_checkpoint(path, run)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk is gone")))
    with pytest.raises(OSError, match="disk is gone"):
        save_checkpoint(path, run)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_of_another_model_or_precision_is_refused(tmp_path: Path) -> None:
    path, run = tmp_path / "checkpoint", make_run()
    next(fit(run))
    save_checkpoint(path, run)
    with pytest.raises(TrainingError, match="belongs to another model"):
        load_checkpoint(path, make_run(model=plain_net))
    with pytest.raises(TrainingError, match="trained in float32, this run computes in bf16"):
        load_checkpoint(path, make_run(make_settings(precision="bf16")))


def test_weights_are_written_as_safetensors(tmp_path: Path) -> None:
    run = make_run()
    next(fit(run))
    (tmp_path / "weights.safetensors").write_bytes(weights_of(run))
    tensors, state = load_file(tmp_path / "weights.safetensors"), run.model.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)


def net(norm: type[nn.Module] = nn.BatchNorm2d, classes: int = 4, width: int = 8) -> nn.Sequential:
    layer = norm(2, width) if norm is nn.GroupNorm else norm(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), layer, nn.Flatten(), nn.Linear(width, classes))


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "wrapped.pt"])
def test_weights_are_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    given, path = net(), tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(given.state_dict(), path)
    elif suffix == "pth":
        torch.save(given.state_dict(), path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in given.state_dict().items()}}, path)
    model = net()
    notes = load_weights(model, path)
    assert notes[-1] == "9 of the model's 9 tensors came from that file"
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in notes[0]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in given.state_dict().items())


def test_another_number_of_classes_drops_the_classifier(tmp_path: Path) -> None:
    given, model = net(classes=1000), net()
    fresh = model[3].weight.detach().clone()
    torch.save(given.state_dict(), tmp_path / "w.pth")
    notes = load_weights(model, tmp_path / "w.pth")
    assert "the classifier 3 starts afresh: the file's has 1000 outputs, ours 4" in notes
    assert torch.equal(model[3].weight, fresh) and torch.equal(model[0].weight, given[0].weight)


@pytest.mark.parametrize("norm", [nn.GroupNorm, nn.Identity])
def test_another_norm_keeps_the_convolutions(tmp_path: Path, norm: type[nn.Module]) -> None:
    given, model = net(), net(norm)
    torch.save(given.state_dict(), tmp_path / "w.pth")
    notes = load_weights(model, tmp_path / "w.pth")
    assert any("norms of another kind" in note for note in notes)
    assert torch.equal(model[0].weight, given[0].weight) and torch.equal(model[3].weight, given[3].weight)


def test_other_misfits_are_counted_and_some_are_named(tmp_path: Path) -> None:
    given = net(width=6)
    torch.save({**given.state_dict(), "extra.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(DataError) as caught:
        load_weights(net(), tmp_path / "w.pth")
    assert "0.weight: (6, 3, 3, 3) in the file, (8, 3, 3, 3) in the model" in caught.value.problems
    assert "extra.weight: in the file, not in the model" in caught.value.problems
    # The norm's count of batches and the classifier's bias: all other tensors of both layers have another width.
    assert caught.value.what.endswith("do not fit the model: 2 of its 9 tensors match")
    torch.save({f"layer{number}.weight": torch.zeros(2, 2) for number in range(50)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="0 of its 9 tensors match") as caught:
        load_weights(net(), tmp_path / "w.pth")
    assert len(str(caught.value)) < 1000


def test_unreadable_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, words in (("trap.pth", "cannot be read"), ("broken.safetensors", "cannot be read"), ("list.pth", "list")):
        with pytest.raises(DataError, match=words):
            load_weights(net(), tmp_path / name)
    with pytest.raises(DataError, match="no weights at"):
        load_weights(net(), tmp_path / "absent.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(DataError, match="are an empty file"):
        load_weights(net(), tmp_path / "empty.pth")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46800000\n"
    (tmp_path / "pointer.safetensors").write_text(pointer)
    with pytest.raises(DataError, match="are a pointer of Git LFS") as caught:
        load_weights(net(), tmp_path / "pointer.safetensors")
    assert "git lfs pull" in caught.value.hint
    assert not (tmp_path / "executed").exists()


def test_a_run_starts_from_the_weights_that_the_study_names(tmp_path: Path) -> None:
    source = make_run(make_settings(seed=1))
    (tmp_path / "w.safetensors").write_bytes(weights_of(source))
    run = make_run(make_settings(weights=str(tmp_path / "w.safetensors")))
    assert torch.equal(run.model.state_dict()["0.weight"], source.model.state_dict()["0.weight"])
    assert "started from the weights w.safetensors" in run.notes[0]
