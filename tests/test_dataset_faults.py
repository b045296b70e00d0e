"""What a data set of a stranger does wrong is one error that names it, its file and what to do, before training."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_study

from benchkit.errors import DataError
from benchkit.study import Study

PLUGIN = """
import numpy as np
from benchkit.preparation import About, prepare


def odd(root):
    def build(draft):
        for split, count in (("train", 60), ("test", 30)):
            labels = np.arange(count) % 3
            images = np.random.default_rng(0).integers(0, 255, (count, 8, 8, 1)).astype(np.uint8)
            FAULT
            draft.write(split, images=images, labels=labels)
        return About(class_names=NAMES, licence="CC0", citation="x")

    RETURN


PLUGINS = {"benchkit.datasets": {"odd": odd}}
"""
HINT = "`benchkit plugins check odd` tries the plugin of odd.py"


class Telling(tiny_study.Listener):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, words: str) -> None:
        self.said.append(words)


def swept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str = "pass", names: str = '("a", "b", "c")',
    returned: str = 'return prepare(root, "odd", build)', sizes: str = "",
) -> list[str]:  # fmt: skip
    path = folder / "odd.py"
    path.write_text(
        PLUGIN.replace("FAULT", fault).replace("NAMES", names).replace("RETURN", returned), encoding="utf-8"
    )
    view = Telling()
    tiny_study.sweep_here(
        monkeypatch, folder / "runs", study(sizes), plugins=(path,), data_root=folder / "data", view=view
    )
    return view.said


def study(sizes: str = "") -> Study:
    text = tiny_study.text_of(epochs=1, repeats=1)
    digits = 'name = "digits"\ntrain_size = 60\nval_size = 30\ntest_size = 30\n'
    return tiny_study.parse_study(text.replace(digits, f'name = "odd"\nval_size = 12\n{sizes}'), name="tiny")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("images = images / 255.0", "odd: train: images are float64 (60, 8, 8, 1), expected uint8 (N, H, W, C)"),
        ("labels = labels[:-1]", "odd: train: 60 images but 59 labels"),
        ("labels = labels + 1", "odd: the data set is not complete"),
        ('raise OSError("disk on fire")', "odd: OSError: disk on fire (odd.py:11, in build)"),
        ("images = images[0, 0, 0, 0, 0]", "odd: IndexError: too many indices"),
        ("raise SystemExit(3)", "odd: SystemExit: 3 (odd.py:11, in build)"),
    ],
)
def test_a_fault_names_the_data_set_and_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    with pytest.raises(DataError) as caught:
        swept(tmp_path, monkeypatch, fault)
    assert caught.value.what.startswith(told) and caught.value.hint == HINT
    if "complete" in told:
        assert caught.value.problems == tuple(
            f"{split}: labels 1..3, expected 0..2 for 3 classes" for split in ("train", "test")
        )


def test_what_the_system_refuses_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="No space left"):
        swept(tmp_path, monkeypatch, 'raise OSError(28, "No space left on device")')


def test_what_is_no_splits_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError) as caught:
        swept(tmp_path, monkeypatch, returned='return {"train": 1}')
    assert caught.value.what == "odd: it returned a dict, expected benchkit.Splits" and caught.value.hint == HINT


def test_too_few_images_are_no_fault_of_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError) as caught:
        swept(tmp_path, monkeypatch, sizes="train_size = 49\n")
    assert caught.value.what == "odd: the data set has fewer images than the study asks for"
    assert caught.value.problems == ("data.train_size = 49: there are 48 images to draw from",)
    assert "ask for fewer" in caught.value.hint and "data.val_fraction is its share" in caught.value.hint


def test_a_class_without_images_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = swept(tmp_path, monkeypatch, names='("a", "b", "c", "d")')
    assert "warning: odd: train has no image of d; test has no image of d" in told


def test_validation_images_that_tear_groups_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = swept(tmp_path, monkeypatch, "draft.group(split, np.arange(count) // 10)")
    assert next(line for line in told if "same groups" in line).startswith("warning: odd: Validation images are drawn")
    (tmp_path / "plain").mkdir()
    assert not any("same groups" in line for line in swept(tmp_path / "plain", monkeypatch))
