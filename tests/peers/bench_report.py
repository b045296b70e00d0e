"""What a report costs: wall time, processor time, peak memory and file sizes, in all and by stage.

    python tests/peers/bench_report.py [--case trials] [--workspace FOLDER] [--json FILE]

It builds a workspace with a synthetic study (1,000 trials of 100 epochs, 10,000 test images whose logits are stored;
and one whose PDF has about 60 pages), then makes the report as `benchkit report` does, in a process of its own and
without anything cached. The first pass is timed as a whole, the second, in another process, by stage. Memory is the
resident set of the process and its children, summed and sampled every 50 ms: shared pages count once for each. Then
the same report is made again with the first one's cache. The floors stand beside the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from large_study import Size, build

EXTRA = ("class-accuracy", "confusion-difference", "loss-gap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A study to report, and what its report may cost at most on two idle cores."""

    size: Size
    floor: str


CASES = {
    "trials": Case(size=Size(figures=EXTRA), floor="60 s, 1 GiB, HTML 8 MB"),
    "pages": Case(
        size=Size(conditions=40, repeats=5, slots=10, confirm=3, epochs=30, figures=4 * EXTRA), floor="PDF 25 s"
    ),
}


@dataclass(slots=True, kw_only=True)
class Cost:
    """Seconds by the clock and of all processors, peak memory in MiB, and what else is known."""

    wall: float
    processor: float
    peak_mib: float
    told: Mapping[str, Any] = field(default_factory=dict)


def measure(arguments: list[str], environment: Mapping[str, str]) -> Cost:
    """Run this script as a child with these arguments, watch its memory, and return what it cost and printed."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    peak = 0
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(0.05):
            peak = max(peak, resident(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = child.communicate()
    wall = time.perf_counter() - start
    finished.set()
    watcher.join()
    if child.returncode:
        raise SystemExit(f"the measured process ended with status {child.returncode}")
    told = json.loads(printed.splitlines()[-1])
    return Cost(wall=wall, processor=told.pop("processor"), peak_mib=peak / 2**20, told=told)


def resident(pid: int) -> int:
    """Return the resident bytes of a process and its descendants, as far as they live."""
    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def whole(workspace: Path, out: Path) -> dict[str, Any]:
    """Make the report as `benchkit report` does and return the sizes of its files in bytes and the PDF's pages."""
    import pypdf

    from benchkit.ledger import read_results
    from benchkit.report.write import write_report

    written = write_report(read_results(workspace), out)
    if written.error or written.problems:
        raise SystemExit(f"{written.error} {written.problems}")
    used = processor_seconds()
    found = {path.suffix[1:]: path.stat().st_size for path in written.paths if path.is_file()}
    found["beside"] = sum(path.stat().st_size for path in written.paths[-1].rglob("*") if path.is_file())
    pdf = next(path for path in written.paths if path.suffix == ".pdf")
    return {"processor": used, "bytes": found, "pages": len(pypdf.PdfReader(pdf).pages)}


def staged(workspace: Path, out: Path) -> dict[str, Any]:
    """Make the report stage by stage and return the seconds of each."""
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    with stage("import"):
        from benchkit.analysis.summary import summarize
        from benchkit.ledger import read_results
        from benchkit.registry import Registry
        from benchkit.report.companions import Beside
        from benchkit.report.compose import compose
        from benchkit.report.drafts import Part, study_draft
        from benchkit.report.figures import Gallery
        from benchkit.report.html import render_html
        from benchkit.report.plotter import Plotter
        from benchkit.report.write import print_pdf

    with stage("read ledger"):
        results = read_results(workspace)
    with stage("summarise"):
        summary = summarize(results)

    class Timed(Gallery):
        def block(self, *arguments: Any) -> Any:
            with stage("figures"):
                return super().block(*arguments)

    with Plotter() as plotter:
        with stage("compose"):
            gallery = Timed(results=results, registry=Registry.installed(), plotter=plotter)
            report = compose(results, summary, gallery)
        seconds["compose"] -= seconds["figures"]
        with stage("choices, tables, JSON"):
            part = Part(results=results, summary=summary, gallery=gallery, report=report, changes=None)
            draft = study_draft(part, Beside())
    with stage("HTML"):
        (out / "report.html").write_text(render_html(draft.screen), encoding="utf-8")
    with stage("PDF"):
        (out / "report.pdf").write_bytes(print_pdf(draft))
    return {"processor": processor_seconds(), "seconds": seconds}


def run(name: str, workspace: Path) -> dict[str, Any]:
    """Measure one case and print it; return all figures."""
    case = CASES[name]
    if not (workspace / "ledger.db").exists():
        print(f"building {workspace} ({case.size.trials:,} trials; not measured)", flush=True)
        build(workspace, case.size)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def cost(kind: str, cache: str) -> Cost:
            (folder / kind).mkdir(exist_ok=True)
            return measure([f"--child={kind}", str(workspace), str(folder / kind)], {"BENCHKIT_CACHE": scratch + cache})

        load = os.getloadavg()[0]
        found = {"first": cost("whole", "/a"), "stages": cost("staged", "/b"), "again": cost("whole", "/a")}
    show(name, case, found, load)
    return {"case": name, "trials": case.size.trials, "load": load, **{key: asdict(one) for key, one in found.items()}}


def show(name: str, case: Case, found: Mapping[str, Cost], load: float) -> None:
    """Print a case as a table."""
    first, again, told = found["first"], found["again"], found["first"].told
    print(f"\n{name}: {case.size.trials:,} trials of {case.size.epochs} epochs, {told['pages']} pages; load {load:.1f}")
    print(f"  floor on two idle cores: {case.floor}")
    print(f"  {'':24} {'wall s':>8} {'processor s':>12} {'peak MiB':>9}")
    for title, cost in (("the report", first), ("the report again", again)):
        print(f"  {title:24} {cost.wall:8.1f} {cost.processor:12.1f} {cost.peak_mib:9.0f}")
    for title, seconds in found["stages"].told["seconds"].items():
        print(f"    {title:22} {seconds:8.1f}")
    print("  " + ", ".join(f"{kind} {size / 1e6:.2f} MB" for kind, size in told["bytes"].items()), flush=True)


def main() -> None:
    """Measure the cases asked for; as a child, make one report and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="which study; all when left out")
    parser.add_argument("--workspace", type=Path, help="where the studies are built, or were (default: anew)")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--child", choices=("whole", "staged"), help=argparse.SUPPRESS)
    parser.add_argument("paths", type=Path, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"whole": whole, "staged": staged}[options.child](*options.paths)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = options.workspace or Path(scratch)
        figures = [run(name, root / name) for name in options.case or CASES]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
