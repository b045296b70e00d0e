"""What the panel shows of a trial: outcome, seeds as they are derived, thinned history, the end of its log."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import complete, unfinished, with_search

from benchkit.report.context.views import LOG_BYTES, LOG_LINES, MOST_EPOCHS, log_end, trial_details
from benchkit.results import StudyResults


def trials_of(results: StudyResults, label: str) -> list[dict[str, Any]]:
    place = [condition.label for condition in results.conditions].index(label)
    return list(trial_details(results)[place]["trials"])


def test_every_trial_is_with_its_condition_and_numbered_as_in_the_table(tmp_path: Path) -> None:
    results = with_search(tmp_path)
    numbers = [trial["number"] for entry in trial_details(results) for trial in entry["trials"]]
    assert sorted(numbers) == list(range(1, len(results.trials) + 1))
    search = trials_of(results, "gn, search")
    assert len(search) == 40
    assert dict(search[0]["params"]).keys() == {"train.optimizer.lr", "train.batch_size"}


def test_seeds_are_those_of_the_run(tmp_path: Path) -> None:
    (first, *_) = trials_of(complete(tmp_path, ("bn",), epochs=2), "bn")
    digest = hashlib.sha256(b"7/repeat/0/init").digest()
    assert dict(first["seeds"])["initial weights"] == str(int.from_bytes(digest[:8], "big") >> 1)
    assert dict(first["seeds"])["study"] == "7"


def test_scores_are_worded_as_in_the_tables(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=2)
    (trial,) = trials_of(results, "bn")
    assert results.trials[0].outcome is not None
    share = results.trials[0].outcome.metrics["test"].accuracy
    assert trial["scores"][0][0] == "accuracy (%)"
    assert trial["scores"][0][3] == f"{100 * share:.2f}"
    assert trial["main"] == f"{100 * share:.2f} %"


def test_long_histories_are_thinned_and_keep_both_ends(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=250)
    (trial,) = trials_of(results, "bn")
    epochs = trial["history"]["epoch"]
    assert (epochs[0], epochs[-1]) == (1, 250)
    assert len(epochs) <= MOST_EPOCHS + 1
    record = results.trials[0].history[epochs[5] - 1]
    assert trial["history"]["val_loss"][5] == pytest.approx(record.val_loss, rel=1e-3)


def test_non_finite_epochs_become_gaps(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=2)
    (trial,) = results.trials
    broken = replace(trial, history=(trial.history[0], replace(trial.history[1], val_loss=float("nan"))))
    (found,) = trials_of(replace(results, trials=(broken,)), "bn")
    assert found["history"]["val_loss"][1] is None


def test_trials_without_outcome_or_history_are_told(tmp_path: Path) -> None:
    waiting = [trial for trial in trials_of(unfinished(tmp_path), "gn") if trial["state"] == "waiting"]
    assert waiting[0]["history"] == {}
    assert waiting[0]["scores"] == []
    (failed,) = [trial for trial in trials_of(unfinished(tmp_path), "none") if trial["state"] == "failed"]
    assert dict(failed["facts"])["reason"] == "RuntimeError: <b>shape</b> mismatch"


def test_the_end_of_a_log_is_short_plain_text(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert log_end(log) == ""
    lines = [f"\x1b[31mline {place}\x1b[0m\x07" for place in range(1000)]
    log.write_bytes("\r\n".join(lines).encode() + b"\n\xff")
    found = log_end(log).splitlines()
    assert len(found) == LOG_LINES
    assert found[-2] == "line 999"
    assert found[-1] == "\N{REPLACEMENT CHARACTER}"
    log.write_text("reading /home/ada/birds\n")
    assert log_end(log) == "reading ~/birds"
    log.write_text("x" * (LOG_BYTES * 2))
    assert log_end(log) == ""  # one endless line has no whole line to show
