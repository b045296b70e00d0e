"""Sweeps on a Ray cluster whose nodes share no folder: the numbers are those of a sweep without one."""

from __future__ import annotations

import functools
import os
import random
import re
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchkit_models.mlp import mlp
from ray_nodes import Node, RayNodes
from safetensors.torch import save_file
from tiny_study import FACTOR, all_facts, environment, text_of, waiting_command

from benchkit.ledger import read_results
from benchkit.results import StudyResults

pytestmark = pytest.mark.ray

REPEATS = 12
"""With two levels: 24 trials."""


def write(folder: Path, *, epochs: int = 3, repeats: int = REPEATS, **replaced: str) -> Path:
    path = folder / "tiny.toml"
    text = text_of(FACTOR, epochs=epochs, repeats=repeats)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def started(folder: Path, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    own = {**environment(), "RAY_ADDRESS": "", **variables}
    device = (
        () if "--device" in arguments else ("--device", "cpu")
    )  # Ray may not know yet that a node with GPUs is gone
    return subprocess.Popen(
        waiting_command("sweep", folder / "tiny.toml", "--workspace", folder / "runs", *device, *arguments),
        cwd=folder,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def swept(folder: Path, *arguments: object, code: int = 0, **variables: str) -> str:
    """Run a sweep to its end; return what it printed."""
    process = started(folder, *arguments, **variables)
    out, _ = process.communicate(timeout=590)
    assert process.returncode == code, out
    return out


def results(folder: Path) -> StudyResults:
    return read_results(folder / "runs", "tiny")


@functools.cache
def local_facts(epochs: int, repeats: int) -> dict[tuple[str, int], dict[str, object]]:
    """Return what a sweep of this machine's own workers gives."""
    with tempfile.TemporaryDirectory(prefix="bk-local-") as name:
        folder = Path(name)
        write(folder, epochs=epochs, repeats=repeats)
        swept(folder, "--jobs", 2)
        return all_facts(results(folder))


def test_a_sweep_on_two_nodes_is_the_local_sweep_to_the_bit(ray_nodes: RayNodes, tmp_path: Path) -> None:
    write(tmp_path)
    out = swept(tmp_path, "--cluster", ray_nodes.address)
    assert "24 done" in out, out
    assert all_facts(results(tmp_path)) == local_facts(3, REPEATS)
    prepared = [node.folder / "data" / "digits" for node in ray_nodes.nodes if node.name in ("one", "two")]
    assert not any(os.path.samefile(folder, tmp_path) for folder in prepared if folder.exists())


PLUGIN = """
from pathlib import Path
import torch

class Halved(torch.nn.Module):
    def __init__(self, channels: int, device=None, dtype=None) -> None:
        super().__init__()

    def forward(self, x):
        return x / 2

PLUGINS = {"benchkit.norms": {"halved": Halved}}
"""


def drawn(folder: Path) -> Path:
    """Draw a set of images in folders."""
    from PIL import Image

    for label, shade in (("dark", 40), ("bright", 200)):
        (folder / label).mkdir(parents=True)
        for number in range(30):
            Image.new("RGB", (8, 8), (shade, number * 4, number)).save(folder / label / f"{number}.png")
    return folder


def test_what_a_node_lacks_is_sent_to_it_and_plugins_on_request_alone(ray_nodes: RayNodes, tmp_path: Path) -> None:
    if not ray_nodes.hiding:
        pytest.skip("folders cannot be hidden from a process here")
    images, plugin, weights = drawn(tmp_path / "images"), tmp_path / "halved.py", tmp_path / "weights.safetensors"
    plugin.write_text(PLUGIN)
    old = 'name = "digits"\ntrain_size = 60\nval_size = 30\ntest_size = 30'
    data = f'name = "image-folder"\nsource = "{images}"\ntrain_size = 30\nval_size = 10\ntest_size = 10'
    model = 'name = "mlp"\nnorm = "halved"'
    torch.manual_seed(5)
    save_file(dict(mlp(2, (3, 8, 8), torch.nn.Identity, hidden=(8,)).state_dict()), weights)
    write(tmp_path, repeats=1, **{old: data, 'name = "mlp"': f'{model}\nweights = "{weights}"'})
    swept(tmp_path, "--plugin", plugin, "--workspace", tmp_path / "local", "--jobs", 1)
    refused = swept(tmp_path, "--plugin", plugin, "--cluster", ray_nodes.address, code=2)
    assert "can train this study" in refused and "--ship-code sends it" in refused and "one: " in refused
    assert "weights.safetensors: not there" not in refused
    swept(tmp_path, "--plugin", plugin, "--cluster", ray_nodes.address, "--ship-code")
    assert all_facts(results(tmp_path)) == all_facts(read_results(tmp_path / "local", "tiny"))
    used = {record.node for trial in results(tmp_path).trials for record in trial.history}
    for node in (one for one in ray_nodes.nodes if one.name in used):  # the other one may have come too late
        assert next((node.folder / "data").glob("image-folder-*/manifest.json"))
        sent = {path.name for path in (node.folder / "cache" / "sent").glob("*/*")}
        assert sent - {"__pycache__"} == {"halved.py", "weights.safetensors"}


OWN = """
import errno, os, time
from benchkit_models.mlp import mlp

def before(module, inputs):
    if module.training:
        {doing}

def own(num_classes, image_shape, norm, *, hidden: tuple[int, ...] = (8,)):
    model = mlp(num_classes, image_shape, norm, hidden=hidden)
    model.register_forward_pre_hook(before)
    return model

PLUGINS = {{"benchkit.models": {{"own": own}}}}
"""
"""A model that does something before each training step."""

SLOW = "time.sleep(0.03)"
"""What makes three steps an epoch take 0.1 s, whatever else the machine does."""

FRAIL = """
        if os.environ.get("BENCHKIT_NODE", "").startswith("third"):
            open({there!r}, "a").close()
            raise OSError(errno.ENOSPC, "No space left on device")
        end = time.monotonic() + 200
        while len(inputs[0]) > 2 and not os.path.exists({there!r}) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.03)
"""
"""What fails on one node as a full disk does; the others' trials, not the check on two images, wait until it has."""

STAYING = """
        if os.environ.get("BENCHKIT_NODE", "").startswith("third"):
            with open({there!r}, "ab") as steps:
                steps.write(b".")
            while os.path.getsize({there!r}) > 240:
                time.sleep(0.05)
        time.sleep(0.03)
"""
"""What takes no more than the 240 steps of four trials on one node, which so has not trained all before it goes."""

LONG = 20
"""Epochs of a trial of some seconds."""


def write_own(folder: Path, repeats: int, doing: str = SLOW, threads: int = 1) -> tuple[object, ...]:
    """Write a study whose model does something before each step; return the options that it is swept with."""
    (folder / "own.py").write_text(OWN.format(doing=doing))
    batch = "batch_size = 20"
    replaced = {'name = "mlp"': 'name = "own"', batch: f"{batch}\nthreads = {threads}"}
    write(folder, epochs=LONG, repeats=repeats, **replaced)
    return "--plugin", folder / "own.py"


@functools.cache
def slow_facts(repeats: int, threads: int) -> dict[tuple[str, int], dict[str, object]]:
    """Return what a sweep of slow trials by this machine's own workers gives."""
    with tempfile.TemporaryDirectory(prefix="bk-local-") as name:
        folder = Path(name)
        swept(folder, *write_own(folder, repeats, threads=threads), "--jobs", 4)
        return all_facts(results(folder))


class Sweep:
    """A sweep on the cluster under way, with all that it said so far."""

    def __init__(self, folder: Path, *arguments: object, repeats: int = 6, threads: int = 1, doing: str = SLOW) -> None:
        self.folder = folder
        self.arguments = (*write_own(folder, repeats, doing, threads), "--ship-code", *arguments)
        self.expected = slow_facts(repeats, threads)
        self.process = started(folder, *self.arguments)
        self.said = ""

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Read on until so many lines match."""
        assert self.process.stdout is not None
        while times:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
            times -= bool(re.search(pattern, line))

    def ends(self) -> None:
        """Check that all trials ended once, as they do on one machine."""
        out, _ = self.process.communicate(timeout=590)
        self.said += out
        assert self.process.returncode == 0, self.said
        found = results(self.folder)
        assert all_facts(found) == self.expected, self.said
        for trial in found.trials:
            assert [record.epoch for record in trial.history] == list(range(1, len(trial.history) + 1))


@pytest.fixture
def third(ray_nodes: RayNodes) -> Iterator[Node]:
    """A node of two CPUs that need not be there at the end."""
    node = ray_nodes.add(f"third-{secrets.token_hex(2)}", cpus=2)
    yield node
    if node in ray_nodes.nodes:
        ray_nodes.remove(node)


def times(count: int) -> list[Any]:
    """Return what repeats a test: once, and so many times where there is time for it."""
    return [0, *(pytest.param(number, marks=pytest.mark.long) for number in range(1, count))]


@pytest.mark.parametrize("number", times(10))
def test_a_node_goes_and_another_comes(ray_nodes: RayNodes, third: Node, tmp_path: Path, number: int) -> None:
    """Trials of two threads fit these two nodes alone, so that the sweep waits for the one that comes."""
    doing = STAYING.format(there=str(ray_nodes.folder / f"steps-{third.name}"))
    sweep = Sweep(tmp_path, "--cluster", ray_nodes.address, repeats=3, threads=2, doing=doing)
    sweep.wait_for(r"\[\d+/6", times=random.randint(1, 2))
    time.sleep(random.random() * 3)
    ray_nodes.remove(third)
    sweep.wait_for("no seat is left; waiting for another one to come")
    fourth = ray_nodes.add(f"fourth-{secrets.token_hex(2)}", cpus=2, OMP_NUM_THREADS="7")
    sweep.ends()
    ray_nodes.remove(fourth)
    used = {record.node for trial in results(tmp_path).trials for record in trial.history}
    assert used == {third.name, fourth.name}, sweep.said


@pytest.mark.parametrize("number", times(10))
def test_a_node_stands_still_for_a_while(ray_nodes: RayNodes, third: Node, tmp_path: Path, number: int) -> None:
    lease, still = (60, 60) if number else (8, 16)
    sweep = Sweep(tmp_path, "--cluster", ray_nodes.address, "--lease", lease)
    sweep.wait_for(r"\[\d+/12", times=random.randint(1, 4))
    time.sleep(random.random() * 3)
    third.signal(signal.SIGSTOP)
    time.sleep(still)
    third.signal(signal.SIGCONT)
    sweep.ends()


@pytest.mark.parametrize("number", times(10))
def test_the_sweep_is_killed_and_the_same_command_goes_on(ray_nodes: RayNodes, tmp_path: Path, number: int) -> None:
    sweep = Sweep(tmp_path, "--cluster", ray_nodes.address)
    sweep.wait_for(r"\[\d+/12", times=random.randint(1, 4))
    time.sleep(random.random() * 3)
    sweep.process.kill()
    sweep.process.communicate()
    sweep.process = started(tmp_path, *sweep.arguments)
    sweep.ends()


@pytest.mark.parametrize("number", times(10))
def test_a_node_that_fails_everything_is_set_aside(
    ray_nodes: RayNodes, third: Node, tmp_path: Path, number: int
) -> None:
    options = write_own(tmp_path, 6, FRAIL.format(there=str(ray_nodes.folder / f"failed-{third.name}")))
    out = swept(tmp_path, *options, "--cluster", ray_nodes.address, "--ship-code")
    assert len(re.findall(f"set aside: .*{third.name}", out)) == 1, out
    assert all_facts(results(tmp_path)) == slow_facts(6, 1)
