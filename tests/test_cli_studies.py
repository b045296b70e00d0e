"""`benchkit studies`: list, show, check, new."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch  # noqa: F401 - plugins are then described in this process, which saves starting another
from tiny_study import FACTOR, InlinePool, environment, write

import benchkit.sweep.orchestration
from benchkit.cli import main
from benchkit.ledger import read_results
from benchkit.registry import Registry
from benchkit.study.studyfile import find_study

BUILT_IN = [entry.name for entry in Registry.installed().entries("studies") if entry.distribution == "benchkit"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", InlinePool)
    return tmp_path


def test_list_names_the_built_in_studies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in BUILT_IN) and "broken" not in shown
    assert main(["studies", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["quickstart"]["question"].endswith("?") and listed["quickstart"]["problem"] == ""


def test_a_terminal_is_not_given_orders_by_a_study(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "a\x9b2J\u202eb"  # a control sequence in one byte and a mark that reverses text: TOML allows both
    path = write(folder / "tiny.toml", FACTOR)
    path.write_text(f"# {hostile}\n" + path.read_text().replace("Tiny", hostile, 1))
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["studies", "show", str(path)]) == 0
    shown = capsys.readouterr()
    assert main(["studies", "check", str(path)]) == 0
    checked = capsys.readouterr()
    assert "# a?2J?b" in shown.out
    for text in (shown.out, shown.err, checked.out, checked.err):
        assert not {"\x9b", "\u202e"} & set(text)
    assert main(["studies", "show", str(path)]) == 0
    assert hostile in capsys.readouterr().out


def test_show_prints_the_file_as_it_is(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    path = write(folder / "tiny.toml", FACTOR)
    assert main(["studies", "show", str(path)]) == 0
    assert capsys.readouterr().out == path.read_text().rstrip() + "\n"


def test_check_lists_conditions_and_finds_problems(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write(folder / "tiny.toml", FACTOR, repeats=2)
    assert main(["studies", "check", "tiny.toml"]) == 0
    assert "tiny: nothing wrong, 2 conditions, 4 trials" in capsys.readouterr().out
    assert main(["studies", "check", "tiny.toml", "--json", "--set", "repeats.n=5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["label"], row["trials"]) for row in told["conditions"]] == [("0.1", 5), ("0.3", 5)]
    assert main(["studies", "check", "tiny.toml", "--set", "model.hiden=[3]", "--set", "model.norm=bm"]) == 2
    shown = capsys.readouterr().err
    assert "model.hiden is not an option (did you mean 'hidden'?)" in shown and "there is no norm 'bm'" in shown


def test_a_new_study_passes_its_check_and_sweeps_in_smoke(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["studies", "new", "my-first.toml"]) == 0
    assert main(["studies", "check", "my-first.toml"]) == 0
    assert main(["sweep", "my-first.toml", "--smoke", "--json"]) == 0
    results = read_results(folder / "benchkit-runs")
    assert results.study.name == "my-first-smoke" and results.study.title == "My first"
    assert {trial.state for trial in results.trials} == {"done"} and len(results.trials) >= 2


def test_new_overwrites_nothing_and_wants_a_toml_name(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "mine.toml").write_text("precious")
    assert main(["studies", "new", "mine.toml"]) == 2
    assert (folder / "mine.toml").read_text() == "precious"
    assert main(["studies", "new", "mine.txt"]) == 2
    assert "ends in .toml" in capsys.readouterr().err


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_study_passes_its_check(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["studies", "check", name]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_study_has_a_smoke_form_that_passes_the_check(name: str) -> None:
    from benchkit.plan import make_plan
    from benchkit.study.checks import check_plan

    registry = Registry.installed()
    study = find_study(name, registry, smoke=True)
    check_plan(make_plan(study), registry)
    assert study.settings["data"]["name"] == "digits" and study.repeats == 1
