"""Image data sets in NPZ files, as MedMNIST ships them, for benchkit."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from benchkit import DataError, Splits, card
from benchkit.preparation import About, Draft, pixel_digests, prepare

SPLITS = ("train", "val", "test")
ARRAYS = tuple(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))


@card(
    title="Images in an NPZ file",
    summary="Train, validation and test images with labels in one NPZ file, as MedMNIST ships them.",
    reference="J. Yang, R. Shi, D. Wei, Z. Liu, L. Zhao, B. Ke, H. Pfister and B. Ni, MedMNIST v2: A large-scale "
    "lightweight benchmark for 2D and 3D biomedical image classification, Scientific Data 10, 2023",
    url="https://doi.org/10.1038/s41597-022-01721-8",
)
def npz_images(
    root: Path,
    *,
    source: Path | None = None,
    class_names: tuple[str, ...] = (),
    licence: str = "not stated",
    citation: str = "not stated",
) -> Splits:
    """Return the images of the NPZ file `source`.

    It holds `train_images`, `val_images` and `test_images`, uint8 (N, H, W) or (N, H, W, 3), and `train_labels` and so
    on, integers (N,) or (N, 1). `class_names` are in label order; without them classes are called by their number.
    When the file changes the set is prepared again; when it is gone, the prepared set is served.

    Raises:
        DataError: there is no such file, an array is missing or has another shape or type; all of it at once.
    """
    if source is None:
        hint = 'set data.source = "PATH" in the study, or run `benchkit data import npz-images PATH`'
        raise DataError("npz-images needs to know where its file is", hint=hint)
    file = Path(source).expanduser().resolve()

    def build(draft: Draft) -> About:
        arrays = read_arrays(file)
        for split in SPLITS:
            draft.write(split, images=arrays[f"{split}_images"], labels=arrays[f"{split}_labels"])
        names = class_names or tuple(str(label) for label in range(int(arrays["train_labels"].max()) + 1))
        return About(class_names=names, licence=licence, citation=citation, notes=notes(arrays))

    key = {"source": str(file), "class_names": list(class_names), "licence": licence, "citation": citation}
    return prepare(Path(root), "npz-images", build, options=key, origin=digest(file))


def digest(file: Path) -> str:
    """Return the sha256 of a file, or an empty string when it is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return the six arrays: images uint8 (N, H, W, C), labels int64 (N,). Pickled objects are never read."""
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in ARRAYS if name in content}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file} cannot be read as an NPZ file: {error}", hint="give the path of a .npz file"
        ) from error
    problems = [f"{name} is missing" for name in ARRAYS if name not in arrays]
    problems += [problem for name, array in arrays.items() if (problem := fault(name, array))]
    for split in SPLITS:
        images, labels = arrays.get(f"{split}_images"), arrays.get(f"{split}_labels")
        if images is not None and labels is not None and len(images) != len(labels):
            problems.append(f"{split}: {len(images):,} images but {len(labels):,} labels")
    if problems:
        raise DataError(f"{file} is not laid out as MedMNIST's files are", problems=problems)
    return {name: shaped(name, array) for name, array in arrays.items()}


def fault(name: str, array: np.ndarray) -> str:
    """Return what is wrong with an array, an empty string when nothing is."""
    if name.endswith("images"):
        right = array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)))
        expected = "uint8 (N, H, W) or (N, H, W, 3)"
    else:
        right = np.issubdtype(array.dtype, np.integer) and array.shape[1:] in ((), (1,))
        expected = "integers (N,) or (N, 1); sets with several labels for an image are not supported"
    return "" if right else f"{name} is {array.dtype} {array.shape}, expected {expected}"


def shaped(name: str, array: np.ndarray) -> np.ndarray:
    """Return images with a channel dimension, and labels as int64 (N,)."""
    if name.endswith("labels"):
        return array.reshape(len(array)).astype(np.int64)
    return array if array.ndim == 4 else array[..., None]


def notes(arrays: dict[str, np.ndarray]) -> list[str]:
    """Return a note for every split that shares images with train, pixel for pixel."""
    known = set(pixel_digests(arrays["train_images"]))
    sentences = []
    for split in ("val", "test"):
        shared = sum(digest in known for digest in pixel_digests(arrays[f"{split}_images"]))
        if shared:
            sentences.append(f"{shared:,} images of {split} also occur in train, pixel for pixel.")
    return sentences
