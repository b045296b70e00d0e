"""What the HTML report shows of a choice: tables and figures by another metric or split, and every trial's details."""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchkit.analysis.comparisons import paired_by_repeat
from benchkit.analysis.estimates import Estimate, Scores, compared, confidence_of, level_effects, values_by_repeat
from benchkit.analysis.ranking import Pair, RankedCondition, Ranking, mean_intervals_words
from benchkit.analysis.summary import StudyStatistics
from benchkit.analysis.training import several_nodes, where_trained
from benchkit.analysis.wording import bare, duration, lower_is_better, measured, metric_unit, metric_words, setting
from benchkit.ledger.trials import TrialFolder
from benchkit.metrics import SPLITS, metric_names, score_metrics
from benchkit.plan import Condition
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
from benchkit.report.context.numbers import effects_caption
from benchkit.report.figures.drawing import condition_scale, vega_config
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.exports import StudyBuild
from benchkit.report.page_text import private_text
from benchkit.report.tables.result_tables import effects_table, numbered_trials, ranking_table, says_little
from benchkit.report.tables.table import Table, to_csv
from benchkit.results import EpochRecord, StudyResults, Trial
from benchkit.study.seeds import PURPOSES, trial_seeds

FOLLOWING = ("results-forest", "ladder", "grid-heatmap", "speed-cost")
"""The standard figures that take any metric of any split as their option `metric`."""

SEARCH_TABLES = ("search-budget", "confirmation")
"""The tables whose cells name a condition but mean its search."""

MOST_STILL = 150_000
"""A chart of more bytes than this as SVG is only drawn by the page's script."""

ID_DIGITS = 8
"""So many digits of a condition's key name it in the address of a view."""

Views = Mapping[str, Any]


def with_choices(part: StudyBuild) -> ReportContext:
    """Return a study's report with everything that its page lets a reader choose; the rest of it stays as it is."""
    results, numbers, figure_set = part.results, part.summary.numbers, part.figure_set
    assert figure_set is not None, "a page has figures"
    places = {condition.label: index for index, condition in enumerate(results.conditions)}
    by_key = {condition.key: index for index, condition in enumerate(results.conditions)}
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
        for section in part.report.sections
    )
    return replace(part.report, sections=sections, choices=_choices(results, numbers))


def _still(block: FigureBlock, figure_set: FigureSet) -> str:
    """Return the chart that was drawn for print as a data address, or nothing where there is none or a large one."""
    picture = figure_set.pictures.get(block.print_source, b"")
    if not 0 < len(picture) <= MOST_STILL:
        return ""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"


def _known(numbers: StudyStatistics) -> list[str]:
    """Return every `split.metric` that a condition has, in the order of splits and metrics."""
    known = [metric for metric in score_metrics() if any(metric in scores.metrics for scores in numbers.scores)]
    return [metric for metric in known if not says_little(numbers, metric)]


def _choices(results: StudyResults, numbers: StudyStatistics) -> Choices:
    known = _known(numbers)
    main_split, _, main = numbers.metric.partition(".")
    names = [name for name in metric_names() if any(metric.endswith(f".{name}") for metric in known)]
    splits = [split for split in SPLITS[::-1] if any(metric.startswith(f"{split}.") for metric in known)]
    looks = condition_scale([condition.label for condition in results.conditions])
    data = {
        "study": results.study.name,
        "main": numbers.metric,
        "words": {metric: metric_words(metric) for metric in dict.fromkeys((*known, numbers.metric))},
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
        f"{mean_intervals_words(confidence_of(results), results.resampled)} Nothing is tested here: the report tests "
        f"only {metric_words(numbers.metric)}, the study's main metric, because who tests every metric finds "
        "differences by chance.",
    )


def _untested(results: StudyResults, numbers: StudyStatistics, metric: str) -> Ranking:
    """Return the conditions by another metric, with differences from the best one but without any test."""
    known = [scores for scores in numbers.scores if metric in scores.metrics]
    known.sort(key=lambda scores: (1 if lower_is_better(metric) else -1) * scores.metrics[metric].mean)
    values = {c.key: values_by_repeat(results, c, metric) for c in compared(results)}
    rows = tuple(
        _ranked(rank, scores, scores.metrics[metric], _gap(known[0].key, scores.key, values, results.resampled))
        for rank, scores in enumerate(known, 1)
    )
    without = tuple(scores.label for scores in numbers.scores if metric not in scores.metrics)
    return Ranking(metric=metric, rows=rows, pairs=(), without=without)


def _ranked(rank: int, scores: Scores, estimate: Estimate, pair: Pair | None) -> RankedCondition:
    verdict: Any = "best" if rank == 1 else "untested"
    return RankedCondition(rank=rank, key=scores.key, label=scores.label, estimate=estimate, verdict=verdict, pair=pair)


def _gap(best: str, key: str, values: Mapping[str, Mapping[int, float]], resampled: float) -> Pair | None:
    comparison = None if best == key else paired_by_repeat(values[best], values[key], resampled)
    if comparison is None:
        return None
    untold = replace(comparison, p=None, effect_size=None)
    return Pair(first=best, second=key, comparison=untold, p_adjusted=None, detectable=None)


def _effects_view(results: StudyResults, metric: str) -> Views:
    return _table_view(
        effects_table(level_effects(results, metric), metric), effects_caption(metric, results.resampled)
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
    views = {metric: figure_set.view(plugin, {"metric": metric}) for metric in metrics}
    return {
        metric: {"caption": view.caption, "alt": view.alt_text, "spec": json.loads(view.spec), "data": view.data}
        for metric, view in views.items()
        if view is not None
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False) if value else ""


MOST_EPOCHS = 40
"""A longer history is thinned evenly to at most about this many epochs, the first and the last among them."""

LOG_BYTES, LOG_LINES = 4000, 25
"""The end of a log is at most this long."""

MOST_LOGS = 300
"""Beyond this many trials only those that did not end as done show the end of their log."""

SERIES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\t\n\x20-\x7e\x85\xa0-\U0010ffff]")


def trial_details(results: StudyResults) -> list[dict[str, Any]]:
    """Return for every condition in report order its settings and its trials, numbers as the report words them.

    Trials are numbered as in the table of every trial. Values are plain JSON without NaN.
    """
    with_logs, nodes = len(results.trials) <= MOST_LOGS, several_nodes(results.trials)
    details: dict[str, list[dict[str, Any]]] = {condition.key: [] for condition in results.conditions}
    for number, trial in numbered_trials(results.trials):
        if trial.condition.key in details:
            logged = with_logs or trial.state != "done"
            details[trial.condition.key].append(_trial(trial, number, results, logged=logged, nodes=nodes))
    return [{"settings": _settings(condition), "trials": details[condition.key]} for condition in results.conditions]


def _settings(condition: Condition) -> list[list[str]]:
    chosen = [[path, setting(value)] for path, value in condition.chosen.items()]
    return [*([path, str(label)] for path, label in condition.levels.items()), *chosen]


def _trial(trial: Trial, number: int, results: StudyResults, *, logged: bool, nodes: bool) -> dict[str, Any]:
    outcome = trial.outcome
    facts = [
        ["stage", trial.phase],
        ["slot of the search" if trial.phase == "search" else "repeat", str(trial.index)],
        ["attempt", str(trial.attempt)] if trial.attempt else [],
        ["reason", trial.reason],
        ["epochs trained", str(len(trial.history))],
        ["epoch scored", str(outcome.selected_epoch) if outcome and outcome.selected_epoch else ""],
        ["training time", duration(sum(record.seconds for record in trial.history)) if trial.history else ""],
        ["device", where_trained(trial, nodes=nodes)],
        ["precision", outcome.cost.precision if outcome and outcome.cost else ""],
        ["test images read", f"{outcome.test_reads} times" if outcome and outcome.test_reads > 1 else ""],
        ["notes", "; ".join(outcome.notes) if outcome else ""],
    ]
    return {
        "number": number,
        "state": trial.state,
        "main": _score(trial, results.study.report.metric),
        "facts": [fact for fact in facts if fact and fact[1]],
        "params": [[path, setting(value)] for path, value in trial.params.items()],
        "seeds": _seeds(trial, results.study.seed),
        "scores": _scores(trial),
        "history": _history(trial.history),
        "log": log_end(TrialFolder(trial.folder).log) if logged else "",
    }


def _score(trial: Trial, metric: str) -> str:
    try:
        return measured(metric, trial.score(metric))
    except KeyError:
        return ""


def _scores(trial: Trial) -> list[list[str]]:
    """Return a row for each metric: its name, then its value on every split of `SPLITS`, as text."""
    scored: Mapping[Any, Any] = trial.outcome.metrics if trial.outcome else {}
    if not scored:
        return []
    rows = []
    for name in metric_names():
        values = [scored[split].value(name) if split in scored else None for split in SPLITS]
        if any(value is not None for value in values):
            texts = ["" if value is None else bare(name, value) for value in values]
            rows.append([f"{metric_words(name)} ({metric_unit(name)})", *texts])
    return rows


def _seeds(trial: Trial, seed: int) -> list[list[str]]:
    """Return the seeds that the trial's random numbers came from, as text: they exceed what JavaScript counts to."""
    derived = trial_seeds(seed, trial.phase, trial.index)
    return [["study", str(seed)], *([PURPOSES[purpose], str(value)] for purpose, value in derived.items())]


def _history(records: Sequence[EpochRecord]) -> dict[str, list[float | None]]:
    if not records:
        return {}
    stride = math.ceil(len(records) / MOST_EPOCHS)
    kept = [record for index, record in enumerate(records) if index % stride == 0 or index == len(records) - 1]
    series: dict[str, list[float | None]] = {"epoch": [record.epoch for record in kept]}
    for name in SERIES:
        series[name] = [_short(getattr(record, name)) for record in kept]
    return series


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def log_end(path: Path) -> str:
    """Return the last lines of a log as plain text without terminal codes and home folders, or nothing."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode(errors="replace")
    lines = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).splitlines()
    whole = lines[1:] if size > LOG_BYTES else lines
    return private_text("\n".join(whole[-LOG_LINES:]).strip("\n"))
