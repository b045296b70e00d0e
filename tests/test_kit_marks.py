"""The kit's own behaviour: parametrisation, expected failures, skips, and what it keeps and recalls."""

from __future__ import annotations

import textwrap
from pathlib import Path

import broken_norms
import pytest
from throwaway_distributions import write_distribution

from benchkit import PluginError
from benchkit.registry import Registry
from benchkit.registry.kit_record import recall
from benchkit.registry.sources import source_hash
from benchkit.testing import KIT_VERSION, checks, parametrize_checks, run_checks
from benchkit.testing.kit import remember

pytest_plugins = ["pytester"]

MODULE = """
from broken_regularizers import HalfTargets
from benchkit.testing import parametrize_checks

@parametrize_checks("regularizers", HalfTargets, expected_failures={expected})
def test_kit(check):
    check()
"""


def outcomes(pytester: pytest.Pytester, expected: str) -> dict[str, int]:
    pytester.makepyfile(textwrap.dedent(MODULE.replace("{expected}", expected)))
    pytester.makeini("[pytest]\nmarkers = gpu: needs CUDA\n")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rA").parseoutcomes()


def test_a_stated_failure_is_expected(pytester: pytest.Pytester) -> None:
    found = outcomes(pytester, "{'targets': 'the sum is wrong on purpose'}")
    assert (found.get("xfailed"), found.get("failed")) == (1, None)
    assert found["skipped"] >= 1, "strength-zero cannot be made without options"


def test_an_unstated_failure_fails(pytester: pytest.Pytester) -> None:
    assert outcomes(pytester, "{}")["failed"] == 1


def test_a_stated_failure_that_passes_fails(pytester: pytest.Pytester) -> None:
    found = outcomes(pytester, "{'targets': 'on purpose', 'resume': 'it does resume'}")
    assert (found["xfailed"], found["failed"]) == (1, 1)


def test_the_same_holds_for_verdicts() -> None:
    stated = {"own-randomness": "it draws its start", "shapes": "it does not"}
    found = {v.check: v for v in run_checks("norms", broken_norms.RandomStart, expected_failures=stated)}
    assert (found["own-randomness"].state, found["own-randomness"].note) == ("expected", "it draws its start")
    assert (found["shapes"].state, found["shapes"].failure) == ("unexpected", None)


def test_stated_failures_name_checks_and_reasons() -> None:
    with pytest.raises(PluginError) as caught:
        parametrize_checks("norms", broken_norms.Sound, expected_failures={"shape": "why", "compile": " "})
    assert caught.value.problems == (
        "no check is called 'shape' (did you mean 'shapes'?)",
        "compile: the reason is missing",
    )


def test_missing_options_and_studies_are_refused() -> None:
    with pytest.raises(PluginError, match="cannot be checked without its options") as caught:
        dict(checks("norms", broken_norms.Untyped))
    assert caught.value.problems == ("depth: expected any",)
    with pytest.raises(PluginError, match="a study is a file"):
        dict(checks("studies", "quickstart"))


def test_results_are_recalled_until_the_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    source = "from broken_regularizers import HalfTargets\n"
    write_distribution(
        site, "half", {"regularizers": {"half": "kit_half:HalfTargets"}}, modules={"kit_half.py": source}
    )
    entry = Registry.installed().find("regularizers", "half")
    assert recall(entry) is None
    first_hash = source_hash(entry)
    remember(entry, run_checks("regularizers", entry))
    found = recall(entry)
    assert found is not None and found.kit == KIT_VERSION and found.failed == ("targets",)
    assert found.words.startswith(f"failed 1 of {found.passed + 1} checks of kit {KIT_VERSION} (targets)")
    remember(entry, run_checks("regularizers", entry, expected_failures={"targets": "on purpose"}))
    known = recall(entry)
    assert known is not None and known.failed == () and "known to fail targets: on purpose" in known.words
    (site / "kit_half.py").write_text(f"{source}# changed\n")
    assert recall(entry) is None
    changed_hash = source_hash(entry)
    assert len(first_hash) == 12 and changed_hash != first_hash
    (site / "kit_half.py").write_text(f"{source}# Changed\n")
    assert source_hash(entry) not in (first_hash, changed_hash)
