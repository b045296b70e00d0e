"""Who is told of a sweep: trackers that fail cost nothing, notices come once, and addresses stand nowhere."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import shutil
import sys
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pikepdf
import pytest
from test_trackers import events
from throwaway_distributions import write_distribution
from tiny_study import FACTOR, PATIENCE, RECORD, all_facts, queue_of, run_here, study_of, write

from benchkit import BenchkitError
from benchkit.cli import main
from benchkit.cli import sweep as sweep_command
from benchkit.ledger import read_results
from benchkit.trackers import following, notices
from benchkit.trackers.address import Address, address_of, masked, notifier_of, tracker_of, trackers_told
from benchkit.trackers.notices import Notices
from benchkit.verify.opening import open_report

FAULTY = """
import os, time
class Raises:
    def __init__(self, folder, address=""):
        self.address = address
    def write(self, run):
        print("a run at", self.address)
        raise RuntimeError(f"cannot reach {self.address}")
    def close(self):
        pass
class Sleeps(Raises):
    def write(self, run):
        time.sleep(600)
class Exits(Raises):
    def write(self, run):
        os._exit(3)
class Later(Raises):
    live = False
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trackers and senders start and answer as slowly as they do."""
    monkeypatch.setattr(following, "ENDING", PATIENCE)
    monkeypatch.setattr(notices, "SECONDS", PATIENCE)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install trackers that fail, for this process and those that it starts."""
    names = {name.lower(): f"faulty_trackers:{name}" for name in ("Raises", "Sleeps", "Exits", "Later")}
    site = write_distribution(tmp_path / "site", "faulty", {"trackers": names}, modules={"faulty_trackers.py": FAULTY})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))


@pytest.fixture
def mailbox() -> Iterator[SimpleNamespace]:
    """A server on this machine that takes messages, or refuses them with its `code`."""
    box = SimpleNamespace(code=200, got=[], port=0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            box.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(box.code)
            self.end_headers()

        def log_message(self, *told: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    box.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield box
    server.shutdown()
    thread.join()
    server.server_close()


def test_trackers_that_fail_cost_no_trial_and_no_number(
    faulty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path / "tiny.toml", FACTOR)
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--jobs", 1, "--workspace", "alone") == 0
    capsys.readouterr()
    told = [word for name in ("raises", "exits", "tensorboard") for word in ("--track", name)]
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--jobs", 1, "--workspace", "told", *told) == 0
    notes = capsys.readouterr().err
    assert notes.count("not all is told to") == notes.count("benchkit export tiny --to") == 2
    assert "raises: the tracker raises failed: RuntimeError: cannot reach" in notes.replace("\n", " ")
    assert "exits: its process ended early" in notes
    assert all_facts(read_results(tmp_path / "alone")) == all_facts(read_results(tmp_path / "told"))
    assert len(list((tmp_path / "told/tensorboard/tiny").iterdir())) == 4 + 2


def test_a_tracker_that_never_answers_is_given_up(
    faulty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "ENDING", 0.5)
    study = write(tmp_path / "tiny.toml", repeats=1)
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--jobs", 1, "--track", "sleeps") == 0
    assert capsys.readouterr().err.count("it did not answer in time") == 1
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--track", "later") == 2
    assert "benchkit export tiny --to later" in capsys.readouterr().err.replace("\n", " ")
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--track", "tensorbord") == 2
    assert "did you mean 'tensorboard'" in capsys.readouterr().err


OF_A_FILE = """
class Kept:
    def __init__(self, folder, address="", /):
        self.folder = folder
    def write(self, run):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / run.id).write_text(run.state)
    def close(self):
        pass
class Refuses(Kept):
    def write(self, run):
        raise ConnectionError("no route")
PLUGINS = {"benchkit.trackers": {"kept": Kept, "refuses": Refuses}}
"""


def test_a_tracker_of_a_file_is_told_by_a_sweep_and_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path / "tiny.toml", repeats=1)
    (tmp_path / "own file.py").write_text(OF_A_FILE)
    given = ("--plugin", "own file.py", "-w", "told")
    tracked = ("--track", "kept", "--track", "refuses")
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--jobs", 1, *given, *tracked) == 0
    told = {path.name: path.read_text() for path in (tmp_path / "told/kept").iterdir()}
    assert len(told) == 2 and set(told.values()) == {"done"}  # the trial and its condition
    shutil.rmtree(tmp_path / "told/kept")
    notes = capsys.readouterr().err.splitlines()
    (note,) = (line for line in notes if "not all is told to" in line)
    assert "the tracker refuses failed: ConnectionError: no route; " in note
    command = shlex.split(note.partition("no route; ")[2])
    assert command == ["benchkit", "export", "tiny", "--to", "refuses", "--workspace", "told", *given[:2]]
    assert run_here(monkeypatch, tmp_path, "export", "tiny", "--to", "kept", *given) == 0
    assert capsys.readouterr().err == "kept has 2 runs of tiny; they are at told/kept\n"
    assert run_here(monkeypatch, tmp_path, "export", "tiny", "--to", "kept=env:HOME", *given) == 0
    assert capsys.readouterr().err == "kept has 2 runs of tiny; they are at env:HOME\n"
    assert {path.name: path.read_text() for path in (tmp_path / "told/kept").iterdir()} == told
    assert run_here(monkeypatch, tmp_path, *command[1:]) == 2
    assert "the tracker refuses failed: ConnectionError: no route" in capsys.readouterr().err


def test_epochs_are_told_while_a_trial_is_trained(tmp_path: Path) -> None:
    *_, queue = queue_of(tmp_path / "runs", study_of(FACTOR))
    claim = queue.next()
    assert claim is not None
    for epoch in (1, 2):
        claim.folder.append_epoch(replace(RECORD, epoch=epoch))
    reader, writer = os.pipe()
    os.close(writer)
    assert following.follow(tmp_path / "runs", "tiny", "", Address(name="tensorboard"), reader) == ""
    os.close(reader)
    (place,) = (tmp_path / "runs/tensorboard/tiny").iterdir()
    assert [one.step for one in events(place).Scalars("val_loss")] == [1, 2]
    assert not (place / "benchkit.json").exists(), "it goes on"


SECRETS = ("S3cretUser", "S3cretWord", "S3cretPath", "S3cretToken")


def contents_of(file: Path) -> Iterator[bytes]:
    """Yield a file's bytes, and whatever is packed in it: archives, a report's capsule and data, a PDF's streams."""
    content = file.read_bytes()
    yield content
    if zipfile.is_zipfile(file):
        yield from unpack_all(content)
    if file.suffix in (".html", ".pdf"):
        report = open_report(file)
        yield report.text.encode()
        yield from unpack_all(report.capsule)
        yield from report.files.values()
    if file.suffix == ".html":
        yield from (zlib.decompress(base64.b64decode(one)) for one in re.findall(rb'"packed": ?"([^"]+)"', content))
    if file.suffix == ".pdf":
        with pikepdf.open(file) as document:
            yield from (one.read_bytes() for one in document.objects if isinstance(one, pikepdf.Stream))
            yield b"".join(str(one).encode() for one in document.objects)


def unpack_all(content: bytes) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        yield from map(archive.read, archive.namelist())


@pytest.mark.parametrize("kinds", ["html", pytest.param("html,pdf", marks=pytest.mark.slow)])
def test_addresses_stand_nowhere_also_when_telling_fails(
    kinds: str,
    faulty: None,
    mailbox: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    user, word, path, token = SECRETS
    monkeypatch.setenv("MAILBOX", f"json://{user}:{word}@127.0.0.1:{mailbox.port}/{path}?token={token}")
    monkeypatch.setenv("BOARD", f"https://{user}:{word}@board.example/{path}?token={token}")
    study = write(tmp_path / "tiny.toml", repeats=1)
    mailbox.code = 500
    where = ["--workspace", str(tmp_path / "runs")]
    sweep = ["--debug", "sweep", study, "--jobs", 1, *where, "--notify", "env:MAILBOX", "--track", "raises=env:BOARD"]
    monkeypatch.setattr(sys, "argv", ["benchkit", *map(str, sweep)])
    assert run_here(monkeypatch, tmp_path, *sweep) == 0
    assert main(["--debug", "export", "tiny", *where, "--to", "raises=env:BOARD"]) == 2
    assert main(["report", "tiny", *where, "--format", kinds, "--out", str(tmp_path / "reports")]) == 0
    printed = "".join(capfd.readouterr())
    assert len(mailbox.got) == 1 and "was not sent to env:MAILBOX" in printed and "[secret]" in printed
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "site" not in path.parts]
    contents = {file: list(contents_of(file)) for file in files}
    assert any(file.name == "ledger.db" for file in files)
    reports = [file for file in files if file.suffix in (".html", ".pdf")]
    assert len(reports) == len(kinds.split(","))
    assert all(sum(b"tiny" in content for content in contents[file]) > 1 for file in reports)
    everything = [printed.encode(), *(content for parts in contents.values() for content in parts)]
    found = [secret for secret in SECRETS for text in everything if secret.encode() in text]
    assert not found
    assert read_results(tmp_path / "runs").command.endswith("--notify env:MAILBOX --track raises=env:BOARD")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--track", "mlflow=https://S3cretUser@h.example"), "env:VARIABLE"),
        (("--track", "mlflow=https://h.example/?token=S3cretToken"), "env:VARIABLE"),
        (("--notify", "discord://S3cretUser/S3cretToken"), "env:VARIABLE"),
        (("--notify", "json://h.example/S3cretPath"), "env:VARIABLE"),
        (("--notify", "pbul://S3cretToken"), "env:VARIABLE"),
        (("--track", "mlflow=env:NOT_SET_HERE"), "'NOT_SET_HERE' is not set"),
    ],
)
def test_literal_secrets_are_refused_before_anything_is_written(
    options: tuple[str, str],
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = write(tmp_path / "tiny.toml")
    assert run_here(monkeypatch, tmp_path, "--debug", "sweep", study, *options) == 2
    said = capsys.readouterr().err
    assert hint in said and not any(secret in said for secret in SECRETS)
    assert not (tmp_path / "benchkit-runs").exists()


def test_a_sweep_reads_the_table_beside_its_workspace_wherever_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, beside = write(tmp_path / "tiny.toml"), tmp_path / "elsewhere" / "benchkit.toml"
    beside.parent.mkdir()
    beside.write_text("[trak]\n")
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--workspace", beside.parent / "runs") == 2
    assert f"{beside}: expected a table [track] alone" in " ".join(capsys.readouterr().err.split())
    assert not (beside.parent / "runs").exists()


def test_a_table_beside_the_workspace_names_trackers_and_the_command_line_wins(tmp_path: Path) -> None:
    assert trackers_told([], tmp_path / "benchkit.toml") == ()
    (tmp_path / "benchkit.toml").write_text('[track]\nmlflow = "http://h:5000"\ntensorboard = ""\n')
    found = trackers_told(["mlflow=http://other:1", "raises"], tmp_path / "benchkit.toml")
    assert [one.option for one in found] == ["mlflow=http://other:1", "tensorboard", "raises"]
    for wrong in ("[trak]\nmlflow = ''\n", "[track]\nmlflow = 3\n", "track = \n", '[track]\nmlflow = "http://a:b@h"\n'):
        (tmp_path / "benchkit.toml").write_text(wrong)
        with pytest.raises(BenchkitError) as caught:
            trackers_told([], tmp_path / "benchkit.toml")
        assert "a:b" not in str(caught.value) and "benchkit.toml" in str(caught.value)


def test_what_is_masked_and_what_is_an_address() -> None:
    assert tracker_of("mlflow=http://h:5000").value == "http://h:5000" == address_of("http://h:5000", "")
    assert notifier_of("json://localhost:8080").value == "json://localhost:8080"
    secret = "https://ada:pass%20word@h.example:8443/a/hook?x=1"
    text = f"{secret} refused: ada, pass word, /a/hook, x=1 at h.example:8443"
    assert masked(text, secret) == ("[secret] refused: [secret], [secret], [secret], [secret] at h.example:8443")
    assert "A1b2c3" not in masked("no answer from discord at A1b2c3/T0ken", "discord://A1b2c3/T0ken")


def test_one_notice_for_each_thing_that_happens(
    mailbox: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    here = notifier_of(f"json://127.0.0.1:{mailbox.port}")
    slow = f"{here.value}?cto={PATIENCE}&rto={PATIENCE}"  # by itself it waits for four seconds for an answer
    here = replace(here, value=slow)
    monkeypatch.setattr(notices, "NEARLY_FULL", 2**62)
    monkeypatch.setattr(notices, "EVERY", 0.01)
    with (
        pytest.raises(BenchkitError, match="no room"),
        Notices([here], "tiny", tmp_path / "none", notes.append) as sent,
    ):
        sent.tell("done", "4 done")
        sent.tell("done", "4 done")
        raise BenchkitError("there is no room")
    assert Counter(one["title"] for one in mailbox.got) == {
        "tiny: done": 1, "tiny: disk nearly full": 1, "tiny: failed": 1
    }  # fmt: skip
    assert any("there is no room" in one["message"] for one in mailbox.got) and not notes
    with pytest.raises(BenchkitError, match="does not understand"):
        Notices([Address(name="notify", spoken="env:X", value="nothing")], "tiny", tmp_path, notes.append)


@pytest.mark.parametrize(
    ("states", "interim", "expected"),
    [
        ({"done": 4}, None, "done"),
        ({"done": 3, "diverged": 1}, None, "failed"),
        ({"done": 4}, {"decided": False, "next": None}, "undecided after the last look"),
        ({"done": 4}, {"decided": True, "next": None}, "done"),
    ],
)
def test_what_a_sweep_came_to(
    states: dict[str, int], interim: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_command, "interim_of", lambda request: interim)
    asked: Any = SimpleNamespace(adding=interim is not None)
    assert sweep_command.outcome_of(asked, Counter(states))[0] == expected
