"""Whether a report says what the capsule's trials give: all of them are summarised anew, and every table made again."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from benchkit import __version__
from benchkit.analysis.summary import summarize
from benchkit.capsule.making import ShownTable, cell_texts, squeezed
from benchkit.capsule.reading import Capsule
from benchkit.metrics import plugin_name, score_metrics, unknown_metrics
from benchkit.report.context.blocks import CONDITION_COLUMNS, FindingBlock, Paragraph, ReportContext, TableBlock
from benchkit.report.context.compose import compose
from benchkit.report.files.exports import block_stem
from benchkit.report.files.html import wording_digest
from benchkit.results import StudyResults
from benchkit.verify.check import ReportCheck, check_of
from benchkit.verify.opening import ReportFile

TOLERANCE = 1e-9
"""Relative difference within which numbers of a CSV count as equal: other processors round otherwise."""


@dataclass(frozen=True, slots=True)
class Anew:
    """A study's report made again from its capsule."""

    place: int
    name: str
    context: ReportContext


def recomputed_checks(report: ReportFile, capsule: Capsule, studies: Sequence[StudyResults]) -> Iterator[ReportCheck]:
    """Yield, for each study, whether tables and sentences are those that its trials give."""
    for place, results in enumerate(studies):
        name = f" of {results.study.name}" if len(studies) > 1 else ""
        if absent := unknown_metrics(results.study.named_metrics):
            named = ", ".join(map(plugin_name, absent))
            told = f"the metrics {named} are not installed: install them, or give their file by --plugin"
            yield ReportCheck(name=f"numbers{name}", state="unchecked", told=told)
            continue
        try:
            anew = Anew(place, name, compose(results, summarize(results)))
        except Exception as error:  # noqa: BLE001 - numbers of strangers; that no summary comes of them is the result
            told = f"the capsule's trials cannot be summarised: {type(error).__name__}: {error}"
            yield ReportCheck(name=f"numbers{name}", state="fails", told=told)
            continue
        yield from _numbers(report, capsule, anew)
        yield _sentences(report, capsule, anew)


def _numbers(report: ReportFile, capsule: Capsule, anew: Anew) -> Iterator[ReportCheck]:
    """Check every table: whole where the code that made it is this one, else the numbers of the columns in common."""
    blocks = {block.name: block for block in anew.context.tables}
    mine = [table for table in capsule.head.shown.tables if table.study == anew.place]
    if _worded_here(capsule):
        known = [table for table in mine if table.name in blocks]
        problems = [line for table in known for line in _table_problems(report, capsule, table, blocks[table.name])]
        shown = {table.name for table in mine}
        problems += [f"table {name} follows from the trials and is not shown" for name in blocks if name not in shown]
        others = [table.anchor for table in mine if table.name not in blocks]
        good = f"{len(known)} tables are those that the capsule's trials give when they are summarised anew"
        further = "this benchkit does not make these tables"
    else:
        problems, others = _common_problems(report, capsule, {table: blocks.get(table.name) for table in mine})
        held = len(mine) - len(others)
        good = f"what {held} tables have in common with those of this benchkit is what the capsule's trials give"
        further = "this benchkit makes these tables otherwise, or not at all"
    bad = "tables are not those that the capsule's trials give" + _version(capsule)
    yield check_of(f"numbers{anew.name}", good, bad, problems)
    if others:
        told = f"{further}: {', '.join(others)}"
        yield ReportCheck(name=f"further tables{anew.name}", state="unchecked", told=told)


def _worded_here(capsule: Capsule) -> bool:
    """Return whether the code that made the report's tables and sentences is the one that is installed here."""
    return capsule.head.shown.wording == wording_digest()


def _common_problems(
    report: ReportFile, capsule: Capsule, tables: Mapping[ShownTable, TableBlock | None]
) -> tuple[list[str], list[str]]:
    """Return what differs in the columns in common, and the anchors of the tables that have none."""
    problems: list[str] = []
    others: list[str] = []
    for table, block in tables.items():
        found = _csv_of(report, capsule, table)
        where = f"table {table.number} ({table.name})"
        if found is None:
            problems.append(f"{where}: its CSV is missing")
        elif block is None or (differing := differing_columns(found, block.csv)) is None:
            others.append(table.anchor)
        else:
            problems += [f"{where}: other numbers in its column {name}" for name in differing]
    return problems, others


def differing_columns(found: str, wanted: str) -> list[str] | None:
    """Return the columns that two CSV texts have in common and whose numbers differ.

    None where they have other rows, or no such column: then they are tables of other things.
    """
    rows, others = _rows(found), _rows(wanted)
    if rows is None or others is None or len(rows) != len(others) or not rows:
        return None
    now = others[0]
    names = [new if (old, new) in EARLIER_NAMES else old for old, new in zip_longest(rows[0], now, fillvalue="")]
    shared = [name for name in now if name in names]
    columns = {name: (names.index(name), now.index(name)) for name in shared}
    pairs = {
        name: [(row[at], other[there]) for row, other in zip(rows[1:], others[1:], strict=True)]
        for name, (at, there) in columns.items()
    }
    if not shared or any(one != other for name in CONDITION_COLUMNS & pairs.keys() for one, other in pairs[name]):
        return None
    return [name for name, cells in pairs.items() if not all(_same(*pair) or _is_text(*pair) for pair in cells)]


def _rows(text: str) -> list[list[str]] | None:
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:
        return None
    return rows if all(len(row) == len(rows[0]) for row in rows) else None


def _is_text(one: str, other: str) -> bool:
    """Return whether a cell is a text on either side: another version may word it otherwise."""
    for cell in (one, other):
        try:
            float(cell)
        except ValueError:
            return True
    return False


def _version(capsule: Capsule) -> str:
    made = capsule.head.generator
    here = f"benchkit {__version__}"
    return "" if made == here else f" (the report is by {made}, this is {here}, which may compute or word it otherwise)"


def _table_problems(report: ReportFile, capsule: Capsule, table: ShownTable, block: TableBlock) -> list[str]:
    rows = cell_texts(block.table)
    where = f"table {table.number} ({table.name})"
    if report.kind == "html":
        problems = _row_problems(where, rows, report.tables.get(table.anchor, []))
    elif block.folded:
        problems = []
    else:
        text = printed(report.text)
        lost = [row for row in rows if printed("".join(row)) not in text]
        problems = [f"{where}: no row reads {' | '.join(row)}" for row in lost]
    found = _csv_of(report, capsule, table)
    if found is None:
        return [*problems, f"{where}: its CSV is missing"]
    return problems if same_csv(found, block.csv) else [*problems, f"{where}: its CSV has other numbers"]


def _row_problems(where: str, wanted: list[list[str]], shown: Sequence[Sequence[str]]) -> list[str]:
    if len(wanted) != len(shown):
        return [f"{where} has {len(shown)} rows, the trials give {len(wanted)}"]
    return [
        f"{where}, row {number}: shows {other!r}, the trials give {cell!r}"
        for number, (row, there) in enumerate(zip(wanted, shown, strict=True), 1)
        for cell, other in zip(row, [*there, *[""] * (len(row) - len(there))], strict=False)
        if cell != other
    ]


def _csv_of(report: ReportFile, capsule: Capsule, table: ShownTable) -> str | None:
    """Return the CSV that an HTML page holds, or a PDF attaches, for a table."""
    if report.kind == "html":
        return next(iter(report.data.get(table.anchor) or ()), None)
    ending = f"{table.number:02d}-{block_stem(table.anchor.removeprefix('table-'))}.csv"
    names = [name.replace("/", "-") for name in capsule.head.shown.files if name.endswith(ending)]
    found = [report.files[name] for name in names if name in report.files]
    return found[0].decode("utf-8", errors="replace") if found else None


def printed(text: str) -> str:
    """Return the characters of a text that a PDF gives back whatever fonts printed it: plain letters, digits, signs.

    Others may have no font and be printed as codes, be joined, or stand in another order. What they say is in the
    attachments, whose digests the capsule names.
    """
    return re.sub(r"\[U\+[0-9A-F]{4,6}\]|[^0-9A-Za-z.,+%\N{MINUS SIGN}-]", "", text)


EARLIER_NAMES = (("val", "val_loss"), *(("metric", metric.replace(".", "_")) for metric in score_metrics()))
"""Columns that reports of earlier versions call otherwise: their name there, and now."""


def same_csv(found: str, wanted: str) -> bool:
    """Return whether two CSV texts say the same: equal texts, and numbers equal to rounding."""
    if found == wanted:
        return True
    rows, others = _rows(found), _rows(wanted)
    if rows is None or others is None or [len(row) for row in rows] != [len(row) for row in others]:
        return False
    return all(map(_same, chain.from_iterable(rows), chain.from_iterable(others)))


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=TOLERANCE, abs_tol=1e-12)
    except ValueError:
        return False


def _sentences(report: ReportFile, capsule: Capsule, anew: Anew) -> ReportCheck:
    """Check that every sentence that follows from the trials stands in the report, as often as it should."""
    context = anew.context
    texts = [*context.answer, context.basis, *(f"{fact.name}{fact.value}" for fact in context.facts)]
    for block in context.blocks():
        texts += [block.text] if isinstance(block, Paragraph) else []
        texts += [block.sentence, block.evidence] if isinstance(block, FindingBlock) else []
        if isinstance(block, TableBlock) and report.kind == "html":
            texts += [block.caption, "".join(f"{column.heading}{column.unit}" for column in block.table.columns)]
    shape = squeezed if report.kind == "html" else _printed_sentence
    page, wanted = shape(report.text), "\n".join(map(shape, texts))
    # The short answer stands above and among the findings: where one was changed, the other is one too few.
    lost = [text for text in dict.fromkeys(texts) if text and page.count(shape(text)) < wanted.count(shape(text))]
    if not _worded_here(capsule):
        told = (
            f"{len(texts) - len(lost)} of {len(texts)} sentences and key facts are worded as this benchkit words them; "
            f"the report is by another version, so the others are not held against the trials"
        )
        return ReportCheck(name=f"sentences{anew.name}", state="unchecked", told=told)
    good = f"{len(texts)} sentences and key facts are those that the capsule's trials give"
    bad = "sentences that follow from the capsule's trials are not in the report" + _version(capsule)
    return check_of(f"sentences{anew.name}", good, bad, lost)


def _printed_sentence(text: str) -> str:
    return printed(squeezed(text)).replace("-", "")  # a line may be broken at a hyphen, or get one
