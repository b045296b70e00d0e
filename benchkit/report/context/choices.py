"""What a reader of the HTML report can choose, and how tables and figures follow it: plain values for the templates."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PACK_FROM = 16_000
"""Embedded data of this many characters or more are compressed; the page unpacks them when they are asked for."""

MOST_UNPACKED = 256 * 2**20
"""Packed data that inflate to more bytes than this are refused: no report of ours holds such."""

CONDITION_COLUMNS = frozenset({"condition", "first", "second"})
"""The columns whose cells name a condition by its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """How one table or figure follows what the reader chooses.

    `views` is JSON: by `split.metric`, what to show instead. Without views, `fixed` says in words what is shown
    whatever is chosen, or is empty where the caption has to say it.
    """

    places: Mapping[str, int] = field(
        default_factory=dict,
        metadata={"help": "the place of every condition by its label"},
    )
    fixed: str = field(default="", metadata={"help": "what is shown whatever metric and split are chosen, in words"})
    views: str = field(default="", metadata={"help": "JSON of what other metrics and splits show, or nothing"})

    def place(self, column: str, value: object) -> int | None:
        """Return the place of the condition that a cell names, None for cells that name none."""
        return self.places.get(value) if column in CONDITION_COLUMNS and isinstance(value, str) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceEntry:
    """One entry of a list to choose from."""

    value: str = field(metadata={"help": "what the address of the view and the page's script call it"})
    label: str = field(metadata={"help": "the words shown"})
    chosen: bool = field(metadata={"help": "whether the report shows it first"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The chooser of one study: its lists, and the data of its trials."""

    metrics: tuple[ChoiceEntry, ...] = field(metadata={"help": "the metrics to choose from"})
    splits: tuple[ChoiceEntry, ...] = field(metadata={"help": "the splits to choose from"})
    conditions: tuple[ChoiceEntry, ...] = field(metadata={"help": "the conditions in report order"})
    data: str = field(metadata={"help": "JSON: main metric, looks of the conditions, configuration of charts"})
    trials: str = field(metadata={"help": "JSON: every condition's settings and trials, for the panel"})


def packed(value: Any) -> str:
    """Return a value as JSON; where that is long, `{"packed": TEXT}` with the JSON deflated (zlib) in base64.

    A string counts as JSON already. The same value gives the same text.
    """
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), allow_nan=False)
    if len(text) < PACK_FROM:
        return text
    return json.dumps({"packed": base64.b64encode(zlib.compress(text.encode(), 9)).decode()})


def unpacked(text: str) -> Any:
    """Return the value that `packed` made a text of.

    Raises `ValueError` for any other text, and for data that inflate to more than `MOST_UNPACKED` bytes.
    """
    value = json.loads(text)
    if not isinstance(value, dict) or set(value) != {"packed"}:
        return value
    inflating = zlib.decompressobj()
    try:
        found = inflating.decompress(base64.b64decode(value["packed"], validate=True), MOST_UNPACKED)
    except (TypeError, zlib.error) as error:
        raise ValueError(f"packed data are damaged: {error}") from error
    if not inflating.eof:
        raise ValueError("packed data are damaged or too long")
    return json.loads(found)
