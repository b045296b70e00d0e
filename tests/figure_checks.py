"""Checks that hold for every figure: plain data, valid specs, pictures that need nothing from outside."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from altair.utils.schemapi import validate_jsonschema
from altair.vegalite.v6.schema.core import Root

from benchkit.report.figures.drawing import chart_spec, spec_to_svg
from benchkit.results import StudyResults


def validate_spec(spec: Mapping[str, Any]) -> None:
    """Check a spec against Altair's schema, which knows every background but the absent one."""
    validate_jsonschema({name: value for name, value in spec.items() if name != "background"}, Root._schema)


def rows_of(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the short rows that the whole figure is drawn from."""
    rows: list[dict[str, Any]] = spec["datasets"][spec["data"]["name"]]
    return rows


def assert_plain(value: Any, path: str = "data") -> None:
    """Fail unless the value is frozen dataclasses and tuples of text, flags and finite numbers all the way down."""
    if dataclasses.is_dataclass(value):
        assert type(value).__dataclass_params__.frozen, path  # type: ignore[attr-defined]
        for part in dataclasses.fields(value):
            assert_plain(getattr(value, part.name), f"{path}.{part.name}")
    elif isinstance(value, tuple):
        for place, part in enumerate(value):
            assert_plain(part, f"{path}[{place}]")
    elif value is not None:
        assert type(value) in (str, bool, int, float), f"{path} is {type(value)}"
        assert not isinstance(value, float) or math.isfinite(value), path


def drawn(figure: Any, given: StudyResults) -> dict[str, Any]:
    data = figure.data(given)
    assert_plain(data)
    spec = chart_spec(figure.draw(data), description=figure.alt_text(data))
    validate_spec(spec)
    svg = spec_to_svg(spec)
    assert "<linearGradient" not in svg
    assert "NaN" not in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    width = float(svg.partition('width="')[2].partition('"')[0])
    assert width <= 670, "wider than a page"
    for words in (figure.caption(data), figure.alt_text(data)):
        assert words.endswith(".")
        assert "nan" not in words.split()
    return spec
