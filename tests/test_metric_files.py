"""A study whose metric is in a local file: every command that reads it takes the file, and says so without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_readme import OWN_METRIC, blocks
from tiny_study import BASE

STUDY = BASE.format(epochs=1) + '[repeats]\nn = 2\n[report]\nmetrics = ["top-two"]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metric")
    (folder / "top_two.py").write_text(blocks("python", OWN_METRIC)[0], encoding="utf-8")
    (folder / "mine.toml").write_text(STUDY, encoding="utf-8")
    track = ("--track", "tensorboard")
    swept = run(folder, "sweep", "mine.toml", "--plugin", "top_two.py", "--jobs", "1", *track)
    assert swept.returncode == 0 and "tracker" not in swept.stderr, swept.stderr
    return folder


def run(
    folder: Path, *arguments: str, program: tuple[str, ...] = ("-m", "benchkit")
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ("status", "mine"),
        ("query", "mine", "select count(*) as n from trials"),
        ("export", "mine", "--to", "csv"),
        ("clean", "mine", "--dry-run"),
        ("report", "mine", "--format", "json"),
    ],
    ids=lambda command: command[0],
)
def test_what_reads_the_study_does_so_with_and_without_the_file(folder: Path, command: tuple[str, ...]) -> None:
    """Trials keep the metric's declaration, which tells what their numbers are."""
    told, given = run(folder, *command), run(folder, *command, "--plugin", "top_two.py")
    assert (told.returncode, given.returncode) == (0, 0), told.stderr + given.stderr


UNDECLARED = """
import sys
import benchkit.metrics
benchkit.metrics.know_recorded = lambda environment: None
from benchkit.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line for trials of an earlier version, which kept no declarations."""


def test_trials_of_a_version_without_declarations_need_the_file(folder: Path) -> None:
    told = run(folder, "status", "mine", program=("-c", UNDECLARED))
    assert told.returncode == 2
    assert "metrics that are not installed here: top-two" in told.stderr and "--plugin" in told.stderr
    assert run(folder, "status", "mine", "--plugin", "top_two.py", program=("-c", UNDECLARED)).returncode == 0


def test_a_tracker_beside_a_sweep_knows_the_file(folder: Path) -> None:
    assert len(list((folder / "benchkit-runs" / "tensorboard").rglob("events*"))) >= 2


def test_a_report_holds_with_and_without_the_file(folder: Path) -> None:
    assert run(folder, "report", "mine", "--format", "html", "--plugin", "top_two.py").returncode == 0
    page = str(Path("reports") / "mine.html")
    without, given = run(folder, "verify", page), run(folder, "verify", page, "--plugin", "top_two.py")
    assert (without.returncode, given.returncode) == (0, 0), without.stdout
    assert "top-two of top_two.py is not installed here" in without.stdout and "NOT HOLD" not in without.stdout
    assert all("when they are summarised anew" in told.stdout for told in (without, given))
    text = (folder / page).read_text(encoding="utf-8")
    assert run(folder, "report", page, "--out", "again").returncode == 0
    again = (folder / "again" / "mine.html").read_text(encoding="utf-8")
    assert "top-2 accuracy" in text and text.count("top-2 accuracy") == again.count("top-2 accuracy")
    old = run(folder, "verify", page, program=("-c", UNDECLARED))
    assert old.returncode == 0 and "NOT HOLD" not in old.stdout
    assert "the metrics top-two are not installed" in old.stdout
