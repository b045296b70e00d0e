"""The changes that `make mutants` makes: which function holds a line, which tests could notice, what is no change."""

from __future__ import annotations

from pathlib import Path

import pytest

CODE = """\
LIMIT = 3


class Box:
    size: int | None = 1

    @property
    def area(self) -> int:
        def squared(side: int) -> int:
            return side * side

        return squared(self.size or 2)
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "peers"))
    import code_changes
    import mutants

    (tmp_path / "benchkit").mkdir()
    (tmp_path / "plugins").mkdir()
    (tmp_path / "benchkit" / "box.py").write_text(CODE)
    (tmp_path / "benchkit" / "user.py").write_text("from benchkit.box import LIMIT\n")
    for module in (code_changes, mutants):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def test_a_line_belongs_to_the_outermost_function_around_it(tree: Path) -> None:
    from mutants import function_at

    named = {line: function_at("benchkit/box.py", line) for line in range(1, 13)}
    assert {line for line, name in named.items() if name == "Box.area"} == {9, 10, 11, 12}
    assert {name for line, name in named.items() if line < 9} == {""}


def test_tests_that_call_the_function_come_by_their_name_and_then_by_their_time(tree: Path) -> None:
    from code_changes import Mutant
    from mutants import BY_SOURCE, relevant

    calls = {
        "tests/test_long.py::a": {"seconds": 3.0, "functions": ["benchkit/box.py::Box.area"]},
        "tests/test_short.py::b": {"seconds": 1.0, "functions": ["benchkit/box.py::Box.area"]},
        "tests/test_box.py::c": {"seconds": 9.0, "functions": ["benchkit/box.py::Box.area"]},
        "tests/test_user.py::d": {"seconds": 0.1, "functions": ["benchkit/user.py::use"]},
    }

    def at(line: int) -> Mutant:
        return Mutant(path="benchkit/box.py", line=line, operator="", occurrence=0, before="", after="")

    by_function = [*BY_SOURCE, "tests/test_box.py::c", "tests/test_short.py::b", "tests/test_long.py::a"]
    assert relevant(at(12), calls) == by_function
    assert relevant(at(1), calls) == by_function
    assert relevant(at(1), {name: calls[name] for name in calls if name.endswith("d")}) == [
        *BY_SOURCE,
        "tests/test_user.py::d",
    ]


def test_a_changed_annotation_is_no_change(tree: Path) -> None:
    pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed: `make mutants` brings it")
    from code_changes import mutant_of

    operator = "core/ReplaceBinaryOperator_BitOr_Add"
    assert mutant_of("benchkit/box.py", 5, operator, 0) is None
    changed = mutant_of("benchkit/box.py", 1, "core/NumberReplacer", 0)
    assert changed is not None and (changed.before, changed.after.split()) == ("LIMIT = 3", ["LIMIT", "=", "4"])
