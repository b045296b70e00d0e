"""Images by a csv file: how people write such files, and what is refused, all at once and by line."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from benchkit_datasets.image_folder import image_folder
from benchkit_datasets.image_list import image_list
from PIL import Image
from test_splitting import paint, paint_classes

from benchkit import DataError, Split
from benchkit.cli import main


def pairs(split: Split) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight images of each of two classes, a and b, in the folder that lists are told from."""
    return paint_classes(tmp_path / "set", {"a": 8, "b": 8})


PLAIN = [(f"{label}/{number}.png", {"a": "007", "b": "x, y"}[label]) for label in "ab" for number in range(8)]


def written(
    folder: Path, rows: list[tuple[str, ...]], *, separator: str = ",", start: str = "", end: str = "\n"
) -> Path:
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as stream:
        stream.write(start)
        csv.writer(stream, delimiter=separator, lineterminator=end).writerows(rows)
    return folder / "list.csv"


HEAD = ("path", "label")


def test_lists_are_read_however_they_are_written(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # paths are told from the list, not from here
    expected = image_list(tmp_path / "root", source=written(images, [HEAD, *PLAIN]))
    assert expected.class_names == ("007", "x, y")
    assert len(expected.train.labels) + len(expected.test.labels) == 16
    folders = image_folder(tmp_path / "root", source=images)
    assert {image for image, _ in pairs(folders.train) | pairs(folders.test)} == {
        image for image, _ in pairs(expected.train) | pairs(expected.test)
    }
    swapped = [("Label", "PATH"), *((label, path) for path, label in PLAIN)]
    backslashes = [HEAD, *((path.replace("/", "\\"), label) for path, label in PLAIN)]
    for number, file in enumerate(
        (
            lambda: written(images, PLAIN),
            lambda: written(images, [HEAD, *PLAIN], start="\ufeff"),
            lambda: written(images, [HEAD, *PLAIN], separator=";", end="\r\n"),
            lambda: written(images, [HEAD, *PLAIN], separator="\t"),
            lambda: written(images, PLAIN[::-1], separator=";"),
            lambda: written(images, swapped),
            lambda: written(images, backslashes),
            lambda: written(images, [HEAD, *PLAIN, PLAIN[0], ("", "")]),
        )
    ):
        splits = image_list(tmp_path / f"root{number}", source=file())
        assert splits.fingerprint == expected.fingerprint
    assert "Lines of the list that repeat another one: 1." in splits.notes
    utf16 = images / "utf16.csv"
    utf16.write_text((images / "list.csv").read_text(), encoding="utf-16")
    assert image_list(tmp_path / "root16", source=utf16).fingerprint == expected.fingerprint


def test_splits_and_groups_of_the_list_are_kept(images: Path, tmp_path: Path) -> None:
    split = ("train", "valid", "Test", "train", "train", "train", "train", "train")
    rows = [("path", "label", "split"), *((path, label, split[n % 8]) for n, (path, label) in enumerate(PLAIN))]
    splits = image_list(tmp_path / "root", source=written(images, rows))
    assert splits.val is not None and splits.test.labels.tolist() == splits.val.labels.tolist() == [0, 1]
    for number, part in ((1, splits.val), (2, splits.test)):
        np.testing.assert_array_equal(part.images[0], np.asarray(Image.open(images / f"a/{number}.png")))
    groups = [("path", "label", "group"), *((path, label, f"g{n // 2}") for n, (path, label) in enumerate(PLAIN))]
    image_list(tmp_path / "grouped", source=written(images, groups), test_fraction=0.4)
    (file,) = (tmp_path / "grouped").glob("csv-*/split.csv")
    with file.open(newline="") as stream:
        listed = {row["path"]: (row["group"], row["split"]) for row in csv.DictReader(stream)}
    assert Counter(len({s for g, s in listed.values() if g == group}) for group, _ in listed.values()) == {1: 16}
    torn = [(*row, "g") for row in rows]
    torn[0] = ("path", "label", "split", "group")
    with pytest.raises(DataError, match=r"group 'g' is in train and in test and in val"):
        image_list(tmp_path / "root", source=written(images, torn))


def test_a_list_of_other_columns_is_one_line_and_columns_without_use_are_told(images: Path, tmp_path: Path) -> None:
    stems = [("image_id", "dx"), *((path.removesuffix(".png"), label) for path, label in PLAIN)]
    with pytest.raises(DataError, match="none of the 17 files that it lists is there") as caught:
        image_list(tmp_path / "root", source=written(images, stems))
    assert caught.value.problems == (f"line 1: {images / 'image_id'} is not there",)
    patients = [("path", "patient_id", "label"), *((path, f"p{n}", label) for n, (path, label) in enumerate(PLAIN))]
    notes = image_list(tmp_path / "root", source=written(images, patients)).notes
    assert "Columns of the list that are not used: patient_id." in notes


def test_all_that_is_wrong_is_named_by_line(images: Path, tmp_path: Path) -> None:
    rows = [
        ("path", "label", "split"),
        *((path, label, "train") for path, label in PLAIN),
        ("a/0.png", "x, y", "train"),
        ("gone.png", "007", "train"),
        ("lost\\away.png", "007", "test"),
        ("a/1.png", "", "train"),
        ("a/2.png", "007", "exam"),
        ("a/3.png", "007", ""),
        ("x" * 300, "007", "train"),
    ]
    with pytest.raises(DataError) as caught:
        image_list(tmp_path / "root", source=written(images, rows))
    text = str(caught.value)
    for line in (
        "line 18: a/0.png has the label 'x, y', but '007' in line 2",
        f"line 19: {images / 'gone.png'} is not there",
        f"line 20: {images / 'lost/away.png'} is not there",
        "line 21: no label",
        "line 22: split 'exam', expected train, val or test",
        "line 23: split '', expected train, val or test, as each line has one",
        f"line 24: {images / ('x' * 300)} is not there",
    ):
        assert f"  - {line}" in text
    assert f"paths are told from {images}" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no images"),
        (b"path,label\n", "lists no images"),
        (b"path,kind\na/0.png,a\n", "no column label: path, kind"),
        (b"path,label\n\xff\xfe.png,a\n", "is not UTF-8"),
        (b'path,label\n"a/0.png,a\n' + b"x" * 200_000, "cannot be read as a list"),
        (b"a/0.png,a\na/1.png,a\n", "only one class, 'a'"),
        (b"path,label,split\na/0.png,a,train\nb/1.png,b,test\nb/2.png,b,test\n", "class 'b': no images in train"),
    ],
)
def test_what_is_no_list_of_classes_is_refused(content: bytes, message: str, images: Path, tmp_path: Path) -> None:
    (images / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        image_list(tmp_path / "root", source=images / "list.csv")
    with pytest.raises(DataError, match=r"cannot be read.*directory"):
        image_list(tmp_path / "root", source=images)
    with pytest.raises(DataError, match=r"data\.source"):
        image_list(tmp_path / "root")


def test_a_changed_list_or_image_is_read_again_and_a_gone_list_served(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, file = tmp_path / "root", written(images, [HEAD, *PLAIN])
    first = image_list(root, source=file).fingerprint
    paint(images / "a" / "0.png", 77)
    second = image_list(root, source=file).fingerprint
    written(images, [HEAD, *PLAIN[1:]])
    third = image_list(root, source=file).fingerprint
    assert len({first, second, third}) == 3
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "other"))
    assert main(["data", "import", "csv", str(file), "--set", "size=8", "--skip-broken"]) == 0
    assert "8 x 8 pixels" in capsys.readouterr().out
    shutil.rmtree(images)
    assert image_list(root, source=file).fingerprint == third
