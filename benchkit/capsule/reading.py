"""From a capsule's bytes to checked values, and on to the results that it stands for: it comes from strangers."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from benchkit.capsule.making import (
    ANSWERS,
    FORMAT,
    MEMBER,
    OF_OUTCOME,
    OF_TRIAL,
    SCHEMA,
    CapsuleStudy,
    CapsuleTrial,
    Head,
)
from benchkit.errors import ReportError, StudyError
from benchkit.metrics import know_recorded
from benchkit.plan import PHASES, Condition, planned_looks, typed_settings
from benchkit.results import PREDICTIONS, READ_ON_VAL, SERIES, EpochRecord, Outcome, SplitMetrics, StudyResults, Trial
from benchkit.storage import decode
from benchkit.study import Study
from benchkit.study.studyfile import parse_study

__all__ = ["Capsule", "CapsuleError", "read_capsule", "restored", "results_of"]

MOST_TRIALS = 100_000
MOST_CONDITIONS = 500
"""A study may have so many conditions: all pairs of them are compared anew."""

MOST_IMAGE_SETS = 32
MOST_BYTES = 256 * 2**20
"""An archive, and all its members unpacked, may have this many bytes."""

MOST_MEMBERS = 400
"""An archive may have this many members: four a study and two of its own."""

T = TypeVar("T")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

MOST_LETTERS = 100_000
MOST_INTEGER = 2**63 - 1
MOST_LEVELS = 60
"""What a capsule's JSON may hold: letters of a text, the largest whole number, tables and lists within each other."""

_KEY = re.compile(r"[0-9a-f]{12}")


class CapsuleError(ReportError):
    """A file holds no capsule, or a damaged one, or one that goes over the limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capsule:
    """A capsule as read: its head, and for each study the study of its file and its trials."""

    head: Head
    members: Mapping[str, bytes]
    content: bytes
    studies: tuple[Study, ...]
    trials: tuple[tuple[CapsuleTrial, ...], ...]


def read_capsule(content: bytes) -> Capsule:
    """Return the capsule in an archive's bytes; nothing is run, imported or written.

    Raises `CapsuleError` for what is no capsule of a version that is known here, and for values that cannot be.
    """
    members = unpack(content)
    if "capsule.json" not in members:
        raise CapsuleError("this archive is no capsule: it has no capsule.json")
    raw = from_text(members["capsule.json"], "capsule.json")
    _check_format(raw)
    head = typed(Head, raw, "capsule.json")
    studies, trials = [], []
    if not head.studies:
        raise CapsuleError("the capsule holds no study")
    for described in head.studies:
        for name in ("study.toml", "trials.json"):
            if f"{described.folder}/{name}" not in members:
                raise CapsuleError(f"the capsule has no {described.folder}/{name}")
        studies.append(_study(described, members[f"{described.folder}/study.toml"]))
        trials.append(_trials(described, members[f"{described.folder}/trials.json"]))
    return Capsule(head=head, members=members, content=content, studies=tuple(studies), trials=tuple(trials))


def _check_format(raw: Any) -> None:
    if not isinstance(raw, Mapping) or raw.get("format") != FORMAT:
        raise CapsuleError("this archive is no capsule of benchkit's")
    if raw.get("schema") != SCHEMA:
        raise CapsuleError(
            f"the capsule has layout {str(raw.get('schema'))[:20]}, this benchkit reads layout {SCHEMA}",
            hint="use the version of benchkit that the report names",
        )


def _study(described: CapsuleStudy, content: bytes) -> Study:
    name = described.name
    if not name.strip() or not name.isprintable() or len(name) > 200 or re.search(r"[/\\]|^\.", name):
        raise CapsuleError(f"the capsule names a study {name[:60]!r}, which cannot be a study's name")
    for environment in described.environments:
        know_recorded(environment)
    try:
        study = parse_study(content.decode("utf-8"), name=name)
    except (StudyError, UnicodeDecodeError, RecursionError) as error:
        problems = error.problems if isinstance(error, StudyError) else [str(error)]
        raise CapsuleError(f"the capsule's study {name} cannot be used", problems=problems[:20]) from error
    if (size := len(described.conditions)) > MOST_CONDITIONS:
        raise CapsuleError(f"the capsule's study {name} has {size:,} conditions, at most {MOST_CONDITIONS} are read")
    for condition in described.conditions:
        if not _KEY.fullmatch(condition.key):
            raise CapsuleError(f"the capsule names a condition {condition.key[:40]!r}, expected 12 hex digits")
        try:
            typed_settings(condition.settings, study.seed)
        except StudyError as error:
            raise CapsuleError(
                f"the capsule's condition {condition.label[:60]!r} cannot be used", problems=error.problems[:20]
            ) from error
        _check_sampler(study, condition)
    try:
        planned_looks(described.decisions)
    except ValueError as error:
        raise CapsuleError(f"the capsule's study {name} cannot be used: {error}") from error
    return replace(study, smoke=described.smoke, overrides=described.overrides)


def _check_sampler(study: Study, condition: Condition) -> None:
    several = study.search.samplers if study.search and condition.kind != "grid" else ()
    if condition.sampler not in (several or ("",)):
        raise CapsuleError(
            f"the capsule's condition {condition.label[:60]!r} has the sampler {condition.sampler[:40]!r}, expected "
            f"{' or '.join(several) or 'none'} as in its study"
        )


def _trials(described: CapsuleStudy, content: bytes) -> tuple[CapsuleTrial, ...]:
    raw = from_text(content, f"{described.folder}/trials.json")
    if not isinstance(raw, list) or len(raw) > MOST_TRIALS:
        raise CapsuleError(f"the capsule's {described.folder}/trials.json is no list of at most {MOST_TRIALS:,} trials")
    trials = tuple(typed(CapsuleTrial, item, f"trial {number}") for number, item in enumerate(raw))
    known = {condition.key: PHASES[condition.kind] for condition in described.conditions}
    for number, trial in enumerate(trials):
        if known.get(trial.condition) != trial.phase:
            raise CapsuleError(f"the capsule's trial {number} belongs to no condition of its study and phase")
        if trial.environment is not None and not 0 <= trial.environment < len(described.environments):
            raise CapsuleError(f"the capsule's trial {number} names an environment that is not there")
        if any(len(series) != trial.epochs for series in trial.history.values()):
            raise CapsuleError(f"the capsule's trial {number} has another number of epochs than its history")
        ends = [0, *(end for one in trial.devices for end in (one.first, one.last)), trial.epochs]
        if ends != sorted(ends):
            raise CapsuleError(f"the capsule's trial {number} was trained on devices in epochs that it does not have")
        for split, metrics in trial.metrics.items():
            if problem := _wrong_classes(metrics, len(described.class_names)):
                raise CapsuleError(f"the capsule's trial {number} {problem} on {split[:20]}")
    return trials


def _wrong_classes(metrics: SplitMetrics, classes: int) -> str:
    """Return in words how metrics contradict the study's number of classes (0: it names none), or an empty text."""
    expected = classes or len(metrics.confusion)
    if len(metrics.confusion) != expected or len(metrics.class_accuracy) not in (0, expected):
        return f"has a confusion matrix of {len(metrics.confusion)} classes where its study names {expected}"
    if any(len(row) != expected for row in metrics.confusion):
        return "has a confusion matrix that is not square"
    return ""


def results_of(capsule: Capsule, index: int, folder: Path) -> StudyResults:
    """Return the results of a capsule's study, as the ledger gave them to the report.

    Which test images each model got right is written under `folder` in the form of stored predictions, from which the
    same comparisons of models follow.
    """
    described, study = capsule.head.studies[index], capsule.studies[index]
    conditions = {condition.key: condition for condition in described.conditions}
    images = sorted({trial.labels for trial in capsule.trials[index] if trial.right})
    trials: list[Trial] = []
    earlier: list[Trial] = []
    for number, trial in enumerate(capsule.trials[index]):
        place_of_trial = folder / f"{number:06d}"
        if trial.right:
            _write_answers(trial, place_of_trial, images.index(trial.labels), len(images))
        group = earlier if trial.earlier else trials
        group.append(_result(described, conditions[trial.condition], trial, place_of_trial))
    return StudyResults(
        study=study,
        conditions=described.conditions,
        trials=tuple(trials),
        earlier=tuple(earlier),
        class_names=described.class_names,
        data=described.data,
        left_out=described.left_out,
        decisions=described.decisions,
        command=described.given,
    )


@contextmanager
def restored(capsule: Capsule) -> Iterator[tuple[StudyResults, ...]]:
    """Yield the results of all studies of a capsule (`results_of`), from a folder that goes away again."""
    with TemporaryDirectory(prefix="benchkit-") as name:
        yield tuple(results_of(capsule, at, Path(name) / str(at)) for at in range(len(capsule.studies)))


def _result(described: CapsuleStudy, condition: Condition, trial: CapsuleTrial, folder: Path) -> Trial:
    environment = {} if trial.environment is None else described.environments[trial.environment]
    told = {name: getattr(trial, name) for name in OF_OUTCOME}
    return Trial(
        condition=condition,
        history=tuple(_history(trial)),
        outcome=Outcome(state=trial.state, environment=environment, **told) if trial.scored else None,
        folder=folder,
        **{name: getattr(trial, name) for name in OF_TRIAL},
    )


def _history(trial: CapsuleTrial) -> Iterator[EpochRecord]:
    if set(SERIES) <= trial.history.keys():
        read = [name for name in trial.history if name.startswith(READ_ON_VAL)]
        places = {epoch: one for one in trial.devices for epoch in range(one.first, one.last + 1)}
        for epoch in range(trial.epochs):
            values = {name: trial.history[name][epoch] for name in SERIES}
            yield EpochRecord(
                epoch=epoch + 1,
                images_per_second=0.0,
                peak_memory=0.0,
                device=places[epoch + 1].device if epoch + 1 in places else "",
                node=places[epoch + 1].node if epoch + 1 in places else "",
                observed={name: value for name in read if not math.isnan(value := trial.history[name][epoch])},
                **values,
            )


def _write_answers(trial: CapsuleTrial, folder: Path, label: int, labels: int) -> None:
    """Write logits in which the right answers name class `label` of `labels`, and labels that all are this class.

    Trials on the same test images have the same class, so that different test images stay different.
    """
    from safetensors.numpy import save_file

    try:
        bits = np.unpackbits(np.frombuffer(base64.b64decode(trial.right, validate=True), dtype=np.uint8))
    except (binascii.Error, ValueError) as error:
        raise CapsuleError(f"the capsule's list of right answers cannot be read: {error}") from error
    if not 0 <= len(bits) - trial.images < 8 or labels > MOST_IMAGE_SETS:
        raise CapsuleError(
            f"the capsule has {len(bits)} right answers for {trial.images} images, {labels} sets of them"
        )
    right = bits[: trial.images].astype(bool)
    logits = np.zeros((trial.images, labels + 1), dtype=np.uint8)
    logits[np.arange(trial.images), np.where(right, label, labels)] = 1
    folder.mkdir(parents=True)
    truth = np.full(trial.images, label, dtype=np.int64)
    save_file({"test": logits, "test_labels": truth}, folder / PREDICTIONS)
    digests = {"predictions": trial.predictions, "labels": trial.labels}
    (folder / ANSWERS).write_text(json.dumps(digests), encoding="utf-8")


def unpack(content: bytes) -> dict[str, bytes]:
    """Return the members of an archive by name; nothing is written to disk.

    Raises `CapsuleError` for what is no whole zip archive, for more or larger members than the limits allow (told by
    what comes out, whatever the archive claims), and for names that are not plain.
    """
    if len(content) > MOST_BYTES:
        raise CapsuleError(f"the capsule has {len(content):,} bytes, at most {MOST_BYTES:,} are read")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            _check_listing(infos)
            members: dict[str, bytes] = {}
            left = MOST_BYTES
            for info in infos:
                members[info.filename] = _member(archive, info, left)
                left -= len(members[info.filename])
            return members
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise CapsuleError(f"the capsule is damaged: {error}", hint="ask for the report again") from error


def _check_listing(infos: list[zipfile.ZipInfo]) -> None:
    names = [info.filename for info in infos]
    problems = []
    if len(names) > MOST_MEMBERS:
        problems.append(f"{len(names):,} members, at most {MOST_MEMBERS} are read")
    if len(set(names)) < len(names):
        problems.append("a member stands twice")
    problems += [f"a member is named {name[:100]!r}" for name in names[:MOST_MEMBERS] if not MEMBER.fullmatch(name)]
    if problems:
        raise CapsuleError("the capsule is not one that benchkit writes", problems=problems)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int) -> bytes:
    with archive.open(info) as file:
        content = file.read(left + 1)
    if len(content) > left:
        raise CapsuleError(f"the capsule unpacks to more than {MOST_BYTES:,} bytes", hint="such a file is not read")
    return content


def from_text(content: bytes, where: str) -> Any:
    """Return the plain values of a JSON text; raise `CapsuleError` when it is none, or goes over the limits."""
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CapsuleError(f"the capsule's {where} cannot be read: {type(error).__name__}: {error}") from error
    level, depth = [value], 0
    while level:
        if depth > MOST_LEVELS:
            raise CapsuleError(f"the capsule's {where} is nested more than {MOST_LEVELS} deep")
        level = [inner for item in level for inner in _inner(item, where)]
        depth += 1
    return value


def _inner(value: Any, where: str) -> Iterable[Any]:
    """Return what a list or a table holds; raise `CapsuleError` for a text or a number over the limits."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, str) and len(value) > MOST_LETTERS:
        raise CapsuleError(f"the capsule's {where} has a text of {len(value):,} letters, at most {MOST_LETTERS:,} fit")
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise CapsuleError(f"the capsule's {where} has a text that is no Unicode (a lone surrogate)")
    if isinstance(value, int) and abs(value) > MOST_INTEGER:
        digits = len(str(abs(value)))
        raise CapsuleError(f"the capsule's {where} has a whole number of {digits} digits, at most 18 fit")
    return value if isinstance(value, list) else ()


def typed(cls: type[T], value: Any, where: str) -> T:
    """Return a dataclass from plain values; raise `CapsuleError` for the first that has another type than its field.

    Keys that the dataclass lacks are left out, so that a later version may add some; lacking ones take the default.
    """
    return decode(cls, value, f"the capsule's {where}", error=CapsuleError)
