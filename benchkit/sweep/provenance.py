"""Where a result comes from: versions, device, processor, git state. Read once a process; no secrets, no user names."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.metrics import declaration_of, metric_name, metric_of
from benchkit.protocols import card_of
from benchkit.registry import Registry
from benchkit.registry.kit_record import UNCHECKED, kit_words
from benchkit.registry.registry import load_plugin, normalized
from benchkit.registry.sources import source_hash, source_record
from benchkit.study.checks import Use
from benchkit.train.processor import processor

DISTRIBUTIONS = ("benchkit", "numpy", "optuna", "scikit-learn", "timm", "torch", "torchvision")
"""Those that shape results."""


def environment_of(device: str) -> dict[str, Any]:
    """Return versions of Python and of all distributions, and the names of processor, device, driver and git commit.

    `versions` holds the distributions that shape results, `distributions` every one that is installed.
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "device": device_name(device),
        "versions": versions(DISTRIBUTIONS),
        "release": platform.release(),
        **({"driver": driver()} if device.startswith("cuda") else {}),
        "git": git_state(),
        "distributions": all_versions(),
    }


def trained_with(
    uses: Sequence[Use], registry: Registry, device: str, known: dict[str, dict[str, object]], prepared_by: str = ""
) -> dict[str, object]:
    """Return what a trial that uses these plugins is trained with, as far as it may matter to who trains it again.

    `prepared_by` is the digest of the source by which the data set was prepared, where it is known. The sources of
    plugins are read for the first trial that uses them, as this process then has imported them, and `known` keeps all
    for those to come.
    """
    used = repr([(use.where, use.kind, use.ref.name) for use in uses] + [prepared_by])
    if used not in known:
        sources = sources_of(uses, registry, prepared_by)
        plugins = plugins_of(uses, registry, sources)
        measured = [metric_name(use.ref.name) for use in uses if use.kind == "metrics"]
        declared = {name: declaration_of(metric_of(name)) for name in measured}
        told = {"plugins": plugins, "sources": sources, **({"metrics": declared} if declared else {})}
        known[used] = {**environment_of(device), **told}
    return known[used]


def plugins_of(uses: Sequence[Use], registry: Registry, sources: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return name, origin, source hash and kit result of every plugin that a trial uses, by the setting that names it.

    The kit result is that of `benchkit plugins check` on the plugin as it is now, if there was one.
    """
    found = {}
    for use in uses:
        entry, _ = registry.resolve(use.kind, use.ref.name)
        source = sources[use.where]["source"]
        kit = kit_words(entry) if source == source_hash(entry) else UNCHECKED
        found[use.where] = f"{use.ref.name} ({entry.shown_origin}, source {source}, {kit})"
    return found


def sources_of(uses: Sequence[Use], registry: Registry, prepared_by: str) -> dict[str, dict[str, str]]:
    """Return what a trial keeps of each plugin's source (`source_record`) and card, by the setting naming it.

    The source of a data set that is not benchkit's own is the one by which it was prepared, where that is known.
    """
    found = {}
    for use in uses:
        entry, _ = registry.resolve(use.kind, use.ref.name)
        card = card_of(load_plugin(entry))
        shown = {"title": card.title, "summary": card.summary, "reference": card.reference, "url": card.url}
        found[use.where] = source_record(entry, use.ref.name) | {key: str(text) for key, text in shown.items()}
        if use.kind == "datasets" and prepared_by and not entry.is_own:
            found[use.where]["source"] = prepared_by
    return found


@functools.cache
def all_versions() -> dict[str, str]:
    """Return the version of every installed distribution, by its name in one spelling."""
    found: dict[str, str] = {}
    for one in importlib.metadata.distributions():
        name = one.metadata["Name"]
        if name:
            found.setdefault(normalized(name), one.version)
    return dict(sorted(found.items()))


@functools.cache
def driver() -> str:
    """Return the versions of NVIDIA's kernel driver, of PyTorch's CUDA and cuDNN, and of the cuBLAS that is loaded."""
    import torch

    try:
        kernel = Path("/sys/module/nvidia/version").read_text(encoding="utf-8").strip()
    except OSError:
        kernel = "unknown"
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"NVIDIA driver {kernel}, CUDA {torch.version.cuda}, cuDNN {cudnn}, cuBLAS {cublas() or 'unknown'}"


@functools.cache
def cublas(maps: Path = Path("/proc/self/maps")) -> str:
    """Return the version of the cuBLAS that this process has loaded, empty where it has none or nobody tells."""
    try:
        found = re.search(r"/\S*/libcublas\.so\S*", maps.read_text(encoding="utf-8", errors="replace"))
        library = ctypes.CDLL(found[0]) if found else None
    except OSError:
        return ""
    parts = [ctypes.c_int() for _ in range(3)]
    if library is None or any(library.cublasGetProperty(kind, ctypes.byref(part)) for kind, part in enumerate(parts)):
        return ""
    return ".".join(str(part.value) for part in parts)


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each distribution that is installed."""
    installed = all_versions()
    return {name: installed[normalized(name)] for name in distributions if normalized(name) in installed}


@functools.cache
def device_name(device: str) -> str:
    """Return the name of a training device: the card of a GPU, the processor and its core count otherwise."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    if device == "mps":
        return f"Apple GPU of {processor()}"
    return f"{processor()}, {os.cpu_count()} cores"


@functools.cache
def git_state() -> dict[str, str]:
    """Return commit and cleanliness of the working folder's repository, or an empty table outside of one."""
    try:
        commit = _git("rev-parse", "HEAD")
        dirty = _git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit.strip(), "state": "changed" if dirty.strip() else "clean"}


def _git(*arguments: str) -> str:
    return subprocess.run(("git", *arguments), capture_output=True, text=True, check=True, timeout=10).stdout
