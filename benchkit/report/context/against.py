"""A study held against an earlier state of it: how that is read from a workspace or report, and what has changed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchkit.analysis.changes import Change, Changes, change_findings, compare_records, pairing_words, same_of
from benchkit.analysis.summary import Record, record_from, record_of
from benchkit.analysis.wording import (
    NONE,
    bracket,
    difference,
    difference_unit,
    metric_unit,
    metric_words,
    names,
    p_value,
    within_range,
)
from benchkit.errors import ReportError, nearest
from benchkit.report.context.blocks import Block, CodeBlock, Paragraph, Section, section, table_block
from benchkit.report.context.compose import finding_block
from benchkit.report.context.numbers import several_intervals_words
from benchkit.report.page_text import private_results
from benchkit.report.tables.table import ESTIMATE_PARTS, Cell, Column, Table, TableOf, estimate_cell, number_cell
from benchkit.results import rounded

_EMBEDDED = re.compile(r'<script type="application/json" class="record">(.*?)</script>', re.DOTALL)
HINT = "give a workspace folder, a report's results.json, or the HTML of a report"


def changes_since(old: Record, new: Record, against: Path) -> Changes:
    """Return what has changed; raise `ReportError` when no condition has a score both then and now."""
    changes = compare_records(old, new)
    if changes.main or changes.scores:
        return changes
    then = [condition.label for condition in old.conditions if condition.readings]
    now = [condition.label for condition in new.conditions if condition.readings]
    raise ReportError(
        f"--against {against}: nothing to compare: no condition of {new.study} has a score both then and now",
        problems=[f"then: {', '.join(then) or 'no condition with a score'}",
                  f"now: {', '.join(now) or 'no condition with a score'}"],
        hint="conditions are matched by their labels",
    )  # fmt: skip


def read_record(against: Path, study: str) -> Record:
    """Return the record of a study in an earlier workspace or report.

    Of several studies it is the one of the same name; a single one is taken whatever its name, so that a renamed study
    can be compared. Raises `ReportError` when there is none, and `LedgerError` when a ledger cannot be read.
    """
    if not against.exists():
        raise ReportError(f"--against {against}: there is no such file or folder", hint=HINT)
    if against.is_dir():
        if (against / "ledger.db").is_file():
            return _from_workspace(against, study)
        if not (against / "results.json").is_file():
            raise ReportError(f"--against {against}: the folder holds neither a ledger nor a results.json", hint=HINT)
        against = against / "results.json"
    return _chosen(_records(against), study, against)


def _from_workspace(workspace: Path, study: str) -> Record:
    from benchkit.ledger import UntouchedLedger, read_results

    known = UntouchedLedger(workspace).studies()
    name = _name(known, study, workspace)
    results = read_results(workspace, name, None)
    return record_of(rounded(private_results(results)))


def _chosen(records: Sequence[Record], study: str, file: Path) -> Record:
    name = _name([record.study for record in records], study, file)
    return next(record for record in records if record.study == name)


def _name(known: Sequence[str], study: str, against: Path) -> str:
    if study in known:
        return study
    if len(known) == 1:
        return known[0]
    raise ReportError(
        f"--against {against}: it holds no study {study!r}{nearest(study, known)}",
        hint=f"it holds: {', '.join(known)}" if known else HINT,
    )


def _records(file: Path) -> list[Record]:
    """Return the records in a report's file; raise `ReportError` when it has none or they cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"--against {file}: it cannot be read as text: {error}", hint=HINT) from error
    try:
        records = [record_from(part) for part in _parts(text)]
    except (ValueError, RecursionError) as error:
        raise ReportError(f"--against {file}: {error}", hint=HINT) from error
    if not records:
        raise ReportError(
            f"--against {file}: it carries no record of a study; reports of older versions do not",
            hint=f"make it again with this benchkit, or {HINT}",
        )
    return records


def _parts(text: str) -> list[Any]:
    """Return the parsed records in the text of an HTML report or of a results.json."""
    if not text.lstrip().startswith("{"):
        return [json.loads(part) for part in _EMBEDDED.findall(text)]
    content = json.loads(text)
    held = [content, *content.get("studies", ())] if isinstance(content.get("studies", []), list) else [content]
    return [part["record"] for part in held if isinstance(part, dict) and "record" in part]


MOST_LINES = 300
"""A page shows at most this many lines of how the study file differs."""


def changes_section(changes: Changes, then: str, now: str) -> Section:
    """Return what has changed; `then` and `now` are the texts of the two study files."""
    findings = [finding_block(finding) for finding in change_findings(changes)]
    lead = Paragraph(text=f"Then is {then_words(changes)}; now is this report's study. Differences are now minus then.")
    blocks: list[Block] = [lead, *findings, *_tables(changes)]
    if changes.gone or changes.added:
        parts = [f"{word}: {names(labels, most=60)}" for word, labels in
                 (("Gone", changes.gone), ("New", changes.added)) if labels]  # fmt: skip
        blocks.append(Paragraph(text=f"{'. '.join(parts)}."))
    if changes.properties:
        blocks.append(
            table_block(
                "changed-properties",
                "What else differs",
                "Everything that the two reports know of how the trials were made and that differs: study, settings, "
                "versions, device, plugins and data.",
                properties_table(changes),
            )
        )
    else:
        blocks.append(Paragraph(text="Study file, settings, versions, device, plugins and data are the same."))
    lines = file_difference(then, now)
    if lines:
        blocks.append(CodeBlock(title="Study file, then (\N{MINUS SIGN}) and now (+)", text="\n".join(lines)))
    return section("changes", "Changes since then", blocks)


def then_words(changes: Changes) -> str:
    """Return what then was: the study's name and the day of its last trial."""
    return f"{changes.old_study}{f' of {changes.old_dated}' if changes.old_dated else ''}"


def _tables(changes: Changes) -> list[Block]:
    metric = metric_words(changes.metric)
    same = len(changes.same_key)
    keys = f" In {same} of {same_of(changes)} conditions all settings are the same." if changes.main else ""
    how = (
        f"{several_intervals_words(zip(('Then', 'Now'), changes.resampled, strict=True))} p is corrected within this "
        "table (Holm). Detectable: the smallest true change that these repeats find with 80 % power after "
        "correction. Under the verdict: the test and its repeats."
    )
    parts = (
        (
            "changed-main",
            f"{metric} then and now",
            f"Every condition's {metric} then and now.{keys} {pairing_words(changes)}",
            changes.main,
        ),
        ("changed-scores", "Other scores then and now", "The other scores.", changes.scores),
        ("changed-costs", "Costs then and now", "Training time, speed and memory.", changes.costs),
    )
    return [
        table_block(name, f"{title[0].upper()}{title[1:]}", f"{caption} {how}", changes_table(rows))
        for name, title, caption, rows in parts
        if rows
    ]


def changes_table(rows: Sequence[Change]) -> Table:
    """Return then, now, difference and test of every row; the metric has a column where there are several."""
    several = len({row.metric for row in rows}) > 1
    unit, gap = ("", "") if several else (metric_unit(rows[0].metric), difference_unit(rows[0].metric))
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    if several:
        table.add(Column(key="metric", heading="Metric", align="left"), _metric)
    then = Column(key="then", heading="Then", unit=unit, parts=ESTIMATE_PARTS)
    table.add(then, lambda row: estimate_cell(row.metric, row.old))
    now = Column(key="now", heading="Now", unit=unit, parts=ESTIMATE_PARTS)
    table.add(now, lambda row: estimate_cell(row.metric, row.new))
    table.add(Column(key="difference", heading="Now minus then", unit=gap, parts=("low", "high")), _difference)
    table.add(Column(key="p_holm", heading="p (Holm)", parts=("uncorrected",)), _p)
    detectable = Column(key="detectable", heading="Detectable", unit=gap)
    table.add(detectable, lambda row: number_cell(within_range(row.metric, row.detectable), row.detectable))
    table.add(Column(key="verdict", heading="Verdict", align="left", parts=("test", "pairs")), _verdict)
    return table.made()


def _metric(row: Change) -> Cell:
    units = " / ".join(dict.fromkeys(unit for unit in (metric_unit(row.metric), difference_unit(row.metric)) if unit))
    return Cell(text=metric_words(row.metric), detail=units, value=row.metric)


def _difference(row: Change) -> Cell:
    return Cell(
        text=difference(row.metric, row.difference),
        detail=bracket(row.metric, row.low, row.high),
        value=row.difference,
        parts=(row.low, row.high),
        strong=row.told_apart,
    )


def _p(row: Change) -> Cell:
    return Cell(text=p_value(row.p_adjusted), value=row.p_adjusted, parts=(row.p,), strong=row.told_apart)


def _verdict(row: Change) -> Cell:
    tests = {
        "paired": f"paired, {row.pairs}",
        "welch": f"Welch, {row.old.n} and {row.new.n}",
        "none": f"no test, {row.old.n} and {row.new.n}",
    }
    parts = (row.method, row.pairs)
    return Cell(text=row.verdict, detail=tests[row.method], value=row.verdict, parts=parts, strong=row.told_apart)


def properties_table(changes: Changes) -> Table:
    """Return everything that differs in how the trials were made."""
    table = TableOf(changes.properties)
    table.text("kind", "Kind", lambda changed: changed.kind)
    table.text("name", "What", lambda changed: changed.name)
    table.text("then", "Then", lambda changed: NONE if changed.old is None else changed.old)
    table.text("now", "Now", lambda changed: NONE if changed.new is None else changed.new)
    return table.made()


def file_difference(then: str, now: str) -> list[str]:
    """Return the lines in which two study files differ, with three lines around each, at most `MOST_LINES`."""
    lines = list(difflib.unified_diff(then.splitlines(), now.splitlines(), "then", "now", lineterm=""))
    if len(lines) > MOST_LINES:
        return [*lines[:MOST_LINES], f"... {len(lines) - MOST_LINES} more lines"]
    return lines
