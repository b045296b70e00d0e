"""A study as the text of a TOML file: overrides and the smoke form applied, so that it alone says what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchkit.codec import encode
from benchkit.report.files.toml_text import to_toml
from benchkit.study import Factor, Published, Search, SearchRange, Study


def study_text(study: Study) -> str:
    """Return the study as TOML; reading it gives the same conditions, with the same keys, without any `--set`."""
    table: dict[str, Any] = {
        "title": study.title,
        "question": study.question,
        "description": study.description,
        "seed": study.seed,
        **encode(study.settings),
    }
    if study.factors:
        table["factors"] = {factor.path: _levels(factor) for factor in study.factors}
    if study.search:
        table["search"] = _search(study.search)
    table["repeats"] = {"n": study.repeats}
    if study.search or study.confirm:
        table["confirm"] = {"n": study.confirm}
    if study.published:
        table["published"] = [_published(one) for one in study.published]
    report = study.report
    table["report"] = {
        "metric": report.metric,
        "authors": list(report.authors),
        "abstract": report.abstract,
        "figures": [{"name": name, **options} if options else name for name, options in report.figures],
    }
    # The order of factors, of what a level fixes and of a search's space is part of what they mean.
    return to_toml(table, ordered=("factors", "search.space"))


def _levels(factor: Factor) -> list[Mapping[str, Any]]:
    return [
        {"label": level.label, "value": encode(level.settings[factor.path])}
        if set(level.settings) == {factor.path}
        else {"label": level.label, "set": encode(level.settings)}
        for level in factor.levels
    ]


def _search(search: Search) -> Mapping[str, Any]:
    return {
        "trials": search.trials,
        "goal": [goal.metric for goal in search.goals],
        "sampler": list(search.samplers) or search.sampler,
        "pruner": search.pruner,
        "space": {one.path: _range(one) for one in search.space},
    }


def _range(one: SearchRange) -> Any:
    if one.choices:
        return encode(one.choices)
    found: dict[str, Any] = {"low": one.low, "high": one.high}
    if one.log:
        found["log"] = True
    return found if one.step is None else {**found, "step": one.step}


def _published(one: Published) -> Mapping[str, Any]:
    rows = [{key: value for key, value in encode(row).items() if value is not None} for row in one.rows]
    stated = {} if one.classes is None else {"classes": one.classes}
    return {"source": one.source, "url": one.url, "note": one.note, **stated, "rows": rows}
