"""Every check of data sets catches a data set that breaks it, and says so."""

from __future__ import annotations

from typing import Any

import broken_datasets as broken
import pytest
from kit_failures import failure_of

from benchkit.testing import NotApplicable, checks, run_checks

CASES = [
    ("offline", broken.crashes_offline, "without network", "a DataError", "URLError"),
    ("offline", broken.silent, "without network", "a hint or with problems", "DataError: no"),
    ("contract", broken.float_images, "the images of train", "uint8 array (N, H, W, C)", "float32 (30, 5, 4, 1)"),
    ("contract", broken.written_from_one, "is prepared", "fit together", "train: labels 1..3"),
    ("contract", broken.smaller_test, "is prepared", "fit together", "train (5, 4, 1), test (3, 4, 1)"),
    ("contract", broken.written_as_floats, "is prepared", "fit together", "train: images are float32 (30, 5, 4, 1)"),
    ("contract", broken.channels_first, "the images of train", "(N, H, W, C)", "(30, 1, 5, 8)"),
    ("contract", broken.no_licence, "licence", "text", "''"),
    ("labels", broken.labels_from_one, "the labels of train", "0..2, for 3 class names", "1..3"),
    ("labels", broken.class_without_images, "the labels of train", "images of every class", "none of d"),
    ("disjoint", broken.leaks, "the 9 images of test", "a note with their number", "2 of them also in train"),
    ("disjoint", broken.leaks_much, "the 9 images of test", "at most 10%", "5 of them also in train"),
    ("fingerprint", broken.invented_fingerprint, "the fingerprint", "", "'version 1'"),
    ("order", broken.shuffled_globally, "differently seeded generators", "the same order", "other images or labels in"),
    ("processes", broken.by_hash, "another PYTHONHASHSEED", "", ""),
    ("prepared-once", broken.rewrites, "a second call", "no file written below root", "2 writes"),
    ("killed", broken.in_place, "killed before write", "content ", "content "),
    ("smoke", broken.single_images, "one epoch of a linear model", "no error", "DataError"),
]


@pytest.mark.parametrize(
    ("check", "plugin", "given", "expected", "got"), CASES, ids=[f"{c[0]}-{c[1].__name__}" for c in CASES]
)
def test_a_broken_data_set_is_caught(check: str, plugin: Any, given: str, expected: str, got: str) -> None:
    failure = failure_of("datasets", plugin, check)
    assert given in failure.given and expected in failure.expected and got in failure.got


def test_a_sound_data_set_passes() -> None:
    verdicts = run_checks("data set", broken.plain)
    assert [(verdict.check, verdict.failure) for verdict in verdicts if verdict.state != "passed"] == []


def test_data_that_are_not_here_are_no_failure() -> None:
    verdicts = {verdict.check: verdict for verdict in run_checks("datasets", broken.needs_files)}
    assert {check for check, verdict in verdicts.items() if verdict.state == "passed"} == {"card", "options", "offline"}
    assert "give them as the option source (the images are not here)" in verdicts["killed"].note


@pytest.mark.parametrize("plugin", [broken.written_from_one, broken.smaller_test, broken.written_as_floats])
def test_what_the_draft_refuses_is_one_failure_and_no_lack_of_files(plugin: Any) -> None:
    verdicts = {verdict.check: verdict for verdict in run_checks("datasets", plugin)}
    assert {check for check, verdict in verdicts.items() if verdict.state == "passed"} == {"card", "options", "offline"}
    assert [check for check, verdict in verdicts.items() if verdict.state == "failed"] == ["contract"]
    assert "the check 'contract' says why" in verdicts["smoke"].note


def test_an_object_that_no_process_can_import_is_not_asked_of_another() -> None:
    found = dict(checks("datasets", lambda root: broken.plain(root)))
    with pytest.raises(NotApplicable, match="cannot import this object"):
        found["processes"]()
