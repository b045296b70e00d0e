"""A study then and now: the tests against SciPy's, pairing by seed, verdicts, and the record that carries it all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from synthetic_results import complete

from benchkit.analysis import holm
from benchkit.analysis.changes import change_findings, compare_records
from benchkit.analysis.comparisons import welch_detectable, welch_error, welch_t
from benchkit.analysis.estimates import estimate
from benchkit.analysis.summary import Property, Reading, Record, RecordedCondition, record_from, record_of, record_text

OLD = {"bn": (0.80, 0.81, 0.79), "gn": (0.75, 0.78, 0.74), "ln": (0.70, 0.71, 0.72)}
NEW = {"bn": (0.85, 0.862, 0.842), "gn": (0.76, 0.77, 0.75), "ln": (0.70, 0.71, 0.72)}


def record(scores: Mapping[str, Sequence[float]], *, seed: int = 7, **properties: str) -> Record:
    return Record(
        study="norms",
        metric="test.accuracy",
        seed=seed,
        smoke=False,
        dated="1 May 2026",
        source="",
        properties=tuple(Property(kind="data", name=name, value=value) for name, value in properties.items()),
        conditions=tuple(
            RecordedCondition(
                key=label,
                label=label,
                readings=(Reading(metric="test.accuracy", repeats=tuple(range(len(v))), values=tuple(v)),),
            )
            for label, v in scores.items()
        ),
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [([1.0, 2.0, 4.0], [2.0, 2.5, 9.0, 4.0]), ([0.80, 0.81], [0.70, 0.75, 0.71]), ([3.0, 3.1, 3.0], [1.0, 2.0])],
)
def test_welch_is_scipys(first: list[float], second: list[float]) -> None:
    found, known = welch_t(estimate(first), estimate(second)), stats.ttest_ind(first, second, equal_var=False)
    interval = known.confidence_interval(0.95)
    assert found.p == pytest.approx(known.pvalue)
    error, degrees = welch_error(estimate(first), estimate(second)) or (0.0, 0.0)
    assert (error, degrees) == pytest.approx(
        ((interval.high - interval.low) / 2 / stats.t.ppf(0.975, known.df), known.df)
    )
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_welch_needs_spread_and_two_repeats() -> None:
    assert welch_t(estimate([1.0]), estimate([1.0, 2.0])).p is None
    assert welch_t(estimate([1.0, 1.0]), estimate([2.0, 2.0])).low is None
    assert welch_detectable(estimate([1.0]), estimate([1.0, 2.0])) is None


def test_what_welch_could_detect_has_the_power_that_scipys_noncentral_t_gives() -> None:
    first, second = [0.80, 0.82, 0.79, 0.83, 0.81], [0.70, 0.75, 0.71, 0.78]
    one, other = estimate(first), estimate(second)
    found = welch_detectable(one, other, alpha=0.01)
    assert found is not None and one.std is not None and other.std is not None
    error = (one.std**2 / 5 + other.std**2 / 4) ** 0.5
    degrees = stats.ttest_ind(first, second, equal_var=False).df
    threshold = stats.t.ppf(1 - 0.01 / 2, degrees)
    power = stats.nct.sf(threshold, degrees, found / error) + stats.nct.cdf(-threshold, degrees, found / error)
    assert power == pytest.approx(0.8, abs=0.005)


def test_one_seed_pairs_repeats_and_holm_spans_the_table() -> None:
    changes = compare_records(record(OLD), record(NEW))
    assert changes.same_seed
    assert "repeats are compared in pairs (paired t test). Holm" in change_findings(changes)[0].evidence
    assert [row.method for row in changes.main] == ["paired"] * 3
    raw = [stats.ttest_rel(NEW[label], OLD[label]).pvalue for label in ("bn", "gn")]
    assert [row.p for row in changes.main[:2]] == pytest.approx(raw)
    assert [row.p_adjusted for row in changes.main[:2]] == pytest.approx(holm(raw))
    assert [row.verdict for row in changes.main] == ["better", "not told apart", "identical"]
    interval = stats.ttest_rel(NEW["bn"], OLD["bn"]).confidence_interval(0.95)
    assert (changes.main[0].low, changes.main[0].high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_more_repeats_beside_the_same_ones_are_no_change() -> None:
    changes = compare_records(record(OLD), record({label: (*values, 0.6) for label, values in OLD.items()}))
    assert [row.verdict for row in changes.main] == ["identical"] * 3
    assert change_findings(changes)[0].sentence == (
        "Nothing has changed in test accuracy: every repeat of 3 conditions has exactly the value it had, and there "
        "are more by now, which move the means."
    )


def test_what_only_the_uncorrected_test_calls_changed_is_not_told_apart() -> None:
    then = {"bn": (0.78, 0.80, 0.80, 0.81), "gn": (0.79, 0.78, 0.82, 0.79)}
    now = {"bn": (0.80, 0.81, 0.83, 0.82), "gn": (0.80, 0.81, 0.83, 0.82)}
    raw = [stats.ttest_rel(now[label], then[label]).pvalue for label in then]
    assert raw[0] < raw[1] < 0.05 < 2 * raw[0]
    rows = compare_records(record(then), record(now)).main
    assert [row.p_adjusted for row in rows] == pytest.approx([2 * raw[0], 2 * raw[0]])
    assert [row.verdict for row in rows] == ["not told apart", "not told apart"]
    for row in rows:
        spread = stats.tstd([new - old for new, old in zip(now[row.label], then[row.label], strict=True)])
        threshold = stats.t.ppf(1 - 0.025 / 2, 3)
        shift = brentq(lambda one, t=threshold: stats.nct.sf(t, 3, one) - 0.8, 1, 20)
        assert row.detectable == pytest.approx(shift * spread / 2, rel=0.01)


def test_other_seeds_compare_groups_with_welch() -> None:
    changes = compare_records(record(OLD), record(NEW, seed=8))
    assert [row.method for row in changes.main] == ["welch"] * 3
    raw = [stats.ttest_ind(NEW[label], OLD[label], equal_var=False).pvalue for label in OLD]
    assert [row.p for row in changes.main] == pytest.approx(raw)
    finding = change_findings(changes)[0]
    assert "seeds differ (7 then, 8 now)" in finding.evidence
    assert "Welch" in finding.evidence


def folded(scores: Mapping[str, Sequence[float]], folds: int, *, seed: int = 7) -> Record:
    setting = Property(kind="setting", name="data.folds", value=str(folds))
    return replace(record(scores, seed=seed), properties=(setting,))


def test_folds_are_compared_by_the_corrected_resampled_t() -> None:
    changes = compare_records(folded({"bn": OLD["bn"]}, 3), folded({"bn": NEW["bn"]}, 3))
    (row,) = changes.main
    told = "(paired t test; for folds its variance is that of the corrected resampled t, Nadeau and Bengio 2003)."
    assert told in change_findings(changes)[0].evidence
    gaps = np.subtract(NEW["bn"], OLD["bn"])
    error = gaps.std(ddof=1) * (1 / 3 + 1 / 2) ** 0.5  # test images over the others: a third over two thirds
    half = stats.t.ppf(0.975, 2) * error
    assert row.method == "paired"
    assert row.p == pytest.approx(2 * stats.t.sf(gaps.mean() / error, 2))
    assert (row.low, row.high) == (pytest.approx(gaps.mean() - half), pytest.approx(gaps.mean() + half))
    shift = brentq(lambda one: stats.nct.sf(stats.t.ppf(0.975, 2), 2, one) - 0.8, 1, 20)
    assert row.detectable == pytest.approx(shift * error, rel=0.01)
    own = np.std(OLD["bn"], ddof=1) * (1 / 3 + 1 / 2) ** 0.5
    assert row.old.high == pytest.approx(np.mean(OLD["bn"]) + stats.t.ppf(0.975, 2) * own)


def test_folds_of_other_seeds_or_numbers_are_groups_each_with_its_own_correction() -> None:
    then, now = (0.78, 0.80, 0.80, 0.81), (0.85, 0.862, 0.842)
    one, other = np.var(then, ddof=1) * (1 / 4 + 1 / 3), np.var(now, ddof=1) * (1 / 3 + 1 / 2)
    degrees = (one + other) ** 2 / (one**2 / 3 + other**2 / 2)
    known = 2 * stats.t.sf((np.mean(now) - np.mean(then)) / (one + other) ** 0.5, degrees)
    for seed in (7, 8):
        changes = compare_records(folded({"bn": then}, 4), folded({"bn": now}, 3, seed=seed))
        assert (changes.main[0].method, changes.main[0].p) == ("welch", pytest.approx(known))
        evidence = change_findings(changes)[0].evidence
        assert ("on a fold of 4 each then and on a fold of 3 each now" in evidence) == (seed == 7)
        assert "corrected resampled t" in evidence
    fixed = compare_records(record({"bn": then}), folded({"bn": now}, 3)).main[0]
    plain = np.var(then, ddof=1) / 4
    assert fixed.p == pytest.approx(
        2 * stats.t.sf((np.mean(now) - np.mean(then)) / (plain + other) ** 0.5,
                       (plain + other) ** 2 / (plain**2 / 3 + other**2 / 2))
    )  # fmt: skip


def test_too_few_common_repeats_fall_back() -> None:
    apart = record({"bn": (0.9, 0.91, 0.92)})
    moved = replace(
        apart.conditions[0], readings=(Reading(metric="test.accuracy", repeats=(2, 3, 4), values=(0.9, 0.8, 0.7)),)
    )
    (row,) = compare_records(apart, replace(apart, conditions=(moved,))).main
    assert (row.method, row.verdict) == ("welch", "not told apart")
    (alone,) = compare_records(record({"bn": (0.9,)}), record({"bn": (0.8,)})).main
    assert (alone.method, alone.p, alone.verdict) == ("none", None, "untested")


def test_the_finding_names_what_changed_what_could_have_been_seen_and_what_is_gone() -> None:
    worse = {**NEW, "bn": tuple(value - 0.1 for value in NEW["bn"])}
    del worse["ln"]
    main, *others = change_findings(compare_records(record(OLD), record({**worse, "x": (0.1, 0.2, 0.3)})))
    assert main.tone == "warning"
    assert "“bn” (\N{MINUS SIGN}4.87 points); 1 other condition is not told apart" in main.sentence
    assert [finding.sentence for finding in others] == ["Conditions gone: “ln”; new: “x”."]
    quiet = change_findings(compare_records(record({"gn": OLD["gn"]}), record({"gn": NEW["gn"]})))[0]
    assert "No change in test accuracy is beyond chance" in quiet.sentence
    spread = stats.tstd([new - old for new, old in zip(NEW["gn"], OLD["gn"], strict=True)])
    threshold = stats.t.ppf(0.975, 2)
    shift = brentq(lambda one: stats.nct.sf(threshold, 2, one) - 0.8, 1, 20)
    told = re.search(r"a true change of ([\d.]+) points", quiet.sentence)
    assert told is not None and float(told[1]) == pytest.approx(100 * shift * spread / 3**0.5, rel=0.01)
    same = change_findings(compare_records(record(OLD), record(OLD)))[0]
    assert "exactly the value it had" in same.sentence


def test_scores_that_cannot_be_tested_are_not_called_unchanged() -> None:
    reading = Reading(metric="test.loss", repeats=(0,), values=(0.5,))
    one = record({"bn": (0.9,)})
    old = replace(one, conditions=(replace(one.conditions[0], readings=(*one.conditions[0].readings, reading)),))
    moved = replace(reading, values=(0.6,))
    new = replace(one, conditions=(replace(one.conditions[0], readings=(*one.conditions[0].readings, moved)),))
    sentences = {finding.rule: finding.sentence for finding in change_findings(compare_records(old, new))}
    assert "none can be tested" in sentences["changed-scores"]
    same = {finding.rule: finding.sentence for finding in change_findings(compare_records(old, old))}
    assert "exactly what they were" in same["changed-scores"]


def test_other_data_is_a_warning() -> None:
    changes = compare_records(record(OLD, fingerprint="aa"), record(OLD, fingerprint="bb"))
    assert [(one.name, one.old, one.new) for one in changes.properties] == [("fingerprint", "aa", "bb")]
    assert [f.tone for f in change_findings(changes)] == ["note", "warning"]
    assert compare_records(record(OLD, extra="x"), record(OLD)).properties[0].new is None


def test_a_record_survives_json_and_holds_every_repeat(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn", "gn"), epochs=2)
    found = record_of(results)
    assert record_from(json.loads(record_text(found))) == found
    condition = found.conditions[0]
    scores = [trial.score("test.loss") for trial in results.of(results.conditions[0])]
    assert condition.reading("test.loss") == dict(enumerate(scores))
    assert condition.reading("cost.seconds").keys() == {0, 1, 2}
    named = {(one.kind, one.name): one.value for one in found.properties}
    assert named["study", "factor model.norm"] == "bn, gn"
    assert named["setting", "train.optimizer.lr"] == "0.1"
    assert named["version", "versions torch"] == "2.15.0"
    assert named["data", "fingerprint"] == "0" * 64


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"version": 99}, "version 99"),
        ({"conditions": "none"}, "damaged"),
        ({"seed": 7, "metric": 3}, "damaged"),
        ({"properties": [{"kind": "a"}]}, "damaged"),
        ({"conditions": [{"key": "k", "label": "l", "readings": [
            {"metric": "m", "repeats": [0], "values": ["x"]}]}]}, "damaged"),
        ({"conditions": [{"key": "k", "label": "l", "readings": [
            {"metric": "m", "repeats": [0, 1], "values": [0.5]}]}]}, "damaged"),
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused_in_words(damage: dict[str, object], words: str) -> None:
    content = json.loads(record_text(record(OLD)))
    with pytest.raises(ValueError, match=words):
        record_from({**content, **damage})
    with pytest.raises(ValueError, match="no record"):
        record_from([1, 2])
