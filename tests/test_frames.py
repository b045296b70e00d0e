"""A study's results as tables: the same columns everywhere, null for what was not measured, files, SQL, notebooks."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from synthetic_results import complete, with_search
from test_cleaning import scored
from tiny_study import FACTOR, finish_all, study_of

import benchkit
from benchkit.analysis.estimates import estimate_of
from benchkit.cli import main
from benchkit.errors import BenchkitError
from benchkit.frames.arrow import arrow_table, parquet_bytes, query, schema_of
from benchkit.frames.tables import EPOCHS, TABLES, TRIALS, rows_of
from benchkit.frames.workspace import StudyFrames
from benchkit.ledger import Ledger, read_results
from benchkit.plan import make_plan
from benchkit.storage import each_once

polars = pytest.importorskip("polars")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace with two conditions of four done repeats and one that diverged."""
    folder = tmp_path_factory.mktemp("runs")
    ledger, plan = Ledger(folder), make_plan(study_of(FACTOR, repeats=5))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan, scored)
    return folder


def test_every_study_has_the_same_columns_and_types(workspace: Path, tmp_path: Path) -> None:
    studies = [complete(tmp_path / "a"), with_search(tmp_path / "b"), benchkit.open(workspace).study().results]
    for table, (columns, _) in TABLES.items():
        schemas = [arrow_table(study, table).schema for study in studies]
        assert all(schema.equals(schema_of(columns), check_metadata=True) for schema in schemas)
        assert all(list(row) == [one.name for one in columns] for study in studies for row in rows_of(study, table))
    empty = replace(studies[0], trials=(), earlier=())
    assert arrow_table(empty, "trials").schema.equals(schema_of(TRIALS)) and arrow_table(empty, "epochs").num_rows == 0


def test_the_mean_is_the_same_in_every_engine_and_in_the_report(workspace: Path) -> None:
    study = benchkit.open(workspace).study("tiny")
    condition = study.results.conditions[0]
    expected = estimate_of(study.results, condition, "test.accuracy")
    assert expected is not None and expected.n == 4
    asked = "select avg(test_accuracy) as mean, count(test_accuracy) as n from trials where condition_key = '{}'"
    (by_sql,) = query([study.results], asked.format(condition.key))
    pandas_rows = study.trials()
    pandas_rows = pandas_rows[pandas_rows["condition_key"] == condition.key]
    polars_rows = study.trials("polars").filter(polars.col("condition_key") == condition.key)
    means = [by_sql["mean"], pandas_rows["test_accuracy"].mean(), polars_rows["test_accuracy"].mean()]
    assert means == pytest.approx([expected.mean] * 3)
    assert by_sql["n"] == pandas_rows["test_accuracy"].count() == polars_rows["test_accuracy"].count() == 4
    assert len(pandas_rows) == len(polars_rows) == 5
    (row,) = [row for row in rows_of(study.results, "conditions") if row["condition_key"] == condition.key]
    assert row["metric"] == "test.accuracy" and (row["mean"], row["low"]) == (expected.mean, expected.low)


def test_what_diverged_is_null_with_a_state_and_nothing_is_nan(workspace: Path) -> None:
    results = benchkit.open(workspace).study("tiny").results
    diverged = [row for row in rows_of(results, "trials") if row["state"] == "diverged"]
    assert len(diverged) == 2 and {row["test_accuracy"] for row in diverged} == {None}
    assert {row["reason"] for row in diverged} == {"the loss is no number"}
    first = results.trials[0]
    spoiled = replace(first, history=(replace(first.history[0], val_loss=math.nan, energy=0.0),))
    (epoch,) = rows_of(replace(results, trials=(spoiled,)), "epochs")
    assert epoch["val_loss"] is None and epoch["energy"] is None and epoch["train_loss"] is not None
    numbers = [value for table in TABLES for row in rows_of(results, table) for value in row.values()]
    assert not [value for value in numbers if isinstance(value, float) and not math.isfinite(value)]


def test_the_selected_epoch_and_the_scores_on_train_stand_in_the_last_columns(workspace: Path) -> None:
    results = benchkit.open(workspace).study("tiny").results
    first = results.trials[0]
    assert first.outcome is not None
    train = replace(first.outcome.metrics["test"], accuracy=0.625, loss=0.5)
    outcome = replace(first.outcome, selected_epoch=2, metrics={**first.outcome.metrics, "train": train})
    rows = rows_of(replace(results, trials=(replace(first, outcome=outcome), *results.trials[1:])), "trials")
    assert (rows[0]["selected_epoch"], rows[0]["train_accuracy"], rows[0]["train_loss"]) == (2, 0.625, 0.5)
    assert rows[0]["test_accuracy"] == first.score("test.accuracy")
    assert {row["train_accuracy"] for row in rows if row["state"] == "diverged"} == {None}
    names = [one.name for one in TRIALS]
    assert names.index("selected_epoch") == names.index("settings") + 1 and names[-1].startswith("train_")


def test_files_are_read_back_as_they_were_written(workspace: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    for kind in ("parquet", "csv"):
        assert main(["export", "tiny", "--to", kind, "--out", str(tmp_path), "--workspace", str(workspace)]) == 0
    results = benchkit.open(workspace).study("tiny").results
    for table, (columns, _) in TABLES.items():
        assert pyarrow.parquet.read_table(tmp_path / f"tiny-{table}.parquet").equals(arrow_table(results, table))
        with (tmp_path / f"tiny-{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == [one.name for one in columns]
        for read, row in zip(rows, rows_of(results, table), strict=True):
            for name, value in row.items():
                told: Any = json.loads(read[name]) if isinstance(value, dict) else read[name]
                assert told == value if isinstance(value, dict) else told == ("" if value is None else str(value))
    assert parquet_bytes(results, "trials") == (tmp_path / "tiny-trials.parquet").read_bytes()


def test_questions_are_answered_or_refused_in_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["query", "tiny", "--workspace", str(workspace)]
    assert main([*ask, "select condition, count(*) as trials from trials group by condition order by condition"]) == 0
    assert capsys.readouterr().out.split() == ["condition", "trials", "0.1", "5", "0.3", "5"]
    assert main([*ask, "select started from trials limit 1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["started"].startswith("20")
    assert main([*ask, "select 'nan'::double as a, 2.5::double as b, [1e400::double, 1.0] as c", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"a": None, "b": 2.5, "c": [None, 1.0]}]
    assert main(["query", "studies/tiny.toml", *ask[2:], "select 1 from trials where false"]) == 0
    assert "no row answers the query" in capsys.readouterr().err
    for wrong in ("select accuracy from trials", "not sql", f"select * from read_csv('{workspace}/ledger.db')",
                  f"copy trials to '{workspace}/stolen.csv'"):  # fmt: skip
        assert main([*ask, wrong]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "the query was refused" in told and "other_scores holds the metrics of plugins" in told
    assert main(["export", "tiny", "--workspace", str(workspace), "--to", "xlsx", "--out", str(workspace)]) == 2
    assert "--to xlsx: expected parquet, csv, mlflow, tensorboard, wandb" in capsys.readouterr().err
    assert main(["export", "tiny", "--workspace", str(workspace), "--to", "mlflow", "--out", str(workspace)]) == 2
    assert "--to mlflow --out: expected parquet or csv" in capsys.readouterr().err
    assert not (workspace / "stolen.csv").exists() and not list(workspace.rglob("*.duckdb"))


def test_several_studies_are_one_table_and_times_are_utc_wherever_one_is(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [complete(tmp_path / "a"), with_search(tmp_path / "b"), benchkit.open(workspace).study().results]
    counts = [row["n"] for row in query(studies, "select study, count(*) as n from trials group by study order by n")]
    assert sum(counts) == sum(len(study.trials) + len(study.earlier) for study in studies)
    expected = [row["started"] for row in rows_of(studies[-1], "trials")]
    for zone in ("America/Phoenix", "UTC"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        study = StudyFrames(results=studies[-1])
        by_sql = [row["started"] for row in query([study.results], "select started from trials")]
        assert list(study.trials()["started"]) == list(study.trials("polars")["started"]) == by_sql == expected
    monkeypatch.undo()
    time.tzset()


@pytest.mark.long
def test_twenty_questions_end_each_time_without_a_warning(workspace: Path) -> None:
    ask = [sys.executable, "-W", "error", "-m", "benchkit", "query", "tiny", "select count(*) from trials"]
    for _ in range(20):
        done = subprocess.run(
            [*ask, "--workspace", str(workspace)], capture_output=True, text=True, check=False, timeout=120
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_what_is_deleted_in_the_copy_that_a_dashboard_gets_stays_in_the_ledger(workspace: Path, tmp_path: Path) -> None:
    ledger = workspace / "ledger.db"
    before = ledger.read_bytes()
    with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(tmp_path / "copy.db")) as target:
        source.backup(target)
    address = f"sqlite:///{tmp_path / 'copy.db'}"
    names = optuna.get_all_study_names(storage=address)
    assert names and all("tiny" in name for name in names), "the dashboard shows names that a reader knows"
    optuna.delete_study(study_name=names[0], storage=address)
    assert ledger.read_bytes() == before and len(optuna.get_all_study_names(storage=address)) == len(names) - 1


def test_a_notebook_shows_the_answer_and_draws_the_reports_figures(tmp_path: Path) -> None:
    study = StudyFrames(results=complete(tmp_path))
    shown = study._repr_html_()
    assert study.answer()[0] in shown and shown.count("<tr>") == len(study.results.conditions) + 1
    assert repr(study).splitlines() == [f"{study.results.study.title} (test.accuracy)", *study.answer()]
    assert study.figure("learning-curves", metric="loss").to_dict()["$schema"].startswith("https://vega.github.io")
    with pytest.raises(BenchkitError, match="frame: got 'excel'"):
        study.trials("excel")  # type: ignore[arg-type]
    with pytest.raises(BenchkitError, match="no figure"):
        study.figure("pie")
    assert len(study.epochs()) == sum(len(trial.history) for trial in study.results.trials) > 0


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchkitError, match="there is no ledger here"):
        benchkit.open(tmp_path)
    for reads in (benchkit.open, read_results):
        with pytest.raises(BenchkitError, match=r"sqlite:.*absent\.db: there is no ledger here"):
            reads(tmp_path, storage=f"sqlite:///{tmp_path / 'absent.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", ["", " ", ";", " ; \n"])
def test_an_empty_question_is_refused(workspace: Path, asked: str) -> None:
    with pytest.raises(BenchkitError, match="the query is empty"):
        query([benchkit.open(workspace).study("tiny").results], asked)


def test_without_the_extra_the_command_that_installs_it_is_told(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", "tiny", "--to", "parquet", "--out", str(tmp_path), "--workspace", str(workspace)]) == 2
    assert "pip install 'benchkit[tables]'" in capsys.readouterr().err
    assert main(["export", "tiny", "--to", "csv", "--out", str(tmp_path), "--workspace", str(workspace)]) == 0


def test_every_column_says_what_it_is() -> None:
    for columns, _ in TABLES.values():
        assert all(one.meaning for one in columns) and len({one.name for one in columns}) == len(columns)
    assert {one.name for one in EPOCHS} >= {"train_loss", "val_loss", "learning_rate"}


def test_a_query_keeps_both_of_two_columns_of_one_name(workspace: Path) -> None:
    results = benchkit.open(workspace).study("tiny").results
    (row,) = query([results], "select 1 as n, 2 as n, 3 as n_2, 4 as n")
    assert list(row.values()) == [1, 2, 3, 4] and list(row)[:2] == ["n", "n_2"]


def test_columns_of_one_name_are_told_apart() -> None:
    assert each_once(["photo", "class", "photo", "class_2", "class", "photo"]) == [
        "photo", "class", "photo_2", "class_2", "class_3", "photo_3",
    ]  # fmt: skip
