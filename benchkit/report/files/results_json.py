"""The report's content as JSON: every number at full precision beside the text that the pages show."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.analysis.changes import Changes, change_findings
from benchkit.analysis.summary import Summary
from benchkit.codec import encode
from benchkit.report.context.blocks import FigureBlock, ReportContext, Section, TableBlock
from benchkit.results import StudyResults

SCHEMA = 1
"""The version of the JSON's layout; it grows when a key changes its meaning or goes."""


def to_json(content: Mapping[str, Any]) -> str:
    """Return content as JSON; numbers that JSON lacks (NaN, infinities) become null.

    `templates/results.schema.json` documents the layout.
    """
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def study_content(
    report: ReportContext, summary: Summary, results: StudyResults, changes: Changes | None = None
) -> dict[str, Any]:
    """Return what a study's report says, for JSON: `record` is what a later report compares itself with."""
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
        "numbers": encode(summary.numbers),
        **blocks_content(report.sections),
        "conditions": [
            {"key": c.key, "label": c.label, "kind": c.kind, "levels": dict(c.levels), "chosen": encode(c.chosen)}
            for c in results.conditions
        ],
        "record": json.loads(report.record),
    }
    return content | ({"changes": {**encode(changes), "findings": encode(change_findings(changes))}} if changes else {})


def blocks_content(sections: Sequence[Section]) -> dict[str, Any]:
    """Return the tables and figures of sections, for JSON."""
    blocks = [block for section in sections for block in section.blocks]
    return {
        "tables": [_table(block) for block in blocks if isinstance(block, TableBlock)],
        "figures": [_figure(block) for block in blocks if isinstance(block, FigureBlock)],
    }


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
