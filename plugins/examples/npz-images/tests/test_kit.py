"""The conformance kit on npz-images, and what it reads from a small file in MedMNIST's layout."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from benchkit_npz import npz_images

from benchkit import DataError
from benchkit.testing import Check, parametrize_checks


def arrays() -> dict[str, np.ndarray]:
    """Return 60 training, 12 validation and 12 test images of 9x8 pixels in three classes; labels are (N, 1)."""
    generator = np.random.default_rng(0)
    found = {}
    for split, count in (("train", 60), ("val", 12), ("test", 12)):
        found[f"{split}_images"] = generator.integers(0, 256, (count, 9, 8), dtype=np.uint8)
        found[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    return found


FOLDER = tempfile.TemporaryDirectory(prefix="benchkit-npz-")
FILE = Path(FOLDER.name) / "small.npz"
np.savez(FILE, **arrays())


@parametrize_checks("datasets", "npz-images", options={"source": str(FILE)})
def test_kit(check: Check) -> None:
    """Every promise that benchkit makes for a data set holds."""
    check()


def test_content(tmp_path: Path) -> None:
    """Images get a channel dimension, labels lose theirs, and the order stays."""
    splits = npz_images(tmp_path, source=FILE, class_names=("a", "b", "c"))
    written = arrays()
    assert splits.val is not None and splits.class_names == ("a", "b", "c")
    for name, split in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        np.testing.assert_array_equal(split.images[..., 0], written[f"{name}_images"])
        np.testing.assert_array_equal(split.labels, written[f"{name}_labels"][:, 0])


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """A missing array, a wrong type and a count that does not fit."""
    wrong = arrays()
    del wrong["val_labels"]
    wrong["train_images"] = wrong["train_images"].astype(np.float32)
    wrong["test_labels"] = wrong["test_labels"][:5]
    np.savez(tmp_path / "wrong.npz", **wrong)
    with pytest.raises(DataError, match="not laid out") as caught:
        npz_images(tmp_path, source=tmp_path / "wrong.npz")
    assert caught.value.problems == (
        "val_labels is missing",
        "train_images is float32 (60, 9, 8), expected uint8 (N, H, W) or (N, H, W, 3)",
        "test: 12 images but 5 labels",
    )
