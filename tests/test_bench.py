"""The benchmark beside other tools: its arithmetic by hand, its report, and a run of some seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_study import environment

PEERS = Path(__file__).parent / "peers"


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))


def test_ratios_are_taken_within_rounds() -> None:
    from comparison import Measured, compare

    def measured(*rates: float) -> list[Measured]:
        return [Measured(rate=rate, first_step=rate / 100, seconds=36.0) for rate in rates]

    found = compare("A net", 4, {"script": measured(100, 50, 200), "benchkit": measured(300, 200, 400)})
    script, ours = found.rows
    assert (script.ratio, script.rate, script.low, script.high) == (1.0, 100, 50, 200)
    assert (ours.ratio, ours.ratio_low, ours.ratio_high) == (3.0, 2.0, 4.0)
    # A process of benchkit trains all four trials in 36 s, a script one of them.
    assert (script.trials_per_hour, ours.trials_per_hour) == (100.0, 400.0)
    assert ours.first_step == 3.0 and "x3.00 [2.00..4.00]" in found.text()


def test_growth_counts_the_time_beyond_training() -> None:
    from bench_growth import Sample, grown

    def at(finished: float) -> SimpleNamespace:
        return SimpleNamespace(finished=finished, history=(SimpleNamespace(seconds=1.0),))

    # Three trials 1.5 s apart, then three 2 s apart, each of 1 s of training.
    trials = [at(moment) for moment in (1.5, 3.0, 4.5, 6.5, 8.5, 10.5)]
    samples = [Sample(when=float(when), sweep=100.0, workers=500.0 + 10 * when) for when in range(12)]
    overhead, sweep, workers = grown(trials, samples, 1)  # type: ignore[arg-type]
    assert (overhead.first, overhead.last) == (500.0, 1000.0)
    assert sweep.ratio == 1.0 and (workers.first, workers.last) == (550.0, 610.0)


def test_a_trial_run_writes_the_report(tmp_path: Path) -> None:
    command = [sys.executable, str(PEERS / "bench.py"), "--quick", "--only", "mlp", "--workers", "0"]
    command += ["--contenders", "script,resident,benchkit", "--out", str(tmp_path), "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "benchmarks.json").read_text())
    (comparison,) = told["comparisons"]
    assert [row["contender"] for row in comparison["rows"]] == ["script", "resident", "benchkit"]
    assert all(row["rate"] > 0 and row["first_step"] > 0 for row in comparison["rows"])
    page = (tmp_path / "benchmarks.html").read_text()
    assert "A trial run: its numbers say nothing" in page and "<td>benchkit</td>" in page
