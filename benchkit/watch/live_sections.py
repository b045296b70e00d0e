"""What the live page shows of a study beside the report's own sections: how far it is, curves under way, failures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from benchkit.analysis.trials import trial_notes
from benchkit.analysis.wording import bare, metric_unit, metric_words
from benchkit.ledger.trials import TrialFolder
from benchkit.registry import Registry
from benchkit.report.context.blocks import (
    AbsentBlock,
    Block,
    Fact,
    FactsBlock,
    FindingBlock,
    Paragraph,
    Section,
    section,
    table_block,
)
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.tables.table import Table, TableOf
from benchkit.results import WITHOUT_FILES, EpochRecord, StudyResults, Trial
from benchkit.sweep.progress import trial_name
from benchkit.sweep.seat_lines import SeatLine
from benchkit.sweep.status import ConditionStatus, StudyStatus

OVERVIEW = "Progress"
"""The heading of the section that says what is done and what is missing."""

MOST_FAILURES = 20
"""So many failures are shown, the latest; the page says how many more there are."""

MOST_CURVES = 12
"""Of so many trials under way the curves are drawn."""

MOST_POINTS = 400
"""A curve has at most so many points: of a longer one every second, third ... is drawn, and the last."""

LAST_LINES, LAST_BYTES = 20, 16_384
"""How much of a log's end is shown."""

MOST_LOG = 1_000_000
"""Bytes of a log's end that are sent where all of it is asked for."""

FAILED = ("failed", "diverged", *WITHOUT_FILES)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBlock:
    """The end of a trial's log, and where all of it is."""

    kind: Literal["log"] = field(metadata={"help": "which partial draws the block"}, default="log")
    title: str = field(metadata={"help": "whose log it is"})
    text: str = field(metadata={"help": "its last lines"})
    trial: str = field(metadata={"help": "the name by which the server knows the trial"})


def trial_id(trial: Trial) -> str:
    """Return the name of an attempt at a trial in addresses: its condition's key and its number."""
    return f"{trial.condition.key}-{trial.number}"


def overview_section(status: StudyStatus, seats: Sequence[SeatLine]) -> Section:
    """Return how far a study is: in words, what each seat is at, and every condition's trials by state."""
    blocks: list[Block] = [Paragraph(text=status.sentence)]
    if status.interim:
        blocks.append(Paragraph(text=f"{status.interim.words[:1].upper()}{status.interim.words[1:]}."))
    if seats:
        blocks.append(table_block("seats", "What trains now", "What trains now, and how fast.", seats_table(seats)))
    words = f"Each condition's trials by state, and the mean {metric_words(status.metric)} of those that are done."
    blocks.append(table_block("states", "Conditions by state of their trials", words, states_table(status)))
    return section("overview", OVERVIEW, blocks)


def counts_by_state(status: StudyStatus) -> dict[str, int]:
    """Return how many trials of a study are in each state."""
    return {state: sum(row.states.get(state, 0) for row in status.rows) for state in status.states}


def states_table(status: StudyStatus) -> Table:
    """Return a row for each condition: how many of its trials are in each state that occurs, and their mean score."""
    table = TableOf[ConditionStatus](status.rows)
    table.text("condition", "Condition", lambda row: row.condition)
    table.text("kind", "Kind", lambda row: row.kind)
    for state, count in counts_by_state(status).items():
        if count:
            table.number(state, state, lambda row, state=state: row.states.get(state, 0))  # type: ignore[misc]
    words, unit = partial(bare, status.metric), metric_unit(status.metric)
    table.number("score", metric_words(status.metric), lambda row: row.score, words, unit)
    table.number("n", "n", lambda row: row.scored)
    return table.made()


def seats_table(seats: Sequence[SeatLine]) -> Table:
    """Return a row for each seat, and columns of what at least one of them measured."""
    table, whole = TableOf[SeatLine](seats), "{:,.0f}".format
    table.text("node", "Node", lambda seat: seat.node)
    table.text("device", "Device", lambda seat: seat.device)
    table.text("trial", "Trial", lambda seat: seat.trial or "none")
    table.number("epoch", "Epoch", lambda seat: seat.epoch if seat.trial else None)
    table.number("epochs", "of", lambda seat: seat.epochs or None)
    if any(seat.images_per_second for seat in seats):
        table.number("images_per_second", "Speed", lambda seat: seat.images_per_second or None, whole, "images/s")
    if any(seat.processor for seat in seats):
        table.number("processor", "Cores in use", lambda seat: seat.processor or None, "{:.1f}".format)
    if any(seat.device_use is not None for seat in seats):
        table.number("device_use", "Device in use", lambda seat: seat.device_use, "{:.0%}".format)
    if any(seat.joules for seat in seats):
        table.number("joules", "Energy", lambda seat: seat.joules or None, whole, "J an epoch")
    return table.made()


def running_section(results: StudyResults, registry: Registry) -> Section | None:
    """Return the curves of the trials under way, as the report draws those of finished ones; None without any."""
    under_way = [trial for trial in results.trials if trial.state == "running"]
    running = [trial for trial in under_way if trial.history]
    if not under_way:
        return None
    if not running:
        return section("running", "Under way", [Paragraph(text="No trial under way has ended an epoch yet.")])
    shown = [_alone(trial) for trial in running[:MOST_CURVES]]
    alone = replace(results, conditions=tuple(one.condition for one in shown), trials=tuple(shown), earlier=())
    block = FigureSet(results=alone, registry=registry, tables=False).block("learning-curves")
    more = len(running) - len(shown)
    if isinstance(block, AbsentBlock):
        diverged = f"{block.reason}: none of their epochs has finite losses" if not block.broken else block.reason
        return section("running", "Under way", [replace(block, reason=diverged)])
    caption = "Loss and accuracy by epoch of the trials under way, each for itself."
    left_out = f" {more} more trials are under way." if more else ""
    block = replace(block, name="running", title="Curves of the trials under way", caption=caption + left_out)
    return section("running", "Under way", [block])


def _alone(trial: Trial) -> Trial:
    """Return a trial as the only repeat of a condition of its own, with as much of its history as is drawn."""
    name = trial_name(trial.condition.display_label, trial.phase, trial.index)
    condition = replace(trial.condition, key=trial_id(trial), label=name, kind="grid", sampler="")
    return replace(trial, condition=condition, phase="grid", index=0, state="done", history=thinned(trial.history))


def thinned(history: Sequence[EpochRecord]) -> tuple[EpochRecord, ...]:
    """Return at most `MOST_POINTS` epochs of a history, evenly spread, the last among them."""
    step = -(-len(history) // MOST_POINTS) or 1
    return tuple(history[(len(history) - 1) % step :: step])


def failures_section(results: StudyResults) -> Section | None:
    """Return the trials that did not end well, the latest first, each with its reason and the end of its log."""
    failed = sorted((t for t in results.trials if t.state in FAILED), key=lambda t: -t.finished)
    if not failed:
        return None
    blocks: list[Block | LogBlock] = []
    for trial in failed[:MOST_FAILURES]:
        name = trial_name(trial.condition.label, trial.phase, trial.index)
        blocks.append(
            FindingBlock(tone="warning", tone_word=trial.state, sentence=name, evidence=trial.reason, rule="trial")
        )
        lines = (log_text(trial.folder, Path(results.workspace), LAST_BYTES) or "").splitlines()
        if text := "\n".join(lines[-LAST_LINES:]):
            blocks.append(LogBlock(title=f"Log of {name}", text=text, trial=trial_id(trial)))
    if (more := len(failed) - MOST_FAILURES) > 0:
        blocks.append(Paragraph(text=f"{more} earlier ones: benchkit status {results.study.name}."))
    return section("failures", "Failures", blocks)  # type: ignore[arg-type]


def log_text(folder: Path, workspace: Path, most: int = MOST_LOG) -> str | None:
    """Return a trial's log, the last bytes of a long one; None where it is none of the workspace's own files."""
    file = TrialFolder(folder).log
    try:
        if not file.resolve(strict=True).is_relative_to(workspace.resolve()):
            return None
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as content:
            content.seek(max(0, content.seek(0, os.SEEK_END) - most))
            return content.read(most).decode(errors="replace")
    except OSError:
        return None


def notes_section(results: StudyResults) -> Section | None:
    """Return what trials noted, what was decided for the study, and what of its name is left out."""
    told: Iterable[str] = (*trial_notes(results), *(f"Left out: {line}." for line in results.left_out))
    blocks: list[Block] = [Paragraph(text=words) for words in told]
    if results.decisions:
        facts = tuple(Fact(name=one.name, value=f"{one.value} ({one.why})") for one in results.decisions)
        blocks.append(FactsBlock(title="Decided for the whole study", facts=facts))
    return section("notes", "Notes", blocks) if blocks else None
