"""Whether a study's steps are compiled: told by its planned work and a table that is in the package. Imports no torch.

Nothing else counts: not what is left to train, what pruning will save or a clock says. So one study on one kind of
device is decided alike wherever and whenever, and all its levels alike, since compiled steps round otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchkit.plan import Condition, Plan, search_of
from benchkit.storage import decode
from benchkit.study.settings import Settings
from benchkit.sweep.messages import Seat

TABLE = Path(__file__).with_name("compiled_steps.json")
"""What `make bench-compile` measured: a row for each network, batch size and kind of device."""

NEAR = 1.6
"""How many times as many images in a batch, or pixels in an image, a row speaks for."""

WORTH = 2.0
"""How many times what compiling takes it must save: rows are measured on one processor of a kind."""

VALIDATION = 20
"""About as many eager steps each trial takes to see that compiled ones agree."""

FREE = (
    "train.optimizer.lr",
    "train.optimizer.momentum",
    "train.optimizer.weight_decay",
    "train.schedule",
    "train.epochs",
)
"""Settings that a compiled step reads from tensors or knows nothing of: trials that differ in them share it."""

WRITTEN_OUT = ("sgd", "adam", "adamw")
"""Optimizers whose steps can be compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What compiling the step of one network at one batch size took, and what it gave.

    `kind` is that of the seat, `options` are those that the model has by default, `shape` is the images' (H, W, C).
    `eager` are seconds of a step, of which a compiled one takes the `share`. `compiling` are seconds of compiling,
    `later` those until another trial has the code. `note` says where and how it was measured.
    """

    kind: str
    model: str
    norm: str
    batch_size: int
    precision: str
    threads: int
    shape: tuple[int, int, int]
    eager: float
    share: float
    compiling: float
    later: float
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def network(self) -> tuple[str, str, str, int, str, int, tuple[int, int, int]]:
        """Return what no two rows of a table share."""
        return self.kind, self.model, self.norm, self.batch_size, self.precision, self.threads, self.shape


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionWork:
    """What a study plans for one condition: so many `trials` of so many `steps` of one network.

    `options` are those that the study gives the model. `step` is equal where conditions share their compiled code;
    `codes` counts those of the condition.
    """

    model: str
    norm: str
    batch_size: int
    precision: str
    threads: int
    shape: tuple[int, int, int]
    trials: int
    steps: int
    optimizer: str = "sgd"
    options: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""
    codes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What `train.compile` = auto means, never or always, and why in words."""

    value: str
    why: str


def rows_of(table: Path) -> tuple[Row, ...]:
    """Return the rows of a table."""
    return tuple(decode(Row, row, table.name) for row in json.loads(table.read_text(encoding="utf-8")))


def planned_work(plan: Plan, data: Mapping[str, Any]) -> tuple[ConditionWork, ...]:
    """Return the work of all conditions of a plan, whatever is trained already; `data` are the facts of its sets."""
    return tuple(_work(plan, condition, data) for condition in plan.conditions if plan.count(condition))


def _work(plan: Plan, condition: Condition, data: Mapping[str, Any]) -> ConditionWork:
    settings = plan.settings_of(condition)
    sets = data.get("sets", [data])
    facts = next((one for one in sets if one["name"] == settings.data.dataset.name), sets[0])
    height, width, channels = facts["image_shape"]
    side = settings.data.image_size
    images = settings.data.train_size or facts["counts"]["train"]
    trials = plan.count(condition)
    return ConditionWork(
        model=settings.model.model.name,
        options=settings.model.model.options,
        norm=settings.model.norm.name,
        batch_size=settings.train.batch_size,
        precision=settings.train.precision,
        threads=settings.train.threads,
        shape=(side or height, side or width, channels),
        trials=trials,
        steps=settings.train.epochs * (images // settings.train.batch_size),
        optimizer=settings.train.optimizer.name if settings.train.accumulate == 1 else "accumulating",
        step=step_of(settings),
        codes=trials if has_own_codes(plan, condition) else 1,
    )


def has_own_codes(plan: Plan, condition: Condition) -> bool:
    """Return whether a search gives each trial of a condition settings that its step is made of."""
    search = search_of(plan.study, condition)
    return search is not None and any(not spanned.path.startswith(FREE) for spanned in search.space)


def step_of(settings: Settings) -> str:
    """Return, as text, all settings that a traced step is made of."""
    train, data = settings.train, replace(settings.data, train_size=0, val_size=0, test_size=0)
    optimizer = replace(train.optimizer, lr=0.0, momentum=float(bool(train.optimizer.momentum)))
    kept = (
        train.batch_size,
        train.accumulate,
        train.precision,
        train.channels_last,
        train.threads,
        train.loss,
        optimizer,
    )
    return repr((data, settings.model, settings.regularizers, kept))


def choice(works: Sequence[ConditionWork], seat: Seat, table: Iterable[Row] | None = None) -> Choice:
    """Return whether the steps of planned work are compiled where a worker found itself on such a seat."""
    rows = rows_of(TABLE) if table is None else tuple(table)
    kind = seat.instructions or seat.kind
    if seat.lacks:
        return Choice(value="never", why=f"its machine lacks {seat.lacks}")
    saved, taken, known = 0.0, 0.0, set()
    for work in works:
        asked = replace(work, precision=seat.precision if work.precision == "auto" else work.precision)
        row = _row_for(asked, kind, rows)
        if row is None:
            what = f"{work.model} with {work.norm} at batch {work.batch_size}"
            return Choice(value="never", why=f"the table of compiled steps has no row for {what} on {kind}")
        eager = row.eager * _size(asked) / _size(row)
        saved += work.trials * work.steps * eager * (1 - row.share)
        taken += work.trials * (row.later + VALIDATION * eager)
        taken += row.compiling * (work.codes if work.codes > 1 or work.step not in known else 0)
        known.add(work.step)
    value = "always" if works and saved > WORTH * taken else "never"
    return Choice(
        value=value, why=f"compiling saves {saved:,.0f} s of the planned steps on {kind} and takes {taken:,.0f} s"
    )


def _row_for(work: ConditionWork, kind: str, rows: Sequence[Row]) -> Row | None:
    """Return the nearest row that speaks for a condition's network on a kind of device."""
    alike = [
        row
        for row in rows
        if row.kind == kind
        and (row.model, row.norm, row.precision, row.threads) == (work.model, work.norm, work.precision, work.threads)
        and all(row.options.get(name, work) == value for name, value in work.options.items())
        and work.optimizer in WRITTEN_OUT
        and max(_apart(row.batch_size, work.batch_size), _apart(_pixels(row), _pixels(work))) <= NEAR
    ]
    return min(alike, key=lambda row: _apart(row.batch_size, work.batch_size), default=None)


def _pixels(one: Row | ConditionWork) -> int:
    return one.shape[0] * one.shape[1]


def _size(one: Row | ConditionWork) -> int:
    return one.batch_size * _pixels(one)


def _apart(one: int, other: int) -> float:
    return math.exp(abs(math.log(one / other)))
