"""The benchmark of clusters: its arithmetic by hand, and some simulated seats on a real cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray_nodes import RayNodes
from tiny_study import environment

PEERS = Path(__file__).parent / "peers"


def test_trials_an_hour_count_from_the_first_start_to_the_last_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))
    from bench_cluster import at_share, hourly

    trials = [SimpleNamespace(started=start, finished=start + 10) for start in (100.0, 105.0, 110.0, 110.0)]
    assert hourly(trials) == 720.0  # type: ignore[arg-type]
    assert [at_share([1.0, 2.0, 3.0, 4.0], share) for share in (0.5, 0.99)] == [3.0, 4.0]


@pytest.mark.ray
def test_simulated_seats_end_all_trials_and_say_how_long_they_waited(ray_nodes: RayNodes) -> None:
    small = ("--seats", "4", "--seconds", "0.05", "--epochs", "2", "--each", "2", "--processes", "2", "--json")
    command = [sys.executable, PEERS / "bench_cluster.py", "seats", "--cluster", ray_nodes.address, *small]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["seats"], found["trials"], found["done"], found["epochs"]) == (4, 8, 8, 16)
    assert 0 < found["delay_p50"] <= found["delay_p99"] <= found["delay_most"]
    assert found["messages_a_second"] > 0 and found["mib"] > 0
    assert [one["trials_at_once"] for one in found["for_64_gpus"]] == [64, 256]
