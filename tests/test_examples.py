"""The example distributions: their wheels are built and installed, their own tests run, and a tiny study uses them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from built_wheels import build_wheel, environment_with, run
from test_structure import PUBLIC_MODULES, imports

import benchkit

EXAMPLES = sorted(path.parent for path in (Path(__file__).parents[1] / "plugins" / "examples").glob("*/pyproject.toml"))
STUDY = """
title = "Third-party plugins"
question = "Do the example plugins work together?"
[data]
name = "drawn-shapes"
n = 60
[model]
name = "resnet"
n = 1
width = 4
[train]
epochs = 1
batch_size = 20
precision = "float32"
[[regularizers]]
name = "gradient-centralization"
[factors]
"model.norm" = ["frn", "bn"]
[repeats]
n = 1
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has every example installed from its wheel."""
    folder = tmp_path_factory.mktemp("examples")
    wheels = []
    for example in EXAMPLES:
        copy = folder / "source" / example.name
        for path in example.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and not path.parent.name.endswith(".egg-info"):
                (copy / path.relative_to(example)).parent.mkdir(parents=True, exist_ok=True)
                (copy / path.relative_to(example)).write_bytes(path.read_bytes())
        wheels.append(build_wheel(copy, folder))
    return environment_with(wheels, folder)


def test_there_is_an_example_of_a_norm_a_data_set_and_a_regularizer() -> None:
    groups = {
        group
        for example in EXAMPLES
        for group in tomllib.loads((example / "pyproject.toml").read_text())["project"]["entry-points"]
    }
    assert groups == {"benchkit.norms", "benchkit.datasets", "benchkit.regularizers"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_complete_and_uses_public_names(example: Path) -> None:
    for name in ("README.md", "LICENSE", "tests/test_kit.py"):
        assert (example / name).is_file()
    for path in example.rglob("*.py"):
        for line, module, name in imports(path):
            head, _, rest = module.partition(".")
            if head == "benchkit":
                public = name in benchkit.__all__ if not rest else rest in PUBLIC_MODULES
                assert public and not name.startswith("_"), f"{path}:{line} imports {module}:{name}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_their_own_tests_pass(python: Path, tmp_path: Path) -> None:
    folders = [example / "tests" for example in EXAMPLES]
    flags = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib", "-o", "markers=gpu: CUDA"]
    told = run([python, "-m", "pytest", *flags, *folders], tmp_path)
    assert " passed" in told and not re.search(r"failed|error", told)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tiny_study_trains_with_all_of_them(python: Path, tmp_path: Path) -> None:
    (tmp_path / "examples.toml").write_text(STUDY)
    told = run([python, "-m", "benchkit", "sweep", "examples.toml", "--jobs", "1", "--json"], tmp_path)
    states = json.loads(told)["states"]
    assert states["done"] == sum(states.values()) == 2
    run([python, "-m", "benchkit", "sweep", "norms-cifar10", "--only", "model.norm=frn", "--smoke", "--json"], tmp_path)
    run([python, "-m", "benchkit", "report", "examples.toml", "--format", "html", "--out", "reports"], tmp_path)
    (page,) = (tmp_path / "reports").glob("*.html")
    text = page.read_text()
    assert "benchkit-frn 0.1.0" in text and "Filter Response Normalization Layer" in text
