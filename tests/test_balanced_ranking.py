"""Unbalanced classes: the balanced accuracy beside the accuracy in table and answer, and orders that differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from test_degenerate import OTHER, SOUND, study

from benchkit.analysis.summary import summarize
from benchkit.ledger.readback import balanced
from benchkit.report.tables.result_tables import ranking_table
from benchkit.results import StudyResults

LARGE = ((13, 0, 0), (3, 1, 0), (2, 0, 1))
"""More right than EVEN by the images (15 of 20), fewer by the classes."""
EVEN = ((9, 2, 2), (1, 3, 0), (1, 0, 2))


def of(confusion: tuple[tuple[int, ...], ...]) -> float:
    pairs = [(true, said) for true, row in enumerate(confusion) for said, n in enumerate(row) for _ in range(n)]
    true, said = np.array(pairs).T
    return float(balanced_accuracy_score(true, said))


def given(confusions: dict[str, tuple[tuple[int, ...], ...]], train: list[int]) -> StudyResults:
    results = study(confusions, confusions)
    known = replace(results, data={**results.data, "class_counts": {"train": train}})
    return replace(known, trials=tuple(map(balanced, known.trials)))


def test_it_is_scikit_learns() -> None:
    for confusion in (SOUND, OTHER, LARGE, EVEN, ((2, 0, 1), (0, 0, 0), (2, 0, 1))):
        (trial,) = {t.index: balanced(t) for t in study({"one": confusion}).trials}.values()
        assert trial.score("test.balanced_accuracy") == pytest.approx(of(confusion), abs=1e-12)


def test_it_stands_in_table_and_answer_and_a_finding_names_the_other_first() -> None:
    summary = summarize(given({"large": LARGE, "even": EVEN}, [130, 40, 30]))
    balanced_ranking = summary.numbers.balanced
    assert balanced_ranking is not None
    assert balanced_ranking.by_accuracy == ("large", "even") and balanced_ranking.by_balanced == ("even", "large")
    words = f"Its balanced accuracy, which weighs all classes alike, is {100 * of(LARGE):.2f} %."
    assert summary.answer[0].startswith("“large” ") and summary.answer[0].endswith(words)
    (finding,) = [one for one in summary.findings if one.rule == "balanced-order"]
    assert finding.tone == "warning" and finding.sentence == (
        f"By balanced accuracy “even” is first with {100 * of(EVEN):.2f} %, and “large”, first by accuracy, has "
        f"{100 * of(LARGE):.2f} %."
    )
    table = ranking_table(summary.numbers)
    place = [column.key for column in table.columns].index("balanced")
    assert table.columns[place - 1].key == "mean" and table.columns[place].heading == "test balanced accuracy"
    assert [row[place].value for row in table.rows] == pytest.approx([of(LARGE), of(EVEN)])


def test_orders_that_agree_are_no_finding_and_even_classes_have_no_column() -> None:
    same = summarize(given({"large": LARGE, "worse": ((12, 1, 0), (4, 0, 0), (3, 0, 0))}, [130, 40, 30]))
    assert same.numbers.balanced is not None
    assert not any(one.rule == "balanced-order" for one in same.findings)
    even = summarize(given({"large": LARGE, "even": EVEN}, [89, 40, 30]))
    assert even.numbers.balanced is None and "balanced" not in str(even.answer)
    assert "balanced" not in [column.key for column in ranking_table(even.numbers).columns]
