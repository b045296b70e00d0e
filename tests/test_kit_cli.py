"""`benchkit plugins check` and what a plugin for another interface meets on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from throwaway_distributions import NORM, write_distribution

from benchkit.cli import main
from benchkit.testing import KIT_VERSION

PLUGINS = """
import broken_regularizers

Sound = broken_regularizers.Sound
HalfTargets = broken_regularizers.HalfTargets
PLUGINS = {"benchkit.regularizers": {"sound": Sound, "half": HalfTargets}}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mine.py"
    path.write_text(PLUGINS)
    return path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main(["plugins", "check", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_passing_plugin_exits_with_0(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", "sound", "--plugin", str(file)]) == 0
    told = capsys.readouterr().out
    assert told == f"regularizer sound ({file}): 11 passed\n"


def test_options_that_no_check_varies_are_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(PLUGINS.replace('"half": HalfTargets', '"seldom": broken_regularizers.SeldomRun'))
    main(["plugins", "check", "seldom", "--plugin", str(file)])
    told = capsys.readouterr().out
    assert "not varied: layers (tuple[str, ...]); `--option layers=...` checks another value\n" in told
    main(["plugins", "check", "seldom", "--plugin", str(file), "--option", "layers=['stem']"])
    assert "not varied" not in capsys.readouterr().out


def test_a_failure_exits_with_1_and_names_everything(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", "half", "--plugin", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"regularizer half ({file}): 1 failed, 9 passed, 1 skipped"
    assert lines[1] == "check 'targets' failed for the regularizer 'half'"
    assert [line.split(":")[0].strip() for line in lines[2:]] == ["input", "expected", "got", "likely"]


def test_json_holds_every_check(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = answer(capsys, "half", "--plugin", str(file))
    (one,) = found["plugins"]
    assert code == 1 and found["kit"] == KIT_VERSION and one["result"] == "failed" and one["kind"] == "regularizers"
    checks = {check["check"]: check for check in one["checks"]}
    assert checks["targets"]["state"] == "failed" and checks["targets"]["expected"] == "targets whose rows sum to 1"
    assert checks["hooks"]["state"] == "passed" and checks["hooks"]["got"] == ""


def test_a_stated_failure_is_no_failure(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = answer(capsys, "half", "--plugin", str(file), "--expect", "targets=half on purpose")
    states = {check["check"]: (check["state"], check["note"]) for check in found["plugins"][0]["checks"]}
    assert code == 0 and states["targets"] == ("expected", "half on purpose")
    code, found = answer(capsys, "sound", "--plugin", str(file), "--expect", "targets=it does not")
    assert code == 1 and found["plugins"][0]["result"] == "failed"


def test_options_are_given_throughout(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "sound", "--plugin", str(file), "--option", "strength=0.2")[0] == 0
    assert main(["plugins", "check", "sound", "--plugin", str(file), "--option", "strenght=0.2"]) == 2
    assert "did you mean 'strength'" in capsys.readouterr().err
    assert main(["plugins", "check", "sound", "--plugin", str(file), "--option", "strength"]) == 2
    assert "NAME=VALUE" in capsys.readouterr().err


def test_names_and_all_exclude_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check"]) == 2
    assert main(["plugins", "check", "gn", "--all"]) == 2
    assert "name one plugin, or give --all" in capsys.readouterr().err
    assert main(["plugins", "check", "mixupp"]) == 2
    assert "did you mean 'mixup'" in capsys.readouterr().err


def test_all_checks_a_kind_with_broken_and_incomplete_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCHKIT_DISABLE_PLUGINS", "resnet,mlp,skipnet,net3,basenet")
    monkeypatch.syspath_prepend(str(tmp_path))
    write_distribution(tmp_path, "alpha", {"models": {"lost": "no_such_module:Model"}})
    code, found = answer(capsys, "--all", "--kind", "model")
    results = {one["name"]: (one["result"], one["reason"]) for one in found["plugins"]}
    assert code == 1
    assert results["lost"][0] == "broken" and "no_such_module" in results["lost"][1]
    assert results["timm"] == ("skipped", "it needs options: variant (str)")


def test_another_plugin_interface_is_refused_with_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    source = NORM.replace('title="Fixed response"', 'api=7, title="Fixed response"')
    write_distribution(
        tmp_path, "future", {"norms": {"later": "kit_cli_later:Norm"}}, modules={"kit_cli_later.py": source}
    )
    expected = "it was written for version 7 of the plugin interface, and this benchkit has version 1"
    assert main(["plugins", "check", "later"]) == 1
    assert expected in capsys.readouterr().out
    assert main(["sweep", "norms-cifar10", "--only", "model.norm=later", "--smoke", "--dry-run"]) == 2
    assert expected in capsys.readouterr().err
