"""Repeats that are folds: each image is tested once, groups stay whole, and intervals say that folds share images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_study
import torch
from engine_runs import make_settings, make_splits
from scipy import stats
from synthetic_results import complete, rescored

from benchkit.analysis.candidates import beaten_p, candidates, fold_variance
from benchkit.analysis.comparisons import minimum_detectable_difference, paired_t
from benchkit.analysis.estimates import estimate
from benchkit.analysis.ranking import basis, rank
from benchkit.analysis.summary import summarize
from benchkit.capsule.making import study_text
from benchkit.cli import main
from benchkit.data.dataset import Selection, folds_of, pooled, select
from benchkit.errors import DataError, StudyError
from benchkit.ledger import read_results
from benchkit.plan import make_plan
from benchkit.preparation import About, Draft, prepare
from benchkit.report.context.compose import compose
from benchkit.study.studyfile import parse_study
from benchkit.sweep.status import status_of
from benchkit.train.placement import images_for

LABELS = np.repeat([0, 1, 2], [23, 11, 7])


def test_folds_are_stratified_and_every_image_is_tested_once() -> None:
    fold = folds_of(LABELS, None, 5, seed=3)
    for label in range(3):
        counts = np.bincount(fold[LABELS == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    totals = np.bincount(fold, minlength=5)
    assert totals.max() - totals.min() <= 1 and totals.sum() == len(LABELS)
    assert np.array_equal(fold, folds_of(LABELS, None, 5, seed=3))
    assert not np.array_equal(fold, folds_of(LABELS, None, 5, seed=4))
    with pytest.raises(DataError, match="8 folds need 8 images of each class"):
        folds_of(LABELS, None, 8, seed=3)


def test_groups_are_whole_and_spread() -> None:
    groups = np.arange(len(LABELS)) // 2 * 2  # pairs, of which two hold two classes
    fold = folds_of(LABELS, groups, 3, seed=1)
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    for label, most in ((0, 4), (1, 4), (2, 3)):
        counts = np.bincount(fold[LABELS == label], minlength=3)
        assert counts.min() >= 1 and counts.max() - counts.min() <= most


def parts(found: Selection) -> list[list[int]]:
    return [sorted(part.rows.tolist()) for part in (found.train, found.val, found.test)]


def test_each_repeat_tests_another_fold_of_all_images() -> None:
    splits, settings = make_splits(), make_settings({"folds": 4}).data
    everything = list(range(80 + 24 + 32))
    found = [select(splits, settings, 5, repeat) for repeat in range(4)]
    assert sorted(row for one in found for row in parts(one)[2]) == everything
    for one in found:
        train, val, test = parts(one)
        assert sorted(train + val + test) == everything and len(test) == 34 and len(val) == 10
    pool = pooled(splits)
    assert np.array_equal(pool.images[80:104], splits.val.images)  # type: ignore[union-attr]
    assert parts(select(splits, settings, 5, 2)) == parts(found[2])


def test_validation_images_of_groups_are_whole_groups(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def fill(draft: Draft) -> About:
        for at, (split, count) in enumerate((("train", 48), ("test", 12))):
            images = generator.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
            draft.write(split, images, np.arange(count) % 2)
            draft.group(split, [100 * at + n // 4 if n < 8 * (2 - at) else -1 for n in range(count)])
        return About(class_names=("a", "b"), licence="made up", citation="none")

    prepare(tmp_path, "grouped", fill)
    splits = prepare(tmp_path, "grouped", fill)  # as served
    assert splits.test.groups is not None and splits.test.groups[:4].tolist() == [100] * 4
    pool = pooled(splits)
    assert pool.groups is not None and len(np.unique(pool.groups)) == 4 + 2 + 32 + 4
    settings = make_settings({"folds": 3}).data
    for repeat in range(3):
        each = [set(pool.groups[rows].tolist()) for rows in parts(select(splits, settings, 0, repeat))]
        assert not each[0] & each[1] and not each[0] & each[2] and not each[1] & each[2] and each[1]


def test_a_worker_places_the_images_of_each_fold() -> None:
    splits, settings, cpu = make_splits(), make_settings({"folds": 4}), torch.device("cpu")
    images = images_for(settings, splits, cpu, repeat=1)
    assert images.serve(settings, splits, cpu, None, 1) and not images.serve(settings, splits, cpu, None, 2)
    fixed = images_for(make_settings(), splits, cpu, repeat=1)
    assert fixed.serve(make_settings(), splits, cpu, None, 2)


# --- what a study says ------------------------------------------------------------------------------------------------


def text(repeats: str, more: str = "") -> str:
    return tiny_study.text_of(tiny_study.FACTOR + more, epochs=1).replace("[repeats]\nn = 2", f"[repeats]\n{repeats}")


def test_a_study_says_so_and_its_capsule_repeats_it() -> None:
    study = parse_study(text('n = 4\nsplits = "folds"'), name="tiny")
    assert study.splits == "folds" and study.repeats == 4 and study.settings["data"]["folds"] == 4
    again = parse_study(study_text(study), name="tiny")
    keys = [[one.key for one in make_plan(each).conditions] for each in (study, again)]
    fixed = [one.key for one in make_plan(parse_study(text('n = 4\nsplits = "fixed"'), name="tiny")).conditions]
    usual = [one.key for one in make_plan(parse_study(text("n = 4"), name="tiny")).conditions]
    other = [one.key for one in make_plan(parse_study(text('n = 5\nsplits = "folds"'), name="tiny")).conditions]
    assert keys[0] == keys[1] and fixed == usual and not {*keys[0]} & {*usual, *other} and not {*other} & {*usual}


@pytest.mark.parametrize(
    ("repeats", "words"),
    [
        ('n = 1\nsplits = "folds"', "folds need repeats.n of 2 or more"),
        ('n = 4\nuntil = "decided"\nsplits = "folds"', "and neither most nor until"),
        ('n = 4\nsplits = "leave-one-out"', "expected one of fixed, folds"),
    ],
)
def test_what_folds_cannot_be_is_refused(repeats: str, words: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(text(repeats), name="tiny")
    assert words in str([caught.value, *caught.value.problems])


def test_searches_and_written_folds_are_refused() -> None:
    folds = text('n = 4\nsplits = "folds"')
    for given, words in (
        (folds + tiny_study.SEARCH, "a search chooses settings on images that other folds test"),
        (text("n = 4").replace("[data]\n", "[data]\nfolds = 4\n"), 'is written by repeats.splits = "folds"'),
    ):
        with pytest.raises(StudyError) as caught:
            parse_study(given, name="tiny")
        assert words in str([caught.value, *caught.value.problems])


# --- intervals --------------------------------------------------------------------------------------------------------

FIRST, SECOND = (0.91, 0.87, 0.93, 0.90, 0.88), (0.88, 0.86, 0.90, 0.90, 0.83)


def test_intervals_and_tests_are_the_corrected_resampled_ones() -> None:
    """By the formulas as written in the paper: variance (1/n + n2/n1) s^2, here n2/n1 = 1/4."""
    d = np.subtract(FIRST, SECOND)
    error = math.sqrt((1 / 5 + 1 / 4) * d.var(ddof=1))
    found = paired_t(FIRST, SECOND, 0.25)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(d.mean() / error), 4), rel=1e-12)
    low, high = stats.t.interval(0.95, 4, loc=d.mean(), scale=error)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), rel=1e-12)
    one = estimate(FIRST, resampled=0.25)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(FIRST), scale=math.sqrt(0.45) * np.std(FIRST, ddof=1))
    assert (one.low, one.high) == pytest.approx((low, high), rel=1e-12)
    assert one.half_width == pytest.approx((high - low) / 2, rel=1e-12)
    plain = minimum_detectable_difference(0.02, 5)
    wider = minimum_detectable_difference(0.02, 5, resampled=0.25)
    assert plain and wider == pytest.approx(plain * math.sqrt(0.45 / 0.2), rel=1e-12)


def test_the_rule_of_candidates_uses_the_wider_error() -> None:
    v = np.array([0.0004, 0.0004])
    p = beaten_p(np.array([0.9, 0.87]), v, np.array([4.0, 4.0]), np.array([5, 5]) / (1 + 5 * 0.25))
    error = math.sqrt(2 * 0.0004 * (1 / 5 + 1 / 4))
    assert p[1] == pytest.approx(2 * stats.t.sf(0.03 / error, 8), rel=1e-9)  # Holm: twice the smallest of two


def test_folds_are_asked_for_no_more_repeats_and_depend_on_no_random_seed(tmp_path: Path) -> None:
    scores = {"bn": [0.90, 0.91, 0.92], "gn": [0.90, 0.91, 0.915], "ln": [0.90, 0.60, 0.89]}
    given = rescored(complete(tmp_path, tuple(scores), epochs=2), scores)
    assert summarize(given).answer[-1].startswith("To decide: ") and status_of(given).interim is not None
    folds = replace(given, study=replace(given.study, splits="folds"))
    assert summarize(folds).answer[-1] == "Not decided: 3 folds are all there are; fixed splits can have more repeats."
    assert status_of(folds).interim is None
    (found,) = [one.sentence for one in summarize(folds).findings if one.rule == "unstable-seeds"]
    assert found == "“ln” depends on the fold: its repeats reach from 60.00 to 90.00 %."
    limits = {True: "on 3 folds: differences within their spread stay open.", False: "3 times on the same images: "}
    for results, words in ((folds, limits[True]), (given, limits[False])):
        section = next(part for part in compose(results, summarize(results)).sections if part.name == "limitations")
        assert f"Each condition was trained {words}" in " ".join(getattr(block, "text", "") for block in section.blocks)


def test_a_sweep_over_folds_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = parse_study(text('n = 3\nsplits = "folds"').replace("test_size = 30\n", ""), name="tiny")
    done = tiny_study.sweep_here(monkeypatch, tmp_path, study)
    results = read_results(tmp_path)
    assert done == {"done": 3 * len(results.conditions)} and results.resampled == 0.5
    condition = results.conditions[0]
    trials = [results.repeats(condition)[index] for index in range(3)]
    tested = [trial.score("test.accuracy") for trial in trials]
    labels = np.concatenate([trial.labels("test") for trial in trials])
    whole = sum(results.data["counts"].values())
    assert len(labels) == whole
    assert np.bincount(labels).tolist() == np.sum(list(results.data["class_counts"].values()), axis=0).tolist()
    ranking = rank(results, "test.accuracy")
    row = next(row for row in ranking.rows if row.key == condition.key)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(tested), scale=math.sqrt(1 / 3 + 1 / 2) * np.std(tested, ddof=1))
    assert (row.estimate.low, row.estimate.high) == pytest.approx((max(0, low), min(1, high)))
    right = sum(int((t.predictions("test").argmax(1) == t.labels("test")).sum()) for t in trials)
    floor = right / whole * (1 - right / whole) / (whole / 3)
    assert fold_variance(results, condition) == pytest.approx(floor, rel=1e-12)
    (candidate,) = [one for one in candidates(results, "test.accuracy").conditions if one.key == condition.key]
    assert candidate.image_std == pytest.approx(math.sqrt(floor))
    summary = summarize(results)
    assert summary.numbers.uncertainty == ()
    assert "corrected resampled t (Nadeau and Bengio 2003)" in basis(ranking, summary.numbers.coverage)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--workspace", str(tmp_path), "--format", "html", "--out", str(tmp_path / "out")]) == 0
    page = next((tmp_path / "out").rglob("*.html")).read_text(encoding="utf-8")
    assert "by the corrected resampled t (Nadeau and Bengio 2003): s √(1/n + 0.5)" in page
