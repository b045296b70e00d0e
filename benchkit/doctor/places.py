"""The folders that benchkit writes to: room, speed, permission."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from benchkit.doctor.finding import Finding, scaled

GIBIBYTE = 2**30
SCARCE, TIGHT = 1 * GIBIBYTE, 5 * GIBIBYTE
"""Free bytes below which sweeps will fail soon, and below which a large one may."""

WRITTEN = 32 * 2**20
"""Bytes that are written to measure a folder's speed."""

SLOW_SYNC = 0.05
"""Seconds of one safe write from which the ledger's writes begin to show."""


def place_finding(name: str, folder: Path, option: str) -> Finding:
    """Return whether a folder, or its nearest existing parent, can be written, how much room it has and how fast it is.

    `option` says how to choose another one.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        free = shutil.disk_usage(there).free
        rate, sync = _write_speed(there)
    except OSError as error:
        advice = f"choose a folder that can be written with {option}"
        return Finding(name=name, state="bad", value=f"{folder}: {error.strerror or error}", advice=advice)
    value = f"{folder}: {scaled(free, 'B')} free, writes {scaled(rate, 'B/s')}, one safe write {sync * 1000:.2g} ms"
    numbers = {"free": float(free), "write": rate, "sync": sync}
    if free < SCARCE:
        return Finding(
            name=name,
            state="bad",
            value=value,
            advice=f"make room, or choose another disk with {option}",
            numbers=numbers,
        )
    if free < TIGHT:
        advice = "enough for small studies; `benchkit sweep STUDY --dry-run` tells what one needs"
        return Finding(name=name, state="note", value=value, advice=advice, numbers=numbers)
    if sync > SLOW_SYNC:
        advice = f"the ledger writes often: choose a local disk with {option}"
        return Finding(name=name, state="note", value=value, advice=advice, numbers=numbers)
    return Finding(name=name, state="good", value=value, numbers=numbers)


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
