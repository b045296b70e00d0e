"""`benchkit doctor`: machines in every state, and child processes that crash, hang or never start."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchkit.cli import main
from benchkit.doctor import engine, examine, software
from benchkit.doctor.diagnosis import Answer, Diagnosis, ask, scaled
from benchkit.doctor.engine import findings_of
from benchkit.doctor.software import place_finding
from benchkit.registry import Registry
from benchkit.registry.registry import Entry
from benchkit.sweep.devices import preloaded_allocator, preloading

CPU: dict[str, Any] = {
    "torch": "2.15.0", "cuda": "13.2", "compiler": "c++", "lacking": "", "device": "cpu", "bf16": True, "fp16": False,
    "energy": False, "memory": 0, "free": 0,
    "name": "A processor, 2 cores", "threads": 2, "copy_rate": 2e10, "float32_rate": 1e11, "bf16_rate": 3e11,
}  # fmt: skip


def states(findings: list[Diagnosis]) -> dict[str, str]:
    return {finding.name: finding.state for finding in findings}


def told(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**CPU, **changes}.items() if value is not None}


def test_a_sound_processor_is_good_in_all() -> None:
    findings = findings_of(Answer(values=CPU), driver=False)
    assert set(states(findings).values()) == {"good"}
    rate = next(finding for finding in findings if finding.name == "matrix rate")
    assert rate.value == "float32 100 GFLOP/s, bf16 300 GFLOP/s on 2 threads"
    assert rate.numbers == {"float32": 1e11, "bf16": 3e11}


@pytest.mark.parametrize(
    ("changes", "driver", "name", "state", "word"),
    [
        ({}, True, "device", "bad", "a GPU's driver is loaded"),
        ({"bf16": False}, False, "precision", "note", "float32"),
        ({"bf16_rate": 1.1e11}, False, "matrix rate", "note", "bf16 110 GFLOP/s"),
        ({"compiler": "", "lacking": "a C++ compiler"}, False, "compile support", "note", "no compiler"),
        (
            {"device": "cuda:0", "memory": 139 * 2**30, "free": 2**35},
            True,
            "device",
            "good",
            "139 GiB memory, 32.0 GiB of it free",
        ),
        ({"device": "cuda:0", "memory": 2**34, "energy": True}, True, "energy", "good", "trials record it"),
        ({"device": "cuda:0", "memory": 2**34}, True, "energy", "note", "not told"),
    ],
)
def test_what_is_told_of_a_machine(changes: dict[str, Any], driver: bool, name: str, state: str, word: str) -> None:
    findings = {finding.name: finding for finding in findings_of(Answer(values=told(**changes)), driver=driver)}
    assert findings[name].state == state and word in findings[name].value
    assert (findings[name].state == "good") == (findings[name].advice == "")


def test_whether_processes_share_a_gpu_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sharing() -> Diagnosis:
        found = findings_of(Answer(values=told(device="cuda:0", memory=2**34)), driver=True)
        return next(one for one in found if one.name == "trials at once")

    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert sharing().state == "note" and "by turns" in sharing().value
    (tmp_path / "control").touch()
    assert sharing().state == "good" and "MPS" in sharing().value


def test_a_crash_costs_only_what_comes_after_it() -> None:
    nothing = findings_of(Answer(problem="No module named 'torch'"), driver=False)
    assert states(nothing) == {"PyTorch": "bad"} and "No module named" in nothing[0].value
    no_device = findings_of(Answer(values={"torch": "2", "cuda": "", "compiler": ""}, problem="no driver"), driver=True)
    assert states(no_device) == {"PyTorch": "good", "device": "bad"}
    values = told(bf16_rate=None)
    broken = findings_of(Answer(values=values, problem="the process was ended by signal 4"), driver=False)
    assert states(broken)["matrix rate"] == "bad"
    assert "float32 100 GFLOP/s; the measurement broke off: the process was ended by signal 4" in str(broken)


def test_a_child_that_crashes_hangs_or_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    first = 'import os, sys, time; print("{\\"a\\": 1}", flush=True); '
    crashed = ask(["-c", first + "os.kill(os.getpid(), 9)"], 30)
    assert crashed == Answer(values={"a": 1}, problem="it ended the process by signal SIGKILL")
    raised = ask(["-c", first + "raise ValueError('no luck')"], 30)
    assert raised == Answer(values={"a": 1}, problem="ValueError: no luck")
    hanging = ask(["-c", first + "time.sleep(60)"], 1.5)
    assert hanging.problem == "no answer within 1.5 s"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "No such file" in ask(["-c", ""], 5).problem


@pytest.mark.slow
def test_the_measuring_process_tells_this_machine() -> None:
    told_here = ask(["-m", "benchkit.doctor.measuring", "cpu"], 120)
    assert told_here.problem == "" and told_here.values.keys() == CPU.keys()
    assert min(told_here.values[f"{name}_rate"] for name in ("copy", "float32", "bf16")) > 1e6
    unknown = ask(["-m", "benchkit.doctor.measuring", "cuda:99"], 120)
    assert unknown.problem.startswith("--device cuda:99: there is no such device here")


@pytest.mark.parametrize(("free", "state"), [(2**28, "bad"), (2 * 2**30, "note"), (2**36, "good")])
def test_room_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(software.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(software, "SLOW_SYNC", 60.0)
    finding = place_finding("workspace", tmp_path / "not" / "there", "--workspace")
    assert finding.state == state and finding.numbers["free"] == free
    assert list(tmp_path.iterdir()) == []


def test_a_slow_or_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))
    monkeypatch.setattr(software, "SLOW_SYNC", 0.0)
    assert "local disk" in place_finding("workspace", tmp_path, "-w").advice
    file = tmp_path / "file"
    file.write_text("")
    finding = place_finding("workspace", file / "inside", "--workspace")
    assert finding.state == "bad" and "Not a directory" in finding.value and "--workspace" in finding.advice


def test_allocators_are_found_best_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCHKIT_MALLOC", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert preloaded_allocator([tmp_path]) is None
    (tmp_path / "libjemalloc.so.2").touch()
    assert preloaded_allocator([tmp_path]) == tmp_path / "libjemalloc.so.2"
    (tmp_path / "libtcmalloc.so.4").touch()
    assert preloaded_allocator([tmp_path]) == tmp_path / "libtcmalloc.so.4"
    (tmp_path / "libtcmalloc_minimal.so.4").touch()
    assert preloaded_allocator([tmp_path]) == tmp_path / "libtcmalloc_minimal.so.4"
    monkeypatch.setenv("BENCHKIT_MALLOC", "system")
    assert preloaded_allocator([tmp_path]) is None


def test_jemalloc_is_told_to_keep_freed_memory() -> None:
    assert preloading(Path("/lib/libtcmalloc_minimal.so.4")) == {"LD_PRELOAD": "/lib/libtcmalloc_minimal.so.4"}
    told = preloading(Path("/lib/libjemalloc.so.2"))
    assert told["LD_PRELOAD"] == "/lib/libjemalloc.so.2" and "dirty_decay_ms:-1" in told["MALLOC_CONF"]
    assert preloading(None) == {}


def test_broken_and_claimed_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(distribution: str, value: str, problem: str = "") -> Entry:
        return Entry(kind="norms", name="mine", value=value, distribution=distribution, version="1", problem=problem)

    plugins = (entry("a", "a:Norm", problem="no module named 'a'"), entry("b", "b:Norm", problem="also broken"))
    monkeypatch.setattr(Registry, "installed", classmethod(lambda cls: cls(plugins)))
    findings = software.plugins_findings()
    assert states(findings) == {"plugins": "good", "plugin mine": "bad", "plugin names": "note"}
    assert any("no module named 'a'" in finding.value for finding in findings)


def fake(monkeypatch: pytest.MonkeyPatch, engine_told: Answer) -> None:
    monkeypatch.setattr(engine, "ask", lambda *_: engine_told)
    monkeypatch.setattr(software, "ask", lambda *_: Answer(values={"weasyprint": "70.0", "pages": 1}))
    monkeypatch.setattr(Registry, "installed", classmethod(lambda cls: cls(())))
    monkeypatch.setattr(engine, "CARDS", Path("/nowhere"))
    monkeypatch.setattr(software.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))


def test_the_command_tells_and_exits_with_0(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, Answer(values=CPU))
    assert main(["doctor", "--workspace", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "good  PDF: WeasyPrint 70.0 and Pango work" in shown and shown.endswith("benchkit can work here\n")


def test_a_bad_machine_exits_with_1_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, Answer(problem="libcudart.so: \x1b[31m no such file"))
    assert main(["doctor", "--workspace", str(tmp_path)]) == 1
    assert "1 of 7 findings is bad" in capsys.readouterr().out

    def breaks() -> Callable[[], None]:
        raise OSError("no /proc here")

    monkeypatch.setattr("benchkit.doctor.examination.machine_finding", breaks)
    assert main(["doctor", "--json", "--workspace", str(tmp_path)]) == 1
    told_json = json.loads(capsys.readouterr().out)
    assert not told_json["healthy"]
    bad = {one["name"]: one["value"] for one in told_json["findings"] if one["state"] == "bad"}
    assert bad.keys() == {"machine", "PyTorch"} and "no /proc here" in bad["machine"]
    assert main(["doctor", "--workspace", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "2 of 7 findings are bad" in shown.out and "Traceback" not in shown.out + shown.err
    assert "\x1b" not in shown.out


def test_a_missing_printing_library_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "ask", lambda *_: Answer(problem="OSError: cannot load library 'libpango-1.0-0'"))
    finding = software.printing_finding()
    assert finding.state == "bad" and "libpango" in finding.value and "HTML" in finding.advice


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.5 B"), (999.0, "999 B"), (1.5e3, "1.5 kB"), (7.9e14, "790 TB"), (2e9, "2 GB")]
)
def test_scaled_numbers(value: float, shown: str) -> None:
    assert scaled(value, "B") == shown


def test_every_examination_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, Answer(values=CPU))
    names = [finding.name for finding in examine(tmp_path, tmp_path)]
    assert names[0] == "machine" and len(set(names)) == len(names)


def test_triton_alone_compiles_nothing_for_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchkit.train import compiler as measuring

    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(measuring.shutil, "which", lambda name: None)
    monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(measuring.sys, "platform", "linux")
    monkeypatch.delenv("CXX", raising=False)
    assert measuring.compiler_found("cpu")[1].startswith("a C++ compiler (on Debian: apt install g++)")
    monkeypatch.setattr(measuring.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    assert measuring.cpp_compiler() == "g++"


def test_triton_needs_a_c_compiler_and_the_headers_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchkit.train import compiler as measuring

    cuda = "cuda"
    monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(measuring.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(measuring.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    found, lacking = measuring.compiler_found(cuda)
    assert found == "" and "a C compiler" in lacking and "Python.h" in lacking
    (tmp_path / "Python.h").touch()
    assert measuring.compiler_found(cuda) == ("", "a C compiler (on Debian: apt install gcc)")
    monkeypatch.setenv("CC", "icx")
    assert measuring.compiler_found(cuda) == ("Triton and icx", "")
    monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda name: None)
    assert measuring.compiler_found(cuda) == ("", "Triton")


@pytest.mark.parametrize(("fp16", "words"), [(True, "auto computes in fp16, "), (False, "auto computes in float32: ")])
def test_what_auto_is_on_a_gpu_without_bf16_is_told(fp16: bool, words: str) -> None:
    found = findings_of(Answer(values=told(device="cuda:0", memory=2**34, bf16=False, fp16=fp16)), driver=True)
    (precision,) = [one for one in found if one.name == "precision"]
    assert precision.state == "note" and precision.value.startswith(words)
