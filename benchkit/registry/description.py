"""The value that describes a plugin, and its form as JSON: in the user's cache, between processes and in output."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchkit.cache import CachedRecords
from benchkit.protocols import API_VERSION
from benchkit.registry.entries import Entry
from benchkit.registry.loading import broken
from benchkit.registry.option_types import MismatchError, convert
from benchkit.registry.options import REQUIRED, Opaque, Option, is_plain

CACHE = CachedRecords("descriptions", most=2000)

Status = Literal["ok", "broken", "unchecked"]
"""ok: it was imported; broken: it cannot be, or its source shows that; unchecked: its source looks right so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A plugin's entry with its card, options and status; `reason` and `detail` (a traceback) say why it is broken."""

    entry: Entry
    status: Status
    reason: str = ""
    detail: str = ""
    title: str = ""
    summary: str = ""
    reference: str = ""
    url: str = ""
    api: int = API_VERSION
    options: tuple[Option, ...] = ()
    ignores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def usable(self) -> Description:
        """Return this description; raise `PluginError` with the reason when the plugin is broken."""
        if self.status == "broken":
            raise broken(self.entry, self.reason)
        return self


def to_json(description: Description) -> dict[str, Any]:
    """Return a description as JSON values; `from_json` undoes it. Keys are only ever added."""
    entry = description.entry
    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "target": entry.value,
        "origin": entry.origin,
        "status": description.status,
        "reason": description.reason,
        "detail": description.detail,
        "title": description.title,
        "summary": description.summary,
        "reference": description.reference,
        "url": description.url,
        "api": description.api,
        "options": [_option_to_json(option) for option in description.options],
        "ignores": {path: dict(options) for path, options in description.ignores.items()},
    }


def from_json(entry: Entry, values: Mapping[str, Any]) -> Description:
    """Return the description of `entry` that `to_json` wrote.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    if values["status"] not in ("ok", "broken", "unchecked"):
        raise ValueError(values["status"])
    texts = {name: str(values[name]) for name in ("reason", "detail", "title", "summary", "reference", "url")}
    return Description(
        entry=entry,
        status=values["status"],
        api=int(values["api"]),
        options=tuple(_option_from_json(option) for option in values["options"]),
        ignores=dict(values["ignores"]),
        **texts,
    )


def read_cache(stamps: Mapping[Entry, str]) -> dict[Entry, Description]:
    """Return the cached descriptions whose stamp is still the given one."""
    records = CACHE.read({entry.key: stamp for entry, stamp in stamps.items()})
    known: dict[Entry, Description] = {}
    for entry in stamps:
        if entry.key in records:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a damaged record is made anew
                known[entry] = from_json(entry, records[entry.key])
    return known


def write_cache(descriptions: Sequence[Description], stamps: Mapping[Entry, str]) -> None:
    """Add descriptions to the cache, replacing older ones of the same plugins."""
    keyed = {entry.key: stamp for entry, stamp in stamps.items()}
    CACHE.write({description.entry.key: to_json(description) for description in descriptions}, keyed)


def entry_to_json(entry: Entry) -> dict[str, str]:
    """Return what another process needs to import an entry."""
    names = ("kind", "name", "value", "distribution", "version", "shadows", "problem")
    return {name: getattr(entry, name) for name in names} | {"file": str(entry.file or "")}


def entry_from_json(values: Mapping[str, str]) -> Entry:
    """Return the entry that `entry_to_json` wrote."""
    file = Path(values["file"]) if values["file"] else None
    return Entry(**{name: value for name, value in values.items() if name != "file"}, file=file)


def _option_to_json(option: Option) -> dict[str, Any]:
    required, plain = option.default is REQUIRED, is_plain(option.default)
    return {
        "name": option.name,
        "type": option.type,
        "required": required,
        "default": _plain_json(option.default) if plain and not required else None,
        "default_text": "" if plain or required else repr(option.default),
        "low": option.low,
        "high": option.high,
        "log": option.log,
        "choices": list(option.choices),
        "help": option.help,
    }


def _option_from_json(values: Mapping[str, Any]) -> Option:
    return msgspec.convert({**values, "default": _default(values)}, Option)


def _default(values: Mapping[str, Any]) -> Any:
    if values["required"]:
        return REQUIRED
    if values["default_text"]:
        return Opaque(str(values["default_text"]))
    try:
        return convert(str(values["type"]), values["default"])
    except MismatchError:
        return values["default"]  # an author may write a default that is outside the annotation, such as None


def _plain_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
