"""`benchkit sweep` as a user meets it: output, exit codes, previews, the live panel."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tiny_study import FACTOR, SEARCH, command, environment, run_command, run_here, text_of, write

from benchkit.cli import main
from benchkit.cli.options import parse_size
from benchkit.ledger import read_results
from benchkit.report.context.sections import commands
from benchkit.report.page_text import private_results
from benchkit.sweep.pool import Pool

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_lines_where_there_is_no_terminal_then_json_and_a_preview(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(folder / "tiny.toml", FACTOR, repeats=1)
    done = run_command(folder, "sweep", study, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tiny: 2 done\n"
    assert "\x1b" not in done.stderr + done.stdout
    assert "training: 2 trials, 0 of them finished before" in done.stderr
    assert re.search(r"^\[2/2, 0 s left\] 0\.3 repeat 0: val accuracy [\d.]+%, test accuracy", done.stderr, re.M)
    assert done.stderr.splitlines()[-1] == "next: benchkit report tiny"
    assert run_here(monkeypatch, folder, "sweep", study, "--json", pool=Pool) == 0
    again = capsys.readouterr()
    assert json.loads(again.out)["states"]["done"] == 2 and again.err == ""
    assert run_here(monkeypatch, folder, "sweep", study, "--dry-run", "--set", "repeats.n=3", pool=Pool) == 0
    more = capsys.readouterr().out
    assert "tiny: 2 conditions, 6 trials, 4 to train" in more
    assert re.search(r"about \d+ s with \d+ at once on cpu, and [\d.]+ MiB in benchkit-runs", more)
    assert len(read_results(folder / "benchkit-runs").trials) == 2


HALF = """
from pathlib import Path
from benchkit.metrics import Metric, declared

@declared(Metric(name="half", words="half", low=0.0, high=1.0))
def half(scored):
    if Path("tried").exists() and not Path("mended").exists():
        raise OSError("gone\\nand lost")
    Path("tried").touch()
    return 0.5

PLUGINS = {"benchkit.metrics": {"half": half}}
"""


def test_the_commands_that_a_sweep_prints_at_its_end_work_as_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(folder / "tiny.toml", FACTOR + '[report]\nmetrics = ["half"]\n', repeats=1)
    (folder / "my half.py").write_text(HALF)
    sweep = ("sweep", study, "--jobs", 1, "-w", "runs", "--plugin", "my half.py")
    assert run_here(monkeypatch, folder, *sweep) == 1
    told = capsys.readouterr().err
    assert "next: benchkit report" not in told, "no trial has a result"
    assert "to train what counts as failed again, add --retry failed" in told
    (folder / "mended").touch()
    assert run_here(monkeypatch, folder, *sweep, "--retry", "failed") == 0
    more = capsys.readouterr().err
    assert "--retry" not in more
    lines = [line.partition(": benchkit ")[2] for text in (told, more) for line in text.splitlines()]
    commands = [shlex.split(line) for line in lines if line]
    options = ["tiny", "--workspace", "runs", "--plugin", "my half.py"]
    assert commands == [["status", *options], ["report", *options]]
    for printed in commands:
        assert run_here(monkeypatch, folder, *printed) == 0


def test_the_commands_that_a_report_prints_work_as_printed(folder: Path) -> None:
    study = write(folder / "tiny.toml", FACTOR, repeats=1)
    assert run_command(folder, "sweep", study, "--jobs", 1, "-w", folder / "my runs").returncode == 0
    (folder / "fresh").mkdir()
    shutil.copy(study, folder / "fresh")
    for line in commands(private_results(read_results(folder / "my runs"))).splitlines():
        done = run_command(folder / "fresh", *shlex.split(line)[1:], *(["-f", "json"] if " report " in line else []))
        assert done.returncode == 0, done.stderr
    found = json.loads((folder / "fresh" / "reports" / "tiny" / "results.json").read_text())
    assert len(found["conditions"]) == 2


def test_a_panel_on_a_terminal(folder: Path) -> None:
    levels = (
        rf'{{ label = "[red]{name}\u001b]0;x\u0007", value = {value} }}' for name, value in (("a", 0.05), ("b", 0.2))
    )
    label = f"[{', '.join(levels)}]"
    study = folder / "tiny.toml"
    study.write_text(text_of(f'[factors]\n"train.optimizer.lr" = {label}\n', repeats=1), encoding="utf-8")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("sweep", study, "--jobs", 1),
        cwd=folder,
        env={**environment(), "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown = read_all(master)
    assert process.wait(timeout=60) == 0, shown
    assert "\x1b[" in shown  # it is drawn over itself
    plain = ESCAPE.sub("", shown)
    assert "Training" in plain and "2/2" in plain
    assert "\x1b]0" not in shown and re.search(r"\[red\][ab]\?\]0;x\? repeat 0", plain)
    assert "tiny: 2 done" in plain


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file is full here")
@pytest.mark.parametrize("how", ["a full disk", "a pipe that nobody reads", "closed"])
def test_a_sweep_does_not_end_for_want_of_a_place_for_what_it_says(folder: Path, how: str) -> None:
    words = command("sweep", write(folder / "tiny.toml", repeats=1), "--jobs", 1)
    if how == "closed":
        script = 'exec "$@" <&- >&- 2>&-'
        done = subprocess.run(["sh", "-c", script, "sh", *words], cwd=folder, env=environment(), check=False)
    else:
        reading, writing = os.pipe()
        os.close(reading)
        with Path("/dev/full").open("w") as full, os.fdopen(writing, "w") as pipe:
            errors = full if how == "a full disk" else pipe
            done = subprocess.run(
                words, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True, check=False
            )
        assert done.stdout == "tiny: 1 done\n"
    assert done.returncode == 0
    assert [trial.state for trial in read_results(folder / "benchkit-runs").trials] == ["done"]


def read_all(descriptor: int) -> str:
    """Return what a terminal shows until its last writer is gone."""
    parts, deadline = [], time.monotonic() + 240
    while time.monotonic() < deadline:
        if select.select([descriptor], [], [], 1.0)[0]:
            try:
                part = os.read(descriptor, 65536)
            except OSError:  # what Linux says when the other end is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(descriptor)
    return b"".join(parts).decode()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.toml"], "none.toml: there is no such study file"),
        (["quikstart"], "quikstart: there is no study of that name (did you mean 'quickstart'?)"),
        (["quikstart"], "or give the path of a TOML file"),
        (["."], "or give the path of a TOML file"),
        (["tin.toml"], "tin.toml: there is no such study file (did you mean 'tiny.toml'?)"),
        (["tiny.toml", "--set", "train.epoch=3"], "tiny.toml --set train.epoch=3: this study cannot be used"),
        (["tiny.toml", "--set", "train.epoch=3"], "train.epoch: unknown key (did you mean 'epochs'?)"),
        (["tiny.toml", "--only", "train.optimizer.lr=0.2"], "no such level"),
        (["tiny.toml", "--retry", "done"], "--retry done: expected one of failed, diverged, pruned"),
        (["tiny.toml", "--set", "model.name=mlq"], "there is no model 'mlq' (did you mean 'mlp'?)"),
        (["tiny.toml", "--storage", "nonsense://x"], "nonsense://x: the ledger cannot be opened"),
        (["tiny.toml", "--workspace", "file/runs"], "file/runs: the workspace cannot be written"),
        (["tiny.toml", "--plugin", "none.py"], "cannot read the plugin file"),
        (["tiny.toml", "--device-memory", "half"], "--device-memory half: expected a number with a unit, or 0"),
        (["tiny.toml", "--device-memory", "500"], "for example 500MB or 2GiB; the units are B, kB, MB"),
        (["tiny.toml", "--device-memory", "-1GB"], "--device-memory -1GB: expected a number with a unit, or 0"),
        (["tiny.toml", "--device-memory", "2 GiBi"], "expected a number with a unit, or 0 (did you mean 'GiB'?)"),
        (["tiny.toml", "--device-memory", "1e99GB"], "--device-memory 1e99GB: expected a number with a unit"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    write(folder / "tiny.toml", FACTOR)
    (folder / "file").write_text("")
    assert main(["sweep", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and told in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("0 B", 0), ("17B", 17), ("500MB", 500_000_000), ("1.5 kB", 1500), ("2GiB", 2_147_483_648),
        ("3kib", 3072), ("1tb", 10**12), ("0.5 MiB", 524_288),
    ],
)  # fmt: skip
def test_sizes_of_memory_are_read(text: str, count: int) -> None:
    assert parse_size("--device-memory", text) == count


def test_a_device_that_is_not_there_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(folder / "tiny.toml", repeats=1)
    assert run_here(monkeypatch, folder, "sweep", study, "--device", "cuda:99", pool=Pool) == 2
    told = capsys.readouterr().err
    assert "--device cuda:99: there is no such device here" in told and "Traceback" not in told


def test_a_preview_refuses_what_a_sweep_refuses(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(folder / "tiny.toml", repeats=1)
    for more in ((), ("--dry-run",)):
        assert run_here(monkeypatch, folder, "sweep", study, "--set", "data.val_size=900000", *more, pool=Pool) == 2
        assert "has fewer images than the study asks for" in " ".join(capsys.readouterr().err.split())


def test_a_preview_as_json_trains_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(folder / "tiny.toml", FACTOR, SEARCH, repeats=2)
    assert run_here(monkeypatch, folder, "sweep", study, "--dry-run", "--json", pool=Pool) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["left"], told["confirms"], told["problem"], told["device"]) == (2 * 2 + 4 + 2, 2, "", "cpu")
    assert told["seconds"] > 0 and told["bytes"] > 0
    assert [row["label"] for row in told["conditions"]] == ["0.1", "0.3", "search"]
    assert not (folder / "benchkit-runs").exists()


def test_a_local_plugin_replaces_an_installed_one_only_when_told_and_the_trial_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(folder / "tiny.toml", repeats=1)
    (folder / "mine.py").write_text(
        "from torch import nn\n\n\ndef plain(num_channels, *, device=None, dtype=None):\n    return nn.Identity()\n\n\n"
        'PLUGINS = {"benchkit.norms": {"torch-bn": plain}}\n',
        encoding="utf-8",
    )
    assert run_here(monkeypatch, folder, "sweep", study, "--plugin", "mine.py", pool=Pool) == 2
    assert "norm 'torch-bn', which benchkit" in " ".join(capsys.readouterr().err.split())
    allowed = ("--plugin", "mine.py", "--allow-shadow", "--jobs", 1)
    assert run_here(monkeypatch, folder, "sweep", study, *allowed, pool=Pool) == 0
    (trial,) = read_results(folder / "benchkit-runs").trials
    assert trial.outcome is not None
    assert "torch-bn (mine.py, in place of benchkit" in trial.outcome.environment["plugins"]["model.norm"]
