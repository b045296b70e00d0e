"""Image sets of the Hugging Face hub, from a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from benchkit_datasets.hub import hub
from benchkit_datasets.image_folder import image_folder
from local_hub import local_hub
from PIL import Image

from benchkit import DataError

HELD = """
import json, sys
from pathlib import Path
import numpy as np
from benchkit import DataError
from benchkit_datasets.hub import hub
told = []
for options in json.loads(sys.argv[2]):
    try:
        splits = hub(Path(sys.argv[1]), **options)
    except DataError as error:
        told.append({"what": error.what, "problems": list(error.problems), "hint": error.hint})
    else:
        told.append({"fingerprint": splits.fingerprint, "names": splits.class_names, "notes": splits.notes})
print(json.dumps(told))
"""


def asked(root: Path, home: Path, endpoint: str, *options: Mapping[str, str], **more: str) -> list[dict[str, object]]:
    """Return what a process of its own makes of these options: the hub's client reads its settings once."""
    pytest.importorskip("datasets")
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, **more}
    command = [sys.executable, "-c", HELD, str(root), json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def paint(folder: Path, count: int, seed: int, **saved: object) -> None:
    """Write photographs on their side, by EXIF data, as people have them, into two class folders of train and test."""
    generator = np.random.default_rng(seed)
    for split in ("train", "test"):
        for name in ("zebra", "ant"):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
                exif = Image.Exif()
                exif[0x0112] = 6
                image.save(place / f"{number}.jpg", exif=exif)


@pytest.fixture
def repositories(tmp_path: Path) -> dict[str, Path]:
    paint(tmp_path / "pets", 3, 0)
    (tmp_path / "pets" / "README.md").write_text("---\nlicense: mit\n---\n# Pets\n")
    script = tmp_path / "scripted"
    script.mkdir()
    (script / "scripted.py").write_text("raise SystemExit('never run')\n")
    return {"me/pets": tmp_path / "pets", "me/scripted": script}


@pytest.mark.slow
def test_the_same_file_has_the_same_pixels_online_offline_and_in_a_folder(
    tmp_path: Path, repositories: dict[str, Path]
) -> None:
    with local_hub(repositories) as (endpoint, paths, commits):
        home = tmp_path / "home"
        first, scripted, absent = asked(
            tmp_path / "root",
            home,
            endpoint,
            {"variant": "me/pets"},
            {"variant": "me/scripted"},
            {"variant": "me/none"},
        )
        assert str(scripted["what"]) == (
            "hf:me/scripted is made by a script of its own, scripted.py, which is never run"
        )
        assert str(absent["what"]).startswith("hf:me/none at revision main cannot be had: ")
        assert any(path.endswith(".jpg") for path in paths)
        before = len(paths)
        (again,) = asked(tmp_path / "other", home, endpoint, {"variant": "me/pets"}, HF_HUB_OFFLINE="1")
        assert len(paths) == before
    assert again["fingerprint"] == first["fingerprint"] and first["names"] == ["ant", "zebra"]
    commit = commits["me/pets"]
    for told in (first, again):
        notes = str(told["notes"])
        assert f"Data set me/pets of the Hugging Face hub at revision {commit}." in notes
        assert "Licence, as its card states it: mit." in notes
    (repositories["me/pets"] / "README.md").unlink()
    folder = image_folder(tmp_path / "root", source=repositories["me/pets"])
    assert folder.train.images.shape[1:] == (8, 6, 3)  # upright
    assert folder.fingerprint == first["fingerprint"]
    # What is prepared is served without the package and without a hub.
    served = hub(tmp_path / "root", variant="me/pets")
    assert served.fingerprint == first["fingerprint"]


@pytest.mark.slow
def test_columns_and_classes_that_are_unclear_are_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "odd" / "data"
    folder.mkdir(parents=True)
    images = [Image.fromarray(np.full((4, 4, 3), 20 * n, dtype=np.uint8)) for n in range(8)]
    columns = {
        "photo": images,
        "mask": images[::-1],
        "kind": [0, 1, -1, 1, 0, -1, 1, 0],
        "age": [str(n % 2) for n in range(8)],
    }
    features = datasets.Features(
        photo=datasets.Image(),
        mask=datasets.Image(),
        kind=datasets.ClassLabel(names=["no", "yes"]),
        age=datasets.Value("string"),
    )
    table = datasets.Dataset.from_dict(columns, features=features)
    for split in ("train", "test"):
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    with local_hub({"me/odd": tmp_path / "odd"}) as (endpoint, _, _):
        unclear, secret, clear = asked(
            tmp_path / "root",
            tmp_path / "home",
            endpoint,
            {"variant": "me/odd"},
            {"variant": "me/odd", "image": "photo"},
            {"variant": "me/odd", "image": "photo", "label": "age", "allow_duplicates": True},  # type: ignore[dict-item]
        )
    assert unclear["what"] == "hf:me/odd has the columns photo, mask, kind, age"
    assert unclear["problems"] == ["columns that may be the image: photo, mask; choose with data.image"]
    assert secret["what"] == "hf:me/odd: 2 of 8 images of train have no class"
    assert clear["names"] == ["0", "1"]


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        (("train", "extra", "rest"), "has splits of other names: extra, rest"),
        (("train", "validation", "test", "val"), "has several splits of one kind: validation, val"),
    ],
)
def test_splits_that_cannot_be_told_are_refused(
    splits: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("benchkit_datasets.hub._downloaded", lambda name, revision: tmp_path)
    monkeypatch.setattr("benchkit_datasets.hub._tables", lambda *given: dict.fromkeys(splits))
    with pytest.raises(DataError, match=f"hf:me/pets {told}"):
        hub(tmp_path / "root", variant="me/pets")


def test_without_the_package_it_says_how_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="hf:me/pets needs the package datasets") as caught:
        hub(tmp_path, variant="me/pets")
    assert caught.value.hint == "pip install 'benchkit[hf]'"
