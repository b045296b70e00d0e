"""The JSON schema of a study file: what it allows and refuses, by a validator and by two editors' checkers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import benchkit
from benchkit.cli import main
from benchkit.registry import Registry
from benchkit.study.schema import study_schema

BUILT_IN = sorted(path for path in (Path(benchkit.__file__).parent / "studies").glob("*.toml"))
SMALL = """
title = "Small"
[data]
name = "digits"
fancy = 3
[model]
name = "mlp"
norm = { name = "gn", groups = 4 }
[train]
optimizer = { name = "timm:lion", lr = 0.1, caution = true }
schedule = "cosine"
[[regularizers]]
name = "mixup"
alpha = 0.4
[factors]
"model.norm" = ["bn", { label = "one", value = "gn" }]
[search]
trials = 5
goal = ["val.loss", "cost.seconds"]
space."train.optimizer.lr" = { low = 0.1, high = 1, log = true }
space."model.hidden" = [[8], [16]]
[repeats]
n = 3
most = 8
until = "decided"
[report]
figures = ["layers", { name = "learning-curves", metric = "loss" }]
[report.text]
limitations = "None."
[smoke]
"data.train_size" = 20
"""
WRONG = {
    "a key of the first level": ('title = "Small"', 'title = "Small"\nqestion = ""', "qestion"),
    "a key of [train]": ("[train]\n", "[train]\nepohcs = 3\n", "epohcs"),
    "a key of [search]": ("trials = 5", "trials = 5\npruning = 1", "pruning"),
    "a key of a range": ("log = true", "logarithmic = true", "logarithmic"),
    "a key of [repeats]": ("n = 3", "n = 3\nmore = 4", "more"),
    "a place of own text": ("limitations", "limitation", "limitation"),
    "a number out of range": ("most = 8", "most = 8000", "8000"),
    "a goal on test": ('"val.loss"', '"test.loss"', "test.loss"),
    "a pruner": ("trials = 5", 'trials = 5\npruner = "medium"', "medium"),
    "no title": ('title = "Small"', "", "title"),
}


@pytest.fixture(scope="module")
def schema() -> Mapping[str, Any]:
    return study_schema(Registry.installed())


def messages(schema: Mapping[str, Any], text: str) -> list[str]:
    import tomllib

    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_every_built_in_study_is_allowed(schema: Mapping[str, Any], path: Path) -> None:
    assert messages(schema, path.read_text(encoding="utf-8")) == []


def test_what_a_study_can_say_is_allowed(schema: Mapping[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    assert messages(schema, SMALL) == []


@pytest.mark.parametrize("case", WRONG)
def test_what_no_study_can_say_is_refused(schema: Mapping[str, Any], case: str) -> None:
    old, new, named = WRONG[case]
    assert old in SMALL
    assert any(named in message for message in messages(schema, SMALL.replace(old, new, 1)))


def properties(schema: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{at}{name}", inner
        yield from properties(inner, f"{at}{name}.")
    for inner in (*schema.get("anyOf", ()), schema.get("items", {}), schema.get("additionalProperties", {})):
        if isinstance(inner, dict) and inner:
            yield from properties(inner, at)


def test_every_key_says_what_it_means(schema: Mapping[str, Any]) -> None:
    found = list(properties(schema))
    assert [at for at, inner in found if not inner.get("description")] == []
    assert len(found) > 80


def test_it_keeps_to_what_editors_know(schema: Mapping[str, Any]) -> None:
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    text = json.dumps(schema)
    assert not [word for word in ("$ref", "$defs", "$id", "prefixItems", "unevaluated") if word in text]


@pytest.mark.parametrize("program", [["taplo", "check"], ["tombi", "lint", "--offline"]], ids=["taplo", "tombi"])
def test_editors_pass_every_study_and_refuse_a_misspelt_key(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main(["studies", "new", "mine.toml"]) == 0
    mine = Path("mine.toml").read_text()
    first, blank, _ = mine.split("\n", 2)
    assert first.startswith("#:schema file:///") and blank == ""
    for path in BUILT_IN:
        Path(path.name).write_text(f"{first}\n\n{path.read_text(encoding='utf-8')}")
    command = [str(Path(sys.executable).with_name(program[0])), *program[1:]]
    right = subprocess.run([*command, *map(str, Path().glob("*.toml"))], capture_output=True, text=True, check=False)
    assert right.returncode == 0, right.stdout + right.stderr
    Path("wrong.toml").write_text(mine.replace("epochs = 10", "epohcs = 10"))
    wrong = subprocess.run([*command, "wrong.toml"], capture_output=True, text=True, check=False)
    assert wrong.returncode != 0 and "epohcs" in wrong.stdout + wrong.stderr


def test_the_schema_is_printed_or_written(
    schema: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studies", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema
    out = tmp_path / "study.json"
    assert main(["studies", "schema", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == schema and out.as_uri() in capsys.readouterr().out
