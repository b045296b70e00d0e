"""COCO-5, from small trees with annotation files as COCO writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchkit_datasets.coco5 import CLASSES, coco5, cut
from benchkit_datasets.coco_annotations import DominanceRule, dominant_objects
from painted_trees import paint, shade
from PIL import Image

from benchkit import DataError


def message(caught: pytest.ExceptionInfo[DataError]) -> str:
    return str(caught.value)


NUMBERS = {"person": 1, "motorcycle": 4, "boat": 9, "dog": 18, "cake": 61, "couch": 63}
RULE = DominanceRule(min_share=0.1, min_side=64)


class Coco:
    """Annotation files as COCO writes them, filled image by image; each object is painted in a colour of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables: dict[str, dict[str, Any]] = {
            place: {
                "info": {"year": 2017},
                "licenses": [{"id": 1}],
                "images": [],
                "annotations": [],
                "categories": [{"supercategory": "x", "id": at, "name": name} for name, at in NUMBERS.items()],
            }
            for place in ("train2017", "val2017")
        }
        self.count = 0

    def add(
        self, place: str, *objects: tuple[str, list[float]], crowd: bool = False, size: tuple[int, int] = (320, 240)
    ) -> str:
        self.count += 1
        name = f"{self.count:012}.jpg"
        table = self.tables[place]
        image = {"id": self.count, "file_name": name, "width": size[0], "height": size[1], "license": 1}
        table["images"].append(image)
        file = paint(self.folder / place / name, (0, 0, 0), size)
        picture = Image.open(file)
        for index, (category, box) in enumerate(objects):
            left, top, width, height = map(round, box)
            picture.paste(shade(self.count, index), (left, top, left + width, top + height))
            table["annotations"].append(
                {
                    "id": 1000 * self.count + index,
                    "image_id": self.count,
                    "category_id": NUMBERS[category],
                    "bbox": box,
                    "area": box[2] * box[3] * 0.6,
                    "iscrowd": int(crowd),
                    "segmentation": {"counts": [1, 2], "size": [3, 4]} if crowd else [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
                }
            )
        picture.save(file, quality=95, subsampling=0)
        return name

    def write(self) -> Path:
        (self.folder / "annotations").mkdir(exist_ok=True, parents=True)
        for place, table in self.tables.items():
            (self.folder / "annotations" / f"instances_{place}.json").write_text(json.dumps(table))
        return self.folder

    def file(self, place: str) -> Path:
        return self.write() / "annotations" / f"instances_{place}.json"


@pytest.fixture
def coco(tmp_path: Path) -> Coco:
    """Return COCO with one dominant object in each of four train and two val images of every class."""
    made = Coco(tmp_path / "coco")
    for place, each in (("train2017", 4), ("val2017", 2)):
        for index in range(each):
            for name in CLASSES:
                made.add(place, (name, [60.0 + index, 40.0, 120.0, 110.0]))
    return made


def test_the_largest_box_dominates(tmp_path: Path) -> None:
    coco = Coco(tmp_path)
    kept = {
        coco.add("train2017", ("dog", [10, 10, 100, 100]), ("dog", [150, 10, 90, 90])): "dog",
        coco.add("train2017", ("cake", [10, 10, 70, 70]), ("boat", [100, 10, 200, 200])): "boat",
        coco.add("train2017", ("person", [0, 0, 320, 240]), ("couch", [0, 0, 310, 230])): "couch",
        coco.add("train2017", ("motorcycle", [0, 0, 120, 64])): "motorcycle",
    }
    coco.add("train2017", ("dog", [10, 10, 100, 100]), ("cake", [150, 10, 90, 90]))  # a rival of another class
    coco.add("train2017", ("dog", [10, 10, 300, 63]))  # one side is too short
    coco.add("train2017", ("dog", [10, 10, 87, 87]))  # 7,569 of 76,800 pixels are less than a tenth
    coco.add("train2017", ("dog", [10, 10, 200, 200]), crowd=True)
    coco.add("train2017", ("person", [10, 10, 200, 200]))
    found = dominant_objects(coco.file("train2017"), CLASSES, RULE)
    assert {one.file_name: CLASSES[one.label] for one in found.objects} == kept
    assert found.objects[1].box == (100.0, 10.0, 200.0, 200.0)
    assert len(found.file_names) == 9


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((100, 80, 100, 60), (640, 480), (90, 50, 210, 170)),  # 100 * 1.2 wide, around the middle (150, 110)
        ((0, 0, 100, 100), (640, 480), (0, 0, 120, 120)),  # moved into the image
        ((540, 400, 100, 80), (640, 480), (520, 360, 640, 480)),
        ((20, 190, 600, 100), (640, 480), (0, 0, 640, 480)),  # 720 wide: the whole image
        ((100, 50, 300, 100), (640, 200), (70, 0, 430, 200)),  # no higher than the image
    ],
)
def test_the_cut_is_a_square_inside_the_image(
    box: tuple[float, float, float, float], size: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert cut(box, size[1], size[0], 0.1) == pytest.approx(expected)


def test_coco5_counts_and_pixels(coco: Coco, tmp_path: Path) -> None:
    source = coco.write()
    splits = coco5(tmp_path / "root", source=source, val_images=5, context=0.0)
    assert splits.class_names == CLASSES
    assert splits.val is not None
    assert np.bincount(splits.train.labels).tolist() == [3] * 5
    assert np.bincount(splits.val.labels).tolist() == [1] * 5
    assert np.bincount(splits.test.labels).tolist() == [2] * 5
    assert splits.train.images.shape[1:] == (64, 64, 3)
    for label, name in enumerate(CLASSES):
        table = coco.tables["train2017"]
        ours = [
            note["image_id"] for note in table["annotations"] if note["category_id"] == NUMBERS[name]
        ]  # the file with the smallest digest is in val
        ranked = sorted(ours, key=lambda at: hashlib.sha256(f"{at:012}.jpg".encode()).digest())
        colours = [image[30, 30] for image in splits.val.images[splits.val.labels == label]]
        colours += [image[30, 30] for image in splits.train.images[splits.train.labels == label]]
        for at, colour in zip(ranked, colours, strict=True):
            assert np.abs(colour.astype(int) - np.array(shade(at, 0))).max() <= 6
    # The box is 120 x 110, the square 120 x 120: 2.7 rows above and below the object are background.
    image = splits.train.images[0].astype(int)
    assert image[0].max() < 60 and image[-1].max() < 60 and image[5, 2].max() > 60
    assert splits.notes == ()
    assert coco5(tmp_path / "root", val_images=5, context=0.0).fingerprint == splits.fingerprint


def test_coco5_takes_as_many_as_asked(coco: Coco, tmp_path: Path) -> None:
    source = coco.write()
    splits = coco5(tmp_path / "root", source=source, train_images=10, val_images=0, test_images=5, size=32)
    assert splits.val is None
    assert (len(splits.train.labels), len(splits.test.labels)) == (10, 5)
    with pytest.raises(DataError) as caught:
        coco5(tmp_path / "root", source=source)
    assert "val: 4 of 400 images of class 'boat'" in message(caught)
    part = coco5(tmp_path / "root", source=source, train_images=15, val_images=10, size=32, partial=True)
    assert np.bincount(part.train.labels).tolist() == [2] * 5
    assert part.notes[0] == "Fewer images than asked for: train: 2 of 3 images of class 'boat'."
    with pytest.raises(DataError) as caught:
        coco5(tmp_path / "root", val_images=7, size=0, min_share=2.0)
    for text in ("val_images = 7: expected 0 or a multiple of 5", "size = 0", "min_share = 2.0"):
        assert text in message(caught)


def test_coco5_names_missing_corrupt_and_surplus_images(coco: Coco, tmp_path: Path) -> None:
    source = coco.write()
    lost = source / "train2017" / coco.tables["train2017"]["images"][0]["file_name"]
    lost.unlink()
    paint(source / "val2017" / "surplus.jpg", (9, 9, 9))
    with pytest.raises(DataError) as caught:
        coco5(tmp_path / "root", source=source, val_images=5)
    assert f"{lost} is not there" in message(caught) and "--partial" in message(caught)
    splits = coco5(tmp_path / "root", source=source, val_images=5, partial=True)
    assert np.bincount(splits.train.labels).tolist() == [2] * 5  # the rarest class leaves two
    assert splits.notes == (
        "This is only a part of COCO's images: 1 are missing.",
        "Files that the annotations do not list, left out: 1, among them val2017/surplus.jpg.",
    )
    broken = source / "val2017" / coco.tables["val2017"]["images"][3]["file_name"]
    broken.write_bytes(broken.read_bytes()[:200])
    small = source / "val2017" / coco.tables["val2017"]["images"][4]["file_name"]
    paint(small, (5, 5, 5), (100, 100))
    with pytest.raises(DataError) as caught:
        coco5(tmp_path / "other", source=source, val_images=5, partial=True)
    assert str(broken) in message(caught)
    assert f"{small}: 100x100 pixels (height x width), but its box" in message(caught)


def test_coco5_names_what_is_wrong_with_annotations(coco: Coco, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="benchkit data import coco5 FOLDER"):
        coco5(tmp_path / "root")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"(?s)instances_train2017\.json cannot be read.*annotations_trainval2017\.zip"):
        coco5(tmp_path / "root", source=tmp_path / "nothing")
    file = coco.file("train2017")
    whole = json.loads(file.read_text())
    file.write_text(file.read_text()[:-40])
    with pytest.raises(DataError, match="is no JSON"):
        dominant_objects(file, CLASSES, RULE)
    for change, text in (
        ({"annotations": 3}, "no list 'annotations'"),
        ({"images": [{"id": 1}]}, r"images\[0\]: expected a table with file_name, height, id, width"),
        ({"annotations": [{**whole["annotations"][0], "bbox": [1, 2]}]}, r"annotations\[0\]: bbox = \[1, 2\]"),
        ({"images": [{**whole["images"][0], "width": "a"}]}, r"images\[0\]: height = 240, width = 'a'"),
        ({"images": [{**whole["images"][0], "id": [1]}]}, r"images\[0\]: id = \[1\], expected a number or text"),
        (
            {"annotations": [{**whole["annotations"][0], "image_id": {}}]},
            r"image_id = \{\}, expected a number",
        ),
        ({"categories": whole["categories"][:3]}, "no category 'cake'"),
        ({"images": whole["images"][1:]}, "annotation 1000 belongs to image 1, which is not listed"),
    ):
        file.write_text(json.dumps({**whole, **change}))
        with pytest.raises(DataError, match=text):
            dominant_objects(file, CLASSES, RULE)
    file.write_text("[]")
    with pytest.raises(DataError, match="it holds a list, expected a table"):
        dominant_objects(file, CLASSES, RULE)
