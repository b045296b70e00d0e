"""Capsules that nobody wrote by hand: any change to a capsule ends in words of one error, or in results, in seconds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from capsule_edits import edited, members, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_results import complete
from tiny_study import study_of

from benchkit.analysis.summary import summarize
from benchkit.capsule import CapsuleError, Shown, make_capsule, read_capsule
from benchkit.capsule.reading import results_of
from benchkit.errors import BenchkitError
from benchkit.plan import make_plan
from benchkit.results import StudyResults
from benchkit.verify.consistency import consistency_checks
from benchkit.verify.recomputed import same_csv

TRIALS = "1-synthetic-norms/trials.json"
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**30, -(10**400), "x" * 131_073, "1e999", "nan", "../..", "\ud800", "\x00"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@cache
def honest() -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        return members(make_capsule([complete(Path(folder), ("bn", "gn"), repeats=2, epochs=2)], Shown()))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    found = copy.deepcopy(value)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return found


def ends_in_words(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        try:
            capsule = read_capsule(content)
            list(consistency_checks(capsule))
            summarize(results_of(capsule, 0, Path(folder)))
        except BenchkitError as error:
            assert str(error).strip()
            assert len(error.what) < 1000


def test_part_of_a_study_that_is_too_large_as_a_whole_is_verified() -> None:
    """As `--only` trains it: 201 levels with 1,000 repeats are 201,000 trials, and 200,000 are the most."""
    study = study_of(f'[factors]\n"train.optimizer.lr" = {[place / 1000 for place in range(1, 202)]}\n', repeats=1000)
    plan = make_plan(study, only={"train.optimizer.lr": ["0.001", "0.002"]})
    results = StudyResults(study=study, conditions=plan.conditions, trials=())
    checks = list(consistency_checks(read_capsule(make_capsule([results], Shown()))))
    assert {check.name for check in checks if check.state == "holds"} == {"settings", "study files", "seeds"}
    (unchecked,) = (check for check in checks if check.state == "unchecked")
    assert unchecked.name == "study files" and "201,000 trials" in unchecked.told


@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_capsule_with_any_value_changed_is_read_or_refused_in_words(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["capsule.json", TRIALS]))
    content = json.loads(honest()[name])
    path = data.draw(st.sampled_from(sorted(places(content), key=str)))
    new = json.dumps(changed(content, path, data.draw(VALUES)), default=str)
    ends_in_words(zipped({**honest(), name: new.encode("utf-8", "surrogatepass")}))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(content=st.binary(max_size=400), name=st.sampled_from(["capsule.json", TRIALS, "1-synthetic-norms/study.toml"]))
def test_a_member_of_any_bytes_is_refused_in_words(content: bytes, name: str) -> None:
    with pytest.raises(BenchkitError):
        read_capsule(zipped({**honest(), name: content}))


def first_condition(**changes: Any) -> dict[str, Callable[[Any], None]]:
    return {"capsule.json": lambda found: found["studies"][0]["conditions"][0].update(changes)}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (first_condition(label="x" * 131_073), "a text of 131,073 letters, at most 100,000 fit"),
        (first_condition(settings={"train": {"epochs": 10**30}}), "a whole number of 31 digits"),
        (first_condition(chosen={"a": nested(200)}), "nested more than 60 deep"),
        (first_condition(label="half \ud83d"), "no Unicode"),
        (
            {"capsule.json": lambda found: found["studies"][0].update(class_names=["a", "b"])},
            "confusion matrix of 10 classes where its study names 2",
        ),
        (
            {
                "capsule.json": lambda found: found["studies"][0].update(
                    conditions=found["studies"][0]["conditions"] * 251
                )
            },
            "has 502 conditions, at most 500 are read",
        ),
    ],
)
def test_what_goes_over_a_limit_is_named(edit: dict[str, Callable[[Any], None]], words: str) -> None:
    with pytest.raises(CapsuleError, match=words):
        read_capsule(edited(zipped(honest()), edit))


def test_a_table_with_an_endless_cell_is_another_table() -> None:
    assert not same_csv("a\n" + "x" * 200_000, "a\nb")
