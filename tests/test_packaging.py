"""What others install: the wheel in an environment of its own, and a third-party norm beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray_nodes import RayNodes
from tiny_study import write

ROOT = Path(__file__).parents[1]
SOURCE = ("LICENSE", "README.md", "benchkit", "plugins", "pyproject.toml", "templates")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Return what a command prints; fail with all of its output when it does not succeed.

    The user's own workspace, storage and prepared data are out of its sight.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BENCHKIT_")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**inherited, "BENCHKIT_DATA": str(folder / "data"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def find_uv() -> str:
    for candidate in (os.environ.get("BENCHKIT_UV", ""), str(Path(sys.executable).parent / "uv"), "uv"):
        if candidate and (found := shutil.which(candidate)):
            if subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
                return str(Path(found).absolute())
    pytest.skip("uv is not installed: `make test` brings it")


def uv(*arguments: str | Path) -> str:
    """Run uv from its cache alone, and return what it prints; what the cache lacks is fetched."""
    command = [find_uv(), *arguments]
    offline = subprocess.run(
        [str(part) for part in [*command, "--offline"]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return run(command, ROOT) if offline.returncode != 0 else offline.stdout


def lend_bytecode(environment: Path) -> None:
    """Link what Python has compiled of this environment's packages into another, sparing it half a minute.

    Python compiles anew what does not fit: it compares the size and time of each source.
    """
    ours = Path(sysconfig.get_path("purelib"))
    (theirs,) = environment.glob("lib/python*/site-packages")
    for cache in ours.rglob("__pycache__"):
        target = theirs / cache.relative_to(ours)
        if target.parent.is_dir():
            target.mkdir(exist_ok=True)
            for compiled in cache.glob("*.pyc"):
                if not (target / compiled.name).exists():
                    os.link(compiled, target / compiled.name)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / name, source)
    uv("build", "--wheel", "--out-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def clean_bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bin folder of an environment that holds the wheel, its pinned dependencies and a third party's norm."""
    folder = tmp_path_factory.mktemp("clean")
    environment, source = folder / "venv", folder / "third_party"
    shutil.copytree(ROOT / "tests" / "third_party", source, ignore=LEFT_OUT)
    uv("venv", "--python", sys.executable, environment)
    uv("pip", "install", "--python", environment / "bin" / "python", "-c", ROOT / "constraints.txt", wheel, source)
    lend_bytecode(environment)
    yield environment / "bin"
    shutil.rmtree(environment)  # some 30,000 files that pytest would keep for three sessions


def source_files() -> set[str]:
    """Return the paths, as installed, of all files that the import packages consist of."""
    places = {ROOT / "benchkit": "benchkit", ROOT / "templates": "benchkit_templates"}
    places |= {path: path.name for path in (ROOT / "plugins").glob("benchkit_*")}
    return {
        f"{package}/{path.relative_to(place).as_posix()}"
        for place, package in places.items()
        for path in place.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_source_file_and_the_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert source_files() - names == set()
    extra = {name for name in names - source_files() if ".dist-info/" not in name}
    assert extra == set()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_folder_that_the_wheel_unpacks_is_declared() -> None:
    """`make packages` holds the built wheel to this list (check-wheel-contents)."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    packages = {name.partition(".")[0] for name in tool["setuptools"]["packages"]}
    assert tool["check-wheel-contents"]["toplevel"] == sorted(packages)


def test_the_installed_wheel_lists_plugins_and_studies(clean_bin: Path, tmp_path: Path) -> None:
    version = run([clean_bin / "benchkit", "--version"], tmp_path)
    assert "0.1.0" in version
    plugins = run([clean_bin / "benchkit", "plugins", "list", "--json"], tmp_path)
    assert "benchkit" in plugins and '"gn"' in plugins
    assert isinstance(json.loads(plugins), list | dict)
    assert "quickstart" in run([clean_bin / "benchkit", "studies", "list"], tmp_path)


def test_a_third_party_norm_is_twelve_lines() -> None:
    lines = (ROOT / "tests" / "third_party" / "pixel_norm.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 12


def test_an_installed_third_party_norm_is_listed_with_its_origin(clean_bin: Path, tmp_path: Path) -> None:
    listing = run([clean_bin / "benchkit", "plugins", "list", "--kind", "norms", "--json"], tmp_path)
    assert '"pixel"' in listing and "pixel-norm" in listing
    card = run([clean_bin / "benchkit", "plugins", "show", "pixel"], tmp_path)
    assert "pixel-norm 0.1.0" in card and "eps" in card and "1e-08" in card


@pytest.mark.slow
def test_the_installed_wheel_trains_a_third_party_norm_and_reports_from_an_empty_folder(
    clean_bin: Path, tmp_path: Path
) -> None:
    sweep = ["sweep", "norms-cifar10", "--only", "model.norm=pixel", "--smoke", "--json"]
    states = json.loads(run([clean_bin / "benchkit", *sweep], tmp_path))["states"]
    assert {state: count for state, count in states.items() if count} == {"done": 1}
    run([clean_bin / "benchkit", "report", "norms-cifar10-smoke", "--format", "html", "--out", "reports"], tmp_path)
    page = (tmp_path / "reports" / "norms-cifar10-smoke.html").read_text()
    assert "</html>" in page[-200:] and "pixel" in page


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("python", ["3.11", "3.14"])
def test_all_extras_resolve_together_under_the_pins_with_every_floor_met(python: str) -> None:
    """From wheels alone. An extra without a floor would get whatever old version fits the pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(one) for one in [*project["dependencies"], *(one for of in extras.values() for one in of)]]
    assert [str(one) for one in asked if not one.specifier] == []
    offered = [f"--extra={name}" for name in extras if name != "mutants"]  # one of its packages has no wheel
    quiet = ["--quiet", "--no-annotate", "--no-header"]
    given = ["--python-version", python, "--only-binary", ":all:", "--constraints", ROOT / "constraints.txt"]
    resolved = uv("pip", "compile", *quiet, *given, *offered, ROOT / "pyproject.toml")
    found = dict(line.partition(" ")[0].split("==") for line in resolved.splitlines() if "==" in line)
    versions = {canonicalize_name(name): version for name, version in found.items()}
    left_out = {canonicalize_name(Requirement(one).name) for one in extras["mutants"]}
    for one in asked:
        name = canonicalize_name(one.name)
        assert name in left_out or one.specifier.contains(versions[name]), f"{one}: {versions.get(name)}"
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin = Requirement(line)
        if canonicalize_name(pin.name) in versions and (not pin.marker or pin.marker.evaluate(environment)):
            assert pin.specifier.contains(versions[canonicalize_name(pin.name)]), line


@pytest.mark.slow
def test_the_extra_ray_alone_is_enough_for_every_kind_of_cluster(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    uv("venv", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    uv("pip", "install", "--python", python, "-c", ROOT / "constraints.txt", f"benchkit[ray] @ file://{wheel}")
    lend_bytecode(environment)
    write(tmp_path / "tiny.toml", repeats=2)
    benchkit, plugin = environment / "bin" / "benchkit", tmp_path / "own.py"
    norm = "from torch import nn\n\ndef same(num_channels):\n    return nn.Identity()\n"
    plugin.write_text(f'{norm}\nPLUGINS = {{"benchkit.norms": {{"same": same}}}}\n')
    sweep = [benchkit, "sweep", "tiny.toml", "--json"]
    run([*sweep, "--workspace", "local", "--cluster", "local"], tmp_path)
    cluster = RayNodes(tmp_path / "hidden", python)
    try:
        cluster.add("one")
        asked = ["--cluster", "auto", "--plugin", plugin, "--ship-code"]
        run([*sweep, "--workspace", "auto", *asked], tmp_path, RAY_ADDRESS=cluster.address)
        run([*sweep, "--workspace", "named", "--cluster", cluster.address], tmp_path)
    finally:
        cluster.close()
    for workspace in ("local", "auto", "named"):
        assert "2 done" in run([benchkit, "status", "tiny", "--workspace", workspace], tmp_path)
    shutil.rmtree(environment)


def test_a_uv_named_by_a_relative_path_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "here" / "bin" / "uv"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("BENCHKIT_UV", "bin/uv")
    assert find_uv() == str(program)
