"""Which Ray cluster a sweep joins, and a cluster of its own that ends with it."""

from __future__ import annotations

import getpass
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ray_nodes import RayNodes
from test_ray_sweep import started, swept, write
from tiny_study import PATIENCE, command, environment

from benchkit.errors import TrainingError

pytestmark = pytest.mark.ray

MINE, THEIRS = "10.0.0.1:6379", "10.0.0.2:6379"


def choose(asked: str, here: dict[str, str], *, current: str = "", **environment: str) -> str:
    from benchkit.sweep.ray_cluster import chosen

    return chosen(asked, here, environment, current, "me").address


@pytest.mark.parametrize(
    ("here", "current", "named", "expected"),
    [
        ({MINE: "me"}, "", "", MINE),
        ({THEIRS: "you", MINE: "me"}, "", "", MINE),
        ({MINE: "me", "10.0.0.3:1": "me"}, "10.0.0.3:1", "", "10.0.0.3:1"),
        ({MINE: "me", "10.0.0.3:1": "me"}, "10.0.0.9:1", "10.0.0.3:1", "10.0.0.3:1"),
    ],
)
def test_auto_is_the_named_cluster_else_the_last_else_the_only_one(
    here: dict[str, str], current: str, named: str, expected: str
) -> None:
    assert choose("auto", here, current=current, RAY_ADDRESS=named) == expected


@pytest.mark.parametrize(
    ("asked", "here", "named", "words"),
    [
        ("auto", {}, "", "no Ray cluster runs on this machine"),
        ("auto", {THEIRS: "you"}, "", "is of the user you"),
        ("auto", {THEIRS: "you", MINE: "me"}, THEIRS, "is of the user you"),
        ("auto", {MINE: "me", "10.0.0.3:1": "me"}, "", "several Ray clusters run here"),
        ("auto", {MINE: "me"}, "ray://head:10001", "not through Ray Client"),
        ("ray://head:10001", {}, "", "start it there: ssh head benchkit sweep STUDY --cluster auto"),
        (THEIRS, {MINE: "me"}, "", f"ray start --address {THEIRS} --num-cpus 0"),
    ],
)
def test_other_clusters_are_refused_in_one_sentence(asked: str, here: dict[str, str], named: str, words: str) -> None:
    with pytest.raises(TrainingError) as refused:
        choose(asked, here, RAY_ADDRESS=named)
    assert words in str(refused.value)


def test_another_users_cluster_is_joined_by_its_address() -> None:
    assert choose(THEIRS, {THEIRS: "you"}) == THEIRS


def test_auto_says_which_cluster_whose_and_how_many_nodes(ray_nodes: RayNodes, tmp_path: Path) -> None:
    write(tmp_path, repeats=2)
    out = swept(tmp_path, "--cluster", "auto", RAY_ADDRESS=ray_nodes.address)
    said = re.search(
        rf"on the Ray cluster at {re.escape(ray_nodes.address)} \(of {getpass.getuser()}\), (\d+) nodes", out
    )
    assert said and int(said[1]) >= 3, out  # a node that was ended a moment ago may count still


@pytest.mark.parametrize("order", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_a_cluster_of_its_own_ends_with_the_sweep(tmp_path: Path, order: signal.Signals) -> None:
    """Ray's agents notice within two minutes that all else was killed."""
    write(tmp_path, epochs=2000, repeats=2)
    home = tmp_path / "home"
    home.mkdir()
    sweep = started(tmp_path, "--cluster", "local", HOME=str(home))
    assert sweep.stdout is not None
    said = ""
    while "epoch 1" not in said:
        line = sweep.stdout.readline()
        said += line
        assert line, said
    members = psutil.Process(sweep.pid).children(recursive=True)
    seen = []
    for one in members:  # among them are those that only start others, and may have ended
        with suppress(psutil.NoSuchProcess):
            seen.append((one.name(), one.cmdline(), one.environ()))
    assert {"raylet", "gcs_server"} <= {name for name, _, _ in seen}
    assert {variables["RAY_USAGE_STATS_ENABLED"] for name, _, variables in seen if name == "raylet"} == {"0"}
    temporary = {Path(path) for _, words, _ in seen for path in re.findall(r"/tmp/bk-[^/\s]+", " ".join(words))}
    assert temporary
    sweep.send_signal(order)
    said, _ = sweep.communicate()
    assert sweep.returncode == (143 if order == signal.SIGTERM else -9), said
    assert not (home / ".ray").exists()
    _, alive = psutil.wait_procs(members, timeout=180)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
    left = [folder for folder in temporary if folder.exists()]
    assert not left or order == signal.SIGKILL
    for folder in left:
        shutil.rmtree(folder)


def test_a_sweep_that_is_told_to_stop_while_its_cluster_starts_says_so(tmp_path: Path) -> None:
    """Ray sets its own answers meanwhile, by which the process would end with another status and nothing said."""
    write(tmp_path, epochs=2000, repeats=2)
    sweep = started(tmp_path, "--cluster", "local")
    end = time.monotonic() + PATIENCE
    members: dict[str, psutil.Process] = {}
    while "gcs_server" not in members:
        assert sweep.poll() is None and time.monotonic() < end
        time.sleep(0.05)
        for one in psutil.Process(sweep.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                members[one.name()] = one
    sweep.terminate()
    said, _ = sweep.communicate()
    assert (sweep.returncode, "stopped by SIGTERM; nothing is lost" in said) == (143, True), said
    _, alive = psutil.wait_procs(list(members.values()), timeout=180)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_options_that_need_a_cluster_say_so(tmp_path: Path) -> None:
    write(tmp_path, repeats=2)
    out = swept(tmp_path, "--ship-code", code=2)
    assert "--ship-code has no effect without --cluster" in out
    out = swept(tmp_path, "--cluster", "auto", "--device", "cuda:0", code=2)
    assert "on a cluster it is one of auto, cpu, cuda" in out


def test_ray_is_named_where_it_is_absent(tmp_path: Path) -> None:
    write(tmp_path, repeats=2)
    script = f"""
import sys
sys.modules["ray"] = None
sys.argv = {["benchkit", *command("sweep", tmp_path / "tiny.toml", "--cluster", "auto")[3:]]!r}
from benchkit.cli import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "pip install 'benchkit[ray]'" in done.stderr, done.stderr
