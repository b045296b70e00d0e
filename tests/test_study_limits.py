"""What a study file may hold: beyond it is one error that names the place and the limit; within it costs are linear."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch  # noqa: F401 - plugins are then described in this process, which saves starting another

from benchkit.errors import StudyError
from benchkit.plan import grid_points, grid_size, make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan
from benchkit.study.studyfile import find_study, parse_study, read_study
from benchkit.study.tree import parse_value

HEAD = 'title = "t"\n'
TAIL = '[data]\nname = "digits"\n[model]\nname = "resnet"\n'


def told(text: str, *overrides: str, name: str = "x", smoke: bool = False) -> str:
    with pytest.raises(StudyError) as caught:
        make_plan(parse_study(HEAD + text, name=name, overrides=overrides, smoke=smoke))
    return str(caught.value)


@pytest.mark.parametrize("written", ['"x"', "3", "true", "[3]", '[["dropout"]]', '{ name = "dropout" }', "[[], {}]"])
def test_a_regularizer_that_is_none_is_told_wherever_it_is_written(written: str) -> None:
    table = f"regularizers = {written}\n" + TAIL
    for text in (
        table,
        table + '[factors]\n"regularizers.dropout.rate" = [0.1, 0.2]\n',
        table + '[factors]\n"regularizers.dropout" = [false]\n',
        table + '[search]\ntrials = 2\nspace."regularizers.dropout.rate" = [0.1, 0.2]\n',
        TAIL + f'[factors]\n"regularizers" = [{written}]\n',
        TAIL + f'[search]\ntrials = 2\nspace."regularizers" = [{written}, []]\n',
    ):
        assert "regularizers" in told(text) and "expected" in told(text)
        assert "regularizers" in told(text, smoke=True)
    assert "regularizers" in told(TAIL, f"regularizers={written}")


SPACE = '[search]\ntrials = 2\nspace."train.optimizer.lr" = '
DEEP = "[" * 400 + "]" * 400
TABLES = "{a = " * 400 + "1" + "}" * 400
DOTTED = ".".join("a" * 400)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"seed = 1{'0' * 50}\n" + TAIL, "seed: is a whole number of 167 bits, expected at most 64"),
        (f"seed = 1{'0' * 5000}\n" + TAIL, "a whole number of too many digits"),
        (f"seed = 0x{'f' * 5000}\n" + TAIL, "seed: is a whole number of 20,000 bits"),
        (TAIL + f"width = 1{'0' * 50}\n", "model.width: is a whole number"),
        (TAIL + SPACE + "{ low = -1e308, high = 1e308 }\n", "whose distance is no finite number"),
        (TAIL + SPACE + "{ low = 0.0, high = 1.0, step = 5e-324 }\n", "expected at most 1,000,000,000 steps"),
        (TAIL + 'weights = "a\\u0000b"\n', "model.weights: got 'a\\x00b', expected Unicode text without NUL"),
        (f"x = {DEEP}\n" + TAIL, "expected at most 32 levels"),
        (f"x = {TABLES}\n" + TAIL, "expected at most 32 levels"),
        (f"{DOTTED} = 1\n" + TAIL, "expected at most 32 levels"),
        (TAIL + f'[factors]\n"model.{DOTTED}" = [1, 2]\n', "expected at most 32 parts"),
        (
            TAIL + "[factors]\n" + "".join(f'"model.a{k}" = {list(range(10))}\n' for k in range(6)),
            "make 1,000,000 conditions, expected at most 20,000",
        ),
        (TAIL + f'[factors]\n"train.epochs" = {list(range(1, 1001))}\n[repeats]\nn = 1000\n', "1,000,000 trials"),
        (TAIL + '[search]\ntrials = 1000000000\nspace."train.epochs" = [1, 2]\n', "expected 1 to 100,000"),
        (
            TAIL + '[search]\ntrials = 9\nsampler = "grid"\nspace."train.epochs" = { low = 1, high = 100000000 }\n',
            "a grid of 100,000,000 points, expected at most 100,000",
        ),
        (
            TAIL + '[search]\ntrials = 9\nsampler = "grid"\n'
            'space."train.optimizer.lr" = { low = 0.0, high = 1.0, step = 1e-8 }\n',
            "a grid of 100,000,001 points",
        ),
        (TAIL + f'[search]\ntrials = 9\nspace."train.epochs" = {list(range(1, 10_002))}\n', "has 10,001 choices"),
        (TAIL + f'[factors]\n"model.norm" = {[0] * 200_001}\n', "more than 200,000 values"),
        (TAIL + f'[factors]\n"model.norm" = {list(range(5000))}\n', "and 4,950 more"),
    ],
)  # fmt: skip
@pytest.mark.timeout(60)
def test_what_is_beyond_a_limit_is_one_error_with_the_number(text: str, expected: str) -> None:
    assert expected in told(text)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"data.x={DEEP}", "nested too deeply"),
        (f"data.{DOTTED}=1", "expected at most 32 levels"),
        (f"seed=1{'0' * 5000}", "too many digits"),
        ("title=\udc80", "title: got '\\udc80', expected Unicode text"),
        ("data.source=a\0b", "data.source: got 'a\\x00b', expected Unicode text"),
    ],
)
def test_what_is_beyond_a_limit_is_told_of_an_override(override: str, expected: str) -> None:
    assert expected in told(TAIL, override)


def test_a_file_that_is_too_large_or_named_beyond_unicode_is_told(tmp_path: Path) -> None:
    assert "its file name: got 'a\\udc80', expected Unicode text" in told(TAIL, name="a\udc80")
    (tmp_path / "a.toml").write_text("# " + "x" * 2**20)
    with pytest.raises(StudyError, match="has more than 1,048,576 bytes"):
        read_study(tmp_path / "a.toml")
    for name in ("x" * 5000 + ".toml", "a\0b.toml"):
        with pytest.raises(StudyError, match="no such study file"):
            find_study(name, Registry.installed())


def test_a_byte_order_mark_is_no_part_of_a_study(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf" + (HEAD + TAIL).encode())
    assert read_study(tmp_path / "bom.toml").title == "t"


@pytest.mark.parametrize(
    ("text", "number"), [(".001", 0.001), ("1.e-3", 0.001), ("-1.", -1.0), ("+.5E1", 5.0), ("07", 7.0)]
)
def test_numbers_that_toml_does_not_know_are_numbers_of_an_override(text: str, number: float) -> None:
    assert parse_value(text) == number and isinstance(parse_value(text), float)
    study = parse_study(HEAD + TAIL, name="x", overrides=[f"train.optimizer.lr={text.replace('-1.', '1.')}"])
    assert study.settings["train"]["optimizer"]["lr"] == abs(number)
    assert [parse_value(word) for word in ("1.2.3", "e5", ".", "1 2", "v1.")] == ["1.2.3", "e5", ".", "1 2", "v1."]


def factor(n: int) -> str:
    return f'[factors]\n"train.epochs" = {list(range(1, n + 1))}\n'


COSTS: dict[str, Callable[[int], str]] = {
    "levels": factor,
    "wrong levels": lambda n: f'[factors]\n"train.epochs" = {list(range(-n, 0))}\n',
    "conditions": lambda n: factor(10) + f'"train.optimizer.lr" = {[k / 1000 for k in range(n // 10)]}\n',
    "levels with a search": lambda n: factor(n // 10)
    + '[search]\ntrials = 2\nspace."model.n" = { low = 1, high = 9 }\n',
    "choices": lambda n: '[search]\ntrials = 2\nspace."model.norm" = [\n'
    + "".join(f'{{ name = "bn", eps = {(k + 1) / 10**6} }},\n' for k in range(n)) + "]\n",
    "regularizers": lambda n: "".join(f'[[regularizers]]\nname = "l1"\nid = "r{k}"\n' for k in range(n)),
    "published rows": lambda n: factor(3) + '[[published]]\nsource = "s"\nrows = [\n'
    + '{ when = { "train.epochs" = "1" }, metric = "test.accuracy", value = 0.5 },\n' * n + "]\n",
    "ladder": lambda n: '[factors]\n"a" = [\n'
    + "".join(f'{{ label = "l{k}", add = {{ "train.epochs" = {k + 1} }} }},\n' for k in range(n)) + "]\n",
    "levels of a tiny version": lambda n: '[smoke]\n"train.batch_size" = 8\n[factors]\n"a" = [\n'
    + "".join(f'{{ label = "l{k}", set = {{ "train.optimizer.lr" = {k / 10} }} }},\n' for k in range(n)) + "]\n",
}  # fmt: skip


def calls(text: str, registry: Registry) -> int:
    """Return how many calls, of Python and of C, reading, planning and checking a study takes."""
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        plan = make_plan(parse_study(HEAD + TAIL + text, name="x"))
        plan.units()
        check_plan(plan, registry)
    except StudyError as error:
        assert "train.epochs: got -" in str(error)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("kind", COSTS)
def test_costs_grow_no_faster_than_what_a_study_holds(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path))
    registry = Registry.installed()
    few, many = COSTS[kind](100), COSTS[kind](1000)
    calls(few, registry)
    assert calls(many, registry) < 11 * calls(few, registry)


TEN_LEVELS = "".join(
    f'"{path}" = {levels}\n'
    for path, levels in (
        ("train.optimizer.lr", [k / 100 for k in range(10)]),
        ("train.optimizer.momentum", [k / 10 for k in range(10)]),
        ("train.batch_size", list(range(1, 11))),
        ("model.norm.eps", [k / 1000 for k in range(1, 11)]),
    )
)


@pytest.mark.timeout(20)  # ten times what it may take
def test_ten_thousand_conditions_are_checked_and_listed_without_torch(tmp_path: Path) -> None:
    (tmp_path / "many.toml").write_text(HEAD + TAIL + 'norm = "bn"\n[factors]\n' + TEN_LEVELS)
    check = (
        "import sys; from benchkit.cli import main; code = main(['studies', 'check', 'many.toml']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 10_002
    assert ended.stdout.endswith("many: nothing wrong, 10,000 conditions, 30,000 trials\n")


def test_a_grid_of_whole_numbers_steps_by_one() -> None:
    search = '[search]\ntrials = 9\nsampler = "grid"\nspace."train.epochs" = { low = 2, high = 5 }\n'
    read = parse_study(HEAD + TAIL + search, name="x").search
    assert read is not None and [point["train.epochs"] for point in grid_points(read)] == [2, 3, 4, 5]
    assert grid_size(read) == 4
