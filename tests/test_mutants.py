"""The changes that `make mutants` makes: which function holds a line, which tests could notice, what is no change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).parent / "peers"
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
    monkeypatch.syspath_prepend(str(PEERS))
    import code_changes
    import mutants

    (tmp_path / "benchkit").mkdir()
    (tmp_path / "plugins").mkdir()
    (tmp_path / "benchkit" / "box.py").write_text(CODE)
    (tmp_path / "benchkit" / "user.py").write_text("from benchkit.box import LIMIT\n")
    for module in (code_changes, mutants):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["tests/test_trial_seeds.py"], "benchkit/study/seeds.py::trial_seeds"),
        (["--collect-only", "tests/test_slurm.py"], "{}"),  # marked for xdist, which is not used here
        (["tests/test_absent.py"], "exit status 4: "),
    ],
)
def test_what_the_tests_call_is_watched_and_a_run_that_fails_is_no_answer(
    tmp_path: Path, files: list[str], said: str
) -> None:
    asked = f"import pathlib, mutants; print(mutants.calls_of_tests(pathlib.Path({str(tmp_path)!r}), {files}, 1))"
    own = {**os.environ, "PYTHONPATH": os.pathsep.join((str(PEERS.parent), str(PEERS)))}
    done = subprocess.run([sys.executable, "-c", asked], env=own, capture_output=True, text=True, check=False)
    assert said in (done.stderr if done.returncode else done.stdout), done.stderr
    assert done.returncode == ("absent" in files[-1])


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
