"""The data sets of the source studies, from small trees in exactly the layouts in which people have them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchkit_datasets import birds200 as birds200_module
from benchkit_datasets.birds25 import SPECIES, birds25, match_names
from benchkit_datasets.birds200 import birds200
from painted_trees import paint, shade
from PIL import Image

from benchkit import DataError
from benchkit.preparation import decode_images


def message(caught: pytest.ExceptionInfo[DataError]) -> str:
    return str(caught.value)


# names of classes


def test_names_match_however_they_are_spelt() -> None:
    known = ("Asian Green Bee-Eater", "Gray Wagtail", "Hoopoe")
    labels, problems = match_names(["hoopoe", "GREY_wagtail", " asian-green bee eater"], known)
    assert labels == {"hoopoe": 2, "GREY_wagtail": 1, " asian-green bee eater": 0}
    assert problems == []
    labels, problems = match_names(["Hoopoe", "hoo poe", "Hoopo", "Zebra"], known)
    assert labels == {"Hoopoe": 0 + 2}
    assert problems == [
        "class 'Hoopoe' has two folders, 'Hoopoe' and 'hoo poe'",
        "unknown class 'Hoopo' (did you mean 'Hoopoe'?)",
        "unknown class 'Zebra'",
    ]


# cutting


def test_a_box_is_cut_out(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG broken")
    out = np.zeros((2, 20, 20, 3), np.uint8)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    decoded = decode_images(files, out, what="cutting", resize=True, fit=lambda *_: (10.0, 5.0, 30.0, 25.0))
    np.testing.assert_array_equal(out[0], pixels[5:25, 10:30])
    assert len(decoded.problems) == 1 and str(tmp_path / "b.png") in decoded.problems[0]


# birds25


def spelling(name: str, style: int) -> str:
    """Return a species as some downloads spell it."""
    return (name, name.lower().replace(" ", "_"), name.upper(), name.replace(" ", "-"))[style % 4]


def bird_tree(folder: Path, splits: tuple[str, ...] = ("train", "valid", "test"), styles: bool = True) -> Path:
    """Write two images of each species in train and one in the other splits."""
    for number, split in enumerate(splits):
        for label, name in enumerate(SPECIES):
            for index in range(2 if number == 0 else 1):
                place = folder / split / spelling(name, number + label if styles else 0)
                size = (20 + label, 25 + 3 * index)
                paint(place / f"{index}.{('jpg', 'JPEG', 'png')[number]}", shade(number, label, index), size)
    return folder


def assert_birds(images: np.ndarray, labels: np.ndarray, number: int) -> None:
    for label in range(25):
        ours = images[labels == label]
        for index, image in enumerate(ours):
            assert np.abs(image.astype(int) - np.array(shade(number, label, index))).max() <= 4  # JPEG


def test_birds25_with_three_splits(tmp_path: Path) -> None:
    splits = birds25(tmp_path / "root", source=bird_tree(tmp_path / "birds"), size=16)
    assert splits.class_names == SPECIES and len(SPECIES) == len(set(SPECIES)) == 25
    assert splits.val is not None
    for number, (split, each) in enumerate(((splits.train, 2), (splits.val, 1), (splits.test, 1))):
        assert split.images.shape == (25 * each, 16, 16, 3)
        assert split.labels.tolist() == sorted([*range(25)] * each)
        assert_birds(split.images, split.labels, number)
    assert splits.notes == ()
    assert birds25(tmp_path / "root", size=16).fingerprint == splits.fingerprint


def test_birds25_is_64_pixels_unless_told(tmp_path: Path) -> None:
    splits = birds25(tmp_path / "root", source=bird_tree(tmp_path / "birds"))
    assert splits.train.images.shape[1:] == (64, 64, 3)


def test_birds25_as_kaggle_packs_it(tmp_path: Path) -> None:
    tree = bird_tree(tmp_path / "archive" / "deep", ("training_set", "validation_set"), styles=False)
    (tree / "readme.txt").write_text("about")
    (tree / "training_set" / SPECIES[0] / "notes.csv").write_text("1,2")
    archive = tmp_path / "birds.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "archive", "archive")
    splits = birds25(tmp_path / "root", source=archive, size=8)
    assert splits.val is None
    assert_birds(splits.train.images, splits.train.labels, 0)
    assert_birds(splits.test.images, splits.test.labels, 1)
    assert splits.notes == (
        "The files name no test images: their validation images are the test split.",
        "train: Files left out: 1 ending in .csv.",
    )


def test_birds25_names_folders_that_are_no_species(tmp_path: Path) -> None:
    source = bird_tree(tmp_path / "birds", styles=False)
    paint(source / "train" / "Cattle Egrets" / "1.jpg", (1, 2, 3))
    paint(source / "valid" / "cattle_egret" / "1.jpg", (1, 2, 3))
    (source / "test" / "Hoopoe").rename(tmp_path / "gone")
    with pytest.raises(DataError) as caught:
        birds25(tmp_path / "root", source=source, size=8)
    text = message(caught)
    assert f"{source / 'train'}: unknown class 'Cattle Egrets' (did you mean 'Cattle Egret'?)" in text
    assert f"{source / 'valid'}: class 'Cattle Egret' has two folders, 'Cattle Egret' and 'cattle_egret'" in text
    assert f"test: no folder for 'Hoopoe' in {source / 'test'}" in text
    assert "--partial" not in text
    assert not (tmp_path / "root").exists() or not [path for path in (tmp_path / "root").glob("birds*")]


def test_birds25_in_part(tmp_path: Path) -> None:
    source = bird_tree(tmp_path / "birds")
    for label in (3, 7):
        (source / "test" / spelling(SPECIES[label], 2 + label)).rename(tmp_path / f"gone{label}")
    with pytest.raises(DataError, match=f"(?s)no folder for '{SPECIES[3]}'.*--partial"):
        birds25(tmp_path / "root", source=source, size=8)
    splits = birds25(tmp_path / "root", source=source, size=8, partial=True)
    assert sorted(set(range(25)) - set(splits.test.labels.tolist())) == [3, 7]
    assert splits.notes == ("This is only a part of the set: 2 folders of species are missing.",)


def test_birds25_names_corrupt_images_and_counts_leaks(tmp_path: Path) -> None:
    source = bird_tree(tmp_path / "birds", styles=False)
    broken = source / "valid" / SPECIES[4] / "0.JPEG"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        birds25(tmp_path / "root", source=source, size=8)
    assert str(broken) in message(caught) and "1 images cannot be used" in message(caught)
    broken.write_bytes(whole)
    for label in (0, 5):
        copy = source / "test" / SPECIES[label] / "0.png"
        copy.unlink()
        (source / "train" / SPECIES[label] / "0.jpg").rename(source / "train" / SPECIES[label] / "same.jpg")
        copy.with_suffix(".jpg").write_bytes((source / "train" / SPECIES[label] / "same.jpg").read_bytes())
    splits = birds25(tmp_path / "root", source=source, size=8)
    assert splits.notes == ("2 of the 25 test images also occur among the training images.",)


def test_birds25_tells_where_to_get_it_and_what_it_looks_like(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        birds25(tmp_path / "root")
    assert "Kaggle" in message(caught) and "benchkit data import birds25 PATH" in message(caught)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"folders: none(?s:.*)training_set"):
        birds25(tmp_path / "root", source=tmp_path / "empty")
    with pytest.raises(DataError, match="size = 4, expected 8 to 1024"):
        birds25(tmp_path / "root", size=4)
    for name in ("train", "training_set", "test"):
        (tmp_path / "twice" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="two folders for the split train"):
        birds25(tmp_path / "root", source=tmp_path / "twice")


# birds200


@pytest.fixture
def three_of_each(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the published set have 4 classes, 8 training and 5 test images."""
    monkeypatch.setattr(birds200_module, "COUNTS", {"train": 8, "test": 5})
    monkeypatch.setattr(birds200_module, "CLASSES", 4)
    yield


CUB = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "015.Lazuli_Bunting", "200.Common_Yellowthroat")
CUB_LISTS = {
    "train": [f"{name}/{name[4:]}_000{index}_{index + 31415}.jpg" for name in CUB for index in (1, 2)],
    "test": [f"{name}/{name[4:]}_0003_27182.jpg" for name in CUB] + [f"{CUB[3]}/{CUB[3][4:]}_0004_1.jpg"],
}


def cub_tree(folder: Path) -> Path:
    """Write images/CLASS/*.jpg with the object's colour in the middle, and the lists of the 2010 edition."""
    for at, (split, names) in enumerate(CUB_LISTS.items()):
        (folder / "lists").mkdir(parents=True, exist_ok=True)
        (folder / "lists" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for index, name in enumerate(names):
            file = paint(folder / "images" / name, (0, 0, 0), (90, 30) if index % 2 else (30, 90))
            image = Image.open(file)
            image.paste(shade(at, index), (30, 0, 60, 30) if index % 2 else (0, 30, 30, 60))
            image.save(file, quality=95, subsampling=0)
            (file.parent / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")
    (folder / "lists" / "files.txt").write_text("\n".join(sorted(CUB_LISTS["train"] + CUB_LISTS["test"])))
    (folder / "lists" / "classes.txt").write_text("\n".join(CUB))
    return folder


def assert_cub(splits: Any) -> None:
    assert splits.class_names == (
        "Black footed Albatross",
        "Laysan Albatross",
        "Lazuli Bunting",
        "Common Yellowthroat",
    )
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert splits.test.labels.tolist() == [0, 1, 2, 3, 3]
    for at, split in enumerate((splits.train, splits.test)):
        for index, image in enumerate(split.images):
            # The central square is what was painted; JPEG blurs its border.
            assert np.abs(image[3:-3, 3:-3].astype(int) - np.array(shade(at, index))).max() <= 6


@pytest.mark.usefixtures("three_of_each")
def test_birds200_from_its_lists(tmp_path: Path) -> None:
    source = cub_tree(tmp_path / "CUB")
    splits = birds200(tmp_path / "root", source=source, size=20)
    assert splits.train.images.shape == (8, 20, 20, 3)
    assert_cub(splits)
    assert splits.notes == () and splits.val is None
    assert birds200(tmp_path / "root", size=20).fingerprint == splits.fingerprint
    wrapped = tmp_path / "wrapped"
    wrapped.mkdir()
    source.rename(wrapped / "CUB_200_2010")
    again = birds200(tmp_path / "again", source=wrapped, size=20)
    assert again.fingerprint == splits.fingerprint


@pytest.mark.usefixtures("three_of_each")
def test_birds200_from_the_two_archives(tmp_path: Path) -> None:
    source = cub_tree(tmp_path / "CUB")
    archives = tmp_path / "archives"
    archives.mkdir()
    for name in ("images", "lists"):
        with tarfile.open(archives / f"{name}.tgz", "w:gz") as packed:
            packed.add(source / name, name)
    assert_cub(birds200(tmp_path / "root", source=archives, size=20))


@pytest.mark.usefixtures("three_of_each")
def test_birds200_names_what_is_missing_and_what_is_too_much(tmp_path: Path) -> None:
    source = cub_tree(tmp_path / "CUB")
    lost = source / "images" / CUB_LISTS["test"][1]
    lost.unlink()
    paint(source / "images" / CUB[0] / "surplus.jpg", (1, 1, 1))
    with pytest.raises(DataError) as caught:
        birds200(tmp_path / "root", source=source, size=20)
    assert f"{lost} is not there" in message(caught) and "--partial" in message(caught)
    splits = birds200(tmp_path / "root", source=source, size=20, partial=True)
    assert splits.test.labels.tolist() == [0, 2, 3, 3]
    assert splits.notes == (
        "This is only a part of Caltech-UCSD Birds 200 (2010): 8 of the 8 train images and 4 of the 5 test images.",
        f"Images that no list names, left out: 1, among them {CUB[0]}/surplus.jpg.",
    )
    with (source / "lists" / "test.txt").open("a") as file:
        file.write(f"{CUB_LISTS['train'][0]}\n")
    with pytest.raises(DataError, match=f"(?s)listed 2 times: {CUB_LISTS['train'][0]}.*test: 6 images listed"):
        birds200(tmp_path / "other", source=source, size=20, partial=True)


@pytest.mark.usefixtures("three_of_each")
def test_birds200_names_corrupt_images_and_wrong_lists(tmp_path: Path) -> None:
    source = cub_tree(tmp_path / "CUB")
    (source / "images" / CUB_LISTS["train"][2]).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        birds200(tmp_path / "root", source=source, size=20)
    assert str(source / "images" / CUB_LISTS["train"][2]) in message(caught)
    (source / "lists" / "train.txt").write_text("one.jpg\n../../etc/passwd\n")
    with pytest.raises(DataError, match=r"(?s)line 1: 'one.jpg'.*line 2: '\.\./\.\./etc/passwd'"):
        birds200(tmp_path / "root", source=source, size=20)
    (source / "lists" / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt cannot be read"):
        birds200(tmp_path / "root", source=source, size=20)


def test_birds200_is_not_the_edition_of_2011(tmp_path: Path) -> None:
    source = cub_tree(tmp_path / "CUB")
    with pytest.raises(DataError) as caught:
        birds200(tmp_path / "root", source=source, size=20)
    for line in ("train: 8 images listed, expected 3,000", "test: 5 images listed, expected 3,033", "4 classes"):
        assert line in message(caught)
    (source / "lists").rename(source / "parts")
    with pytest.raises(DataError, match=r"(?s)no folder lists, nor lists\.tgz.*2011"):
        birds200(tmp_path / "root", source=source)
    with pytest.raises(DataError, match="benchkit data import birds200 FOLDER"):
        birds200(tmp_path / "root")
    with pytest.raises(DataError, match="size = 2000"):
        birds200(tmp_path / "root", size=2000)
