"""Trials as runs of MLflow, TensorBoard and Weights & Biases: read back as they were written, and nothing twice."""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from benchkit_trackers.mlflow_runs import MlflowRuns
from benchkit_trackers.tensorboard_runs import TensorboardRuns
from benchkit_trackers.wandb_runs import WandbRuns
from live_pages import kept_ports, until
from test_cleaning import scored
from tiny_study import DONE, FACTOR, RECORD, finish_all, queue_of, study_of

from benchkit import BenchkitError, TrackedRow, TrackedRun
from benchkit.cli import main
from benchkit.ledger import Ledger, read_results
from benchkit.plan import make_plan
from benchkit.trackers import following
from benchkit.trackers.address import tracker_of
from benchkit.trackers.runs import runs_of

LONG = "long " * 1800
RUN = TrackedRun(
    id="0123456789abcdef01234567",
    kind="trial",
    study="norms",
    name='model.norm=bn@"x", repeat 0',
    state="done",
    started=1.7e9,
    finished=1.7e9 + 1500,
    parameters={"model.norm": "bn", "a=b@c": "strange", "data.text": LONG, "train.epochs": "1500"},
    tags={"condition": 'model.norm=bn@"x"', "attempt": "0"},
    rows=tuple(
        TrackedRow(
            step=step,
            time=1.7e9 + step,
            values={"val_loss": math.nan if step == 7 else 1 / step, "val.m=1": float(step), "val.m@1": -float(step)},
        )
        for step in range(1, 1501)
    ),
    scores={"test.accuracy": 0.5, "test.loss": math.inf},
)
SHORT = replace(RUN, rows=RUN.rows[:9], id="f" * 24, name="another")


def study_in(folder: Path) -> Path:
    """Return a workspace with two conditions of four done repeats each and one that diverged."""
    ledger, plan = Ledger(folder), make_plan(study_of(FACTOR, repeats=5))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan, scored)
    return folder


@pytest.fixture(scope="module")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "mlflow"


def mlflow_client(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder.parent / 'mlflow.db'}")


def mlflow_runs(client: Any, study: str) -> dict[str, Any]:
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id])
    found = {run.data.tags["benchkit.id"]: run for run in runs}
    assert len(found) == len(runs), "no run is there twice"
    return found


def points(client: Any, run: Any) -> dict[str, list[tuple[int, int, float]]]:
    """Return (step, milliseconds, value) of each metric."""
    found = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(one.step, one.timestamp, one.value) for one in history] for name, history in found.items()}


def test_mlflow_reads_back_what_was_written(mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: asked.append(given))
    tracker = MlflowRuns(mlflow_folder)
    tracker.write(RUN)
    assert not asked and os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"
    client = mlflow_client(mlflow_folder)
    (run,) = mlflow_runs(client, "norms").values()
    assert (run.info.run_name, run.info.status) == (RUN.name, "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (1_700_000_000_000, 1_700_001_500_000)
    assert run.data.params["model.norm"] == "bn" and run.data.tags["benchkit.condition"] == RUN.tags["condition"]
    place = Path(client.download_artifacts(run.info.run_id, "long-and-renamed.json"))
    whole = json.loads(place.read_text())
    named = {key: value["name"] if isinstance(value, dict) else value for key, value in whole.items()}
    assert whole["data.text"]["value"] == LONG and LONG not in run.data.params["data.text"]
    assert {named.get(name, name) for name in run.data.params} == set(RUN.parameters)
    history = {named.get(name, name): rows for name, rows in points(client, run).items()}
    expected = {
        name: [(row.step, round(1000 * row.time), row.values[name]) for row in RUN.rows] for name in RUN.rows[0].values
    }
    assert str(history["val_loss"]) == str(expected["val_loss"])
    assert history["val.m=1"] == expected["val.m=1"] and history["val.m@1"] == expected["val.m@1"]
    assert history["test.accuracy"] == [(1500, 1_700_001_500_000, 0.5)]


def test_mlflow_gets_nothing_twice_also_after_a_kill(mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MlflowRuns(mlflow_folder)
    tracker.write(replace(SHORT, rows=SHORT.rows[:8], state="running", finished=0.0, scores={}))

    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowRuns, "_log_texts", killed)
    with pytest.raises(KeyboardInterrupt):
        MlflowRuns(mlflow_folder).write(SHORT)
    monkeypatch.undo()
    MlflowRuns(mlflow_folder).write(SHORT)
    client = mlflow_client(mlflow_folder)
    first = mlflow_runs(client, "norms")[SHORT.id]
    told = points(client, first)
    assert first.info.status == "FINISHED"
    assert [step for step, _, _ in told["val_loss"]] == list(range(1, 10)) and math.isnan(told["val_loss"][6][2])
    again = MlflowRuns(mlflow_folder)
    again.write(SHORT)
    assert str(points(client, mlflow_runs(client, "norms")[SHORT.id])) == str(told)
    with pytest.raises(BenchkitError, match="names a folder"):
        MlflowRuns(mlflow_folder, "file:/somewhere")


def test_a_run_whose_creation_mlflow_did_not_answer_is_not_made_again(
    mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    create, asked = MlflowClient.create_run, []
    run = replace(SHORT, study="unanswered")

    def unanswered(client: Any, *given: Any) -> Any:
        asked.append(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        create(client, *given)
        raise MlflowException("connection broken")

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.setattr(MlflowClient, "create_run", unanswered)
    MlflowRuns(mlflow_folder).write(run)
    assert asked == ["0"] and os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    client = mlflow_client(mlflow_folder)
    assert mlflow_runs(client, "unanswered")[run.id].info.status == "FINISHED"

    def refused(*given: Any) -> Any:
        asked.append("refused")
        raise MlflowException("no room")

    monkeypatch.setattr(MlflowClient, "create_run", refused)
    with pytest.raises(MlflowException, match="no room"):
        MlflowRuns(mlflow_folder).write(replace(run, id="e" * 24))
    assert asked[1:] == ["refused"] * 3 and set(mlflow_runs(client, "unanswered")) == {run.id}


def test_a_run_that_mlflow_has_twice_is_told_once_and_runs_of_others_stay(mlflow_folder: Path) -> None:
    run = replace(SHORT, study="twice")
    MlflowRuns(mlflow_folder).write(replace(run, id="e" * 24))
    client = mlflow_client(mlflow_folder)
    experiment = client.get_experiment_by_name("twice").experiment_id
    tags = {"benchkit.id": run.id}
    twins = {client.create_run(experiment, 1, tags).info.run_id for _ in range(2)}
    others = {client.create_run(experiment).info.run_id for _ in range(2)}
    MlflowRuns(mlflow_folder).write(run)
    left = {one.info.run_id: one.info.status for one in client.search_runs([experiment])}
    kept = twins & set(left)
    assert len(kept) == 1 and left[kept.pop()] == "FINISHED" and others < set(left) and len(left) == 4


@pytest.mark.slow
def test_four_processes_at_once_make_one_database(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, dataclasses, test_trackers as t; from benchkit_trackers.mlflow_runs import MlflowRuns;"
        "MlflowRuns(pathlib.Path(sys.argv[1])).write(dataclasses.replace(t.SHORT, id=sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "mlflow")]
    started = [subprocess.Popen([*command, str(one)], cwd=Path(__file__).parent) for one in range(4)]
    assert [one.wait(300) for one in started] == [0] * 4
    client = mlflow_client(tmp_path / "mlflow")
    assert set(mlflow_runs(client, "norms")) == {"0", "1", "2", "3"}


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
    return found


def test_tensorboard_reads_back_what_was_written_and_nothing_twice(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import metadata

    tracker = TensorboardRuns(tmp_path)
    tracker.write(replace(RUN, rows=RUN.rows[:2], state="running", finished=0.0, scores={}))
    (place,) = (tmp_path / "norms").iterdir()
    live = events(place)
    assert [one.step for one in live.Scalars("val_loss")] == [1, 2], "epochs are there before a trial has ended"
    tracker.write(RUN)
    found = events(place)
    read = [(one.step, one.wall_time, one.value) for one in found.Scalars("val_loss")]
    expected = [(row.step, row.time, row.values["val_loss"]) for row in RUN.rows]
    assert str(read) == str([(s, t, struct.unpack("f", struct.pack("f", value))[0]) for s, t, value in expected])
    assert [one.value for one in found.Scalars("scores/test.accuracy")] == [0.5]
    content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    started = metadata.parse_session_start_info_plugin_data(content)
    assert {name: value.string_value or value.number_value for name, value in started.hparams.items()} == {
        **RUN.parameters, **RUN.tags, "train.epochs": 1500.0, "attempt": 0.0, "kind": "trial"
    }  # fmt: skip
    files = {path: path.read_bytes() for path in place.iterdir()}
    TensorboardRuns(tmp_path).write(RUN)
    assert {path: path.read_bytes() for path in place.iterdir()} == files
    (place / "benchkit.json").unlink()  # as after a kill half-way
    TensorboardRuns(tmp_path).write(RUN)
    assert len(events(place).Scalars("val_loss")) == 1500 and len(list(place.iterdir())) == 2


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of an offline run: a log in blocks of 32 KiB as LevelDB has them, of W&B's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(part)
            part = b""


def test_wandbs_offline_files_hold_what_was_written_and_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / f"wandb/offline-run-20200101_000000-{SHORT.id}").mkdir(parents=True)  # as after a kill half-way
    code = (
        "import pathlib, sys, test_trackers as t; from benchkit_trackers.wandb_runs import WandbRuns;"
        "w = WandbRuns(pathlib.Path(sys.argv[1]) / 'wandb'); w.write(t.SHORT); w.write(t.SHORT); w.close();"
        "pathlib.Path(sys.argv[1], 'told').write_text(w.viewed_by)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parent, check=True, timeout=300)
    (file,) = tmp_path.rglob("*.wandb")
    told = (tmp_path / "told").read_text()
    assert told == f"wandb sync {tmp_path}/wandb/offline-run-*" and [*tmp_path.glob("wandb/offline-run-*")] == [
        file.parent
    ]
    records = list(wandb_records(file))
    (run,) = [one.run for one in records if one.WhichOneof("record_type") == "run"]
    settings = {one.key: json.loads(one.value_json) for one in run.config.update}
    assert (run.run_id, run.project, run.display_name) == (SHORT.id, "norms", "another")
    assert settings.items() >= SHORT.parameters.items()
    rows = [
        {item.nested_key[0] if item.nested_key else item.key: item.value_json for item in one.history.item}
        for one in records
        if one.WhichOneof("record_type") == "history"
    ]
    read = [[float(row[name]) for name in ("_step", "_timestamp", "val_loss")] for row in rows]
    assert str(read) == str([[float(row.step), row.time, row.values["val_loss"]] for row in SHORT.rows])
    assert not [one for one in records if one.WhichOneof("record_type") in ("environment", "files")]
    with pytest.raises(BenchkitError, match="no folder"):
        WandbRuns(tmp_path, "https://wandb.example")


def test_a_study_is_exported_trial_by_trial_and_only_what_is_new_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = study_in(tmp_path / "runs")
    export = ["export", "tiny", "--workspace", str(workspace), "--to", f"tensorboard={tmp_path / 'board'}"]
    assert main(export) == 0
    told = "".join(capsys.readouterr().err.split())  # a long line is wrapped, within a long path, too
    assert told == f"tensorboardhas12runsoftiny;next:tensorboard--logdir{tmp_path / 'board'}"
    before = {path: path.read_bytes() for path in tmp_path.glob("board/*/*/*")}
    assert len({path.parent for path in before}) == 12
    ledger, plan = Ledger(workspace), make_plan(study_of(FACTOR, repeats=6))
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan)
    assert main(export) == 0
    after = {path: path.read_bytes() for path in tmp_path.glob("board/*/*/*")}
    changed = [path for path, content in after.items() if before.get(path) != content]
    changed = [path for path, content in after.items() if before.get(path) != content]
    new = Counter(path.parent.name.partition(",")[2].rpartition("-")[0] for path in changed)
    assert new == {"-repeat-5": 4, "": 4}, "two new trials, and their two conditions"


def test_runs_are_the_record_with_names_times_and_what_diverged(tmp_path: Path) -> None:
    results = read_results(study_in(tmp_path / "runs"))
    runs = list(runs_of(results))
    assert Counter(run.kind for run in runs) == {"trial": 10, "condition": 2}
    assert Counter(run.state for run in runs if run.kind == "trial") == {"done": 8, "diverged": 2}
    assert len({run.id for run in runs}) == len({run.name for run in runs}) == 12
    assert [run.id for run in runs_of(results)] == [run.id for run in runs]
    for run, trial in zip(runs, sorted(results.trials, key=lambda one: one.started), strict=False):
        assert (run.started, run.finished) == (trial.started, trial.finished)
        (row,), (record,) = run.rows, trial.history
        assert (row.step, row.time) == (1, trial.started + record.seconds)
        assert row.values["val_loss"] == record.val_loss and "energy" not in row.values
        assert run.parameters["train.optimizer.lr"] == trial.condition.label
        assert run.scores.get("test.accuracy") == trial.value("test.accuracy")
        assert run.tags.get("reason", "") == trial.reason and run.tags["fingerprint"] == trial.condition.key
    of_condition = runs[-1].rows[0].values
    assert of_condition["test.accuracy.n"] == 4 and of_condition["test.accuracy.mean"] == pytest.approx(1 / 3)
    going_on = replace(results.trials[0], state="running", outcome=None, finished=0.0)
    (first, *_) = runs_of(replace(results, trials=(going_on,), conditions=()))
    assert not first.ended and first.mark != replace(first, state="done").mark


def test_tensorboard_itself_starts() -> None:
    code = "import tensorboard.main as m; m.run_main()"
    done = subprocess.run([sys.executable, "-c", code, "--version_tb"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("2."), done.stderr


class Gate(ThreadingHTTPServer):
    """A proxy before an MLflow server that lets in who has the password, with an address that outlives the server.

    The answer to the first run that is made is lost.
    """

    daemon_threads = True

    def __init__(self, word: str, behind: int) -> None:
        wanted = f"Basic {base64.b64encode(unquote(word).encode()).decode()}" if word else None
        unanswered = [True]

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Authorization") != wanted:
                    self.answer(401, b"{}")
                    return
                told = {name: value for name, value in self.headers.items() if name in ("Content-Type", "Accept")}
                connection = http.client.HTTPConnection("127.0.0.1", behind, timeout=60)
                try:
                    connection.request(self.command, self.path, body, told)
                    found = connection.getresponse()
                    body = found.read()
                    if self.path.endswith("runs/create") and unanswered:
                        unanswered.pop()
                        self.close_connection = True
                    else:
                        self.answer(found.status, body)
                except (OSError, http.client.HTTPException):
                    self.answer(503, b"{}")
                finally:
                    connection.close()

            do_GET = do_POST = do_PUT = do_PATCH = pass_on

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *told: object) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://{word and f'{word}@'}127.0.0.1:{self.server_port}"


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[None]:
    """Run MLflow's own server until the end of the block, where it is killed."""
    store = f"sqlite:///{folder / 'server.db'}"
    places = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    ours = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen([*command, *places], env=ours, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 300
        while not _answers(port):
            assert server.poll() is None and time.monotonic() < end, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["", "ada:S3cret%20Word"])
def test_a_real_server_is_told_all_though_it_dies_meanwhile(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "EVERY", 0.2)
    monkeypatch.setattr(following, "SHARE", 1.0)
    with kept_ports(1) as (port,), Gate(word, port) as gate:
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        monkeypatch.setenv("BOARD", gate.address)
        _die_and_tell_again(tmp_path, port)
        gate.shutdown()
    assert "S3cret" not in "".join(capfd.readouterr())


def _die_and_tell_again(tmp_path: Path, port: int) -> None:
    """Follow a study to the variable's address while its server dies and comes back, and read back what it then has."""
    from mlflow.tracking import MlflowClient

    _, _, queue = queue_of(tmp_path / "runs", study_of(FACTOR, repeats=2))
    reader, writer = os.pipe()
    finish_next(queue)
    running = queue.next()
    running.folder.append_epoch(RECORD)
    problems: list[str] = []
    address = tracker_of("mlflow=env:BOARD")
    follower = threading.Thread(
        target=lambda: problems.append(following.follow(tmp_path / "runs", "tiny", "", address, reader))
    )
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{port}")
    with mlflow_server(tmp_path, port):
        follower.start()
        until(lambda: client.get_experiment_by_name("tiny") is not None and len(mlflow_runs(client, "tiny")) >= 2)
    running.folder.append_epoch(replace(RECORD, epoch=2))
    running.finish(DONE)
    for _ in range(2):
        finish_next(queue)
    with mlflow_server(tmp_path, port):
        os.close(writer)
        follower.join(300)
        runs = mlflow_runs(client, "tiny")
        assert problems == [""] and Counter(run.data.tags["benchkit.kind"] for run in runs.values()) == {
            "trial": 4,
            "condition": 2,
        }
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        told = {one.id: str(points(client, runs[one.id])) for one in runs_of(read_results(tmp_path / "runs"))}
        steps = [[step for step, *_ in points(client, run)["val_loss"]] for run in runs.values() if _is_trial(run)]
        assert sorted(steps) == [[1], [1], [1], [1, 2]]
        assert main(["export", "tiny", "--workspace", str(tmp_path / "runs"), "--to", "mlflow=env:BOARD"]) == 0
        again = mlflow_runs(client, "tiny")
        assert {name: str(points(client, run)) for name, run in again.items()} == told


def _is_trial(run: Any) -> bool:
    return bool(run.data.tags["benchkit.kind"] == "trial")


def finish_next(queue: Any) -> None:
    claim = queue.next()
    claim.folder.append_epoch(RECORD)
    claim.finish(DONE)
