"""Image files from anywhere: which are read, what is lost on the way, and that nothing else is started for them."""

from __future__ import annotations

import struct
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchkit.data.decoding import DECODING, Decoded, decode_images, image_sizes, middle_box, treatment_notes


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


def seen(*files: Path, channels: int = 3) -> tuple[Decoded, list[np.ndarray]]:
    """Return what today's rules make of files, each in its own size."""
    sizes, problems = image_sizes(files, what="test", rules=DECODING)
    outs, found = [], Decoded(digests=[], problems=problems)
    for file, size in zip(files, sizes, strict=True):
        out = np.zeros((1, *(size or (1, 1)), channels), np.uint8)
        found = decode_images([file], out, what="test", rules=DECODING)
        outs.append(out[0])
    return found, outs


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright_and_so_are_their_sizes(orientation: int, ending: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(orientation).integers(0, 256, (3, 4, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{ending}"
    given: dict[str, int | bool] = (
        {"lossless": True} if ending == "webp" else {"quality": 95} if ending == "jpg" else {}
    )
    Image.fromarray(pixels).save(file, exif=exif, **given)
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape == ((40, 30, 3) if orientation >= 5 else (30, 40, 3))
    assert image_sizes([file], what="test", rules=2)[0] == [expected.shape[:2]]
    found, (out,) = seen(file)
    assert found.problems == []
    np.testing.assert_array_equal(out, expected)
    if ending != "tif":  # Pillow has turned it by then
        assert treatment_notes([found]) == (orientation > 1) * [
            "Images that were changed when they were decoded: 1 turned as their EXIF data say."
        ]


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    for name, hidden in (("a", (0, 0, 0)), ("b", (240, 30, 10))):
        cut_out = Image.new("RGBA", (4, 4), (*hidden, 0))
        cut_out.putpixel((1, 1), (200, 60, 30, 255))
        cut_out.save(tmp_path / f"{name}.png")
    (grey := Image.new("LA", (4, 4), (0, 0))).putpixel((1, 1), (90, 255))
    grey.save(tmp_path / "c.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 200, 60, 30])
    palette.putpixel((1, 1), 0)
    palette.save(tmp_path / "d.png", transparency=1)
    Image.new("L", (4, 4), 7).save(tmp_path / "e.png", transparency=7)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "f.png", transparency=(1, 2, 3))
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "half.png")
    files = [tmp_path / f"{name}.png" for name in "abcdef"]
    found, outs = seen(*files, tmp_path / "half.png")
    assert found.problems == []
    assert [out[0, 0].tolist() for out in outs[:6]] == [[255, 255, 255]] * 6
    assert [out[1, 1].tolist() for out in outs[:4]] == [[200, 60, 30], [200, 60, 30], [90, 90, 90], [9, 9, 9]]
    assert outs[6][0, 0].tolist() == [127, 127, 127]
    both = decode_images(files[:2], np.zeros((2, 4, 4, 3), np.uint8), what="test", rules=2)
    assert both.digests[0] == both.digests[1] and both.treated == {"white": 2}
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(tmp_path / "whole.png")
    assert seen(tmp_path / "whole.png")[0].treated == {}


def test_of_more_than_eight_bits_the_upper_ones_are_used(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [40000, 65535, 1]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "b.tif")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "c.tif")
    (tmp_path / "d.pgm").write_bytes(b"P5 3 2 65535 " + values.astype(">u2").tobytes())
    for name in ("a.png", "b.tif", "c.tif", "d.pgm"):
        found, (out,) = seen(tmp_path / name, channels=1)
        assert found.problems == [] and found.treated == {"deep": 1}
        assert out[..., 0].tolist() == [[0, 0, 1], [156, 255, 0]]
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "e.tif")
    Image.fromarray(values.astype(np.int32) * 2).save(tmp_path / "f.tif")
    assert "floating-point numbers; convert it to 8 bits" in seen(tmp_path / "e.tif")[0].problems[0]
    assert "more than 16 bits a channel" in seen(tmp_path / "f.tif")[0].problems[0]


def test_twelve_bits_in_sixteen_are_told_to_be_all_but_black(tmp_path: Path) -> None:
    for name, top in (("low", 4095), ("high", 4096)):
        Image.fromarray(np.array([[0, 100], [7, top]], np.uint16)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.array([[0, 15]], np.uint8)).save(tmp_path / "eight.png")
    low, (out,) = seen(tmp_path / "low.png", channels=1)
    assert low.treated == {"deep": 1, "dark": 1} and out.max() == 15
    assert seen(tmp_path / "high.png", channels=1)[0].treated == {"deep": 1}
    assert seen(tmp_path / "eight.png", channels=1)[0].treated == {}
    (note,) = treatment_notes([low])
    assert "1 of these with values in the lower 12 bits alone, so all but black" in note


def grey_cmyk_profile(light: int) -> bytes:
    """Return an ICC profile of a printer that has white paper and, for any ink, grey of lightness `light` of 255."""
    nodes = b"".join(bytes([light if node else 255, 128, 128]) for node in range(16))  # 2 grid points for 4 inks
    identity = bytes(range(256))
    one, zero = struct.pack(">I", 0x10000), bytes(4)
    unit = one + 3 * zero + one + 3 * zero + one
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + 4 * identity + nodes + 3 * identity
    table += bytes(-len(table) % 4)
    start = 128 + 4 + 12
    head = struct.pack(">I4sI4s4s4s", start + len(table), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", start, len(table)) + table


def test_inks_are_seen_by_their_profile_and_else_converted(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    cyan.save(tmp_path / "plain.tif")
    cyan.save(tmp_path / "known.tif", icc_profile=grey_cmyk_profile(128))  # L* = 50.2, which sRGB shows as 119
    cyan.save(tmp_path / "damaged.tif", icc_profile=b"no profile")
    found, outs = seen(tmp_path / "known.tif")
    assert found.treated == {"profile": 1} and abs(outs[0].astype(int) - 119).max() <= 2
    for name in ("plain", "damaged"):
        found, outs = seen(tmp_path / f"{name}.tif")
        assert found.treated == {"cmyk": 1} and outs[0][0, 0].tolist() == [0, 255, 255]


def test_of_several_frames_the_first_is_read_and_counted(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), (200, 0, 0)), Image.new("RGB", (4, 4), (0, 200, 0))
    for name in ("a.gif", "a.tif", "a.png", "a.webp"):
        lossless = {"lossless": True} if name == "a.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **lossless)
        found, (out,) = seen(tmp_path / name)
        assert found.treated == {"animation": 1} and out[0, 0].tolist() == [200, 0, 0]
    assert treatment_notes([found]) == [
        "Images that were changed when they were decoded: 1 with several frames, of which the first is used."
    ]
