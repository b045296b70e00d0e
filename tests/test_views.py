"""What the page shows for other metrics and splits: the numbers of the trials, and no test that nobody planned."""

from __future__ import annotations

import base64
import csv
import io
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic_results import complete, empty, with_search

from benchkit.plan import INTERIM_ANALYSES
from benchkit.registry import Registry
from benchkit.report import page_text
from benchkit.report.context.blocks import MOST_DATA, ReportContext
from benchkit.report.context.views import with_choices
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.html import render_html
from benchkit.report.page_text import PACK_FROM, packed, unpacked
from benchkit.report.write import build_study
from benchkit.results import Decision, EpochRecord, StudyResults, Trial
from benchkit.study import Factor


def made(results: StudyResults) -> ReportContext:
    figure_set = FigureSet(results=results, registry=Registry.installed())
    report = with_choices(build_study(results, figure_set))
    assert figure_set.problems == []
    return report


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return complete(tmp_path_factory.mktemp("trials"), epochs=4)


@pytest.fixture(scope="module")
def report(results: StudyResults) -> ReportContext:
    return made(results)


def losses(results: StudyResults, label: str) -> np.ndarray:
    return np.array([t.outcome.metrics["val"].loss for t in results.trials if t.outcome and t.condition.label == label])


def views(report: ReportContext, name: str) -> dict[str, Any]:
    (block,) = [block for block in (*report.tables, *report.figures) if block.name == name]
    return dict(json.loads(block.follow.views))


def test_the_ranking_by_another_metric_has_its_own_means_intervals_and_order(
    results: StudyResults, report: ReportContext
) -> None:
    view = views(report, "ranking")["val.loss"]
    rows = list(csv.DictReader(io.StringIO(view["csv"], newline="")))
    assert [float(row["mean"]) for row in rows] == sorted(float(row["mean"]) for row in rows)
    for row, cells in zip(rows, view["rows"], strict=True):
        values = losses(results, row["condition"])
        low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
        assert float(row["mean"]) == pytest.approx(values.mean(), rel=1e-12)
        assert (float(row["mean_low"]), float(row["mean_high"])) == pytest.approx((low, high), rel=1e-9)
        assert cells[3][:2] == [f"{values.mean():.4f}", f"[{low:.4f}, {high:.4f}]"]
    best = losses(results, rows[0]["condition"])
    gap = losses(results, rows[-1]["condition"]) - best
    assert float(rows[-1]["behind"]) == pytest.approx(gap.mean(), rel=1e-9)


def test_captions_say_which_intervals_the_tables_have(results: StudyResults) -> None:
    plan = Decision(name=INTERIM_ANALYSES, value="3: 0.025, 6: 0.025", why="", version="")
    looked = views(made(replace(results, decisions=(plan,))), "ranking")["val.loss"]
    assert "so wide that those of all planned looks hold together" in looked["caption"]
    factors = (*results.study.factors, Factor(path="train.epochs", levels=()))
    folds = made(replace(results, study=replace(results.study, factors=factors, splits="folds")))
    (effects,) = [table for table in folds.tables if table.name == "effects"]
    captions = [effects.caption, *(views(folds, name)["val.loss"]["caption"] for name in ("ranking", "effects"))]
    assert all("corrected resampled t (Nadeau and Bengio 2003): s √(1/n + 0.5)" in caption for caption in captions)


def test_other_metrics_are_not_tested_and_say_so(report: ReportContext) -> None:
    for metric, view in views(report, "ranking").items():
        rows = list(csv.DictReader(io.StringIO(view["csv"], newline="")))
        assert metric != "test.accuracy"
        assert all(row["p_worse_holm"] == "" for row in rows)
        assert {row["verdict"] for row in rows} == {"best mean", "not tested"}
        assert "tests only test accuracy" in view["caption"]


def test_figures_have_a_view_for_every_other_metric_and_split(results: StudyResults, report: ReportContext) -> None:
    expected = {f"{split}.{name}" for split in ("train", "val", "test") for name in NAMES} - {"test.accuracy"}
    assert set(views(report, "results-forest")) == set(views(report, "speed-cost")) == expected
    view = views(report, "results-forest")["val.loss"]
    assert view["caption"].startswith("Validation loss by condition")
    found = {row["condition"]: row for row in csv.DictReader(io.StringIO(dict(view["data"])["rows"], newline=""))}
    assert float(found["gn"]["mean"]) == pytest.approx(losses(results, "gn").mean(), rel=1e-6)


NAMES = ("accuracy", "loss", "macro_f1", "calibration_error")


def test_what_does_not_follow_says_what_it_shows(report: ReportContext) -> None:
    fixed = {block.name: block.follow.fixed for block in (*report.tables, *report.figures)}
    assert fixed["metrics-val"] == "every metric on val"
    assert fixed["pairs"] == "the tests of test accuracy"
    assert fixed["models"] == "test accuracy"
    assert fixed["confusion-matrix"] == "test images"
    assert fixed["ranking"] == ""


def test_a_figure_with_options_of_its_own_does_not_follow(tmp_path: Path) -> None:
    asked = '[report]\nfigures = [{ name = "results-forest", metric = "val.accuracy" }]'
    found = {block.name: block.follow for block in made(complete(tmp_path, extra=asked, epochs=2)).figures}
    assert found["results-forest"].views
    assert found["results-forest-2"].views == ""
    assert found["results-forest-2"].fixed == "val accuracy"


def test_cells_that_name_a_search_lead_to_it(tmp_path: Path) -> None:
    results = with_search(tmp_path)
    report = made(results)
    labels = [condition.label for condition in results.conditions]
    (budget,) = [block for block in report.tables if block.name == "search-budget"]
    assert labels[budget.follow.places["gn"]] == "gn, search"
    assert report.choices is not None
    assert [choice.label for choice in report.choices.conditions] == labels


def test_an_empty_study_has_a_chooser_of_conditions_only() -> None:
    report = made(empty())
    assert report.choices is not None
    assert report.choices.metrics == report.choices.splits == ()
    assert len(report.choices.conditions) == 4


def test_long_data_are_packed_and_come_back_whole() -> None:
    short, long = {"a": "<b>"}, ["é</script>"] * PACK_FROM
    assert json.loads(packed(short)) == short
    text = packed(long)
    assert "<" not in text
    assert len(text) < PACK_FROM
    assert json.loads(zlib.decompress(base64.b64decode(json.loads(text)["packed"]))) == long


def test_what_is_not_ours_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    text = packed(["x"] * PACK_FROM)
    assert unpacked(text) == ["x"] * PACK_FROM
    assert unpacked("[1, 2]") == [1, 2]
    for damaged in (text.replace("A", "!"), text[:-20] + text[-2:], json.dumps({"packed": 7}), "{"):
        with pytest.raises(ValueError):
            unpacked(damaged)
    monkeypatch.setattr(page_text, "MOST_UNPACKED", 1000)
    with pytest.raises(ValueError, match="too long"):
        unpacked(text)


@pytest.mark.slow
def test_a_thousand_trials_stay_below_eight_megabytes(tmp_path: Path) -> None:
    base = complete(tmp_path, [f"variant {place}" for place in range(8)], repeats=1, epochs=60)
    trials = tuple(
        replace(trial, index=index, number=125 * place + index, history=shaken(trial, index))
        for place, trial in enumerate(base.trials)
        for index in range(125)
    )
    page = render_html(made(replace(base, study=replace(base.study, repeats=125), trials=trials)))
    assert page.count("data-t=") == 500
    assert len(page.encode()) < 5_000_000


def shaken(trial: Trial, index: int) -> tuple[EpochRecord, ...]:
    """Return the history with digits of its own, because equal histories would pack too well."""
    factors = np.random.default_rng([index, int(trial.condition.key, 16)]).normal(1, 0.01, (len(trial.history), 4))
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    return tuple(
        replace(
            record, **{name: getattr(record, name) * float(factor) for name, factor in zip(names, row, strict=True)}
        )
        for record, row in zip(trial.history, factors, strict=True)
    )


def test_data_too_long_for_the_page_are_left_to_the_files_beside_it(report: ReportContext) -> None:
    block = replace(report.figures[0], data=(("short", "a\r\n1\r\n"), ("long", "a" * (MOST_DATA + 1))))
    section = replace(report.sections[0], blocks=(block,))
    page = render_html(replace(report, sections=(section,)))
    assert block.parts == ("short",)
    assert "Too long for this page, but among the CSV files beside it: long." in page
    assert len(page) < MOST_DATA
