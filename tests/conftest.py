"""What whole sessions of tests share: clusters, and when their tests are skipped."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from ray_nodes import RayNodes
from slurm_cluster import SlurmCluster

from benchkit import metrics


def _has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


def _has_postgres() -> bool:
    server = shutil.which("postgres") or next(Path("/usr/lib/postgresql").glob("*/bin/postgres"), None)
    return server is not None and importlib.util.find_spec("psycopg") is not None


def _has_slurm() -> bool:
    return all(shutil.which(program) for program in ("slurmctld", "slurmd", "sbatch"))


SOFTWARE: dict[str, tuple[Callable[[], bool], str]] = {
    "ray": (_has_ray, "Ray is not installed"),
    "postgres": (_has_postgres, "PostgreSQL's server or psycopg is not installed"),
    "slurm": (_has_slurm, "Slurm's daemons are not installed"),
}
"""By its marker: whether a test's software is there, and the words where it is not."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share a cluster in one process: Ray's in one, PostgreSQL's and Slurm's in another."""
    for item in items:
        if any(item.get_closest_marker(marker) for marker in ("postgres", "slurm")):
            item.add_marker(pytest.mark.xdist_group("servers"))
        elif item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests of clusters where their software is missing, and where several processes would start one each."""
    for marker, (is_there, words) in SOFTWARE.items():
        if item.get_closest_marker(marker) is None:
            continue
        if not is_there():
            pytest.skip(f"{words}: `make test-cluster` installs it where it can")
        if "PYTEST_XDIST_WORKER" in os.environ and not item.config.getoption("loadgroup", default=False):
            pytest.skip("the tests of clusters share one: `make test-cluster` runs them")


@pytest.fixture(autouse=True)
def _metrics_of_files() -> Iterator[None]:
    """Let no test know the metrics that another one's plugin files and records told this process."""
    before = dict(metrics._OF_FILES)
    yield
    if before != metrics._OF_FILES:
        metrics._OF_FILES.clear()
        metrics._OF_FILES.update(before)
        metrics._plugin.cache_clear()


@pytest.fixture(scope="session")
def ray_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    """A Ray cluster of a head without seats and two nodes, `one` and `two`, which see no test's folder.

    The disk of the first is as good as full to Ray, which then keeps no objects there.
    """
    cluster = RayNodes(tmp_path_factory.getbasetemp().parent)
    try:
        cluster.add("one", RAY_local_fs_capacity_threshold="0.01")
        cluster.add("two")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A Slurm of two nodes, `one` and `two`, and two partitions: jobs of `high` preempt those of `low`."""
    cluster = SlurmCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of these tests alone; each test makes a database of its own."""
    server = PostgresServer()
    try:
        yield server
    finally:
        server.close()
