"""Files that users already have: class folders, and archives that may be hostile."""

from __future__ import annotations

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchkit import DataError
from benchkit.data import archives
from benchkit.data.archives import unpacked
from benchkit.data.decoding import decode_images, image_sizes
from benchkit.data.importing import find_class_folders, listing_digest


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def tar_with(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def test_class_folders_with_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/b.png", "train/dog/a.PNG", "train/cat/c.jpg", "test/cat/d.png", "test/dog/e.png")
    found = find_class_folders(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert set(found.splits) == {"train", "test"}
    assert [file.name for file in found.files("train")] == ["c.jpg", "a.PNG", "b.png"]
    assert found.labels("train") == [0, 1, 1]
    assert found.labels("test") == [0, 1]
    assert found.ignored == 0


def test_class_folders_without_splits_and_wrapped(tmp_path: Path) -> None:
    touch(tmp_path, "birds-v2/jay/1.png", "birds-v2/owl/deep/er/2.webp", "__MACOSX/jay/._1.png", ".git/x.png")
    found = find_class_folders(tmp_path)
    assert found.folder == tmp_path / "birds-v2"
    assert found.class_names == ("jay", "owl")
    assert [file.name for file in found.files("all")] == ["1.png", "2.webp"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "bus/1.png", "train/2.png", "plane/3.png")
    assert find_class_folders(tmp_path).class_names == ("bus", "plane", "train")


def test_validation_and_other_files(tmp_path: Path) -> None:
    touch(tmp_path, "Training/a/1.png", "Training/b/2.png", "Training/b/notes.txt", "Training/stray.png")
    touch(tmp_path, "valid/a/1.png", "valid/b/2.png")
    found = find_class_folders(tmp_path)
    assert set(found.splits) == {"train", "val"}
    assert found.ignored == 2


def test_every_problem_with_classes_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/2.png", "train/empty/readme.txt", "test/cat/3.png", "test/dogs/4.png")
    with pytest.raises(DataError) as caught:
        find_class_folders(tmp_path)
    text = str(caught.value)
    assert "train/empty: no images" in text
    assert "test: class 'dog' is missing (did you mean 'dogs'?)" in text
    assert "train: class 'dogs' is missing (did you mean 'dog'?)" in text
    assert "test: class 'empty' is missing" in text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("1.png",), "no class folders"),
        (("only/1.png",), "only one class"),
        (("test/a/1.png", "test/b/1.png"), "no train folder"),
        (("train/a/1.png", "train/b/1.png", "training/a/1.png", "training/b/1.png"), "two folders for the split train"),
    ],
)
def test_layouts_that_are_none(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_class_folders(touch(tmp_path, *names))


def test_a_listing_changes_with_its_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    before = listing_digest(tmp_path)
    assert listing_digest(tmp_path) == before
    os.utime(tmp_path / "a/1.png", ns=(1, 1))
    changed = listing_digest(tmp_path)
    touch(tmp_path, "b/3.png")
    assert len({before, changed, listing_digest(tmp_path)}) == 3
    with pytest.raises(DataError, match="does not exist"):
        listing_digest(tmp_path / "gone")


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_archives_are_unpacked_and_removed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"set.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train/", "")
            archive.writestr("train/cat/1.png", b"one")
            archive.writestr("train\\dog\\2.png", b"two")
    else:
        with tarfile.open(path, f"w:{ending.partition('.')[2]}") as archive:
            for name, content in (("./train/cat/1.png", b"one"), ("train/dog/2.png", b"two")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    scratch = tmp_path / "scratch"
    with unpacked(path, scratch) as folder:
        assert (folder / "train/cat/1.png").read_bytes() == b"one"
        assert (folder / "train/dog/2.png").read_bytes() == b"two"
    assert list(scratch.iterdir()) == []


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    with unpacked(tmp_path, tmp_path / "scratch") as folder:
        assert folder == tmp_path
    assert list(tmp_path.iterdir()) == []


HOSTILE: list[tuple[str, tarfile.TarInfo, str]] = [
    ("parent", member("../evil.png"), "leaves the folder"),
    ("deep-parent", member("train/../../evil.png"), "leaves the folder"),
    ("absolute", member("/tmp/evil.png"), "absolute"),
    ("windows", member("C:\\evil.png"), "absolute"),
    ("backslash", member("train\\..\\..\\evil.png"), "leaves the folder"),
    ("symlink-out", member("train/link", tarfile.SYMTYPE, "../../etc/passwd"), "outside the archive"),
    ("symlink-absolute", member("link", tarfile.SYMTYPE, "/etc/passwd"), "absolute path '/etc/passwd'"),
    ("hardlink-out", member("link", tarfile.LNKTYPE, "../secret"), "outside the archive"),
    ("symlink-to-nothing", member("link", tarfile.SYMTYPE, "missing.png"), "not a file in the archive"),
    ("fifo", member("pipe", tarfile.FIFOTYPE), "device"),
    ("character-device", member("null", tarfile.CHRTYPE), "device"),
    ("block-device", member("disk", tarfile.BLKTYPE), "device"),
]


@pytest.mark.parametrize(("info", "message"), [item[1:] for item in HOSTILE], ids=[item[0] for item in HOSTILE])
def test_hostile_tar_members_are_refused_by_name(tmp_path: Path, info: tarfile.TarInfo, message: str) -> None:
    path = tar_with(tmp_path / "set.tar.gz", (member("train/a/1.png"), b"fine"), (info, b""))
    with pytest.raises(DataError, match=message) as caught, unpacked(path, tmp_path / "scratch"):
        pass
    assert repr(info.name) in str(caught.value)
    assert sorted(child.name for child in tmp_path.rglob("*")) == ["scratch", "set.tar.gz"]


@pytest.mark.parametrize(
    ("name", "mode", "content", "message"),
    [
        ("../evil.png", 0o100644, b"", "leaves the folder"),
        ("/evil.png", 0o100644, b"", "absolute"),
        ("link", 0o120777, b"../../etc/passwd", "outside the archive"),
        ("pipe", 0o010644, b"", "device"),
    ],
)
def test_hostile_zip_members_are_refused_by_name(
    tmp_path: Path, name: str, mode: int, content: bytes, message: str
) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, content)
    with pytest.raises(DataError, match=message) as caught, unpacked(path, tmp_path / "scratch"):
        pass
    assert repr(name) in str(caught.value)
    assert not (tmp_path.parent / "evil.png").exists()


def test_links_inside_become_copies_and_cannot_be_chained(tmp_path: Path) -> None:
    fine = tar_with(
        tmp_path / "fine.tar.gz",
        (member("a/1.png"), b"one"),
        (member("b/2.png", tarfile.SYMTYPE, "../a/1.png"), b""),
        (member("b/3.png", tarfile.LNKTYPE, "a/1.png"), b""),
    )
    with unpacked(fine, tmp_path / "scratch") as folder:
        assert (folder / "b/2.png").read_bytes() == (folder / "b/3.png").read_bytes() == b"one"
        assert not (folder / "b/2.png").is_symlink()
    chained = tar_with(
        tmp_path / "chained.tar.gz",
        (member("a/1.png"), b"one"),
        (member("up", tarfile.SYMTYPE, "a"), b""),
        (member("up/evil.png"), b"evil"),
    )
    with pytest.raises(DataError, match="not a file in the archive"), unpacked(chained, tmp_path / "scratch"):
        pass


def test_archives_that_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SLACK", 100_000)
    bomb = tar_with(tmp_path / "bomb.tar.gz", (member("zeros.png"), bytes(5_000_000)))
    with pytest.raises(DataError, match=r"'zeros\.png'.*unpacks to more than"), unpacked(bomb, tmp_path / "scratch"):
        pass
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    many = tar_with(tmp_path / "many.tar.gz", (member("1.png"), b""), (member("2.png"), b""))
    with pytest.raises(DataError, match="more than 1 members"), unpacked(many, tmp_path / "scratch"):
        pass


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def scribble(path: Path) -> None:
    path.write_text("no archive")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut, "cannot be unpacked"), (scribble, "neither a folder nor an archive"), (Path.unlink, "does not exist")],
)
def test_damaged_archives(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    noise = random.Random(0).randbytes(5000)
    path = tar_with(tmp_path / "set.tar.gz", (member("1.png"), noise), (member("2.png"), noise[::-1]))
    damage(path)
    with pytest.raises(DataError, match=message), unpacked(path, tmp_path / "scratch"):
        pass
    assert list((tmp_path / "scratch").glob("*")) == []


def test_decoding_converts_modes(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    alpha = np.dstack([rgb, np.full((4, 5), 128, np.uint8)])
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(alpha).save(tmp_path / "rgba.png")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    palette = Image.new("P", (5, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    files = [tmp_path / f"{name}.png" for name in ("rgb", "rgba", "grey", "palette")]
    out = np.zeros((4, 4, 5, 3), np.uint8)
    decoded = decode_images(files, out, what="test")
    assert decoded.problems == []
    np.testing.assert_array_equal(out[0], rgb)
    np.testing.assert_array_equal(out[1], rgb)
    np.testing.assert_array_equal(out[2], np.repeat(rgb[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(out[3], np.broadcast_to([10, 20, 30], (4, 5, 3)))
    assert decoded.digests[0] == decoded.digests[1] != decoded.digests[2]
    grey = np.zeros((1, 4, 5, 1), np.uint8)
    decode_images(files[:1], grey, what="test")
    luma = rgb.astype(np.float64) @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    np.testing.assert_allclose(grey[0, ..., 0], luma, atol=1)


def test_decoding_names_what_it_cannot_use(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "fine.png")
    Image.new("RGB", (4, 5)).save(tmp_path / "turned.png")
    Image.new("I;16", (5, 4)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no image")
    fine = (tmp_path / "fine.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(fine[: len(fine) // 2])
    files = [tmp_path / f"{name}.png" for name in ("fine", "turned", "deep", "text", "cut", "missing")]
    decoded = decode_images(files, np.zeros((6, 4, 5, 3), np.uint8), what="test")
    assert [problem.partition(":")[0] for problem in decoded.problems] == [str(file) for file in files[1:]]
    assert "5x4 pixels (height x width), expected 4x5" in decoded.problems[0]
    assert "more than 8 bits" in decoded.problems[1]
    assert [bool(digest) for digest in decoded.digests] == [True, False, False, False, False, False]
    sizes, problems = image_sizes(files, what="test")
    assert sizes[:3] == [(4, 5), (5, 4), (4, 5)]
    assert sizes[3] is None and sizes[5] is None
    assert str(files[3]) in problems[0]


def test_decoding_resizes(tmp_path: Path) -> None:
    Image.new("RGB", (64, 16), (10, 200, 30)).save(tmp_path / "wide.png")
    out = np.zeros((1, 8, 8, 3), np.uint8)
    assert decode_images([tmp_path / "wide.png"], out, what="test", resize=True).problems == []
    np.testing.assert_array_equal(out[0], np.broadcast_to([10, 200, 30], (8, 8, 3)))
