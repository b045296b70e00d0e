"""Studies as they are watched: one thread looks at the ledger now and then, and makes of it what pages show.

It looks as long as somebody watches, and spends no more than a small share of a core on it while trials are trained.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchkit.analysis.summary import dated_of, summarize
from benchkit.analysis.wording import count
from benchkit.errors import BenchkitError
from benchkit.ledger.readback import LedgerReader, known_studies, results_of, uncollected
from benchkit.plan import planned_looks
from benchkit.registry import Registry
from benchkit.report.context import sections
from benchkit.report.context.blocks import Paragraph, ReportContext, Section, numbered
from benchkit.report.context.compose import findings_section, key_facts, with_data
from benchkit.report.context.numbers import banners
from benchkit.report.context.sections import SectionInputs
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.page_text import private_results
from benchkit.results import StudyResults
from benchkit.storage import decode
from benchkit.sweep.seat_lines import SHOWN, SeatLine, read_seats, recorded_epochs
from benchkit.sweep.status import StudyStatus, status_of
from benchkit.watch.live_sections import (
    OVERVIEW,
    counts_by_state,
    failures_section,
    notes_section,
    overview_section,
    running_section,
    trial_id,
)
from benchkit.watch.rendering import rendered_cover, rendered_section

EVERY = 2.0
"""Seconds between two looks at the most."""

SHARE = 0.004
"""The share of one core that the looks of a kind may take while trials are trained, beyond the first seconds."""

AT_REST = 0.05
"""The share that looks may take while none is."""

BURST = 2.0
"""So many processor seconds of looks are free."""

LEFT = 30.0
"""Seconds after which a study that nobody watches is looked at no more."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """What pages of a study show: the HTML of its parts in their order, by name, and in which version each changed.

    `note` says why it is not as new as it should be, or is empty. `logs` are the files by the names of trials.
    """

    version: int = 0
    title: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    headings: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    logs: Mapping[str, Path] = field(default_factory=dict)


class Budget:
    """How often something may be done that takes processor time: a share of it, after some that is free."""

    def __init__(self, share: float, free: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._free, self._clock = share, free, clock
        self._began, self._spent, self._last = clock(), 0.0, 0.0

    def spend(self, seconds: float) -> None:
        """Note processor seconds."""
        self._spent += seconds
        self._last = seconds

    def allows(self) -> bool:
        """Return whether it may be done again, which will take as long as the last time."""
        return self._spent + self._last <= self._free + self._share * (self._clock() - self._began)


AT_ONCE = 200
"""Of so many trials the whole page is shown at once; of more, how far they are is shown first."""

FOLLOWS = "The ranking, the curves and the search follow in a moment."
BEHIND = "The short answer, the findings and the results are those of {}; they are made anew as processor time allows."


class Watched:
    """One study: `look` reads what is new, `shown` is what came of it.

    The first look at a large study shows how far it is; the report's part, which takes as long again, comes with a
    second one, for which nobody waits: `follows` says that this is due at once.
    """

    def __init__(self, reader: LedgerReader, study: str, registry: Registry) -> None:
        self.study = study
        self.shown = LiveState()
        self.asked = 0.0
        self._reader, self._registry = reader, registry
        self._looks, self._reports = Budget(SHARE, BURST), Budget(SHARE, BURST)
        self._rests = Budget(AT_REST, BURST)
        self._results: StudyResults | None = None
        self._status: StudyStatus | None = None
        self._beside: tuple[Section | None, tuple[Section | None, ...]] = (None, ())
        self._epochs: Mapping[str, int] = {}
        self.follows = False
        self._report: ReportContext | None = None
        self._ended: frozenset[tuple[str, str]] = frozenset()
        self._drawn: dict[str, tuple[object, str]] = {}

    def look(self, *, final: bool = False) -> bool:
        """Look at what there is, the `final` time whatever it costs; return whether pages change."""
        note, due, self.follows = "", self.follows, False
        try:
            if final or not due:
                self._read(final)
            if final or due or self._report is not None or self._is_small():
                self._make_report(final)
            self.follows = self._report is None
        except BenchkitError as error:
            note = f"the ledger cannot be read now: {error.what}"
        if self._results is None or self._status is None:
            return self._show([], note)
        seats = self._seats()
        first, last = self._beside
        report = self._report.sections if self._report else ()
        progress = overview_section(self._status, seats)
        behind = self._report is not None and self._ended != self._ended_now()
        if self.follows or behind:
            words = FOLLOWS if self.follows else BEHIND.format(count(len(self._ended), "trial"))
            progress = replace(progress, blocks=(*progress.blocks, Paragraph(text=words)))
        made = (progress, first, *report, *last)
        return self._show(numbered(part for part in made if part is not None), note)

    def _is_small(self) -> bool:
        return self._results is not None and len(self._results.trials) <= AT_ONCE

    def _at_rest(self) -> bool:
        return self._status is not None and not any(row.states.get("running") for row in self._status.rows)

    @uncollected()
    def _read(self, final: bool) -> None:
        """Read the results anew where time for it is left."""
        budget = self._rests if self._at_rest() else self._looks
        began = time.thread_time()
        if self._results is None or final or budget.allows():
            upcoming = private_results(results_of(self._reader, self.study, upcoming=True))
            self._results, self._status = upcoming, status_of(upcoming)
            self._epochs = recorded_epochs(upcoming.trials)
            self._beside = (
                running_section(upcoming, self._registry),
                (failures_section(upcoming), notes_section(upcoming)),
            )
            budget.spend(time.thread_time() - began)

    def _make_report(self, final: bool) -> None:
        """Make the report's part where a trial has ended since, and time for it is left."""
        results = self._results
        assert results is not None
        ended = self._ended_now()
        if self._report is None or (ended != self._ended and (final or self._at_rest() or self._reports.allows())):
            began = time.thread_time()
            if planned_looks(results.decisions):  # the report waits for a look's last repeat, the results here do not
                results = private_results(results_of(self._reader, self.study))
            self._report = report_part(results, self._registry)
            self._ended = ended
            self._reports.spend(time.thread_time() - began)

    def _ended_now(self) -> frozenset[tuple[str, str]]:
        trials = self._results.trials if self._results else ()
        return frozenset((trial_id(t), t.state) for t in trials if t.state not in ("running", "waiting"))

    def _seats(self) -> Sequence[SeatLine]:
        """Return what the seats are at, not behind what the trials' records say of them."""
        if self._reader.on_server:
            told = self._reader.shown(self.study, SHOWN)
            seats = [decode(SeatLine, line) for lines in told for line in lines]
        else:
            seats = read_seats(self._reader.workspace / "logs", self.study, time.time())
        return [replace(seat, epoch=max(seat.epoch, self._epochs.get(seat.trial, 0))) for seat in seats]

    def _show(self, found: Sequence[Section], note: str) -> bool:
        before, version = self.shown, self.shown.version + 1
        cover = [("cover", self._report, rendered_cover)] if self._report else []
        made = {name: self._html(name, value, make) for name, value, make in cover}
        made |= {one.name: self._html(one.name, one, lambda s: rendered_section(s, self.study)) for one in found}
        if made == dict(before.parts) and note == before.note and before.version:
            return False
        self.shown = LiveState(
            version=version,
            title=f"{_share(self._status)} {self.study}" if self._status else self.study,
            parts=made or before.parts,
            changed={n: before.changed[n] if before.parts.get(n) == html else version for n, html in made.items()}
            or before.changed,
            headings={one.name: one.title for one in found} or before.headings,
            note=note,
            logs={trial_id(t): t.folder for t in self._results.trials} if self._results else {},
        )
        return True

    def _html(self, name: str, value: object, make: Callable[..., str]) -> str:
        known = self._drawn.get(name)
        if known is None or known[0] != value:
            self._drawn[name] = known = value, make(value)
        return known[1]


def _share(status: StudyStatus) -> str:
    counts = counts_by_state(status)
    open_ = sum(counts[state] for state in ("running", "stale", "waiting", "missing"))
    return f"({sum(counts.values()) - open_}/{sum(counts.values())})"


def report_part(results: StudyResults, registry: Registry) -> ReportContext:
    """Return what a report of these results says first: its head, findings, results, training and search.

    The sections are yet to be numbered.
    """
    summary, figures = summarize(results), FigureSet(results=results, registry=registry, tables=False)
    inputs = SectionInputs(results=results, summary=summary, figure_set=figures)
    made = (
        findings_section(inputs),
        sections.results_section(inputs),
        sections.training_section(inputs),
        sections.search_section(inputs),
    )
    found = [with_data(part) for part in made if part is not None]
    study = results.study
    return ReportContext(
        title=study.title,
        question=study.question,
        description="",
        authors="",
        study_name=study.name,
        generator="",
        dated=dated_of(results),
        banners=banners(results, summary, missing_in=OVERVIEW),
        answer=summary.answer,
        basis=summary.basis,
        facts=key_facts(results, summary),
        sections=tuple(part for part in found if part.blocks),
    )


class Watch:
    """All that is watched of a workspace: a thread looks, and tells by `changed` which study has changed."""

    def __init__(
        self, workspace: Path, storage: str, names: Sequence[str], *, every: float = EVERY, left: float = LEFT
    ) -> None:
        """Watch the studies of these names, or all; raise `LedgerError` where they are not there."""
        self.workspace = workspace
        self._reader = LedgerReader(workspace, storage or None)
        self._every, self._left = every, left
        registry = Registry.installed()
        known = known_studies(self._reader, names) if names else self._reader.studies()
        wanted = [name for name in known if not names or name in names]
        self._studies = {name: Watched(self._reader, name, registry) for name in wanted}
        self._wake, self._last, self._end = threading.Event(), threading.Event(), threading.Event()
        self.changed: Callable[[str], None] = lambda study: None

    @property
    def studies(self) -> tuple[str, ...]:
        """Return the names of the studies that can be watched, those with the latest sweep first."""
        return tuple(self._studies)

    def study(self, name: str) -> Watched | None:
        """Return the study of this name, which is looked at from now on; None where there is none."""
        found = self._studies.get(name)
        if found is not None:
            idle = time.monotonic() - found.asked > self._left
            found.asked = time.monotonic()
            if idle:
                self._wake.set()
        return found

    def run(self) -> None:
        """Look, until `stop`."""
        while not self._end.is_set():
            last = self._last.is_set()
            now = time.monotonic()
            looked_at = [one for one in self._studies.values() if one.asked and now - one.asked < self._left]
            for watched in looked_at:
                self._look(watched, last)
            if last:
                self._end.set()
            if not any(watched.follows for watched in looked_at):
                self._wake.wait(self._every)
                self._wake.clear()

    def _look(self, watched: Watched, last: bool) -> None:
        try:
            if watched.look(final=last):
                self.changed(watched.study)
        except Exception as error:
            logger.exception("%s cannot be shown", watched.study)
            watched.shown = replace(
                watched.shown,
                version=watched.shown.version + 1,
                note=f"this study cannot be shown: {type(error).__name__}: {error}",
            )
            self.changed(watched.study)

    def finish(self, seconds: float) -> None:
        """Look for the last time, as trials are trained no more, and wait for that for so long at the most."""
        self._last.set()
        self._wake.set()
        self._end.wait(seconds)

    def stop(self) -> None:
        """End `run` after the look that is under way."""
        self._end.set()
        self._wake.set()
