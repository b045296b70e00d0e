"""What a report costs: wall time, processor time, peak memory and file sizes, in all and by stage.

    python tests/peers/bench_report.py [--case trials] [--workspace FOLDER] [--json FILE]

It builds a workspace with a synthetic study (1,000 trials of 100 epochs, 10,000 test images whose logits are stored;
and one whose PDF has about 60 pages), then makes the report as `benchkit report` does, without anything cached but
the plugins' cards. The first pass is the public command, timed as a whole; the second, in another process, tells the
seconds of each stage; then the command runs again with the first one's cache. Memory is that of the process and its
children (proportional set size where the system tells it: shared pages count once), sampled every 50 ms. The floors
stand beside the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
    "trials": Case(size=Size(figures=EXTRA), floor="30 s, 700 MiB"),
    "pages": Case(
        size=Size(conditions=24, repeats=5, slots=10, confirm=3, epochs=30, figures=2 * EXTRA),
        floor="PDF of 60 pages 25 s",
    ),
}


@dataclass(slots=True, kw_only=True)
class Cost:
    """Seconds by the clock and of all processors, peak memory in MiB, and what else is known."""

    wall: float
    processor: float
    peak_mib: float
    told: Mapping[str, Any] = field(default_factory=dict)


def measure(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Cost, str]:
    """Run a command, watch the memory of its processes, and return what it cost and what it printed."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        child = subprocess.Popen(command, stdout=printed, env={**os.environ, **environment})
        peak, used = 0, None
        while used is None:
            peak = max(peak, resident(child.pid))
            time.sleep(0.05)
            done, status, found = os.wait4(child.pid, os.WNOHANG)
            used = found if done else None
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        printed.seek(0)
        told = printed.read()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}: {told}")
    return Cost(wall=wall, processor=used.ru_utime + used.ru_stime, peak_mib=peak / 2**20), told


def resident(pid: int) -> int:
    """Return the bytes in memory of a process and its descendants; what several share counts once."""
    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            told = process.memory_full_info()
            total += getattr(told, "pss", told.rss)
        except psutil.Error:
            continue
    return total


def whole(workspace: Path, out: Path, cache: Path) -> Cost:
    """Run `benchkit report`; tell the sizes of its files in bytes, and the PDF's pages."""
    import pypdf

    command = [sys.executable, "-m", "benchkit", "report", "--workspace", str(workspace), "--out", str(out)]
    cost, printed = measure([*command, "--format", "html,pdf"], {"BENCHKIT_CACHE": str(cache)})
    paths = [Path(line) for line in printed.split() if Path(line).exists()]
    found = {path.suffix[1:]: path.stat().st_size for path in paths if path.is_file()}
    found["beside"] = sum(path.stat().st_size for path in paths[-1].rglob("*") if path.is_file())
    pdf = next(path for path in paths if path.suffix == ".pdf")
    cost.told = {"bytes": found, "pages": len(pypdf.PdfReader(pdf).pages)}
    return cost


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
        from benchkit.report.context.compose import compose
        from benchkit.report.figures.chart_worker import ChartWorker
        from benchkit.report.figures.figure_set import FigureSet
        from benchkit.report.files.exports import StudyBuild
        from benchkit.report.files.html import render_html
        from benchkit.report.files.pdf import PdfPrinter
        from benchkit.report.write import prepare_pdf, screen_report, single_build

    with stage("read ledger"):
        results = read_results(workspace)
    with stage("summarise"):
        summary = summarize(results)

    class Timed(FigureSet):
        def block(self, *arguments: Any) -> Any:
            with stage("figures"):
                return super().block(*arguments)

    with ChartWorker() as chart_worker:
        with stage("compose"):
            figure_set = Timed(results=results, registry=Registry.installed(), chart_worker=chart_worker)
            report = compose(results, summary, figure_set)
        seconds["compose"] -= seconds["figures"]
        with stage("choices, tables, JSON"):
            part = StudyBuild(results=results, summary=summary, figure_set=figure_set, report=report, changes=None)
            draft = single_build(part, {"tables", "json"})
            screen = screen_report(draft, [part])
    with stage("HTML"):
        (out / "report.html").write_text(render_html(screen), encoding="utf-8")
    with stage("PDF"), PdfPrinter() as printer:
        prepare_pdf(draft, printer)
        (out / "report.pdf").write_bytes(printer.finish())
    return {"seconds": seconds}


def run(name: str, workspace: Path) -> dict[str, Any]:
    """Measure one case and print it; return all figures."""
    case = CASES[name]
    if not (workspace / "ledger.db").exists():
        print(f"building {workspace} ({case.size.trials:,} trials; not measured)", flush=True)
        build(workspace, case.size)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        load = os.getloadavg()[0]
        for cache in ("a", "b"):  # a sweep has looked at the plugins before
            looked = [sys.executable, "-m", "benchkit", "plugins", "list", "--check"]
            measure(looked, {"BENCHKIT_CACHE": str(folder / cache)})
        first = whole(workspace, folder / "whole", folder / "a")
        (folder / "staged").mkdir()
        command = [sys.executable, __file__, "--child", str(workspace), str(folder / "staged")]
        stages, printed = measure(command, {"BENCHKIT_CACHE": str(folder / "b")})
        stages.told = json.loads(printed.splitlines()[-1])
        found = {"first": first, "stages": stages, "again": whole(workspace, folder / "whole", folder / "a")}
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
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("paths", type=Path, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(staged(*options.paths)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = options.workspace or Path(scratch)
        figures = [run(name, root / name) for name in options.case or CASES]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
