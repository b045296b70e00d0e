"""The environment in which a worker runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchkit.sweep import worker


def test_compiled_code_has_its_home_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    kept = worker.environment(1)
    assert kept["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled-models")
    assert kept["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    assert worker.environment(1)["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"
