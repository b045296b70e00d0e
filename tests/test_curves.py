"""What learning curves say of over-fitting and of the time to an accuracy, by histories written out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_study import RECORD

from benchkit.analysis.training import ReachedAccuracy, TimeToAccuracy, fastest_findings, overfits
from benchkit.results import EpochRecord


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


def test_the_fastest_condition_reached_the_accuracy_in_every_repeat() -> None:
    def reached(label: str, seconds: float | None, repeats: int) -> ReachedAccuracy:
        epochs = None if seconds is None else 1.0
        return ReachedAccuracy(key=label, label=label, epochs=epochs, seconds=seconds, repeats=repeats, of=2)

    lucky, sure, never = reached("lucky", 5.0, 1), reached("sure", 70.0, 2), reached("never", None, 0)
    (found,) = fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(lucky, sure, never)))
    assert found.sentence.startswith("“sure” is the fastest to a validation accuracy of 90")
    assert "“lucky” 5.0 s (not every repeat)" in found.evidence and "“never” never" in found.evidence
    assert fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(lucky, never))) == []
    assert fastest_findings(TimeToAccuracy(accuracy=0.9, arrivals=(sure,))) == []
