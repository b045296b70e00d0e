"""Archives and folders of any kind, by hypothesis: they are read, or refused by one `DataError`, and leave nothing."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from benchkit_datasets.image_folder import image_folder
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchkit import DataError
from benchkit.data.archives import unpacked
from benchkit.data.importing import find_class_folders, listing_digest

SECRET = b"not yours"
PARTS = st.sampled_from(
    ["a", "b", "train", "test", ".", "..", "", "C:", "con", "\\", "..\\..", "1.png", "\u200fx", "é"]
)
NAMES = st.one_of(
    st.lists(PARTS, min_size=1, max_size=4).map("/".join),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
MEMBERS = st.lists(st.tuples(NAMES, st.sampled_from(KINDS), NAMES, st.binary(max_size=20)), max_size=6)
Members = list[tuple[str, bytes, str, bytes]]


def tar_of(members: Members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zip_of(members: Members) -> bytes:
    modes = {
        tarfile.REGTYPE: 0o100644,
        tarfile.DIRTYPE: 0o040755,
        tarfile.SYMTYPE: 0o120777,
        tarfile.FIFOTYPE: 0o010644,
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, kind, link, content in members:
            info = zipfile.ZipInfo(name.replace("\0", "0") or "x")
            info.create_system, info.external_attr = 3, modes.get(kind, 0) << 16
            with pytest.warns(UserWarning) if info.filename in archive.namelist() else _nothing():
                archive.writestr(info, link.encode() if kind == tarfile.SYMTYPE else content)
    return out.getvalue()


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def assert_contained(content: bytes) -> None:
    """Unpack an archive; whatever it holds, nothing outside its folder is read, written or left."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "secret").write_bytes(SECRET)
        (top / "set.bin").write_bytes(content)
        try:
            with unpacked(top / "set.bin", top / "scratch") as folder:
                inside = [path for path in folder.rglob("*")]
                assert not any(path.is_symlink() for path in inside)
                assert all(path.is_dir() or path.is_file() for path in inside)
                assert not any(path.is_file() and SECRET in path.read_bytes() for path in inside)
        except DataError as error:
            assert str(top / "set.bin") in str(error)
        assert {path.name for path in top.iterdir()} <= {"secret", "set.bin", "scratch"}
        assert list(top.glob("scratch/*")) == []
        assert (top / "secret").read_bytes() == SECRET


@settings(max_examples=80, deadline=None)
@given(members=MEMBERS, packed_as=st.sampled_from(["tar", "zip"]))
def test_any_members_are_unpacked_inside_or_refused(members: Members, packed_as: str) -> None:
    assert_contained(tar_of(members) if packed_as == "tar" else zip_of(members))


@settings(max_examples=80, deadline=None)
@given(
    packed_as=st.sampled_from(["tar", "zip"]),
    cut=st.integers(0, 300),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
)
def test_any_damage_to_an_archive_is_one_error(packed_as: str, cut: int, changes: list[tuple[int, int]]) -> None:
    members: Members = [("a/1.png", tarfile.REGTYPE, "", b"x" * 20), ("b/2.png", tarfile.REGTYPE, "", b"y" * 20)]
    content = bytearray(tar_of(members) if packed_as == "tar" else zip_of(members))
    for at, value in changes:
        content[at % len(content)] = value
    assert_contained(bytes(content[: len(content) - cut % len(content)]))


FOLDERS = st.sampled_from(["cat", "dog", "train", "test", "val", ".hidden", "__MACOSX", "deep/er"])
ENDINGS = st.sampled_from([".png", ".PNG", ".jpg", ".avif", ".txt", ""])
CONTENTS = st.sampled_from(["image", "image", "image", "other size", "grey", "empty", "text"])
FILES = st.lists(st.tuples(st.lists(FOLDERS, max_size=3), st.integers(0, 9), ENDINGS, CONTENTS), max_size=14)
LINKS = st.lists(st.tuples(st.lists(FOLDERS, min_size=1, max_size=2), st.lists(FOLDERS, max_size=2)), max_size=2)
Files = list[tuple[list[str], int, str, str]]
Links = list[tuple[list[str], list[str]]]


def content_of(kind: str, number: int) -> bytes:
    if kind in ("empty", "text"):
        return b"" if kind == "empty" else b"no image"
    out = io.BytesIO()
    size = (5, 4) if kind == "other size" else (4, 4)
    Image.new("L" if kind == "grey" else "RGB", size, number if kind == "grey" else (number, 0, 9)).save(out, "PNG")
    return out.getvalue()


def make_tree(top: Path, files: Files, links: Links) -> None:
    for folders, number, ending, kind in files:
        path = top.joinpath(*folders, f"{number}{ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.write_bytes(content_of(kind, number))
    for name, target in links:
        path = top.joinpath(*name)
        if any(part.is_symlink() and not part.exists() for part in path.parents):
            continue  # below a link to nothing there can be nothing
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and not path.is_symlink():
            path.symlink_to(top.joinpath(*target))


@settings(max_examples=60, deadline=None)
@given(files=FILES, links=LINKS, size=st.sampled_from([0, 4]), skip_broken=st.booleans())
@example(files=[(["cat"], 1, ".png", "image")], links=[(["cat", "dog"], [])], size=0, skip_broken=False)
@example(files=[], links=[(["cat"], ["cat"]), (["cat", "cat"], [])], size=0, skip_broken=False)
def test_any_tree_is_read_or_refused_by_one_error(files: Files, links: Links, size: int, skip_broken: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name) / "set"
        top.mkdir()
        make_tree(top, files, links)
        digest = listing_digest(top)
        try:
            splits = image_folder(Path(name) / "root", source=top, size=size, skip_broken=skip_broken)
        except DataError as error:
            assert str(top) in str(error)
            assert list((Path(name) / "root").glob("image-folder*")) == []
        else:
            shown = find_class_folders(top, lenient=True)
            assert splits.class_names == shown.class_names
            counts = sum(len(split.labels) for split in (splits.train, splits.test, splits.val) if split is not None)
            assert counts == sum(len(shown.files(split)) for split in shown.splits) or skip_broken
        assert listing_digest(top) == digest
