"""The dominant object of each image, read from the annotation files of COCO."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit import DataError
from benchkit.preparation import listed, report_progress

RIVAL = 0.5
"""How large a box of another class may be, as a share of the dominant one."""
_KEYS = frozenset(
    {"images", "annotations", "categories", "id", "file_name", "height", "width", "name"}
    | {"image_id", "category_id", "bbox", "iscrowd"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DominanceRule:
    """Which object dominates an image, among the classes asked for.

    The largest box (width times height) of the annotations that are no crowds. Its image is used when the box takes at
    least `min_share` of it, neither side is below `min_side` pixels, and no box of another of the classes is more than
    half as large.
    """

    min_share: float
    min_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dominant:
    """An image's file name, the label of its dominant object, and the box: left, top, width, height in pixels."""

    file_name: str
    label: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """What an annotation file tells: the dominant objects in the order of file names, and the names of all images."""

    objects: tuple[Dominant, ...]
    file_names: frozenset[str]


def dominant_objects(file: Path, classes: Sequence[str], rule: DominanceRule) -> Annotated:
    """Return the dominant object of every image that has one.

    Raises:
        DataError: the file cannot be read, is no annotation file of COCO, or lacks a class; all problems are named.
    """
    tables = _read(file)
    labels = _labels(file, tables, classes)
    images = {image["id"]: image for image in tables["images"]}
    boxes: dict[Any, list[tuple[float, int, tuple[float, float, float, float]]]] = {}
    strays = []
    for note in tables["annotations"]:
        label = labels.get(note["category_id"])
        if label is None or note.get("iscrowd"):
            continue
        if note["image_id"] not in images:
            strays.append(f"annotation {note['id']} belongs to image {note['image_id']}, which is not listed")
            continue
        left, top, width, height = map(float, note["bbox"])
        boxes.setdefault(note["image_id"], []).append((width * height, label, (left, top, width, height)))
    if strays:
        raise DataError(f"{file} does not fit together", problems=listed(strays))
    dominant = [_dominant(images[key], ranked, rule) for key, ranked in boxes.items()]
    return Annotated(
        objects=tuple(sorted((item for item in dominant if item), key=lambda item: item.file_name)),
        file_names=frozenset(image["file_name"] for image in images.values()),
    )


def _dominant(
    image: Mapping[str, Any], boxes: Sequence[tuple[float, int, tuple[float, float, float, float]]], rule: DominanceRule
) -> Dominant | None:
    area, label, box = max(boxes, key=lambda ranked: ranked[0])
    large = area >= rule.min_share * image["height"] * image["width"] and min(box[2:]) >= rule.min_side
    rivalled = any(other_area > RIVAL * area for other_area, other, _ in boxes if other != label)
    return Dominant(file_name=image["file_name"], label=label, box=box) if large and not rivalled else None


def _read(file: Path) -> dict[str, Any]:
    """Return images, annotations and categories, without the outlines, which are most of the file."""
    report_progress(0, 0, f"reading {file.name}")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error}", hint="it is part of annotations_trainval2017.zip of COCO 2017"
        ) from error
    try:
        tables = json.loads(content, object_hook=lambda table: {key: table[key] for key in table.keys() & _KEYS})
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}", hint="the file may be incomplete: unpack it again") from error
    problems = listed(list(_problems(tables)))
    if problems:
        raise DataError(f"{file} is no annotation file of COCO's objects", problems=problems)
    return dict(tables)


def _problems(tables: Any) -> Iterator[str]:
    if not isinstance(tables, dict):
        yield f"it holds a {type(tables).__name__}, expected a table"
        return
    wanted = {
        "images": {"id", "file_name", "height", "width"},
        "annotations": {"id", "image_id", "category_id", "bbox"},
        "categories": {"id", "name"},
    }
    for name, keys in wanted.items():
        rows = tables.get(name)
        if not isinstance(rows, list):
            yield f"no list {name!r}"
            continue
        for at, row in enumerate(rows):
            if not isinstance(row, dict) or not keys <= row.keys():
                yield f"{name}[{at}]: expected a table with {', '.join(sorted(keys))}"
            elif wrong := [key for key in sorted(keys) if key.endswith("id") and not isinstance(row[key], int | str)]:
                yield f"{name}[{at}]: {wrong[0]} = {row[wrong[0]]!r}, expected a number or text"
            elif name == "annotations" and not _are_numbers(row["bbox"], 4):
                yield f"annotations[{at}]: bbox = {row['bbox']!r}, expected left, top, width, height"
            elif name == "images" and not _are_numbers([row["height"], row["width"]], 2):
                yield f"images[{at}]: height = {row['height']!r}, width = {row['width']!r}, expected numbers"


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list) and len(values) == count and all(isinstance(number, int | float) for number in values)
    )


def _labels(file: Path, tables: Mapping[str, Any], classes: Sequence[str]) -> dict[Any, int]:
    """Return the label of each category that is one of the classes."""
    known = {category["name"]: category["id"] for category in tables["categories"]}
    missing = [f"no category {name!r}" for name in classes if name not in known]
    if missing:
        raise DataError(f"{file} lacks classes", problems=missing, hint="expected the 80 categories of COCO 2017")
    return {known[name]: label for label, name in enumerate(classes)}
