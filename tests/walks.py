"""How many files and functions a reader passes for five questions: `python tests/walks.py [--files]`, or `make walks`.

Each walk is taken once with a tracer over benchkit and its plugins alone: told are the files and functions that were
called, the calls (a generator that goes on counts as another), and the moves from one file to the next. `--files` lists
every file with its functions. What runs while a module is imported counts where it is a function; modules, classes,
lambdas and comprehensions do not. What worker, chart and PDF processes call is not seen.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from inspect import CO_NEWLOCALS
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any, NoReturn

import torch
from tiny_study import text_of

import benchkit
from benchkit.cli import main as run_benchkit
from benchkit.sweep.pool import LocalLine

ROOT = Path(benchkit.__file__).parents[1]
HOUSE = (str(ROOT / "benchkit") + "/", str(ROOT / "plugins") + "/")


@dataclass(slots=True)
class Walk:
    """What was called on the way to an answer."""

    functions: Counter[CodeType] = field(default_factory=Counter)
    moves: int = 0
    last: str = ""

    def step(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take note of a call: a profiler as `sys.setprofile` wants it."""
        code = frame.f_code
        is_function = code.co_flags & CO_NEWLOCALS and not code.co_name.startswith("<")
        if event == "call" and is_function and code.co_filename.startswith(HOUSE):
            self.functions[code] += 1
            self.moves += code.co_filename != self.last
            self.last = code.co_filename

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take note of all that this thread calls."""
        sys.setprofile(self.step)
        try:
            yield
        finally:
            sys.setprofile(None)

    def files(self) -> dict[str, list[str]]:
        """Return the functions of each file, by their names."""
        found: dict[str, list[str]] = {}
        for code in self.functions:
            found.setdefault(str(Path(code.co_filename).relative_to(ROOT)), []).append(code.co_qualname)
        return {name: sorted(functions) for name, functions in sorted(found.items())}


class FirstJob(BaseException):
    """A worker is told of a job."""


def told(line: LocalLine, frame: bytes) -> NoReturn:
    """Stop here, instead of passing a frame on to a worker."""
    raise FirstJob


def benchkit_command(*arguments: object) -> None:
    """Run the command line here, without what it prints."""
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        run_benchkit([str(argument) for argument in arguments])


def first_job(folder: Path, walk: Walk) -> None:
    """Walk from `benchkit sweep quickstart` to the first job of its first worker."""
    send, LocalLine.send = LocalLine.send, told  # type: ignore[method-assign]
    try:
        with walk.watching(), suppress(FirstJob):
            benchkit_command("sweep", "quickstart", "--workspace", folder / "new", "--jobs", 1, "--device", "cpu")
    finally:
        LocalLine.send = send  # type: ignore[method-assign]


def norm(folder: Path, walk: Walk) -> None:
    """Walk from the name of a norm to its module."""
    from benchkit.registry import Registry
    from benchkit.study.settings import PluginRef

    with walk.watching():
        Registry.installed().bind("norms", PluginRef(name="gn"))(16)


def eager_step(folder: Path, walk: Walk) -> None:
    """Walk through one step of training: a ResNet with gn, crop-flip and grad-clip, in float32 on the CPU."""
    from benchkit_models.resnet import resnet
    from benchkit_norms.group import GroupNorm
    from benchkit_regularizers.crop_flip import CropFlip
    from benchkit_regularizers.grad_clip import GradClip
    from engine_runs import make_settings, make_splits

    from benchkit.study.seeds import trial_seeds
    from benchkit.train.run import Plugins, build_run
    from benchkit.train.steps.executor import executor_for

    regularizers = (("crop-flip", CropFlip()), ("grad-clip", GradClip(max_norm=1.0)))
    plugins = Plugins(
        model=lambda *given: resnet(*given, n=1, width=4), norm=GroupNorm, regularizers=regularizers, figures=()
    )
    run = build_run(make_settings(), make_splits(), plugins, seeds=trial_seeds(5, "grid", 0), device="cpu")
    run.model.train()
    with run.randomness.in_charge():
        steps = executor_for(run).epoch(0)
        next(steps)
        with walk.watching():
            next(steps)


def number(*formats: str) -> Callable[[Path, Walk], None]:
    """Return the walk from a test accuracy in the ledger to a report's files."""

    def walked(folder: Path, walk: Walk) -> None:
        with walk.watching():
            benchkit_command(
                "report", "tiny", "--workspace", folder / "runs", "--out", folder / "-".join(formats), "--no-cache",
                "--format", ",".join(formats),
            )  # fmt: skip

    return walked


WALKS: dict[str, Callable[[Path, Walk], None]] = {
    "a study's name to the first job": first_job,
    "a norm's name to its module": norm,
    "one eager step": eager_step,
    "one number to HTML, PDF, tables and JSON": number("html", "pdf", "tables", "json"),
    "one number to JSON alone": number("json"),
}


def prepared(folder: Path) -> None:
    """Train a study of two conditions, and describe the plugins, so that no walk is the first to do so."""
    study = folder / "tiny.toml"
    study.write_text(text_of('[factors]\n"train.optimizer.lr" = [0.1, 0.3]\n'))
    arguments = ["sweep", study, "--workspace", folder / "runs", "--jobs", "1", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "benchkit", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    benchkit_command("studies", "check", "quickstart")


def main() -> None:
    """Take the walks and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", action="store_true", help="list every file and its functions")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--only", default="", help="the walks with this in their name")
    given = parser.parse_args()
    torch.set_num_threads(1)
    counts = {}
    with TemporaryDirectory() as name:
        prepared(Path(name))
        for title, take in WALKS.items():
            if given.only in title:
                take(Path(name), walk := Walk())
                files = walk.files()
                counts[title] = len(files)
                if not given.json:
                    print(
                        f"{title}: {len(files)} files, {len(walk.functions)} functions, "
                        f"{walk.functions.total():,} calls, {walk.moves:,} moves"
                    )
                for path, functions in files.items() if given.files else ():
                    print(f"    {path}: {', '.join(functions)}")
    if given.json:
        print(json.dumps(counts))


if __name__ == "__main__":
    main()
