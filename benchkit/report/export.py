"""The report's content as JSON: every number at full precision beside the text that the pages show."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.analysis.summary import Summary
from benchkit.codec import encode
from benchkit.report.context import FigureBlock, ReportContext, TableBlock
from benchkit.results import StudyResults

SCHEMA = 1
"""The version of the JSON's layout; it grows when a key changes its meaning or goes."""


def to_json(report: ReportContext, summary: Summary, results: StudyResults, files: Sequence[str] = ()) -> str:
    """Return the report as JSON; numbers that JSON lacks (NaN, infinities) become null.

    `templates/results.schema.json` documents the layout. `files` are the paths of the other files in the folder.
    """
    study = results.study
    content = {
        "schema": SCHEMA,
        "generator": report.generator,
        "study": {
            "name": study.name,
            "title": study.title,
            "question": study.question,
            "seed": study.seed,
            "repeats": study.repeats,
            "authors": list(study.report.authors),
            "abstract": list(report.abstract),
            "keywords": list(study.report.keywords),
            "overrides": list(study.overrides),
            "smoke": study.smoke,
            "source": study.source,
        },
        "command": results.command,
        "data": encode(results.data),
        "banners": encode(report.banners),
        "answer": list(report.answer),
        "findings": encode(summary.findings),
        "numbers": encode(summary.evidence),
        "files": list(files),
        "tables": [_table(block) for block in report.tables],
        "figures": [_figure(block) for block in report.figures],
        "conditions": [
            {"key": c.key, "label": c.label, "kind": c.kind, "levels": dict(c.levels), "chosen": encode(c.chosen)}
            for c in results.conditions
        ],
    }
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _table(block: TableBlock) -> dict[str, Any]:
    keys = [column.key for column in block.table.columns]
    return {
        "number": block.number,
        "name": block.name,
        "caption": block.caption,
        "columns": encode(block.table.columns),
        "rows": [
            {
                key: {"text": cell.text, "detail": cell.detail, "value": cell.value, "mark": cell.mark}
                for key, cell in zip(keys, row, strict=True)
            }
            for row in block.table.rows
        ],
        "csv": block.csv,
    }


def _figure(block: FigureBlock) -> dict[str, Any]:
    return {
        "number": block.number,
        "name": block.name,
        "plugin": block.plugin,
        "caption": block.caption,
        "alt_text": block.alt_text,
        "data": dict(block.data),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
