"""The published data sets themselves. `BENCHKIT_REAL_DATA` is a folder with `cifar10/{train,test}/CLASS/*.png`, the
same for `cifar100`, and `MNIST/raw/*-ubyte`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchkit_datasets.cifar import cifar10, cifar100, tiny_cifar10
from benchkit_datasets.mnist import mnist
from PIL import Image
from published_layouts import Stand, write_cifar10, write_cifar100, write_class_folders

from benchkit import Split, Splits
from benchkit.preparation import verify

FOLDER = os.environ.get("BENCHKIT_REAL_DATA", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="BENCHKIT_REAL_DATA names no folder with the published data sets"),
]

# Channel means and standard deviations of the training images in 0..1, as quoted throughout the literature.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
MNIST_TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def statistics(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the channel means and standard deviations in 0..1, from the histogram of the 256 values."""
    counts = [np.bincount(split.images[..., c].ravel(), minlength=256) for c in range(split.images.shape[-1])]
    values = np.arange(256) / 255
    means = np.array([count @ values / count.sum() for count in counts])
    squares = np.array([count @ values**2 / count.sum() for count in counts])
    return means, np.sqrt(squares - means**2)


def assert_same_pixels(splits: Splits, folder: Path) -> None:
    """Compare every 300th file with what is served under its class."""
    for name, split in (("train", splits.train), ("test", splits.test)):
        known = {(image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}
        for file in sorted((folder / name).glob("*/*.png"))[::300]:
            label = splits.class_names.index(file.parent.name)
            assert (np.asarray(Image.open(file)).tobytes(), label) in known, file


@pytest.mark.parametrize(
    ("dataset", "per_class", "mean", "std", "notes"),
    [
        (cifar10, (5000, 1000), CIFAR10_MEAN, CIFAR10_STD, ()),
        (
            cifar100,
            (500, 100),
            CIFAR100_MEAN,
            CIFAR100_STD,
            ("10 of the 10,000 test images also occur among the training images, pixel for pixel, as published.",),
        ),
    ],
    ids=["cifar10", "cifar100"],
)
def test_cifar(
    dataset: Callable[..., Splits],
    per_class: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    notes: tuple[str, ...],
    root: Path,
) -> None:
    splits = dataset(root, source=Path(FOLDER))
    assert splits.train.images.shape == (50_000, 32, 32, 3)
    assert splits.test.images.shape == (10_000, 32, 32, 3)
    assert set(np.bincount(splits.train.labels)) == {per_class[0]}
    assert set(np.bincount(splits.test.labels)) == {per_class[1]}
    means, deviations = statistics(splits.train)
    np.testing.assert_allclose(means, mean, atol=6e-5)
    np.testing.assert_allclose(deviations, std, atol=6e-5)
    assert splits.notes == notes
    assert_same_pixels(splits, Path(FOLDER) / dataset.__name__)
    assert verify(root / dataset.__name__).fingerprint == splits.fingerprint


@pytest.mark.parametrize(("dataset", "write"), [(cifar10, write_cifar10), (cifar100, write_cifar100)])
def test_cifar_from_the_other_layout(
    dataset: Callable[..., Splits], write: Callable[[Stand, Path], Path], root: Path, tmp_path: Path
) -> None:
    splits = dataset(root, source=Path(FOLDER))
    arrays = {name: (s.images[::-1], s.labels[::-1]) for name, s in (("train", splits.train), ("test", splits.test))}
    source = write(Stand(splits.class_names, arrays), tmp_path / "native")
    assert dataset(tmp_path / "root", source=source).fingerprint == splits.fingerprint


def test_tiny_cifar10(root: Path) -> None:
    whole = cifar10(root, source=Path(FOLDER))
    splits = tiny_cifar10(root, source=Path(FOLDER))
    assert np.bincount(splits.train.labels).tolist() == [500] * 10
    np.testing.assert_array_equal(splits.test.images, whole.test.images)
    # A random choice of 5,000 images: the means differ by less than 4 standard errors of an image's mean.
    difference = splits.train.images.mean((0, 1, 2)) - whole.train.images.mean((0, 1, 2))
    spread = whole.train.images.mean((1, 2)).std(0) / np.sqrt(5000)
    assert (np.abs(difference) < 4 * spread).all()


def test_mnist(root: Path, tmp_path: Path) -> None:
    splits = mnist(root, source=Path(FOLDER))
    assert splits.train.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(splits.train.labels).tolist() == MNIST_TRAIN_COUNTS
    assert np.bincount(splits.test.labels).tolist() == MNIST_TEST_COUNTS
    means, deviations = statistics(splits.train)
    np.testing.assert_allclose(means, MNIST_MEAN, atol=6e-5)
    np.testing.assert_allclose(deviations, MNIST_STD, atol=6e-5)
    assert splits.notes == ()
    arrays = {"train": (splits.train.images, splits.train.labels), "test": (splits.test.images, splits.test.labels)}
    folders = write_class_folders(Stand(splits.class_names, arrays), tmp_path / "folders")
    assert mnist(tmp_path / "root", source=folders).fingerprint == splits.fingerprint
