"""The job scripts that `benchkit templates copy` writes: whole, sound, and true to what a sweep does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchkit.cli import CODE, LATEST, main
from benchkit.report.files.html import template_folder

MACHINES = template_folder() / "machines"
SCRIPTS = sorted((MACHINES / "slurm").glob("*.sh"))


def manifest(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((MACHINES / "kubernetes" / name).read_text())
    return document


def container_of(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("kind", ["slurm", "kubernetes", "container"])
def test_the_scripts_of_a_kind_are_copied_and_nothing_is_overwritten(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["templates", "copy", kind, str(tmp_path / "jobs")]) == 0
    written = {path.name: path.read_text() for path in (tmp_path / "jobs").iterdir()}
    assert written == {path.name: path.read_text() for path in (MACHINES / kind).iterdir()} and written
    (tmp_path / "jobs" / min(written)).write_text("mine")
    assert main(["templates", "copy", kind, str(tmp_path / "jobs")]) == 2
    assert "there is a file of that name already" in capsys.readouterr().err
    assert (tmp_path / "jobs" / min(written)).read_text() == "mine"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_for_slurm_come_back_and_let_signals_through(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    asked = set(re.findall(r"^#SBATCH --([a-z-]+)", text, flags=re.MULTILINE))
    assert {"requeue", "open-mode", "time", "cpus-per-task"} <= asked
    assert (
        re.search(r"^exec benchkit sweep", text, flags=re.MULTILINE)
        or "trap 'kill -TERM \"$sweep\"' TERM USR1 USR2" in text
    )
    assert "--requeue" in text.partition("benchkit sweep")[2] or "scontrol requeue" in text
    if "srun" in text:
        assert '--cpus-per-task="$SLURM_CPUS_PER_TASK"' in text, "srun of 22.05 to 23.02 forgets it"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_options_of_their_sweeps_exist(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--help"]) == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    (line,) = [
        line for line in script.read_text().splitlines() if "benchkit sweep" in line and not line.startswith("#")
    ]
    options = {word for word in shlex.split(line.partition("benchkit sweep")[2]) if word.startswith("--")}
    assert options and options <= known


def test_an_eviction_of_a_kubernetes_job_is_no_failure() -> None:
    """Rules are tried in order, and the first one that fits decides; `Ignore` makes another pod and counts nothing."""
    spec = manifest("job.yaml")["spec"]
    evicted, unfinished, hopeless = spec["podFailurePolicy"]["rules"]
    assert evicted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    codes = {"containerName": "sweep", "operator": "In"}
    assert unfinished == {"action": "Ignore", "onExitCodes": {**codes, "values": [CODE]}}
    assert hopeless == {"action": "FailJob", "onExitCodes": {**codes, "values": [1, 2]}}
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "a policy for failures is allowed with this alone"


def test_a_pods_sweep_is_its_first_process_and_has_the_time_to_save() -> None:
    pod = manifest("job.yaml")["spec"]["template"]
    container = container_of(pod)
    assert container["name"] == "sweep" and container["command"][:2] == ["benchkit", "sweep"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > LATEST
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", (MACHINES / "container" / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert json.loads(entry) == ["benchkit-in-container"], "the exec form is a list in JSON; any other starts a shell"
    script = MACHINES.parents[1] / ".ci" / "container"
    assert script.read_text(encoding="utf-8").endswith('exec benchkit "$@"\n'), "the shell makes way for benchkit"


def test_the_head_of_a_ray_cluster_trains_nothing() -> None:
    spec = manifest("kuberay.yaml")["spec"]
    head, (workers,) = spec["rayClusterSpec"]["headGroupSpec"], spec["rayClusterSpec"]["workerGroupSpecs"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    assert spec["entrypoint"].startswith("benchkit sweep ") and spec["entrypoint"].endswith(" --cluster auto")
    for group in (head, workers):
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container_of(group["template"])["env"]
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > LATEST
    assert "volumes" not in workers["template"]["spec"], "the workspace is the head's alone"
