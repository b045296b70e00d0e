"""Every built-in plugin passes the conformance kit, like anyone's; none is expected to fail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchkit_datasets.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES
from published_layouts import make_stand, write_cifar10, write_cifar100, write_class_folders, write_mnist

from benchkit.registry import Registry
from benchkit.registry.registry import BUILT_IN, Entry
from benchkit.testing import checks, run_checks

BUILT_INS = [
    entry
    for entry in Registry.installed().entries()
    if entry.distribution == BUILT_IN and entry.kind != "studies" and entry.name != "hf"
]
"""All but hf, which needs a hub in each of the kit's processes: tests/test_hub.py has one."""
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "models-timm": {"variant": "resnet18"},
    "optimizers-timm": {"variant": "lion"},
    "optimizers-torch": {"variant": "NAdam"},
}
"""The options without which a plugin is not one; data sets get their files below."""


def files_for(name: str, folder: Path) -> dict[str, Any]:
    """Return options that give a published data set small files in its own layout, as a user has them."""
    if name == "mnist":
        stand = make_stand("0123456789", (28, 28, 1), train=8, test=3)
        return {"source": str(write_mnist(stand, folder)), "partial": True}
    if name == "cifar10":
        stand = make_stand(CIFAR10_CLASSES, (32, 32, 3), train=8, test=3)
        return {"source": str(write_cifar10(stand, folder)), "partial": True}
    if name == "cifar100":
        stand = make_stand(CIFAR100_CLASSES, (32, 32, 3), train=2, test=1)
        return {"source": str(write_cifar100(stand, folder)), "partial": True}
    if name == "image-folder":
        return {"source": str(write_class_folders(make_stand(("cat", "dog"), (6, 5, 3), train=20, test=5), folder))}
    if name == "csv":
        write_class_folders(make_stand(("cat", "dog"), (6, 5, 3), train=20, test=5), folder)
        files = sorted(file.relative_to(folder) for file in folder.rglob("*.png"))
        (folder / "list.csv").write_text("".join(f"{file},{file.parent.name}\n" for file in files))
        return {"source": str(folder / "list.csv")}
    if name == "npz":
        stand = make_stand(("cat", "dog"), (6, 5, 3), train=20, test=5)
        folder.mkdir()
        arrays = {}
        for split, (images, labels) in stand.arrays.items():
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        np.savez(folder / "set.npz", **arrays)
        return {"source": str(folder / "set.npz")}
    return {}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "entry",
    [pytest.param(one, marks=pytest.mark.slow if one.name == "mlflow" else ()) for one in BUILT_INS],
    ids=[f"{entry.kind}-{entry.name}" for entry in BUILT_INS],
)
def test_built_in(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "data"))
    options = (
        OPTIONS.get(f"{entry.kind}-{entry.name}", {})
        if entry.kind != "datasets"
        else files_for(entry.name, tmp_path / "files")
    )
    verdicts = run_checks(entry.kind, entry, options=options)
    failed = [str(verdict.failure) for verdict in verdicts if verdict.state == "failed"]
    assert not failed, "\n".join(failed)
    assert sum(verdict.state == "passed" for verdict in verdicts) >= 3


def test_there_are_checks_of_every_kind() -> None:
    kinds = {entry.kind: entry for entry in BUILT_INS}
    assert set(kinds) == {
        "norms",
        "datasets",
        "regularizers",
        "losses",
        "metrics",
        "optimizers",
        "schedules",
        "models",
        "figures",
        "trackers",
    }
    for kind in kinds:
        entry = next(one for one in BUILT_INS if one.kind == kind)
        ids = [id for id, _ in checks(kind, entry, options=OPTIONS.get(f"{kind}-{entry.name}"))]
        assert len(ids) == len(set(ids)) >= (9 if kind != "trackers" else 6)
