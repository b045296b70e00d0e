"""The record that a report carries, so that a later one can say what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from benchkit.analysis.record import Property, Record, recorded_conditions
from benchkit.analysis.wording import setting
from benchkit.codec import encode
from benchkit.errors import BenchkitError
from benchkit.plan import typed_settings
from benchkit.report.context.blocks import Fact
from benchkit.report.context.origin_sections import data_facts, environment_facts, plugin_facts
from benchkit.results import StudyResults
from benchkit.study import Study
from benchkit.study.tree import identity


def record_of(results: StudyResults) -> Record:
    """Return the study's record: file, settings, versions, plugins, data, and every score of every repeat."""
    study = results.study
    return Record(
        study=study.name,
        metric=study.report.metric,
        seed=study.seed,
        smoke=study.smoke,
        dated=dated_of(results),
        source=study.source,
        properties=(
            *_named("study", _study(study)),
            *_named("setting", _settings(study)),
            *_of_facts("version", environment_facts(results)),
            *_of_facts("plugin", plugin_facts(results, ())),
            *_of_facts("data", data_facts(results.data)),
        ),
        conditions=recorded_conditions(results),
    )


def dated_of(results: StudyResults) -> str:
    """Return the day on which the last trial finished, such as 3 May 2026, or nothing."""
    last = max((trial.finished for trial in results.trials), default=0.0)
    return f"{datetime.fromtimestamp(last, UTC):%d %B %Y}".lstrip("0") if last else ""


def _named(kind: str, pairs: Iterable[tuple[str, str]]) -> Iterable[Property]:
    return (Property(kind=kind, name=name, value=value) for name, value in pairs)


def _of_facts(kind: str, facts: Iterable[Fact]) -> Iterable[Property]:
    return _named(kind, ((fact.name, fact.value) for fact in facts))


def _study(study: Study) -> Iterable[tuple[str, str]]:
    """Yield what the file says beside the settings: seed, repeats, factors and search."""
    yield "name", study.name
    yield "seed", str(study.seed)
    yield "repeats", str(study.repeats)
    yield "confirm", str(study.confirm)
    yield "smoke", setting(study.smoke)
    yield "metric", study.report.metric
    yield "overrides", ", ".join(study.overrides)
    for factor in study.factors:
        yield f"factor {factor.path}", ", ".join(level.label for level in factor.levels)
    if study.search:
        search = encode(study.search)
        search["sampler"] = search.pop("samplers") or search["sampler"]
        for one in search.pop("space"):
            yield f"search {one.pop('path')}", ", ".join(f"{key} = {_text(value)}" for key, value in one.items())
        yield from _dotted(search, "search")


def _settings(study: Study) -> Iterable[tuple[str, str]]:
    """Yield the base settings by dotted path, defaults filled in where the base can stand without a factor's levels."""
    try:
        tree = encode(typed_settings(study.settings, study.seed))
    except BenchkitError:
        tree = encode(study.settings)
    return _dotted(tree)


def _dotted(tree: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in tree.items():
        path = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from _dotted(value, path)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value, 1):
                yield from _dotted(item, f"{path}.{identity(item) or place}")
        elif value is not None:
            yield path, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return repr(value) if isinstance(value, float) else setting(value)
