"""The environment of worker processes: threads, and how they wait for work."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchkit.sweep import devices, worker


@pytest.mark.parametrize(
    ("threads", "at_once", "policy"),
    [
        (2, 2, "active"),
        (4, 1, "active"),
        (2, 3, None),  # six threads on four cores: one that waits awake would keep another from working
        (1, 4, None),  # nobody to wait for
    ],
)
def test_threads_wait_awake_where_each_has_a_core(
    monkeypatch: pytest.MonkeyPatch, threads: int, at_once: int, policy: str | None
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(devices, "available_cores", lambda: 4)
    found = devices.worker_environment(threads, at_once)
    assert found.get("OMP_WAIT_POLICY") == policy
    assert found["OMP_NUM_THREADS"] == str(threads)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr(devices, "available_cores", lambda: 4)
    assert devices.worker_environment(4, 1)["OMP_WAIT_POLICY"] == "passive"


def test_a_worker_imports_nothing_from_the_folder_a_sweep_is_begun_in(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('not the queue of the standard library')\n", encoding="utf-8")
    environment, ended = devices.worker_environment(1), subprocess.DEVNULL
    done = subprocess.run(
        worker.COMMAND, cwd=tmp_path, env=environment, stdin=ended, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
