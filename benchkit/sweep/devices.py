"""The devices that a sweep trains on, GPUs and cores, and what a worker on them is started with. Imports no torch.

GPUs are numbered as `nvidia-smi` numbers them, which is by their place on the bus; CUDA would number them by speed. A
worker sees one device alone, by its UUID, from before it starts: a process on the third GPU would otherwise take memory
of the first as well.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchkit.child import import_path
from benchkit.errors import TrainingError, nearest
from benchkit.locks import shared_disk
from benchkit.storage import cache_folder

DRIVERS = (Path("/dev"), "nvidia[0-9]*"), (Path("/usr/lib/wsl/lib"), "libcuda.so*")
"""Where Linux, and Linux within Windows, show that there is an NVIDIA GPU: folders and names."""

QUERY = "index,uuid,name,memory.total,memory.used,compute_mode,mig.mode.current"
SECONDS = 60.0
"""How long `nvidia-smi` may take: where no process keeps the driver awake, it wakes every card first."""

HELD = 0.25
"""The share of a GPU's memory from which on it counts as held by others, before any trial of the sweep is on it."""

SLICE = re.compile(r"^\s+MIG (?P<profile>\S+)\s+Device\s+\d+: \(UUID: (?P<uuid>MIG-[^)]+)\)")
CARD = re.compile(r"^GPU \d+: .+ \(UUID: (?P<uuid>GPU-[^)]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that trials train on. `kind` is cpu, cuda or mps.

    Of a GPU, or a slice of one: its `number` among the GPUs as `nvidia-smi` counts them, its `uuid`, and its `name`.
    `held` is the share of its memory that was in use, and `exclusive` says that it takes one process at a time.
    In a cluster: the name of its `node`, and the node's id, its `place`; `number` counts the node's seats, of which so
    many (`at_once`) share a device.
    """

    kind: str
    number: int = 0
    uuid: str = ""
    name: str = ""
    held: float = 0.0
    exclusive: bool = False
    node: str = ""
    place: str = ""
    at_once: int = 1

    @property
    def label(self) -> str:
        """Return how it is called: cpu, mps, cuda:2, or cuda:2/MIG-... for a slice; in a cluster node-7 cuda:2."""
        if self.node:
            return f"{self.node} {self.kind}:{self.number}"
        if self.kind != "cuda" or not self.uuid:
            return self.kind
        return f"cuda:{self.number}" + (f"/{self.uuid}" if self.uuid.startswith("MIG-") else "")

    @property
    def held_words(self) -> str:
        """Return its label and how much of it others hold: cuda:1 (43% of its memory)."""
        return f"{self.label} ({self.held:.0%} of its memory)"

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process must be started with to see this device and no other."""
        return {"CUDA_VISIBLE_DEVICES": self.uuid} if self.uuid else {}


CPU = Device(kind="cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What a sweep trains on, and the GPUs that it leaves to others."""

    used: tuple[Device, ...]
    left_out: tuple[Device, ...] = ()

    @property
    def on_gpus(self) -> bool:
        """Return whether trials train on GPUs, each for itself."""
        return self.used[0] != CPU

    def seats(self, count: int, at_once: Mapping[str, int] | None = None, per_process: int = 1) -> tuple[Device, ...]:
        """Return the device of each of `count` trials at once, in turns.

        Fewer where `at_once` says by its name how many trials a GPU takes at once; an exclusive one takes one process,
        and so `per_process` of them.
        """
        room = {one: (at_once or {}).get(one.name, count) for one in self.used}
        room |= {one: min(per_process, room[one]) for one in self.used if one.exclusive}
        return tuple(device for turn in range(count) for device in self.used if turn < room[device])[:count]


def devices_text(devices: Devices) -> str:
    """Return what is trained on, and what is left to others: `training on cuda:0, cuda:2; others hold cuda:1 (43%)`."""
    held = ", ".join(device.held_words for device in devices.left_out)
    return f"training on {', '.join(device.label for device in devices.used)}" + (
        f"; others hold {held}" if held else ""
    )


def devices_for(asked: str, gpus: Sequence[Device], environment: Mapping[str, str] = os.environ) -> Devices:
    """Return the devices that `--device` asks for, of the `gpus` that are there and that the environment shows.

    `auto` takes all that are free, else the CPU where there are none; `cuda` all that are free; `cuda:0,2` and
    `cuda:UUID,...` those, whoever holds them; `mps` Apple's GPU, under macOS. Raises `TrainingError` for one that is
    not there, or where none is free.
    """
    shown = _visible(gpus, environment.get("CUDA_VISIBLE_DEVICES"))
    if asked == "cpu" or (asked == "auto" and not shown):
        return Devices(used=(CPU,))
    if asked == "mps" and platform.system() == "Darwin":
        return Devices(used=(Device(kind="mps"),))
    if asked in ("auto", "cuda"):
        free = tuple(gpu for gpu in shown if gpu.held < HELD)
        held = tuple(gpu for gpu in shown if gpu.held >= HELD)
        if not free:
            raise _none(asked, held)
        return Devices(used=free, left_out=held)
    if not asked.startswith("cuda:"):
        raise _unknown(asked, asked, shown)
    named = [part.removeprefix("cuda:") for part in asked.split(",")]
    used = [gpu for part in dict.fromkeys(named) for gpu in _named(part, asked, shown)]
    return Devices(used=tuple(dict.fromkeys(used)))


def devices_here(asked: str) -> Devices:
    """Return the devices of this machine that `--device` asks for; raises as `devices_for` and `installed_gpus` do."""
    return devices_for(asked, () if asked in ("cpu", "mps") else installed_gpus())


def _visible(gpus: Sequence[Device], listed: str | None) -> tuple[Device, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES lists by number or the beginning of their UUID; all without it."""
    if listed is None or (listed not in ("", "-1") and not all(gpu.uuid for gpu in gpus)):
        return tuple(gpus)
    shown: list[Device] = []
    for part in (part.strip() for part in listed.split(",")):
        found = [gpu for gpu in gpus if _is(gpu, part)]
        if not found:
            break  # as CUDA does: what follows an entry that is none is not seen
        shown += found
    return tuple(dict.fromkeys(shown))


def _is(gpu: Device, part: str) -> bool:
    if part.isdigit():
        return gpu.number == int(part)
    return bool(part) and gpu.uuid.startswith(part)


def _named(part: str, asked: str, shown: Sequence[Device]) -> list[Device]:
    found = [gpu for gpu in shown if _is(gpu, part)]
    if not found or (len({gpu.number for gpu in found}) > 1):
        raise _unknown(asked, part, shown)
    return found


def _unknown(asked: str, part: str, shown: Sequence[Device]) -> TrainingError:
    known = ["auto", "cpu", *(["cuda"] if shown else []), *(gpu.label for gpu in shown)]
    return TrainingError(
        f"--device {asked}: there is no such device here{nearest(part, known)}", hint=f"known: {', '.join(known)}"
    )


def _none(asked: str, held: Sequence[Device]) -> TrainingError:
    if not held:
        return TrainingError(f"--device {asked}: there is no such device here", hint="known: auto, cpu")
    names = ", ".join(gpu.held_words for gpu in held)
    return TrainingError(
        f"--device {asked}: every GPU is held by others: {names}",
        hint="wait for one, or name one to share it: --device cuda:0",
    )


def installed_gpus(drivers: Iterable[tuple[Path, str]] = DRIVERS) -> tuple[Device, ...]:
    """Return the NVIDIA GPUs of this machine, and of those that are cut into slices these.

    Without `nvidia-smi` it is one that CUDA chooses. Raises `TrainingError` with the words of `nvidia-smi` where it
    fails: a GPU that is there and does not start is no reason to train on the CPU.
    """
    if not any(any(folder.glob(pattern)) for folder, pattern in drivers):
        return ()
    program = shutil.which("nvidia-smi")
    if program is None:
        return (Device(kind="cuda"),)
    told = _told(program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(told)) if row]
    gpus = tuple(_gpu(row) for row in rows)
    if any(row[6] == "Enabled" for row in rows):
        return tuple(_with_slices(gpus, _told(program, "-L")))
    return gpus


def _told(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise TrainingError(
            f"nvidia-smi does not answer within {SECONDS:.0f} s", hint="--device cpu trains without the GPUs"
        ) from None
    if done.returncode:
        words = " ".join((done.stdout + done.stderr).split())
        raise TrainingError(
            f"the GPUs of this machine do not start; nvidia-smi: {words}", hint="--device cpu trains without them"
        )
    return done.stdout


def _gpu(row: Sequence[str]) -> Device:
    number, uuid, name, total, used, mode = row[:6]
    held = float(used) / float(total) if total.replace(".", "").isdigit() and float(total) else 0.0
    return Device(
        kind="cuda", number=int(number), uuid=uuid, name=name, held=held, exclusive=mode.startswith("Exclusive")
    )


def _with_slices(gpus: Sequence[Device], listing: str) -> Iterator[Device]:
    """Yield the slices of each GPU that has some, in the order of `nvidia-smi -L`, and the GPUs that have none."""
    slices: dict[str, list[Device]] = {gpu.uuid: [] for gpu in gpus}
    card = ""
    for line in listing.splitlines():
        if found := CARD.match(line):
            card = found["uuid"]
        elif (found := SLICE.match(line)) and card in slices:
            whole = next(gpu for gpu in gpus if gpu.uuid == card)
            slices[card].append(
                replace(whole, uuid=found["uuid"], name=f"{whole.name} MIG {found['profile']}", held=0.0)
            )
    for gpu in gpus:
        yield from slices[gpu.uuid] or [gpu]


CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux shows the limits of containers and jobs, and which of them are this process's."""

MOST_CORES = 1e6
"""What stands for no limit."""


def available_cores(groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> int:
    """Return the number of cores that this process may use, and that its container or Slurm job gives it time for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_quota(groups, own))))


def control_groups(controllers: Collection[str], groups: Path, own: Path) -> Iterator[tuple[str, Path]]:
    """Yield the folders of this process's control groups and those above, each with its controllers ("" for all)."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, named, path in lines:
        if named in controllers:
            top, within = groups / named, Path(path.strip().lstrip("/"))
            yield from ((named, folder) for folder in (top / within, *(top / above for above in within.parents)))


def _quota(groups: Path, own: Path) -> float:
    """Return the least number of cores in the `cpu.max` of this process's control group and those above it."""
    least = MOST_CORES
    for _, folder in control_groups(("",), groups, own):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            least = min(least, float(quota) / float(period))
    return least


KEEP_FREED = "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"
"""What keeps jemalloc from giving every step's activations back to the system, which makes training slower than with
the C library's allocator (tcmalloc keeps them by itself)."""

NAMES: Mapping[str, Mapping[str, str]] = {
    "tcmalloc_minimal": {},
    "tcmalloc": {},
    "jemalloc": {"MALLOC_CONF": KEEP_FREED},
}
"""The libraries that would be preloaded, best first by their names to the dynamic loader, and their environment."""

FOLDERS = tuple(
    Path(folder)
    for folder in (
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    )
)


def preloaded_allocator(folders: Sequence[Path] = FOLDERS) -> Path | None:
    """Return the allocator's library for LD_PRELOAD, or None where there is none.

    Only Linux is looked at; `BENCHKIT_MALLOC=system` keeps the C library's.
    """
    if sys.platform != "linux" or os.environ.get("BENCHKIT_MALLOC") == "system":
        return None
    found = (path for name in NAMES for folder in folders for path in sorted(folder.glob(f"lib{name}.so.*")))
    return next(found, None)


def preloading(library: Path | None) -> dict[str, str]:
    """Return the environment variables that make a process use an allocator's library; none without one."""
    if library is None:
        return {}
    own = next((settings for name, settings in NAMES.items() if library.name.startswith(f"lib{name}.so")), {})
    return {"LD_PRELOAD": str(library), **own}


def compiled_models(cpuinfo: Path = Path("/proc/cpuinfo")) -> Path:
    """Return the folder of compiled models: one for each kind of processor and version of PyTorch.

    On a disk that machines share each machine has its own: code for one processor may crash another, and the compilers'
    caches keep machines apart by no lock.
    """
    folder = cache_folder() / "compiled-models"
    facts = [platform.machine(), version("torch"), socket.gethostname() if shared_disk(folder.parent) else ""]
    with contextlib.suppress(OSError):
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
        facts += [line for line in first if line.startswith(("model name", "flags", "CPU part", "Features"))]
    return folder / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def worker_environment(threads: int, at_once: int = 1) -> dict[str, str]:
    """Return the environment of one of `at_once` workers: its threads, its allocator, a home for compiled code.

    The C library would otherwise give every step's activations back to the system and fault them in again. Where each
    thread has a core to itself, threads wait for their next piece of work awake: a small network's pieces are shorter
    than it takes to wake one up. Compiled models are shared by trials of one shape and by later workers. What the user
    has set stays.
    """
    kept = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824", "PYTHONUNBUFFERED": "1"}
    kept |= {"TORCHINDUCTOR_CACHE_DIR": str(compiled_models()), "TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}
    kept |= {"TORCHINDUCTOR_COMPILE_THREADS": str(threads), "CUDA_MODULE_LOADING": "LAZY"}
    kept |= preloading(preloaded_allocator())
    if threads > 1 and threads * at_once <= available_cores():
        kept["OMP_WAIT_POLICY"] = "active"
    fixed = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**kept, **os.environ, **fixed, "PYTHONPATH": import_path()}


def mps_runs() -> bool:
    """Return whether its control daemon can be reached: CUDA programs of this user then use it without being asked."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()
