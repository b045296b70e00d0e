"""The record that a report carries, so that a later one can say what has changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchkit.analysis.changes import Changes, compare_records
from benchkit.analysis.summary import Property, Record, dotted_settings, record_from, recorded_conditions, setting_text
from benchkit.analysis.wording import setting
from benchkit.capsule.archive import rounded
from benchkit.errors import BenchkitError, ReportError, nearest
from benchkit.plan import typed_settings
from benchkit.report.context.blocks import Fact
from benchkit.report.context.provenance_sections import data_facts, environment_facts, plugin_facts
from benchkit.report.page_text import private_results
from benchkit.results import StudyResults
from benchkit.storage import encode
from benchkit.study import Study


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
        for searched in search.pop("space"):
            yield (
                f"search {searched.pop('path')}",
                ", ".join(f"{key} = {setting_text(value)}" for key, value in searched.items()),
            )
        yield from dotted_settings(search, "search")


def _settings(study: Study) -> Iterable[tuple[str, str]]:
    """Yield the base settings by dotted path, defaults filled in where the base can stand without a factor's levels."""
    try:
        tree = encode(typed_settings(study.settings, study.seed))
    except BenchkitError:
        tree = encode(study.settings)
    return dotted_settings(tree)


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
    from benchkit.ledger import Ledger, read_results

    known = Ledger(workspace).studies()
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
