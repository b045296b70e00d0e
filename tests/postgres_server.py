"""A PostgreSQL server of this session of tests alone: made, stopped hard, started again, its connections cut."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from live_pages import until
from tiny_study import PATIENCE

PROGRAMS = Path("/usr/lib/postgresql")


def program(name: str) -> str:
    """Return the path of a program of the newest PostgreSQL that is installed."""
    found = shutil.which(name) or max(map(str, PROGRAMS.glob(f"*/bin/{name}")), default="")
    return str(found)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class PostgresServer:
    """A server on a socket in a folder of its own, and on no port; databases are made by name."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:  # it refuses to be the superuser's
            shutil.chown(self._folder, self.user)
        self._folder.chmod(0o755)
        self._server: subprocess.Popen[bytes] | None = None
        self._do("initdb", "-D", str(self._data), "-U", "benchkit", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _as_user(self) -> dict[str, object]:
        return {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}

    def _do(self, name: str, *arguments: str) -> None:
        done = subprocess.run([program(name), *arguments], cwd=self._folder, capture_output=True, **self._as_user())  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr.decode()

    def start(self, *options: str) -> None:
        """Start the server and wait until it answers."""
        command = [program("postgres"), "-D", str(self._data), "-k", str(self._folder), "-c", "listen_addresses="]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [*command, "-c", "fsync=off", *options],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                **self._as_user(),  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._server.poll() is None and time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        command = [program("pg_isready"), "-q", "-h", str(self._folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def kill(self) -> None:
        """End the server without a goodbye to anybody, as when its machine has lost power."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)  # it starts no process that is overlooked
        first = psutil.Process(self._server.pid)
        until(lambda: first.status() == psutil.STATUS_STOPPED)
        children = first.children()
        for one in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._server.kill()
        self._server.wait()
        until(lambda: not any(map(_lives, children)))  # a new server refuses the data of one that still has processes
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """Let the server end at once, its connections cut."""
        assert self._server is not None
        self._server.send_signal(signal.SIGINT)
        self._server.wait(60)

    def database(self, name: str) -> str:
        """Return the URL of a new, empty database."""
        self.ask("postgres", f'create database "{name}"')
        return f"postgresql://benchkit@/{name}?host={self._folder}"

    def ask(self, database: str, query: str) -> str:
        """Return what a query gives."""
        done = subprocess.run(
            [program("psql"), "-h", str(self._folder), "-U", "benchkit", "-d", database, "-Atqc", query],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def cut(self, database: str) -> int:
        """Cut all connections to a database; return how many there were."""
        where = f"datname = '{database}' and pid <> pg_backend_pid()"
        return int(self.ask("postgres", f"select count(pg_terminate_backend(pid)) from pg_stat_activity where {where}"))

    def close(self) -> None:
        """End the server and remove what it had."""
        if self._server is not None and self._server.poll() is None:
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
