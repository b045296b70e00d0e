"""What learning curves say of over-fitting and of the time to an accuracy, by histories written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from figure_results import condition, metrics, results, trial
from tiny_study import RECORD

from benchkit.analysis.estimates import estimate
from benchkit.analysis.training import (
    ConditionCost,
    Gap,
    ReachedAccuracy,
    TimeToAccuracy,
    fastest_findings,
    gap_findings,
    overfits,
    overfits_in,
    overfitting_findings,
    overfitting_onset,
    speed_findings,
    time_to_accuracy,
)
from benchkit.results import EpochRecord, Outcome, StudyResults


def history(*losses: tuple[float, float]) -> list[EpochRecord]:
    """Return the records of epochs by their (training loss, validation loss)."""
    return [
        replace(RECORD, epoch=epoch, train_loss=train, val_loss=val) for epoch, (train, val) in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(
    ("losses", "onset"),
    [
        ([(1.0, 1.0), (0.8, 0.5), (0.6, 0.6)], 2),
        ([(1.0, 0.5), (0.8, 0.6)], None),  # two epochs are no curve
        ([(1.0, 1.0), (0.8, 0.5), (0.6, 0.525)], None),  # a rise of 5% is not more than 5%
        ([(1.0, 1.0), (0.8, 0.5), (0.6, 0.5255)], 2),
        ([(1.0, 1.0), (0.8, 0.5), (0.8, 0.6)], None),  # the training loss did not fall
        ([(1.0, 0.7), (0.8, 0.9), (0.6, 0.4)], None),  # the last is the least
    ],
)
def test_over_fitting_is_a_rise_of_the_validation_loss_while_the_training_loss_falls(
    losses: list[tuple[float, float]], onset: int | None
) -> None:
    least = overfits(history(*losses))
    assert (least.epoch if least else None) == onset


def cost(label: str, speeds: Sequence[float], device: str = "cpu") -> ConditionCost:
    seconds = estimate([1.0] * len(speeds))
    return ConditionCost(
        key=label, label=label, parameters=1, flops=1, epochs=1.0, seconds=seconds, images_per_second=estimate(speeds),
        peak_memory=seconds, best_seconds=None, energy=None, matrix_share=None, devices=(device,), precisions=("fp32",),
    )  # fmt: skip


STEADY = (cost("a", (99.0, 100.0, 101.0)), cost("b", (198.0, 200.0, 202.0)))
LOADED = (cost("a", (60.0, 100.0, 140.0)), cost("b", (190.0, 200.0, 210.0)))
"""Standard deviations of 0.4 and of 0.05 of the mean: for one of them the machine did something else, too."""


def reached(label: str, seconds: float | None, repeats: int, epochs: float | None = 1.0) -> ReachedAccuracy:
    epochs = None if seconds is None else epochs
    return ReachedAccuracy(key=label, label=label, epochs=epochs, seconds=seconds, repeats=repeats, of=2)


def test_the_fastest_condition_reached_the_accuracy_in_every_repeat() -> None:
    lucky, sure, never = reached("lucky", 5.0, 1), reached("sure", 70.0, 2), reached("never", None, 0)
    (found,) = fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(lucky, sure, never)), STEADY)
    assert found.sentence == (
        "“sure” is the fastest to a validation accuracy of 90.00 %: 1 min 10 s of training, 1 epoch on average over "
        "2 repeats."
    )
    assert "which are no test" in found.evidence
    assert "“lucky” 5.0 s (not every repeat)" in found.evidence and "“never” never" in found.evidence
    assert fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(lucky, never)), STEADY) == []
    assert fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(sure,)), STEADY) == []
    first = reached("first", 8.0, 2, epochs=4.0)  # 2 s an epoch, which is how finely an arrival is known
    for second, ahead in ((9.9, False), (10.0, True)):
        arrivals = (first, reached("second", second, 2, epochs=4.0))
        assert bool(fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=arrivals), STEADY)) == ahead


@pytest.mark.parametrize(
    "costs", [LOADED, (STEADY[0], cost("b", (200.0,))), (STEADY[0], cost("b", (200.0,) * 3, "gpu"))]
)
def test_where_times_do_not_compare_epochs_do(costs: tuple[ConditionCost, ...]) -> None:
    slow, quick = reached("slow", 5.0, 2, epochs=7.0), reached("quick", 70.0, 2, epochs=5.5)
    (found,) = fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(slow, quick)), costs)
    assert found.sentence == (
        "“quick” needs the fewest epochs to a validation accuracy of 90.00 %: 5.5 on average over 2 repeats."
    )
    single = [replace(one, repeats=1, of=1) for one in (slow, quick)]
    assert fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=tuple(single)), costs) == []
    assert "“slow” 7 epochs" in found.evidence and "Times are not compared" in found.evidence
    close = reached("slow", 5.0, 2, epochs=6.4)
    assert fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(close, quick)), costs) == []
    lucky = reached("lucky", 5.0, 1, epochs=5.0)
    assert fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(lucky, quick)), costs) == []
    assert fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(lucky,)), costs) == []


def test_no_speed_is_named_where_repeats_vary_or_are_one() -> None:
    (found,) = speed_findings(STEADY)
    assert found.sentence == "“b” trains 2 times as fast as “a”."
    (found,) = speed_findings(LOADED)
    assert "No condition can be called faster: training speed varies between repeats" in found.sentence
    apart = (cost("a", (85.0, 100.0, 115.0)), cost("b", (1000.0, 1000.0, 1000.0)))  # disjoint intervals, 0.15 of 100
    (found,) = speed_findings(apart)  # what tells them apart is more than what repeats vary by
    assert found.sentence == (
        "No condition can be called faster: training speed varies between repeats of one by more than 10 % of its "
        "mean, as on a machine that does other work too."
    )
    (found,) = speed_findings((cost("a", (95.0, 100.0, 105.0)), cost("b", (120.0, 125.0, 130.0))))
    assert found.sentence == (  # 100 + 4.30 * 5 / sqrt 3 = 112.4 and 125 - 12.4 = 112.6 are apart, 124 - 12.4 is not
        "“b” trains 1.2 times as fast as “a”."
    )
    (found,) = speed_findings((cost("a", (95.0, 100.0, 105.0)), cost("b", (119.0, 124.0, 129.0))))
    assert found.sentence == (
        "No condition can be called faster: training speed varies between repeats as between conditions."
    )
    (found,) = speed_findings((STEADY[0], cost("b", (200.0,))))
    assert "with one repeat it is not known" in found.sentence


def gap(label: str, *values: float) -> Gap:
    return Gap(key=label, label=label, difference=estimate(values))


def test_the_narrowest_gap_is_the_one_nearest_to_none_and_keeps_its_sign() -> None:
    (found,) = gap_findings((gap("bin", 0.1683), gap("ln", -0.0194), gap("gn", 0.0059)))
    assert found.sentence == (
        "“bin” has the widest gap between train and validation accuracy, 16.83 points; the narrowest is 0.59 points, "
        "“gn”."
    )
    (found,) = gap_findings((gap("bin", 0.1683), gap("ln", -0.0041)))
    assert "the narrowest is \N{MINUS SIGN}0.41 points, “ln”" in found.sentence
    assert list(gap_findings((gap("bin", 0.049), gap("ln", -0.2)))) == []


RISING = history((1.0, 1.0), (0.8, 0.5), (0.6, 0.6))


def scored(train: float, val: float, records: Sequence[EpochRecord] = RISING) -> StudyResults:
    """Return one condition of one repeat, whose scored weights have these losses of ten classes."""
    given = condition("bn")
    splits = {"train": metrics(0.5, train), "val": metrics(0.5, val)}
    ten = {split: replace(found, class_accuracy=(0.5,) * 10) for split, found in splits.items()}
    outcome = Outcome(state="done", metrics=ten)  # type: ignore[arg-type]
    return results([given], [trial(given, 0, outcome=outcome, history=list(records))])


@pytest.mark.parametrize(("train", "val", "told"), [
    (0.4, 0.5, True),
    (0.5, 0.4, False),  # in evaluation mode it does no better on what it was trained on
    (2.2, 2.3, False),  # over 0.9 log(10) = 2.07: next to guessing
])  # fmt: skip
def test_a_network_that_fails_to_learn_does_not_over_fit(train: float, val: float, told: bool) -> None:
    given = scored(train, val)
    assert (overfits_in(given.trials[0]) is not None) is told
    assert (overfitting_onset(given, given.conditions[0]) is not None) is told


def test_the_onset_is_an_epoch() -> None:
    late = history((1.0, 1.0), (0.8, 0.9), (0.7, 0.5), (0.6, 0.6))
    first, second = scored(0.4, 0.5), scored(0.4, 0.5, late)
    both = replace(first, trials=(first.trials[0], replace(second.trials[0], index=1)))
    found = overfitting_onset(both, both.conditions[0])
    assert found is not None and (found.epoch, found.repeats) == (2.0, 2)


def test_a_loss_that_rises_while_the_accuracy_does_is_not_called_over_fitting() -> None:
    better = [replace(record, val_accuracy=0.1 * record.epoch) for record in RISING]
    worse = [replace(record, val_accuracy=0.9 - 0.1 * record.epoch) for record in RISING]
    onsets = [
        replace(onset, label=label)
        for label, records in (("a", better), ("b", worse))
        if (onset := overfitting_onset(given := scored(0.4, 0.5, records), given.conditions[0]))
    ]
    assert [onset.gain for onset in onsets] == pytest.approx([0.1, -0.1])  # the least loss is that of epoch 2 of 3
    fits, probable = overfitting_findings(onsets)
    assert fits.sentence == "“b” over-fits: validation loss rises after epoch 2."
    assert probable.sentence == (
        "The validation loss of “a” rises while accuracy still does, so that probabilities get worse and answers do "
        "not: after epoch 2."
    )


def test_an_accuracy_that_all_have_after_the_first_epoch_is_no_race() -> None:
    flat = [replace(RECORD, epoch=epoch, val_accuracy=0.9) for epoch in (1, 2)]
    assert time_to_accuracy(scored(0.4, 0.5, flat)) is None
    later = [replace(RECORD, epoch=epoch, val_accuracy=0.45 * epoch) for epoch in (1, 2)]
    assert time_to_accuracy(scored(0.4, 0.5, later)) is not None
