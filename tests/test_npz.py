"""Arrays in an npz file: MedMNIST's layout, what is kept of it, and what is refused by name."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchkit_datasets.npz import npz

from benchkit import DataError
from benchkit.cli import main

RNG = np.random.default_rng(3)


def arrays(train: int = 24, val: int = 6, test: int = 9, *, shape: tuple[int, ...] = (7, 5)) -> dict[str, np.ndarray]:
    """Return random images and the labels 0, 1, 2 in turn, as MedMNIST has them: uint8 (N, 1)."""
    found = {}
    for split, count in (("train", train), ("val", val), ("test", test)):
        found[f"{split}_images"] = RNG.integers(0, 256, (count, *shape), dtype=np.uint8)
        found[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    return found


def saved(folder: Path, **changed: Any) -> Path:
    np.savez_compressed(folder / "set.npz", **{**arrays(), **changed})
    return folder / "set.npz"


def test_medmnist_layout_is_kept(tmp_path: Path) -> None:
    for shape, channels in (((7, 5), 1), ((7, 5, 1), 1), ((7, 5, 3), 3)):
        given = arrays(shape=shape)
        file = saved(tmp_path, **given)
        splits = npz(tmp_path / "root", source=file)
        assert splits.class_names == ("0", "1", "2") and splits.notes == ()
        assert splits.val is not None
        for name, split in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
            assert split.images.shape == (len(given[f"{name}_images"]), 7, 5, channels)
            np.testing.assert_array_equal(split.images, given[f"{name}_images"].reshape(split.images.shape))
            assert split.labels.dtype == np.int64
            assert split.labels.tolist() == given[f"{name}_labels"][:, 0].tolist()


def test_no_more_than_some_images_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchkit_datasets.npz._AT_ONCE", 1 << 18)
    many = np.zeros((4000, 64, 64), np.uint8)  # 16 MB
    many[:, 0, 0], many[:, 0, 1] = np.arange(4000) % 256, np.arange(4000) // 256
    others = arrays(val=3, test=3, shape=(64, 64))
    file = saved(tmp_path, **{**others, "train_images": many, "train_labels": np.arange(4000) % 3})
    del many
    tracemalloc.start()
    try:
        splits = npz(tmp_path / "root", source=file)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert splits.train.images[3000, 0, :2, 0].tolist() == [3000 % 256, 3000 // 256]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_labels": np.zeros((24, 14), np.uint8)}, "train_labels: multi-label: 14 labels an image"),
        ({"train_images": np.zeros((24, 28, 28, 28), np.uint8)}, r"three-dimensional volumes \(28, 28, 28\)"),
        ({"train_images": np.zeros((24, 9, 8, 7, 1), np.uint8)}, "three-dimensional volumes"),
        ({"train_images": np.zeros((24, 3, 8, 9), np.uint8)}, r"channels come last here: save np\.moveaxis"),
        ({"train_images": np.uint8(7)}, r"train_images: uint8 \(\), expected uint8 \(N, H, W\)"),
        ({"train_images": np.zeros((24, 8, 9, 5), np.uint8)}, r"expected uint8 \(N, H, W\)"),
        ({"train_images": np.zeros((24, 8, 9), np.float32)}, "train_images: float32"),
        ({"train_images": np.asfortranarray(np.zeros((24, 8, 9), np.uint8))}, "Fortran's order"),
        ({"train_images": np.zeros((0, 8, 9), np.uint8)}, "no images"),
        ({"train_labels": np.zeros(24)}, "train_labels: float64"),
        ({"train_labels": np.zeros(23, int)}, "train: 24 images but 23 labels"),
        ({"test_labels": np.full(9, 3)}, "test_labels: 3, where train has the classes 0 to 2"),
        ({"train_labels": np.array([-1] + [2] * 23)}, "train_labels: -1, where"),
        ({"test_labels": np.array([None] * 9)}, "test_labels: it holds pickled objects, which are not read"),
        ({"train_images": np.array([None] * 24)}, "train_images: it holds pickled objects"),
        ({"test_images": np.zeros((9, 8, 5), np.uint8)}, "differ between splits"),
    ],
)
def test_what_is_no_set_of_flat_images_with_one_class_each_is_refused(
    changed: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        npz(tmp_path / "root", source=saved(tmp_path, **changed))


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros(3), train_images=np.zeros((2, 3, 3)), val_labels=np.zeros((2, 2)))
    with pytest.raises(DataError) as caught:
        npz(tmp_path / "root", source=tmp_path / "a.npz")
    text = str(caught.value)
    for name in ("train_labels", "val_images", "test_images", "test_labels"):
        assert f"no array {name}" in text
    assert "train_images: float64 (2, 3, 3)" in text and "it also holds x_train" in text and "multi-label" in text
    with pytest.raises(DataError, match=r"data\.source"):
        npz(tmp_path / "root")
    with pytest.raises(DataError, match=r"a\.npz.*(?s:.*)no array"):
        npz(tmp_path / "root", source=tmp_path / "a.npz")


def test_absent_classes_and_shared_images_are_noted(tmp_path: Path) -> None:
    given = arrays()
    given["train_labels"][given["train_labels"] == 1] = 0
    given["val_labels"][:] = 0
    given["test_images"][0] = given["train_images"][5]
    splits = npz(tmp_path / "root", source=saved(tmp_path, **given))
    assert splits.notes == (
        "Classes without an image in train: 1.",
        "Classes without an image in val: 1, 2.",
        "Images of test that are also in train, pixel for pixel: 1.",
    )


def test_classes_may_be_named(tmp_path: Path) -> None:
    file = saved(tmp_path)
    splits = npz(tmp_path / "root", source=file, class_names=("a", "b", "c"))
    assert splits.class_names == ("a", "b", "c")
    with pytest.raises(DataError, match="class_names are 2, but train has the classes 0 to 2"):
        npz(tmp_path / "root", source=file, class_names=("a", "b"))


def test_changed_files_are_read_again_and_gone_ones_served(tmp_path: Path) -> None:
    file = saved(tmp_path)
    first = npz(tmp_path / "root", source=file).fingerprint
    saved(tmp_path, **arrays(train=30))
    second = npz(tmp_path / "root", source=file).fingerprint
    file.unlink()
    assert npz(tmp_path / "root", source=file).fingerprint == second != first
    with pytest.raises(DataError, match="cannot be read"):
        npz(tmp_path / "elsewhere", source=file)


@pytest.mark.parametrize("keep", [0, 100, 1500, -30])
def test_damaged_files_are_named(keep: int, tmp_path: Path) -> None:
    file = saved(tmp_path)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"set\.npz cannot be read"):
        npz(tmp_path / "root", source=file)


def test_damaged_content_is_named(tmp_path: Path) -> None:
    file = saved(tmp_path)
    content = bytearray(file.read_bytes())
    for place in range(200, 600, 40):
        content[place] ^= 255
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"set\.npz cannot be read"):
        npz(tmp_path / "root", source=file)
    assert list((tmp_path / "root").glob("npz*")) == []


def test_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "root"))
    assert main(["data", "import", "npz", str(saved(tmp_path))]) == 0
    assert "24 train, 6 val, 9 test" in capsys.readouterr().out
