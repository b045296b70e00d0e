"""MLflow: an experiment for each study, a run for each trial and condition, found again by a tag."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchkit import BenchkitError, TrackedRun, card
from benchkit_trackers.extras import need

ID, MARK = "benchkit.id", "benchkit.written"
LONGEST_NAME, LONGEST_PARAMETER, LONGEST_TAG = 250, 6000, 8000
METRICS_AT_ONCE, OTHERS_AT_ONCE = 1000, 100
CREATIONS = 3
"""How often a run is asked for before its failure is told."""

STATUS = {"done": "FINISHED", "pruned": "FINISHED", "running": "RUNNING"}
WHOLE = "long-and-renamed.json"
"""The artifact with whatever MLflow would cut or refuse, under its own name."""

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
IMPATIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    RETRIES: "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@card(
    title="MLflow",
    summary="Runs in an MLflow server or database; usually mlflow.db in the workspace.",
    url="https://mlflow.org",
)
class MlflowRuns:
    """Runs in the tracking store at an address: http(s), or a database's such as sqlite:///mlflow.db."""

    def __init__(self, folder: Path, address: str = "", /) -> None:
        """Open the store; raise `BenchkitError` for an address of files, which MLflow refuses."""
        for name, value in IMPATIENT.items():
            os.environ.setdefault(name, value)
        self._address = address or f"sqlite:///{folder.parent.resolve() / 'mlflow.db'}"
        self.viewed_by = "" if address else f"mlflow ui --backend-store-uri {shlex.quote(self._address)}"
        if self._address.startswith("file:") or "://" not in self._address:
            raise BenchkitError(
                "mlflow: the address names a folder, in which MLflow keeps no runs any more",
                hint="name a database, sqlite:///mlflow.db, or a server, http://HOST:PORT",
            )
        modules = need("mlflow", "mlflow.tracking", "mlflow.entities", "mlflow.exceptions")
        self._tracking, self._entities, self._exceptions = modules
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self._artifacts = folder.parent.resolve() / "mlflow-artifacts"
        self._experiments: dict[str, str] = {}
        self._known: dict[str, tuple[str, str]] = {}
        self._steps: dict[str, set[tuple[str, int]]] = {}

    def write(self, run: TrackedRun) -> None:
        """Write what MLflow lacks of a run; at a step that it has it keeps what it has."""
        experiment = self._experiments.get(run.study) or self._open(run.study)
        run_id, mark = self._known.get(run.id, ("", ""))
        if mark == run.mark:
            return
        if run.id not in self._steps:
            self._steps[run.id] = self._there(run_id) if run_id else set()
        run_id = run_id or self._create(experiment, run)
        self._known[run.id] = run_id, ""
        renamed: dict[str, Any] = {}
        self._log_metrics(run_id, run, renamed)
        self._log_texts(run_id, run, renamed)
        if renamed:
            self._client.log_text(run_id, json.dumps(renamed, indent=1, sort_keys=True), WHOLE)
        if run.ended:
            self._client.set_terminated(run_id, STATUS.get(run.state, "FAILED"), _milliseconds(run.finished))
        self._client.set_tag(run_id, MARK, run.mark)
        self._known[run.id] = run_id, run.mark
        if run.ended:
            del self._steps[run.id]

    def close(self) -> None:
        """Do nothing: all is written."""

    def _open(self, study: str) -> str:
        """Return the id of a study's experiment, and learn which runs it has."""
        local = self._address.startswith("sqlite:")
        if local:
            self._artifacts.parent.mkdir(parents=True, exist_ok=True)
        with open(self._artifacts.parent / ".mlflow.lock" if local else os.devnull, "a") as lock:
            if local:  # several processes that make its tables at once fail
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._client = self._tracking.MlflowClient(tracking_uri=self._address)
            there = self._client.get_experiment_by_name(study)
            place = self._artifacts.as_uri() if local else None
            experiment: str = there.experiment_id if there else self._client.create_experiment(study, place)
        token = None
        while token != "":
            page = self._client.search_runs([experiment], max_results=1000, page_token=token)
            for found in page:
                self._learn(found)
            token = page.token or ""
        self._experiments[study] = experiment
        return experiment

    def _learn(self, found: Any) -> None:
        """Remember a run of ours, or delete one that was made again: of two the first in MLflow's order stays."""
        tags, run_id = found.data.tags, found.info.run_id
        if ID not in tags:
            return
        if self._known.setdefault(tags[ID], (run_id, tags.get(MARK, "")))[0] != run_id:
            self._client.delete_run(run_id)

    def _create(self, experiment: str, run: TrackedRun) -> str:
        """Return the id of a new run, which a server that died before it answered may have made: that one is taken."""
        tags = {ID: run.id, "benchkit.kind": run.kind}
        attempts = CREATIONS
        while True:
            attempts -= 1
            try:
                with _asked_once():
                    made = self._client.create_run(experiment, _milliseconds(run.started), tags, run.name)
                return str(made.info.run_id)
            except self._exceptions.MlflowException:
                if not attempts:
                    raise
            for found in self._client.search_runs([experiment], f"tags.`{ID}` = '{run.id}'", max_results=1):
                return str(found.info.run_id)

    def _there(self, run_id: str) -> set[tuple[str, int]]:
        """Return the steps that a run has, by the metric: also those that a process wrote before it was killed."""
        names = self._client.get_run(run_id).data.metrics
        return {(name, one.step) for name in names for one in self._client.get_metric_history(run_id, name)}

    def _log_metrics(self, run_id: str, run: TrackedRun, renamed: dict[str, Any]) -> None:
        there = self._steps[run.id]
        last = run.rows[-1].step if run.rows else 0
        points = [(name, value, row.time, row.step) for row in run.rows for name, value in row.values.items()]
        points += [(name, value, run.finished, last) for name, value in run.scores.items()]
        metrics = []
        for name, value, time, step in points:
            key = _allowed(name)
            if key != name:
                renamed[key] = name
            if (key, step) not in there:
                metrics.append(self._entities.Metric(key, value, _milliseconds(time), step))
        for first in range(0, len(metrics), METRICS_AT_ONCE):
            batch = metrics[first : first + METRICS_AT_ONCE]
            self._client.log_batch(run_id, metrics=batch)
            there |= {(one.key, one.step) for one in batch}

    def _log_texts(self, run_id: str, run: TrackedRun, renamed: dict[str, Any]) -> None:
        tags = {f"benchkit.{name}": text for name, text in {**run.tags, "state": run.state}.items()}
        parameters = [
            self._entities.Param(*pair) for pair in _fitting(run.parameters, LONGEST_PARAMETER, renamed).items()
        ]
        fitting = [self._entities.RunTag(*pair) for pair in _fitting(tags, LONGEST_TAG, renamed).items()]
        for first in range(0, len(parameters), OTHERS_AT_ONCE):
            self._client.log_batch(run_id, params=parameters[first : first + OTHERS_AT_ONCE])
        self._client.log_batch(run_id, tags=fitting)


@contextmanager
def _asked_once() -> Iterator[None]:
    """Let MLflow's client send no request again by itself, which of a creation makes two."""
    before = os.environ[RETRIES]
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        os.environ[RETRIES] = before


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _fitting(texts: Mapping[str, str], longest: int, renamed: dict[str, Any]) -> dict[str, str]:
    """Return texts as MLflow takes them; what it would cut or refuse goes into `renamed`, whole."""
    found = {}
    for name, text in texts.items():
        key = _allowed(name)
        found[key] = text if len(text) <= longest else f"sha256 {_digest(text, 64)} of {len(text)} characters: {WHOLE}"
        if key != name or found[key] != text:
            renamed[key] = {"name": name, "value": text}
    return found


def _allowed(name: str) -> str:
    """Return a name that MLflow takes: other signs become `_`, and what was changed ends with a digest of the name."""
    plain = re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
    if posixpath.normpath(plain) != plain or plain.startswith(("/", "..")):
        plain = plain.replace("/", "_").replace("..", "_.") or "_"
    return name if plain == name and len(name) <= LONGEST_NAME else f"{plain[:240]}-{_digest(name, 8)}"


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
