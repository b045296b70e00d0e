"""What a report keeps to itself: home folders, user names, addresses with passwords."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import complete

from benchkit.report import page_text
from benchkit.report.page_text import private, private_command, private_results, private_text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("see /home/ada/birds/a.zip", "see ~/birds/a.zip"),
        ('source = "/Users/ada lovelace/x"', 'source = "~ lovelace/x"'),
        ("/root/data and /rootless/data", "~/data and /rootless/data"),
        (r"C:\Users\ada\data", r"~\data"),
        (r'"C:\\Users\\ada\\data"', r'"~\\data"'),
        ("postgresql://ada:secret@db.example/x", "postgresql://db.example/x"),
        ("/scratch/grace/x", "/scratch/~/x"),
        ("gracefully done", "gracefully done"),
        ("https://example.org/home", "https://example.org/home"),
    ],
)
def test_texts(text: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_text, "_user", lambda: "grace")
    assert private_text(text) == kept


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("benchkit sweep /srv/x/study.toml --set train.epochs=5", "benchkit sweep study.toml --set train.epochs=5"),
        ("benchkit sweep a --workspace=/mnt/runs -j 2", "benchkit sweep a --workspace=runs -j 2"),
        ("benchkit sweep a --storage postgresql://u:p@h/x", "benchkit sweep a"),
        ("benchkit sweep a --storage=postgresql://u:p@h/x", "benchkit sweep a"),
        ("benchkit sweep a --track mlflow=http://h:5000 --notify=env:X -j 2", "benchkit sweep a -j 2"),
        ("benchkit sweep a --plugin /home/ada/mine.py --only model.norm=gn,bn",
         "benchkit sweep a --plugin mine.py --only model.norm=gn,bn"),
        ("benchkit sweep 'unclosed /home/ada/x", "benchkit sweep 'unclosed ~/x"),
    ],
)  # fmt: skip
def test_commands(command: str, kept: str) -> None:
    assert private_command(command) == kept


def test_values_without_such_text_stay_the_same_object(tmp_path: Path) -> None:
    study = complete(tmp_path, ("bn",), repeats=1, epochs=1).study
    assert private(study) is study


def test_results_are_private_throughout(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=1)
    (trial,) = results.trials
    assert trial.outcome
    outcome = replace(trial.outcome, reason="/home/ada/x.py", notes=("/home/ada/y",), environment={"a": ["/home/ada"]})
    settings = {**results.study.settings, "data": {"name": "image-folder", "source": "/home/ada/birds"}}
    hurt = replace(
        results,
        command="benchkit sweep /home/ada/s.toml",
        study=replace(results.study, settings=settings, source="# /home/ada"),
        data={"options": {"source": "/home/ada/birds"}},
        trials=(replace(trial, outcome=outcome),),
    )
    found = private_results(hurt)
    assert "ada" not in str(replace(found, trials=(), labels={}))
    assert "ada" not in str(found.trials[0].outcome)
    assert found.trials[0].folder == trial.folder
    assert found.study.settings["data"]["source"] == "~/birds"
