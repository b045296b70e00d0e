"""A study that is written as text, as a capsule holds it, and read again is the same study."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic_results import study_of

from benchkit.capsule.making import study_text
from benchkit.metrics import score_metrics
from benchkit.study import Published, PublishedRow, ReportSettings, Study
from benchkit.study.studyfile import parse_study, read_study

BASE = study_of(("bn", "gn"))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
WORDS = TEXT.filter(str.strip)
OPTIONS = st.dictionaries(
    st.text("abc_", min_size=1, max_size=5).filter(lambda key: key != "name"),
    st.integers(-(2**53), 2**53) | st.booleans() | TEXT | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
)
REPORTS = st.builds(
    ReportSettings,
    figures=st.lists(st.tuples(WORDS, OPTIONS), max_size=3).map(tuple),
    authors=st.lists(WORDS, max_size=3).map(tuple),
    abstract=TEXT,
    keywords=st.lists(WORDS, max_size=3).map(tuple),
    logo=st.sampled_from([None, Path("logo.png"), Path("pictures/logo.svg")]),
    metric=st.sampled_from(sorted(score_metrics())),
)
ROWS = st.builds(
    PublishedRow,
    when=st.sampled_from([{}, {"model.norm": "bn"}]),
    metric=st.just("test.accuracy"),
    value=st.floats(0, 1),
    n=st.none() | st.integers(1, 10**6),
    note=TEXT,
)
PUBLISHED_TABLES = st.builds(
    Published, source=WORDS, url=TEXT, note=TEXT, rows=st.lists(ROWS, min_size=1, max_size=2).map(tuple)
)


def told(study: Study) -> dict[str, Any]:
    """Return every field of a study that its file says."""
    aside = {"source", "path", "overrides", "smoke"}
    return {one.name: getattr(study, one.name) for one in fields(study) if one.name not in aside}


@given(WORDS, WORDS, TEXT, st.integers(0, 2**31), st.integers(1, 9), REPORTS, st.lists(PUBLISHED_TABLES, max_size=2))
@settings(max_examples=150, deadline=None)
def test_every_field_of_a_study_survives(
    title: str, question: str, description: str, seed: int, repeats: int, report: ReportSettings, published: list[Any]
) -> None:
    study = replace(
        BASE, title=title, question=question, description=description, seed=seed, repeats=repeats, report=report,
        published=tuple(published),
    )  # fmt: skip
    assert told(parse_study(study_text(study), name=study.name)) == told(study)


def test_a_logo_is_written_relative_to_the_study_file(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "logo.png")
    file = tmp_path / "mine.toml"
    file.write_text(study_of(("bn",)).source + '\n[report]\nlogo = "logo.png"\n')
    study = read_study(file)
    assert study.report.logo == tmp_path / "logo.png"
    text = study_text(study)
    assert 'logo = "logo.png"' in text and str(tmp_path) not in text
    file.write_text(text)
    assert read_study(file).report == study.report
