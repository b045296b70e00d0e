"""Tables: the same cells as CSV, Markdown and LaTeX, with names that would like to be code."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from synthetic_results import PUBLISHED, complete, rescored

from benchkit.analysis import estimate
from benchkit.analysis.summary import summarize
from benchkit.analysis.wording import (
    bare,
    difference,
    duration,
    engineering,
    listing,
    measured,
    number,
    p_value,
    within_range,
)
from benchkit.metrics import score_metrics
from benchkit.registry import Registry
from benchkit.report.context.blocks import Paragraph, Section, TableBlock
from benchkit.report.context.compose import compose
from benchkit.report.context.views import with_choices
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.html import render_html, render_print
from benchkit.report.tables.result_tables import pairs_matrix, pairs_table, split_table, trials_table
from benchkit.report.tables.table import Cell, Column, Table, estimate_cell, label, number_cell, to_csv
from benchkit.report.tables.table import to_markdown as markdown
from benchkit.report.write import build_study
from benchkit.results import StudyResults, Trial

TABLE = Table(
    columns=(
        Column(key="condition", heading="Condition", align="left"),
        Column(key="accuracy", heading="test accuracy", unit="%", parts=("low", "high", "n")),
    ),
    rows=(
        (label("=cmd|x"), estimate_cell("test.accuracy", estimate([0.7, 0.72, 0.71]), strong=True)),
        (label("50% & $x_1^2$ \\ #~ {a}", "tied"), estimate_cell("test.accuracy", estimate([0.5]))),
    ),
)


def test_csv_holds_full_precision_and_disarms_formulas() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert rows[0] == ["condition", "accuracy", "accuracy_low", "accuracy_high", "accuracy_n"]
    assert rows[1][0] == "'=cmd|x"
    assert float(rows[1][1]) == pytest.approx(0.71, abs=1e-15)
    assert float(rows[1][2]) == pytest.approx(0.71 - 4.302652729911275 * 0.01 / 3**0.5, abs=1e-12)
    assert rows[2][1:] == ["0.5", "", "", "1"]
    assert rows[2][0] == "50% & $x_1^2$ \\ #~ {a}"


def test_a_difference_that_no_share_can_have_is_told_as_such_and_stays_exact_in_csv(tmp_path: Path) -> None:
    shown = [within_range("test.accuracy", value) for value in (0.25, 1.0, 1.01, None)]
    assert shown == ["25.00", "100.00", "over 100", "\N{EN DASH}"]
    assert within_range("test.loss", 12.5) == "12.5000"
    given = rescored(complete(tmp_path, ("bn", "gn"), repeats=2, epochs=2), {"bn": [0.9, 0.6], "gn": [0.5, 0.55]})
    table, full = pairs_table(summarize(given).numbers)
    # Differences 0.4 and 0.05. A t test over two pairs finds this shift of the noncentral t in 80 of 100 studies.
    threshold = stats.t.ppf(0.975, 1)
    shift = brentq(lambda one: stats.nct.sf(threshold, 1, one) - 0.8, 1, 80)
    expected = shift * np.std([0.4, 0.05], ddof=1) / 2**0.5
    place = [column.key for column in table.columns].index("detectable")
    assert table.rows[0][place].text == "over 100" and expected > 1
    (row,) = csv.DictReader(io.StringIO(to_csv(full), newline=""))
    assert float(row["detectable"]) == pytest.approx(expected, rel=0.01)


def test_top_5_accuracy_is_shown_of_twenty_classes_or_more_and_where_it_is_the_study_s_own(tmp_path: Path) -> None:
    given = complete(tmp_path, ("bn", "gn"), repeats=2, epochs=2)

    def scored(trial: Trial) -> Trial:
        assert trial.outcome is not None
        split = {name: replace(one, more={"top5_accuracy": 0.9}) for name, one in trial.outcome.metrics.items()}
        return replace(trial, outcome=replace(trial.outcome, metrics=split))

    numbers = summarize(replace(given, trials=tuple(map(scored, given.trials)))).numbers
    table = split_table(numbers, "test")
    assert table is not None and "top5_accuracy" not in [column.key for column in table.columns]
    assert numbers.classes is not None
    for shown in (
        replace(numbers, metric="test.top5_accuracy"),
        replace(numbers, classes=replace(numbers.classes, names=tuple(map(str, range(20))))),
    ):
        table = split_table(shown, "test")
        assert table is not None and "top5_accuracy" in [column.key for column in table.columns]


def test_a_negative_number_is_no_formula() -> None:
    table = Table(columns=(Column(key="x", heading="x"),), rows=((number_cell("-1", -1.5),),))
    assert to_csv(table) == "x\r\n-1.5\r\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\N{MINUS SIGN}"])
def test_every_start_of_a_formula_is_disarmed(start: str) -> None:
    table = Table(columns=(Column(key="x", heading="x"),), rows=((label(f"{start}1"),),))
    assert next(csv.reader(io.StringIO(to_csv(table).partition("\r\n")[2]))) == [f"'{start}1"]


def test_markdown_keeps_its_columns() -> None:
    lines = markdown(TABLE).splitlines()
    assert lines[0] == "| Condition | test accuracy (%) |"
    assert lines[1] == "| :--- | ---: |"
    assert lines[2] == r"| =cmd\|x | **71.00** \[68.52, 73.48\] |"
    assert len(lines) == 4


def test_a_trial_that_ended_before_its_first_epoch_did_has_no_training_time(tmp_path: Path) -> None:
    first, second, *_ = complete(tmp_path).trials
    rows = trials_table([replace(first, state="diverged", history=()), second], "test.accuracy")
    at = [column.key for column in rows.columns].index("seconds")
    none, some = (row[at] for row in rows.rows)
    assert (none.text, none.value) == ("\N{EN DASH}", None)
    assert some.value == pytest.approx(sum(record.seconds for record in second.history))


def test_markdown_finds_nothing_to_act_on() -> None:
    table = Table(columns=(Column(key="x", heading="a|b"),), rows=((label("<b>&amp; {{x}} ~~s~~ ![i](u)\n# h"),),))
    head, _, row = markdown(table).splitlines()
    assert head == r"| a\|b |"
    assert row == r"| \<b\>\&amp; \{\{x\}\} \~\~s\~\~ !\[i\](u) \# h |"


def test_a_table_holds_its_shape() -> None:
    with pytest.raises(AssertionError, match="cell for each column"):
        Table(columns=(Column(key="x", heading="x"),), rows=((label("a"), label("b")),))


def test_sort_values() -> None:
    assert Cell(text="71.00", value=0.71).sort_value == "0.71"
    assert Cell(text="Done", value="Done").sort_value == "done"
    assert Cell(text="\N{EN DASH}").sort_value == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bare("test.accuracy", 0.71239), "71.24"),
        (bare("val.loss", 1.23456), "1.2346"),
        (bare("val.loss", -0.00001), "0.0000"),
        (bare("cost.seconds", 1234.56), "1,234.6"),
        (bare("test.accuracy", None), "\N{EN DASH}"),
        (bare("test.accuracy", float("nan")), "\N{EN DASH}"),
        (measured("test.accuracy", 0.5), "50.00 %"),
        (measured("cost.seconds", 3785), "1 h 03 min"),
        (difference("test.accuracy", 0.0132), "+1.32"),
        (difference("test.accuracy", -0.0132), "\N{MINUS SIGN}1.32"),
        (difference("test.accuracy", -0.00001), "0.00"),  # it is no gain
        (difference("test.accuracy", float("nan")), "\N{EN DASH}"),
        (p_value(0.0004), "< 0.001"),
        (p_value(0.03149), "0.031"),
        (p_value(0.5), "0.50"),
        (p_value(None), "\N{EN DASH}"),
        (number(0.023041), "0.02304"),
        (number(1234567), "1.235e6"),
        (number(0.00001), "1e-5"),
        (number(0.0), "0"),
        (engineering(175258), "175.3 k"),
        (engineering(27_400_000), "27.4 M"),
        (duration(48.04), "48.0 s"),
        (duration(133), "2 min 13 s"),
        (listing(["a", "b", "c"]), "a, b and c"),
        (listing(["a", "b", "c", "d"], most=3), "a, b and 2 more"),
        (listing([]), ""),
    ],
)
def test_numbers_as_text(text: str, expected: str) -> None:
    assert text == expected


def test_pairs_are_a_matrix_of_differences_with_their_corrected_p(tmp_path: Path) -> None:
    accuracies = {"bn": [0.90, 0.91, 0.92], "gn": [0.80, 0.812, 0.82], "ln": [0.70, 0.71, 0.725]}
    numbers = summarize(rescored(complete(tmp_path, tuple(accuracies), epochs=1), accuracies)).numbers
    table = pairs_matrix(numbers)
    assert table is not None
    assert [column.heading for column in table.columns] == ["Rank", "Condition", "minus 2", "minus 3"]
    # Differences of the means, and p of SciPy's paired t test times 3 or less (Holm).
    tests = [stats.ttest_rel(accuracies[one], accuracies[other]).pvalue for one, other in
             (("bn", "gn"), ("bn", "ln"), ("gn", "ln"))]  # fmt: skip
    ordered = np.argsort(tests)
    adjusted = np.maximum.accumulate([min(1.0, (3 - place) * tests[at]) for place, at in enumerate(ordered)])
    expected = dict(zip(ordered, adjusted, strict=True))
    (_, _, bn_gn, bn_ln), (_, _, own, gn_ln) = table.rows
    assert [cell.text for cell in (bn_gn, bn_ln, own, gn_ln)] == ["+9.93", "+19.83", "", "+9.90"]
    for cell, place in ((bn_gn, 0), (bn_ln, 1), (gn_ln, 2)):
        assert cell.parts[0] == pytest.approx(expected[place])
        assert cell.strong == (expected[place] < 0.05)
    assert own.parts == (None,) and own.detail == ""
    assert pairs_matrix(replace(numbers, ranking=replace(numbers.ranking, rows=numbers.ranking.rows[:2]))) is None
    wide = replace(numbers.ranking, rows=numbers.ranking.rows * 4)
    assert pairs_matrix(replace(numbers, ranking=wide)) is None


@pytest.mark.parametrize("differs", [False, True])
def test_micro_f1_is_shown_only_where_it_is_not_the_accuracy(tmp_path: Path, differs: bool) -> None:
    results = complete(tmp_path, ("bn", "gn"), repeats=2, epochs=1)
    if differs:
        outcome = results.trials[0].outcome
        assert outcome is not None
        metrics = {**outcome.metrics, "test": replace(outcome.metrics["test"], micro_f1=0.5)}
        first = replace(results.trials[0], outcome=replace(outcome, metrics=metrics))
        results = replace(results, trials=(first, *results.trials[1:]))
    table = split_table(summarize(results).numbers, "test")
    assert table is not None
    assert ("micro_f1" in [column.key for column in table.columns]) is differs


def test_what_is_not_read_is_a_line_in_print_and_folded_on_the_page(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn", "gn", "ln"), repeats=2, epochs=1)
    report = compose(results, summarize(results))
    folded = {block.name for block in report.tables if block.folded}
    assert folded == {
        "metrics-val",
        "metrics-train",
        "pairs",
        "models",
        "model-pairs",
        "confusions",
        "coverage",
        "trials",
    }
    printed, page = render_print(report), render_html(report)
    for text in (printed, page):
        rows = re.findall(r"<tr>(.*?)</tr>", "".join(re.findall(r"<tbody>(.*?)</tbody>", text, re.DOTALL)), re.DOTALL)
        heads = {tuple(re.findall(r'<(th scope="row"|td) ', row)) for row in rows}
        assert all(row[0] == 'th scope="row"' and set(row[1:]) <= {"td"} for row in heads) and heads
    (number,) = [block.number for block in report.tables if block.name == "trials"]
    assert f"<strong>Table {number}.</strong> Every trial: 6 rows, attached to this PDF as CSV." in printed
    assert 'id="table-trials"' in printed and 'figure class="table' in printed
    assert f"<summary>Table {number}. Every trial (6 rows)</summary>" in page
    assert len(report.tables) < 20 and "<h2>Tables</h2>" not in page + printed


def test_what_a_table_asks_for_is_looked_at_once_whatever_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, looked, room = complete(tmp_path, repeats=2, epochs=1), Counter[int](), Table.room.fget  # type: ignore[attr-defined]
    report = compose(results, summarize(results))
    monkeypatch.setattr(Table, "room", property(lambda table: (looked.update([id(table)]), room(table))[1]))
    render_html(report)
    assert len(looked) == len(report.tables) and set(looked.values()) == {1}


def test_the_words_of_metrics_come_in_the_order_of_metrics(tmp_path: Path) -> None:
    """As a set they would stand in another order each time, and the page would have other bytes."""
    results = complete(tmp_path, repeats=2, epochs=1)
    figures = FigureSet(results=results, registry=Registry.installed())
    choices = with_choices(build_study(results, figures)).choices
    assert choices is not None
    words = json.loads(choices.data)["words"]
    assert len(words) > 8 and list(words) == [metric for metric in score_metrics() if metric in words]


def source_of(results: StudyResults) -> Section:
    report = compose(results, summarize(results))
    return next(part for part in report.sections if part.name == "published")


def test_numbers_that_stand_beside_none_of_ours_are_one_sentence(tmp_path: Path) -> None:
    results = complete(tmp_path, extra=PUBLISHED, epochs=1)
    told = (
        "None of its 4 numbers can be compared with ours: ours were trained by another protocol and they are in doubt "
    )
    variant = source_of(replace(results, study=replace(results.study, overrides=("train.epochs=1",))))
    words = [block.text for block in variant.blocks if isinstance(block, Paragraph)]
    (table,) = [block for block in variant.blocks if isinstance(block, TableBlock)]
    assert table.folded and words[-1] in (f"{told}themselves.", f"{told.partition(' and ')[0]}.")
    (table,) = [block for block in source_of(results).blocks if isinstance(block, TableBlock)]
    assert not table.folded


def test_a_source_without_numbers_promises_none(tmp_path: Path) -> None:
    results = complete(tmp_path, repeats=2, extra=PUBLISHED, epochs=1)
    (source,) = results.study.published
    bare_source = replace(results, study=replace(results.study, published=(replace(source, rows=()),)))
    assert (source_of(results).title, source_of(bare_source).title) == ("Published numbers", "The source")


UNEQUAL = {"bn": [0.80, 0.81, 0.90, 0.91, 0.92], "gn": [0.82, 0.835]}
"""bn has the better mean over its own repeats, 0.868 to 0.8275, and gn in both repeats that they share."""


@pytest.mark.parametrize("metric", ["test.accuracy", "test.loss"])
def test_a_pair_says_who_is_better_in_the_repeats_of_both(metric: str, tmp_path: Path) -> None:
    sign, name = (1, "accuracy") if metric == "test.accuracy" else (-1, "loss")
    scores = {label: [0.5 + sign * value / 2 for value in values] for label, values in UNEQUAL.items()}
    padded = {"bn": scores["bn"], "gn": [*scores["gn"], 0.5, 0.5, 0.5]}
    given = rescored(complete(tmp_path, ("bn", "gn"), repeats=5, epochs=2), padded, metric=name)
    trials = tuple(t for t in given.trials if t.condition.label == "bn" or t.index < 2)
    study = replace(given.study, report=replace(given.study.report, metric=metric))
    summary = summarize(replace(given, trials=trials, study=study))
    assert summary.ranking.rows[0].label == "bn"
    (row,) = csv.DictReader(io.StringIO(to_csv(pairs_table(summary.numbers)[1]), newline=""))
    test = stats.ttest_rel(scores["gn"], scores["bn"][:2])
    low, high = test.confidence_interval(0.95)
    assert (row["first"], row["second"], row["pairs"]) == ("gn", "bn", "2")
    assert [float(row[key]) for key in ("difference", "difference_low", "difference_high", "p")] == pytest.approx(
        [sign * 0.01125, low, high, test.pvalue]
    )
    gaps = [sign * 0.01, sign * 0.0125]
    assert float(row["effect_size"]) == pytest.approx(np.mean(gaps) / np.std(gaps, ddof=1))
    u = stats.mannwhitneyu(UNEQUAL["gn"], UNEQUAL["bn"]).statistic
    assert float(row["superiority"]) == pytest.approx(u / 10)


def test_pairs_that_differ_by_rounding_alone_could_detect_nothing_that_is_known(tmp_path: Path) -> None:
    scores = {"bn": [0.90, 0.91, 0.92], "gn": [0.80, 0.81, 0.82]}
    given = rescored(complete(tmp_path, ("bn", "gn"), epochs=2), scores)
    assert np.std(np.subtract(scores["bn"], scores["gn"]), ddof=1) > 0
    (row,) = csv.DictReader(io.StringIO(to_csv(pairs_table(summarize(given).numbers)[1]), newline=""))
    assert (row["p"], row["detectable"]) == ("", "")
