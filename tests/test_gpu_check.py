"""The check of a GPU: each part's outcome is kept as it comes, what is late is ended, what is not reached is listed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tiny_study import PATIENCE

SCRIPT = Path(__file__).parent / "peers" / "gpu_check.py"


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, codes: dict[str, str], seconds: float) -> int:
    def parts(device: str) -> Iterator[Any]:
        for name, code in codes.items():
            most = 2.0 if "sleep" in code else PATIENCE
            yield module.Part(name=name, command=(sys.executable, "-c", code), seconds=most, expected="much")

    monkeypatch.setattr(module, "parts", parts)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(out), "--seconds", str(seconds)])
    ended: int = module.main()
    return ended


def test_each_part_is_on_disk_with_what_was_expected(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {"device": "print('a card')", "slow": "import time; time.sleep(60)", "broken": "raise SystemExit('no')"}
    assert run(gpu_check, monkeypatch, tmp_path, codes, 3 * PATIENCE) == 1
    found = {one["name"]: one for one in json.loads((tmp_path / "results.json").read_text())}
    assert {name: one["state"] for name, one in found.items()} == {"device": "ok", "slow": "late", "broken": "failed"}
    assert found["device"]["words"] == "a card" and found["broken"]["words"] == "no"
    page = (tmp_path / "page.md").read_text()
    assert "3 parts: 1 ok, 1 late, 1 failed." in page and "| device | ok |" in page and "| much |" in page


@pytest.mark.parametrize(("first", "seconds"), [("raise SystemExit('no driver')", PATIENCE), ("", 4.0)])
def test_what_is_not_reached_is_listed(
    first: str, seconds: float, gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(gpu_check, monkeypatch, tmp_path, {"device": first, "rows": ""}, seconds) == (1 if first else 0)
    states = [one["state"] for one in json.loads((tmp_path / "results.json").read_text())]
    assert states == (["failed", "not run"] if first else ["not run", "not run"])


def test_a_long_part_leaves_those_behind_it_what_they_need(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long one may take all of a minute, of which three quarters are kept for the last."""
    given: list[float] = []
    planned = [
        gpu_check.Part(name="device", command=(), seconds=1.0),
        gpu_check.Part(name="long", command=(), seconds=120.0),
        gpu_check.Part(name="last", command=(), seconds=50.0, least=45.0),
    ]

    def outcome_of(part: Any, seconds: float, *_: Any) -> Any:
        given.append(seconds)
        return gpu_check.Outcome(name=part.name, state="ok", expected="")

    monkeypatch.setattr(gpu_check, "parts", lambda device: iter(planned))
    monkeypatch.setattr(gpu_check, "outcome_of", outcome_of)
    monkeypatch.setattr(gpu_check, "time", SimpleNamespace(monotonic=lambda: 100.0))
    assert len(list(gpu_check.check("cuda", 60.0, tmp_path))) == 3
    assert given == [1.0, 15.0, 50.0]


def test_every_kind_of_part_is_reached_in_five_minutes(gpu_check: ModuleType) -> None:
    parts = list(gpu_check.parts("cuda"))
    assert sum(part.least for part in parts) <= 300 - 20
    smokes = [part.name for part in parts if part.name.startswith("smoke ")]
    assert len(set(smokes)) == len(smokes) == len(list((SCRIPT.parents[2] / "benchkit" / "studies").glob("*.toml")))


def test_the_tests_that_need_a_gpu_are_found_and_the_device_comes_first(gpu_check: ModuleType) -> None:
    parts = {part.name: part for part in gpu_check.parts("cuda")}
    assert next(iter(parts)) == "device" and set(gpu_check.EXPECTED) < set(parts)
    assert "tests/test_streaming.py" in parts["other tests"].command
    assert gpu_check.STEPS not in parts["other tests"].command
    assert all((SCRIPT.parents[2] / name).exists() for name in parts["other tests"].command if name.endswith(".py"))


def test_the_tree_is_installed_for_the_parts(gpu_check: ModuleType, tmp_path: Path) -> None:
    given = gpu_check.environment(tmp_path)
    (told,) = (tmp_path / "site").iterdir()
    assert "[benchkit.norms]" in (told / "entry_points.txt").read_text()
    assert str(SCRIPT.parents[2]) in given["PYTHONPATH"].split(":")
