"""Images of one's own in class folders: what becomes of them, and how everything that is wrong is named at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchkit_datasets.image_folder import image_folder
from PIL import Image
from published_layouts import as_tar, as_zip

from benchkit import DataError, Split
from benchkit.cli import main
from benchkit.data.dataset import load_data
from benchkit.data.prepared import EARLIER
from benchkit.plan import make_plan
from benchkit.preparation import find_prepared, replacing
from benchkit.registry import Registry
from benchkit.study.settings import PluginRef
from benchkit.study.studyfile import find_study


def pairs(split: Split) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}


def paint(file: Path, seed: int, size: tuple[int, int] = (6, 4)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = size[1], size[0]
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)


def paint_folder(folder: Path, number: int = 10) -> Path:
    for seed in range(3 * number):
        paint(folder / "abc"[seed % 3] / f"{seed}.png", seed)
    return folder


def test_image_folder_with_splits(tmp_path: Path) -> None:
    source = tmp_path / "set"
    for seed, name in enumerate(["train/b/1", "train/a/2", "test/a/3", "test/b/4", "val/a/5", "val/b/6"]):
        paint(source / f"{name}.png", seed)
    splits = image_folder(tmp_path / "root", source=source)
    assert splits.class_names == ("a", "b")
    assert splits.val is not None
    for split, files in (
        (splits.train, ["train/a/2", "train/b/1"]),
        (splits.val, ["val/a/5", "val/b/6"]),
        (splits.test, ["test/a/3", "test/b/4"]),
    ):
        assert split.labels.tolist() == [0, 1]
        for image, file in zip(split.images, files, strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(source / f"{file}.png")))
    assert splits.notes == ()


def test_image_folder_splits_by_class_and_seed(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set")
    first = image_folder(tmp_path / "root", source=source, rules=1)
    # Prepared by the version before there were numbers of rules.
    assert first.fingerprint == "70bfd89397c0e9b5d1235b74d1057d9e23e45f95f29be01fac26c9f71389ef04"
    assert np.bincount(first.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(first.test.labels).tolist() == [2, 2, 2]
    assert "0.2 of each class, chosen with seed 0" in first.notes[0]
    everything = pairs(first.train) | pairs(first.test)
    assert len(everything) == 30
    today = image_folder(tmp_path / "today", source=source)
    assert pairs(today.train) | pairs(today.test) == everything
    assert image_folder(tmp_path / "again", source=source).fingerprint == today.fingerprint
    other = image_folder(tmp_path / "root", source=source, seed=1, rules=1)
    assert pairs(other.test) != pairs(first.test)
    assert pairs(other.train) | pairs(other.test) == everything
    half = image_folder(tmp_path / "root", source=source, test_fraction=0.5, rules=1)
    assert np.bincount(half.test.labels).tolist() == [5, 5, 5]


def test_image_folder_notices_changed_files(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set")
    first = image_folder(tmp_path / "root", source=source)
    paint(source / "a" / "new.png", 99)
    second = image_folder(tmp_path / "root", source=source)
    assert len(second.train.labels) + len(second.test.labels) == 31
    shutil.rmtree(source)
    assert image_folder(tmp_path / "root", source=source).fingerprint == second.fingerprint != first.fingerprint
    with pytest.raises(DataError, match="does not exist"):
        image_folder(tmp_path / "elsewhere", source=source)


def test_image_folder_reads_archives(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set")
    expected = image_folder(tmp_path / "root", source=source).fingerprint
    for archive in (as_tar(source), as_zip(source)):
        assert image_folder(tmp_path / "root", source=archive).fingerprint == expected


def test_image_folder_sizes(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set")
    paint(source / "b" / "odd.png", 50, (5, 5))
    paint(source / "c" / "odder.png", 51, (7, 5))
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path / "root", source=source)
    text = str(caught.value)
    assert "images that are not 4x6 (height x width) like most: 2" in text
    assert f"{source / 'b' / 'odd.png'}: 5x5" in text and f"{source / 'c' / 'odder.png'}: 5x7" in text
    assert "data.size" in text
    splits = image_folder(tmp_path / "root", source=source, size=8, channels=1)
    assert splits.train.images.shape[1:] == (8, 8, 1)
    flat = Image.open(source / "b" / "odd.png").convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    assert (np.asarray(flat).tobytes(), 1) in pairs(splits.train) | pairs(splits.test)


def test_image_folder_names_unreadable_images(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set")
    for number in range(25):
        (source / "a" / f"bad{number:02}.png").write_text("no image")
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path / "root", source=source)
    text = str(caught.value)
    assert "cannot be read: 25" in text and "and 5 more" in text
    assert [f"bad{number:02}.png" in text for number in range(25)].count(True) == 20
    shutil.rmtree(source)
    for name in ("a/1", "a/2", "b/3", "b/4"):
        (source / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        (source / f"{name}.png").write_text("")
    with pytest.raises(DataError, match=r"(?s)images that cannot be read: 4.*a/1\.png"):
        image_folder(tmp_path / "root", source=source)
    archive = as_tar(source)
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path / "root", source=archive)
    assert f"{archive}/b/4.png: " in str(caught.value)


def test_image_folder_refuses_a_leaking_test_set(tmp_path: Path) -> None:
    source = tmp_path / "set"
    for seed, name in enumerate(["train/a/1", "train/b/2", "test/a/3", "test/b/4"]):
        paint(source / f"{name}.png", seed)
    Image.open(source / "train/b/2.png").save(source / "test/b/copy.bmp")
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path / "root", source=source)
    assert f"{source / 'train/b/2.png'} (train) and {source / 'test/b/copy.bmp'} (test)" in str(caught.value)
    splits = image_folder(tmp_path / "root", source=source, allow_duplicates=True)
    assert splits.notes == ("Images found in more than one split, pixel for pixel: 1.",)


def test_image_folder_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.source"):
        image_folder(tmp_path)
    with pytest.raises(DataError, match="channels is 1 or 3"):
        image_folder(tmp_path, source=tmp_path, channels=2)
    paint(tmp_path / "set" / "a" / "1.png", 0)
    paint(tmp_path / "set" / "b" / "2.png", 1)
    with pytest.raises(DataError, match=r"(?s)classes too small to be split: 2.*class 'a': 1 image cannot"):
        image_folder(tmp_path, source=tmp_path / "set")


def test_everything_that_is_wrong_with_a_folder_is_named_at_once(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set", 4)
    paint(source / "a" / "odd.png", 50, (5, 5))
    (source / "b" / "empty.png").write_bytes(b"")
    (source / "b" / "text.png").write_text("no image")
    paint(source / "alone" / "only.png", 60)
    (source / "none").mkdir()
    (source / "none" / "list.csv").write_text("1")
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path / "root", source=source)
    text = str(caught.value)
    assert "classes that do not fit: 1; classes too small to be split: 1; images that are not 4x6 (height x" in text
    assert "like most: 1; images that cannot be read: 2\n" in text
    for line in (
        f"{source / 'none'}: no images (1 ending in .csv)",
        "class 'alone': 1 image cannot be split into train, test",
        f"{source / 'a' / 'odd.png'}: 5x5 pixels (height x width), expected 4x6",
        f"{source / 'b' / 'empty.png'}: the file is empty (0 bytes)",
        f"{source / 'b' / 'text.png'}: no image by its content",
        "images found: a 5, alone 1, b 6, c 4, none 0",
    ):
        assert f"  - {line}" in text
    assert "data.size = 64" in text and "skip_broken" in text


def test_broken_images_are_skipped_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = paint_folder(tmp_path / "set")
    whole = image_folder(tmp_path / "root", source=source)
    for name in ("a/bad.png", "c/worse.jpg"):
        (source / name).write_bytes(b"")
    with pytest.raises(DataError, match="images that cannot be read: 2"):
        image_folder(tmp_path / "root", source=source)
    skipped = image_folder(tmp_path / "root", source=source, skip_broken=True)
    assert skipped.fingerprint == whole.fingerprint
    assert "Images left out because they cannot be read: 2, among them bad.png." in skipped.notes
    (source / "d").mkdir()
    (source / "d" / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="all, class 'd': none of 1 images can be read"):
        image_folder(tmp_path / "root", source=source, skip_broken=True)
    shutil.rmtree(source / "d")
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "root"))
    assert main(["data", "import", "image-folder", str(source), "--skip-broken", "--replace"]) == 0
    shown = capsys.readouterr()
    assert "21 train, 9 test" in shown.out and "3, training images: " in shown.out
    assert "image-folder: Images left out because they cannot be read: 2" in shown.err
    assert main(["data", "import", "scenes", str(source)]) == 2
    assert f"benchkit data import image-folder {source}" in capsys.readouterr().err


def test_images_become_squares_in_three_ways(tmp_path: Path) -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, :, 0] = np.repeat([10, 20, 30, 40], 2)
    for name in ("a/1", "a/2", "b/3", "b/4"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        wide[:, :, 1] += 1
        Image.fromarray(wide).save(tmp_path / "set" / f"{name}.png")
    source = tmp_path / "set"
    squashed = image_folder(tmp_path / "root", source=source, size=4).train.images[0, -1, :, 0]
    assert squashed[0] < 15 and squashed[3] > 35
    cropped = image_folder(tmp_path / "root", source=source, size=4, fit="crop").train.images[0, -1, :, 0]
    assert cropped.tolist() == [20, 20, 30, 30]
    padded = image_folder(tmp_path / "root", source=source, size=8, fit="pad").train.images[0, :, :, 0]
    assert padded[:2].max() == padded[6:].max() == 0
    np.testing.assert_array_equal(padded[5], wide[3, :, 0])
    with pytest.raises(DataError, match="fit squash, crop or pad"):
        image_folder(tmp_path / "root", source=source, size=4, fit="stretch")


def test_newer_options_leave_prepared_folders_their_names(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set", 2)
    image_folder(tmp_path / "root", source=source, size=4)
    image_folder(tmp_path / "root", source=source, size=4, fit="squash", skip_broken=False)
    (folder,) = (tmp_path / "root").glob("image-folder-*")
    assert "fit" not in (folder / "manifest.json").read_text()
    image_folder(tmp_path / "root", source=source, size=4, fit="crop")
    assert len(list((tmp_path / "root").glob("image-folder-*"))) == 2


def test_sets_of_an_earlier_version_are_served_until_they_are_replaced(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set", 4)
    for file in source.rglob("*.png"):
        with Image.open(file) as image:
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(file, exif=exif)
    root = tmp_path / "root"
    before = image_folder(root, source=source, rules=1)
    assert before.train.images.shape[1:] == (4, 6, 3)
    kept = image_folder(root, source=source)
    assert kept.fingerprint == before.fingerprint
    assert EARLIER in kept.notes and EARLIER not in before.notes
    found = find_prepared(image_folder, root, {"source": source})
    assert found is not None and found.fingerprint == before.fingerprint
    assert image_folder(tmp_path / "new", source=source).train.images.shape[1:] == (6, 4, 3)
    with replacing():
        today = image_folder(root, source=source)
    assert today.train.images.shape[1:] == (6, 4, 3) and EARLIER not in today.notes
    assert image_folder(root, source=source).fingerprint == today.fingerprint != before.fingerprint
    assert image_folder(root, source=source, rules=1).fingerprint == before.fingerprint
    key = [json.loads(file.read_text())["options"] for file in root.glob("image-folder-*/manifest.json")]
    assert sorted(options.get("rules", 1) for options in key) == [1, 2]
    paint(source / "a" / "new.png", 99, (4, 6))  # other files are read by today's rules
    assert EARLIER not in image_folder(root, source=source).notes


def test_endings_of_images_that_are_not_read_are_told_by_class(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set", 4)
    (source / "d").mkdir()
    for name in ("1.HEIC", "2.heic", "3.avi", ".hidden.heic", "Thumbs.db", ".DS_Store"):
        (source / "d" / name).write_text("x")
    with pytest.raises(DataError) as caught:
        image_folder(tmp_path / "root", source=source)
    assert "d: no images (1 ending in .avi, 2 ending in .heic (images of a kind that is not read))" in str(caught.value)


def test_duplicates_within_train_are_noted_where_val_is_drawn_from_it(tmp_path: Path) -> None:
    source = tmp_path / "set"
    for seed, name in enumerate(["train/b/1", "train/a/2", "test/a/3", "test/b/4"]):
        paint(source / f"{name}.png", seed)
    for copy in ("copy.bmp", "again.bmp"):
        Image.open(source / "train/b/1.png").save(source / "train/b" / copy)
    notes = image_folder(tmp_path / "root", source=source).notes
    words = "Images found again within train, from which validation images are drawn, pixel for pixel: 2."
    assert notes == (words,)
    for seed, name in enumerate(["val/a/5", "val/b/6"], start=10):
        paint(source / f"{name}.png", seed)
    notes = image_folder(tmp_path / "root", source=source).notes
    assert notes == ("Images found again within train, pixel for pixel: 2.",)


def test_links_to_class_folders_are_followed_and_watched(tmp_path: Path) -> None:
    pool = paint_folder(tmp_path / "pool", 4)
    source = tmp_path / "set"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).symlink_to(pool / name)
    (pool / "a" / "deep").mkdir()
    (pool / "a" / "deep" / "round").symlink_to(pool / "a")
    (source / "c").mkdir()
    (source / "c" / "inner").symlink_to(pool / "c")
    first = image_folder(tmp_path / "root", source=source)
    assert len(first.train.labels) + len(first.test.labels) == 12
    for place in ("a", "c"):  # behind a linked class, and behind a link within a class
        paint(pool / place / "new.png", 90 + ord(place))
        second = image_folder(tmp_path / "root", source=source)
        assert second.fingerprint != first.fingerprint
        first = second
    assert len(second.train.labels) + len(second.test.labels) == 14


def test_files_left_out_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = paint_folder(tmp_path / "set", 4)
    paint(source / ".223" / "1.png", 70)
    paint(source / ".223" / "2.png", 71)
    (source / "a" / "notes.txt").write_text("x")
    (source / "b" / "1.heic").write_text("x")
    paint(source / "stray.png", 72)
    (note,) = [note for note in image_folder(tmp_path / "root", source=source).notes if "left out" in note]
    assert note == (
        "Files left out: 1 ending in .heic (images of a kind that is not read), 1 ending in .txt, "
        "1 in no class folder, 2 in the hidden folder .223."
    )


def test_other_names_of_jpeg_and_avif_are_images(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set", 4)
    (source / "a" / "0.png").unlink()
    Image.new("RGB", (6, 4), (9, 8, 7)).save(source / "a" / "0.jfif", "JPEG")
    (source / "b" / "1.png").unlink()
    Image.new("RGB", (6, 4), (9, 8, 7)).save(source / "b" / "1.avif")
    splits = image_folder(tmp_path / "root", source=source)
    assert len(splits.train.labels) + len(splits.test.labels) == 12


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    source = paint_folder(tmp_path / "set", 4)
    bad = os.fsencode(source / "a") + b"/bad\xff.png"
    with open(bad, "wb") as file:
        file.write((source / "a" / "0.png").read_bytes())
    environment = {**os.environ, "BENCHKIT_DATA": str(tmp_path / "root"), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "benchkit", "data", "import", "image-folder", str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert run.returncode in (0, 2) and "Traceback" not in run.stderr
    os.mkdir(os.fsencode(source) + b"/class\xff")
    shutil.copyfile(source / "a" / "0.png", os.fsencode(source) + b"/class\xff/1.png")
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert "is not UTF-8: rename it" in run.stderr


STUDY = """
title = "Folders"
[data]
name = "image-folder"
source = "images"
[model]
name = "mlp"
[train]
epochs = 1
"""


def test_paths_are_told_from_the_study_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "root"))
    study, here = tmp_path / "studies" / "own.toml", tmp_path / "here"
    study.parent.mkdir()
    study.write_text(STUDY)
    here.mkdir()
    monkeypatch.chdir(here)

    def served() -> tuple[int, str]:
        ref = PluginRef(name="image-folder", options={"source": "images"})
        splits = load_data(Registry.installed(), ref, tmp_path / "root", study)
        return len(splits.train.labels) + len(splits.test.labels), splits.fingerprint

    assert main(["studies", "check", str(study)]) == 2
    told = capsys.readouterr().err
    assert f"data.source = 'images': {study.parent / 'images'} and {here / 'images'} do not exist" in told
    with pytest.raises(DataError, match=f"{study.parent / 'images'} does not exist"):
        served()
    paint_folder(here / "images", 2)  # as it was: told from the current folder, where only that has it
    assert served()[0] == 6
    paint_folder(study.parent / "images", 3)
    assert main(["studies", "check", str(study)]) == 0
    count, fingerprint = served()
    assert count == 9
    shutil.rmtree(here / "images")
    shutil.rmtree(study.parent / "images")
    assert main(["studies", "check", str(study)]) == 0  # the prepared set is served
    assert served() == (9, fingerprint)
    # The key that the version without this rule gave, from a6d0f5e: it holds the path as it is written.
    assert [c.key for c in make_plan(find_study(str(study), Registry.installed())).conditions] == ["65df66434270"]
