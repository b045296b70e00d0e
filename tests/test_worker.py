"""The environment in which a worker runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import DATA, FACTOR, Listener, study_of

from benchkit.registry import Registry
from benchkit.sweep import devices, worker
from benchkit.sweep.devices import CPU, Device
from benchkit.sweep.messages import Job, WorkerIdle, WorkerReady
from benchkit.sweep.orchestration import Request, sweep
from benchkit.sweep.pool import Pool, _seated


def test_compiled_code_has_its_home_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    kept = devices.worker_environment(1)
    assert Path(kept["TORCHINDUCTOR_CACHE_DIR"]).parent == tmp_path / "compiled-models"
    assert kept["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    assert devices.worker_environment(1)["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"


def test_the_compiler_has_no_more_processes_than_the_trial_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    assert [devices.worker_environment(n)["TORCHINDUCTOR_COMPILE_THREADS"] for n in (1, 3)] == ["1", "3"]


def test_compiled_code_is_of_one_kind_of_processor_and_on_a_shared_disk_of_one_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    processors = []
    for number, flags in enumerate(("avx2", "avx2 avx512f", "avx2")):
        processors.append(tmp_path / str(number))
        processors[-1].write_text(f"model name: x\nflags: {flags}\ncpu MHz: {number}\n\nprocessor: 1\n")
    first, other, same = (devices.compiled_models(processor) for processor in processors)
    assert first == same != other
    monkeypatch.setattr("benchkit.sweep.devices.version", lambda package: "another")
    assert devices.compiled_models(processors[0]) != first
    monkeypatch.undo()
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchkit.sweep.devices.shared_disk", lambda folder: "nfs4")
    shared = devices.compiled_models(processors[0])
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert len({first, shared, devices.compiled_models(processors[0])}) == 3


TELLING = """
import atexit, os, sys
leave = os._exit

def tell():
    with open({told!r}, "w") as file:
        print(*sys.modules, file=file)

def end(status):
    tell()
    leave(status)

os._exit = end
atexit.register(tell)
from benchkit.sweep.worker import main
main()
"""


def test_a_worker_imports_what_its_study_uses_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside Python's own modules and those that `import torch` brings, from its start to the scores of a trial."""
    told = tmp_path / "modules"
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", TELLING.format(told=str(told))))
    study, view = study_of(FACTOR, repeats=1), Listener()
    request = Request(study=study, workspace=tmp_path / "runs", data_root=DATA, jobs=1, device="cpu")
    assert +sweep(request, Registry.installed(), view) == {"done": 2}
    (ready,) = [event for event in view.events if isinstance(event, WorkerReady)]
    assert list(ready.imports) == ["import of torch", "import of the rest"] and min(ready.imports.values()) > 0
    torch = subprocess.run(
        [sys.executable, "-c", "import sys, torch; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    found, brought = ({name.partition(".")[0] for name in text.split()} for text in (told.read_text(), torch.stdout))
    foreign = {name for name in found - brought - sys.stdlib_module_names if not name.startswith("_")}
    used = {"benchkit", "benchkit_datasets", "benchkit_models", "benchkit_norms"}
    assert used <= foreign <= used | {"msgspec", "safetensors", "psutil", "triton"}  # which PyTorch's FLOP counter has
    assert not {name for name in told.read_text().split() if name.startswith(("benchkit.ledger", "torch._dynamo"))}


def test_workers_of_another_kind_take_the_place_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    job = json.loads(line)\n"
        "    print(json.dumps({'event': 'WorkerReady', 'device': job['device'] + ' of another kind'}))\n"
        "    print(json.dumps({'event': 'WorkerIdle'}), flush=True)\n"
    )
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", script))
    study = study_of()
    job = Job(task="check", study=study, conditions=(), data_root=tmp_path, device="cpu")
    with Pool((CPU,), 1, tmp_path / "logs") as pool:
        pool.give(0, job)
        events = pool.events(60)
        assert [next(events), next(events)] == [(0, WorkerReady(device="cpu of another kind")), (0, WorkerIdle())]


def test_each_worker_sees_its_own_device_alone_and_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers on one GPU and one on another: what CUDA would show them, and what their jobs say."""
    script = (
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    job = json.loads(line)\n"
        "    seen = ' '.join((os.environ['CUDA_VISIBLE_DEVICES'], job['device'], job['device_label']))\n"
        "    print(json.dumps({'event': 'WorkerReady', 'device': seen}), flush=True)\n"
    )
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", script))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    seats = [Device(kind="cuda", number=number, uuid=f"GPU-{number}") for number in (1, 3, 1)]
    job = Job(task="check", study=study_of(), conditions=(), data_root=tmp_path)
    seen = {}
    with Pool(seats, 1, tmp_path / "logs") as pool:
        for number in range(3):
            pool.give(number, job)
            seen |= {worker: event.device for worker, event in [next(pool.events(60))]}  # type: ignore[union-attr]
    assert seen == {0: "GPU-1 cuda cuda:1", 1: "GPU-3 cuda cuda:3", 2: "GPU-1 cuda cuda:1"}


@pytest.mark.parametrize(("asked", "given"), [("auto", "cuda"), ("cuda:1", "cuda:1")])
def test_where_nobody_numbers_the_gpus_a_worker_takes_one_or_fails(asked: str, given: str, tmp_path: Path) -> None:
    """It would train on the CPU without a word if it were asked for `auto`, where CUDA does not start."""
    job = Job(task="check", study=study_of(), conditions=(), data_root=tmp_path, device=asked)
    assert _seated(job, Device(kind="cuda"), 1).device == given
