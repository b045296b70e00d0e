"""What no machine here runs, shown by its parts: hosted workflows, the container, and the files that a forge reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_packaging import find_uv, run, uv

from benchkit import __version__

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DOCKERFILE = ROOT / "templates" / "machines" / "container" / "Dockerfile"
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def jobs_of(name: str) -> dict[str, Any]:
    """Return the jobs of a workflow."""
    jobs: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())["jobs"]
    return jobs


def lines_of(job: dict[str, Any]) -> list[str]:
    """Return what a job runs, in order."""
    return [step["run"] for step in job["steps"] if "run" in step]


LINES = [line for path in WORKFLOWS for job in jobs_of(path.stem).values() for line in lines_of(job)]


def test_the_tests_run_on_every_python_and_system_that_is_promised() -> None:
    matrix = jobs_of("ci")["tests"]["strategy"]["matrix"]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert matrix["python"] == [lowest, "3.12", "3.13", "3.14"]
    systems = {name: version for name, _, version in (one.partition("-") for one in matrix["os"])}
    assert set(systems) == {"ubuntu", "macos"} and int(systems["macos"]) >= 14, (
        "no PyTorch of today is for an older one"
    )
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"Python {lowest} to {matrix['python'][-1]}" in page
    for place in (ROOT / ".ci" / "environment", *WORKFLOWS, DOCKERFILE):
        versions = set(re.findall(r"uv(?:_version=|==)(\d[\d.]*)", place.read_text()))
        assert versions <= {"0.13.8"}, f"{place.name}: another uv than .ci/environment's"


def test_the_environment_is_made_with_every_python_that_is_promised() -> None:
    script = (ROOT / ".ci" / "environment").read_text()
    (looked,) = re.findall(r"for candidate in ((?:python3[.\d]* ?)+);", script)
    assert looked.split() == ["python3.14", "python3.13", "python3.12", "python3.11", "python3"]


def test_what_workflows_run_is_there_and_no_address_is_in_them() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {target for line in LINES for words in re.findall(r"\bmake ([a-z -]+)", line) for target in words.split()}
    assert {"lint", "types", "docs", "test"} <= made <= targets
    scripts = {script for line in LINES for script in re.findall(r"\.ci/[a-z-]+", line)}
    assert ".ci/packages" in scripts and all(os.access(ROOT / script, os.X_OK) for script in scripts)
    for path in (*WORKFLOWS, DOCKERFILE):
        assert "://" not in path.read_text(), path.name


def test_every_job_ends_and_may_write_nothing_but_what_it_must() -> None:
    for path in WORKFLOWS:
        whole = yaml.safe_load(path.read_text())
        assert whole["permissions"] == {"contents": "read"}
        assert all(job["timeout-minutes"] <= 90 for job in whole["jobs"].values())
    allowed = {name: job["permissions"] for name, job in jobs_of("release").items() if "permissions" in job}
    assert allowed == {"publish": {"id-token": "write"}}


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__ == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] and citation["abstract"] == PROJECT["description"]


@pytest.mark.slow
def test_workflows_forms_and_the_citation_fit_their_schemas() -> None:
    config = [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"]
    files = {
        "github-workflows": WORKFLOWS,
        "github-issue-forms": FORMS,
        "github-issue-config": config,
        "citation-file-format": [ROOT / "CITATION.cff"],
    }
    for schema, paths in files.items():
        assert paths
        uv("tool", "run", "check-jsonschema==0.39.0", "--builtin-schema", f"vendor.{schema}", *paths)


@pytest.mark.slow
def test_the_lines_of_a_release_run_in_a_fresh_clone(tmp_path: Path) -> None:
    """All but the one that installs uv, in order, as a shell of a runner does it."""
    clone, scratch, bin_folder = tmp_path / "clone", tmp_path / "scratch", tmp_path / "bin"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("reports/", "tests/")):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    for folder in (scratch, bin_folder):
        folder.mkdir()
    (bin_folder / "python").symlink_to(sys.executable)
    (bin_folder / "uv").symlink_to(find_uv())
    lines = lines_of(jobs_of("release")["packages"])
    assert lines.pop(0).startswith("python -m pip install") and len(lines) == 5
    given = {"GITHUB_WORKSPACE": str(clone), "RUNNER_TEMP": str(scratch), "GITHUB_REF_NAME": f"v{__version__}",
             "PATH": f"{bin_folder}:{os.environ['PATH']}", "BENCHKIT_DATA": str(scratch / "data")}  # fmt: skip
    for line in lines:
        run(["bash", "-e", "-o", "pipefail", "-c", line], clone, **given)
    assert sorted(path.suffix for path in (clone / "dist").glob("benchkit-*")) == [".gz", ".whl"]


CONTAINER = DOCKERFILE.read_text()
ENVIRONMENT: dict[str, str] = dict(re.findall(r"^(?:ENV| {3}) ([A-Z_]+)=(\S+)", CONTAINER, re.MULTILINE))


def test_the_container_copies_what_is_there_and_keeps_all_that_is_written_on_its_volume() -> None:
    copied = [words.split()[1:-1] for words in re.findall(r"^COPY .*$", CONTAINER, re.MULTILINE)]
    assert all((ROOT / name).exists() for names in copied for name in names)
    assert re.search(r"^VOLUME /work$", CONTAINER, re.MULTILINE)
    places = {name: value for name, value in ENVIRONMENT.items() if name != "USER"}
    assert "USER" in ENVIRONMENT, "PyTorch asks for a name, and a user whom the system does not know has none"
    assert set(places) >= {"HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    assert all(place.startswith("/work/") for place in places.values())


def test_no_extra_chooses_a_device_and_the_image_for_processors_asks_for_theirs() -> None:
    """An extra cannot choose an index; PyTorch for processors comes by an option of uv."""
    assert not {"cpu", "cuda", "gpu", "rocm"} & set(PROJECT["optional-dependencies"])
    assert re.search(r"^ARG TORCH=cpu$", CONTAINER, re.MULTILINE) and '--torch-backend "$TORCH"' in CONTAINER
    assert "uv pip install --torch-backend cpu ." in (ROOT / "docs" / "install.md").read_text()
    assert any("nvidia-|triton" in line for line in lines_of(jobs_of("ci")["container"]))


USER = 12345
"""A user whom no system knows."""
ENTERED = """
mount --bind "$WORK" "$WORK" && mount -o remount,bind,ro / && cd "$WORK" || exit 77
exec setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all,+dac_read_search \\
    --ambient-caps=-all,+dac_read_search "$@"
"""
"""The user may read what is root's, so that it reaches this environment's Python; the root is read-only to all."""


@pytest.mark.slow
def test_what_the_container_starts_serves_any_user_on_a_read_only_root(tmp_path: Path) -> None:
    """Its entry point and its variables, with this environment's programs in place of the image's."""
    work = tmp_path / "work"
    work.mkdir()
    os.chown(work, USER, USER) if os.geteuid() == 0 else pytest.skip("only root can become another user")
    variables = {name: value.replace("/work", str(work), 1) for name, value in ENVIRONMENT.items()}
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    given = [f"{name}={value}" for name, value in {**variables, "PATH": path, "OMP_NUM_THREADS": "1"}.items()]

    def inside(*arguments: str, code: int = 0) -> str:
        command = ["env", "-i", *given, "sh", str(ROOT / ".ci" / "container"), *arguments]
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTERED.format(user=USER), "sh", *command],
            env={"WORK": str(work), "PATH": path}, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        if done.returncode == 77:
            pytest.skip(f"no namespace of mounts can be made here: {done.stderr}")
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    inside("sweep", "quickstart", "--smoke", "--only", "model.norm=bn", "--set", "train.compile=always")
    inside("report", "quickstart-smoke", "--out", "reports")
    assert (work / "reports" / "quickstart-smoke.pdf").read_bytes().startswith(b"%PDF")
    owners = {one.stat().st_uid for one in work.rglob("*")}
    assert owners == {USER} and any((work / ".cache" / "torchinductor").glob("*.zip"))
    os.chown(work, 0, 0)
    shutil.rmtree(work / ".home")
    assert "mount a folder of that user's" in inside("--version", code=2)
