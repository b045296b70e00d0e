"""The views of the HTML report: what its tables and figures show when another metric or split is chosen."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from benchkit.analysis.comparisons import paired_t
from benchkit.analysis.effects import level_effects
from benchkit.analysis.estimates import Estimate
from benchkit.analysis.ranking import Pair, RankedCondition, Ranking
from benchkit.analysis.selectors import Scores, compared, values_by_repeat
from benchkit.analysis.summary import StudyStatistics, Summary
from benchkit.analysis.wording import lower_is_better, metric_words
from benchkit.metrics import SPLITS, metric_names, score_metrics
from benchkit.report.context.blocks import (
    CONDITION_COLUMNS,
    Block,
    ChoiceEntry,
    Choices,
    FigureBlock,
    Follow,
    ReportContext,
    Section,
    TableBlock,
)
from benchkit.report.context.sections import INTERVALS
from benchkit.report.context.trial_details import trial_details
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.figures.style import condition_scale, vega_config
from benchkit.report.tables.result_tables import effects_table, ranking_table
from benchkit.report.tables.table import Table, to_csv
from benchkit.results import StudyResults

FOLLOWING = ("results-forest", "speed-cost")
"""The standard figures that take any metric of any split as their option `metric`."""

SEARCH_TABLES = ("search-budget", "confirmation")
"""The tables whose cells name a condition but mean its search."""

MOST_STILL = 150_000
"""A chart of more bytes than this as SVG is only drawn by the page's script."""

ID_DIGITS = 8
"""So many digits of a condition's key name it in the address of a view."""

Views = Mapping[str, Any]


def with_choices(
    report: ReportContext, results: StudyResults, summary: Summary, figure_set: FigureSet
) -> ReportContext:
    """Return the report with everything that its page lets a reader choose; the rest of it stays as it is."""
    numbers = summary.numbers
    places = {condition.label: place for place, condition in enumerate(results.conditions)}
    by_key = {condition.key: place for place, condition in enumerate(results.conditions)}
    searches = {search.label: by_key[search.key] for search in numbers.searches if search.key in by_key}
    others = [metric for metric in _known(numbers) if metric != numbers.metric]
    tables = {
        "ranking": lambda: {metric: _ranking_view(results, numbers, metric) for metric in others},
        "effects": lambda: {metric: _effects_view(results, metric) for metric in others},
    }

    def followed(section: Section, block: Block) -> Block:
        if isinstance(block, TableBlock):
            named = searches if block.name in SEARCH_TABLES else places
            return replace(block, follow=_table_follow(block, numbers.metric, named, tables.get(block.name)))
        if isinstance(block, FigureBlock):
            standard = section.name != "figures" and block.plugin in FOLLOWING
            views = _figure_views(block.plugin, figure_set, others) if standard else {}
            return replace(block, follow=Follow(fixed=block.shows, views=_json(views)), still=_still(block, figure_set))
        return block

    sections = tuple(
        replace(section, blocks=tuple(followed(section, block) for block in section.blocks))
        for section in report.sections
    )
    return replace(report, sections=sections, choices=_choices(results, numbers))


def _still(block: FigureBlock, figure_set: FigureSet) -> str:
    """Return the chart that was drawn for print as a data address, or nothing where there is none or a large one."""
    picture = figure_set.pictures.get(block.print_source, b"")
    if not 0 < len(picture) <= MOST_STILL:
        return ""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"


def _known(numbers: StudyStatistics) -> list[str]:
    """Return every `split.metric` that a condition has, in the order of splits and metrics."""
    return [metric for metric in score_metrics() if any(metric in scores.metrics for scores in numbers.scores)]


def _choices(results: StudyResults, numbers: StudyStatistics) -> Choices:
    known = _known(numbers)
    main_split, _, main = numbers.metric.partition(".")
    names = [name for name in metric_names() if any(metric.endswith(f".{name}") for metric in known)]
    splits = [split for split in SPLITS[::-1] if any(metric.startswith(f"{split}.") for metric in known)]
    looks = condition_scale([condition.label for condition in results.conditions])
    data = {
        "study": results.study.name,
        "main": numbers.metric,
        "words": {metric: metric_words(metric) for metric in {*known, numbers.metric}},
        "conditions": [
            {
                "id": condition.key[:ID_DIGITS],
                "label": condition.label,
                "colour": looks[condition.label].colour,
                "dash": list(looks[condition.label].dash),
                "shape": looks[condition.label].shape,
            }
            for condition in results.conditions
        ],
        "config": vega_config(),
    }
    return Choices(
        metrics=tuple(ChoiceEntry(value=n, label=metric_words(n), chosen=n == main) for n in names),
        splits=tuple(ChoiceEntry(value=split, label=split, chosen=split == main_split) for split in splits),
        conditions=tuple(
            ChoiceEntry(value=condition.key[:ID_DIGITS], label=condition.label, chosen=True)
            for condition in results.conditions
        ),
        data=_json(dict(sorted(data.items()))),
        trials=_json(trial_details(results)),
    )


def _table_follow(block: TableBlock, main: str, places: Mapping[str, int], views: Callable[[], Views] | None) -> Follow:
    if views is not None:
        return Follow(places=places, views=_json(views()))
    split = block.name.removeprefix("metrics-")
    fixed = {
        "pairs": f"the tests of {metric_words(main)}",
        "models": "test accuracy",
        "model-pairs": "test accuracy",
        "trials": f"val loss and {metric_words(main)}",
    }
    words = f"every metric on {split}" if split != block.name else fixed.get(block.name, "")
    return Follow(places=places, fixed=words)


def _ranking_view(results: StudyResults, numbers: StudyStatistics, metric: str) -> Views:
    seen = replace(numbers, metric=metric, ranking=_untested(results, numbers, metric))
    return _table_view(
        ranking_table(seen),
        f"Conditions by mean {metric_words(metric)}, best first, with the difference from the best, paired by repeat. "
        f"{INTERVALS} Nothing is tested here: the report tests only {metric_words(numbers.metric)}, the study's main "
        "metric, because who tests every metric finds differences by chance.",
    )


def _untested(results: StudyResults, numbers: StudyStatistics, metric: str) -> Ranking:
    """Return the conditions by another metric, with differences from the best one but without any test."""
    known = [scores for scores in numbers.scores if metric in scores.metrics]
    known.sort(key=lambda scores: (1 if lower_is_better(metric) else -1) * scores.metrics[metric].mean)
    values = {c.key: values_by_repeat(results, c, metric) for c in compared(results)}
    rows = tuple(
        _ranked(place, scores, scores.metrics[metric], _gap(known[0].key, scores.key, values))
        for place, scores in enumerate(known, 1)
    )
    without = tuple(scores.label for scores in numbers.scores if metric not in scores.metrics)
    return Ranking(metric=metric, rows=rows, pairs=(), without=without)


def _ranked(place: int, scores: Scores, found: Estimate, pair: Pair | None) -> RankedCondition:
    verdict: Any = "best" if place == 1 else "untested"
    return RankedCondition(rank=place, key=scores.key, label=scores.label, estimate=found, verdict=verdict, pair=pair)


def _gap(best: str, key: str, values: Mapping[str, Mapping[int, float]]) -> Pair | None:
    shared = sorted(values[best].keys() & values[key].keys())
    if best == key or not shared:
        return None
    found = paired_t([values[best][i] for i in shared], [values[key][i] for i in shared])
    untold = replace(found, p=None, effect_size=None)
    return Pair(first=best, second=key, comparison=untold, p_adjusted=None, detectable=None, repeats_needed=None)


def _effects_view(results: StudyResults, metric: str) -> Views:
    return _table_view(
        effects_table(level_effects(results, metric), metric),
        f"Mean {metric_words(metric)} of every level over all conditions that have it, using the repeats that all of "
        f"them finished. {INTERVALS}",
    )


def _table_view(table: Table, caption: str) -> Views:
    """Return a table as the page's script builds it: headings, and cells of text, detail, mark, bold, sort value."""
    return {
        "caption": caption,
        "heads": [[column.heading, column.unit] for column in table.columns],
        "rows": [
            [[cell.text, cell.detail, cell.mark, int(cell.strong), cell.sort_value] for cell in row]
            for row in table.rows
        ],
        "names": [
            [
                str(cell.value) if column.key in CONDITION_COLUMNS else ""
                for column, cell in zip(table.columns, row, strict=True)
            ]
            for row in table.rows
        ],
        "csv": to_csv(table),
    }


def _figure_views(plugin: str, figure_set: FigureSet, metrics: list[str]) -> Views:
    found = {metric: figure_set.view(plugin, {"metric": metric}) for metric in metrics}
    return {
        metric: {"caption": view.caption, "alt": view.alt_text, "spec": json.loads(view.spec), "data": view.data}
        for metric, view in found.items()
        if view is not None
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False) if value else ""
