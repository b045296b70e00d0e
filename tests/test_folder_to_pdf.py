"""A folder of class folders as people have it, from the command to the PDF and to one photograph."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_study
from PIL import Image

COUNTS = {"birds": 2600, "cats": 1400, "dogs": 5, "eels": 4, "foxes": 1, "gnus": 1}
STUDY = """
title = "Photographs"
[data]
name = "image-folder"
source = "photos"
train_size = 400
val_size = 60
[model]
name = "mlp"
hidden = [8]
[train]
epochs = 1
batch_size = 50
[repeats]
n = 2
"""


def photograph(folder: Path) -> None:
    """Write the classes' images: noise of several sizes, kinds of files, and modes."""
    generator = np.random.default_rng(0)
    for at, (name, count) in enumerate(COUNTS.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = 9 + (number * 7 + at) % 12, 9 + (number * 5) % 14
            pixels = generator.integers(0, 200, (height, width, 3), dtype=np.uint8) + np.uint8(9 * at)
            image = Image.fromarray(pixels)
            suffix = ("jpg", "JPG", "png")[number % 3]
            (image.convert("L") if number % 11 == 0 else image).save(folder / name / f"photo {number}.{suffix}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_becomes_a_report_with_the_one_option_that_its_error_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph(tmp_path / "photos")
    (tmp_path / "photos.toml").write_text(STUDY, encoding="utf-8")
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(tiny_study, "environment", lambda: dict(os.environ))

    def run(*arguments: object) -> int:
        return tiny_study.run_here(monkeypatch, tmp_path, *arguments)

    assert run("sweep", "photos.toml") == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told and "foxes" in told and "gnus" in told and "birds 2,600" in told
    (least,) = set(re.findall(r"set data\.least_per_class = (\d+)", told))
    option = ("--set", f"data.least_per_class={least}")
    assert run("sweep", "photos.toml", *option) == 0
    for kind in ("html", "pdf"):
        assert run("report", "photos", "--format", kind, "--out", "out") == 0
    assert next((tmp_path / "out").rglob("*.pdf")).read_bytes().startswith(b"%PDF")
    page = next((tmp_path / "out").rglob("*.html")).read_text(encoding="utf-8")
    assert f"Classes left out because they have fewer than {least} images: foxes 1, gnus 1." in page
    assert "Classes are unbalanced" in page and "Its balanced accuracy" in page
    assert "Images are of many sizes: all became 64x64 pixels" in page
    capsys.readouterr()
    assert run("model", "photos", "--out", "winner") == 0
    assert run("predict", "winner", "photos/dogs/photo 1.JPG", "--csv") == 0
    assert "photo 1.JPG" in capsys.readouterr().out
