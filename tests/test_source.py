"""The [source] of a study: what it states, prints and claims, beside the study itself and beside the source's text."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from figure_results import condition, metrics, record, results, trial
from tiny_study import FACTOR, study_of

import benchkit
from benchkit.analysis.source import claim_verdicts, protocol
from benchkit.analysis.summary import summarize
from benchkit.capsule import read_capsule
from benchkit.capsule.making import study_text
from benchkit.capsule.reading import results_of
from benchkit.errors import StudyError
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.report.context.source_section import published_table
from benchkit.report.write import presented
from benchkit.results import Outcome, StudyResults
from benchkit.study import Origin, Published, PublishedRow, SourceClaim
from benchkit.study.checks import check_plan
from benchkit.study.studyfile import parse_study, read_study
from benchkit.verify.opening import open_report

ROOT = Path(__file__).parents[1]
STUDIES = Path(benchkit.__file__).parent / "studies"
NAMED = sorted(path.stem for path in STUDIES.glob("*.toml") if "[source]" in path.read_text())
TEXTS = os.environ.get("BENCHKIT_SOURCES", "")
SOURCE = """
[source]
title = "A Report"
authors = ["A. Nobody"]
[source.states]
"train.epochs" = {{ value = {epochs}, words = "three epochs", place = "section 1"{departs} }}
"data.name" = {{ value = "digits", inferred = "no set is named" }}
"train.optimizer.lr" = {{ value = [0.1, 0.3], words = ["0.1", "or 0.3"], place = "section 2" }}
"""


def stated(epochs: int = 3, departs: str = "", **more: Any) -> Any:
    given = f', departs = "{departs}"' if departs else ""
    return study_of(FACTOR, SOURCE.format(epochs=epochs, departs=given), **more)


def problems_of(study: Any) -> str:
    with pytest.raises(StudyError) as caught:
        check_plan(make_plan(study), Registry.installed())
    return str(caught.value)


# --- departures


def test_a_departure_cannot_go_unsaid() -> None:
    check_plan(make_plan(stated()), Registry.installed())
    check_plan(make_plan(stated(epochs=9, departs="to be fast")), Registry.installed())
    assert 'source.states."train.epochs": the source has [9], the study [3]' in problems_of(stated(epochs=9))
    assert "departs says why ours is another value, but it is the same" in problems_of(stated(departs="why not"))


def test_a_stated_setting_is_written_out() -> None:
    extra = '"train.schedule.name" = { value = "constant", words = "constant" }\n'
    study = study_of(FACTOR, SOURCE.format(epochs=3, departs="") + extra)
    assert "leaves it to its default; write it out" in problems_of(study)


def test_what_is_set_for_a_run_is_told_and_not_refused() -> None:
    study = stated(overrides=["train.epochs=2"])
    check_plan(make_plan(study), Registry.installed())
    rows = {
        row.path: row for row in protocol(StudyResults(study=study, conditions=make_plan(study).conditions, trials=()))
    }
    assert rows["train.epochs"].kind == "set for this run"
    assert (rows["train.epochs"].stated, rows["train.epochs"].ours) == ("3", "2")


def test_settings_are_kept_departed_inferred_or_ours() -> None:
    study = stated(epochs=9, departs="to be fast")
    rows = {
        row.path: row for row in protocol(StudyResults(study=study, conditions=make_plan(study).conditions, trials=()))
    }
    assert (rows["train.epochs"].kind, rows["train.epochs"].why) == ("departed", "to be fast")
    assert (rows["data.name"].kind, rows["data.name"].why) == ("inferred", "no set is named")
    assert (rows["train.optimizer.lr"].kind, rows["train.optimizer.lr"].ours) == ("kept", "0.1 / 0.3")
    assert rows["train.optimizer.lr"].words == "0.1 ... or 0.3"
    ours = {path: row.ours for path, row in rows.items() if row.kind == "ours"}
    assert ours["train.optimizer.momentum"] == "0.9"  # a default, written nowhere in the file
    assert ours["train.batch_size"] == "20"
    assert not {"train.threads", "train.compile", "train.channels_last"} & rows.keys()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"train.epochs" = 3', "expected a table with value"),
        ('"train.epochs" = { value = 3 }', "expected either words"),
        ('"train.epochs" = { value = 3, words = "x", inferred = "y" }', "expected either words"),
        ('"epochs" = { value = 3, words = "x" }', "is no setting"),
        ('"train.epochs" = { value = 3, words = "x", place = 4 }', "expected text"),
    ],
)
def test_a_wrong_statement_is_refused(line: str, words: str) -> None:
    with pytest.raises(StudyError) as caught:
        study_of(f'[source]\ntitle = "A"\n[source.states]\n{line}\n')
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('claim = "a"', "nothing decides it"),
        ('claim = "a"\nbetter = "0.1"\non = "val.loss"', "better and than belong together"),
        ('claim = "a"\nbetter = "0.1"\nthan = "0.2"\non = "val.loss"', "got '0.2'"),
        ('claim = "a"\nbest = "0.1"', "on is missing"),
        ('claim = "a"\nbest = "0.1"\non = "val.accuracies"', "did you mean 'val.accuracy'"),
        ('claim = "a"\nrises = "val.loss"\nsteady = "val.loss"', "has rises and steady"),
        ('claim = "a"\nrises = "val.loss"\nfrom = "x"', "source.claims[0].start"),
    ],
)
def test_a_wrong_claim_is_refused(lines: str, words: str) -> None:
    with pytest.raises(StudyError) as caught:
        study_of(FACTOR, f'[source]\ntitle = "A"\n[[source.claims]]\n{lines}\n')
    assert words in str(caught.value)


# --- claims


def claimed(
    claim: SourceClaim, rows: tuple[PublishedRow, ...] = (), values: dict[str, list[float]] | None = None
) -> Any:
    """Return the verdicts of one claim over trials whose test accuracies are given by condition."""
    given = values or {}
    conditions = [condition(name) for name in given]
    trials = [
        trial(one, at, outcome=Outcome(state="done", metrics={"test": metrics(value)}))
        for one in conditions
        for at, value in enumerate(given[one.label])
    ]
    whole = results(conditions, trials)
    study = replace(
        whole.study, origin=Origin(title="A", claims=(claim,)), published=(Published(source="A", rows=rows),)
    )
    (verdict,) = claim_verdicts(replace(whole, study=study))
    return verdict


def printed(name: str, value: float, n: int | None = None) -> PublishedRow:
    return PublishedRow(when={"model.norm": name}, metric="test.accuracy", value=value, n=n)


BETTER = SourceClaim(claim="bn is better", better={"model.norm": "bn"}, than={"model.norm": "gn"}, on="test.accuracy")
EQUAL = SourceClaim(claim="alike", equal=({"model.norm": "bn"}, {"model.norm": "gn"}), on="test.accuracy")
ALIKE = replace(EQUAL, equal=(*EQUAL.equal, {"model.norm": "ln"}))
BEST = SourceClaim(claim="bn is best", best={"model.norm": "bn"}, on="test.accuracy")


@pytest.mark.parametrize(
    ("claim", "first", "second", "n", "verdict"),
    [
        (BETTER, 0.8, 0.7, None, "holds"),
        (BETTER, 0.7, 0.8, None, "does not hold"),
        (BETTER, 0.8, 0.8, None, "does not hold"),
        # sqrt((0.8 * 0.2 + 0.7 * 0.3) / 100) * 1.96 = 0.119; over 1,000 images 0.038
        (BETTER, 0.8, 0.7, 100, "cannot be told"),
        (BETTER, 0.8, 0.7, 1000, "holds"),
        (EQUAL, 0.8, 0.8, None, "holds"),
        (EQUAL, 0.913, 0.757, None, "does not hold"),
        (EQUAL, 0.8, 0.79, 100, "cannot be told"),
        (BEST, 0.8, 0.7, 1000, "holds"),
        (BEST, 0.7, 0.8, 1000, "does not hold"),
    ],
)
def test_a_claim_by_what_the_source_prints(
    claim: SourceClaim, first: float, second: float, n: Any, verdict: str
) -> None:
    assert claimed(claim, (printed("bn", first, n), printed("gn", second, n))).printed == verdict


def test_a_claim_without_printed_numbers_cannot_be_told() -> None:
    assert claimed(BETTER, (printed("bn", 0.5),)).printed == "cannot be told"


@pytest.mark.parametrize(
    ("claim", "values", "verdict"),
    [
        # differences 0.10, 0.11, 0.12: t = 0.11 / (0.01 / sqrt 3) = 19.05, p = 0.0027 with 2 degrees of freedom
        (BETTER, {"bn": [0.80, 0.81, 0.82], "gn": [0.70, 0.70, 0.70]}, "holds"),
        (BETTER, {"bn": [0.70, 0.70, 0.70], "gn": [0.80, 0.81, 0.82]}, "does not hold"),
        # differences 0.1, 0.0, 0.05: t = 1.73, p = 0.23
        (BETTER, {"bn": [0.80, 0.70, 0.75], "gn": [0.70, 0.70, 0.70]}, "cannot be told"),
        (EQUAL, {"bn": [0.80, 0.81, 0.82], "gn": [0.70, 0.70, 0.70]}, "does not hold"),
        (EQUAL, {"bn": [0.80, 0.70, 0.75], "gn": [0.70, 0.70, 0.70]}, "cannot be told"),
        # differences 0.10, 0.10, 0.06: t = 6.5, p = 0.0228 of two, 0.0456 of the two others that a claim names
        (EQUAL, {"bn": [0.80, 0.80, 0.76], "gn": [0.70, 0.70, 0.70]}, "does not hold"),
        (ALIKE, {"bn": [0.80, 0.80, 0.76], "gn": [0.70, 0.70, 0.70], "ln": [0.8, 0.79, 0.77]}, "does not hold"),
        # differences 0.10, 0.10, 0.05: t = 5, p = 0.0377 of two, 0.0755 of the two others
        (EQUAL, {"bn": [0.80, 0.80, 0.75], "gn": [0.70, 0.70, 0.70]}, "does not hold"),
        (ALIKE, {"bn": [0.80, 0.80, 0.75], "gn": [0.70, 0.70, 0.70], "ln": [0.8, 0.79, 0.77]}, "cannot be told"),
        (BEST, {"bn": [0.80, 0.81, 0.82], "gn": [0.70, 0.70, 0.70]}, "holds"),
        # 0.0027 is corrected to 0.0054 of two, the other difference is not told apart
        (BEST, {"bn": [0.80, 0.81, 0.82], "gn": [0.70, 0.70, 0.70], "ln": [0.80, 0.80, 0.83]}, "cannot be told"),
        (BEST, {"bn": [0.80, 0.81, 0.82]}, "cannot be told"),
        (BETTER, {"bn": [0.80], "gn": [0.70]}, "cannot be told"),
    ],
)
def test_a_claim_by_our_results(claim: SourceClaim, values: dict[str, list[float]], verdict: str) -> None:
    assert claimed(claim, values=values).ours == verdict


@pytest.mark.parametrize(
    ("kind", "rising", "verdict"),
    [
        ("rises", (True, True), "holds"),
        ("rises", (False, False), "does not hold"),
        ("rises", (True, False), "cannot be told"),
        ("steady", (False, False), "holds"),
        ("steady", (True, True), "does not hold"),
        ("rises", (), "cannot be told"),
    ],
)
def test_a_claim_about_a_curve(kind: str, rising: tuple[bool, ...], verdict: str) -> None:
    one = condition("bn")
    trials = [
        trial(
            one,
            at,
            history=[
                record(epoch, (1.0 / epoch, 0.5, 0.5 + (0.1 * abs(epoch - 3) if up else 1.0 / epoch), 0.5))
                for epoch in range(1, 7)
            ],
            outcome=Outcome(state="done", metrics={}),
        )
        for at, up in enumerate(rising)
    ]
    whole = results([one], trials)
    claim = SourceClaim(claim="it rises", when={"model.norm": "bn"}, start=3, **{kind: "val.loss"})
    study = replace(whole.study, origin=Origin(title="A", claims=(claim,)))
    (found,) = claim_verdicts(replace(whole, study=study))
    assert (found.printed, found.ours) == ("cannot be told", verdict)
    if rising and all(rising):
        assert "from epoch 3 on" in found.ours_why


# --- what the built-in studies say of their sources


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.skipif(not TEXTS, reason="BENCHKIT_SOURCES names no folder with the sources' texts")
@pytest.mark.parametrize("name", NAMED)
def test_each_quotation_stands_in_the_source(name: str) -> None:
    study = read_study(STUDIES / f"{name}.toml")
    assert study.origin is not None
    quoted = [study.origin.title, *study.origin.authors, study.origin.year]
    quoted += [words for one in (*study.origin.states, *study.origin.claims) for words in one.words]
    quoted += [row.printed for table in study.published for row in table.rows]
    texts = [squeezed(path.read_text(encoding="utf-8")) for path in sorted(Path(TEXTS).glob("*.txt"))]
    missing = min(([words for words in quoted if squeezed(words) not in text] for text in texts), key=len)
    assert missing == []


def test_a_citation_says_what_is_not_stated() -> None:
    assert Origin(title="T", authors=("A", "B"), year="2024", part="part 1").citation == "A, B: T (2024), part 1"
    assert Origin(title="T").citation == "T (author not stated, year not stated)"


@pytest.mark.parametrize("name", NAMED)
def test_each_printed_number_is_its_value(name: str) -> None:
    for row in (row for table in read_study(STUDIES / f"{name}.toml").published for row in table.rows):
        assert row.printed or row.derived, row
        if row.printed:
            digits = re.sub(r"[~%\s]", "", row.printed)
            assert float(digits) / (100 if "%" in row.printed else 1) == pytest.approx(row.value, rel=1e-12)


@pytest.mark.parametrize("name", NAMED)
def test_a_study_with_a_source_survives_its_capsule(name: str) -> None:
    study = read_study(STUDIES / f"{name}.toml")
    again = parse_study(study_text(study), name=name)
    assert (again.origin, again.published) == (study.origin, study.published)


def test_the_claims_that_the_sources_numbers_refute_are_found() -> None:
    refuted = {}
    for name in NAMED:
        study = read_study(STUDIES / f"{name}.toml")
        empty = StudyResults(study=study, conditions=make_plan(study).conditions, trials=())
        summary = summarize(empty)
        refuted[name] = [one.claim for one in summary.numbers.claims if one.printed == "does not hold"]
    assert "dropout has a better test loss than no regularization" in refuted["regularization-mnist"]
    assert "dropout has a better test accuracy than no regularization" in refuted["regularization-mnist"]
    assert "BN and GN reach the same training accuracy" in refuted["batch-size-cifar10"]
    assert "batch normalisation outperforms batch-instance normalisation in validation, too" in refuted["norms-cifar10"]
    assert "after Torch BN, group normalisation is best: better than BN" not in refuted["norms-birds25"]


def test_an_older_network_shows_as_a_departure(tmp_path: Path) -> None:
    """The committed report of 2026 was trained with batches of 128; the study's file now infers and sets 256."""
    capsule = open_report(ROOT / "reports" / "regularization-mnist.html").capsule
    older = results_of(read_capsule(capsule), 0, tmp_path)
    shown, note = presented(older, STUDIES / "regularization-mnist.toml")
    assert "its settings differ from those that were trained" in note
    rows = {row.path: row for row in summarize(shown).numbers.protocol}
    assert (rows["train.batch_size"].kind, rows["train.batch_size"].ours) == ("departed", "128")
    assert rows["train.epochs"].kind == "kept"
    verdicts = {row.verdict for row in summarize(shown).numbers.published if row.metric == "test.loss"}
    assert verdicts == {"other protocol"}


def test_a_published_number_is_shown_as_printed_and_says_where_n_is_not_stated() -> None:
    study = read_study(STUDIES / "baseline-cifar10.toml")
    rows = summarize(StudyResults(study=study, conditions=make_plan(study).conditions, trials=())).numbers.published
    cells = {row.metric: cell[2] for row, cell in zip(rows, published_table(rows).rows, strict=True)}
    assert cells["train.accuracy"].detail == "printed 0.916, n not stated"
    # Wilson's interval of 7,910 of 10,000 at 95 %: 78.29 to 79.89 %
    assert cells["test.accuracy"].detail == "printed 0.791, [78.29, 79.89], n = 10,000"


def test_a_prediction_interval_that_ends_at_zero_is_shown() -> None:
    study = read_study(STUDIES / "baseline-cifar10.toml")
    rows = summarize(StudyResults(study=study, conditions=make_plan(study).conditions, trials=())).numbers.published
    (cells,) = published_table([replace(rows[0], low=-0.02, high=0.0)]).rows
    assert cells[-1].detail.startswith("one more of ours: ") and cells[-1].parts == (-0.02, 0.0)


def test_a_first_with_the_mean_of_the_second_is_neither_better_nor_worse() -> None:
    from benchkit.analysis.comparisons import paired_by_repeat
    from benchkit.analysis.source import _size

    tied = paired_by_repeat({0: 0.8, 1: 0.9}, {0: 0.9, 1: 0.8})
    assert tied is not None
    assert _size("test.accuracy", tied) == _size("test.loss", tied) == (False, "exactly as good on average")
