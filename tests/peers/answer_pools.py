"""The repeats that `bench_answer.py` draws studies from: really trained by the public command, with their seconds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from benchkit.analysis.trained_models import answers
from benchkit.ledger import read_results
from benchkit.results import WAS_COMPILED, StudyResults, Trial
from benchkit.storage import decode, encode, write_atomically

STUDY = """
title = "Norms on {name}, by the time to their ranking"
seed = 2026
[data]
{data}
[model]
name = "resnet"
{model}
[train]
epochs = {epochs}
batch_size = {batch}
threads = 1
compile = "{compile}"
optimizer = {{ name = "sgd", lr = 0.1, momentum = 0.9 }}
schedule = {{ name = "one-cycle", max_lr = 0.2 }}
[[regularizers]]
name = "weight-decay"
strength = 5e-4
[[regularizers]]
name = "grad-clip"
max_norm = 5.0
{more}
[factors]
"model.norm" = ["bn", "gn", "ln", "none"]
[repeats]
n = {repeats}
"""
WAYS = {"eager": "never", "compiled": "always"}
"""How steps are taken, and the study's word for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A study to answer: how it is told, how many real repeats of each condition are asked, and how many it may add."""

    name: str
    data: str
    model: str
    epochs: int
    batch: int
    repeats: int
    most: int
    more: str = ""

    def study(self, way: str, repeats: int) -> str:
        """Return the study file that trains it, with steps taken in one of `WAYS`."""
        return STUDY.format(
            name=self.name, data=self.data, model=self.model, epochs=self.epochs, batch=self.batch, more=self.more,
            compile=WAYS[way], repeats=repeats,
        )  # fmt: skip


QUESTIONS = {
    "digits": Question(
        name="digits", data='name = "digits"\nval_size = 300', model="n = 1\nwidth = 8", epochs=12, batch=64,
        repeats=40, most=20, more='[[regularizers]]\nname = "dropout"\nrate = 0.1',
    ),
    "cifar10": Question(
        name="cifar10", data='name = "cifar10"\ntrain_size = 5000\nval_size = 2000', model="n = 2", epochs=10, batch=64,
        repeats=10, most=10, more='[[regularizers]]\nname = "crop-flip"',
    ),
}  # fmt: skip
"""The quickstart's norms on digits, and the same norms on a tenth of CIFAR-10's training images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A trained repeat of a condition: test accuracy in 0..1, seconds from its start to its end, and by epoch.

    `right` tells as hexadecimal digits, one bit an image, which test images it named rightly; `seconds` and `losses`
    (on validation images) are by epoch.
    """

    condition: str
    index: int
    accuracy: float
    wall: float
    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    right: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Real repeats of each condition of one study, whose steps were taken one `way`, `jobs` trials at a time.

    `starts` are, by sweep, the seconds from its command to its first trial; `loads` the machine's load before and
    after each. `skipped` counts repeats that did not end as done, whose random seeds are left out of all conditions.
    """

    question: str
    way: str
    jobs: int
    conditions: tuple[str, ...]
    images: int
    repeats: tuple[Repeat, ...]
    starts: tuple[float, ...]
    loads: tuple[float, ...]
    machine: str
    cores: int
    torch: str
    dated: str
    skipped: int = 0

    @property
    def size(self) -> int:
        """Return how many repeats there are of each condition."""
        return len({one.index for one in self.repeats})

    def table(self, field: str) -> np.ndarray:
        """Return a field of the repeats as (size, conditions), or (size, conditions, epochs)."""
        indices = sorted({one.index for one in self.repeats})
        found = {(one.index, one.condition): getattr(one, field) for one in self.repeats}
        return np.array([[found[index, name] for name in self.conditions] for index in indices])

    def right(self) -> np.ndarray:
        """Return bool (size, conditions, images): which test images were named rightly."""
        packed = [[np.frombuffer(bytes.fromhex(text), np.uint8) for text in row] for row in self.table("right")]
        return np.unpackbits(np.array(packed), axis=-1, count=self.images).astype(bool)

    def costs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a study's seconds: by repeat and condition, by epoch too, and what each condition takes once.

        A repeat takes its epochs and what its condition's repeats usually take beside them. Epochs are as long as those
        after the first, in which code may be compiled; what the slowest start of a condition took beyond that is paid
        once.
        """
        epochs, wall = self.table("seconds").astype(float), self.table("wall").astype(float)
        if epochs.shape[-1] > 1:
            epochs[..., 0] = np.minimum(epochs[..., 0], epochs[..., 1:].max(-1))
        rest = np.median(wall - epochs.sum(-1), axis=0, keepdims=True).clip(min=0)
        whole = epochs.sum(-1) + rest
        return whole, epochs, (wall - whole).max(0).clip(min=0)


def path_of(folder: Path, question: str, way: str) -> Path:
    """Return where a pool is kept."""
    return folder / f"{question}-{way}.json"


def known_pools(folder: Path) -> list[Pool]:
    """Return the pools that a folder holds, in the order of their names."""
    named = [path_of(folder, question, way) for question in QUESTIONS for way in WAYS]
    return [decode(Pool, json.loads(path.read_text(encoding="utf-8"))) for path in named if path.exists()]


def gather(folder: Path, question: Question, way: str, repeats: int, jobs: int, options: Sequence[str]) -> Pool:
    """Train what a pool lacks, as far as the sweep's `options` (such as --hours) let it; return and keep the pool.

    Whatever has ended stays, also when this is broken off: the sweep's workspace is in the folder. Ends the program
    with what the sweep said when it fails.
    """
    place = (folder / f"{question.name}-{way}").resolve()
    place.mkdir(parents=True, exist_ok=True)
    study, runs = place / f"{question.name}.toml", place / "runs"
    study.write_text(question.study(way, repeats), encoding="utf-8")
    line = [sys.executable, "-m", "benchkit", "sweep", str(study), "--workspace", str(runs), "--jobs", str(jobs)]
    began, before = time.time(), os.getloadavg()[0]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(place / "compiled-models")}
    done = subprocess.run([*line, *options], capture_output=True, text=True, check=False, env=environment)
    results = read_results(runs)
    started = [trial.started for trial in results.trials if trial.started >= began]
    pool = pool_of(results, question.name, way, jobs, starts=[min(started) - began] if started else [],
                   loads=[before, os.getloadavg()[0]])  # fmt: skip
    path = path_of(folder, question.name, way)
    if path.exists():
        earlier = decode(Pool, json.loads(path.read_text(encoding="utf-8")))
        pool = decode(Pool, {**encode(pool), "starts": [*earlier.starts, *pool.starts],
                             "loads": [*earlier.loads, *pool.loads]})  # fmt: skip
    write_atomically(path, (json.dumps(encode(pool)) + "\n").encode())
    if done.returncode:
        sys.exit(f"{' '.join([*line, *options])}\n{done.stdout}{done.stderr}")
    return pool


def pool_of(
    results: StudyResults, question: str, way: str, jobs: int, *, starts: Sequence[float], loads: Sequence[float]
) -> Pool:
    """Return the repeats that a workspace holds whose random seed has been trained in every condition."""
    import torch

    from benchkit.train.processor import processor

    trials: dict[int, dict[str, Trial]] = {}
    for trial in results.trials:
        trials.setdefault(trial.index, {})[trial.condition.label] = trial
    names = tuple(condition.label for condition in results.conditions)
    whole = {index: found for index, found in sorted(trials.items()) if _all_done(found, names)}
    ended = sum(len(found) == len(names) and all(t.finished for t in found.values()) for found in trials.values())
    truth = results.labels.get("test")
    repeats = [_repeat(found[name], name, way, truth) for found in whole.values() for name in names]
    return Pool(
        question=question, way=way, jobs=jobs, conditions=names,
        images=0 if truth is None else len(truth),
        repeats=tuple(repeats), starts=tuple(starts), loads=tuple(loads), machine=processor(),
        cores=os.cpu_count() or 1, torch=torch.__version__, dated=date.today().isoformat(),
        skipped=ended - len(whole),
    )  # fmt: skip


def _all_done(found: dict[str, Trial], names: Iterable[str]) -> bool:
    return all(name in found and found[name].state == "done" for name in names)


def _repeat(trial: Trial, name: str, way: str, truth: np.ndarray | None) -> Repeat:
    assert trial.outcome is not None
    if (WAS_COMPILED in trial.outcome.notes) != (way == "compiled"):
        sys.exit(f"{name}, repeat {trial.index}: steps are not {way}: {'; '.join(trial.outcome.notes)}")
    pair = answers(trial, truth)
    assert pair is not None
    return Repeat(
        condition=name,
        index=trial.index,
        accuracy=trial.outcome.metrics["test"].accuracy,
        wall=trial.finished - trial.started,
        seconds=tuple(record.seconds for record in trial.history),
        losses=tuple(record.val_loss for record in trial.history),
        right=np.packbits(pair[0] == pair[1]).tobytes().hex(),
    )


def start(pool: Pool) -> float:
    """Return the seconds that a sweep of this study needs before its first trial."""
    return statistics.median(pool.starts) if pool.starts else 0.0
