"""Image files from anywhere: which are read, what is lost on the way, and that nothing else is started for them."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchkit.data.decoding import Decoded, decode_images, image_sizes, middle_box, treatment_notes


def decoded(*files: Path) -> tuple[Decoded, np.ndarray]:
    out = np.zeros((len(files), 4, 6, 3), np.uint8)
    return decode_images(files, out, what="test", resize=True), out


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EOF\n", b"%PDF-1.4\n"])
def test_no_program_is_started_for_a_file(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **_: object) -> None:
        raise AssertionError(f"started {arguments}")

    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, started)
    (tmp_path / "a.png").write_bytes(content)
    found, _ = decoded(tmp_path / "a.png")
    assert len(found.problems) == 1 and "no image by its content; AVIF, BMP, GIF, JPEG" in found.problems[0]
    _, problems = image_sizes([tmp_path / "a.png"], what="test")
    assert "no image by its content" in problems[0]


def test_formats_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    for kind in ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"):
        Image.new("RGB", (6, 4), (200, 100, 50)).save(tmp_path / f"{kind}.bin", kind)
    found, out = decoded(*sorted(tmp_path.iterdir()))
    assert found.problems == []
    np.testing.assert_allclose(out.reshape(8, -1, 3), np.broadcast_to([200, 100, 50], (8, 24, 3)), atol=6)


def test_large_photographs_are_read_without_a_word_and_larger_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")  # more than 1,000 pixels: Pillow warns
    Image.new("RGB", (60, 40)).save(tmp_path / "bomb.png")  # more than 2,000: it refuses
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, _ = decoded(tmp_path / "large.png", tmp_path / "bomb.png")
        sizes, problems = image_sizes([tmp_path / "large.png", tmp_path / "bomb.png"], what="test")
    assert caught == []
    assert len(found.problems) == len(problems) == 1
    assert found.problems[0].startswith(f"{tmp_path / 'bomb.png'}: Image size (2400 pixels)")
    assert sizes == [(30, 40), None]


def test_what_is_lost_in_decoding_is_counted(tmp_path: Path) -> None:
    rgb = Image.new("RGB", (6, 4), (10, 20, 30))
    rgb.save(tmp_path / "plain.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(tmp_path / "turned.jpg", exif=turned)
    upright = Image.Exif()
    upright[0x0112] = 1
    rgb.save(tmp_path / "upright.jpg", exif=upright)
    rgb.convert("CMYK").save(tmp_path / "print.jpg")
    rgb.convert("RGBA").save(tmp_path / "alpha.png")
    rgb.convert("P").save(tmp_path / "palette.png", transparency=0)
    rgb.save(tmp_path / "film.gif", save_all=True, append_images=[Image.new("RGB", (6, 4), (90, 0, 0))])
    found, out = decoded(*sorted(tmp_path.iterdir()))
    assert found.problems == []
    assert treatment_notes([found, found]) == [
        "Images that were changed when they were decoded: 2 with an EXIF orientation, which is not applied; 2 in CMYK, "
        "converted to RGB; 4 with an alpha channel or a transparent colour, which is dropped; 2 with several frames, "
        "of which the first is used."
    ]
    np.testing.assert_allclose(out[1], np.broadcast_to([10, 20, 30], (4, 6, 3)), atol=1)  # the film's first frame
    assert treatment_notes([Decoded(digests=[], problems=[])]) == []


def test_sixteen_bits_a_channel_are_counted(tmp_path: Path) -> None:
    # Pillow writes no such file: width 1, height 1, three 16-bit samples, 0x1234 0x5678 0x9abc.
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes.fromhex("123456789abc"))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    out = np.zeros((1, 1, 1, 3), np.uint8)
    found = decode_images([tmp_path / "deep.png"], out, what="test")
    assert found.treated == {"deep": 1}
    assert out[0, 0, 0].tolist() == [0x12, 0x56, 0x9A]


@pytest.mark.parametrize(
    ("height", "width", "aspect", "box"),
    [
        (40, 60, 1.0, (10, 0, 50, 40)),
        (61, 40, 1.0, (0, 10, 40, 50)),
        (40, 60, 0.5, (0, 5, 60, 35)),
        (40, 60, 2.0, (20, 0, 40, 40)),
    ],
)
def test_the_middle_of_an_image(height: int, width: int, aspect: float, box: tuple[int, ...]) -> None:
    assert middle_box(height, width, aspect) == box
