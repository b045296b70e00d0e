"""What a node is held to before it trains: each difference is named, and what only changes speed is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import study_of

from benchkit.storage import decode, encode
from benchkit.study.settings import PluginRef
from benchkit.sweep import node_check
from benchkit.sweep.clustered import QUIET, check_cluster
from benchkit.sweep.node_check import DataSet, Needs, NodeFacts, differences, told
from benchkit.sweep.orchestration import Request

VERSIONS = {"benchkit": "1", "torch": "2", "torchvision": "3", "timm": "4", "numpy": "5"}
OWN = NodeFacts(python="3.11", versions=VERSIONS, benchkit="abc", processor="EPYC", bf16=True)
NEEDS = Needs(
    kind="cpu",
    threads=1,
    precision="bf16",
    sources={"norms/frn": "aa"},
    files={"/here/frn.py": "bb"},
    plugins=("/here/frn.py",),
    data=(DataSet(ref=PluginRef(name="digits"), fingerprint="cc"),),
)
NODE = replace(OWN, sources=NEEDS.sources, files=NEEDS.files, data=("",))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        *(({"versions": {**VERSIONS, name: "9"}}, f"{name} 9, not {VERSIONS[name]}") for name in VERSIONS),
        ({"versions": {}}, "timm nowhere, not 4"),
        ({"python": "3.12"}, "Python 3.12, not 3.11"),
        ({"benchkit": "abd"}, "other sources of benchkit: abd, not abc"),
        ({"bf16": False}, "no bf16 on EPYC"),
        ({"step": "one step on cpu fails: RuntimeError: no"}, "one step on cpu fails: RuntimeError: no"),
        ({"files": {}}, "/here/frn.py: not there; --ship-code sends it"),
        ({"files": {"/here/frn.py": "bc"}}, "/here/frn.py: another file, sha256 bc; --ship-code sends it"),
        ({"sources": {"norms/frn": ""}}, "other sources of norms frn, or none; --ship-code sends them"),
        ({"data": ("other data: fingerprint cd, not cc",)}, "digits: other data: fingerprint cd, not cc"),
    ],
)
def test_each_difference_is_named(changed: dict[str, Any], words: str) -> None:
    assert differences(NEEDS, OWN, NODE) == []
    assert words in differences(NEEDS, OWN, replace(NODE, **changed))


def test_another_model_of_device_or_driver_is_told_not_refused() -> None:
    gpu = replace(NODE, device="H200", driver="580")
    other = replace(gpu, device="L40S", driver="570")
    assert differences(replace(NEEDS, kind="cuda"), OWN, other) == []
    assert told(gpu, other) == ["L40S, not H200", "570, not 580"]
    assert told(gpu, gpu) == []


def asked(needs: Needs, **variables: str) -> NodeFacts:
    """Ask a process of its own, as a node does."""
    done = subprocess.run(
        [sys.executable, "-c", node_check.CODE],
        input=json.dumps(encode(needs)),
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return decode(NodeFacts, json.loads(done.stdout))


def test_a_node_answers_for_itself(tmp_path: Path) -> None:
    """A broken installation of PyTorch is a difference with its words; prepared data are the node's own."""
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcudart.so.13: no such file')\n")
    digits = DataSet(ref=PluginRef(name="digits"), fingerprint="0" * 64)
    needs = Needs(kind="cpu", threads=1, data=(digits,), sources={"datasets/digits": "x"})
    answer = asked(
        needs, PYTHONPATH=str(broken.parent), BENCHKIT_DATA=str(tmp_path / "data"), BENCHKIT_CACHE=str(tmp_path / "c")
    )
    assert answer.step == "one step on cpu fails: ImportError: libcudart.so.13: no such file"
    assert (answer.data_root, answer.cache) == (str(tmp_path / "data"), str(tmp_path / "c"))
    assert answer.environment["OMP_NUM_THREADS"] == "1"
    fine = asked(replace(needs, sources={}), BENCHKIT_DATA=str(tmp_path / "data"))
    assert fine.step == "" and fine.data[0].startswith("other data: fingerprint ")
    gpu = asked(replace(needs, kind="cuda"), CUDA_VISIBLE_DEVICES="")
    assert gpu.step.startswith("one step on cuda fails: TrainingError: ")


def test_ray_is_imported_with_its_reports_to_its_makers_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text("import os\nSEEN = os.environ.get('RAY_USAGE_STATS_ENABLED')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for name in QUIET:
        monkeypatch.setenv(name, "1")  # and as it was after the test
    check_cluster(Request(study=study_of(), workspace=tmp_path, data_root=tmp_path, cluster="local"))
    assert sys.modules.pop("ray").SEEN == "0"
