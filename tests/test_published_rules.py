"""Published numbers that cannot be: every known defect of the built-in studies' sources is found or noted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from figure_results import condition, metrics, results, trial

import benchkit
from benchkit.analysis.inconsistencies import calibrated_loss, doubled_softmax_loss, least_loss
from benchkit.analysis.published import agreement_findings, implied_n, is_fraction
from benchkit.analysis.summary import summarize
from benchkit.analysis.wording import Finding
from benchkit.errors import StudyError
from benchkit.plan import make_plan
from benchkit.results import Outcome, StudyResults
from benchkit.study import Published, PublishedRow
from benchkit.study.studyfile import parse_study, read_study

STUDIES = Path(benchkit.__file__).parent / "studies"
CLASSES = {"birds25": 25, "cifar10": 10, "coco5": 5, "mnist": 10, "tiny-cifar10": 10, "cifar100": 100, "birds200": 200}
PUBLISHING = sorted(path.stem for path in STUDIES.glob("*.toml") if "[[published]]" in path.read_text())

FOUND: Sequence[tuple[str, str, str]] = (
    ("norms-birds25", "implied-n", "test accuracy look like fractions of only 12 images"),
    ("norms-birds25", "implied-n", "val accuracy look like fractions of only 29 images"),
    ("regularization-mnist", "no-fraction", ""),
    ("norms-birds25", "micro-f1", "the test micro F1 of “torch-bn”, 81.81 %, differs from its accuracy, 91.66 %"),
    ("norms-birds25", "micro-f1", "so the two columns look exchanged"),
    ("norms-birds25", "published-ties", "12 images do not tell"),
    ("norms-cifar10", "published-ties", "do not tell “torch-bn” and “bin” from the best test accuracy, that of “bn”"),
    ("regularization-mnist", "published-ties", "do not tell “none” and “early stopping” from the best test accuracy"),
    ("scratch-cifar10", "softmax-twice", "cannot fall below 1.4612 nats"),
    ("transfer-birds200", "loss-bound", "4 losses cannot be a mean over images at the accuracy beside them"),
    ("transfer-birds200", "loss-bound", "divided by the batch size once too often"),
    ("transfer-birds200", "class-count", "it speaks of 100 classes, and the data set has 200"),
)  # fmt: skip
NOTED: Sequence[tuple[str, str]] = (
    ("norms-birds25", "the other way round"),
    ("norms-cifar10", "inside the sampling error of 10,000 test images"),
    ("norms-cifar10", "the channels are a multiple of the groups"),
    ("skip-coco5", "98 parameter tensors at depth 32; its code makes 108"),
    ("skip-coco5", "at 1e-3 its own numbers have couch below dog"),
    ("scratch-cifar10", "ln(e + 9) - 1 = 1.4612"),
    ("transfer-birds200", "k/3000 and k/3033"),
    ("batch-size-birds25", "no numbers"),
    ("transfer-cifar10", "no numbers"),
    ("dropout-tiny-cifar10", "no numbers"),
    ("ablation-cifar100", "the size of the validation split is not stated"),
    ("regularization-mnist", "0.9814453125 is 10050/10240"),
    ("regularization-mnist", "not under dropout"),
    ("transfer-cifar10", "0.6 is the weaker clipping"),
    ("dropout-tiny-cifar10", "2,359,296"),
    ("scratch-cifar10", "94.5 % of right answers"),
    ("batch-size-cifar10", "which a regularizer does not do"),
    ("batch-size-cifar10", "reads its own curves as confirming Wu and He"),
    ("norms-birds25", "it shows no change of gradients"),
    ("skip-coco5", "over-fitting is the opposite"),
    ("ablation-cifar100", "has a ReLU after every batch norm"),
    ("ablation-cifar100", "38 + 4 = 42 %"),
    ("baseline-cifar10", "not stated"),
    ("batch-size-cifar10", "not stated"),
)
"""What no number shows by itself stands as a note in the study file."""


def built_in(name: str) -> StudyResults:
    study = read_study(STUDIES / f"{name}.toml")
    count = CLASSES[str(study.settings["data"]["name"])]
    names = tuple(f"class {place}" for place in range(count))
    return StudyResults(study=study, conditions=make_plan(study).conditions, trials=(), class_names=names)


def said(given: StudyResults, rule: str) -> list[Finding]:
    return [finding for finding in summarize(given).findings if finding.rule == rule]


@pytest.mark.parametrize(("name", "rule", "words"), FOUND)
def test_a_known_defect_is_found_from_the_numbers_alone(name: str, rule: str, words: str) -> None:
    found = said(built_in(name), rule)
    assert any(words in finding.sentence for finding in found), [finding.sentence for finding in found]
    assert all(finding.evidence for finding in found)


@pytest.mark.parametrize(("name", "words"), NOTED)
def test_a_defect_that_no_number_shows_is_noted(name: str, words: str) -> None:
    study = built_in(name).study
    assert study.origin is not None
    texts = [study.origin.note, *(claim.against for claim in study.origin.claims)]
    texts += [text for table in study.published for text in (table.note, *(row.note for row in table.rows))]
    notes = " ".join(texts)
    assert words in " ".join(notes.split())


@pytest.mark.parametrize("name", PUBLISHING)
def test_every_study_with_published_numbers_is_looked_at(name: str) -> None:
    assert name in {one for one, *_ in (*FOUND, *NOTED)}
    doubts = {finding.rule for finding in summarize(built_in(name)).findings if finding.tone == "warning"}
    listed = {rule for one, rule, _ in FOUND if one == name} | {"unfinished", "no-fraction"}
    assert doubts <= listed, "a doubt about numbers that are not known to be wrong"


def test_the_shares_that_are_no_fraction_are_the_exchanged_ones() -> None:
    # 0.9735 x 29 = 28.23 and 0.8181 x 12 = 9.82 are no whole numbers; both stand where micro F1 should equal accuracy,
    # so that rule speaks of them and this one keeps silent.
    assert said(built_in("norms-birds25"), "no-fraction") == []
    assert not is_fraction(0.9735, 29)
    assert not is_fraction(0.8181, 12)


def test_a_number_that_another_rule_doubts_implies_no_n() -> None:
    # 0.8181 stands where micro F1 should equal accuracy; with it the values would look like fractions of 132 images.
    found = [
        finding.sentence for finding in said(built_in("norms-birds25"), "implied-n") if "micro" in finding.sentence
    ]
    assert sorted(sentence.partition("fractions of only ")[2] for sentence in found) == ["12 images.", "29 images."]


def test_the_losses_of_the_birds_are_bounded_by_hand() -> None:
    (found,) = said(built_in("transfer-birds200"), "loss-bound")
    # (1 - 0.3604) ln 2 = 0.443337; 0.1022 x 32 = 3.2704.
    assert "test loss 0.1022 at 36.04 %, bound 0.4433" in found.evidence
    assert "0.1022 x 32 = 3.27" in found.evidence


# --- the numbers behind the rules ------------------------------------------------------------------------------------


def test_cut_and_rounded_digits_are_both_fractions() -> None:
    assert is_fraction(0.9166, 12)  # 11/12 = 0.91666..., cut off
    assert is_fraction(0.9167, 12)  # rounded
    assert not is_fraction(0.9165, 12)
    assert not is_fraction(0.9168, 12)
    assert is_fraction(0.33, 12)
    assert not is_fraction(0.35, 12)


def test_repeated_values_are_no_further_evidence() -> None:
    # One value of four digits: the sum over n' <= 12 of 1.5 (n' + 1) / 10^4 is 1.5 * 90 / 10^4 = 0.0135, above 0.01.
    assert implied_n([0.9167]) is None
    assert implied_n([0.9167, 0.9167, 0.9167]) is None
    found = implied_n([0.9167, 0.8333])
    assert found is not None
    # The sum over n' <= 12 of (1.5 (n' + 1) / 10^4)^2 = 2.25e-8 * (2^2 + ... + 13^2) = 2.25e-8 * 818.
    assert found == (12, pytest.approx(2.25e-8 * 818))


def test_bounds_of_losses_by_hand() -> None:
    assert least_loss(0.75) == pytest.approx(0.25 * 0.693147, abs=1e-6)
    # Logits of 1 and 0 over ten classes: a right image costs ln(e + 9) - 1, a wrong one ln(e + 9) = 2.461183.
    assert doubled_softmax_loss(1.0, 10) == pytest.approx(1.4612, abs=5e-5)
    assert doubled_softmax_loss(0.7692, 10) == pytest.approx(2.461150 - 0.7692, abs=5e-5)
    # Two classes, accuracy one half: ln 2.
    assert calibrated_loss(0.5, 2) == pytest.approx(math.log(2))


def beside(
    rows: Sequence[tuple[str, float, int | None]],
    ours: Sequence[float],
    n: int = 1000,
    overrides: Sequence[str] = (),
    **more: Any,
) -> Any:
    """Return the comparisons of published (metric, value, n) with our repeats of one condition on n test images."""
    one = condition("bn")
    half = ((n // 2, 0), (0, n - n // 2))
    trials = [
        trial(one, index, number=index, outcome=Outcome(state="done", metrics={"test": metrics(value, 0.5, half)}))
        for index, value in enumerate(ours)
    ]
    listed = tuple(PublishedRow(when={"model.norm": "bn"}, metric=m, value=v, n=k) for m, v, k in rows)
    given = results([one], trials)
    study = replace(given.study, published=(Published(source="x", rows=listed, **more),), overrides=tuple(overrides))
    return summarize(replace(given, study=study)).numbers.published


def test_few_published_images_leave_the_verdict_open() -> None:
    # Ours: mean 0.61, s = 0.01, n = 3: one more within 0.61 ± 4.302653 * 0.01 * sqrt(4/3) = 0.5603 to 0.6597.
    # 9 of 12 images: Wilson 0.4677 to 0.9111 overlaps; 7,500 of 10,000 were on more images than ours.
    few, many, same = beside(
        [("test.accuracy", 0.75, 12), ("test.accuracy", 0.75, 10000), ("test.accuracy", 0.75, 1000)], [0.60, 0.61, 0.62]
    )
    assert few.verdict == "few images"
    assert many.verdict == same.verdict == "ours lower"


def test_a_variant_with_changed_settings_is_not_compared() -> None:
    changes = ("data.train_size=500", "repeats.n=3")
    assert [row.verdict for row in beside([("test.accuracy", 0.75, 10000)], [0.60, 0.61, 0.62])] == ["ours lower"]
    given = results([condition("bn")], [])
    study = replace(given.study, overrides=changes)
    assert study.changed_protocol == ("data.train_size=500",)
    assert replace(study, overrides=changes[1:]).changed_protocol == ()
    whole = (" data.train_size=500", 'model={ name = "mlp" }', "train={epochs=2}", "report.carbon=400")
    assert replace(study, overrides=whole).changed_protocol == whole[:3]
    (row,) = beside([("test.accuracy", 0.75, 10000)], [0.60, 0.61, 0.62], overrides=changes)
    assert row.verdict == "other protocol" and row.difference == pytest.approx(-0.14)


def test_a_number_that_cannot_be_is_not_compared() -> None:
    loss, accuracy = beside([("test.loss", 0.01, None), ("test.accuracy", 0.6, None)], [0.60, 0.61, 0.62])
    assert loss.verdict == "in doubt"
    assert loss.doubt == "no mean loss can be so low at the accuracy beside it"
    assert accuracy.verdict == "consistent"


def test_one_repeat_and_none_cannot_be_judged() -> None:
    (single,) = beside([("test.accuracy", 0.6, None)], [0.6])
    assert single.verdict == "one repeat"
    (none,) = beside([("val.accuracy", 0.6, None)], [0.6])
    assert none.verdict == "no counterpart"


def test_a_source_of_one_class_is_refused() -> None:
    text = (STUDIES / "transfer-birds200.toml").read_text().replace("classes = 100", "classes = 1")
    with pytest.raises(StudyError) as raised:
        parse_study(text, name="birds")
    assert any("published[0].classes" in line and "at least 2" in line for line in raised.value.problems)


@pytest.mark.parametrize(
    ("verdicts", "ending"),
    [
        (["few images"], "1 number rests on too few images to judge."),
        (["few images"] * 2, "2 numbers rest on too few images to judge."),
        (["one repeat"], "1 number stands beside a single repeat of ours, too few to judge."),
        (["one repeat"] * 2, "2 numbers stand beside a single repeat of ours, too few to judge."),
        (["in doubt"], "1 number cannot be what it claims to be."),
        (["in doubt"] * 2, "2 numbers cannot be what they claim to be."),
    ],
)
def test_one_number_and_several_are_spoken_of_rightly(verdicts: list[str], ending: str) -> None:
    rows = [
        SimpleNamespace(
            source="A", label="bn", metric="test.accuracy", published=0.5, ours=SimpleNamespace(mean=0.6),
            low=None, high=None, verdict=verdict, difference=0.1, departs=(),
        )
        for verdict in ["consistent", *verdicts]
    ]  # fmt: skip
    (found,) = agreement_findings(rows)  # type: ignore[arg-type]
    total = len(rows)
    assert found.sentence == f"A: 1 of {total} published numbers lie where one more repeat of ours could fall; {ending}"
