"""Around training: Python and its machine, the allocator, what prints PDFs, plugins, the folders written to."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from benchkit.doctor.diagnosis import Diagnosis, ask, scaled
from benchkit.registry import Registry
from benchkit.registry.registry import DISABLE_VARIABLE
from benchkit.sweep.devices import available_cores, preloaded_allocator
from benchkit.train.processor import processor

GIBIBYTE = 2**30
SCARCE, TIGHT = 1 * GIBIBYTE, 5 * GIBIBYTE
"""Free bytes below which sweeps will fail soon, and below which a large one may."""

WRITTEN = 32 * 2**20
"""Bytes that are written to measure a folder's speed."""

SLOW_SYNC = 0.05
"""Seconds of one safe write from which the ledger's writes begin to show."""

LITTLE_MEMORY = 2 * GIBIBYTE

PRINTING = """
import json, weasyprint, vl_convert
print(json.dumps({"weasyprint": weasyprint.__version__, "pages": len(weasyprint.HTML(string="<p>a").render().pages)}))
"""


def machine_finding() -> Diagnosis:
    """Return Python, system, processor, the cores that this process may use, and memory."""
    memory = psutil.virtual_memory()
    value = (
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {processor()}, "
        f"{available_cores()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free"
    )
    numbers = {"cores": float(available_cores()), "memory": float(memory.total), "free": float(memory.available)}
    told = Diagnosis(name="machine", value=value, numbers=numbers)
    if memory.available < LITTLE_MEMORY:
        told = replace(told, state="note", advice="end other programs, or train one trial at a time with --jobs 1")
    return told


def allocator_finding() -> Diagnosis:
    """Return which memory allocator worker processes use."""
    library = preloaded_allocator()
    if library:
        return Diagnosis(name="allocator", value=f"{library.name}: workers use it")
    if platform.system() != "Linux":
        return Diagnosis(name="allocator", value="the system's own")
    advice = "install tcmalloc for more speed on a CPU; on Debian: apt install libtcmalloc-minimal4"
    value = "the C library's, told to keep freed memory"
    return Diagnosis(name="allocator", state="note", value=value, advice=advice)


def printing_finding() -> Diagnosis:
    """Return whether reports can be printed to PDF: WeasyPrint with its Pango libraries, and the figures' renderer."""
    answer = ask(["-c", PRINTING], 60.0)
    if not answer.problem and answer.values.get("pages"):
        return Diagnosis(name="PDF", value=f"WeasyPrint {answer.values['weasyprint']} and Pango work")
    hints = {
        "Darwin": "brew install pango",
        "Linux": "install Pango; on Debian: apt install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0",
    }
    advice = f"{hints.get(platform.system(), 'install Pango')}; HTML reports need none of it"
    return Diagnosis(name="PDF", state="bad", value=f"cannot be printed: {answer.problem}", advice=advice)


def plugins_findings() -> list[Diagnosis]:
    """Return how many plugins work, and one finding for each that is broken or whose name is claimed twice."""
    from benchkit.registry.description import describe_all

    registry = Registry.installed()
    descriptions = describe_all(registry.entries())
    broken = [plugin for plugin in descriptions if plugin.status == "broken"]
    findings = [
        Diagnosis(
            name=f"plugin {plugin.entry.name}",
            state="bad",
            value=f"{plugin.entry.kind}, from {plugin.entry.origin}: {plugin.reason}",
            advice=f"mend or uninstall it; `benchkit plugins show {plugin.entry.name}` tells more",
        )
        for plugin in broken
    ]
    claimed = sorted({e.name for e in registry.entries() if len(registry.claims(e.kind, e.name)) > 1})
    if claimed:
        advice = (
            f"uninstall one or hide it ({DISABLE_VARIABLE}=DISTRIBUTION:NAME) to go on with what was trained; new "
            "studies may write distribution:name"
        )
        value = f"claimed more than once: {', '.join(claimed)}"
        findings.append(Diagnosis(name="plugin names", state="note", value=value, advice=advice))
    return [Diagnosis(name="plugins", value=f"{len(descriptions) - len(broken)} work"), *findings]


def place_finding(name: str, folder: Path, option: str) -> Diagnosis:
    """Return whether a folder, or its nearest existing parent, can be written, how much room it has and how fast it is.

    `option` says how to choose another one.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        free = shutil.disk_usage(there).free
        rate, sync = _write_speed(there)
    except OSError as error:
        advice = f"choose a folder that can be written with {option}"
        return Diagnosis(name=name, state="bad", value=f"{folder}: {error.strerror or error}", advice=advice)
    value = f"{folder}: {scaled(free, 'B')} free, writes {scaled(rate, 'B/s')}, one safe write {sync * 1000:.2g} ms"
    told = Diagnosis(name=name, value=value, numbers={"free": float(free), "write": rate, "sync": sync})
    if free < SCARCE:
        return replace(told, state="bad", advice=f"make room, or choose another disk with {option}")
    if free < TIGHT:
        advice = "enough for small studies; `benchkit sweep STUDY --dry-run` tells what one needs"
        return replace(told, state="note", advice=advice)
    if sync > SLOW_SYNC:
        return replace(told, state="note", advice=f"the ledger writes often: choose a local disk with {option}")
    return told


def _write_speed(folder: Path) -> tuple[float, float]:
    """Return bytes per second of a file that is written and synchronised, and the seconds of a small such write."""
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(WRITTEN // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        rate = WRITTEN / (time.perf_counter() - start)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            file.write(b"one record\n")
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return rate, sorted(times)[2]
