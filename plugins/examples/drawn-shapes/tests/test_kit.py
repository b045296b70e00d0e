"""The conformance kit on drawn-shapes, and what it draws."""

from pathlib import Path

import numpy as np
import pytest
from benchkit_shapes import SHAPES, drawn_shapes

from benchkit import DataError
from benchkit.testing import Check, parametrize_checks


@parametrize_checks("datasets", "drawn-shapes", options={"n": 60})
def test_kit(check: Check) -> None:
    """Every promise that benchkit makes for a data set holds."""
    check()


def test_shapes_have_their_area(tmp_path: Path) -> None:
    """Without noise the share of each image that is drawn on is that of its shape: pi r^2 for a disc, and so on."""
    splits = drawn_shapes(tmp_path, n=400, size=64, noise=0.0)
    areas = {"disc": np.pi, "square": 1.7**2, "triangle": 1.7**2 / 1.7, "cross": 2 * 2 * 0.6 - 0.6**2}
    mean_square = (0.4**3 - 0.2**3) / 3 / 0.2  # of a radius that is uniform from 0.2 to 0.4 of the side
    for label, name in enumerate(SHAPES):
        images = splits.train.images[splits.train.labels == label]
        assert set(np.unique(images)) == {60, 140}
        assert (images == 140).mean() == pytest.approx(areas[name] * mean_square, rel=0.1)


def test_a_split_does_not_change_with_the_size_of_another(tmp_path: Path) -> None:
    """The first images of each split are the same, however many there are."""
    few, many = drawn_shapes(tmp_path, n=40), drawn_shapes(tmp_path, n=40, seed=1)
    assert few.val is not None and len(few.val.labels) == len(few.test.labels) == 8
    assert not np.array_equal(few.train.images, many.train.images)
    assert not np.array_equal(few.val.images, few.test.images)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Each wrong option is named."""
    with pytest.raises(DataError, match="wrong options") as caught:
        drawn_shapes(tmp_path, n=3, size=4, noise=-1.0)
    assert caught.value.problems == (
        "n = 3: expected 20 at least",
        "size = 4: expected 8 to 64 pixels",
        "noise = -1.0: expected 0 at least",
    )
