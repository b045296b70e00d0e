"""The list of pitfalls: each number has its row, each row a test that is there or the reason why there is none."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent

ECOSYSTEM = """
1.1 1.2 1.3 1.4 1.5 1.6 2.1 2.2 2.3 2.4 2.5 2.6 2.7 2.8 2.9 2.10 2.11 2.12 2.13 2.14 3.1 3.2 3.3 3.4 3.5 3.6 3.7 3.8
3.9 3.10 3.11 4.1 4.2 4.3 4.4 4.5 5.1 5.2 5.3 5.4 5.5 6.1 6.2 6.3 6.4 7.1 7.2 7.3 7.4 7.5 8.1 8.2 8.3 8.4 8.5 8.6 8.7
9.1 9.2 9.3 9.4 9.5
""".split()
PAGES = {
    "ecosystem": ECOSYSTEM,
    "scale-out": [*(str(number) for number in range(1, 43)), "1b", "14b", "15b"],
    "training": [str(number) for number in range(1, 59)],
}
"""The pages of pitfalls and their numbers."""

ROWS: dict[str, dict[str, dict[str, Any]]] = tomllib.loads((TESTS / "pitfalls.toml").read_text(encoding="utf-8"))


def named_by(row: dict[str, Any]) -> list[str]:
    """Return the ids that a row names: `test` is one, or a list of them."""
    named = row.get("test", [])
    return [named] if isinstance(named, str) else list(named)


def is_collected(test: str) -> bool:
    """Return whether pytest finds a test of this id (without its parameters): a function of a test's file."""
    name, _, function = test.partition("::")
    path = TESTS.parent / name
    if not (
        path.is_file()
        and path.parent in (TESTS, TESTS / "browser")
        and path.name.startswith("test_")
        and function.startswith("test_")
    ):
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in body)


@pytest.mark.parametrize("page", PAGES)
def test_every_number_has_a_row_and_every_row_a_number(page: str) -> None:
    assert set(ROWS) == set(PAGES)
    assert set(PAGES[page]) == set(ROWS[page])


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_tests_that_are_collected_or_says_what_is_missing(page: str) -> None:
    faults = []
    for number, row in ROWS[page].items():
        faults += [f"{number}: unknown key {key}" for key in sorted(row.keys() - {"test", "mutation", "not_here"})]
        if not named_by(row) and not row.get("not_here"):
            faults.append(f"{number}: neither a test nor what is missing here")
        if bool(named_by(row)) != bool(row.get("mutation")):
            faults.append(f"{number}: a test and the mutation that made it fail belong together")
        faults += [f"{number}: {test} is not collected" for test in named_by(row) if not is_collected(test)]
    assert not faults, "\n".join(faults)


def test_an_id_that_is_not_there_is_noticed() -> None:
    assert is_collected("tests/test_pitfalls.py::test_an_id_that_is_not_there_is_noticed")
    assert not is_collected("tests/test_pitfalls.py::test_of_another_name")
    assert not is_collected("tests/test_nowhere.py::test_of_another_name")
    assert not is_collected("tests/pitfalls.toml::test_of_another_name")
