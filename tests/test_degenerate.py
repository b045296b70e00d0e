"""Models that answer one class for ever, and conditions that are one and the same model under several names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figure_results import condition, cost, metrics, results, trial
from safetensors.numpy import save_file
from sklearn.dummy import DummyClassifier
from sklearn.metrics import confusion_matrix

from benchkit.analysis.ranking import rank
from benchkit.analysis.summary import summarize
from benchkit.analysis.trained_models import identical_conditions, one_class_conditions, only_class
from benchkit.results import Outcome, StudyResults

LABELS = np.array([0] * 13 + [1] * 4 + [2] * 3)


def constant_confusion() -> tuple[tuple[int, ...], ...]:
    """Return the confusion of scikit-learn's classifier that always names the most frequent class."""
    model = DummyClassifier(strategy="most_frequent").fit(LABELS[:, None], LABELS)
    called = model.predict(LABELS[:, None])
    return tuple(tuple(map(int, row)) for row in confusion_matrix(LABELS, called))


def study(*confusions: dict[str, tuple[tuple[int, ...], ...]]) -> StudyResults:
    """Return results whose repeat n has the n-th confusions, by condition."""
    labels = list(confusions[0])
    conditions = [replace(condition(label), levels={"model.norm": label}) for label in labels]
    trials = []
    for index, repeat in enumerate(confusions):
        for one in conditions:
            matrix = np.array(repeat[one.label])
            scored = metrics(float(matrix.trace() / matrix.sum()), confusion=repeat[one.label])
            outcome = Outcome(state="done", metrics={"test": scored}, cost=cost())
            trials.append(trial(one, index, outcome=outcome, number=len(trials)))
    return replace(results(conditions, trials), class_names=("plane", "ship", "cat"))


SOUND = ((10, 2, 1), (1, 3, 0), (1, 0, 2))
OTHER = ((11, 1, 1), (2, 2, 0), (0, 0, 3))


def test_a_model_that_always_names_the_largest_class_is_found() -> None:
    given = study({"sound": SOUND, "dull": constant_confusion()}, {"sound": OTHER, "dull": constant_confusion()})
    (row,) = one_class_conditions(given)
    assert (row.label, row.called, row.repeats, row.of, row.always) == ("dull", ("plane",), 2, 2, True)
    assert row.accuracy == pytest.approx(13 / 20)
    found = next(finding for finding in summarize(given).findings if finding.rule == "one-class")
    assert found.sentence == ("“dull” has learnt nothing: its model calls every test image “plane” in 2 repeats.")
    assert found.tone == "warning"
    assert "65.00 %" in found.evidence


def test_one_that_says_nothing_is_never_called_as_good_as_the_best() -> None:
    given = study({"sound": SOUND, "dull": constant_confusion()}, {"sound": OTHER, "dull": constant_confusion()})
    ranking = rank(given, "test.accuracy")
    assert [row.verdict for row in ranking.rows] == ["best", "one class"]
    assert ranking.rivals == ()
    assert not any("may be as good" in finding.sentence for finding in summarize(given).findings)


def test_a_single_repeat_beside_one_that_says_nothing_has_no_interval_to_tell() -> None:
    summary = summarize(study({"sound": SOUND, "dull": constant_confusion()}))
    assert summary.answer[0].startswith("“sound” is best with")
    assert "has one repeat" in summary.basis


def test_models_that_call_all_images_different_classes_are_not_said_to_call_each_image_all_of_them() -> None:
    ship = tuple((0, sum(row), 0) for row in SOUND)
    given = study({"sound": SOUND, "dull": constant_confusion()}, {"sound": OTHER, "dull": ship})
    found = next(finding for finding in summarize(given).findings if finding.rule == "one-class")
    assert found.sentence == (
        "“dull” has learnt nothing: its model calls all test images one class (“plane” and “ship”) in 2 repeats."
    )


def test_one_repeat_of_several_is_said_so() -> None:
    given = study({"sound": SOUND, "dull": constant_confusion()}, {"sound": OTHER, "dull": SOUND})
    (row,) = one_class_conditions(given)
    assert (row.repeats, row.of, row.always) == (1, 2, False)
    found = next(finding for finding in summarize(given).findings if finding.rule == "one-class")
    assert found.sentence == "“dull” learnt nothing in 1 of 2 repeats: its model calls every test image “plane”."
    assert rank(given, "test.accuracy").rows[1].verdict != "one class"


def test_the_short_answer_says_it_of_the_leader_first() -> None:
    dull = constant_confusion()
    summary = summarize(study({"dull": dull, "lead": SOUND}, {"dull": dull, "lead": dull}))  # means 65 and 70 %
    assert [one.about for one in summary.findings if one.rule == "one-class"] == [("dull",), ("lead",)]
    assert summary.answer[0].startswith("“lead” is best") and "“lead” learnt nothing in 1 of 2" in summary.answer[1]


def test_images_of_one_class_say_nothing_of_the_model() -> None:
    assert only_class(metrics(1.0, confusion=((5, 0), (0, 0)))) is None
    assert only_class(metrics(0.5, confusion=((5, 0), (5, 0)))) == 0
    assert only_class(metrics(0.5, confusion=((5, 0), (0, 5)))) is None


def test_conditions_that_are_one_model_are_named_with_the_factor_that_does_nothing() -> None:
    given = study({"bn": SOUND, "gn": SOUND, "ln": OTHER}, {"bn": OTHER, "gn": OTHER, "ln": SOUND})
    (group,) = identical_conditions(given)
    assert (group.labels, group.factors, group.repeats) == (("bn", "gn"), ("model.norm",), 2)
    found = next(finding for finding in summarize(given).findings if finding.rule == "identical-conditions")
    assert found.sentence == "“bn” and “gn” gave exactly the same results: model.norm has no effect on them."


def test_one_repeat_that_differs_makes_them_different() -> None:
    given = study({"bn": SOUND, "gn": SOUND}, {"bn": OTHER, "gn": SOUND})
    assert identical_conditions(given) == ()


def test_conditions_that_share_no_repeat_are_not_said_to_be_one_model() -> None:
    given = study({"bn": SOUND, "gn": SOUND, "ln": SOUND}, {"bn": OTHER, "gn": OTHER, "ln": OTHER})
    lacking = {("bn", 1), ("ln", 0)}  # bn and ln have one repeat each, and not the same one
    trials = tuple(one for one in given.trials if (one.condition.label, one.index) not in lacking)
    (group,) = identical_conditions(replace(given, trials=trials))
    assert (group.labels, group.repeats) == (("bn", "gn"), 1)


def test_other_parameters_make_them_different() -> None:
    given = study({"bn": SOUND, "gn": SOUND})
    more = [
        replace(one, outcome=replace(one.outcome, cost=replace(cost(), parameters=1 + place)))
        for place, one in enumerate(given.trials)
        if one.outcome
    ]
    assert identical_conditions(replace(given, trials=tuple(more))) == ()


def test_a_layer_that_puts_out_only_zeros_is_named(tmp_path: Path) -> None:
    given = study({"in": SOUND})
    (only,) = given.trials
    arrays = {"zero.001.stem": np.array([False, True]), "zero.002.stage": np.array([True, True])}
    save_file(arrays, tmp_path / "inspected-activation-maps.safetensors")
    report = replace(given.study.report, figures=(("activation-maps", {}),))
    seen = replace(given, trials=(replace(only, folder=tmp_path),), study=replace(given.study, report=report))
    (found,) = [finding for finding in summarize(seen).findings if finding.rule == "silent-layer"]
    assert (found.sentence, found.tone) == ("“in” puts out only zeros in stage.", "warning")
