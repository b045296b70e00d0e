from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from throwaway_distributions import NORM, write_distribution
from tiny_study import PATIENCE

from benchkit.child import LineChild
from benchkit.errors import PluginError
from benchkit.registry import Registry
from benchkit.registry.description import (
    CACHE,
    Description,
    describe_all,
    describe_in_child,
    from_json,
    glance,
    read_cache,
    to_json,
    write_cache,
)
from benchkit.registry.options import Opaque, Option
from benchkit.registry.registry import Entry


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path and an empty cache; torch counts as not imported, as in the command line."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    yield folder


def entries(*names: str, kind: str = "norms") -> list[Entry]:
    registry = Registry.installed()
    return [registry.find(kind, name) for name in names]


def test_a_plugin_is_described_in_a_child_and_then_from_the_cache(site: Path) -> None:
    source = "from pathlib import Path\nPath(__file__).with_suffix('.log').open('a').write('x')\n" + NORM
    source += "print('noise on stdout')\n"
    write_distribution(site, "alpha", {"norms": {"frn": "told_once:Norm"}}, modules={"told_once.py": source})
    (entry,) = entries("frn")
    for _ in range(2):
        description = describe_all([entry])[0]
        assert (description.status, description.title, description.summary) == (
            "ok",
            "Fixed response",
            "Divides by one.",
        )
        assert (description.reference, description.url) == ("A. Author, 2020", "https://example.org")
        assert description.options == (
            Option(
                name="eps",
                type="float",
                default=1e-5,
                low=1e-8,
                high=1e-2,
                log=True,
                help="`eps` keeps the root from zero.",
            ),
        )
    assert "told_once" not in sys.modules
    assert (site / "told_once.log").read_text() == "x"


def test_a_changed_source_is_described_again(site: Path) -> None:
    write_distribution(site, "alpha", {"norms": {"frn": "changing/x:Norm"}}, modules={})
    facts = site / "alpha-1.0.dist-info" / "entry_points.txt"
    facts.write_text("[benchkit.norms]\nfrn = changing.inner:Norm\n")
    (site / "changing").mkdir()
    (site / "changing" / "__init__.py").write_text("")
    (site / "changing" / "inner.py").write_text(NORM)
    (entry,) = entries("frn")
    assert describe_all([entry])[0].title == "Fixed response"
    (site / "changing" / "inner.py").write_text(NORM.replace("Fixed response", "Another title"))
    assert describe_all([entry])[0].title == "Another title"


def test_broken_plugins_stop_no_other(site: Path) -> None:
    sources = {
        "good_a": NORM,
        "bad_import": "import no_such_module_anywhere\n" + NORM,
        "bad_exit": "import os\nos._exit(3)\n" + NORM,
        "bad_signal": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n" + NORM,
        "bad_card": NORM.replace('"eps": Range', '"epz": Range'),
        "good_b": NORM,
    }
    targets = {name.replace("_", "-"): f"{name}:Norm" for name in sources}
    write_distribution(
        site, "alpha", {"norms": targets}, modules={f"{name}.py": source for name, source in sources.items()}
    )
    described = describe_all(entries(*targets))
    assert [description.status for description in described] == ["ok", "broken", "broken", "broken", "broken", "ok"]
    assert "No module named 'no_such_module_anywhere'" in described[1].reason
    assert "Traceback" in described[1].detail and "bad_import.py" in described[1].detail
    assert "exit status 3" in described[2].reason
    assert "SIGKILL" in described[3].reason
    assert "'epz', which is no option" in described[4].reason
    with pytest.raises(PluginError, match=r"norm 'bad-exit' of alpha 1.0 is broken"):
        described[2].usable()
    assert described[0].usable() is described[0]


def test_a_reason_is_followed_by_no_frame_of_benchkit_or_of_the_import_system(site: Path) -> None:
    raising = "def fails():\n    raise RuntimeError('no licence')\nfails()\n" + NORM
    targets = {
        "no-module": "no_such_detail:Norm",
        "no-name": "detail_fine:Nrom",
        "no-member": "detail_fine:Norm.inner",
        "raises": "detail_raises:Norm",
    }
    write_distribution(site, "alpha", {"norms": targets}, modules={"detail_fine.py": NORM, "detail_raises.py": raising})
    described = dict(zip(targets, describe_all(entries(*targets)), strict=True))
    assert {one.status for one in described.values()} == {"broken"}
    assert [described[name].detail for name in ("no-module", "no-name", "no-member")] == ["", "", ""]
    assert "'detail_fine' has no 'Nrom' (did you mean 'Norm'?)" in described["no-name"].reason
    lines = described["raises"].detail.splitlines()
    files = [line for line in lines if line.startswith("  File ")]
    assert [Path(line.split('"')[1]).name for line in files] == ["detail_raises.py", "detail_raises.py"]
    assert lines[0] == "Traceback (most recent call last):" and lines[-1] == "RuntimeError: no licence"


def test_an_import_that_hangs_is_ended(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"hanging.py": "import time\ntime.sleep(600)\n" + NORM, "fine.py": NORM}
    write_distribution(site, "alpha", {"norms": {"hangs": "hanging:Norm", "fine": "fine:Norm"}}, modules=modules)
    ask = LineChild.ask

    def asked(child: LineChild, request: Any) -> Any:
        child.seconds = 3 if request["name"] == "hangs" else PATIENCE  # the next process has to start first
        return ask(child, request)

    monkeypatch.setattr(LineChild, "ask", asked)
    described = describe_in_child(entries("hangs", "fine"))
    assert [description.status for description in described] == ["broken", "ok"]
    assert described[0].reason == "it did not finish within 3 s"


def test_a_broken_plugin_is_tried_again_when_asked_for(site: Path) -> None:
    modules = {"needs_more.py": "import extra_dependency\n" + NORM}
    write_distribution(site, "alpha", {"norms": {"frn": "needs_more:Norm"}}, modules=modules)
    (entry,) = entries("frn")
    assert describe_all([entry])[0].status == "broken"
    assert [description.status for description in glance([entry])] == ["broken"]
    (site / "extra_dependency.py").write_text("")
    assert describe_all([entry])[0].status == "ok"
    assert [description.status for description in glance([entry])] == ["ok"]


@pytest.mark.parametrize(
    ("target", "source", "status", "reason"),
    [
        ("glance_a:Norm", NORM + "raise RuntimeError('imported')", "unchecked", ""),
        ("glance_b:Norm", "def broken(:\n", "broken", "SyntaxError in"),
        ("glance_c:Norn", NORM, "broken", "'glance_c' has no 'Norn' (did you mean 'Norm'?)"),
        ("glance_d.deep:Norm", NORM, "broken", "there is no module 'glance_d.deep'"),
        ("no_glance:Norm", NORM, "broken", "there is no module 'no_glance'"),
        ("glance_e:Norm", "try:\n    from a import Norm\nexcept ImportError:\n    Norm = None\n", "unchecked", ""),
        ("glance_f:Norm", "from somewhere import *\n", "unchecked", ""),
        ("glance_g:Norm", "def __getattr__(name):\n    return int\n", "unchecked", ""),
        ("glance_h:Norm", "if True:\n    (Other, Norm) = 1, 2\n", "unchecked", ""),
        ("glance_i:Norm.inner", NORM, "unchecked", ""),
    ],
)
def test_a_glance_sees_what_the_source_shows_and_imports_nothing(
    site: Path, target: str, source: str, status: str, reason: str
) -> None:
    module = target.partition(":")[0].partition(".")[0]
    file = {} if module == "no_glance" else {f"{module}.py": source}
    write_distribution(site, "alpha", {"norms": {"frn": target}}, modules=file)
    for _ in range(2):  # the second time from the cache
        (description,) = glance(entries("frn"))
        assert description.status == status
        assert reason in description.reason
    assert module not in sys.modules


def test_a_glance_looks_into_packages_and_finds_studies(site: Path) -> None:
    modules = {
        "glance_box/__init__.py": "raise RuntimeError('imported')",
        "glance_box/inner.py": NORM,
        "glance_box/studies/mine.toml": "",
    }
    targets = {
        "norms": {"frn": "glance_box.inner:Norm"},
        "studies": {"mine": "glance_box.studies", "lost": "glance_box.studies"},
    }
    write_distribution(site, "alpha", targets, modules=modules)
    assert [description.status for description in glance(entries("frn"))] == ["unchecked"]
    mine, lost = glance(entries("mine", "lost", kind="studies"))
    assert (mine.status, lost.status) == ("ok", "broken")
    assert "no file lost.toml" in lost.reason
    assert describe_all(entries("mine", kind="studies"))[0].status == "ok"


def test_bad_names_are_broken_at_a_glance(site: Path) -> None:
    write_distribution(site, "alpha", {"norms": {"Big Name": "a:A"}})
    described = [*glance(entries("Big Name")), *describe_all(entries("Big Name"))]
    assert all(description.status == "broken" and "lower case" in description.reason for description in described)


def test_with_torch_imported_the_plugin_is_imported_here(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    source = NORM + "print('noise')\n"
    write_distribution(site, "alpha", {"norms": {"frn": "told_here:Norm"}}, modules={"told_here.py": source})
    assert describe_all([entries("frn")[0]])[0].status == "ok"
    assert "told_here" in sys.modules
    assert capsys.readouterr().out == ""


def test_a_local_file_is_described_like_any_plugin(site: Path, tmp_path: Path) -> None:
    path = tmp_path / "local_norms.py"
    path.write_text(NORM + 'PLUGINS = {"benchkit.norms": {"mine": Norm}}\n')
    entry = Registry.installed([path]).find("norms", "mine")
    assert [description.status for description in glance([entry])] == ["unchecked"]
    assert describe_all([entry])[0].title == "Fixed response"


ENTRY = Entry(kind="norms", name="frn", value="a:A", distribution="alpha", version="1.0")


def test_json_keeps_everything(tmp_path: Path) -> None:
    options = (
        Option(name="a", type="int"),
        Option(name="b", type="tuple[float, ...]", default=(1.0, math.inf), low=0.0, high=1.0, log=True),
        Option(name="c", type="path | None", default=Path("x/y"), choices=("x/y", None), help="é [red]"),
        Option(name="d", type="any", default=Opaque("<function>")),
        Option(name="e", type="int", default=None),
    )
    description = Description(entry=ENTRY, status="ok", title="T", summary="S", api=1, options=options)
    assert from_json(ENTRY, json.loads(json.dumps(to_json(description)))) == description


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"format": 2}',
        b'{"format": 2, "records": []}',
        b'{"format": 99, "records": {}}',
        b'{"format": 2, "records": {"norms/alpha/frn/a:A": {"stamp": "s", "status": "odd"}}}',
        b'{"format": 2, "records": {"norms/alpha/frn/a:A": {"stamp": "s", "status": "ok"}}}',
    ],
)
def test_a_damaged_cache_is_empty_and_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path))
    CACHE.path.write_bytes(content)
    assert read_cache({ENTRY: "s"}) == {}
    description = Description(entry=ENTRY, status="ok", title="T")
    write_cache([description], {ENTRY: "s"})
    assert read_cache({ENTRY: "s"}) == {ENTRY: description}
    assert read_cache({ENTRY: "other"}) == {}
    assert [path.name for path in tmp_path.iterdir()] == [CACHE.path.name]


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "file" / "folder"))
    write_cache([Description(entry=ENTRY, status="ok")], {ENTRY: "s"})
    assert read_cache({ENTRY: "s"}) == {}


def test_the_cache_follows_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCHKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert CACHE.path.parent == tmp_path / "benchkit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert CACHE.path.parent == Path.home() / ".cache" / "benchkit"
