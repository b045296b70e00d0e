"""`benchkit studies new --from-folder`: a study that fits the photographs in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from benchkit.cli import main
from benchkit.data.photo_study import COMPARISONS, look
from benchkit.registry import Registry
from benchkit.study.studyfile import find_study

SIZES = {"cat": [(70, 90)] * 5, "dog": [(99, 66)] * 4, "eel": [(40, 40)] * 2}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos of mine"
    for label, sizes in SIZES.items():
        (folder / label).mkdir(parents=True)
        for at, (height, width) in enumerate(sizes):
            Image.fromarray(np.full((height, width, 3), at, np.uint8)).save(folder / label / f"{at}.png")
    return folder


def test_what_lies_in_the_folder_is_told(photos: Path) -> None:
    found = look(photos)
    assert found.images == {"cat": 5, "dog": 4, "eel": 2} and found.total == 11 and found.few == ["eel"]
    assert found.side == 66 and found.proposed_side == 64  # shorter sides: 70 five times, 66 four times, 40 twice


def test_without_a_terminal_the_usual_answers_are_taken_and_told(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studies", "new", "own.toml", "--from-folder", str(photos)]) == 0
    said = capsys.readouterr()
    assert "11 images of 3 classes, about 66 pixels a side" in said.out
    assert [line.rpartition(" (")[0] for line in said.err.splitlines()] == [
        "What is to be compared: norms",
        "Pixels a side to train at: 64",
        "Leave out the classes of fewer than 3 images, which cannot be split (eel): yes",
    ]
    assert main(["studies", "check", "own.toml"]) == 0
    study = find_study("own.toml", Registry.installed())
    assert study.settings["data"] == {
        "name": "image-folder", "source": str(photos), "size": 64, "fit": "crop", "least_per_class": 3,
    }  # fmt: skip
    assert (study.repeats, study.most, study.title) == (3, 12, "Own")
    train = study.settings["train"]
    assert train["optimizer"]["lr"] == pytest.approx(0.1 * train["batch_size"] / 128)


@pytest.mark.parametrize("compare", COMPARISONS)
def test_each_comparison_is_a_study(compare: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["everything", compare, "0", "48", "no"])
    asked = []

    def prompt(question: str, default: str) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr(typer, "prompt", prompt)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert main(["studies", "new", "own.toml", "--from-folder", str(photos)]) == 0
    assert len(set(asked)) == 3 and len(asked) == 5
    assert main(["studies", "check", "own.toml"]) == 0
    study = find_study("own.toml", Registry.installed())
    assert study.settings["data"]["size"] == 48 and "least_per_class" not in study.settings["data"]
    assert len(study.factors) == 1 and len(study.factors[0].levels) >= 2


def test_a_folder_without_images_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = photos.parent / "empty"
    empty.mkdir()
    one = photos / "cat" / "0.png"
    for folder, words in (
        (empty, "holds no class folders"),
        (photos.parent / "absent", "is not there"),
        (one, "is no folder"),
        (one.parent, "holds no class folders\n  - files in no class folder: 5"),
    ):
        assert main(["studies", "new", "own.toml", "--from-folder", str(folder)]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {folder} {words}\n") and "hint: expected a folder with a folder" in told
        assert not Path("own.toml").exists()
    for file in photos.rglob("*.png"):
        file.write_bytes(b"no image")
    assert main(["studies", "new", "own.toml", "--from-folder", str(photos)]) == 2
    assert "none of 11 images can be read" in capsys.readouterr().err
