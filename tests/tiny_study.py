"""A study that trains in milliseconds, and ways to sweep it: in this process, in a worker's, or by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import optuna
import pytest

import benchkit.sweep.orchestration
from benchkit.cli import main
from benchkit.ledger import Ledger
from benchkit.ledger.claims import Claim, Queue
from benchkit.plan import Plan, make_plan
from benchkit.registry import Registry
from benchkit.results import Cost, EpochRecord, Outcome, SplitMetrics, StudyResults, Trial
from benchkit.study import Study
from benchkit.study.studyfile import parse_study
from benchkit.sweep.devices import Device
from benchkit.sweep.messages import Event, Job, Printed, Train, TrialAnswer, WorkerLost, dump, event_of, order_of
from benchkit.sweep.orchestration import Request, sweep
from benchkit.sweep.progress import View

if TYPE_CHECKING:
    from benchkit.sweep.training import Telling

DATA = Path(tempfile.gettempdir()) / f"benchkit-test-data-{os.getuid()}"
PATIENCE = 300.0
"""Seconds after which something that never comes fails a test: none depends on how fast this machine is."""

CHANGING = {"seconds", "images_per_second", "peak_memory", "energy", "device", "node"}
"""What two equal trainings need not have in common."""

BASE = """
title = "Tiny"
seed = 3
[data]
name = "digits"
train_size = 60
val_size = 30
test_size = 30
[model]
name = "mlp"
hidden = [8]
[train]
epochs = {epochs}
batch_size = 20
precision = "float32"
optimizer = {{ name = "sgd", lr = 0.1 }}
"""
FACTOR = """
[factors]
"train.optimizer.lr" = [0.1, 0.3]
"""
SEARCH = """
[search]
trials = 4
sampler = "tpe"
space."train.optimizer.lr" = { low = 0.01, high = 1.0, log = true }
"""

RECORD = EpochRecord(
    epoch=1, train_loss=0.1, train_accuracy=0.2, val_loss=1e-300, val_accuracy=0.4, learning_rate=0.1,
    gradient_norm=3.0, seconds=0.1, images_per_second=1e5, peak_memory=12.5,
)  # fmt: skip
METRICS = SplitMetrics(
    n=3, loss=0.1, accuracy=1 / 3, micro_f1=0.3, macro_f1=0.2, calibration_error=0.1,
    class_accuracy=(0.5, float("nan")), confusion=((1, 2), (0, 0)),
)  # fmt: skip
COST = Cost(parameters=1, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="")
DONE = Outcome(state="done", metrics={"val": METRICS, "test": METRICS}, cost=COST)


def text_of(*parts: str, epochs: int = 3, repeats: int = 2) -> str:
    return BASE.format(epochs=epochs) + "".join(parts) + f"\n[repeats]\nn = {repeats}\n"


def study_of(*parts: str, name: str = "tiny", epochs: int = 3, repeats: int = 2, **more: Any) -> Study:
    return parse_study(text_of(*parts, epochs=epochs, repeats=repeats), name=name, **more)


def queue_of(workspace: Path, study: Study) -> tuple[Ledger, Plan, Queue]:
    ledger, plan = Ledger(workspace), make_plan(study)
    ledger.register(plan, {"sets": []}, "")
    ledger.enqueue(plan)
    return ledger, plan, Queue(ledger, plan)


def finish_all(ledger: Ledger, plan: Plan, outcome: Callable[[Claim], Outcome | None] = lambda claim: None) -> None:
    """Take all trials of a plan and end them at once: as `outcome` says, or as done."""
    cost = Cost(parameters=7, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="")
    done = Outcome(state="done", metrics={"val": METRICS, "test": METRICS}, cost=cost)
    waiting = Queue(ledger, plan)
    while claim := waiting.next():
        claim.finish(outcome(claim) or done)


class Listener(View):
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.events: list[Event] = []

    def stage(self, title: str, states: Mapping[str, int], total: int) -> None:
        self.stages.append(title)

    def event(self, worker: int, event: Event) -> None:
        self.events.append(event)


@contextmanager
def redirected(wanted: bool) -> Iterator[bytearray]:
    """Take what is printed during the block, by C libraries as well, as a worker's pipe would."""
    printed = bytearray()
    if not wanted:
        yield printed
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield printed
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for place, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, place)
                os.close(descriptor)
            file.seek(0)
            printed += file.read()


class InlinePool:
    """A pool whose one worker is this process: as the real one to a sweep, without three seconds of imports."""

    changes = waiting = False

    def has(self, number: int) -> bool:
        return True

    def __init__(self, seats: Sequence[Device], threads: int, logs: Path, per_process: int = 1) -> None:
        from benchkit.sweep.work import WorkerTasks

        self.size = 1
        self._work = WorkerTasks()
        self._doing: deque[tuple[Job | Train, Telling]] = deque()
        self._answer: TrialAnswer | None = None
        self._stopped = False

    def start(self) -> None:
        return

    def give(self, number: int, job: Job) -> None:
        self.do(replace(job, device="cpu"))

    def send(self, number: int, order: Train | TrialAnswer) -> None:
        if isinstance(order, TrialAnswer):
            self._answer = order
        else:
            self.do(order_of(dump(order)))  # type: ignore[arg-type]

    def do(self, order: Job | Train) -> None:
        self._doing.append((order, self._work.do(order)))

    def events(self, wait: float) -> Iterator[tuple[int, Event]]:
        while self._doing:
            order, telling = self._doing[0]
            answer, self._answer = self._answer, None
            try:
                with redirected(isinstance(order, Train)) as printed:
                    event = telling.send(answer)
            except StopIteration:
                self._doing.popleft()
                event = None
            if isinstance(order, Train) and printed:
                yield 0, Printed(trial=order.trial, lease=order.lease, content=bytes(printed))
            if event is not None:
                yield 0, event_of(dump(event))
        if self._stopped:
            yield 0, WorkerLost(code=0)

    def retire(self, number: int) -> None:
        self._doing.clear()

    def stop(self) -> None:
        self._doing.clear()
        self._stopped = True

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def sweep_here(
    monkeypatch: pytest.MonkeyPatch, workspace: Path, study: Study, *, view: Listener | None = None, **request: Any
) -> Counter[str]:
    """Sweep a study in this process; return how many of its trials ended in each state."""
    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", InlinePool)
    asked = Request(study=study, workspace=workspace, **{"data_root": DATA, "jobs": 1, **request})
    return +sweep(asked, Registry.installed(asked.plugins), view or Listener())


@contextmanager
def optunas_storage(workspace: Path) -> Iterator[optuna.storages.RDBStorage]:
    """Open a workspace's ledger as one who knows Optuna alone does."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{workspace / 'ledger.db'}")
    yield storage
    storage.engine.dispose()


def environment() -> dict[str, str]:
    """Return the environment of a benchkit command: its data here, one thread, nothing of the user's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BENCHKIT_")}
    return {**kept, "BENCHKIT_DATA": str(DATA), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "benchkit", *(str(argument) for argument in arguments)]


WAITING = f"""
import sys
from benchkit import cli
from benchkit.sweep import stopping
stopping.GRACE = cli.LATEST = {PATIENCE}
sys.exit(cli.main())
"""


def waiting_command(*arguments: object) -> list[str]:
    """Return a benchkit command that, told to stop, waits for its workers as long as they take, on a slow machine too.

    By itself it would end after some seconds as it is, with epochs unsaved and nothing said.
    """
    return [sys.executable, "-c", WAITING, *(str(argument) for argument in arguments)]


HELD = """
import time
from dataclasses import dataclass
from pathlib import Path
from benchkit import card

@card(title="Held", summary="Ends an epoch once `go` is there or fewer trials have ended than `held` says.")
@dataclass(frozen=True)
class Held:
    epoch: int = 1

    def stop(self, history):
        most = Path("held")
        while len(history) == self.epoch and most.exists() and not Path("go").exists():
            if len(list(Path("benchkit-runs").rglob("result.json"))) < int(most.read_text()):
                break
            time.sleep(0.01)
        return False

PLUGINS = {"benchkit.regularizers": {"held": Held}}
"""


def write_held(folder: Path, most: int, *parts: str, at: int, **more: Any) -> tuple[Path, Path]:
    """Write a study of which no more than `most` trials end before a file `go` is there; return it and its plugin.

    The others wait in their epoch `at`, so that what a test does meanwhile may take as long as it does.
    """
    (folder / "held.py").write_text(HELD)
    (folder / "held").write_text(str(most))
    held = f'[[regularizers]]\nname = "held"\nepoch = {at}\n'
    return write(folder / "tiny.toml", held, *parts, **more), folder / "held.py"


def run_command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder to its end."""
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )


def run_here(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: object, pool: type = InlinePool) -> int:
    """Run the command line in this process and return its exit status; trains here too unless `pool` is the real one.

    What it prints is captured by pytest. It spares the seconds in which a process of its own imports.
    """
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        for name in os.environ.keys() - environment().keys():
            patch.delenv(name)
        for name, value in environment().items():
            patch.setenv(name, value)
        patch.setattr(benchkit.sweep.orchestration, "Pool", pool)
        return main([str(argument) for argument in arguments])


def facts_of(trial: Trial) -> dict[str, Any]:
    """Return everything of a trial that must be the same in an equal training."""
    from benchkit.storage import encode

    outcome = encode(trial.outcome) if trial.outcome else {}
    history = [{key: value for key, value in encode(record).items() if key not in CHANGING} for record in trial.history]
    logits: Mapping[str, bytes] = {}
    if (trial.folder / "predictions.safetensors").exists():
        logits = {split: trial.predictions(split).tobytes() for split in ("val", "test")}  # type: ignore[arg-type]
    return {
        "state": trial.state,
        "params": dict(trial.params),
        "history": history,
        "metrics": outcome.get("metrics"),
        "selected": outcome.get("selected_epoch"),
        "logits": logits,
    }


def all_facts(results: StudyResults) -> dict[tuple[str, int], dict[str, Any]]:
    return {(trial.condition.label, trial.index): facts_of(trial) for trial in results.trials}


def write(path: Path, *parts: str, **more: Any) -> Path:
    path.write_text(text_of(*parts, **more), encoding="utf-8")
    return path
