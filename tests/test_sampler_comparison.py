"""A study that compares samplers: a search by each within every condition, from the ledger to the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchkit_figures.search.budget import SearchBudget
from capsule_edits import edited
from tiny_study import METRICS, SEARCH, Listener, facts_of, finish_all, study_of, sweep_here

from benchkit.analysis.search import search_summaries
from benchkit.analysis.summary import record_of, summarize
from benchkit.capsule import CapsuleError, Shown, make_capsule, read_capsule
from benchkit.capsule.making import study_text
from benchkit.capsule.reading import results_of
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.readback import confirm_conditions
from benchkit.plan import Plan, make_plan
from benchkit.report.write import ReportOptions, write_reports
from benchkit.results import Outcome
from benchkit.study import Study
from benchkit.study.studyfile import parse_study
from benchkit.sweep.messages import TrialEnded
from benchkit.verify.consistency import consistency_checks

FACTS = {"class_names": ["a", "b"], "sets": []}
NAMES = ("tpe", "random")
BOTH = SEARCH.replace('"tpe"', '["tpe", "random"]')
NORMS = '[factors]\n"model.norm" = ["bn", "gn"]\n'
EPOCHS = 'sampler = ["grid", "random"]\nspace."train.epochs" = [1, 2, 4]\n'


def queued(workspace: Path, study: Study, *norms: str) -> tuple[Ledger, Plan, int]:
    """Return the ledger, the plan and how many trials it lacked."""
    ledger, plan = Ledger(workspace), make_plan(study, only={"model.norm": norms} if norms else None)
    ledger.register(plan, FACTS, "benchkit sweep tiny")
    return ledger, plan, ledger.enqueue(plan)


def test_a_second_sampler_goes_on_with_the_trials_of_the_first(tmp_path: Path) -> None:
    ledger, plan, _ = queued(tmp_path, study_of(SEARCH, repeats=1))
    finish_all(ledger, plan)
    before = [facts_of(trial) for trial in read_results(tmp_path).trials]
    _, plan, added = queued(tmp_path, study_of(SEARCH.replace('"tpe"', '["random", "tpe"]'), repeats=1))
    results = read_results(tmp_path)
    assert added == 4 and results.left_out == ()
    assert [(c.label, c.sampler) for c in results.conditions] == [
        ("default", ""), ("search by random", "random"), ("search by tpe", "tpe"),
    ]  # fmt: skip
    assert [facts_of(trial) for trial in results.trials if trial.state == "done"] == before
    assert {t.condition.label for t in results.trials if t.state == "waiting"} == {"search by random"}
    finish_all(Ledger(tmp_path), plan)
    queued(tmp_path, study_of(SEARCH, repeats=1))
    back = read_results(tmp_path)
    assert [facts_of(trial) for trial in back.trials] == before
    assert [c.label for c in back.conditions] == ["default", "search"]
    assert [line.partition(":")[0] for line in back.left_out] == ["search by random"]


def test_a_sweep_of_some_conditions_names_the_samplers_of_all(tmp_path: Path) -> None:
    ledger, plan, _ = queued(tmp_path, study_of(NORMS, SEARCH, repeats=1))
    finish_all(ledger, plan)
    queued(tmp_path, study_of(NORMS, BOTH, repeats=1), "bn")
    labels = [condition.label for condition in read_results(tmp_path).conditions]
    assert labels == ["bn", "gn", "bn, search by tpe", "bn, search by random", "gn, search by tpe"]


def lowest_at(epochs: int) -> Callable[[Any], Outcome]:
    """Return an outcome for claims: the lowest loss for a number of epochs."""

    def outcome(claim: Any) -> Outcome:
        loss = 0.1 if claim.params.get("train.epochs") == epochs else 0.5
        scored = replace(METRICS, loss=loss)
        return Outcome(state="done", metrics={"val": scored, "test": scored})

    return outcome


def test_samplers_that_chose_the_same_share_its_repeats(tmp_path: Path) -> None:
    study = study_of(f"[search]\ntrials = 9\n{EPOCHS}", repeats=2)
    ledger, plan, added = queued(tmp_path, study)
    assert added == 2 + 3 + 9  # the default's repeats, the grid's points, the random trials
    finish_all(ledger, plan, lowest_at(2))
    (confirm,) = confirm_conditions(ledger, plan)
    assert (confirm.label, confirm.chosen) == ("default, searched by grid", {"train.epochs": 2})
    confirms = Plan(study=study, conditions=(confirm,))
    ledger.enqueue(confirms)
    finish_all(ledger, confirms)
    results = read_results(tmp_path)
    assert [c.label for c in results.conditions] == [
        "default", "search by grid", "search by random", "best of search by grid",
    ]  # fmt: skip
    grid, random = search_summaries(results)
    assert (grid.label, random.label) == ("the study, by grid", "the study, by random")
    assert (grid.same_as, random.same_as) == ("", "grid")
    assert grid.confirmation and random.confirmation and grid.confirmation.chosen == random.confirmation.chosen
    assert random.confirmation.chosen is not None and random.confirmation.chosen.n == 2


def test_samplers_that_chose_otherwise_are_confirmed_each(tmp_path: Path) -> None:
    ledger, plan, _ = queued(tmp_path, study_of(BOTH, repeats=1))

    def outcome(claim: Any) -> Outcome:
        return Outcome(state="done", metrics={"val": replace(METRICS, loss=1.0 - 0.1 * claim.index)})

    finish_all(ledger, plan, outcome)
    first, second = confirm_conditions(ledger, plan)
    assert first.key != second.key and first.chosen != second.chosen
    assert [one.label for one in (first, second)] == ["default, searched by tpe", "default, searched by random"]
    assert [one.display_label for one in (first, second)] == ["best of search by tpe", "best of search by random"]


@pytest.mark.parametrize("parts", [(BOTH,), (NORMS, BOTH), (f"[search]\ntrials = 9\n{EPOCHS}",)])
def test_the_written_study_has_the_same_conditions(parts: tuple[str, ...]) -> None:
    study = study_of(*parts)
    again = parse_study(study_text(study), name=study.name)
    assert again.search == study.search
    assert make_plan(again).conditions == make_plan(study).conditions


def test_a_record_names_the_samplers_as_one_property(tmp_path: Path) -> None:
    found = {}
    for name, search in (("one", SEARCH), ("both", BOTH)):
        queued(tmp_path / name, study_of(search))
        properties = record_of(read_results(tmp_path / name)).properties
        found[name] = {one.name: one.value for one in properties if one.name.startswith("search.sampler")}
    assert found == {"one": {"search.sampler": "tpe"}, "both": {"search.sampler": "tpe, random"}}


def test_a_tiny_comparison_is_swept_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view, study = Listener(), study_of(BOTH.replace("trials = 4", "trials = 3"), epochs=1, repeats=2)
    sweep_here(monkeypatch, tmp_path / "runs", study, view=view)
    ended = {event.condition for event in view.events if isinstance(event, TrialEnded)}
    assert {"default", "search by tpe", "search by random"} <= ended
    results = read_results(tmp_path / "runs")
    tpe, random = ([t for t in results.trials if t.condition.sampler == name and t.phase == "search"] for name in NAMES)
    assert len(tpe) == len(random) == 3
    assert facts_of(tpe[0]) == facts_of(random[0])  # both begin with the study's own settings and the same seeds
    assert tpe[1].params != random[1].params or tpe[2].params != random[2].params
    written = write_reports([results], tmp_path / "out", ReportOptions(formats=frozenset({"html"})))
    assert written.problems == ()
    page = (tmp_path / "out" / "tiny.html").read_text()
    assert "3 trials for each sampler, samplers tpe and random, pruner median" in page
    assert "one search by each sampler does not rank samplers" in page
    figure = SearchBudget()
    assert "Samplers: tpe, random." in page and figure.alt_text(figure.data(results)) in page
    (table,) = (tmp_path / "out" / "tiny" / "tables").glob("*search-budget.csv")
    rows = list(csv.DictReader(io.StringIO(table.read_text(), newline="")))
    assert [(row["condition"], row["started"]) for row in rows] == [
        ("the study, by tpe", "3"), ("the study, by random", "3"),
    ]  # fmt: skip
    capsule = read_capsule((tmp_path / "out" / "tiny" / "capsule.zip").read_bytes())
    assert {check.state for check in consistency_checks(capsule)} == {"holds"}
    assert summarize(results_of(capsule, 0, tmp_path / "again")).findings == summarize(results).findings


def test_a_capsule_with_a_sampler_that_its_study_lacks_is_refused(tmp_path: Path) -> None:
    queued(tmp_path, study_of(BOTH))
    capsule = make_capsule([read_results(tmp_path)], Shown())

    def edit(head: Any) -> None:
        head["studies"][0]["conditions"][1]["sampler"] = "grid"

    with pytest.raises(CapsuleError, match="has the sampler 'grid', expected tpe or random as in its study"):
        read_capsule(edited(capsule, {"capsule.json": edit}))
