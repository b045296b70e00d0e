"""Plugin projects as their users have them: built into wheels, installed into an environment of their own."""

from __future__ import annotations

import atexit
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from test_packaging import find_uv

SHARED = TemporaryDirectory(prefix="benchkit-wheels-")
"""Prepared data and described plugins of all commands that are run here: what the first one made, the others find."""
atexit.register(SHARED.cleanup)

BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"


def run(command: Sequence[str | Path], folder: Path, *, expect: int = 0, **environment: str) -> str:
    """Return what a command prints; fail with all of its output when it ends with another exit status."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BENCHKIT_", "PYTEST_"))}
    own = {"BENCHKIT_DATA": f"{SHARED.name}/data", "BENCHKIT_CACHE": f"{SHARED.name}/cache", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**inherited, **own, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == expect, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(project: Path, out: Path) -> Path:
    """Return the wheel of a project, built by setuptools as `pip wheel --no-build-isolation` does."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools")
    name = run([sys.executable, "-c", BUILD, out], project).splitlines()[-1]
    return out / name


def environment_with(wheels: Sequence[Path], folder: Path) -> Path:
    """Return the Python of a new environment with the wheels installed, over the packages of this one."""
    uv = [find_uv(), "--offline", "--no-config"]
    run([*uv, "venv", "--python", sys.executable, folder / "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    under = sysconfig.get_path("purelib")
    (site / "under.pth").write_text(f"import site; site.addsitedir({under!r})\n")
    run([*uv, "pip", "install", "--python", python, "--no-deps", *wheels], folder)
    return python
