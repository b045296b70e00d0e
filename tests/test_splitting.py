"""Splits by each file's own hash: what moves when files come, lists that are kept, groups, and classes too small."""

from __future__ import annotations

import csv
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from benchkit_datasets.image_files import Division, ImageFile
from benchkit_datasets.image_folder import image_folder
from benchkit_datasets.splitting import SplitList, Splitting, divided, read_split_list
from PIL import Image
from published_layouts import as_tar

from benchkit import DataError
from benchkit.cli import main
from benchkit.preparation import prepared_folders, replacing

SIZES = (3, 5, 10, 20, 50, 200)
THREE = Splitting(test_fraction=0.2, val_fraction=0.2)


def files_of(sizes: Mapping[str, int], mark: str = "") -> list[ImageFile]:
    names = [(label, f"{label}/IMG{mark}{number:04}.jpg") for label, size in sizes.items() for number in range(size)]
    return [ImageFile(path=Path("/x", name), name=name, label=label) for label, name in names]


def places(division: Division) -> dict[str, str]:
    return {file.name: split for split, files in division.splits.items() for file in files}


def counts(division: Division, label: str) -> list[int]:
    return [sum(file.label == label for file in division.splits[split]) for split in ("train", "val", "test")]


@pytest.mark.parametrize(("splitting", "trials"), [(THREE, 200), (Splitting(test_fraction=0.2), 40)])
def test_files_that_come_move_no_other_one(splitting: Splitting, trials: int) -> None:
    classes = {f"c{size}": size for size in SIZES}
    wanted = ["train", "test", *(["val"] if splitting.val_fraction else [])]
    filled, without = Counter[str](), 0
    for trial in range(trials):
        files = files_of(classes, f"{trial}-")
        first = kept = places(divided(files, splitting, SplitList()))
        by_hash = {file.name: _hashed(file.name, splitting) for file in files}
        needed = {label for label in classes for split in wanted if split not in _of_class(by_hash, label)}
        filled.update(needed)
        without += len(classes) - len(needed)
        rng = random.Random(trial)
        new = [(label := rng.choice(list(classes)), f"{label}/NEW{trial}-{number}.jpg") for number in range(10)]
        for number, (label, name) in enumerate(new):
            files.append(ImageFile(path=Path("/x", name), name=name, label=label))
            if trial % 10 and number < 9:
                continue  # nine in ten trials look at the end alone: each look takes its time
            listed = SplitList(splits=kept)
            now, kept = places(divided(files, splitting, SplitList())), places(divided(files, splitting, listed))
            assert all(kept[name] == split for name, split in listed.splits.items())  # with the list nothing moves
            assert {name.partition("/")[0] for name in first if now[name] != first[name]} <= needed
    assert without > 2 * trials and filled["c200"] == 0 < filled["c3"]


def _of_class(split_of: Mapping[str, str], label: str) -> set[str]:
    return {split for name, split in split_of.items() if name.startswith(f"{label}/")}


def _hashed(name: str, splitting: Splitting) -> str:
    """Return the split by the rule as it is written down, worked out apart from the code."""
    import hashlib

    share = int(hashlib.sha256(f"{splitting.seed}/{name}".encode()).hexdigest()[:16], 16) / 16**16
    test = share < splitting.test_fraction
    return "test" if test else "val" if share < splitting.test_fraction + splitting.val_fraction else "train"


def test_small_classes_are_in_each_split_and_large_ones_by_their_shares() -> None:
    division = divided(files_of({"a": 2600, "b": 1400, "c": 5, "d": 4}), THREE, SplitList())
    assert division.problems == ()
    for label, size in (("a", 2600), ("b", 1400)):
        for got, share in zip(counts(division, label), (0.6, 0.2, 0.2), strict=True):
            assert abs(got - share * size) < 4 * (size * share * (1 - share)) ** 0.5
    assert min(counts(division, "c")) >= 1 and min(counts(division, "d")) >= 1
    names = [name for files in division.splits.values() for name in files]
    assert len(names) == 4009 == len(set(names))


def paint(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(file)


def paint_classes(folder: Path, sizes: Mapping[str, int]) -> Path:
    seed = 0
    for label, size in sizes.items():
        for number in range(size):
            paint(folder / label / f"{number}.png", seed := seed + 1)
    return folder


def listed_in(root: Path) -> dict[str, str]:
    (file,) = root.glob("image-folder-*/split.csv")
    with file.open(newline="") as stream:
        return {row["path"]: row["split"] for row in csv.DictReader(stream)}


def test_classes_too_small_are_named_in_one_error_that_says_what_to_do(tmp_path: Path) -> None:
    source = paint_classes(tmp_path / "set", {"a": 40, "b": 20, "c": 5, "d": 4, "e": 1, "f": 1})
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path / "root", source=source, val_fraction=0.2)
    text = str(caught.value)
    assert "classes too small to be split: 2\n" in text
    for label in "ef":
        assert f"class '{label}': 1 image cannot be split into train, val, test" in text
    assert "images found: a 40, b 20, c 5, d 4, e 1, f 1" in text and "set data.least_per_class = 2 to leave" in text
    splits = image_folder(tmp_path / "root", source=source, val_fraction=0.2, least_per_class=2)
    assert splits.class_names == ("a", "b", "c", "d") and splits.val is not None
    for split in (splits.train, splits.val, splits.test):
        assert sorted(set(split.labels.tolist())) == [0, 1, 2, 3]
    assert "Classes left out because they have fewer than 2 images: e 1, f 1." in splits.notes
    assert any(f"{len(splits.test.labels)} test" in note for note in splits.notes)


@pytest.mark.parametrize("least", [13, 41])
def test_an_error_says_that_too_few_classes_are_left(least: int, tmp_path: Path) -> None:
    source = paint_classes(tmp_path / "set", {"a": 40, "b": 12})
    with pytest.raises(DataError, match="classes that do not fit: 1\n") as caught:
        image_folder(tmp_path / "root", source=source, least_per_class=least)
    assert caught.value.problems == (
        f"fewer than two classes have {least} images (data.least_per_class)",
        "images found: a 40, b 12",
    )


def test_the_list_beside_a_prepared_set_is_kept_and_may_be_edited(tmp_path: Path) -> None:
    source = paint_classes(tmp_path / "set", {"a": 12, "b": 12})
    root = tmp_path / "root"
    first = image_folder(root, source=source)
    before = listed_in(root)
    assert len(before) == 24 and Counter(before.values())["test"] == len(first.test.labels)
    (file,) = root.glob("image-folder-*/split.csv")
    edited = {**before, "a/0.png": "test" if before["a/0.png"] == "train" else "train"}
    file.write_text("path,split\n" + "".join(f"{name},{split}\n" for name, split in edited.items()))
    with replacing():
        image_folder(root, source=source)
    assert listed_in(root) == edited
    paint(source / "a" / "new.png", 99)
    image_folder(root, source=source)
    after = listed_in(root)
    assert {name: after[name] for name in edited} == edited and len(after) == 25


def test_a_list_is_given_by_option_and_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = paint_classes(tmp_path / "set", {"a": 4, "b": 4})
    wanted = {
        f"{label}/{number}.png": ("train", "train", "val", "test")[number] for label in "ab" for number in range(4)
    }
    given = tmp_path / "mine.csv"
    given.write_bytes(b"\xef\xbb\xbfpath;split\r\n" + "".join(f"{n};{s}\r\n" for n, s in wanted.items()).encode())
    splits = image_folder(tmp_path / "root", source=source, split=given)
    assert listed_in(tmp_path / "root") == wanted
    assert splits.val is not None and splits.val.labels.tolist() == [0, 1]
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "other"))
    assert main(["data", "import", "image-folder", str(source), "--split", str(given)]) == 0
    assert "4 train, 2 val, 2 test" in capsys.readouterr().out
    given.write_text("path,split\na/0.png,exam\na/1.png,test\na/1.png,val\n")
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path / "root", source=source, split=given)
    assert "line 2: split 'exam'" in str(caught.value) and "line 4: a/1.png has the splits test and val" in str(
        caught.value
    )
    given.write_text("file,part\n")
    with pytest.raises(DataError, match="no column path: file, part"):
        read_split_list(given)
    given.write_text("path,label\na/0.png,a\n")
    with pytest.raises(DataError, match="no line names a split or a group"):
        read_split_list(given)
    given.write_text('path,split\n"a/0.png,test\n' + "x" * 200_000)
    with pytest.raises(DataError, match="cannot be read as a list"):
        read_split_list(given)


def groups_by_split(division: Division, group: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for split, files in division.splits.items():
        for file in files:
            found.setdefault(Path(file.name).stem.partition(group)[0], set()).add(split)
    return found


def subjects(number: int, each: int = 4) -> list[ImageFile]:
    names = [(label, f"{label}/{label}p{who}_{n}.png") for label in "ab" for who in range(number) for n in range(each)]
    return [ImageFile(path=Path("/x", name), name=name, label=label) for label, name in names]


def test_pictures_of_one_subject_stay_together() -> None:
    alone = divided(subjects(12), THREE, SplitList())
    assert max(len(splits) for splits in groups_by_split(alone, "_").values()) > 1
    assert any("Names look numbered" in note for note in alone.notes)
    together = divided(subjects(12), Splitting(test_fraction=0.2, val_fraction=0.2, group="_"), SplitList())
    assert together.problems == () and not any("look numbered" in note for note in together.notes)
    assert [len(splits) for splits in groups_by_split(together, "_").values()] == [1] * 24
    for label in "ab":
        assert min(counts(together, label)) >= 4
    listed = {file.name: Path(file.name).stem.partition("_")[0] for file in subjects(12)}
    by_list = divided(subjects(12), THREE, SplitList(groups=listed))
    assert places(by_list) == places(together)
    few = divided(subjects(2), Splitting(test_fraction=0.2, val_fraction=0.2, group="_"), SplitList())
    assert few.problems[0] == "class 'a': 8 images in 2 groups cannot be split into train, val, test"
    one, other = (file.name for file in subjects(1)[:2])
    torn = divided(subjects(12), THREE, SplitList(groups=listed, splits={one: "train", other: "test"}))
    assert torn.torn == ("'group ap0' is listed in test and in train",)


def test_folders_below_those_of_classes_may_be_groups() -> None:
    names = [f"{c}/p{who}/{n}.png" for c in "ab" for who in range(12) for n in range(4)] + [
        "a/alone.png",
        "b/alone.png",
    ]
    files = [ImageFile(path=Path("/x", name), name=name, label=name[0]) for name in names]
    alone = divided(files, Splitting(test_fraction=0.3), SplitList())
    assert any("Images lie in folders of their own (p0, ...)" in note for note in alone.notes)
    by_class = [
        ImageFile(path=Path("/x", f"{c}/{n}"), name=f"{c}/{n}", label=f"the {c}") for c in "abcd" for n in range(9)
    ]
    assert not any("of their own" in note for note in divided(by_class, THREE, SplitList()).notes)
    whole = divided(files, Splitting(test_fraction=0.3, group="/"), SplitList())
    assert not any("of their own" in note for note in whole.notes)
    found: dict[str, set[str]] = {}
    for name, split in places(whole).items():
        found.setdefault(Path(name).parent.name, set()).add(split)
    assert [len(found[f"p{who}"]) for who in range(12)] == [1] * 12
    assert {file.group for each in whole.splits.values() for file in each} == {"", *(f"p{who}" for who in range(12))}


def test_with_groups_val_is_a_split_of_its_own() -> None:
    grouped = Splitting(test_fraction=0.2, group="_")
    division = divided(subjects(30), grouped, SplitList())
    assert division.splits["val"] and [len(s) for s in groups_by_split(division, "_").values()] == [1] * 60
    assert any("(0.2 test and 0.08 val)" in note for note in division.notes)
    assert divided(subjects(30), grouped, SplitList(), val=False).splits["val"] == ()
    assert divided(subjects(30), Splitting(test_fraction=0.2), SplitList()).splits["val"] == ()


def subject_folders(folder: Path, splits: Mapping[str, Sequence[str]]) -> Path:
    """Paint three images of each subject in class a and in class b of each split: SPLIT/CLASS/SUBJECT_n.png."""
    names = [
        f"{s}/{c}/{who}_{n}.png" for s, subjects in splits.items() for c in "ab" for who in subjects for n in "123"
    ]
    for seed, name in enumerate(names):
        paint(folder / name, seed)
    return folder


@pytest.mark.parametrize("by", ["name", "list"])
def test_groups_are_whole_where_folders_name_the_test_images(by: str, tmp_path: Path) -> None:
    source = subject_folders(tmp_path / "set", {"train": [f"p{n}" for n in range(9)], "test": ["q0", "q1"]})
    options = {"group": "_"}
    if by == "list":
        options, given = {}, tmp_path / "groups.csv"
        files = [file.relative_to(source) for file in source.rglob("*.png")]
        given.write_text("path,group\n" + "".join(f"{file},{file.name[:2]}\n" for file in files))
    splits = image_folder(tmp_path / "root", source=source, split=None if by == "name" else given, **options)
    assert not any("that no image has" in note for note in splits.notes)
    named = {}
    for split in ("train", "val", "test"):
        (file,) = (tmp_path / "root").glob(f"image-folder-*/{split}-files.json")
        named[split] = {name.rpartition("/")[2][:2] for name in json.loads(file.read_text())}
    assert named["test"] == {"q0", "q1"} and named["val"] and not named["train"] & named["val"]
    assert named["train"] | named["val"] == {f"p{n}" for n in range(9)}
    assert len(listed := listed_in(tmp_path / "root")) == 66
    assert {name for name, split in listed.items() if split == "test"} == {n for n in listed if n.startswith("test/")}
    with replacing():
        again = image_folder(tmp_path / "root", source=source, split=None if by == "name" else given, **options)
    assert again.fingerprint == splits.fingerprint
    assert splits.val is not None and sorted(set(splits.val.labels.tolist())) == [0, 1]
    assert splits.val.groups is not None and len(set(splits.val.groups.tolist())) == len(named["val"])


@pytest.mark.parametrize("second", ["test", "val"])
def test_a_group_in_two_folders_of_splits_is_refused(second: str, tmp_path: Path) -> None:
    source = subject_folders(tmp_path / "set", {"train": [f"p{n}" for n in range(9)], second: ["p3", "q"]})
    with pytest.raises(DataError, match=f"group 'p3' is in (train|test) and in {second}|'p3' is in {second} and in"):
        image_folder(tmp_path / "root", source=source, group="_")
    assert image_folder(tmp_path / "root", source=source).train.groups is None


def test_what_a_list_of_splits_does_is_told(tmp_path: Path) -> None:
    source, given = paint_classes(tmp_path / "set", {"a": 12, "b": 12}), tmp_path / "mine.csv"
    image_folder(tmp_path / "root", source=source)
    moved = {name: {"test": "train", "train": "test"}[split] for name, split in listed_in(tmp_path / "root").items()}
    rows = {**moved, "a/gone.png": "test", "a/lost.png": "test"}
    given.write_text("path,split\n" + "".join(f"{name},{split}\n" for name, split in rows.items()))
    notes = image_folder(tmp_path / "root", source=source, split=given).notes
    assert "Images that are where the list of splits says, and not by their hash: 24." in notes
    assert "Names in the list of splits that no image has: 2, a/gone.png, a/lost.png." in notes
    given.write_text("path,split\nset/a/0.png,test\n")
    with pytest.raises(DataError, match="no image has a name that it lists") as caught:
        image_folder(tmp_path / "root", source=source, split=given)
    assert caught.value.problems == ("listed is, for example, 'set/a/0.png', an image is 'a/0.png'",)


def test_no_image_goes_missing_where_list_and_folders_name_different_splits(tmp_path: Path) -> None:
    source = paint_classes(tmp_path / "set", {"train/a": 9, "train/b": 9, "val/a": 3, "val/b": 3})
    given = tmp_path / "mine.csv"
    given.write_text("path,split\ntrain/a/0.png,val\ntrain/b/0.png,train\n")
    splits = image_folder(tmp_path / "root", source=source, split=given)
    assert splits.val is not None and len(splits.val.labels) == 6
    assert len(splits.train.labels) + len(splits.test.labels) == 18


def test_classes_that_are_left_out_may_be_empty_or_absent_from_a_split(tmp_path: Path) -> None:
    source = paint_classes(tmp_path / "set", {"train/a": 9, "train/b": 9, "train/c": 3, "test/a": 4, "test/b": 4})
    for split in ("train", "test"):
        (source / split / "none").mkdir()
    with pytest.raises(DataError, match="class 'c' is missing") as caught:
        image_folder(tmp_path / "root", source=source, least_per_class=1)
    assert "none" not in caught.value.problems[0]
    splits = image_folder(tmp_path / "root", source=source, least_per_class=4)
    assert splits.class_names == ("a", "b")
    assert "Classes left out because they have fewer than 4 images: c 3, none 0." in splits.notes
    with pytest.raises(DataError, match="no images") as caught:
        image_folder(tmp_path / "root", source=source)
    assert "set data.least_per_class = 1 to leave empty ones out" in caught.value.hint


def test_of_many_classes_the_smallest_and_largest_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = paint_classes(tmp_path / "set", {f"train/c {n}": 2 for n in range(13)} | {"train/c 7": 4, "train/c 9": 1})
    for number in range(13):
        paint(source / "test" / f"c {number}" / "0.png", 1000 + number)
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "data"))
    assert main(["data", "import", "image-folder", str(source)]) == 0
    assert "13, training images: 1 (c 9) to 4 (c 7)" in capsys.readouterr().out


def test_an_image_of_two_classes_is_named(tmp_path: Path) -> None:
    source = paint_classes(tmp_path / "set", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    for name in ("a/9.png", "b/9.png"):
        paint(source / "train" / name, 77)
    notes = image_folder(tmp_path / "root", source=source).notes
    assert "Images that are in two classes, pixel for pixel: 1, train/a/9.png and train/b/9.png." in notes


def test_images_of_many_sizes_are_resized_and_a_few_odd_ones_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        for label in "ab":
            (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20 + number, 90 - number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{number}.png")
    splits = image_folder(tmp_path / "root", source=tmp_path / "set")
    assert splits.train.images.shape[1:] == (64, 64, 3)
    assert "Images are of many sizes: all became 64x64 pixels (data.size, data.fit)." in splits.notes
    assert image_folder(tmp_path / "root", source=tmp_path / "set", size=64).fingerprint == splits.fingerprint
    with pytest.raises(DataError, match=r"like most: 38"):
        image_folder(tmp_path / "root", source=tmp_path / "set", rules=1)


def test_names_are_the_same_in_either_form_of_unicode_folder_or_archive(tmp_path: Path) -> None:
    def made(folder: Path, form: str) -> Path:
        for label in ("café", "thé"):
            for number in range(12):
                name = unicodedata.normalize(form, f"{label}/é{number}.png")  # type: ignore[arg-type]
                paint(folder / name, number + 100 * (label == "thé"))
        return folder

    composed = made(tmp_path / "nfc" / "wrapped" / "set", "NFC")
    apart = made(tmp_path / "nfd", "NFD")
    expected = image_folder(tmp_path / "root", source=composed)
    assert expected.class_names == ("café", "thé")
    for source in (apart, as_tar(composed), tmp_path / "nfc"):
        assert image_folder(tmp_path / "root", source=source).fingerprint == expected.fingerprint
    paint(composed / "café" / "É1.png", 500)
    notes = image_folder(tmp_path / "root", source=composed).notes
    assert any("differ in case alone" in note and "café/é1.png" in note for note in notes)
    paint(composed / "café" / unicodedata.normalize("NFD", "é1.png"), 501)
    with pytest.raises(DataError, match=r"'café/é1\.png': 2 files of this name, in other Unicode letters"):
        image_folder(tmp_path / "root", source=composed)


def test_only_prepared_sets_hold_a_list(tmp_path: Path) -> None:
    source = paint_classes(tmp_path / "set", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    image_folder(tmp_path / "root", source=source)
    assert list((tmp_path / "root").rglob("split.csv")) == []
    given = tmp_path / "list.csv"
    given.write_text("path,split\ntrain/a/0.png,test\n")
    notes: Sequence[str] = image_folder(tmp_path / "root", source=source, split=given).notes
    assert "The folders name the splits: the list of splits was not used." in notes
    assert len(prepared_folders(tmp_path / "root")) == 2


STUDY = """
title = "Photographs"
[data]
name = "image-folder"
source = "photos"
[model]
name = "mlp"
[train]
epochs = 1
batch_size = 64
optimizer = { name = "sgd", lr = 0.002 }
"""


@pytest.mark.slow
def test_a_tree_as_people_have_it_becomes_a_report_with_the_one_option_that_the_first_error_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for label, size in zip("abcdef", (260, 140, 5, 4, 1, 1), strict=True):
        Path("photos", label).mkdir(parents=True)
        for number in range(size):
            pixels = rng.integers(0, 256, (*rng.integers(20, 90, 2), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("photos", label, f"IMG{number:04}.{rng.choice(['jpg', 'JPG', 'png'])}"))
    Path("photos.toml").write_text(STUDY)
    assert main(["sweep", "photos.toml", "--device", "cpu"]) == 2
    assert "set data.least_per_class = 2 to leave" in capsys.readouterr().err
    Path("photos.toml").write_text(STUDY.replace('source = "photos"', 'source = "photos"\nleast_per_class = 2'))
    assert main(["sweep", "photos.toml", "--device", "cpu", "--jobs", "1"]) == 0
    assert main(["report", "photos.toml", "--format", "html"]) == 0
    page = Path("reports/photos.html").read_text()
    for words in (
        "fewer than 2 images: e 1, f 1",
        "Classes are unbalanced: “a” has",
        "many sizes",
        "always would score",
    ):
        assert words in page
