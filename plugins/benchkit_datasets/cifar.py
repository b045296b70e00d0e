"""CIFAR-10, CIFAR-100 and Tiny-CIFAR-10."""

from __future__ import annotations

import functools
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from benchkit import DataError, Splits, card
from benchkit.preparation import About, Draft, prepare, prepared_manifest
from benchkit_datasets.published import Arrays, PublishedSet, fetch, serve

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """.split()
)
CITATION = "Krizhevsky, A. Learning Multiple Layers of Features from Tiny Images. Report, University of Toronto, 2009."
LICENCE = "The authors state no licence; the set is distributed for research and asks for the citation."
URL = "https://www.cs.toronto.edu/~kriz/cifar.html"
TINY_PER_CLASS = 500

MOST_BYTES = 256 << 20
"""No batch of CIFAR is larger; the largest, CIFAR-100's, has 148 MiB."""
_PICKLED = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


@card(
    title="CIFAR-10",
    summary="50,000 training and 10,000 test photographs of 32x32 pixels in 10 classes.",
    reference=CITATION,
    url=URL,
)
def cifar10(root: Path, *, source: Path | None = None, partial: bool = False) -> Splits:
    """Return CIFAR-10: (32, 32, 3), 5,000 training and 1,000 test images a class, labels as in torchvision.

    `source` is torchvision's `cifar-10-batches-py`, class folders of images below train and test, or an archive of
    either; without it the original is downloaded. `partial` accepts fewer images.
    """
    return serve(_CIFAR10, root, source, partial=partial)


@card(
    title="CIFAR-100",
    summary="50,000 training and 10,000 test photographs of 32x32 pixels in 100 classes.",
    reference=CITATION,
    url=URL,
)
def cifar100(root: Path, *, source: Path | None = None, partial: bool = False) -> Splits:
    """Return CIFAR-100 with its 100 fine labels: (32, 32, 3), 500 training and 100 test images a class.

    `source` is torchvision's `cifar-100-python`, class folders of images below train and test, or an archive of either;
    without it the original is downloaded. `partial` accepts fewer images.
    """
    return serve(_CIFAR100, root, source, partial=partial)


@card(
    title="Tiny-CIFAR-10",
    summary="500 training images of each CIFAR-10 class, and all 10,000 test images.",
    reference=CITATION,
    url=URL,
)
def tiny_cifar10(root: Path, *, source: Path | None = None, partial: bool = False) -> Splits:
    """Return CIFAR-10 with 500 training images a class: those whose pixels have the smallest SHA-256.

    That choice is as good as random, the same on every machine, and needs no random number generator. It is made from
    the prepared CIFAR-10, which is prepared first (from `source`, see `cifar10`) where it is not.
    """
    root = Path(root)
    prepared = prepared_manifest(root, "cifar10")
    if prepared is None and prepared_manifest(root, "tiny-cifar10") is None:
        cifar10(root, source=source, partial=partial)
        prepared = prepared_manifest(root, "cifar10")

    def build(draft: Draft) -> About:
        whole = cifar10(root, source=source, partial=partial)
        labels = np.asarray(whole.train.labels)
        first = [np.flatnonzero(labels == label)[:TINY_PER_CLASS] for label in range(len(whole.class_names))]
        kept = np.sort(np.concatenate(first))
        draft.write("train", whole.train.images[kept], labels[kept])
        draft.write("test", whole.test.images, whole.test.labels)
        notes = [f"Made from CIFAR-10. {note}" for note in whole.notes]
        return About(class_names=whole.class_names, licence=whole.licence, citation=whole.citation, notes=notes)

    return prepare(root, "tiny-cifar10", build, origin=prepared.fingerprint if prepared else "")


def _read(folder: Path, *, trains: str, test: str, label_key: str) -> Arrays | None:
    for inner in (folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))):
        batches = sorted(file for file in inner.glob(trains) if file.is_file())
        if batches and (inner / test).is_file():
            return {"train": _read_batches(batches, label_key), "test": _read_batches([inner / test], label_key)}
    return None


def _read_batches(files: list[Path], label_key: str) -> tuple[np.ndarray, np.ndarray]:
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for file in files:
        batch = _unpickled(file)
        data, names = batch.get("data"), batch.get(label_key)
        if (
            not isinstance(data, np.ndarray)
            or data.dtype != np.uint8
            or data.shape[1:] != (3072,)
            or not isinstance(names, list)
            or len(names) != len(data)
        ):
            raise DataError(f"{file} is no batch of CIFAR: expected data uint8 (N, 3072) and N {label_key}")
        images.append(data)
        labels.append(np.asarray(names, dtype=np.int64))
    planes: np.ndarray = np.concatenate(images).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate(labels)


def _unpickled(file: Path) -> dict[str, Any]:
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise ValueError(f"{size:,} bytes, expected at most {MOST_BYTES:,}")
        content = file.read_bytes()
        _check_sizes(content)
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except _NO_BATCH as error:
        raise DataError(f"{file} cannot be read as a batch of CIFAR: {error or type(error).__name__}") from error
    if not isinstance(batch, dict):
        raise DataError(f"{file} is no batch of CIFAR: expected a dictionary, got {type(batch).__name__}")
    return batch


_NO_BATCH = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def _check_sizes(content: bytes) -> None:
    """Raise `ValueError` for a pickle that asks for more memory than its own size explains: a memo of far numbers."""
    for operation, argument, _ in pickletools.genops(content):
        if "PUT" in operation.name and isinstance(argument, int) and argument > len(content):
            raise ValueError(f"its memo has a number {argument:,}, more than the file has bytes")


class _ArraysOnly(pickle.Unpickler):
    """Reads the pickles in which CIFAR is distributed, and nothing that could run code or take much memory."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no batch of CIFAR needs")
        guarded = {"_reconstruct": _empty_array, "encode": _latin1, "ndarray": _Array}.get(name)
        return guarded or super().find_class(module, name)


class _Array:
    """Stands for `numpy.ndarray` in a pickle: only `_empty_array` makes one, so that no shape takes memory."""


def _empty_array(kind: object, shape: object, code: object) -> np.ndarray:
    """Return the empty array that a pickled one begins as; its state, whose bytes are in the file, follows."""
    if kind is not _Array or shape != (0,):
        raise pickle.UnpicklingError(f"it asks for an array of the shape {shape} before its bytes")
    return np.empty(0, np.uint8)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes as {encoding}, which no batch of CIFAR needs")
    return text.encode("latin1")


def _download(folder: Path, *, name: str) -> Path:
    from torchvision.datasets import CIFAR10, CIFAR100

    known = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    return fetch([known.url], folder, filename=known.filename, md5=known.tgz_md5, name=name)


_CIFAR10 = PublishedSet(
    name="cifar10",
    title="CIFAR-10",
    class_names=CIFAR10_CLASSES,
    class_counts={"train": (5000,) * 10, "test": (1000,) * 10},
    shape=(32, 32, 3),
    content={
        "train": "da608f5910d7046b9dd4b969acdcc882783be137ae727ba9874d50db68cfb849",
        "test": "a5ca90916492aec3c710d36530679f2b21e2bd89c77dfc47aeaf1b37da6ffa9d",
    },
    licence=LICENCE,
    citation=CITATION,
    read=functools.partial(_read, trains="data_batch_[1-5]", test="test_batch", label_key="labels"),
    download=functools.partial(_download, name="cifar10"),
)
_CIFAR100 = PublishedSet(
    name="cifar100",
    title="CIFAR-100",
    class_names=CIFAR100_CLASSES,
    class_counts={"train": (500,) * 100, "test": (100,) * 100},
    shape=(32, 32, 3),
    content={
        "train": "4fbf99ccb6b22ea1de92e89688e13169d1fc4fabaf4727e69d95a1c795c21170",
        "test": "ac8c5e7c51cda523534e852febdb4b602546d770351b2529384bde2cda082f9f",
    },
    licence=LICENCE,
    citation=CITATION,
    read=functools.partial(_read, trains="train", test="test", label_key="fine_labels"),
    download=functools.partial(_download, name="cifar100"),
)
