"""Addresses of trackers and notifiers, which are credentials: named by a variable, and hidden where they may show."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchkit.errors import BenchkitError

FILE = "benchkit.toml"
"""The file beside a workspace that may say where its sweeps are told: `[track]` with `NAME = "ADDRESS"`."""

HIDDEN = "[secret]"

WITHOUT_SECRET = ("dbus", "form", "forms", "gnome", "json", "jsons", "macosx", "syslog", "windows", "xml", "xmls")
"""The schemes of notifiers whose address is no credential, where it is a host alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A tracker's `name`, or `notify`, and where it is: `spoken` as given, `value` what that is, "" for its default."""

    name: str
    spoken: str = ""
    value: str = field(default="", repr=False)

    @property
    def option(self) -> str:
        """Return `NAME` or `NAME=ADDRESS`, as the option takes it; it holds no secret."""
        return f"{self.name}={self.spoken}" if self.spoken else self.name

    def masked(self, text: str) -> str:
        """Return a text without the address's user, password, query and path, where a variable holds it."""
        return masked(text, self.value) if self.spoken.startswith("env:") else text


def tracker_of(text: str, option: str = "--track") -> Address:
    """Return the tracker that `NAME`, `NAME=ADDRESS` or `NAME=env:VARIABLE` names.

    Raises `BenchkitError` for an address that holds a credential, or a variable that is not set.
    """
    name, _, spoken = text.partition("=")
    if not name:
        raise BenchkitError(f"{option}: no tracker is named", hint=f"{option} NAME or {option} NAME=env:VARIABLE")
    return Address(name=name, spoken=spoken, value=address_of(spoken, f"{option} {name}"))


def address_of(spoken: str, where: str) -> str:
    """Return what an address stands for: itself, or the value of the variable that `env:VARIABLE` names.

    Raises `BenchkitError`, which never shows the address, where it holds a user, token or query, or nothing is set.
    """
    if spoken.startswith("env:"):
        variable = spoken.removeprefix("env:")
        if not os.environ.get(variable):
            raise BenchkitError(f"{where}: the environment variable {variable!r} is not set or empty")
        return os.environ[variable]
    parts = urlsplit(spoken)
    if "@" in spoken or parts.query or parts.fragment or "token" in spoken.lower():
        raise BenchkitError(
            f"{where}: the address holds a user, token or query, which nobody else should read",
            hint="put it into an environment variable, and name that: env:VARIABLE",
        )
    return spoken


def notifier_of(spoken: str) -> Address:
    """Return where notices go: an address as apprise has them, or the variable that `env:VARIABLE` names.

    Raises `BenchkitError`, which never shows the address, for one that is a credential, as most of them are.
    """
    value = address_of(spoken, "--notify")
    parts = urlsplit(spoken)
    if not spoken.startswith("env:") and (parts.scheme not in WITHOUT_SECRET or parts.path.strip("/")):
        raise BenchkitError(
            "--notify: such an address lets everybody who reads it send in your name",
            hint="put it into an environment variable, and name that: --notify env:VARIABLE",
        )
    return Address(name="notify", spoken=spoken, value=value)


def trackers_told(named: Sequence[str], path: Path) -> tuple[Address, ...]:
    """Return the trackers that the command line names, and those of the file beside the workspace, where it is there.

    The command line wins. Raises `BenchkitError` as `tracker_of` does, and for a file that says something else.
    """
    found: dict[str, Address] = {}
    if path.is_file():
        try:
            told = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BenchkitError(f"{path}: cannot be read: {error}") from error
        table = told.get("track", {})
        if (
            told.keys() - {"track"}
            or not isinstance(table, Mapping)
            or not all(isinstance(a, str) for a in table.values())
        ):
            raise BenchkitError(f"{path}: expected a table [track] alone", hint='a line of it: mlflow = "env:VARIABLE"')
        found = {name: tracker_of(f"{name}={spoken}", f"{path}:") for name, spoken in table.items()}
    return tuple((found | {one.name: one for one in map(tracker_of, named)}).values())


def masked(text: str, address: str) -> str:
    """Return a text in which nothing of an address stands but its scheme, and of a web address host and port."""
    parts = urlsplit(address)
    pieces = {address, parts.username or "", parts.password or "", parts.query, parts.path, parts.fragment}
    pieces |= {piece for piece in re.split(r"[/?&=#;:@,]+", address) if len(piece) > 3}
    pieces -= {parts.scheme, *([parts.hostname or "", str(parts.port)] if parts.scheme in ("http", "https") else [])}
    for piece in sorted({*pieces, *map(unquote, pieces)} - {"", "/"}, key=len, reverse=True):
        text = text.replace(piece, HIDDEN)
    return text
