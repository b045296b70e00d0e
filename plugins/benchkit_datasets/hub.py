"""Image sets of the Hugging Face hub."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchkit import DataError, Splits, card, first_line
from benchkit.preparation import DECODING, SPLIT_SYNONYMS
from benchkit_datasets.image_files import FITS, RANGES, Found, ImageFile, ImageReading, by_class
from benchkit_datasets.own_images import Source, serve
from benchkit_datasets.splitting import Splitting

INSTALL = "pip install 'benchkit[hf]'"


@card(
    title="Hugging Face",
    summary="An image set of the Hugging Face hub by its name there: hf:USER/NAME.",
    reference="Lhoest, Q. et al. Datasets: A Community Library for Natural Language Processing. EMNLP 2021.",
    url="https://huggingface.co/docs/datasets",
    ranges=RANGES,
    choices={"fit": FITS},
)
def hub(
    root: Path,
    *,
    variant: str,
    config: str = "",
    revision: str = "main",
    image: str = "",
    label: str = "",
    size: int = 0,
    channels: int = 3,
    test_fraction: float = 0.2,
    val_fraction: float = 0.0,
    seed: int = 0,
    least_per_class: int = 0,
    fit: str = "squash",
    skip_broken: bool = False,
    allow_duplicates: bool = False,
    licence: str = "not stated",
    citation: str = "not stated",
) -> Splits:
    """Return the images of the hub's data set `variant`, downloaded once; without a net from the hub's local copy.

    `config` is one of its configurations, `revision` a branch, tag or commit: the commit is in the notes. `image` and
    `label` are columns, needed only where several could be meant. Named classes keep their names, text is a class each,
    numbers are named as numbers. Splits are the set's own; without a test split, train is divided as the data set
    image-folder does, and the other options are those of it: a file has the same pixels there and here.

    Raises:
        DataError: the package is not installed, the set cannot be had or read, it needs a script of its own, columns
            are unclear, or images have no class.
    """
    name = variant
    reading = ImageReading(
        size=size,
        channels=channels,
        fit=fit,
        rules=DECODING,
        skip_broken=skip_broken,
        allow_duplicates=allow_duplicates,
        least_per_class=least_per_class,
    )
    find = functools.partial(_found, name, config, revision, (image, label))
    path = Path(f"hf:{'@'.join((name, revision, config, image, label)).rstrip('@')}")
    own = Source(name="hf", path=path, origin="", find=find, split=None, licence=licence, citation=citation)
    splitting = Splitting(test_fraction=test_fraction, val_fraction=val_fraction, seed=seed, group="")
    return serve(Path(root), own, reading, splitting)


@contextmanager
def _found(name: str, config: str, revision: str, columns: tuple[str, str], scratch: Path) -> Iterator[Found]:
    """Yield the set's images as files in `scratch`, as the hub has their bytes."""
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"hf:{name} needs the package datasets, which is not installed", hint=INSTALL)
    folder = _downloaded(name, revision)
    tables = _tables(name, folder, config, scratch / "cache")
    unknown = [split for split in tables if split not in SPLIT_SYNONYMS]
    if unknown:
        raise DataError(f"hf:{name} has splits of other names: {', '.join(unknown)}", hint="expected train, test, val")
    ours = [SPLIT_SYNONYMS[split] for split in tables]
    if twice := [split for split in tables if ours.count(SPLIT_SYNONYMS[split]) > 1]:
        raise DataError(
            f"hf:{name} has several splits of one kind: {', '.join(twice)}", hint="choose another data.config"
        )
    files: list[ImageFile] = []
    for split, table in tables.items():
        image, label = _columns(name, table, columns)
        files += _files(name, table, (image, label), SPLIT_SYNONYMS[split], scratch)
    notes = [f"Data set {name} of the Hugging Face hub at revision {folder.name}."]
    if licence := _licence(folder):
        notes.append(f"Licence, as its card states it: {licence}.")
    classes = tuple(sorted({file.label for file in files}))
    yield Found(place=Path(f"hf:{name}"), files=by_class(files), classes=classes, notes=tuple(notes))


def _downloaded(name: str, revision: str) -> Path:
    """Return the local copy of a data set's files at a revision, whose commit is the folder's name."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise DataError(
            f"hf:{name} at revision {revision} cannot be had: {first_line(error)}",
            hint="check the name, or prepare it once where the network allows it",
        ) from error
    scripts = [file.name for file in folder.glob("*.py") if file.stem == name.rpartition("/")[2]]
    if scripts:
        raise DataError(
            f"hf:{name} is made by a script of its own, {scripts[0]}, which is never run",
            hint="choose a set whose files are images or parquet, or a revision such as refs/convert/parquet",
        )
    return folder


def _tables(name: str, folder: Path, config: str, cache: Path) -> Mapping[str, Any]:
    """Return the set's tables by split."""
    import datasets

    datasets.disable_progress_bars()
    try:
        tables: Mapping[str, Any] = datasets.load_dataset(str(folder), name=config or None, cache_dir=str(cache))
    except (ValueError, OSError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"hf:{name} cannot be read: {first_line(error)}", hint="data.config chooses one of several configurations"
        ) from error
    return tables


def _columns(name: str, table: Any, asked: tuple[str, str]) -> tuple[str, str]:
    """Return the columns of images and labels: those asked for, else the only ones that can be meant."""
    import datasets

    features = table.features
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    plain = [column for column, kind in features.items() if getattr(kind, "dtype", "") in ("string", "int64", "int32")]
    problems, chosen = [], []
    for option, given, there in (("image", asked[0], images), ("label", asked[1], classes or plain)):
        if given and given not in features:
            problems.append(f"data.{option} = {given!r}: there is no such column")
        elif not given and len(there) != 1:
            names = ", ".join(there) or "none"
            problems.append(f"columns that may be the {option}: {names}; choose with data.{option}")
        chosen.append(given or "".join(there[:1]))
    if problems:
        raise DataError(f"hf:{name} has the columns {', '.join(features)}", problems=problems)
    return chosen[0], chosen[1]


def _files(name: str, table: Any, columns: tuple[str, str], split: str, scratch: Path) -> Sequence[ImageFile]:
    """Write the images of a split as the bytes that they are, and return them with the names of their classes."""
    import datasets

    image, label = columns
    labels = _labels(name, table, label, split)
    folder = scratch / split
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for row, one in enumerate(table.cast_column(image, datasets.Image(decode=False))):
        held = one[image] or {}
        content = held.get("bytes") or (Path(held["path"]).read_bytes() if held.get("path") else b"")
        suffix = Path(held.get("path") or "").suffix or ".img"
        file = folder / f"{row:08d}{suffix}"
        file.write_bytes(content)
        files.append(ImageFile(path=file, name=f"{split}/{file.name}", label=labels[row], split=split))
    return files


def _labels(name: str, table: Any, label: str, split: str) -> list[str]:
    import datasets

    kind, values = table.features[label], table[label][:]
    lacking = sum(value is None or value == -1 for value in values)
    if lacking:
        raise DataError(
            f"hf:{name}: {lacking:,} of {len(values):,} images of {split} have no class",
            hint="a test split whose labels are kept secret cannot be scored; choose another set",
        )
    if isinstance(kind, datasets.ClassLabel):
        return [str(kind.names[value]) for value in values]
    if all(isinstance(value, int) for value in values):
        width = len(str(max(values, default=0)))
        return [f"{value:0{width}d}" for value in values]
    return [str(value) for value in values]


def _licence(folder: Path) -> str:
    from huggingface_hub import metadata_load

    readme = folder / "README.md"
    stated = (metadata_load(readme) or {}).get("license", "") if readme.is_file() else ""
    return ", ".join(stated) if isinstance(stated, list) else str(stated or "")
