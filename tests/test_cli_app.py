from __future__ import annotations

import math
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from benchkit import __version__
from benchkit.cli import app as app_module
from benchkit.cli import main
from benchkit.cli.app import clean, line, print_error, print_facts, print_json, print_table
from benchkit.errors import BenchkitError, StudyError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fake_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Replace all commands by one, `fake`."""

    def install(function: Callable[..., None]) -> None:
        module = types.ModuleType("fake_command_module")
        module.fake = function  # type: ignore[attr-defined]
        module.__spec__ = types.SimpleNamespace(name=module.__name__)  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(app_module, "COMMANDS", {"fake": "fake_command_module:fake"})

    return install


def test_help_lists_the_commands_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    listed = [text.split()[0] for text in out.partition("Commands:")[2].splitlines() if text.startswith("  ")]
    known = [name for name in app_module.COMMANDS if name in listed]
    assert [name for name in listed if name in app_module.COMMANDS] == known
    assert "plugins" in listed
    assert "--install-completion" in out and "--debug" in out and "--version" in out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"benchkit {__version__}\n"


def test_a_wrong_command_suggests_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin"]) == 2
    assert "No such command 'plugin'. Did you mean 'plugins'?" in capsys.readouterr().err


def test_a_wrong_option_exits_with_2() -> None:
    assert main(["plugins", "list", "--no-such-option"]) == 2


def test_an_error_is_printed_without_traceback(
    fake_command: Callable[[Callable[..., None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fake() -> None:
        raise StudyError("the study [bold]x[/] is wrong\x1b[2J", problems=["one [red]", "two\nlines"], hint="mend it")

    fake_command(fake)
    assert main(["fake"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: the study [bold]x[/] is wrong?[2J\n  - one [red]\n  - two\n    lines\nhint: mend it\n"
    )
    assert main(["--debug", "fake"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_errors_own_exit_code_is_used(fake_command: Callable[[Callable[..., None]], None]) -> None:
    class OtherError(BenchkitError):
        exit_code = 5

    def fake() -> None:
        raise OtherError("x")

    fake_command(fake)
    assert main(["fake"]) == 5


def test_ctrl_c_is_quiet(
    fake_command: Callable[[Callable[..., None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fake() -> None:
        raise KeyboardInterrupt

    fake_command(fake)
    assert main(["fake"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_a_bug_keeps_its_traceback(fake_command: Callable[[Callable[..., None]], None]) -> None:
    def fake() -> None:
        raise ZeroDivisionError("bug")

    fake_command(fake)
    with pytest.raises(ZeroDivisionError, match="bug"):
        main(["fake"])


def test_a_commands_exit_code_is_kept(fake_command: Callable[[Callable[..., None]], None]) -> None:
    def fake(code: int) -> None:
        raise typer.Exit(code)

    fake_command(fake)
    assert [main(["fake", str(code)]) for code in (0, 1, 3)] == [0, 1, 3]


def run_child(
    script: str, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


def test_what_the_system_refuses_is_one_line(
    fake_command: Callable[[Callable[..., None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fake() -> None:
        raise PermissionError(13, "Permission denied", "a/b")

    fake_command(fake)
    assert main(["fake"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "error: a/b: Permission denied"
    assert main(["--debug", "fake"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), BlockingIOError(11, "Try again")], ids=str)
def test_a_limit_of_processes_is_one_line(
    fake_command: Callable[[Callable[..., None]], None], capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fake() -> None:
        raise error

    fake_command(fake)
    assert main(["fake"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no further process or thread can be started") and "ulimit -u" in said


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["plugins", "--help"], ["plugins", "list"], ["plugins", "list", "--json"], ["plugins", "list", "x"]],
    ids=" ".join,
)
def test_no_framework_is_imported(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom benchkit.cli import main\nmain(sys.argv[1:])\n"
        "heavy = {'torch', 'torchvision', 'timm', 'optuna', 'altair', 'scipy', 'sklearn', 'weasyprint'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = run_child(script, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_python_m_benchkit_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchkit", "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"benchkit {__version__}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_closed_pipe_is_no_crash(tmp_path: Path) -> None:
    for arguments in (["plugins", "list"], ["plugins", "list", "--json"], ["--help"]):
        with (tmp_path / "err").open("wb") as errors:
            child = subprocess.Popen(
                [sys.executable, "-m", "benchkit", *arguments], stdout=subprocess.PIPE, stderr=errors
            )
            assert child.stdout is not None
            child.stdout.close()
            code = child.wait(timeout=60)
        text = (tmp_path / "err").read_text()
        assert "Traceback" not in text and "BrokenPipe" not in text, text
        assert code == 1


def test_an_ascii_terminal_is_no_crash() -> None:
    script = (
        "import sys\nfrom benchkit.cli import app\n"
        "app.COMMANDS = {'plugins': 'benchkit.cli.plugins:app'}\napp.main(['--version'])\n"
        "app.print_text('caf\\u00e9 \\u2192 \\U0001f600')\napp.print_table(('n\\u00e4me',), [('\\u2192',)])"
    )
    done = run_child(script, environment={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9 \\u2192" in done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain [b]\ttext\n", "plain [b]\ttext\n"),
        ("\x1b[31m\x07\x00\r\x9b", "?[31m????"),
        ("a\u202eb\u2066c\u200bd\ud800", "a?b?c?d?"),
        ("æøå → 漢字", "æøå → 漢字"),
    ],
)
def test_control_characters_are_replaced(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_a_line_is_one_line() -> None:
    assert line("a\n\n  b\tc ") == "a b c"


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": (1, math.inf, -math.inf), "b": [math.nan, True, None], "c": "é\x1b"})
    out = capsys.readouterr().out
    assert "".join(out.split()) == '{"a":[1,"inf","-inf"],"b":["nan",true,null],"c":"\\u00e9\\u001b"}'


def test_tables_align_and_do_not_wrap_in_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [("[red]", "x" * 300), ("y", 3)])
    assert capsys.readouterr().out == f"a      b\n[red]  {'x' * 300}\ny      3\n"


def test_facts_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"kind": "norm", "url": "", "note": None, "zero": 0})
    assert capsys.readouterr().out == "kind  norm\nzero  0\n"


def test_an_error_without_problems_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(BenchkitError("it is wrong"))
    assert capsys.readouterr().err == "error: it is wrong\n"
