"""What a sweep sends to its nodes: of plugins their sources alone, all in parts, and nothing twice."""

from __future__ import annotations

import errno
import hashlib
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_study import DATA, study_of, text_of

from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.registry.sources import source_hash
from benchkit.study.studyfile import parse_study
from benchkit.sweep import node_side
from benchkit.sweep.node_check import Needs, NodeFacts
from benchkit.sweep.shipping import Cargo, cargo_of, entries_of, needs_of


def distribution(folder: Path) -> None:
    """Lay out an installed package in a repository that ignores much and holds more than its sources."""
    package, about = folder / "halving", folder / "halving-1.0.dist-info"
    for path in (package / "logs", package / "trials", about):
        path.mkdir(parents=True)
    (package / "__init__.py").write_text("from halving.logs.log_norm import Halved\n")
    (package / "logs" / "log_norm.py").write_text("class Halved:\n    def __init__(self, channels): ...\n")
    (package / "logs" / "__init__.py").write_text("")
    (package / "trials" / "images.npy").write_bytes(bytes(10**7))
    (folder / ".gitignore").write_text("log*\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: halving\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[benchkit.norms]\nhalved = halving:Halved\n")


def test_only_sources_of_plugins_are_sent_and_their_hash_is_the_same_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    plan = make_plan(replace_norm("halved"))
    registry = Registry.installed()
    cargo = cargo_of(plan, registry, needs_of(plan, registry, (), ("x",)), DATA, code=True)
    assert sorted(cargo.code) == [
        "halving-1.0.dist-info/METADATA",
        "halving-1.0.dist-info/entry_points.txt",
        "halving/__init__.py",
        "halving/logs/__init__.py",
        "halving/logs/log_norm.py",
    ]
    expected = source_hash(entries_of(plan, registry)["norms/halved"])
    for name, source in cargo.code.items():
        path = tmp_path / "there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    monkeypatch.setattr(sys, "path", [str(tmp_path / "there"), *(p for p in sys.path if p != str(tmp_path / "here"))])
    assert source_hash(Registry.installed().find("norms", "halved")) == expected
    assert cargo_of(plan, registry, needs_of(plan, registry, (), ("x",)), DATA, code=False).code == {}


def replace_norm(name: str):  # type: ignore[no-untyped-def]
    return study_of(overrides=[f"model.norm={name}"])


def test_each_thing_is_sent_once_and_where_it_is_lacking(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"w")
    prepared = tmp_path / "digits"
    prepared.mkdir()
    (prepared / "manifest.json").write_text("{}")
    plan = make_plan(study_of())
    needs = replace(needs_of(plan, Registry.installed(), (), ("ff",)), files={str(weights): "a" * 64})
    cargo = Cargo(data={"ff": prepared}, files=[str(weights)])
    node = NodeFacts(
        python="", versions={}, benchkit="", processor="", cache="/c", data_root="/d", sources=needs.sources
    )
    sent: list[tuple[list[str], str]] = []

    def send(files: Mapping[str, Path | bytes], folder: str) -> None:
        sent.append((sorted(files), folder))

    given: set[str] = set()
    needs = cargo.send(send, needs, replace(node, data=("it is not prepared",)), given)
    assert sent == [(["weights.safetensors"], f"/c/sent/{'a' * 16}"), (["manifest.json"], "/d/digits")]
    assert needs.sent == {str(weights): f"/c/sent/{'a' * 16}/weights.safetensors"}
    assert cargo.send(send, needs, replace(node, data=("other data",)), given) == needs and len(sent) == 2


@pytest.mark.ray
def test_a_file_travels_in_parts_that_any_object_store_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import benchkit.sweep.ray_nodes as rooms

    places: list[tuple[str, int, int]] = []

    class Here(node_side.Node):
        """A node whose calls are made here."""

        def write(self, folder: str, name: str, place: int, data: bytes) -> None:
            places.append((name, place, len(data)))
            super().write(folder, name, place, data)

    node = Here()
    actor = SimpleNamespace(
        **{name: SimpleNamespace(remote=getattr(node, name)) for name in ("begin", "write", "finish")}
    )
    monkeypatch.setattr(rooms, "_result", lambda reference, closed: reference)
    monkeypatch.setattr(node_side, "CHUNK", 1000)
    path, empty, images = tmp_path / "images.npy", tmp_path / "empty", bytes(range(256)) * 17
    path.write_bytes(images)
    empty.write_bytes(b"")
    rooms._send(
        actor, threading.Event(), {"images.npy": path, "empty": empty, "a/b.py": images[:5]}, str(tmp_path / "to")
    )
    assert [place for name, place, _ in places if name == "images.npy"] == [0, 1000, 2000, 3000, 4000]
    assert [length for _, _, length in places] == [1000, 1000, 1000, 1000, 352, 0, 5]
    there = {name: (tmp_path / "to" / name).read_bytes() for name in ("images.npy", "empty", "a/b.py")}
    assert there == {"images.npy": images, "empty": b"", "a/b.py": images[:5]}


MODEL = """
from pathlib import Path

def own(num_classes, image_shape, norm, *, pretrained: bool = False): ...

def fetch(*, pretrained: bool = False):
    return ("hub:own", Path(__file__).with_name("own.safetensors"))

own.fetch = fetch
PLUGINS = {"benchkit.models": {"own": own}}
"""


def test_weights_that_a_model_downloads_are_fetched_once_and_sent_by_their_digest(tmp_path: Path) -> None:
    plugin, weights = tmp_path / "own.py", tmp_path / "own.safetensors"
    plugin.write_text(MODEL)
    weights.write_bytes(b"weights")
    registry = Registry.installed([plugin])

    def of(more: str) -> tuple[Needs, Cargo]:
        text = text_of().replace('name = "mlp"\nhidden = [8]', f'name = "own"\n{more}')
        plan = make_plan(parse_study(text, name="own"))
        needs = needs_of(plan, registry, [plugin], ("ff",))
        return needs, cargo_of(plan, registry, needs, DATA, code=False)

    assert "hub:own" not in of("")[0].files
    needs, cargo = of("pretrained = true")
    assert needs.files["hub:own"] == hashlib.sha256(b"weights").hexdigest()
    sent: list[dict[str, Path | bytes]] = []
    node = NodeFacts(python="", versions={}, benchkit="", processor="", cache="/c", sources=needs.sources, data=("",))
    given: set[str] = set()
    found = cargo.send(lambda files, folder: sent.append(dict(files)), needs, node, given)
    assert sent == [{"own.safetensors": weights}]
    assert found.sent == {"hub:own": f"/c/sent/{needs.files['hub:own'][:16]}/own.safetensors"}


@pytest.mark.ray
def test_a_node_that_cannot_hold_what_it_is_sent_is_set_aside_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import benchkit.sweep.ray_nodes as rooms
    from benchkit.sweep.ray_cluster import Cluster

    def refuse(*given: object) -> None:
        raise OSError(errno.ENOSPC, "1,000 bytes are to be kept where 999 are free", "/data/cifar10")

    monkeypatch.setattr(rooms, "examine", refuse)
    needs = Needs(kind="cpu", threads=1)
    cluster = rooms.RayCluster(cluster=Cluster(address="a:1", owner="me"), needs=needs, cargo=Cargo())
    member = rooms.Member(node="id", name="seven", cpus=4, gpus=0)
    cluster.members["id"] = member
    cluster._examine(member)
    words = (
        "seven is set aside: it cannot be given what it lacks: [Errno 28] 1,000 bytes are to be kept where 999 are free"
    )
    assert cluster.news() == [f"{words}: '/data/cifar10'"] and cluster.seats() == ()


@pytest.mark.ray
@pytest.mark.parametrize("same_hardware", [False, True])
def test_another_model_or_driver_is_told_or_with_the_option_refused(
    monkeypatch: pytest.MonkeyPatch, same_hardware: bool
) -> None:
    import benchkit.sweep.ray_nodes as rooms
    from benchkit.sweep.ray_cluster import Cluster

    first = NodeFacts(python="", versions={}, benchkit="", processor="EPYC", device="H200", driver="580")
    answers = {"first": first, "alike": first, "other": replace(first, device="L40S", driver="570")}
    monkeypatch.setattr(rooms, "examine", lambda node, *given: (answers[node], []))
    cluster = rooms.RayCluster(
        cluster=Cluster(address="a:1", owner="me"),
        needs=Needs(kind="cpu", threads=1),
        cargo=Cargo(),
        same_hardware=same_hardware,
    )
    for name in answers:
        cluster.members[name] = rooms.Member(node=name, name=name, cpus=1, gpus=0)
        cluster._examine(cluster.members[name])
    trains = ["first", "alike"] if same_hardware else ["first", "alike", "other"]
    assert [seat.node for seat in cluster.seats()] == trains
    words = "set aside: L40S, not H200; 570, not 580" if same_hardware else "another machine than first: L40S, not H200"
    assert cluster.news() == [f"other is {words}"]
