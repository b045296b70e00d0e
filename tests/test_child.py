"""Child processes: what they answer, and what is said of those that crash, hang or print what nobody asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from tiny_study import PATIENCE

from benchkit import __version__
from benchkit.child import ChildLost, LineChild, PythonChild, begin_benchkit, exit_words, import_path, run_python

ANSWERING = """
import os, sys, time
from benchkit.child import answer_lines
def answer(request):
    print("noise on stdout")
    os.write(1, b"more noise, not by Python's print\\n")
    if request == "stdin":
        return sys.stdin.read()
    if request == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    if request == "leave":
        os._exit(3)
    if request == "hang":
        time.sleep(600)
    return [os.getpid(), request]
answer_lines(answer)
"""


def test_one_child_answers_every_request_and_prints_nothing_between() -> None:
    with LineChild(["-c", ANSWERING], 60) as child:
        (first, one), (second, other) = child.ask({"a": [1.5, "\N{SNOWMAN}\n"]}), child.ask(None)
        assert (one, other) == ({"a": [1.5, "\N{SNOWMAN}\n"]}, None)
        assert first == second
        assert child.ask("stdin") == ""


def test_a_child_that_ends_is_told_and_the_next_request_gets_another() -> None:
    with LineChild(["-c", ANSWERING], 60) as child:
        (first, _) = child.ask(1)
        with pytest.raises(ChildLost, match=r"^ended the process by signal SIGKILL$") as lost:
            child.ask("die")
        assert lost.value.detail.endswith("last words\n") and not lost.value.late
        with pytest.raises(ChildLost, match=r"^ended the process with exit status 3$"):
            child.ask("leave")
        (second, answer) = child.ask(2)
        assert answer == 2 and first != second


def test_a_child_that_hangs_is_killed() -> None:
    with LineChild(["-c", ANSWERING], 60) as child:
        child.ask(1)
        child.seconds = 0.2
        with pytest.raises(ChildLost, match=r"did not finish within 0\.2 s") as lost:
            child.ask("hang")
        assert lost.value.late


def test_a_child_that_is_killed_as_it_answers_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tardy(threading.Timer):
        """A timer that goes off once there is nothing left to wait for."""

        def cancel(self) -> None:
            super().cancel()
            self.function()

    with LineChild(["-c", ANSWERING], 60) as child:
        monkeypatch.setattr(threading, "Timer", Tardy)
        (first, one) = child.ask(1)
        monkeypatch.undo()
        (second, two) = child.ask(2)
        assert (one, two) == (1, 2) and first != second


@pytest.mark.parametrize(
    ("code", "words"), [(3, "with exit status 3"), (-9, "by signal SIGKILL"), (-40, "by signal 40")], ids=str
)
def test_every_end_of_a_process_has_words(code: int, words: str) -> None:
    assert exit_words(code) == f"ended the process {words}"


def test_no_process_is_left_behind() -> None:
    with LineChild(["-c", ANSWERING], 60) as child:
        (number, _) = child.ask(1)
        process = psutil.Process(number)
        assert process.is_running()
    assert not process.is_running()  # another one may have its number by now


def test_a_child_imports_what_its_parent_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("VALUE = 7")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_python(["-c", "import only_here; print(only_here.VALUE)"], 60).out == "7\n"
    assert str(tmp_path) in import_path().split(":" if sys.platform != "win32" else ";")


def test_input_environment_and_failures_of_one_run() -> None:
    script = "import os, sys; print(os.environ['WORD'] + sys.stdin.read())"
    assert run_python(["-c", script], 60, text=" given", environment={"WORD": "words"}).out == "words given\n"
    failed = run_python(["-c", "raise ValueError('no luck')"], 60)
    assert (failed.problem, failed.code, failed.late) == ("ValueError: no luck", 1, False)
    odd = run_python(["-c", "import os; os.write(2, b'caf\\xe9 is missing'); os._exit(4)"], 60)
    assert (odd.problem, odd.code) == ("caf\N{REPLACEMENT CHARACTER} is missing", 4)


def there(path: Path) -> None:
    """Wait until a file is there."""
    while not path.exists():
        time.sleep(0.01)


def test_what_a_child_said_before_it_was_late_is_kept(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = "import sys, time; print('begun', flush=True); open(sys.argv[1], 'w').close(); time.sleep(600)"
    with PythonChild(["-c", script, str(said)]) as child:
        there(said)
        late = child.finish(1.0)
    assert (late.out, late.problem, late.late) == ("begun\n", "no answer within 1 s", True)
    assert run_python(["-c", "import time; time.sleep(600)"], 0.1).late


def test_a_child_is_begun_before_it_is_told_what_to_do(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = "import sys; from pathlib import Path; Path(sys.argv[1]).write_text(''); print(sys.stdin.read().upper())"
    with PythonChild(["-c", script, str(ready)]) as child:
        there(ready)
        assert child.finish(60, text="words").out == "WORDS\n"


def test_a_child_that_is_told_nothing_may_end_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchkit.child.PATIENCE", PATIENCE)
    script = (
        "import sys, time; from pathlib import Path; time.sleep(0.3); Path(sys.argv[1]).write_text(sys.stdin.read())"
    )
    with PythonChild(["-c", script, str(tmp_path / "told")]):
        pass
    assert (tmp_path / "told").read_text() == ""


def test_a_child_that_does_not_end_is_killed_and_what_it_began_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.child.PATIENCE", 0.1)
    # Its own child keeps the pipes open, longer than a test may take.
    script = (
        "import subprocess, sys, time; from pathlib import Path; "
        "own = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(900)']); "
        "Path(sys.argv[1] + '.new').write_text(str(own.pid)); Path(sys.argv[1] + '.new').rename(sys.argv[1]); "
        "time.sleep(600)"
    )
    for told in (False, True):
        noted = tmp_path / str(told)
        with PythonChild(["-c", script, str(noted)]) as child:
            there(noted)
            if told:
                assert child.finish(0.1).late
        os.kill(int(noted.read_text()), signal.SIGKILL)


def test_memory_can_be_limited() -> None:
    script = "from benchkit.child import limit_memory; limit_memory(600, filled={}); x = bytearray(900 * 2**20)"
    for filled in (True, False):
        assert run_python(["-c", script.format(filled)], 60).problem == "MemoryError" or sys.platform == "darwin"


FREED = """
import gc
from pathlib import Path
from benchkit.child import give_back_memory
def resident():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)
class Knot:
    def __init__(self):
        self.own, self.content = self, bytearray(10_000)
gc.disable()
before, knots = resident(), [Knot() for _ in range(10_000)]
last, full = Knot(), resident()
del knots
give_back_memory()
print(full - before, resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what is in memory")
def test_what_was_freed_is_given_back() -> None:
    full, left = (int(word) for word in run_python(["-c", FREED], 60).out.split())
    assert full > 90_000 and left < full / 3  # KiB: 98 MiB in small pieces, tied in cycles, under one that stays


def test_a_command_beside_another_imports_nothing_from_the_folder_where_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not the json of the standard library')\n")
    monkeypatch.chdir(tmp_path)
    process = begin_benchkit(["--version"], "", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"") and __version__.encode() in out
