"""From results and what a report shows of them to the capsule's bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchkit import __version__
from benchkit.analysis.training import several_nodes
from benchkit.capsule.archive import (
    FORMAT,
    SCHEMA,
    CapsuleStudy,
    CapsuleTrial,
    Head,
    Shown,
    ShownTable,
    pack,
    series_of,
    to_text,
)
from benchkit.capsule.reading import ANSWERS
from benchkit.capsule.study_file import commands_of, study_text
from benchkit.report.context.blocks import ReportContext, TableBlock
from benchkit.report.files.html import templates_digest, wording_digest
from benchkit.report.page_text import printable
from benchkit.report.tables.table import Table
from benchkit.results import StudyResults, Trial
from benchkit.storage import encode
from benchkit.study.seeds import trial_seeds

README = """\
This capsule belongs to a report by benchkit. It holds what the report rests on.

capsule.json      the format, versions, devices, plugins, data, seeds, conditions, and sha256 digests
N-NAME/study.toml     the study as it was trained: overrides applied
N-NAME/source.toml    the study file as it was written
N-NAME/trials.json    every trial: parameters, seeds, metrics on every split, epochs, seconds

Check a report against its capsule:   benchkit verify REPORT.html     (or REPORT.pdf)
Train some of its trials again:       benchkit verify REPORT.html --retrain 3
Train all of it again:                the commands in capsule.json, in the folder of study.toml
"""


def make_capsule(studies: Sequence[StudyResults], shown: Shown) -> bytes:
    """Return the capsule of a report of these studies, a zip archive; equal results give equal bytes.

    `shown` says what the report shows of them (`shown_of`); results must be private already
    (`benchkit.report.page_text`).
    """
    members: dict[str, bytes] = {"README.txt": README.encode()}
    described = []
    for number, results in enumerate(studies, 1):
        folder = f"{number}-{member_stem(results.study.name)}"
        trials, environments = _trials(results)
        described.append(_described(results, folder, environments))
        members[f"{folder}/study.toml"] = study_text(results.study).encode()
        members[f"{folder}/source.toml"] = results.study.source.encode()
        lines = ",\n".join(to_text(trial) for trial in trials)
        members[f"{folder}/trials.json"] = f"[\n{lines}\n]\n".encode()
    head = Head(
        format=FORMAT,
        schema=SCHEMA,
        generator=f"benchkit {__version__}",
        studies=tuple(described),
        shown=shown,
        members={name: sha256(content) for name, content in members.items()},
    )
    return pack({"capsule.json": (to_text(head, indent=1) + "\n").encode(), **members})


def member_stem(name: str) -> str:
    """Return a name as part of a member's path: ASCII letters, digits and hyphens, at most 80."""
    return (
        "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:80].strip("-") or "study"
    )


def shown_of(report: ReportContext, files: Mapping[str, bytes], templates: Path | None = None) -> Shown:
    """Return what a report shows: its tables, those of its chapters as their studies', and the files it attaches.

    The tables that several studies have in common belong to none: their study is -1. `templates` is the folder of own
    ones, if there is one.
    """
    common = [block for part in report.sections for block in part.blocks if isinstance(block, TableBlock)]
    tables = [_shown(block, -1 if report.chapters else 0, block.name) for block in common]
    for study, chapter in enumerate(report.chapters):
        tables += [
            _shown(block, study, block.name.removeprefix(f"{chapter.name}--")) for block in chapter.report.tables
        ]
    return Shown(
        templates=templates_digest(templates),
        wording=wording_digest(),
        tables=tuple(tables),
        files={name: sha256(content) for name, content in files.items()},
    )


def _shown(block: TableBlock, study: int, name: str) -> ShownTable:
    return ShownTable(
        anchor=f"table-{block.name}",
        study=study,
        name=name,
        number=block.number,
        cells=cells_digest(cell_texts(block.table)),
        csv=sha256(block.csv.encode()),
    )


def cell_texts(table: Table) -> list[list[str]]:
    """Return the text of every cell as a page shows it: text, mark and detail without blanks."""
    return [[squeezed(f"{cell.text}{cell.mark}{cell.detail}") for cell in row] for row in table.rows]


def squeezed(text: str) -> str:
    """Return a text as pages print it, without blanks and soft hyphens: formats break lines differently."""
    return "".join(letter for letter in printable(text) if not letter.isspace() and letter not in "\u00ad\u200b")


def cells_digest(rows: Sequence[Sequence[str]]) -> str:
    """Return the sha256 of the texts of a table's cells."""
    return sha256(to_text([list(row) for row in rows]).encode())


def sha256(content: bytes) -> str:
    """Return the sha256 of some bytes in hex."""
    return hashlib.sha256(content).hexdigest()


def _described(results: StudyResults, folder: str, environments: Sequence[Mapping[str, Any]]) -> CapsuleStudy:
    study = results.study
    return CapsuleStudy(
        name=study.name,
        title=study.title,
        folder=folder,
        smoke=study.smoke,
        seed=study.seed,
        overrides=study.overrides,
        given=results.command,
        commands=commands_of(results, f"{study.name}.toml"),
        metric=study.report.metric,
        data=results.data,
        class_names=results.class_names,
        left_out=results.left_out,
        environments=tuple(environments),
        conditions=results.conditions,
        decisions=results.decisions,
    )


def _trials(results: StudyResults) -> tuple[list[CapsuleTrial], list[Mapping[str, Any]]]:
    """Return the trials, and the distinct environments that they name by place."""
    places: dict[str, int] = {}
    environments: list[Mapping[str, Any]] = []
    trials = []
    nodes = several_nodes(results.trials)
    for trial in (*results.trials, *results.earlier):
        environment = encode(trial.outcome.environment) if trial.outcome else {}
        index = None
        if environment:
            key = to_text(environment)
            index = places.setdefault(key, len(places))
            if index == len(environments):
                environments.append(environment)
        devices = trial.devices if nodes else tuple(replace(one, node="") for one in trial.devices)
        trials.append(replace(_trial(results, trial, index), devices=devices))
    for number in range(len(results.trials), len(trials)):
        trials[number] = replace(trials[number], earlier=True)
    return trials, environments


def _trial(results: StudyResults, trial: Trial, environment: int | None) -> CapsuleTrial:
    outcome = trial.outcome
    known = {
        "reason": outcome.reason,
        "selected_epoch": outcome.selected_epoch,
        "metrics": outcome.metrics,
        "cost": outcome.cost,
        "data_fingerprint": outcome.data_fingerprint,
        "start_weights": outcome.start_weights,
        "test_reads": outcome.test_reads,
        "notes": outcome.notes,
        "normalization": outcome.normalization,
    } if outcome else {}  # fmt: skip
    return CapsuleTrial(
        condition=trial.condition.key,
        phase=trial.phase,
        index=trial.index,
        attempt=trial.attempt,
        number=trial.number,
        state=trial.state,
        params=trial.params,
        seeds=trial_seeds(results.study.seed, trial.phase, trial.index),
        environment=environment,
        scored=outcome is not None,
        epochs=len(trial.history),
        seconds=sum(record.seconds for record in trial.history),
        history=series_of(trial.history),
        started=trial.started,
        finished=trial.finished,
        **_predictions(results, trial),
        **known,  # type: ignore[arg-type]
    )


def _predictions(results: StudyResults, trial: Trial) -> dict[str, Any]:
    """Return which test images the model got right, and the digest of its stored logits; nothing without them.

    A damaged file, which the report tells of as changed, is as none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = (trial.folder / "predictions.safetensors").read_bytes()
        stored = load(content)
    except (OSError, SafetensorError):
        return {}
    logits, truth = stored.get("test"), stored.get("test_labels", results.labels.get("test"))
    described: dict[str, Any] = {"predictions": sha256(content)}
    if logits is None or truth is None or len(logits) != len(truth):
        return described
    right = np.packbits(logits.argmax(axis=1) == truth)
    labels = sha256(np.ascontiguousarray(truth, dtype="<i8").tobytes())
    described |= {"right": base64.b64encode(right.tobytes()).decode(), "images": len(truth), "labels": labels}
    try:
        return {**described, **json.loads((trial.folder / ANSWERS).read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        return described
