"""What a capsule holds, and its bytes from results and what a report shows of them: equal values give equal bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchkit import __version__
from benchkit.analysis.training import several_nodes
from benchkit.errors import StudyError
from benchkit.plan import LEAVES_AT, Condition, make_plan, planned_looks
from benchkit.report.context.blocks import ReportContext, TableBlock
from benchkit.report.files.html import templates_digest, wording_digest
from benchkit.report.page_text import printable
from benchkit.report.tables.table import Table
from benchkit.results import (
    PREDICTIONS,
    READ_ON_VAL,
    SERIES,
    Cost,
    Decision,
    DeviceRange,
    EpochRecord,
    Normalization,
    SplitMetrics,
    State,
    StudyResults,
    Trial,
    sources_of,
)
from benchkit.storage import encode, to_toml
from benchkit.study import Factor, Origin, Published, Search, SearchRange, Study
from benchkit.study.seeds import trial_seeds

CAPSULE = "capsule.zip"
"""The capsule's file name, in HTML, among the PDF's attachments, and beside the report."""

FORMAT = "benchkit-capsule"
SCHEMA = 1
"""The version of the capsule's layout; it grows when a key changes its meaning or goes."""

OF_TRIAL = ("phase", "index", "attempt", "number", "state", "params", "started", "finished")
OF_OUTCOME = (
    "reason", "selected_epoch", "metrics", "cost", "data_fingerprint", "start_weights", "test_reads", "notes",
    "normalization",
)  # fmt: skip
"""What a capsule's trial holds as it is in the trial, and in its outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsuleTrial:
    """One trial: what it was, with which seeds, where it ran (`environment`, a place in its study's list), what came.

    `history` has one list for each of `SERIES` and for each metric that was read after epochs, such as `val.brier`, NaN
    where it is undefined. `right` is which test images the model got right, as bits (base64,
    first image highest), of `images` images whose labels have the sha256 `labels`; empty without stored predictions.
    `predictions` is the sha256 of the file with all logits. `devices` trained its epochs. `earlier` is an attempt in
    whose place a later one stands.
    """

    condition: str
    phase: Literal["grid", "search", "confirm"]
    index: int
    attempt: int
    number: int
    state: State
    reason: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    environment: int | None = None
    scored: bool = False
    selected_epoch: int = 0
    metrics: Mapping[str, SplitMetrics] = field(default_factory=dict)
    cost: Cost | None = None
    epochs: int = 0
    seconds: float = 0.0
    history: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    data_fingerprint: str = ""
    test_reads: int = 0
    notes: tuple[str, ...] = ()
    normalization: Normalization | None = None
    started: float = 0.0
    finished: float = 0.0
    right: str = ""
    images: int = 0
    labels: str = ""
    predictions: str = ""
    devices: tuple[DeviceRange, ...] = ()
    earlier: bool = False
    start_weights: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsuleStudy:
    """One study: where its members are in the archive (`folder`), how it was and is trained, on what, and where.

    `given` is the command as the user gave it, without folders; `commands` are those that train and report the same
    from the study file of the capsule. `environments` are the distinct ones of its trials.
    """

    name: str
    title: str
    folder: str
    smoke: bool
    seed: int
    overrides: tuple[str, ...]
    given: str
    commands: tuple[str, ...]
    metric: str
    data: Mapping[str, Any]
    class_names: tuple[str, ...]
    left_out: tuple[str, ...]
    environments: tuple[Mapping[str, Any], ...]
    conditions: tuple[Condition, ...]
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTable:
    """A table as the report shows it: its anchor on the page, whose it is, and sha256 of its cells and of its CSV.

    `study` is the place of its study in the capsule, `name` its name in a report of that study alone.
    """

    anchor: str
    study: int
    name: str
    number: int
    cells: str
    csv: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the report shows: its tables, and the sha256 of every file that it attaches, by the file's path.

    `templates` and `wording` are digests of the templates and of the code that made its pages and its sentences; a
    report of an earlier version names none.
    """

    templates: str = ""
    wording: str = ""
    tables: tuple[ShownTable, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The capsule's own page, `capsule.json`; `members` has the sha256 of every other member of the archive."""

    format: str
    schema: int
    generator: str
    studies: tuple[CapsuleStudy, ...]
    shown: Shown
    members: Mapping[str, str]


ANSWERS = "answers.json"
"""Beside predictions that stand for a capsule's: the digests of those that it was made from."""

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


_SEAL = b"<!-- sha256 of all above: "


def sealed(page: bytes) -> bytes:
    """Return an HTML page with its own sha256 at its end: a change by hand, of whatever part, is then noticed."""
    return page + _SEAL + sha256(page).encode() + b" -->\n"


def seal_holds(page: bytes) -> bool | None:
    """Return whether a page has the sha256 that stands at its end; None where none does."""
    above, seal, digest = page.rpartition(_SEAL)
    return digest.split() == [sha256(above).encode(), b"-->"] if seal else None


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
    known = dict[str, tuple[int, Mapping[str, Any]]]()
    trials = []
    nodes = several_nodes(results.trials)
    for group, earlier in ((results.trials, False), (results.earlier, True)):
        for trial in group:
            environment = encode(trial.outcome.environment) if trial.outcome else {}
            place = known.setdefault(to_text(environment), (len(known), environment))[0] if environment else None
            devices = trial.devices if nodes else tuple(replace(one, node="") for one in trial.devices)
            made = _trial(results, trial)
            trials.append(replace(made, environment=place, devices=devices, earlier=earlier))
    return trials, [environment for _, environment in known.values()]


def _trial(results: StudyResults, trial: Trial) -> CapsuleTrial:
    outcome = trial.outcome
    return CapsuleTrial(
        condition=trial.condition.key,
        seeds=trial_seeds(results.study.seed, trial.phase, trial.index),
        scored=outcome is not None,
        epochs=len(trial.history),
        seconds=sum(record.seconds for record in trial.history),
        history=series_of(trial.history),
        **{name: getattr(trial, name) for name in OF_TRIAL},
        **({name: getattr(outcome, name) for name in OF_OUTCOME} if outcome else {}),
        **_predictions(results, trial),
    )


def _predictions(results: StudyResults, trial: Trial) -> dict[str, Any]:
    """Return which test images the model got right, and the digest of its stored logits; nothing without them.

    A damaged file, which the report tells of as changed, is as none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = (trial.folder / PREDICTIONS).read_bytes()
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


def study_text(study: Study) -> str:
    """Return the study as TOML; reading it gives the same conditions, with the same keys, without any `--set`."""
    table: dict[str, Any] = {
        "title": study.title,
        "question": study.question,
        "description": study.description,
        "seed": study.seed,
        **encode(study.settings),
    }
    if study.factors:
        table["factors"] = {factor.path: _levels(factor) for factor in study.factors}
    if study.search:
        table["search"] = _search(study.search)
    table["repeats"] = {"n": study.repeats, **({"most": study.most, "until": "decided"} if study.most else {})}
    if study.splits != "fixed":
        table["repeats"]["splits"] = study.splits
    if study.search or study.confirm:
        table["confirm"] = {"n": study.confirm}
    if study.origin:
        table["source"] = _source(study.origin)
    if study.published:
        table["published"] = [_published(one) for one in study.published]
    report = study.report
    table["report"] = {
        **{key: value for key, value in encode(replace(report, logo=None)).items() if key not in SELDOM or value},
        "figures": [{"name": name, **encode(options)} if options else name for name, options in report.figures],
        "logo": _relative(report.logo, study.path),
    }
    # The order of factors, of what a level fixes and of a search's space is part of what they mean.
    return to_toml(table, ordered=("factors", "search.space"))


SELDOM = ("text", "metrics")
"""What a report is seldom asked for, and is not written down empty."""


def _relative(logo: Path | None, file: Path | None) -> str | None:
    """Return a logo's path as the study file has it; a capsule holds no other path of the machine."""
    if logo is None or not logo.is_absolute():
        return None if logo is None else logo.as_posix()
    folder = file.resolve().parent if file else logo.parent
    return (logo.relative_to(folder) if logo.is_relative_to(folder) else Path(logo.name)).as_posix()


def _levels(factor: Factor) -> list[Mapping[str, Any]]:
    return [
        {"label": level.label, "value": encode(level.settings[factor.path])}
        if set(level.settings) == {factor.path}
        else {"label": level.label, "set": encode(level.settings)}
        for level in factor.levels
    ]


def _search(search: Search) -> Mapping[str, Any]:
    return {
        "trials": search.trials,
        "goal": [goal.metric for goal in search.goals],
        "sampler": list(search.samplers) or search.sampler,
        "pruner": search.pruner,
        "space": {one.path: _range(one) for one in search.space},
    }


def _range(one: SearchRange) -> Any:
    if one.choices:
        return encode(one.choices)
    found: dict[str, Any] = {"low": one.low, "high": one.high}
    if one.log:
        found["log"] = True
    return found if one.step is None else {**found, "step": one.step}


def _published(one: Published) -> Mapping[str, Any]:
    rows = [{key: value for key, value in encode(row).items() if value is not None} for row in one.rows]
    stated = {} if one.classes is None else {"classes": one.classes}
    return {"source": one.source, "url": one.url, "note": one.note, **stated, "rows": rows}


def _source(origin: Origin) -> Mapping[str, Any]:
    """Return the [source] table; what is empty is left out, and reading it gives the same `Origin`."""
    table = _given(origin, leave_out=("states", "claims"))
    table["states"] = {
        stated.path: {"value": encode(stated.values), **_given(stated, leave_out=("path", "values"))}
        for stated in origin.states
    }
    table["claims"] = [
        {("from" if key == "start" else key): value for key, value in _given(claim).items()} for claim in origin.claims
    ]
    return table


def _given(record: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    plain = encode(record)
    return {key: value for key, value in plain.items() if key not in leave_out and value not in ("", None, [], {})}


def commands_of(results: StudyResults, file: str) -> tuple[str, ...]:
    """Return the commands that train the same conditions as the results', from the study file `file`, and report them.

    Overrides are part of that file, so that no `--set` is needed; where only some conditions were trained, `--only`
    picks them, in as few commands as it takes.
    """
    plugins = [part for name in _plugin_files(results) for part in ("--plugin", name)]
    sweeps = [["benchkit", "sweep", file, *only, *plugins] for only in _choices(results)]
    if (looks := planned_looks(results.decisions)) and not results.study.most:
        until = [*sweeps[-1], "--until-decided", "--most", str(looks[-1].n)]
        # Where the fixed repeats were a look already, they are trained by a sweep of their own.
        sweeps = [*(sweeps if looks[0].alpha == LEAVES_AT else sweeps[:-1]), until]
    name = file.removesuffix(".toml")
    return (*(shlex.join(words) for words in sweeps), shlex.join(["benchkit", "report", name]))


def _plugin_files(results: StudyResults) -> tuple[str, ...]:
    outcomes = [trial.outcome for trial in results.trials if trial.outcome]
    files = {source.get("file", "") for one in outcomes for source in sources_of(one.environment).values()}
    return tuple(sorted(files - {""}))


def _choices(results: StudyResults) -> list[list[str]]:
    """Return the `--only` arguments of each command: none when all of the study's conditions were trained."""
    trained = [condition for condition in results.conditions if condition.kind == "grid"]
    try:
        planned = {condition.key for condition in make_plan(results.study).conditions if condition.kind == "grid"}
    except StudyError:
        planned = set()
    paths = [factor.path for factor in results.study.factors]
    if not paths or {condition.key for condition in trained} == planned:
        return [[]]
    levels = {path: list(dict.fromkeys(c.levels[path] for c in trained if path in c.levels)) for path in paths}
    block = set(product(*levels.values()))
    if block == {tuple(c.levels.get(path, "") for path in paths) for c in trained}:
        return [_only(levels)]
    return [_only({path: [c.levels[path]] for path in paths if path in c.levels}) for c in trained]


def _only(levels: Mapping[str, Sequence[str]]) -> list[str]:
    return [part for path, labels in levels.items() for part in ("--only", f"{path}={','.join(labels)}")]


MEMBER = re.compile(r"(?:[A-Za-z0-9-][A-Za-z0-9.-]{0,99}/)?[A-Za-z0-9-][A-Za-z0-9.-]{0,99}")
"""What a member of an archive may be named."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(members: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of the members in their order; it holds no dates, so equal members give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            assert MEMBER.fullmatch(name), f"{name} cannot name a capsule's member"
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix everywhere: the system's own number would change the bytes
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return out.getvalue()


def series_of(history: Sequence[EpochRecord]) -> dict[str, tuple[float, ...]]:
    """Return what a capsule keeps of a trial's epochs, by name; nothing where it has none."""
    read = dict.fromkeys(name for record in history for name in record.observed if name.startswith(READ_ON_VAL))
    series = {name: tuple(float(getattr(record, name)) for record in history) for name in SERIES if history}
    return series | {name: tuple(record.score(name) for record in history) for name in sorted(read)}


def to_text(value: Any, *, indent: int | None = None) -> str:
    """Return a dataclass or plain values as strict ASCII JSON; numbers that JSON lacks become nan, inf and -inf."""
    plain = encode(value)
    written = partial(
        json.dumps, indent=indent, separators=None if indent else (",", ":"), allow_nan=False, default=str
    )
    try:
        return written(plain)
    except ValueError:  # few values hold a number to spell
        return written(_spelled(plain))


def _spelled(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, list) else value
