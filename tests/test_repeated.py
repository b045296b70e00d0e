"""Images that several splits have: found once, told in a finding, shown as pictures."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchkit_figures.classes.repeated_images import RepeatedImages
from PIL import Image
from test_degenerate import OTHER, SOUND, study

from benchkit import ImageGrid, NothingToDraw, Splits
from benchkit.analysis.summary import recorded_data, summarize
from benchkit.data.dataset import facts_of
from benchkit.preparation import About, Draft, prepare
from benchkit.protocols import Repeated
from benchkit.results import StudyResults
from benchkit.study.settings import PluginRef

PIXELS = np.random.default_rng(3).integers(0, 256, (9, 4, 6, 3), dtype=np.uint8)


def prepared(root: Path, *, val: bool = True) -> Splits:
    """Return 0..3 as train, 4, 1, 4 as val and 5, 4, 0, 0 as test: 1 of val and 3 of test are in an earlier split."""

    def fill(draft: Draft) -> About:
        draft.write("train", PIXELS[:4], [0, 1, 0, 1])
        if val:
            draft.write("val", PIXELS[[4, 1, 4]], [0, 1, 0])
        draft.write("test", PIXELS[[5, 4, 0, 0]], [0, 1, 0, 1])
        return About(class_names=("cat", "dog"), licence="CC0-1.0", citation="Nobody, 2024.")

    return prepare(root, "pets", fill)


def given(splits: Splits) -> StudyResults:
    results = study({"one": SOUND, "other": OTHER}, {"one": OTHER, "other": SOUND})
    facts = facts_of(PluginRef(name="pets", options={}), splits)
    return replace(results, data={**facts, "sets": [facts]})


def test_images_of_two_splits_are_found_when_a_set_is_prepared(tmp_path: Path) -> None:
    for splits in (prepared(tmp_path), prepared(tmp_path)):  # prepared, and served
        assert splits.repeated is not None and splits.repeated.count == 4
        assert splits.repeated.pairs == (
            ("train", 1, "val", 1),
            ("val", 0, "test", 1),
            ("train", 0, "test", 2),
            ("train", 0, "test", 3),
        )
    alone = prepared(tmp_path / "two", val=False)
    assert alone.repeated is not None and alone.repeated.count == 2


def test_they_are_told_and_shown(tmp_path: Path) -> None:
    results = given(prepared(tmp_path))
    json.dumps(results.data)  # what a ledger keeps
    sentences = [finding.sentence for finding in summarize(results).findings if finding.rule == "repeated-images"]
    assert sentences == ["4 val or test images of “pets” are also in an earlier split, pixel for pixel."]
    figure = RepeatedImages()
    data = figure.data(results)
    grid = figure.draw(data)
    assert isinstance(grid, ImageGrid)
    assert [words for words, _ in grid.rows] == [
        "training and validation: dog",
        "validation and test: cat / dog",
        "training and test: cat",
        "training and test: cat / dog",
    ]
    shown = Image.open(io.BytesIO(grid.rows[0][1][0]))
    assert shown.size == (6, 4)
    mean = np.asarray(shown, dtype=float).mean((0, 1))
    np.testing.assert_allclose(mean, PIXELS[1].mean((0, 1)), atol=12)  # JPEG of noise keeps the average
    assert figure.caption(data) == (
        "Images that two splits have, pixel for pixel: 4 of 4. 2 of those shown have two classes."
    )
    assert not any("picture" in name for name, _ in recorded_data({**results.data, "sets": results.data["sets"] * 2}))


def test_nothing_is_told_where_there_are_none_or_nobody_looked(tmp_path: Path) -> None:
    for splits in (replace(prepared(tmp_path), repeated=None), replace(prepared(tmp_path), repeated=Repeated())):
        results = given(splits)
        assert "repeated" not in results.data
        assert not any(finding.rule == "repeated-images" for finding in summarize(results).findings)
        with pytest.raises(NothingToDraw):
            RepeatedImages().data(results)


def test_a_set_that_an_earlier_version_prepared_is_served(tmp_path: Path) -> None:
    prepared(tmp_path)
    file = tmp_path / "pets" / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["repeated"]
    file.write_text(json.dumps(manifest))
    assert prepared(tmp_path).repeated is None
