"""No finding of a report contradicts another: the findings of twenty generated studies, pair by pair."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from synthetic_results import complete, rescored, with_search

from benchkit.analysis.summary import Summary, summarize
from benchkit.analysis.wording import Finding, quoted
from benchkit.results import EpochRecord, StudyResults, Trial

LABELS = ("bn", "gn", "ln", "none", "variant 5", "variant 6")
NO_SPEED = "No condition can be called faster"


def generated(seed: int, folder: Path) -> StudyResults:
    """Return a study of random size, spread, gaps, speeds, failures and curves; the same seed gives the same study."""
    rng = random.Random(seed)
    labels = LABELS[: rng.randint(2, 6)]
    repeats, metric = rng.randint(1, 4), rng.choice(("test.accuracy", "test.loss", "val.accuracy"))
    if seed % 7 == 3:
        results = with_search(folder, confirmed=rng.random() < 0.7)
    else:
        results = complete(folder, labels, repeats=repeats, epochs=rng.choice((3, 6)), spread=rng.choice((0.001, 0.03)))
    gap = rng.choice((0.0, 0.002, 0.05))
    accuracies = {
        label: [min(1.0, max(0.0, 0.9 - place * gap + rng.gauss(0, 0.01))) for _ in range(4)]
        for place, label in enumerate(labels)
    }
    results = rescored(results, accuracies)
    load, failing, collapse = rng.choice((0.01, 0.5)), rng.choice((0.0, 0.2)), rng.choice((0.0, 0.3))
    trials = tuple(_varied(trial, rng, load, failing, collapse) for trial in results.trials)
    report = replace(results.study.report, metric=metric)
    return replace(results, trials=trials, study=replace(results.study, report=report))


def _varied(trial: Trial, rng: random.Random, load: float, failing: float, collapse: float) -> Trial:
    """Return a trial on a machine of some load; some fail, of some the validation loss rises or names one class."""
    outcome = trial.outcome
    if outcome is None or outcome.cost is None:
        return trial
    if trial.phase == "grid" and rng.random() < failing:
        return replace(trial, state="failed", outcome=replace(outcome, state="failed", metrics={}), history=())
    speed = outcome.cost.images_per_second * max(0.1, rng.gauss(1, load))
    outcome = replace(outcome, cost=replace(outcome.cost, images_per_second=speed, seconds=1e5 / speed))
    fell = rng.random() < collapse
    history = tuple(_risen(record, fell) for record in trial.history)
    if fell and outcome.metrics:
        metrics = {split: _of_one_class(found) for split, found in outcome.metrics.items()}
        outcome = replace(outcome, metrics=metrics)  # type: ignore[arg-type]
    return replace(trial, outcome=outcome, history=history)


def _risen(record: EpochRecord, fell: bool) -> EpochRecord:
    return replace(record, val_loss=2.0 + record.epoch, val_accuracy=0.1) if fell else record


def _of_one_class(metrics: object) -> object:
    size = len(metrics.confusion)  # type: ignore[attr-defined]
    confusion = tuple((sum(row), *[0] * (size - 1)) for row in metrics.confusion)  # type: ignore[attr-defined]
    return replace(metrics, confusion=confusion, accuracy=0.1, micro_f1=0.1, loss=2.5)  # type: ignore[type-var]


# --- what contradicts what: each rule looks at two findings ----------------------------------------------------------


def _ruled(rule: str, one: Finding) -> bool:
    return one.rule == rule


def _sentences(one: Finding) -> list[str]:
    return re.split(r"(?<=[.:]) (?=[“A-Z])", one.sentence)


def _worse(one: Finding) -> str:
    """Return the part of an answer that says who is clearly worse."""
    return next((part for part in _sentences(one) if "clearly worse" in part), "")


def names_a_fastest_where_none_can_be_told(one: Finding, other: Finding) -> bool:
    """Times name a winner where another finding says that they tell none."""
    return _ruled("fastest", one) and "is the fastest" in one.sentence and other.sentence.startswith(NO_SPEED)


def over_fits_what_learnt_nothing(one: Finding, other: Finding) -> bool:
    """A condition over-fits and has learnt nothing."""
    always = " in all" in other.sentence or "of" not in other.sentence.rpartition(" in ")[2]
    both = set(one.about) & set(other.about)
    return _ruled("over-fitting", one) and _ruled("one-class", other) and always and bool(both)


def over_fits_without_a_gap(one: Finding, other: Finding) -> bool:
    """A condition over-fits and does better on validation images than on those it was trained on."""
    narrowest = other.sentence.rpartition("; ")[2] if _ruled("train-val-gap", other) else ""
    return _ruled("over-fitting", one) and "\N{MINUS SIGN}" in narrowest and any(
        quoted(label) in narrowest for label in one.about
    )  # fmt: skip


def tells_one_model_from_itself(one: Finding, other: Finding) -> bool:
    """Two names of one model, of which one leads and the other is clearly worse."""
    if not (_ruled("winner", one) and _ruled("identical-conditions", other)) or one.about[:1] == ():
        return False
    worse = _worse(one)
    return one.about[0] in other.about and any(quoted(label) in worse for label in other.about)


def worse_and_as_good(one: Finding, other: Finding) -> bool:
    """One answer has a condition among those that may be as good and among the clearly worse ones."""
    rivals = next((part for part in _sentences(one) if "may be as good" in part), "").partition(" (")[0]
    named = re.findall("“[^”]*”", rivals)
    return one is other and _ruled("winner", one) and any(label in _worse(one) for label in named)


def two_winners(one: Finding, other: Finding) -> bool:
    """Two conditions are first by one metric."""
    first = re.match(r"(“[^”]*”) (?:is best|leads)", one.sentence)
    elsewhere = re.match(r"(“[^”]*”) is first by", other.sentence)
    return bool(_ruled("winner", one) and first and elsewhere and first[1] != elsewhere[1])


RULES: Sequence[Callable[[Finding, Finding], bool]] = (
    names_a_fastest_where_none_can_be_told, over_fits_what_learnt_nothing, over_fits_without_a_gap,
    tells_one_model_from_itself, worse_and_as_good, two_winners,
)  # fmt: skip


def contradictions(findings: Sequence[Finding], answer: Sequence[str]) -> Iterator[str]:
    """Yield what contradicts itself, in words."""
    for one, other in [*permutations(findings, 2), *((one, one) for one in findings)]:
        for rule in RULES:
            if rule(one, other):
                yield f"{rule.__name__}: {one.sentence} | {other.sentence}"
    incomplete = [one.sentence for one in findings if one.rule in ("unfinished", "failed-trials", "divergence")]
    if incomplete and any("Nothing planned is missing" in sentence for sentence in answer):
        yield f"nothing is missing | {incomplete[0]}"
    said = [one.sentence for one in findings]
    if len(said) != len(set(said)):
        yield f"said twice: {sorted(sentence for sentence in said if said.count(sentence) > 1)[0]}"


@pytest.mark.parametrize("seed", range(20))
def test_no_finding_contradicts_another(seed: int, tmp_path: Path) -> None:
    summary: Summary = summarize(generated(seed, tmp_path))
    assert summary.answer and summary.findings
    assert list(contradictions(summary.findings, summary.answer)) == []


def finding(rule: str, sentence: str, *about: str) -> Finding:
    return Finding(rule=rule, tone="note", sentence=sentence, evidence="", about=about)


WINNER = finding(
    "winner", "“a” leads with 90 %. “b” (1 points lower) may be as good: 3 runs. “c” is clearly worse.", "a", "b"
)
PAIRS = {
    "names_a_fastest_where_none_can_be_told": (
        finding("fastest", "“a” is the fastest to a validation accuracy of 90 %: 3 s of training, 2 epochs.", "a"),
        finding("speed", f"{NO_SPEED}: training speed varies.", "a", "b"),
    ),
    "over_fits_what_learnt_nothing": (
        finding("over-fitting", "“a” over-fits: validation loss rises after epoch 2.", "a"),
        finding("one-class", "“a” has learnt nothing: its model calls every test image “cat” in 3 repeats.", "a"),
    ),
    "over_fits_without_a_gap": (
        finding("over-fitting", "“b” over-fits: validation loss rises after epoch 2.", "b"),
        finding("train-val-gap", "“a” has the widest, 9 points; the narrowest is \N{MINUS SIGN}0.4 points, “b”.", "a"),
    ),
    "tells_one_model_from_itself": (
        WINNER, finding("identical-conditions", "“a” and “c” gave exactly the same results.", "a", "c"),
    ),
    "two_winners": (WINNER, finding("other-metric", "“b” is first by accuracy, but clearly worse by loss.", "b")),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_contradiction_is_seen(name: str) -> None:
    found = list(contradictions(PAIRS[name], ()))
    assert len(found) == 1 and found[0].startswith(f"{name}: ")
    assert list(contradictions(PAIRS[name][:1], ())) == list(contradictions(PAIRS[name][1:], ())) == []


def test_an_answer_against_itself_or_its_findings_is_seen() -> None:
    both = finding("winner", "“a” leads. “b” (1 points lower) may be as good: 3 runs. “b” is clearly worse.", "a", "b")
    assert [line.partition(":")[0] for line in contradictions([both], ())] == ["worse_and_as_good"]
    failed = finding("failed-trials", "1 trial failed or lost its worker.", "a")
    assert "nothing is missing" in next(contradictions([failed], ("Nothing planned is missing: 3 trials.",)))
    assert next(contradictions([failed, failed], ())).startswith("said twice")
