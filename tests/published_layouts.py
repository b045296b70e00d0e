"""Small random stand-ins for the published data sets, written in every layout in which people have them."""

from __future__ import annotations

import gzip
import pickle
import shutil
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Stand:
    """Random images uint8 (N, H, W, C) and labels by split, in shuffled order."""

    names: Sequence[str]
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def pairs(self, split: str) -> set[tuple[bytes, int]]:
        images, labels = self.arrays[split]
        return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def make_stand(names: Sequence[str], shape: tuple[int, int, int], *, train: int = 6, test: int = 2) -> Stand:
    """Return `train` and `test` images of each class."""
    rng = np.random.default_rng(7)
    arrays = {}
    for split, number in (("train", train), ("test", test)):
        labels = rng.permutation(np.repeat(np.arange(len(names)), number))
        arrays[split] = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8), labels
    return Stand(names, arrays)


def write_class_folders(stand: Stand, folder: Path) -> Path:
    """Write PNG files below folder/split/class."""
    for split, (images, labels) in stand.arrays.items():
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / split / stand.names[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze()).save(place / f"{index:05}.png")
    return folder


def write_cifar10(stand: Stand, folder: Path) -> Path:
    """Write cifar-10-batches-py, with the training images spread over five files."""
    base = folder / "cifar-10-batches-py"
    base.mkdir(parents=True)
    images, labels = stand.arrays["train"]
    for number, part in enumerate(np.array_split(np.arange(len(labels)), 5), start=1):
        _pickle_batch(base / f"data_batch_{number}", images[part], labels[part], "labels")
    _pickle_batch(base / "test_batch", *stand.arrays["test"], "labels")
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list(stand.names)}, protocol=2))
    return folder


def write_cifar100(stand: Stand, folder: Path) -> Path:
    """Write cifar-100-python."""
    base = folder / "cifar-100-python"
    base.mkdir(parents=True)
    for split, (images, labels) in stand.arrays.items():
        _pickle_batch(base / split, images, labels, "fine_labels")
    (base / "meta").write_bytes(pickle.dumps({"fine_label_names": list(stand.names)}, protocol=2))
    return folder


def write_mnist(stand: Stand, folder: Path, *, packed: bool = False) -> Path:
    """Write MNIST/raw, with `packed` as .gz files."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = stand.arrays[split]
        for name, array in ((f"{prefix}-images-idx3-ubyte", images[..., 0]), (f"{prefix}-labels-idx1-ubyte", labels)):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            content = head + array.astype(np.uint8).tobytes()
            if packed:
                (raw / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (raw / name).write_bytes(content)
    return folder


def as_tar(folder: Path) -> Path:
    """Return a tar.gz of the folder's content."""
    path = folder.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for child in sorted(folder.iterdir()):
            archive.add(child, child.name)
    return path


def as_zip(folder: Path) -> Path:
    """Return a zip of the folder's content."""
    return Path(shutil.make_archive(str(folder), "zip", folder))


def _pickle_batch(file: Path, images: np.ndarray, labels: np.ndarray, key: str) -> None:
    planes = np.array(images).transpose(0, 3, 1, 2).reshape(len(images), -1)
    file.write_bytes(pickle.dumps({"data": planes, key: labels.tolist(), "batch_label": "some"}, protocol=2))
