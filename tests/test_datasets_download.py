"""Downloading the published data sets, from a server on this machine in place of the real ones."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from benchkit_datasets.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, cifar10, cifar100
from benchkit_datasets.mnist import mnist
from published_layouts import Stand, as_tar, make_stand, write_cifar10, write_cifar100, write_mnist

from benchkit import DataError, Split
from benchkit.preparation import find_prepared


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without logging to stderr."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the address of a web server, and the folder it serves."""
    folder = tmp_path / "www"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()
        thread.join()


@pytest.fixture
def dead() -> Iterator[str]:
    """Yield an address at which nobody listens, and nobody can meanwhile."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{found.getsockname()[1]}/"


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def pairs(split: Split) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}


def publish_cifar(monkeypatch: pytest.MonkeyPatch, url: str, name: str, archive: Path, folder: Path) -> None:
    (folder / f"{name}.tar.gz").write_bytes(archive.read_bytes())
    monkeypatch.setattr(f"torchvision.datasets.{name}.url", f"{url}{name}.tar.gz")
    monkeypatch.setattr(f"torchvision.datasets.{name}.tgz_md5", md5(archive))


def publish_mnist(monkeypatch: pytest.MonkeyPatch, mirrors: list[str], stand: Stand, folder: Path) -> None:
    raw = write_mnist(stand, folder / "source", packed=True) / "MNIST" / "raw"
    resources = []
    for file in sorted(raw.iterdir()):
        (folder / file.name).write_bytes(file.read_bytes())
        resources.append((file.name, md5(file)))
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", mirrors)
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", resources)


def test_cifar_is_downloaded_once(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    ten = make_stand(CIFAR10_CLASSES, (32, 32, 3))
    hundred = make_stand(CIFAR100_CLASSES, (32, 32, 3), train=2, test=1)
    publish_cifar(monkeypatch, server[0], "CIFAR10", as_tar(write_cifar10(ten, tmp_path / "ten")), server[1])
    publish_cifar(monkeypatch, server[0], "CIFAR100", as_tar(write_cifar100(hundred, tmp_path / "hundred")), server[1])
    root = tmp_path / "root"
    assert find_prepared(cifar10, root, {"partial": True}) is None
    for dataset, stand in ((cifar10, ten), (cifar100, hundred)):
        splits = dataset(root, partial=True)
        assert pairs(splits.train) == stand.pairs("train")
        assert pairs(splits.test) == stand.pairs("test")
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", dead)
    assert pairs(cifar10(root).train) == ten.pairs("train")
    assert sorted(path.name for path in root.iterdir()) == [".locks", "cifar10", "cifar100"]


def test_mnist_comes_from_the_first_mirror_that_works(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    stand = make_stand(tuple("0123456789"), (28, 28, 1))
    publish_mnist(monkeypatch, [dead, f"{server[0]}gone/", server[0]], stand, server[1])
    splits = mnist(tmp_path / "root", partial=True)
    assert pairs(splits.train) == stand.pairs("train")
    assert pairs(splits.test) == stand.pairs("test")


def test_a_wrong_checksum_is_an_error(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = as_tar(write_cifar10(make_stand(CIFAR10_CLASSES, (32, 32, 3)), tmp_path / "ten"))
    publish_cifar(monkeypatch, server[0], "CIFAR10", archive, server[1])
    served = server[1] / "CIFAR10.tar.gz"
    served.write_bytes(served.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError) as caught:
        cifar10(tmp_path / "root", partial=True)
    assert f"{server[0]}CIFAR10.tar.gz: " in str(caught.value)
    assert f"checksum is not {md5(archive)}" in str(caught.value)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".locks"]


def test_without_a_connection_the_error_tells_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", f"{dead}cifar-10-python.tar.gz")
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [dead, f"{dead}mirror/"])
    with pytest.raises(DataError) as caught:
        cifar10(tmp_path)
    assert "cifar10 is not prepared and cifar-10-python.tar.gz could not be downloaded" in str(caught.value)
    assert f"{dead}cifar-10-python.tar.gz: " in str(caught.value)
    assert "`benchkit data import cifar10 PATH`" in caught.value.hint
    with pytest.raises(DataError) as caught:
        mnist(tmp_path)
    assert len(caught.value.problems) == 2
    assert "`benchkit data import mnist PATH`" in caught.value.hint
