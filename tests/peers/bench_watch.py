"""What the live page costs: beside a sweep, under many viewers, and with a large study. Prints JSON.

.venv/bin/python tests/peers/bench_watch.py cost --seconds 300   # the page's share of a sweep's processor seconds
.venv/bin/python tests/peers/bench_watch.py load --seconds 60    # 45 viewers that read and 5 that do not
.venv/bin/python tests/peers/bench_watch.py large --trials 2000  # seconds until a page shows a large study
.venv/bin/python tests/peers/bench_watch.py heap --trials 2000 --updates 5000  # a page's memory in Chromium
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from live_heap import heap_growth
from live_pages import LivePage, live_page
from tiny_study import BASE, DONE, FACTOR, RECORD, command, environment, queue_of, study_of

from benchkit.watch.server import Times


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor seconds of a process and of those children that ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def of_all(processes: list[psutil.Process]) -> float:
    """Return the processor seconds of some processes, those that are gone left out."""
    total = 0.0
    for process in processes:
        try:
            total += processor_seconds(process)
        except psutil.NoSuchProcess:
            continue
    return total


def cost(seconds: float, width: int) -> dict[str, object]:
    """Sweep a study whose epochs take about a second with one viewer; return what the page took of it.

    `whole` counts the page's start, `steady` the second half of the time alone.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sizes = BASE.replace("train_size = 60", "train_size = 1200").replace(
            "hidden = [8]", f"hidden = [{width}, {width}]"
        )
        (folder / "bench.toml").write_text(sizes.format(epochs=1000) + "\n[repeats]\nn = 8\n")
        ours = {**environment(), "BENCHKIT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        words = command("sweep", folder / "bench.toml", "-w", folder / "runs", "--watch", "--jobs", os.cpu_count() or 1)
        with subprocess.Popen(words, env=ours, cwd=folder, stderr=subprocess.PIPE, text=True) as sweep:
            assert sweep.stderr is not None
            told = next(line for line in sweep.stderr if "watch at the address in" in line)
            address = Path(told.strip().rpartition(" ")[2]).read_text().strip()
            threading.Thread(target=sweep.stderr.read, daemon=True).start()
            viewer = subprocess.Popen([sys.executable, "-c", VIEWER, address], stdout=subprocess.DEVNULL)
            try:
                marks = [measured(sweep.pid, seconds / 2), measured(sweep.pid, seconds / 2)]
            finally:
                viewer.kill()
                viewer.wait()
                sweep.terminate()
                sweep.wait()
        epochs = [json.loads(line)["seconds"] for file in folder.rglob("history.jsonl") for line in file.open()]
    (page, all_), (half_page, half) = marks[1], marks[0]
    return {
        "seconds": seconds,
        "epoch_seconds": sum(epochs) / len(epochs),
        "whole": page / (all_ - page),
        "steady": (page - half_page) / ((all_ - half) - (page - half_page)),
        "page_processor_seconds": page,
    }


def measured(sweep: int, seconds: float) -> tuple[float, float]:
    """Wait, then return the processor seconds of the page and of all processes of a sweep."""
    time.sleep(seconds)
    processes = [psutil.Process(sweep), *psutil.Process(sweep).children(recursive=True)]
    pages = []
    for one in processes:
        with suppress(psutil.NoSuchProcess):  # one that has ended meanwhile
            if "watch" in one.cmdline()[1:4]:
                pages.append(one)
    return of_all(pages), of_all(processes)


VIEWER = """
import http.client, sys, urllib.parse
address = urllib.parse.urlsplit(sys.argv[1])
while True:
    try:
        connection = http.client.HTTPConnection(address.netloc)
        connection.request("GET", "/?" + address.query)
        cookie = connection.getresponse().headers["Set-Cookie"].partition(";")[0]
        connection = http.client.HTTPConnection(address.netloc)
        connection.request("GET", "/events?study=bench", headers={"Cookie": cookie})
        for line in connection.getresponse():
            pass
    except OSError:
        pass
"""


def load(seconds: float, readers: int, stalled: int) -> dict[str, object]:
    """Serve some viewers, of whom some do not read, while a study changes; return memory and who is left."""
    with tempfile.TemporaryDirectory() as place:
        _, _, queue = queue_of(Path(place), study_of(FACTOR, repeats=200))
        with live_page(Path(place), every=0.5, times=Times(stalled=10.0)) as page, opened(page, readers, stalled):
            memory, process, end = [], psutil.Process(), time.monotonic() + seconds
            while time.monotonic() < end:
                if claim := queue.next():
                    claim.folder.append_epoch(RECORD)
                    claim.finish(DONE)
                time.sleep(0.5)
                memory.append(process.memory_info().rss / 2**20)
            left = page.server.viewers.count
    return {
        "seconds": seconds,
        "viewers": readers + stalled,
        "left": left,
        "mib": [memory[len(memory) // 4], memory[-1]],
    }


@contextmanager
def opened(page: LivePage, readers: int, stalled: int) -> Iterator[None]:
    """Open streams that are read, and others that are not."""
    page.page()
    streams = [page.stream(buffer=0 if number < readers else 1) for number in range(readers + stalled)]
    found = [stream.__enter__() for stream in streams]

    def read(number: int) -> None:
        for _ in found[number].blocks():
            pass

    for number in range(readers):
        threading.Thread(target=read, args=(number,), daemon=True).start()
    yield
    for number in range(readers, len(streams)):
        found[number].socket.close()


def large(trials: int, epochs: int) -> dict[str, object]:
    """Return how long a study of so many trials takes until its page is shown, is whole, and is shown once more.

    `processor` are this process's seconds, in which the page is asked for, too.
    """
    with tempfile.TemporaryDirectory() as place:
        _, _, queue = queue_of(Path(place), study_of(FACTOR, repeats=trials // 2))
        while claim := queue.next():
            claim.folder.write_history([replace(RECORD, epoch=epoch) for epoch in range(1, epochs + 1)])
            claim.finish(DONE)
        told: dict[str, object] = {"trials": trials, "epochs": epochs}
        began, spent = time.monotonic(), time.process_time()
        with live_page(Path(place), every=2.0) as page:
            for name, part in (("first", "table-states"), ("whole", 'id="findings"'), ("again", "")):
                while part not in (shown := page.page()):
                    time.sleep(0.05)
                told[name] = {"seconds": time.monotonic() - began, "processor": time.process_time() - spent}
                began, spent = (time.monotonic(), time.process_time()) if name == "whole" else (began, spent)
    return {**told, "bytes": len(shown)}


def main() -> int:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "load", "large", "heap"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--updates", type=int, default=5000)
    parser.add_argument("--readers", type=int, default=45)
    parser.add_argument("--stalled", type=int, default=5)
    parser.add_argument("--width", type=int, default=1024)
    asked = parser.parse_args()
    if asked.what == "cost":
        told = cost(asked.seconds, asked.width)
    elif asked.what == "heap":
        with tempfile.TemporaryDirectory() as place:
            told = heap_growth(Path(place), asked.updates, trials=asked.trials, epochs=100)
    else:
        told = (
            load(asked.seconds, asked.readers, asked.stalled)
            if asked.what == "load"
            else large(asked.trials, asked.epochs)
        )
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
