"""Several sweeps of one study at once: they share the work, and no trial is trained twice."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tiny_study import FACTOR, SEARCH, all_facts, command, environment, sweep_here, write

from benchkit.ledger import read_results
from benchkit.study.studyfile import read_study


def test_two_sweeps_that_start_at_once_share_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = SEARCH.replace("low = 0.01", "low = 0.11").replace("trials = 4", "trials = 3")
    study = write(tmp_path / "tiny.toml", FACTOR, search, epochs=20, repeats=2)
    running = [
        subprocess.Popen(
            command("sweep", study, "--jobs", 1),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    ended = Counter(found for _, lines in told for found in re.findall(r"^\[[^\]]*\] (.*?): ", lines, re.MULTILINE))
    expected = [f"{label} repeat {index}" for label in ("0.1", "0.3", "best of search") for index in (0, 1)]
    expected += [f"search trial {number}" for number in (1, 2, 3)]
    assert ended == dict.fromkeys(expected, 1)

    results = read_results(tmp_path / "benchkit-runs")
    assert {trial.attempt for trial in results.trials} == {0} and len(results.trials) == len(expected)
    assert len(list((tmp_path / "benchkit-runs").rglob("result.json"))) == len(expected)
    sweep_here(monkeypatch, tmp_path / "alone", read_study(study))
    alone = all_facts(read_results(tmp_path / "alone"))
    together = all_facts(results)
    for label in ("0.1", "0.3"):  # whatever the number of jobs, a trial of the grid has the same numbers
        for index in (0, 1):
            assert together[label, index] == alone[label, index]
