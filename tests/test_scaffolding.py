"""What `benchkit plugins new` writes: for every kind it installs from its wheel, passes the kit, and is used."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from built_wheels import build_wheel, environment_with, run
from figure_results import learned

from benchkit import PluginError
from benchkit.cli import main
from benchkit.data.dataset import check_selection
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.registry.kinds import KIND_TABLE
from benchkit.registry.options import options_of
from benchkit.registry.registry import load_plugin
from benchkit.registry.scaffolding import Project, install_command, plan_project, render_project, write_project
from benchkit.study.studyfile import find_study

KINDS = {
    "norm": "norms",
    "dataset": "datasets",
    "regularizer": "regularizers",
    "loss": "losses",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "metric": "metrics",
    "model": "models",
    "figure": "figures",
    "tracker": "trackers",
}
STUDY = """
title = "Plugins of one's own"
question = "Do new plugins work together?"
[data]
name = "my-dataset"
size = 60
val_size = 20
[model]
name = "my-model"
width = 4
[train]
epochs = 1
batch_size = 20
precision = "float32"
loss = "my-loss"
schedule = "my-schedule"
optimizer = { name = "my-optimizer", lr = 0.001 }
[[regularizers]]
name = "my-regularizer"
[factors]
"model.norm" = ["my-norm", "none"]
[repeats]
n = 2
[report]
figures = ["my-figure"]
metrics = ["my-metric"]
"""


@dataclass(frozen=True)
class Installed:
    """The projects, and the Python of an environment that has them installed."""

    folder: Path
    python: Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("scaffolds")
    wheels = []
    for kind in KINDS:
        project = folder / f"my-{kind}"
        assert main(["plugins", "new", kind, f"my-{kind}", "--out", str(project), "--author", "A. Author"]) == 0
        wheels.append(build_wheel(project, folder))
    return Installed(folder=folder, python=environment_with(wheels, folder))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tests_of_every_project_pass(installed: Installed) -> None:
    projects = [installed.folder / f"my-{kind}" / "tests" for kind in KINDS]
    flags = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib", "-o", "markers=gpu: CUDA"]
    told = run([installed.python, "-m", "pytest", *flags, *projects], installed.folder)
    assert " passed" in told and "failed" not in told


def test_every_plugin_is_listed_with_its_distribution(installed: Installed) -> None:
    rows = json.loads(
        run([installed.python, "-m", "benchkit", "plugins", "list", "--check", "--json"], installed.folder)
    )
    found = {row["name"]: row for row in rows if row["name"].startswith("my-")}
    assert {name: row["kind"] for name, row in found.items()} == {
        f"my-{kind}": plural for kind, plural in KINDS.items()
    }
    assert {row["status"] for row in found.values()} == {"ok"}
    assert found["my-norm"]["origin"] == "benchkit-my-norm 0.1.0"


def test_plugins_check_tells_of_an_installed_plugin(installed: Installed) -> None:
    command = [installed.python, "-m", "benchkit", "plugins", "check", "my-regularizer", "--json"]
    (one,) = json.loads(run(command, installed.folder))["plugins"]
    assert (one["distribution"], one["result"]) == ("benchkit-my-regularizer", "passed")
    assert {check["state"] for check in one["checks"]} == {"passed"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_with_all_kinds_is_swept_and_reported(installed: Installed) -> None:
    benchkit, folder = [installed.python, "-m", "benchkit"], installed.folder
    (folder / "own.toml").write_text(STUDY)
    states = json.loads(run([*benchkit, "sweep", "own.toml", "--jobs", "1", "--json"], folder))["states"]
    assert states["done"] == sum(states.values()) == 4
    run([*benchkit, "report", "own.toml", "--format", "html", "--out", "reports"], folder)
    (page,) = (folder / "reports").glob("*.html")
    text = page.read_text()
    for kind in KINDS.keys() - {"tracker"}:
        assert f"benchkit-my-{kind} 0.1.0" in text, f"the report does not name the {kind}'s distribution"
    assert "My figure" in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_is_complete_and_needs_public_names_only(kind: str) -> None:
    project = plan_project(kind, "some-thing", Registry(()), author="A.  Author\n")
    files = render_project(project)
    assert set(files) == {
        ".github/workflows/tests.yml",
        ".gitignore",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "src/benchkit_some_thing/__init__.py",
        "src/benchkit_some_thing/py.typed",
        "tests/test_kit.py",
    }
    assert not any("{{" in text or "{%" in text for name, text in files.items() if not name.endswith(".yml"))
    assert files[".github/workflows/tests.yml"].count("${{ matrix.python }}") == 1
    assert "A. Author\n" in files["LICENSE"]
    metadata = tomllib.loads(files["pyproject.toml"])["project"]
    (targets,) = metadata["entry-points"].values()
    assert metadata["name"] == "benchkit-some-thing" and list(targets) == ["some-thing"]
    tree = ast.parse(files["src/benchkit_some_thing/__init__.py"])
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name and name.startswith("benchkit")} <= {
        "benchkit",
        "benchkit.analysis",
        "benchkit.metrics",
        "benchkit.preparation",
        "benchkit.results",
    }


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "a--b", "A", "a_b", "a b", "a/b", "..", "../a", "1a", "a.b", "a\n", "é", "{{ a }}", "a" * 41, "~"],
)
def test_hostile_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="cannot name a plugin"):
        plan_project("norm", name, Registry(()))


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("norm", "gn", "benchkit .* has the norm 'gn'"),
        ("norm", "norms", "an import package 'benchkit_norms'"),
        ("norm", "range", "'Range'"),
        ("dataset", "class", "'class'"),
        ("model", "layer", "'layer'"),
    ],
)
def test_names_that_are_taken_are_refused(kind: str, name: str, reason: str) -> None:
    with pytest.raises(PluginError) as caught:
        plan_project(kind, name, Registry.installed())
    (problem,) = caught.value.problems
    assert re.search(reason, problem)


def test_the_command_that_installs_fits_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text("")
    uv.chmod(0o755)
    finder = "benchkit.registry.scaffolding.PathFinder"
    monkeypatch.setattr(finder, SimpleNamespace(find_spec=lambda name: sys if name == "pip" else None))
    assert install_command(Path("my plugin")) == f"{sys.executable} -m pip install -e 'my plugin'"
    monkeypatch.setattr(finder, SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(shutil, "which", lambda name, path: str(uv))
    assert install_command(Path("p")) == f"{uv} pip install --python {sys.executable} -e p"
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    assert install_command(Path("p")) == f"{sys.executable} -m ensurepip && {sys.executable} -m pip install -e p"


def test_the_commands_that_come_next_are_lines_to_paste(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a b"
    assert main(["plugins", "new", "figure", "rank-plot", "--out", str(folder)]) == 0
    next_, install, check, edit = capsys.readouterr().err.splitlines()
    assert (next_, edit) == ("next:", f"then edit {folder}/src/benchkit_rank_plot/__init__.py")
    assert install.strip() == install_command(folder) and shlex.split(install)[-1] == str(folder)
    assert check.strip() == "benchkit plugins check rank-plot --kind figures"


def test_the_kinds_are_named_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["plugins", "--help"], ["plugins", "new", "--help"], ["plugins", "list", "--help"]):
        assert main(command) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert [kind for kind in KINDS.values() if kind not in told] == []


def test_the_help_of_an_option_is_about_it(tmp_path: Path) -> None:
    (metric,) = options_of(scaffolded("figure", tmp_path), "figures")
    (width,) = options_of(scaffolded("model", tmp_path), "models")
    assert metric.help.startswith("`metric` is what is averaged")
    assert width.help == "`width` is the number of channels of the first convolution."


def test_the_command_of_a_data_sets_page_asks_for_no_more_images_than_there_are(tmp_path: Path) -> None:
    words = shlex.split(KIND_TABLE["datasets"].attempt.replace("NAME", "thing"))
    overrides = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
    study = find_study(words[0], Registry.installed(), overrides=overrides)
    plan = make_plan(study)
    settings = plan.settings_of(plan.conditions[0]).data
    assert settings.dataset.name == "thing"
    check_selection(scaffolded("dataset", tmp_path)(tmp_path / "data"), settings, study.seed)


def test_the_figure_names_its_metric_in_words(tmp_path: Path) -> None:
    figure = scaffolded("figure", tmp_path)()
    data = figure.data(learned(["bn", "gn"]))
    assert figure.caption(data).startswith("Mean test accuracy by condition, over ")
    assert "test.accuracy" not in json.dumps(figure.draw(data).to_dict()) + figure.alt_text(data)


def scaffolded(kind: str, folder: Path) -> Any:
    """Return the plugin that the scaffold of a kind defines."""
    project = Project(kind=KINDS[kind], name="thing", author="A")
    path = folder / "thing.py"
    table = f'PLUGINS = {{"benchkit.{project.kind}": {{"thing": {project.attribute}}}}}'
    path.write_text(f"{render_project(project)[project.source.as_posix()]}\n{table}\n", encoding="utf-8")
    return load_plugin(Registry.installed([path]).resolve(project.kind, "thing")[0])


def test_studies_are_not_packages() -> None:
    with pytest.raises(PluginError, match="a study is a file"):
        plan_project("study", "mine", Registry(()))


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(kind="norms", name="mine", author="A")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("kept")
    with pytest.raises(PluginError, match="is there already and not empty"):
        write_project(project, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious.txt"]
    (tmp_path / "empty").mkdir()
    written = write_project(project, tmp_path / "empty")
    assert len(written) == 8 and all(path.is_file() for path in written)
    assert main(["plugins", "new", "norm", "mine", "--out", str(tmp_path / "empty")]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]
