"""What a node must have in common with the sweep before it trains, looked at on the node. Imports no Ray.

`main` runs on the node, in a process of its own: it reads a `Needs` from its standard input and answers with an
`NodeFacts`. `differences` holds one against the other.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchkit.child import answer_stream
from benchkit.data.dataset import load_data
from benchkit.errors import BenchkitError, DataError, first_line
from benchkit.preparation import data_root
from benchkit.registry import Registry
from benchkit.registry.sources import source_hash, sources_digest
from benchkit.storage import SENT, cache_folder, decode, encode, file_digest
from benchkit.study.settings import PluginRef
from benchkit.sweep.devices import worker_environment
from benchkit.sweep.provenance import versions
from benchkit.sweep.starts import memory_here
from benchkit.train.processor import processor
from benchkit.train.weights_file import weights_file

CODE = "from benchkit.sweep.node_check import main; main()"
"""What Python runs on the node."""

EQUAL = ("benchkit", "torch", "torchvision", "timm", "numpy")
"""Distributions of which the versions must be equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A data set of the study and the fingerprint of what was prepared of it."""

    ref: PluginRef
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a node is asked for.

    `kind` is that of the device (cpu, cuda), `threads` those of a trial, of which a node trains `at_once`. `precision`
    is auto where it is not decided yet. `sources` has the hashes of the plugins by kind/name, `files` the sha256 of the
    files that trials read, by the sweep's path; of those that were sent, `sent` has the node's path. `code` is the
    node's folder of plugins that were sent.
    """

    kind: str
    threads: int
    at_once: int = 1
    precision: str = "float32"
    data: tuple[DataSet, ...] = ()
    study_path: Path | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    allow_shadow: bool = False
    sent: Mapping[str, str] = field(default_factory=dict)
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node is and has; what it could not do is told in words, which are empty where it could.

    `data` has words for each data set, `sources` and `files` what is there ("" where nothing is). `environment` is that
    of the node's workers, `memory_group` the control group that limits their memory ("" without a limit).
    """

    python: str
    versions: Mapping[str, str]
    benchkit: str
    processor: str
    device: str = ""
    driver: str = ""
    bf16: bool = False
    step: str = ""
    plugins: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    data_root: str = ""
    cache: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_group: str = ""

    @property
    def hardware(self) -> str:
        """Return the model of the device: of a CPU its processor's name."""
        return self.device or self.processor


def main() -> None:
    """Answer on standard output; whatever else is printed goes to standard error."""
    out = answer_stream()
    needs = decode(Needs, json.load(sys.stdin))
    if needs.code:
        sys.path.insert(0, needs.code)
    with out:
        json.dump(encode(answer(needs)), out)


def here() -> NodeFacts:
    """Return what this machine has that nodes are held to."""
    return NodeFacts(
        python=".".join(platform.python_version_tuple()[:2]),
        versions=versions(EQUAL),
        benchkit=sources_digest("benchkit"),
        processor=processor(),
    )


def answer(needs: Needs) -> NodeFacts:
    """Return what a node has of what is needed; data sets are prepared where they are not yet."""
    given = replace(
        here(),
        data_root=str(data_root()),
        memory_group=memory_here(needs.at_once).group,
        cache=str(cache_folder()),
        files={path: _digest(needs.sent.get(path, path)) for path in needs.files},
        environment={**worker_environment(needs.threads, needs.at_once), SENT: json.dumps(dict(needs.sent))},
    )
    device = _device(needs)
    files = [Path(needs.sent.get(path, path)) for path in needs.plugins]
    try:
        registry = Registry.installed(files, allow_shadow=needs.allow_shadow)
    except BenchkitError as error:
        return replace(given, plugins=str(error), data=("",) * len(needs.data), **device)
    sources = {name: _source(registry, name) for name in needs.sources}
    data = tuple(
        "" if sources != dict(needs.sources) else _data_problem(registry, one, needs.study_path) for one in needs.data
    )
    return replace(given, sources=sources, data=data, **device)


def _digest(path: str) -> str:
    try:
        file = weights_file(path)
    except DataError:
        return ""  # the distribution that ships it is not installed here
    return file_digest(file) if file.is_file() else ""


def _source(registry: Registry, name: str) -> str:
    kind, _, plugin = name.partition("/")
    try:
        return source_hash(registry.resolve(kind, plugin)[0])
    except BenchkitError:
        return ""


def _data_problem(registry: Registry, wanted: DataSet, study_path: Path | None) -> str:
    """Return why a data set is not there as it should be, in words; nothing where it is."""
    try:
        found = load_data(registry, wanted.ref, data_root(), study_path).fingerprint
    except BenchkitError as error:
        return error.what
    except Exception as error:  # noqa: BLE001 - plugins raise whatever they like
        return f"{type(error).__name__}: {first_line(error)}"
    return "" if found == wanted.fingerprint else f"other data: fingerprint {found[:12]}, not {wanted.fingerprint[:12]}"


def _device(needs: Needs) -> dict[str, Any]:
    """Return what the device is, and how one tiny step on it failed, by the fields of an answer."""
    try:
        import torch

        from benchkit.sweep.provenance import device_name, driver
        from benchkit.train.device import has_bf16, resolve_device

        torch.set_num_threads(needs.threads)
        device = torch.device(resolve_device(needs.kind))
        precise = has_bf16(device)
        told: dict[str, Any] = {"bf16": precise}
        if needs.kind != "cpu":
            told |= {"device": device_name(str(device)), "driver": driver()}
        wanted = needs.precision if needs.precision != "auto" else "bf16" if precise else "float32"
        _tiny_step(device, wanted)
    except Exception as error:  # noqa: BLE001 - drivers and broken installations raise whatever they like
        return {"step": f"one step on {needs.kind} fails: {type(error).__name__}: {first_line(error)}"}
    return told


def _tiny_step(device: object, precise: str) -> None:
    """Train one step of a tiny network on a device."""
    import torch

    from benchkit.train.step import precision

    assert isinstance(device, torch.device)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 2)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with precision(precise, device).autocast:
        loss = network(torch.ones(2, 3, 8, 8, device=device)).float().square().mean()
    loss.backward()
    optimizer.step()
    if not torch.isfinite(loss.detach()).item():
        raise RuntimeError("its loss is not finite")


def differences(needs: Needs, own: NodeFacts, node: NodeFacts) -> list[str]:
    """Return what keeps a node from training as the sweep does, a line each."""
    faults = [f"Python {node.python}, not {own.python}"] if node.python != own.python else []
    for name in EQUAL:
        theirs, ours = node.versions.get(name, "nowhere"), own.versions.get(name, "nowhere")
        if theirs != ours:
            faults.append(f"{name} {theirs}, not {ours}")
    if node.benchkit != own.benchkit and node.versions.get("benchkit") == own.versions.get("benchkit"):
        faults.append(f"other sources of benchkit: {node.benchkit}, not {own.benchkit}")
    if node.step:
        faults.append(node.step)
    elif needs.precision == "bf16" and not node.bf16:
        faults.append(f"no bf16 on {node.hardware}")
    if node.plugins:
        faults.append(node.plugins.partition("\n")[0])
    for path in unlike(needs.files, node.files):
        hint = "; --ship-code sends it" if path in needs.plugins else ""
        faults.append(f"{path}: {_file_words(node.files.get(path, ''))}{hint}")
    if not node.plugins:
        words = "other sources of {}, or none; --ship-code sends them"
        faults += [words.format(name.replace("/", " ", 1)) for name in unlike(needs.sources, node.sources)]
    return [*faults, *(f"{one.ref.name}: {words}" for one, words in zip(needs.data, node.data, strict=False) if words)]


def _file_words(digest: str) -> str:
    return f"another file, sha256 {digest[:12]}" if digest else "not there"


def unlike(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the names whose digests differ from what is wanted."""
    return [name for name, digest in wanted.items() if found.get(name, "") != digest]


def told(first: NodeFacts, node: NodeFacts) -> Sequence[str]:
    """Return what differs in a node's hardware from another node's, which changes speed and perhaps last digits."""
    words = [f"{node.hardware}, not {first.hardware}"] if node.hardware != first.hardware else []
    return [*words, *([f"{node.driver}, not {first.driver}"] if node.driver != first.driver else [])]
