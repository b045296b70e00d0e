"""The built-in data sets, from every layout; expected labels come from what was written or from torchvision."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchkit_datasets.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, cifar10, cifar100, tiny_cifar10
from benchkit_datasets.digits import digits
from benchkit_datasets.mnist import mnist
from PIL import Image
from published_layouts import (
    Stand,
    as_tar,
    as_zip,
    make_stand,
    write_cifar10,
    write_cifar100,
    write_class_folders,
    write_mnist,
)
from sklearn.datasets import load_digits

from benchkit import DataError, Split, Splits
from benchkit.preparation import prepared_manifest

DIGIT_CLASSES = tuple("0123456789")
Layouts = dict[str, tuple[Callable[..., Splits], Stand, Callable[[Stand, Path], Path]]]


def pairs(split: Split) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}


@pytest.fixture(scope="module")
def layouts() -> Layouts:
    return {
        "cifar10": (cifar10, make_stand(CIFAR10_CLASSES, (32, 32, 3)), write_cifar10),
        "cifar100": (cifar100, make_stand(CIFAR100_CLASSES, (32, 32, 3), train=2, test=1), write_cifar100),
        "mnist": (mnist, make_stand(DIGIT_CLASSES, (28, 28, 1)), write_mnist),
    }


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_every_layout_gives_the_same_arrays(name: str, layouts: Layouts, tmp_path: Path) -> None:
    dataset, stand, write = layouts[name]
    native = write(stand, tmp_path / "native")
    folders = write_class_folders(stand, tmp_path / "folders")
    sources = [native, next(native.iterdir()), folders, as_tar(native), as_zip(native), as_tar(folders)]
    results = [dataset(tmp_path / f"root{i}", source=source, partial=True) for i, source in enumerate(sources)]
    for splits in results:
        assert splits.class_names == tuple(stand.names)
        assert pairs(splits.train) == stand.pairs("train")
        assert pairs(splits.test) == stand.pairs("test")
    assert len({splits.fingerprint for splits in results}) == 1
    assert "only a part of" in results[0].notes[0]


def test_images_are_in_the_order_of_their_hashes(layouts: Layouts, tmp_path: Path) -> None:
    _, stand, write = layouts["cifar10"]
    splits = cifar10(tmp_path / "root", source=write(stand, tmp_path / "native"), partial=True)
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in splits.train.images]
    assert digests == sorted(digests)


@pytest.mark.parametrize(("name", "reference"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100"), ("mnist", "MNIST")])
def test_labels_are_those_of_torchvision(
    name: str, reference: str, layouts: Layouts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    dataset, stand, write = layouts[name]
    source = write(stand, tmp_path / "native")
    loader = getattr(datasets, reference)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
    splits = dataset(tmp_path / "root", source=source, partial=True)
    for split, train in ((splits.train, True), (splits.test, False)):
        theirs = loader(source, train=train)
        expected = {(np.asarray(theirs[i][0]).tobytes(), int(theirs[i][1])) for i in range(len(theirs))}
        assert pairs(split) == expected
    if name != "mnist":
        assert splits.class_names == tuple(theirs.classes)
    else:
        assert [name.partition(" ")[0] for name in theirs.classes] == list(splits.class_names)


@pytest.mark.parametrize("dotted", [True, False])
def test_mnist_files_may_be_packed_and_dotted(dotted: bool, layouts: Layouts, tmp_path: Path) -> None:
    _, stand, _ = layouts["mnist"]
    source = write_mnist(stand, tmp_path / "native", packed=True) / "MNIST" / "raw"
    for file in list(source.iterdir()) if dotted else []:
        file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    splits = mnist(tmp_path / "root", source=source, partial=True)
    assert pairs(splits.train) == stand.pairs("train")


def test_fewer_images_need_to_be_wanted(layouts: Layouts, tmp_path: Path) -> None:
    _, stand, write = layouts["cifar10"]
    source = write(stand, tmp_path / "native")
    with pytest.raises(DataError) as caught:
        cifar10(tmp_path / "root", source=source)
    text = str(caught.value)
    assert "found 60 train images, 20 test images, expected 50,000 train images, 10,000 test images" in text
    assert "train, class airplane: 6 images, expected 5,000" in text
    assert "--partial" in text
    cifar10(tmp_path / "root", source=source, partial=True)
    found = prepared_manifest(tmp_path / "root", "cifar10")
    assert found is not None
    assert found.notes == (
        "This is only a part of CIFAR-10: 60 of the 50,000 train images and 20 of the 10,000 test images.",
    )
    assert found.splits["train"].class_counts == (6,) * 10


def test_more_images_are_never_right(tmp_path: Path) -> None:
    stand = make_stand(CIFAR100_CLASSES, (32, 32, 3), train=1, test=101)
    with pytest.raises(DataError, match="test, class apple: 101 images, expected 100"):
        cifar100(tmp_path / "root", source=write_cifar100(stand, tmp_path / "native"), partial=True)


def test_classes_of_another_set_are_named(layouts: Layouts, tmp_path: Path) -> None:
    _, stand, _ = layouts["mnist"]
    names = ["plane", *CIFAR10_CLASSES[1:]]
    source = write_class_folders(Stand(names, stand.arrays), tmp_path / "folders")
    with pytest.raises(DataError, match=r"(?s)unknown class 'plane'.*class 'airplane' is missing"):
        cifar10(tmp_path / "root", source=source, partial=True)
    with pytest.raises(DataError, match="no class folders"):
        cifar10(tmp_path / "root", source=write_mnist(stand, tmp_path / "native") / "MNIST" / "raw", partial=True)


def test_images_of_another_size_are_named(layouts: Layouts, tmp_path: Path) -> None:
    _, stand, _ = layouts["cifar10"]
    source = write_class_folders(stand, tmp_path / "folders")
    Image.new("RGB", (16, 16)).save(source / "train" / "cat" / "small.png")
    (source / "test" / "dog" / "broken.png").write_text("")
    with pytest.raises(DataError, match=r"(?s)2 images cannot be used.*small\.png: 16x16.*broken\.png"):
        cifar10(tmp_path / "root", source=source, partial=True)


def test_pickles_that_run_code_are_refused(layouts: Layouts, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    _, stand, write = layouts["cifar10"]
    source = write(stand, tmp_path / "native")
    (source / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps({"data": Evil()}))
    with pytest.raises(DataError, match=r"data_batch_2 cannot be read as a batch of CIFAR: it refers to"):
        cifar10(tmp_path / "root", source=source, partial=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", pickle.dumps([1]), pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]})],
    ids=["empty", "cut", "list", "float64"],
)
def test_damaged_batches_are_named(content: bytes, layouts: Layouts, tmp_path: Path) -> None:
    _, stand, write = layouts["cifar10"]
    source = write(stand, tmp_path / "native")
    (source / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match="test_batch"):
        cifar10(tmp_path / "root", source=source, partial=True)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:3], lambda b: b"\1" + b[1:]])
def test_damaged_idx_files_are_named(damage: Callable[[bytes], bytes], layouts: Layouts, tmp_path: Path) -> None:
    _, stand, _ = layouts["mnist"]
    source = write_mnist(stand, tmp_path / "native")
    file = source / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte"):
        mnist(tmp_path / "root", source=source, partial=True)
    file.unlink()
    with pytest.raises(DataError, match="holds no t10k-images-idx3-ubyte"):
        mnist(tmp_path / "root", source=source, partial=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "its memo has a number 2,147,483,647"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.", "test_batch"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I4000000000\ntS'b'\ntR.",
            r"an array of the shape \(4000000000,\)",
        ),
        (b"cnumpy\nndarray\n(I4000000000\ntR.", "test_batch"),
        (b"c_codecs\nencode\n(Vab\nVhex\ntR.", "it encodes as hex"),
    ],
    ids=["far-memo", "long-bytes", "large-array", "array-itself", "codec"],
)
def test_batches_that_ask_for_memory_are_refused_before_it_is_taken(
    content: bytes, message: str, layouts: Layouts, tmp_path: Path
) -> None:
    _, stand, write = layouts["cifar10"]
    source = write(stand, tmp_path / "native")
    (source / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            cifar10(tmp_path / "root", source=source, partial=True)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_idx_files_that_unpack_to_too_much_are_refused(layouts: Layouts, tmp_path: Path) -> None:
    _, stand, _ = layouts["mnist"]
    source = write_mnist(stand, tmp_path / "native")
    file = source / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    file.unlink()
    with gzip.open(f"{file}.gz", "wb", 1) as bomb:
        for _ in range(160):
            bomb.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="unpacks to more than 47,040,016 bytes"):
            mnist(tmp_path / "root", source=source, partial=True)
        assert tracemalloc.get_traced_memory()[1] < 128 << 20
    finally:
        tracemalloc.stop()


def test_images_shared_by_train_and_test_are_noted(tmp_path: Path) -> None:
    stand = make_stand(CIFAR10_CLASSES, (32, 32, 3))
    stand.arrays["test"][0][:3] = stand.arrays["train"][0][:3]
    splits = cifar10(tmp_path / "root", source=write_cifar10(stand, tmp_path / "native"), partial=True)
    assert splits.notes[1] == ("3 of the 20 test images also occur among the training images, pixel for pixel.")


def test_tiny_cifar10_takes_500_of_each_class(tmp_path: Path) -> None:
    stand = make_stand(CIFAR10_CLASSES, (32, 32, 3), train=510, test=3)
    source = write_cifar10(stand, tmp_path / "native")
    splits = tiny_cifar10(tmp_path / "root", source=source, partial=True)
    expected: set[tuple[bytes, int]] = set()
    for label in range(10):
        ours = [pair for pair in stand.pairs("train") if pair[1] == label]
        expected |= set(sorted(ours, key=lambda pair: hashlib.sha256(pair[0]).digest())[:500])
    assert pairs(splits.train) == expected
    assert pairs(splits.test) == stand.pairs("test")
    assert splits.notes[0].startswith("Made from CIFAR-10. This is only a part of CIFAR-10")
    shutil.rmtree(source)
    assert tiny_cifar10(tmp_path / "root").fingerprint == splits.fingerprint
    shutil.rmtree(tmp_path / "root" / "cifar10")
    assert tiny_cifar10(tmp_path / "root").fingerprint == splits.fingerprint
    other = make_stand(CIFAR10_CLASSES, (32, 32, 3), train=3, test=3)
    cifar10(tmp_path / "root", source=write_cifar10(other, tmp_path / "other"), partial=True)
    assert len(tiny_cifar10(tmp_path / "root").train.labels) == 30


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    splits = digits(tmp_path)
    source = load_digits()
    exact = source.images * 255 / 16
    scaled = np.floor(exact) + (exact - np.floor(exact) > 0.5)
    scaled[source.images == 8] = 128  # 127.5, to the even number
    expected = sorted(
        (image.astype(np.uint8).tobytes(), int(n)) for image, n in zip(scaled, source.target, strict=True)
    )
    found = [
        (image.tobytes(), int(label))
        for split in (splits.train, splits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(found) == expected
    assert splits.train.images.shape == (1397, 8, 8, 1)
    assert splits.test.images.shape == (400, 8, 8, 1)
    assert np.bincount(splits.test.labels).tolist() == [40] * 10
    assert splits.train.images.max() == 255
