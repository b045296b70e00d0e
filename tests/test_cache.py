"""The user's home where there is none, and the caches in it."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from benchkit.cli import main
from benchkit.errors import BenchkitError
from benchkit.preparation import data_root
from benchkit.storage import cache_folder, home_folder


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in a container whose user has no entry in passwd and no HOME; temporary files are below the folder."""

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setenv("HOME", "")  # restored at the end, whatever the code under test sets
    for name in ("HOME", "BENCHKIT_CACHE", "BENCHKIT_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError):
        Path.home()
    return tmp_path / f"benchkit-home-{os.getuid()}"


def test_without_a_home_a_private_folder_takes_its_place(homeless: Path) -> None:
    assert home_folder() == homeless and homeless.stat().st_mode & 0o777 == 0o700
    assert Path.home() == homeless, "libraries and child processes find it, too"
    assert cache_folder() == data_root() == homeless / ".cache" / "benchkit"


def test_commands_work_without_a_home(homeless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "show", "quickstart"]) == 0  # no file of a cache is asked for
    assert os.environ["HOME"] == str(homeless)


@pytest.mark.parametrize("foreign", ["open", "link", "file"])
def test_a_folder_that_others_can_write_is_refused(homeless: Path, tmp_path: Path, foreign: str) -> None:
    if foreign == "open":
        homeless.mkdir()
        homeless.chmod(0o777)
    elif foreign == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        homeless.symlink_to(tmp_path / "theirs")
    else:
        homeless.write_text("")
    with pytest.raises(BenchkitError, match="has no home folder") as caught:
        home_folder()
    assert caught.value.hint == "set HOME to a folder of yours"
    assert main(["plugins", "list"]) == 2
