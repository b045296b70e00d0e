"""A Slurm of two nodes on this machine: Debian's daemons, started by the user who runs the tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from live_pages import kept_ports
from tiny_study import PATIENCE, environment

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/{tasks}
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus}
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus}
PartitionName=low Nodes=one,two Default=YES PriorityTier=1 PreemptMode=REQUEUE MaxTime=UNLIMITED OverSubscribe=NO
PartitionName=high Nodes=one,two PriorityTier=10 PreemptMode=OFF
"""
"""Credentials of a job that was given back expire after 5 s, where Slurm would wait for two minutes."""


class SlurmCluster:
    """Two nodes, `one` and `two`, of as many CPUs as this machine has, a partition and one whose jobs preempt its."""

    def __init__(self) -> None:
        self._ports = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="bk-slurm-", dir="/tmp"))
        self.cpus = len(os.sched_getaffinity(0))
        (self.folder / "state").mkdir()
        for node in ("one", "two"):
            (self.folder / node).mkdir()
        configuration = self.folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=self.folder,
                user=getpass.getuser(),
                host=socket.gethostname().partition(".")[0],
                ports=self._ports.enter_context(kept_ports(3)),
                cpus=self.cpus,
                tasks="affinity",
            )
        )
        self.environment = {**environment(), "SLURM_CONF": str(configuration), "PATH": _path()}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons, and wait until both nodes take jobs."""
        self._start("slurmctld", "-D")
        for node in ("one", "two"):
            self._start("slurmd", "-D", "-N", node)
        self.wait(lambda: self.run("sinfo", "--noheader", "--format=%D %t").split() == ["2", "idle"], "two nodes")

    def _start(self, program: str, *options: str) -> None:
        with (self.folder / f"{program}{options[-1]}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    [program, *options], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=self.environment
                )
            )

    def run(self, *words: object, check: bool = False) -> str:
        """Return what one of Slurm's programs prints."""
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, timeout=60, env=self.environment, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, folder: Path, script: Path, *arguments: object, options: tuple[str, ...] = ()) -> str:
        """Submit a script from a folder; return the job's number."""
        done = subprocess.run(
            ["sbatch", "--parsable", f"--chdir={folder}", *options, str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=folder,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fact(self, job: str, name: str) -> str:
        """Return what Slurm tells of a job under a name, such as JobState, Restarts or ExitCode."""
        found = re.search(rf" {name}=(\S*)", self.run("scontrol", "--oneliner", "show", "job", job))
        return found[1] if found else ""

    def wait(self, there: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait until something is there; nothing waits for longer than Slurm's own rounds take."""
        end = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s; {self.run('squeue')}"
            time.sleep(0.2)

    def close(self) -> None:
        """Cancel all jobs and end the daemons."""
        self.run("scancel", "--user", getpass.getuser())
        with contextlib.suppress(AssertionError):
            self.wait(lambda: not self.run("squeue", "--noheader"), "no job", 20)
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()
        self._ports.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _path() -> str:
    """Return a PATH with this environment's `benchkit` first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
