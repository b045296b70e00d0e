"""What a report says of a data set: name, sizes, classes, licence, citation, fingerprint."""

from __future__ import annotations

from typing import Any

from benchkit.protocols import Splits
from benchkit.study.settings import PluginRef


def facts_of(ref: PluginRef, splits: Splits) -> dict[str, Any]:
    """Return the facts of a prepared data set as plain values; counts are those of the whole splits."""
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {
        "name": ref.name,
        "options": {key: str(value) for key, value in ref.options.items()},
        "counts": {name: len(split.labels) for name, split in named.items() if split is not None},
        "image_shape": list(splits.train.images.shape[1:]),
        "class_names": list(splits.class_names),
        "licence": splits.licence,
        "citation": splits.citation,
        "notes": list(splits.notes),
        "fingerprint": splits.fingerprint,
    }
