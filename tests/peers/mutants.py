"""Whether a test notices single changes to the code: `make mutants`.

    python tests/peers/mutants.py [--sample 200] [--seed 27] [--jobs 2] [--state DIR] [--only 3,17]
                                  [--under DIR...] [--tests FILE...] [--most SECONDS]

First every test that is not slow runs once, in a copy of the tree, while the functions of benchkit and its plugins that
it calls are written down. Then a random sample is drawn of all places where one of cosmic-ray's operators can change
the code, and of what it can make of each; changes of annotations alone are none. For each, the changed file is put
into a copy of the tree, and the tests that call the changed function run, the quickest first, until one fails; for what
stands outside of functions, the tests that call something of the file, or of those that import it. `--state` names a
folder that keeps what is known (mutants.jsonl: one line for each): a later run tries again what no test has noticed.

Each try is a process forked from one that has imported the big packages, but nothing of benchkit.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from code_changes import ROOT, Mutant, changed_text, drawn

UNDER = (
    "benchkit/study",
    "benchkit/plan.py",
    "benchkit/data/dataset.py",
    "benchkit/ledger",
    "benchkit/train",
    "benchkit/analysis",
    "plugins/benchkit_norms",
)
WARM = (
    "torch",
    "torchvision",
    "timm",
    "optuna",
    "altair",
    "sklearn.metrics",
    "scipy.stats",
    "weasyprint",
    "torchmetrics",
)
"""What a try need not import again."""

BY_SOURCE = ["tests/test_structure.py::test_values_are_frozen_slotted_and_given_by_name"]
"""Tests that read the source and could notice any change."""

AT_ONCE = 120
"""Tests in one try: pytest collects anew for each."""

LONGEST = 300.0
"""Seconds that a try may take; beyond them the change counts as noticed where its tests were quick without it."""


class Calls:
    """A pytest plugin that keeps the functions which each passing test calls, and the seconds that it takes."""

    def __init__(self, root: Path) -> None:
        """Watch the code below a root."""
        self.house = tuple(f"{root / name}{os.sep}" for name in ("benchkit", "plugins"))
        self.root = root
        self.called: set[tuple[str, str]] = set()
        self.began = 0.0
        self.tests: dict[str, dict[str, Any]] = {}

    def _watch(self, frame: Any, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(self.house):
            self.called.add((code.co_filename, code.co_qualname))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Begin to watch."""
        self.called, self.began = set(), time.monotonic()
        sys.setprofile(self._watch)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Leave out what did not pass."""
        if report.when == "call" and report.passed:
            self.tests[report.nodeid] = {}

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Keep what was called."""
        sys.setprofile(None)
        if nodeid in self.tests:
            functions = {f"{Path(path).relative_to(self.root)}::{_outermost(name)}" for path, name in self.called}
            self.tests[nodeid] = {"seconds": time.monotonic() - self.began, "functions": sorted(functions)}


def _outermost(name: str) -> str:
    """Return the function whose code holds the one of this qualified name: inner ones are changed with it."""
    return name.partition(".<locals>")[0]


def copy_of_tree(folder: Path) -> Path:
    """Return a folder with the files that git tracks, or would, as they are in the work tree."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def forked(
    tree: Path, arguments: Sequence[str], log: Path, plugin: Calls | None = None, *, compiles: bool = False
) -> int:
    """Start pytest on a tree in a process forked from this one, and return the process's number.

    Only where it `compiles` does Python keep what it compiles of the tree.
    """
    if pid := os.fork():
        return pid
    os.setsid()
    os.chdir(tree)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    places = [str(tree), str(tree / "plugins"), str(tree / "tests")]
    sys.path[:0] = places
    sys.dont_write_bytecode = not compiles
    os.environ |= {"PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    code: int = 70
    try:
        flags = [
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--timeout",
            str(LONGEST),
            "-m",
            "not slow",
        ]
        code = int(pytest.main([*flags, *arguments], plugins=[plugin] if plugin else []))
        if plugin:
            log.with_suffix(".json").write_text(json.dumps(plugin.tests), encoding="utf-8")
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it was
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ended(pid: int, seconds: float) -> int | None:
    """Return the exit status of a process once it ends; None after so many seconds, when it and its own are killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def calls_of_tests(state: Path, files: Sequence[str], jobs: int) -> dict[str, dict[str, Any]]:
    """Return the seconds and the functions of each test of some files, as kept in the state or as found by running."""
    kept = state / "calls.json"
    if not kept.exists():
        tree = copy_of_tree(state / "tree-calls")
        files = files or sorted(str(path.relative_to(tree)) for path in (tree / "tests").rglob("test_*.py"))
        pids = [
            forked(tree, ["-p", "no:randomly", *files[number::jobs]], state / f"calls-{number}.txt", Calls(tree))
            for number in range(jobs)
        ]
        for number, pid in enumerate(pids):
            code = ended(pid, 7200.0)
            if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                raise SystemExit(f"the tests could not be run, exit status {code}: {state / f'calls-{number}.txt'}")
        found: dict[str, dict[str, Any]] = {}
        for number in range(jobs):
            found |= json.loads((state / f"calls-{number}.json").read_text(encoding="utf-8"))
        kept.write_text(json.dumps(found), encoding="utf-8")
    told: dict[str, dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
    return told


def function_at(path: str, line: int) -> str:
    """Return the qualified name of the outermost function around a line, empty outside of functions."""
    inside: list[str] = []

    def look(node: ast.AST) -> str:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt) or not child.lineno <= line <= (child.end_lineno or child.lineno):
                continue
            if isinstance(child, ast.ClassDef):
                inside.append(child.name)
                return look(child)
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and line >= child.body[0].lineno:
                return ".".join([*inside, child.name])
        return ""

    return look(ast.parse((ROOT / path).read_text(encoding="utf-8")))


def relevant(mutant: Mutant, calls: Mapping[str, Mapping[str, Any]], most: float = math.inf) -> list[str]:
    """Return the tests that could notice a change, those named after its file first, then the quickest.

    Of those that take more than `most` seconds together, the last are left out.
    """
    function = function_at(mutant.path, mutant.line)
    named = [nodeid for nodeid, told in calls.items() if function and f"{mutant.path}::{function}" in told["functions"]]
    if not function:
        files = {mutant.path}
        named = _of_files(files, calls) or _of_files(files | importers(mutant.path), calls)
    stem = Path(mutant.path).stem
    if not named:
        return []
    ordered = sorted(named, key=lambda nodeid: (f"test_{stem}." not in nodeid, calls[nodeid]["seconds"]))
    spent = itertools.accumulate(calls[nodeid]["seconds"] for nodeid in ordered)
    return BY_SOURCE + [nodeid for nodeid, seconds in zip(ordered, spent, strict=True) if seconds <= most]


def _of_files(paths: set[str], calls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        nodeid
        for nodeid, told in calls.items()
        if any(function.partition("::")[0] in paths for function in told["functions"])
    ]


def importers(path: str) -> set[str]:
    """Return the files that name a module in an import."""
    module = path.removeprefix("plugins/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    folder, _, name = module.rpartition(".")
    found = set()
    for file in [*(ROOT / "benchkit").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        if f"from {module} import" in text or f"from {folder} import {name}" in text:
            found.add(str(file.relative_to(ROOT)))
    return found


def noticed(mutant: Mutant, tests: Sequence[str], tree: Path) -> tuple[str, str]:
    """Return how a change ends (`killed`, `survived`, `not covered`) and the test or the reason."""
    if not tests:
        return "not covered", ""
    file, log = tree / mutant.path, tree.with_suffix(".txt")
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(changed_text(text, mutant.operator, mutant.occurrence) or "", encoding="utf-8")
        for begin in range(0, len(tests), AT_ONCE):
            code = ended(forked(tree, ["-x", *tests[begin : begin + AT_ONCE]], log), LONGEST)
            if code is None:
                return "killed", "it takes longer than its tests may"
            if code:
                said = [
                    line
                    for line in log.read_text(errors="replace").splitlines()
                    if line.startswith(("FAILED", "ERROR"))
                ]
                return "killed", (said or [f"exit status {code}"])[0][:160]
        return "survived", f"{len(tests)} tests"
    finally:
        shutil.copy2(ROOT / mutant.path, file)


def compiled_tree(folder: Path, calls: Mapping[str, Any]) -> Path:
    """Return a copy of the tree with its tests and all that they import compiled."""
    tree = copy_of_tree(folder)
    files = sorted({nodeid.partition("::")[0] for nodeid in calls})
    ended(forked(tree, ["--collect-only", *files], folder.with_suffix(".txt"), compiles=True), LONGEST)
    return tree


def tried(
    mutants: Sequence[tuple[int, Mutant]], calls: Mapping[str, Any], most: float, state: Path, number: int
) -> None:
    """Try some changes in a tree of their own and add a line for each to the state."""
    tree = state / f"tree-{number}"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(state / "tree", tree)
    for index, mutant in mutants:
        outcome, why = noticed(mutant, relevant(mutant, calls, most), tree)
        line = json.dumps({"number": index, **asdict(mutant), "outcome": outcome, "why": why})
        with (state / "mutants.jsonl").open("a", encoding="utf-8") as kept:
            kept.write(line + "\n")
        print(
            f"{index} {mutant.path}:{mutant.line} {outcome}: {mutant.before}  ->  {mutant.after}  ({why})", flush=True
        )


def outcomes(state: Path) -> dict[Mutant, dict[str, Any]]:
    """Return what the state says of each change, the newest line counts."""
    kept = state / "mutants.jsonl"
    found: dict[Mutant, dict[str, Any]] = {}
    for line in kept.read_text(encoding="utf-8").splitlines() if kept.exists() else ():
        told = json.loads(line)
        found[Mutant(**{name: told[name] for name in Mutant.__dataclass_fields__})] = told
    return found


def main() -> None:
    """Draw the sample, try what is not known to be noticed, and print the score and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=27)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--state", type=Path, default=ROOT / ".mutants")
    parser.add_argument("--only", default="", help="these alone, by their numbers in the sample, parted by commas")
    parser.add_argument("--under", nargs="+", default=UNDER)
    parser.add_argument("--most", type=float, default=math.inf, help="seconds of tests for each change at the most")
    parser.add_argument("--tests", nargs="+", default=(), help="test files that are to notice; all of them without")
    given = parser.parse_args()
    state: Path = given.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    for name in WARM:
        importlib.import_module(name)
    calls = calls_of_tests(state, given.tests, given.jobs)
    sample = list(enumerate(drawn(given.under, given.sample, given.seed), 1))
    asked = {int(number) for number in given.only.split(",") if number}
    known = outcomes(state)
    left = [
        (number, mutant)
        for number, mutant in sample
        if (number in asked if asked else known.get(mutant, {}).get("outcome") != "killed")
    ]
    compiled_tree(state / "tree", calls)
    pids = []
    for job in range(given.jobs):
        if not (pid := os.fork()):
            tried(left[job :: given.jobs], calls, given.most, state, job)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    known = outcomes(state)
    told = [(number, mutant, known[mutant]["outcome"]) for number, mutant in sample if mutant in known]
    killed = sum(outcome == "killed" for *_, outcome in told)
    for number, mutant, outcome in told:
        if outcome != "killed":
            print(f"{number} {mutant.path}:{mutant.line} {outcome}: {mutant.before}  ->  {mutant.after}")
    print(f"{killed} of {len(told)} changes are noticed ({killed / max(1, len(told)):.1%})")


if __name__ == "__main__":
    main()
