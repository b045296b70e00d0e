"""Sweeps on a Ray cluster whose nodes share no folder: the numbers are those of a sweep without one."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from ray_nodes import RayNodes
from tiny_study import FACTOR, all_facts, command, environment, text_of

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
    return subprocess.Popen(
        command("sweep", folder / "tiny.toml", "--workspace", folder / "runs", *arguments),
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
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code, out
    return out


def results(folder: Path) -> StudyResults:
    return read_results(folder / "runs", "tiny")


@functools.cache
def local_facts(epochs: int, repeats: int) -> dict[tuple[str, int], dict[str, object]]:
    """Return what a sweep of this machine's own workers gives."""
    folder = Path(tempfile.mkdtemp(prefix="bk-local-"))
    write(folder, epochs=epochs, repeats=repeats)
    swept(folder, "--jobs", 2)
    return all_facts(results(folder))


def test_a_sweep_on_two_nodes_is_the_local_sweep_to_the_bit(ray_nodes: RayNodes, tmp_path: Path) -> None:
    write(tmp_path)
    out = swept(tmp_path, "--cluster", ray_nodes.address)
    assert "24 done" in out and "3 nodes" in out, out
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
    images, plugin, first = drawn(tmp_path / "images"), tmp_path / "halved.py", tmp_path / "first"
    plugin.write_text(PLUGIN)
    old = 'name = "digits"\ntrain_size = 60\nval_size = 30\ntest_size = 30'
    data = f'name = "image-folder"\nsource = "{images}"\ntrain_size = 30\nval_size = 10\ntest_size = 10'
    model = 'name = "mlp"\nnorm = "halved"'
    write(tmp_path, repeats=1, **{old: data, 'name = "mlp"': model})
    swept(tmp_path, "--plugin", plugin, "--workspace", first)
    weights = next(first.glob("**/weights.safetensors"))
    write(tmp_path, repeats=1, **{old: data, 'name = "mlp"': f'{model}\nweights = "{weights}"'})
    swept(tmp_path, "--plugin", plugin, "--workspace", tmp_path / "local")
    refused = swept(tmp_path, "--plugin", plugin, "--cluster", ray_nodes.address, code=2)
    assert "can train this study" in refused and "--ship-code sends it" in refused and "one: " in refused
    assert "weights.safetensors: not there" not in refused
    swept(tmp_path, "--plugin", plugin, "--cluster", ray_nodes.address, "--ship-code")
    assert all_facts(results(tmp_path)) == all_facts(read_results(tmp_path / "local", "tiny"))
    for node in (one for one in ray_nodes.nodes if one.name in ("one", "two")):
        assert next((node.folder / "data").glob("image-folder-*/manifest.json"))
        assert sorted(path.name for path in (node.folder / "cache" / "sent").glob("*/*")) == [
            "halved.py",
            "weights.safetensors",
        ]
