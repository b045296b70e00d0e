"""Preparing once, atomically, whatever happens; serving without surprises."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, get_ident

import numpy as np
import pytest

from benchkit import DataError, Splits
from benchkit.data.building import building_folder, put
from benchkit.locks import Lock
from benchkit.preparation import (
    About,
    Draft,
    NotPrepared,
    data_root,
    find_prepared,
    listed,
    prepare,
    prepared_folders,
    prepared_manifest,
    replacing,
    verify,
)

TRAIN = np.arange(5 * 2 * 3 * 1, dtype=np.uint8).reshape(5, 2, 3, 1)
TEST = TRAIN[:2] + 100


def fill(draft: Draft) -> About:
    draft.write("train", TRAIN, [0, 1, 0, 1, 1])
    draft.write("test", TEST, np.array([1, 0], dtype=np.int32))
    return About(class_names=("across", "down"), licence="CC0-1.0", citation="Nobody, 2024.", notes=["Made up."])


def never(draft: Draft) -> About:
    raise AssertionError("prepared twice")


def test_prepared_once_and_served(tmp_path: Path) -> None:
    first = prepare(tmp_path, "stripes", fill)
    splits = prepare(tmp_path, "stripes", never)
    for served in (first, splits):
        assert isinstance(served.train.images, np.memmap)
        assert served.train.images.dtype == np.uint8 and served.train.labels.dtype == np.int64
        np.testing.assert_array_equal(served.train.images, TRAIN)
        np.testing.assert_array_equal(served.test.images, TEST)
        assert served.train.labels.tolist() == [0, 1, 0, 1, 1]
        assert served.test.labels.tolist() == [1, 0]
        assert served.val is None
        assert (served.class_names, served.licence) == (("across", "down"), "CC0-1.0")
        assert (served.citation, served.notes) == ("Nobody, 2024.", ("Made up.",))
    assert {path.name for path in (tmp_path / "stripes").iterdir()} == {
        "manifest.json",
        "train-images.npy",
        "train-labels.npy",
        "test-images.npy",
        "test-labels.npy",
    }


def test_the_fingerprint_is_what_its_description_says(tmp_path: Path) -> None:
    content = b'["across", "down"]'
    content += b"\ntrain 5x2x3x1\n" + bytes(range(30)) + b"".join(n.to_bytes(8, "little") for n in (0, 1, 0, 1, 1))
    content += b"\ntest 2x2x3x1\n" + bytes(range(100, 112)) + b"".join(n.to_bytes(8, "little") for n in (1, 0))
    assert prepare(tmp_path, "stripes", fill).fingerprint == hashlib.sha256(content).hexdigest()


def test_writing_to_a_served_array_changes_nothing(tmp_path: Path) -> None:
    prepare(tmp_path, "stripes", fill).train.images[:] = 7
    np.testing.assert_array_equal(prepare(tmp_path, "stripes", never).train.images, TRAIN)
    assert verify(tmp_path / "stripes").name == "stripes"


def test_options_have_folders_of_their_own(tmp_path: Path) -> None:
    def build(draft: Draft) -> About:
        draft.allocate("train", [0, 1], (1, 1, 3))[:] = 9
        draft.allocate("val", [0], (1, 1, 3))[:] = 8
        draft.allocate("test", [1], (1, 1, 3))[:] = 7
        return About(class_names=("a", "b"), licence="", citation="")

    prepare(tmp_path, "stripes", fill)
    splits = prepare(tmp_path, "stripes", build, options={"size": 1, "mode": "b"})
    assert splits.val is not None
    assert splits.val.images.tolist() == [[[[8, 8, 8]]]]
    assert splits.train.images.tolist() == [[[[9, 9, 9]]]] * 2
    same = prepare(tmp_path, "stripes", never, options={"mode": "b", "size": 1})
    assert same.fingerprint == splits.fingerprint
    found = prepared_manifest(tmp_path, "stripes", {"mode": "b", "size": 1})
    assert found is not None
    assert list(found.splits) == ["train", "val", "test"]
    assert found.splits["train"].class_counts == (1, 1)
    assert found.splits["val"].class_counts == (1, 0)
    assert found.splits["test"].shape == (1, 1, 3)
    assert found.fingerprint == splits.fingerprint
    assert prepared_manifest(tmp_path, "stripes", {"size": 2}) is None
    assert [manifest.options for manifest in prepared_folders(tmp_path).values()] == [{}, {"mode": "b", "size": 1}]  # type: ignore[union-attr]


def test_another_origin_prepares_again(tmp_path: Path) -> None:
    first = prepare(tmp_path, "stripes", fill, origin="files of Monday")
    assert prepare(tmp_path, "stripes", never, origin="files of Monday").fingerprint == first.fingerprint
    assert prepare(tmp_path, "stripes", never).fingerprint == first.fingerprint

    def other(draft: Draft) -> About:
        about = fill(Draft(draft.folder, written := {}))
        draft.written.update(written)
        return About(class_names=("x", "y"), licence=about.licence, citation=about.citation)

    second = prepare(tmp_path, "stripes", other, origin="files of Tuesday")
    assert second.class_names == ("x", "y")
    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(first.train.images, TRAIN)  # what was open stays readable


def test_replacing(tmp_path: Path) -> None:
    calls = []

    def build(draft: Draft) -> About:
        calls.append(prepare(tmp_path, "inner", fill).fingerprint)
        return fill(draft)

    prepare(tmp_path, "inner", fill)
    inner = (tmp_path / "inner" / "manifest.json").stat().st_ino
    with replacing():
        prepare(tmp_path, "outer", build)
        prepare(tmp_path, "outer", build)
    assert len(calls) == 2
    assert (tmp_path / "inner" / "manifest.json").stat().st_ino == inner
    prepare(tmp_path, "outer", never)

    def broken(draft: Draft) -> About:
        raise DataError("the source is gone")

    with replacing(), pytest.raises(DataError, match="the source is gone"):
        prepare(tmp_path, "outer", broken)
    prepare(tmp_path, "outer", never)


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(draft: Draft) -> About:
        fill(draft)
        (draft.scratch / "download").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, "stripes", build)
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]
    prepare(tmp_path, "stripes", fill)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (TRAIN.astype(np.float32), [0, 1, 0, 1, 1], "float32"),
        (TRAIN[..., 0], [0, 1, 0, 1, 1], "expected uint8"),
        (TRAIN, [0, 1], "5 images but 2 labels"),
        (TRAIN, [0.5] * 5, "labels are float64"),
        (TRAIN[:0], np.zeros(0, np.int64), "N > 0"),
    ],
)
def test_arrays_that_are_no_split(tmp_path: Path, images: np.ndarray, labels: list[int], message: str) -> None:
    def build(draft: Draft) -> About:
        draft.write("train", images, labels)
        return fill(draft)

    with pytest.raises(DataError, match=message):
        prepare(tmp_path, "stripes", build)


def test_splits_that_are_no_data_set(tmp_path: Path) -> None:
    def build(draft: Draft) -> About:
        draft.write("train", TRAIN, [0, 1, 2, 1, 1])
        draft.write("val", TEST[:, :1], [0, 0])
        draft.write("test", TEST, [0, 0])
        return About(class_names=("a", "a"), licence="", citation="")

    with pytest.raises(DataError) as caught:
        prepare(tmp_path, "stripes", build)
    assert "labels 0..2, expected 0..1 for 2 classes" in str(caught.value)
    assert "all different" in str(caught.value)
    assert "differ between splits: val (1, 3, 1), test (2, 3, 1)" in str(caught.value)

    def no_test(draft: Draft) -> About:
        draft.write("train", TRAIN, [0, 1, 0, 1, 1])
        return About(class_names=("a", "b"), licence="", citation="")

    with pytest.raises(DataError, match="no test split"):
        prepare(tmp_path, "stripes", no_test)
    with pytest.raises(DataError, match="cannot name a data set"):
        prepare(tmp_path, "../stripes", fill)


def damage_size(folder: Path) -> None:
    with (folder / "train-images.npy").open("ab") as file:
        file.write(b"\0")


def damage_type(folder: Path) -> None:
    file = folder / "test-labels.npy"
    size = file.stat().st_size
    np.save(file, np.zeros(2, dtype=np.uint64))
    assert file.stat().st_size == size


def remove_labels(folder: Path) -> None:
    (folder / "train-labels.npy").unlink()


def break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def strip_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1, "splits": {}}')


def age_manifest(folder: Path) -> None:
    raw = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**raw, "format": 0}))


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_size, r"train-images\.npy: 159 bytes, expected 158"),
        (damage_type, r"test-labels\.npy: uint64 \(2,\), expected int64 \(2,\)"),
        (remove_labels, r"train-labels\.npy: .*No such file"),
        (break_manifest, r"manifest\.json cannot be read"),
        (strip_manifest, r"manifest\.json cannot be read: splits"),
        (age_manifest, "another version of benchkit"),
        (remove_manifest, "is no prepared data set"),
    ],
)
def test_damage_is_found_on_opening(tmp_path: Path, damage: object, message: str) -> None:
    prepare(tmp_path, "stripes", fill)
    assert callable(damage)
    damage(tmp_path / "stripes")
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, "stripes", never)


def test_verify_reads_every_byte(tmp_path: Path) -> None:
    splits = prepare(tmp_path, "stripes", fill)
    assert verify(tmp_path / "stripes").fingerprint == splits.fingerprint
    with (tmp_path / "stripes" / "train-images.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    prepare(tmp_path, "stripes", never)
    with pytest.raises(DataError, match=f"damaged: sha256 .*, expected {splits.fingerprint[:12]}"):
        verify(tmp_path / "stripes")
    with pytest.raises(NotPrepared):
        verify(tmp_path / "absent")


def test_find_prepared_never_builds(tmp_path: Path) -> None:
    def stripes(root: Path, *, n: int = 5) -> Splits:
        return prepare(root, "stripes", fill, options={"n": n})

    assert find_prepared(stripes, tmp_path, {}) is None
    assert list(tmp_path.iterdir()) == []
    splits = stripes(tmp_path)
    found = find_prepared(stripes, tmp_path, {"n": 5})
    assert found is not None
    assert found.fingerprint == splits.fingerprint
    assert found.notes == ("Made up.",)
    assert find_prepared(stripes, tmp_path, {"n": 6}) is None


def test_where_data_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BENCHKIT_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data_root() == tmp_path / ".cache" / "benchkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert data_root() == Path("/caches/benchkit")
    monkeypatch.setenv("BENCHKIT_DATA", "~/images")
    assert data_root() == tmp_path / "images"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_root_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written"):
        prepare(tmp_path, "stripes", fill)


def test_a_data_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be (written|read)"):
        prepare(tmp_path / "file", "stripes", fill)


def test_long_lists_of_problems_are_cut() -> None:
    assert listed(["a", "b"]) == ["a", "b"]
    assert listed([str(n) for n in range(1234)])[-2:] == ["19", "and 1,214 more"]


def test_killed_between_the_renames_it_starts_over(tmp_path: Path) -> None:
    expected = prepare(tmp_path, "stripes", fill).fingerprint
    ours = building_folder(tmp_path / "stripes")
    (tmp_path / "stripes").rename(ours.with_name(f"{ours.name}-old"))
    (ours / "scratch").mkdir(parents=True)
    assert prepared_manifest(tmp_path, "stripes") is None
    assert prepare(tmp_path, "stripes", fill).fingerprint == expected
    assert {path.name for path in tmp_path.iterdir()} == {".locks", "stripes"}


def test_what_another_machine_is_building_stays_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("benchkit.data.building.system_id", lambda: "another")
        theirs, left = building_folder(tmp_path / "stripes"), building_folder(tmp_path / "stripes")
    before = [tmp_path / ".stripes.preparing", tmp_path / ".stripes.old"]  # as earlier versions named them
    for folder in (theirs, left, *before):
        (folder / "scratch").mkdir(parents=True)
    (tmp_path / ".stripes-2.preparing").mkdir()
    for path in (left, left / "scratch"):
        os.utime(path, (1.0, 1.0))
    prepare(tmp_path, "stripes", fill)
    kept = {path.name for path in (theirs, *before, tmp_path / ".stripes-2.preparing")}
    assert {path.name for path in tmp_path.iterdir()} == {".locks", "stripes", *kept}


def test_machines_without_locks_between_them_prepare_one_valid_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everybody(lock: Lock, *, wait: bool = True) -> bool:
        return True

    monkeypatch.setattr(Lock, "acquire", everybody)
    monkeypatch.setattr("benchkit.data.building.system_id", lambda: str(get_ident()))
    together = Barrier(4)

    def slowly(draft: Draft) -> About:
        together.wait(60)
        about = fill(draft)
        together.wait(60)
        return about

    with ThreadPoolExecutor(4) as pool:
        splits = list(pool.map(lambda _: prepare(tmp_path, "stripes", slowly), range(4)))
    assert len({one.fingerprint for one in splits}) == 1
    assert verify(tmp_path / "stripes").fingerprint == splits[0].fingerprint
    assert {path.name for path in tmp_path.iterdir()} == {".locks", "stripes"}


def test_one_set_replaces_another_that_comes_up_meanwhile(tmp_path: Path) -> None:
    built, there = building_folder(tmp_path / "set"), tmp_path / "set"
    for folder, text in ((built, "ours"), (there, "theirs")):
        folder.mkdir()
        (folder / "text").write_text(text)
    put(built, there)
    assert (there / "text").read_text() == "ours" and list(tmp_path.iterdir()) == [there]


def test_a_disk_without_locks_prepares_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    assert prepare(tmp_path, "stripes", fill).fingerprint


def test_serving_imports_no_framework(tmp_path: Path) -> None:
    prepare(tmp_path, "digits", fill)
    code = (
        "import sys; from pathlib import Path; from benchkit_datasets.digits import digits; "
        f"print(len(digits(Path({str(tmp_path)!r})).train.labels)); "
        "import benchkit_datasets.cifar, benchkit_datasets.mnist, benchkit_datasets.image_folder; "
        "print(sorted({'torch', 'torchvision', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["5", "[]"]
