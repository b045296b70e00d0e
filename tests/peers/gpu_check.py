"""Whether benchkit is right and how fast it is on this machine's GPU, in five minutes: `make gpu-check`.

    python3 tests/peers/gpu_check.py [--seconds 300] [--device cuda] [--out build/gpu-check]

It takes the Python that runs it and what is installed there, with what `make gpu-wheels` gathered beside it
(build/gpu-site), and needs no network. The device first, then the steps that are recorded, four rows of the benchmark
beside a tutorial's script, a sweep of 16, the other tests that need a GPU, and smokes of built-in studies. Each part's
outcome is on disk when the next begins (results.json, page.md). Each part leaves those behind it the least that they
need; what there was no time for is listed as not run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "gpu-site"
STEPS = "tests/test_step_executor_gpu.py"
TESTED = re.compile(r"mark\.gpu\b")
KEPT, SMOKE = ("quickstart", "norms-cifar10", "transfer-cifar10", "skip-coco5"), 15.0
"""Studies of unlike kinds, for the smoke of each of which so many seconds are kept."""

ENOUGH = 5.0
"""Seconds below which no further part is begun."""

EXPECTED = {
    "resnet14-b128": "160,000 to 250,000 images/s, 14 to 22 times the script's",
    "resnet14-b8": "16,000 to 18,000 images/s, 11 to 12 times the script's",
    "mlp-b128": "about 1,000,000 images/s, 45 to 55 times the script's",
    "resnet18-b128": "70,000 to 90,000 images/s, 7 to 8 times the script's, 30% to 38% of the matrix rate",
    "sweep-16": "per hour, 9 times the script's trials one at a time, 10 times four by turns, 25 in one process",
}
"""Estimated on paper for an H200, from counted kernels and bytes, before any of it had run on a card."""

DEVICE = """
import json, sys, torch
device = torch.device(sys.argv[1])
total = torch.ones(1, device=device).add_(1).item()
card = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
print(json.dumps({
    "python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda, "two": total,
    "name": card.name if card else "cpu", "capability": f"{card.major}.{card.minor}" if card else "",
}))
"""
"""The first call to the device: what starts it, and one addition there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A command, and the most seconds that it may take; `expected` is what is known of its outcome beforehand.

    `least` seconds of the whole are kept for it from the parts before.
    """

    name: str
    command: Sequence[str]
    seconds: float
    least: float = 0.0
    expected: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a part: `ok`, `failed`, `late` or `not run`, after so many seconds, and its last words."""

    name: str
    state: str
    expected: str
    seconds: float = 0.0
    words: str = ""


def parts(device: str) -> Iterator[Part]:
    """Yield the parts in the order of what is learnt first."""
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:timeout", "-p", "no:cacheprovider", "-p", "no:xdist")
    yield Part(name="device", command=(sys.executable, "-c", DEVICE, device), seconds=60, expected="it starts")
    yield Part(name="recorded steps", command=(*pytest, STEPS), seconds=120, least=60, expected="all pass")
    for name, expected in EXPECTED.items():
        command = (sys.executable, __file__, "--row", name, "--device", device)
        yield Part(name=name, command=command, seconds=90, least=20, expected=expected)
    tested = (
        f"tests/{path.name}" for path in sorted((ROOT / "tests").glob("test_*.py")) if f"tests/{path.name}" != STEPS
    )
    others = [name for name in tested if TESTED.search((ROOT / name).read_text(encoding="utf-8"))]
    yield Part(name="other tests", command=(*pytest, "-m", "gpu", *others), seconds=120, least=40, expected="all pass")
    studies = sorted(path.stem for path in (ROOT / "benchkit" / "studies").glob("*.toml"))
    for study in (*KEPT, *(one for one in studies if one not in KEPT)):
        line = (sys.executable, "-m", "benchkit", "sweep", study, "--smoke", "--device", device)
        least = SMOKE if study in KEPT else 0.0
        yield Part(name=f"smoke {study}", command=line, seconds=60, least=least, expected="ends")


def environment(scratch: Path) -> dict[str, str]:
    """Return the environment of the parts: this tree is what is installed, beside what was gathered."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = scratch / "site" / f"benchkit-{project['version']}.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: benchkit\nVersion: {project['version']}\n")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [[f"[{group}]", *(f"{name} = {value}" for name, value in ones.items())] for group, ones in groups.items()]
    (told / "entry_points.txt").write_text("\n".join(line for group in lines for line in group))
    places = (scratch / "site", SITE, ROOT, ROOT / "plugins", ROOT / "tests", ROOT / "tests" / "peers")
    given = os.environ.get("PYTHONPATH", "")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, places), *([given] if given else [])]),
        "BENCHKIT_WORKSPACE": str(scratch / "runs"),
        "BENCHKIT_CACHE": str(scratch / "cache"),
        "PYTHONUNBUFFERED": "1",
    }


def outcome_of(part: Part, seconds: float, given: Mapping[str, str], log: Path) -> Outcome:
    """Run a part for so many seconds at most; all that it prints goes into `log`."""
    began = time.monotonic()
    with log.open("wb") as file:
        running = subprocess.Popen(
            part.command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=given, start_new_session=True
        )
        try:
            state = "failed" if running.wait(seconds) else "ok"
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)  # what it has started, too
            running.wait()
            state = "late"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    taken = time.monotonic() - began
    return Outcome(
        name=part.name, state=state, expected=part.expected, seconds=taken, words=" / ".join(lines[-3:])[-400:]
    )


def check(device: str, seconds: float, out: Path) -> Iterator[Outcome]:
    """Yield every part's outcome; without a device that starts, nothing else is run."""
    end, broken = time.monotonic() + seconds, False
    with tempfile.TemporaryDirectory() as folder:
        given, planned = environment(Path(folder)), list(parts(device))
        for place, part in enumerate(planned):
            left = end - time.monotonic()
            kept = sum(one.least for one in planned[place + 1 :])
            if broken or left < ENOUGH:
                yield Outcome(name=part.name, state="not run", expected=part.expected)
                continue
            log = out / f"{part.name.replace(' ', '-')}.log"
            outcome = outcome_of(part, min(left, part.seconds, max(part.least, left - kept)), given, log)
            broken = part.name == "device" and outcome.state != "ok"
            yield outcome


def page(outcomes: Sequence[Outcome]) -> str:
    """Return what was expected and what came, as Markdown, below how many parts ended in which way."""
    counts = Counter(one.state for one in outcomes)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    cells = [[one.name, one.state, f"{one.seconds:.0f}", one.expected, one.words] for one in outcomes]
    rows = ["| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in row) + " |" for row in cells]
    head = [f"{time.strftime('%d %B %Y')}, {len(outcomes)} parts: {told}.", ""]
    return "\n".join([*head, "| part | state | seconds | expected | came |", "|---|---|---|---|---|", *rows, ""])


def row(name: str, device: str) -> None:
    """Measure one row of the benchmark beside the script, once, and print it; a sweep has a quarter of its images."""
    from dataclasses import replace

    from rounds import Setting, measure
    from workloads import workload_of

    on_cpu = device == "cpu"
    workload = workload_of(name, device, quick=on_cpu)
    if workload.trials > 1 and not on_cpu:
        workload = replace(workload, count=workload.count // 4, longer=1)
    setting = Setting(rounds=1, epochs=2, threads=2, workers=min(8, os.cpu_count() or 1), device=device, quick=on_cpu)
    print(measure(workload, ["script", "benchkit"], setting).text())


def main() -> int:
    """Check, tell each part as it ends, and return 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--device", default="cuda", help="cpu tries the check itself")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-check")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        row(given.row, given.device)
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for outcome in check(given.device, given.seconds, given.out):
        outcomes.append(outcome)
        print(f"{outcome.state:8}{outcome.seconds:5.0f} s  {outcome.name}: {outcome.words}", flush=True)
        (given.out / "results.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
        (given.out / "page.md").write_text(page(outcomes))
    return int(any(one.state in ("failed", "late") for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
