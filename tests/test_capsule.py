"""The capsule: what it holds, that it is the same everywhere, and what it refuses to read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from capsule_edits import edited, members, zipped
from synthetic_results import FACTORIES, HOSTILE, complete, with_search

import benchkit.capsule.reading
from benchkit.analysis.summary import summarize
from benchkit.capsule import CapsuleError, Shown, make_capsule, read_capsule
from benchkit.capsule.making import study_text
from benchkit.capsule.reading import results_of
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.results import StudyResults, rounded
from benchkit.study import Study
from benchkit.study.studyfile import find_study, parse_study

STUDIES = Registry.installed().names("studies")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return complete(tmp_path_factory.mktemp("trials"), ("bn", "gn"), repeats=2, epochs=3)


@pytest.fixture(scope="module")
def capsule(results: StudyResults) -> bytes:
    return make_capsule([results], Shown())


def scientific(study: Study) -> Study:
    return replace(study, source="", path=None, overrides=(), smoke=False)


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("name", STUDIES)
def test_the_resolved_study_is_the_study(name: str, smoke: bool) -> None:
    study = find_study(name, Registry.installed(), overrides=["train.epochs=3"], smoke=smoke)
    again = parse_study(study_text(study), name=study.name)
    assert scientific(again) == scientific(study)
    assert make_plan(again).conditions == make_plan(study).conditions


def test_hostile_labels_survive_in_the_resolved_study(tmp_path: Path) -> None:
    study = complete(tmp_path, HOSTILE, repeats=1, epochs=1).study
    assert scientific(parse_study(study_text(study), name=study.name)) == scientific(study)


def test_equal_results_give_equal_bytes(results: StudyResults, capsule: bytes) -> None:
    assert make_capsule([results], Shown()) == capsule
    assert {info.date_time for info in zipfile.ZipFile(io.BytesIO(capsule)).infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_what_a_capsule_says(results: StudyResults, capsule: bytes) -> None:
    inside = members(capsule)
    assert list(inside) == [
        "capsule.json",
        "README.txt",
        "1-synthetic-norms/study.toml",
        "1-synthetic-norms/source.toml",
        "1-synthetic-norms/trials.json",
    ]
    (study,) = json.loads(inside["capsule.json"])["studies"]
    assert study["commands"] == ["benchkit sweep synthetic-norms.toml", "benchkit report synthetic-norms"]
    (environment,) = study["environments"]
    assert environment["versions"]["torch"] == "2.15.0"
    trials = json.loads(inside["1-synthetic-norms/trials.json"])
    assert [(t["phase"], t["index"], t["state"], t["epochs"]) for t in trials] == [
        ("grid", index, "done", 3) for index in (0, 0, 1, 1)
    ]
    assert trials[0]["metrics"]["test"]["accuracy"] == results.trials[0].score("test.accuracy")
    # sha256("7/repeat/0/init"), its first 8 bytes as a number, halved: worked out apart with sha256sum.
    assert trials[0]["seeds"]["init"] == INIT_SEED


INIT_SEED = int("542dfc1da2d59a34", 16) >> 1


@pytest.mark.parametrize("kind", [*sorted(FACTORIES), "unconfirmed"])
def test_a_capsule_stands_for_its_results(kind: str, tmp_path: Path) -> None:
    make = {**FACTORIES, "unconfirmed": lambda folder: with_search(folder, confirmed=False)}[kind]
    results = make(tmp_path / "trials")
    again = results_of(read_capsule(make_capsule([results], Shown())), 0, tmp_path / "again")
    was, now = summarize(results), summarize(again)
    assert now.numbers.ranking == was.numbers.ranking
    assert now.numbers.model_pairs == was.numbers.model_pairs
    assert (now.findings, now.answer, now.training_seconds) == (was.findings, was.answer, was.training_seconds)


def test_histories_have_six_digits(tmp_path: Path) -> None:
    whole = complete(tmp_path, ("bn",), repeats=1, epochs=2)
    (trial,) = whole.trials
    first = replace(trial.history[0], train_loss=0.123456789, seconds=12345.6789, val_accuracy=0.5, learning_rate=1e-5)
    found = rounded(replace(whole, trials=(replace(trial, history=(first, *trial.history[1:])),))).trials[0]
    shorter = found.history[0]
    assert (shorter.train_loss, shorter.seconds) == (0.123457, 12345.7)
    assert (shorter.val_accuracy, shorter.learning_rate, shorter.epoch) == (0.5, 1e-5, 1)
    assert found.outcome == trial.outcome


def test_metrics_that_were_read_after_epochs_are_kept_and_other_observations_not(tmp_path: Path) -> None:
    whole = complete(tmp_path / "trials", ("bn",), repeats=1, epochs=3)
    (trial,) = whole.trials
    seen = ({"val.brier": 0.123456789, "norm-health.a": 1.0}, {}, {"val.brier": 0.25, "val.macro_f1": 0.5})
    history = tuple(replace(one, observed=noted) for one, noted in zip(trial.history, seen, strict=True))
    whole = replace(whole, trials=(replace(trial, history=history),))
    (again,) = results_of(read_capsule(make_capsule([rounded(whole)], Shown())), 0, tmp_path / "again").trials
    assert [one.observed for one in again.history] == [{"val.brier": 0.123457}, {}, seen[2]]
    assert [one.val_loss for one in again.history] == [one.val_loss for one in rounded(whole).trials[0].history]


def test_several_studies_share_a_capsule(results: StudyResults) -> None:
    other = replace(results, study=replace(results.study, name="Ånother one"))
    found = read_capsule(make_capsule([results, other], Shown()))
    assert [study.name for study in found.studies] == ["synthetic-norms", "Ånother one"]
    assert [study.folder for study in found.head.studies] == ["1-synthetic-norms", "2-nother-one"]


def test_conditions_that_were_picked_are_picked_again(results: StudyResults, tmp_path: Path) -> None:
    whole = complete(tmp_path, ("bn", "gn", "ln"), repeats=1, epochs=1)
    some = replace(whole, conditions=whole.conditions[:2], trials=whole.trials[:2])
    (study,) = read_capsule(make_capsule([some], Shown())).head.studies
    assert study.commands[0] == "benchkit sweep synthetic-norms.toml --only model.norm=bn,gn"


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch, capsule: bytes) -> None:
    monkeypatch.setattr(benchkit.capsule.reading, "MOST_BYTES", 100_000)
    with pytest.raises(CapsuleError, match="unpacks to more than 100,000"):
        read_capsule(zipped({"capsule.json": b"0" * 60_000, "b": b"0" * 60_000}))
    lying = bytearray(zipped({"capsule.json": b"0" * 10_000_000}))
    place = lying.index(b"PK\x01\x02")
    lying[place + 24 : place + 28] = (10).to_bytes(4, "little")  # the size that the listing claims
    with pytest.raises(CapsuleError):
        read_capsule(bytes(lying))


@pytest.mark.parametrize("name", ["../capsule.json", "/etc/x", "a/b/c", "a\\b", "C:x", ".hidden", "a/../b", "x\x1b[2J"])
def test_members_with_other_names_are_refused(name: str) -> None:
    with pytest.raises(CapsuleError, match="not one that benchkit writes"):
        read_capsule(zipped({"capsule.json": b"{}", name: b""}))


def test_what_is_no_capsule_is_told(capsule: bytes) -> None:
    for content, told in (
        (b"nonsense", "damaged"),
        (capsule[: len(capsule) // 2], "damaged"),
        (capsule[:80] + bytes([capsule[80] ^ 1]) + capsule[81:], "damaged"),
        (zipped({"a.txt": b""}), "has no capsule.json"),
        (zipped({"capsule.json": b"[" * 100_000}), "cannot be read"),
        (zipped({"capsule.json": b'{"format": "other"}'}), "no capsule of benchkit's"),
        (zipped({"capsule.json": b'{"format": "benchkit-capsule", "schema": 99}'}), "layout 99"),
        (zipped({"capsule.json": b'{"format": "benchkit-capsule", "schema": 1}'}), "has no 'generator'"),
    ):
        with pytest.raises(CapsuleError, match=told):
            read_capsule(content)


def head(**changes: Any) -> tuple[str, Callable[[Any], None]]:
    return "capsule.json", lambda found: found["studies"][0].update(changes)


def trial(**changes: Any) -> tuple[str, Callable[[Any], None]]:
    return "1-synthetic-norms/trials.json", lambda found: found[0].update(changes)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (head(name="../x"), "cannot be a study's name"),
        (head(name="\x1b[2Jx"), "cannot be a study's name"),
        (head(name=7), r"capsule\.json\.studies\[0\]\.name: expected text, got a whole number"),
        (head(folder="elsewhere"), "has no elsewhere/study.toml"),
        (head(environments=[]), "names an environment that is not there"),
        (head(conditions=[]), "belongs to no condition"),
        (trial(state="perfect"), "is 'perfect', which is none of its values"),
        (trial(index="0"), "expected a whole number"),
        (trial(phase="search"), "belongs to no condition of its study and phase"),
        (trial(metrics={"test": {"n": 1}}), "has no 'loss'"),
        (trial(finished=10**400), "a whole number of 401 digits"),
        (trial(epochs=99), "another number of epochs"),
        (trial(right="no base64!"), "right answers cannot be read"),
        (trial(images=10**9), "right answers for 1000000000 images"),
    ],
)
def test_values_that_cannot_be_are_refused(
    edit: tuple[str, Callable[[Any], None]], told: str, capsule: bytes, tmp_path: Path
) -> None:
    changed = edited(capsule, {edit[0]: edit[1]})
    with pytest.raises(CapsuleError, match=told):
        results_of(read_capsule(changed), 0, tmp_path)


def test_a_study_file_that_is_wrong_is_told(capsule: bytes) -> None:
    found = members(capsule)
    found["1-synthetic-norms/study.toml"] += b'\n[model2]\nname = "x"\n'
    with pytest.raises(CapsuleError, match="study synthetic-norms cannot be used") as caught:
        read_capsule(zipped(found))
    assert "model2" in str(caught.value)


@pytest.mark.parametrize("more", ["trials = 999999999", 'trials = 5\nsampler = "grid"'])
def test_a_search_without_end_is_refused(more: str, tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1, epochs=1)
    text = f'\n[search]\n{more}\nspace."train.batch_size" = {{ low = 1, high = 99999999999 }}\n'
    found = members(make_capsule([results], Shown()))
    found["1-synthetic-norms/study.toml"] += text.encode()
    with pytest.raises(CapsuleError, match=r"(1 to|at most) 100,000"):
        read_capsule(zipped(found))


def test_the_order_of_factors_levels_and_space_is_kept() -> None:
    text = """
title = "t"
[data]
name = "digits"
[model]
name = "mlp"
[factors]
schedule = [{ label = "a", set = { "train.schedule" = { name = "cosine" }, "train.schedule.max_lr" = 0.5 } }]
"train.batch_size" = [32, 16]
[search]
trials = 4
space."train.optimizer.lr" = { low = 0.1, high = 1.0, step = 0.3 }
space."train.schedule.name" = ["constant", "cosine"]
space."model.hidden" = [[8], [16, 8]]
"""
    study = parse_study(text, name="ordered")
    again = parse_study(study_text(study), name="ordered")
    assert again.search and [one.path for one in again.search.space] == [
        "train.optimizer.lr", "train.schedule.name", "model.hidden",
    ]  # fmt: skip
    assert list(again.factors[0].levels[0].settings) == ["train.schedule", "train.schedule.max_lr"]
    assert make_plan(again).conditions == make_plan(study).conditions
