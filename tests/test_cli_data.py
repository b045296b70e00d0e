"""The command `benchkit data`, from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchkit_datasets.cifar import CIFAR10_CLASSES
from published_layouts import as_zip, make_stand, write_cifar10, write_class_folders

from benchkit.cli import main


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


def listing(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert main(["data", "list", "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}


def test_list_tells_what_is_prepared(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(capsys)
    assert {"cifar10", "cifar100", "digits", "image-folder", "mnist", "tiny-cifar10"} <= set(before)
    assert before["digits"] == {"name": "digits", "state": "not prepared"}
    assert not root.exists()
    assert main(["data", "prepare", "digits"]) == 0
    shown = capsys.readouterr().out
    assert "1,397 train, 400 test" in shown and "8 x 8 pixels, 1 channel" in shown and "CC BY 4.0" in shown
    row = listing(capsys)["digits"]
    assert row["state"] == "prepared"
    assert row["counts"] == {"train": 1397, "test": 400}
    assert row["image_shape"] == [8, 8, 1]
    assert row["bytes"] == sum(file.stat().st_size for file in (root / "digits").glob("*.npy"))
    assert main(["data", "list"]) == 0
    table = capsys.readouterr().out
    assert "not prepared" in table
    assert str(row["fingerprint"])[:12] in table


def test_import_and_replace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stand = make_stand(CIFAR10_CLASSES, (32, 32, 3))
    folders = write_class_folders(stand, tmp_path / "folders")
    assert main(["data", "import", "cifar10", str(folders)]) == 2
    assert "--partial" in capsys.readouterr().err
    assert main(["data", "import", "cifar10", str(as_zip(folders)), "--partial"]) == 0
    done = capsys.readouterr()
    assert "60 train, 20 test" in done.out
    assert "only a part of CIFAR-10" in done.out
    assert "decoding cifar10 train: 60 of 60" in done.err
    native = write_cifar10(make_stand(CIFAR10_CLASSES, (32, 32, 3), train=3), tmp_path / "native")
    assert main(["data", "import", "cifar10", str(native), "--partial"]) == 0
    again = capsys.readouterr()
    assert "PATH was not read" in again.err and "60 train, 20 test" in again.out
    assert main(["data", "import", "cifar10", str(native), "--partial", "--replace"]) == 0
    assert "30 train, 20 test" in capsys.readouterr().out


def test_image_folders_take_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = write_class_folders(make_stand(("owl", "jay"), (5, 5, 3)), tmp_path / "birds")
    assert main(["data", "import", "image-folder", str(folders), "--set", "size=8", "--set", "channels=1"]) == 0
    assert "8 x 8 pixels, 1 channel" in capsys.readouterr().out
    row = listing(capsys)["image-folder"]
    assert isinstance(row["options"], dict)
    assert row["options"]["source"] == str(folders)
    assert row["options"]["size"] == 8
    assert main(["data", "verify", "image-folder"]) == 0
    assert str(row["fingerprint"]) in capsys.readouterr().out


def test_verify_and_list_tell_damage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "digits"]) == 2
    assert "not prepared" in capsys.readouterr().err
    main(["data", "prepare", "digits"])
    assert main(["data", "verify", "digits"]) == 0
    with (root / "digits" / "test-images.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\xfe\xfd")
    assert main(["data", "verify", "digits"]) == 2
    assert "damaged: sha256" in capsys.readouterr().err
    (root / "digits" / "manifest.json").write_text("")
    assert listing(capsys)["digits"]["state"] == "damaged"
    assert main(["data", "verify", "digits"]) == 2
    assert main(["data", "prepare", "digits"]) == 2
    assert main(["data", "prepare", "digits", "--replace"]) == 0
    assert main(["data", "verify", "digits"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "cifar11"], "did you mean 'cifar10'"),
        (["prepare", "cifar10", "--set", "partal=true"], "did you mean 'partial'"),
        (["prepare", "cifar10", "--set", "partial=perhaps"], "expected bool"),
        (["prepare", "cifar10", "--set", "partial"], "expected OPTION=VALUE"),
        (["import", "digits", "."], "takes no files of yours"),
        (["import", "mnist", "no-such-folder"], "does not exist"),
        (["prepare", "image-folder"], "data.source"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_listing_imports_no_framework() -> None:
    code = (
        "import sys; from benchkit.cli import main; main(['data', 'list']); "
        "sys.exit(bool({'torch', 'torchvision', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("option", ["source=elsewhere", "partial=false"])
def test_what_import_says_itself_is_no_option_to_set(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write_class_folders(make_stand(CIFAR10_CLASSES, (32, 32, 3)), tmp_path / "folders")
    assert main(["data", "import", "cifar10", str(folders), "--partial", "--set", option]) == 2
    assert f"--set {option.partition('=')[0]}: " in capsys.readouterr().err
    assert not (tmp_path / "root").exists()
