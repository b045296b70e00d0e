"""Which devices a sweep trains on: GPUs are values here, and `nvidia-smi` a script that prints what one printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchkit.errors import TrainingError
from benchkit.sweep.devices import CPU, Device, available_cores, devices_for, devices_text, installed_gpus

PRINTED = """\
0, GPU-aaaa0000-1111-2222-3333-444455556666, NVIDIA H200, 143771, 0, Default, Disabled
1, GPU-bbbb0000-1111-2222-3333-444455556666, NVIDIA H200, 143771, 61440, Default, Disabled
2, GPU-cccc0000-1111-2222-3333-444455556666, NVIDIA T4, 15360, 3, Exclusive_Process, [N/A]
"""

SLICED = "0, GPU-dddd, NVIDIA A100-SXM4-40GB, 40960, 50, Default, Enabled\n"

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-dddd)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
"""


def gpu(number: int, name: str = "H200", **known: object) -> Device:
    return Device(kind="cuda", number=number, uuid=f"GPU-{number}{number}", name=name, **known)  # type: ignore[arg-type]


EIGHT = tuple(gpu(number) for number in range(8))


@pytest.fixture
def drivers(tmp_path: Path) -> list[tuple[Path, str]]:
    (tmp_path / "nvidia0").touch()
    return [(tmp_path, "nvidia[0-9]*")]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return what puts an `nvidia-smi` on the PATH that prints a text for a query, another for -L, and ends so."""

    def put(query: str, listing: str = "", code: int = 0) -> None:
        (tmp_path / "query").write_text(query)
        (tmp_path / "list").write_text(listing)
        script = tmp_path / "nvidia-smi"
        script.write_text(f'#!/bin/sh\n[ "$1" = -L ] && cat {tmp_path}/list || cat {tmp_path}/query\nexit {code}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def labels(asked: str, gpus: tuple[Device, ...], visible: str | None = None) -> list[str]:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return [device.label for device in devices_for(asked, gpus, environment).used]


def test_gpus_are_read_as_nvidia_smi_numbers_them(drivers, smi) -> None:  # type: ignore[no-untyped-def]
    smi(PRINTED)
    gpus = installed_gpus(drivers)
    assert [(gpu.number, gpu.name, gpu.exclusive) for gpu in gpus] == [
        (0, "NVIDIA H200", False),
        (1, "NVIDIA H200", False),
        (2, "NVIDIA T4", True),
    ]
    assert [round(gpu.held, 3) for gpu in gpus] == [0.0, 0.427, 0.0]
    assert gpus[1].environment == {"CUDA_VISIBLE_DEVICES": "GPU-bbbb0000-1111-2222-3333-444455556666"}


def test_each_slice_of_a_gpu_is_a_device(drivers, smi) -> None:  # type: ignore[no-untyped-def]
    smi(SLICED, LISTED)
    slices = installed_gpus(drivers)
    assert [slice.uuid[:8] for slice in slices] == ["MIG-c6d4", "MIG-cba6"]
    assert [slice.name for slice in slices] == [
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
    ]
    assert labels("cuda:0", slices) == [f"cuda:0/{slice.uuid}" for slice in slices]
    assert labels("auto", slices, "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb") == [f"cuda:0/{slices[1].uuid}"]


def test_a_driver_that_fails_is_an_error_in_its_own_words(drivers, smi) -> None:  # type: ignore[no-untyped-def]
    smi("Failed to initialize NVML: Driver/library version mismatch", code=18)
    with pytest.raises(TrainingError, match="Driver/library version mismatch"):
        installed_gpus(drivers)


def test_a_machine_without_a_driver_asks_no_program(tmp_path: Path, smi) -> None:  # type: ignore[no-untyped-def]
    smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver", code=9)
    assert installed_gpus([(tmp_path / "dev", "nvidia[0-9]*")]) == ()


def test_without_nvidia_smi_cuda_chooses(drivers, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PATH", "/nowhere")
    assert installed_gpus(drivers) == (Device(kind="cuda"),)
    assert labels("auto", (Device(kind="cuda"),), "GPU-1234") == ["cuda"]
    assert Device(kind="cuda").environment == {}


def test_auto_takes_every_gpu_or_the_cpu() -> None:
    assert labels("auto", EIGHT) == [f"cuda:{number}" for number in range(8)]
    assert labels("cuda", EIGHT) == labels("auto", EIGHT)
    assert labels("auto", ()) == ["cpu"]
    assert labels("cpu", EIGHT) == ["cpu"]


@pytest.mark.parametrize("asked", ["cuda:0,2", "cuda:0,cuda:2", "cuda:GPU-00,GPU-22", "cuda:0,2,0"])
def test_gpus_are_named_by_number_or_uuid(asked: str) -> None:
    assert labels(asked, EIGHT) == ["cuda:0", "cuda:2"]


def test_what_the_environment_hides_is_not_there() -> None:
    assert labels("auto", EIGHT, "4,5") == ["cuda:4", "cuda:5"]
    assert labels("auto", EIGHT, "GPU-55,GPU-44") == ["cuda:5", "cuda:4"]
    assert labels("auto", EIGHT, "1,-1,2") == ["cuda:1"]
    assert labels("auto", EIGHT, "") == ["cpu"]
    assert labels("auto", EIGHT, "-1") == ["cpu"]
    with pytest.raises(TrainingError, match="no such device"):
        devices_for("cuda:0", EIGHT, {"CUDA_VISIBLE_DEVICES": "4,5"})


def test_gpus_that_others_hold_are_left_to_them_and_named() -> None:
    gpus = (gpu(0), gpu(1, held=0.43), gpu(2))
    chosen = devices_for("auto", gpus, {})
    assert [device.number for device in chosen.used] == [0, 2]
    assert [device.number for device in chosen.left_out] == [1]
    assert labels("cuda:1", gpus) == ["cuda:1"], "one that is named is taken"
    with pytest.raises(TrainingError, match=r"every GPU is held by others: cuda:0 \(43% of its memory\)"):
        devices_for("auto", (gpu(0, held=0.43),), {})


def test_apple_s_gpu_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert labels("mps", ()) == ["mps"] and labels("auto", ()) == ["cpu"]
    assert devices_for("mps", (), {}).on_gpus
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(TrainingError, match="--device mps: there is no such device here"):
        devices_for("mps", (), {})


@pytest.mark.parametrize("asked", ["cuda:8", "cuda:", "gpu", "cuda:0,9", "cuda:GPU-9"])
def test_a_device_that_is_not_there_is_one_error(asked: str) -> None:
    with pytest.raises(TrainingError, match="no such device here"):
        devices_for(asked, EIGHT, {})
    with pytest.raises(TrainingError, match="no such device here"):
        devices_for("cuda", (), {})


def test_workers_take_the_devices_in_turns() -> None:
    chosen = devices_for("cuda:0,2", EIGHT, {})
    assert [seat.number for seat in chosen.seats(5)] == [0, 2, 0, 2, 0]
    assert [seat.number for seat in chosen.seats(1)] == [0]
    assert devices_for("cpu", EIGHT, {}).seats(3) == (CPU, CPU, CPU)


def test_an_exclusive_gpu_has_one_worker() -> None:
    assert [seat.number for seat in devices_for("auto", (gpu(0, exclusive=True), gpu(1)), {}).seats(4)] == [0, 1, 1, 1]
    assert len(devices_for("auto", (gpu(0, exclusive=True),), {}).seats(4)) == 1


def test_a_containers_quota_bounds_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    own, groups = tmp_path / "own", tmp_path / "groups"
    (groups / "slurm" / "job").mkdir(parents=True)
    own.write_text("0::/slurm/job\n")
    assert available_cores(groups, own) == 64
    (groups / "slurm" / "job" / "cpu.max").write_text("max 100000\n")
    (groups / "slurm" / "cpu.max").write_text("350000 100000\n")
    assert available_cores(groups, own) == 3, "three and a half cores, of the group above"
    (groups / "slurm" / "job" / "cpu.max").write_text("50000 100000\n")
    assert available_cores(groups, own) == 1
    assert available_cores(groups, tmp_path / "nothing") == 64


def test_the_view_says_what_is_trained_on_and_what_is_left_to_others() -> None:
    devices = devices_for("auto", (gpu(0), gpu(1, held=0.43), gpu(2)), {})
    assert devices_text(devices) == "training on cuda:0, cuda:2; others hold cuda:1 (43% of its memory)"
