"""Text on its way out: what is private left out, the unprintable as codes, other directions isolated, long text cut."""

from __future__ import annotations

import base64
import dataclasses
import getpass
import json
import re
import shlex
import zlib
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from benchkit.plan import Condition
from benchkit.results import Outcome, StudyResults

PIECE = 2000
"""Longer texts are cut into elements of about so many characters: the printer's time for one grows with its square."""

PACK_FROM = 16_000
"""Embedded data of this many characters or more are compressed; the page unpacks them when they are asked for."""

MOST_UNPACKED = 256 * 2**20
"""Packed data that inflate to more bytes than this are refused: no report of ours holds such."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_RIGHT = (
    "\u0590-\u08ff\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
)
_RIGHT_TO_LEFT = re.compile(f"[{_RIGHT}]")
_QUOTED = f"(?<=\u201c)[^\u201d]*[{_RIGHT}][^\u201d]*(?=\u201d)"
_NAME = re.compile(f"{_QUOTED}|[{_RIGHT}](?:[^A-Za-z\u201c\u201d]*[{_RIGHT}])?")
_SHAPED = re.compile(f"[{_RIGHT}\u0300-\u036f\u0900-\u109f\u1780-\u17ff\u1a00-\u1aff\u200c\u200d]")


def printable(text: str) -> str:
    r"""Return a text with a code, such as \x07 or \udc80, for each character that neither HTML nor XML can hold."""
    return _UNPRINTABLE.sub(lambda letter: letter[0].encode("unicode_escape").decode(), text)


def needs_shaping(text: str) -> bool:
    """Return whether a text is wrong when its letters are drawn one by one from left to right."""
    return _SHAPED.search(text) is not None


def shown(text: object) -> Markup:
    """Return a text for a page: escaped, names that run from right to left in `<bdi>`, long text in pieces.

    Without the isolation, the number after such a name would be drawn within its quotes.
    """
    words = printable(str(text))
    if len(words) <= PIECE:
        return _isolated(words)
    pieces = re.findall(rf"(?s).{{1,{PIECE}}}(?:\s|\Z)|.{{{PIECE}}}\S*\s?", words)
    return Markup("").join(Markup("<span>{}</span>").format(_isolated(piece)) for piece in pieces)


def _isolated(text: str) -> Markup:
    if not _RIGHT_TO_LEFT.search(text):
        return escape(text)
    parts, end = [], 0
    for name in _NAME.finditer(text):
        parts += [escape(text[end : name.start()]), Markup("<bdi>{}</bdi>").format(name[0])]
        end = name.end()
    return Markup("").join([*parts, escape(text[end:])])


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
        inflated = inflating.decompress(base64.b64decode(value["packed"], validate=True), MOST_UNPACKED)
    except (TypeError, zlib.error) as error:
        raise ValueError(f"packed data are damaged: {error}") from error
    if not inflating.eof:
        raise ValueError("packed data are damaged or too long")
    return json.loads(inflated)


T = TypeVar("T")
Whose: TypeAlias = tuple[str, str]

ADDRESSES = ("--storage", "--track", "--notify")
"""The options of a command that name a database, a tracker or a notifier of one's own."""

HOME = "~"
"""What stands for a home folder; data sets and plugin files expand it again on the reader's machine."""

_HOMES = (
    re.compile(r"(?:/home|/Users|/var/home)/[^/\s\"':;,\\]+"),
    re.compile(r"(?<![\w.~/-])/root(?![\w.-])"),
    re.compile(r"[A-Za-z]:[\\/]+Users[\\/]+[^\\/\"'\n]+"),
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s\"']+@")


def private_results(results: StudyResults) -> StudyResults:
    """Return the results without home folders and credentials in any text; the trials' own folders stay usable."""
    whose, known = _whose(), dict[int, Condition]()
    for trial in (*results.trials, *results.earlier):
        if id(trial.condition) not in known:  # all trials of a condition share it
            known[id(trial.condition)] = _private(trial.condition, whose)
    trials, earlier = (
        tuple(
            dataclasses.replace(
                trial,
                condition=known[id(trial.condition)],
                params=_private(trial.params, whose),
                outcome=_private_outcome(trial.outcome, whose),
            )
            for trial in group
        )
        for group in (results.trials, results.earlier)
    )
    return dataclasses.replace(
        results,
        study=private(results.study),
        conditions=private(results.conditions),
        trials=trials,
        earlier=earlier,
        class_names=tuple(map(printable, results.class_names)),
        data=private(results.data),
        left_out=private(results.left_out),
        command=private_command(results.command),
    )


def _private_outcome(outcome: Outcome | None, whose: Whose) -> Outcome | None:
    """Return an outcome with its texts made private; its numbers, which are many, are not looked at."""
    if outcome is None:
        return None
    return dataclasses.replace(
        outcome,
        reason=printable(_private_text(outcome.reason, *whose)),
        notes=_private(outcome.notes, whose),
        environment=_private(outcome.environment, whose),
    )


def private(value: T) -> T:
    """Return a value with `private_text` applied to every text in it; what holds none stays the same object."""
    return _private(value, _whose())  # type: ignore[no-any-return]


def _private(value: Any, whose: Whose) -> Any:
    if isinstance(value, str):
        kept = _private_text(value, *whose)
        return value if kept == value else kept
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        made_private = {name: _private(item, whose) for name, item in given.items()}
        return (
            dataclasses.replace(value, **made_private) if any(made_private[n] is not given[n] for n in given) else value
        )
    if isinstance(value, Mapping):
        items = {_private_text(str(key), *whose): _private(item, whose) for key, item in value.items()}
        same = list(items) == list(value) and all(items[key] is item for key, item in value.items())
        return value if same else items
    if isinstance(value, list | tuple):
        parts = [_private(item, whose) for item in value]
        return value if all(new is old for new, old in zip(parts, value, strict=True)) else type(value)(parts)
    return value


def private_text(text: str) -> str:
    """Return a text in which `~` stands for home folders, and without user names and passwords in web addresses."""
    return _private_text(text, *_whose())


@lru_cache(maxsize=4096)
def _private_text(text: str, home: str, user: str) -> str:
    kept = text
    if len(home) > len("/root") and home in kept:
        kept = kept.replace(home, HOME)
    for pattern in _HOMES:
        kept = pattern.sub(HOME, kept)
    if len(user) > 2 and user != "root":
        kept = re.sub(rf"(?<=[\\/]){re.escape(user)}(?=[\\/]|$)", HOME, kept)
    return _CREDENTIALS.sub("", kept)


def private_command(command: str) -> str:
    """Return a command as it was given, absolute paths shortened to their last part, and without whom it told.

    So it works on a reader's machine. A text that is no command line loses its home folders alone.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return private_text(command)
    kept = []
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ADDRESSES or (index and words[index - 1] in ADDRESSES):
            continue
        if equals and option.startswith("--") and value.startswith("/"):
            kept.append(f"{option}={_last(value)}")
        else:
            kept.append(_last(word) if word.startswith(("/", "~")) else private_text(word))
    return shlex.join(kept)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def _whose() -> Whose:
    """Return the home folder and the name of who runs this, or an empty name."""
    return str(Path.home()), _user()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


TOP = 3
"""The level that the author's highest headings get: those above are the report's own."""


@cache
def _markdown() -> MarkdownIt:
    """Return the reader: CommonMark and tables, without HTML and images, links to web and mail addresses alone."""
    made = MarkdownIt("commonmark", {"html": False}).enable(["table"]).disable(["image", "html_block", "html_inline"])
    made.validateLink = lambda url: bool(re.match(r"(https?://|mailto:|#)", url, re.IGNORECASE))  # type: ignore[method-assign]
    return made


def rendered(source: str) -> Markup:
    """Return Markdown as HTML: headings from level `TOP` on, HTML within it as the letters that it is.

    Images are left as their text, and a link with another scheme than http, https or mailto as it was written: a report
    loads nothing.
    """
    reader = _markdown()
    tokens = reader.parse(printable(source))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + TOP - 1)}"
        for inner in token.children or ():
            if inner.type == "link_open" and str(inner.attrGet("href")).startswith(("http", "mailto")):
                inner.attrSet("rel", "noreferrer")
    return Markup(reader.renderer.render(tokens, reader.options, {}))
