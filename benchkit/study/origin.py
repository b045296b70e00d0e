"""What a study file says beside the experiment: the work that it repeats, and its author's text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from benchkit.errors import nearest
from benchkit.metrics import score_metrics
from benchkit.study.settings import Settings
from benchkit.study.tree import SECTIONS, Problems, each_table, identity, quoted, regularizer_tables, typed, value_at

NOT_STATED = "not stated"
COMPARING = ("better", "equal", "best", "rises", "steady")
"""The keys of a claim that say what kind of comparison decides it; at most one of them is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedSetting:
    """What a source says of one setting.

    `values` are what it states (`value` in a study file), more than one where its conditions differ. `words` are its
    own, `place` says where they stand; where it says nothing, `inferred` says what the value is inferred from.
    `departs` is why ours is another.
    """

    path: str
    values: tuple[Any, ...]
    words: tuple[str, ...] = ()
    place: str = ""
    inferred: str = ""
    departs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceClaim:
    """What a source concludes, in a few words (`claim`), and where keys can say it, what decides it.

    `words` are its own, `place` says where they stand.
    `better` and `than`: two conditions, the first is better by the metric `on`. `equal`: conditions that are alike by
    it. `best`: the best of all by it. `rises`: a metric of val that gets worse, from epoch `start` (`from` in a study
    file) on where one is given, in the conditions of `when`; `steady`: one that does not. Conditions are named by
    levels, {factor: label}. Without any of these `against` says what speaks against the claim where no number decides,
    and `verdict` what follows from it.
    """

    claim: str
    words: tuple[str, ...] = ()
    place: str = ""
    better: Mapping[str, str] | None = None
    than: Mapping[str, str] | None = None
    equal: tuple[Mapping[str, str], ...] = ()
    best: Mapping[str, str] | None = None
    on: str = ""
    rises: str = ""
    steady: str = ""
    start: int | None = None
    when: Mapping[str, str] | None = None
    against: str = ""
    verdict: Literal["does not hold", "cannot be told"] = "cannot be told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The work that a study repeats; what its text does not give stays empty and is shown as not stated.

    `title`, `authors`, `year` and `url` are the work's, `part` is where in it the study stands. `note` says what else
    is to be known of it. `states` are the settings that it states, by dotted path. `claims` are what it concludes.
    """

    title: str
    authors: tuple[str, ...] = ()
    year: str = ""
    part: str = ""
    url: str = ""
    note: str = ""
    states: tuple[StatedSetting, ...] = ()
    claims: tuple[SourceClaim, ...] = ()

    @property
    def citation(self) -> str:
        """Return authors, title, year and part in one line, each as the text has it or as not stated."""
        named = f"{', '.join(self.authors)}: " if self.authors else ""
        unnamed = "" if self.authors else f"author {NOT_STATED}, "
        part = f", {self.part}" if self.part else ""
        return f"{named}{self.title} ({unnamed}{self.year or f'year {NOT_STATED}'}){part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSetting:
    """A stated setting beside what the conditions of a study have; `ours` are their different values, in order."""

    stated: StatedSetting
    ours: tuple[Any, ...]

    @property
    def same(self) -> bool:
        """Return whether every stated value is one of ours."""
        return all(value in self.ours for value in self.stated.values)


def compare_settings(origin: Origin, trees: Sequence[Mapping[str, Any]]) -> tuple[ComparedSetting, ...]:
    """Return each stated setting beside the values that the conditions' trees of settings have."""
    found = []
    for stated in origin.states:
        ours: list[Any] = []
        for tree in trees:
            value = setting_of(tree, stated.path)
            if value is not None and value not in ours:
                ours.append(value)
        found.append(ComparedSetting(stated=_as_one_list(stated, ours), ours=tuple(ours)))
    return tuple(found)


def _as_one_list(stated: StatedSetting, ours: Sequence[Any]) -> StatedSetting:
    """Return a stated setting whose several values are one list, where the setting itself is a list."""
    if any(isinstance(value, list) for value in ours) and not any(isinstance(v, list) for v in stated.values):
        return replace(stated, values=(list(stated.values),))
    return stated


def departures(origin: Origin, tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how one condition's settings differ from those that its source states, each in a few words."""
    pairs = ((stated, setting_of(tree, stated.path)) for stated in origin.states)
    return tuple(
        f"{stated.path} is {values_in_words([value])} instead of {values_in_words(stated.values)}"
        for stated, value in pairs
        if value is not None and value not in _as_one_list(stated, [value]).values
    )


def values_in_words(values: Sequence[Any]) -> str:
    """Return the values of a setting as a table shows them: yes, no, numbers at full length, several with a slash."""
    return " / ".join(_in_words(value) for value in values) or "nothing"


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_in_words(item) for item in value)}]"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def setting_of(tree: Mapping[str, Any], path: str) -> Any:
    """Return what a tree has at a dotted path: of a plugin's table its name, of a regularizer whether it is there."""
    parts = path.split(".")
    if parts[0] == "regularizers" and len(parts) == 2:
        return any(identity(table) == parts[1] for table in regularizer_tables(tree.get("regularizers", [])))
    if parts[-1] == "name" and isinstance(short := value_at(tree, ".".join(parts[:-1])), str):
        return short
    value = value_at(tree, path)
    return value.get("name", value) if isinstance(value, Mapping) and parts[-1] != "options" else value


def read_origin(table: Any, levels: Mapping[str, Mapping[str, None]], problems: Problems) -> Origin | None:
    """Return the source of a study, noting every problem with it; `levels` are the labels of each factor."""
    if not isinstance(table, Mapping):
        problems.add("source", f"got {quoted(table)}, expected a table")
        return None
    states = _states(table.get("states", {}), problems)
    claims = []
    for where, written in each_table(table.get("claims", []), "source.claims", problems):
        claim = _claim(written, where, levels, problems)
        claims += [claim] if claim else []
    rest = {key: value for key, value in table.items() if key not in ("states", "claims")}
    return typed(
        Origin, rest, "source", problems, also=("states", "claims"), states=tuple(states), claims=tuple(claims)
    )


def _states(table: Any, problems: Problems) -> list[StatedSetting]:
    if not isinstance(table, Mapping):
        problems.add("source.states", f"got {quoted(table)}, expected a table of settings")
        return []
    states = []
    for path, written in table.items():
        where = f'source.states."{path}"'
        if path.partition(".")[0] not in SECTIONS or "." not in path:
            problems.add(where, f"is no setting{nearest(path, SECTIONS)}; settings begin with {', '.join(SECTIONS)}")
        elif not isinstance(written, Mapping) or "value" not in written:
            problems.add(where, f"got {quoted(written)}, expected a table with value, and words or inferred")
        else:
            value = written["value"]
            values = tuple(value) if isinstance(value, list) and value else (value,)
            rest = _texts({key: item for key, item in written.items() if key != "value"})
            stated = typed(StatedSetting, rest, where, problems, also=("value",), path=path, values=values)
            if stated and bool(stated.words) == bool(stated.inferred):
                problems.add(where, "expected either words, the source's own, or inferred, why it must be so")
            states += [stated] if stated else []
    return states


def _texts(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table whose `words` are a list: one quotation may be written as text."""
    return {key: [item] if key == "words" and isinstance(item, str) else item for key, item in table.items()}


def _claim(
    table: Mapping[str, Any], where: str, levels: Mapping[str, Mapping[str, None]], problems: Problems
) -> SourceClaim | None:
    written = {("start" if key == "from" else key): value for key, value in _texts(table).items()}
    only = next(iter(levels)) if len(levels) == 1 else None
    for key in ("better", "than", "best", "when"):
        if isinstance(written.get(key), str) and only:
            written[key] = {only: written[key]}
    if isinstance(written.get("equal"), list) and only:
        written["equal"] = [{only: item} if isinstance(item, str) else item for item in written["equal"]]
    claim = typed(SourceClaim, written, where, problems)
    if claim is None:
        return None
    given = [key for key in COMPARING if getattr(claim, key)]
    if len(given) > 1:
        problems.add(where, f"has {' and '.join(given)}: expected one of {', '.join(COMPARING)}")
    if bool(claim.better) != bool(claim.than):
        problems.add(where, "better and than belong together")
    if not given and not claim.against:
        problems.add(where, f"nothing decides it: give one of {', '.join(COMPARING)}, or against")
    for key in ("on", "rises", "steady"):
        metric = getattr(claim, key)
        if metric and metric not in (known := score_metrics()):
            problems.add(f"{where}.{key}", f"got {metric!r}{nearest(metric, known)}, expected a metric")
    if set(given) & {"better", "equal", "best"} and not claim.on:
        problems.add(where, 'on is missing: the metric, for example "test.accuracy"')
    for key, named in _conditions_of(claim):
        note_levels(named, f"{where}.{key}", levels, problems)
    return claim


def note_levels(
    when: Mapping[str, str], where: str, levels: Mapping[str, Mapping[str, None]], problems: Problems
) -> None:
    """Note labels that a factor of the study does not have; what is no factor is for the report to leave out."""
    for path, label in when.items():
        if path in levels and label not in levels[path]:
            known = f"expected one of {', '.join(levels[path])}"
            problems.add(f"{where}.{path}", f"got {label!r}{nearest(label, levels[path])}, {known}")
        elif path not in levels and (close := nearest(path, levels)):
            problems.add(f"{where}.{path}", f"is no factor of the study{close}")


def _conditions_of(claim: SourceClaim) -> list[tuple[str, Mapping[str, str]]]:
    single = [(key, getattr(claim, key)) for key in ("better", "than", "best", "when")]
    return [(key, named) for key, named in single if named] + [("equal", named) for named in claim.equal]


ENGINE = ("train.threads", "train.compile", "train.channels_last")
"""Settings of the engine, which change rounding and speed and not what is trained."""
APPLYING: Mapping[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("betas",),
    "adamw": ("betas",),
    "step": ("every", "gamma"),
    "one-cycle": ("max_lr", "warmup"),
}
"""The settings that an optimizer or a schedule of that name uses beside its rate."""


def _below(path: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{path}.{name}": value for name, value in values.items()}


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings of one condition that bear on results, defaults included, by dotted path."""
    data, model, train = settings.data, settings.model, settings.train
    own = {f"data.{f.name}": getattr(data, f.name) for f in fields(data) if f.name != "dataset"}
    plain: dict[str, Any] = {"data.name": data.dataset.name, **_below("data", data.dataset.options), **own}
    plain |= {"model.name": model.model.name, **_below("model", model.model.options)}
    plain |= {"model.norm": model.norm.name, **_below("model.norm", model.norm.options)}
    plain |= {"model.weights": model.weights} if model.weights else {}
    parts = ("optimizer", "schedule", "loss")
    plain |= {f"train.{f.name}": getattr(train, f.name) for f in fields(train) if f.name not in parts}
    plain |= {"train.loss": train.loss.name, **_below("train.loss", train.loss.options)}
    for part in ("optimizer", "schedule"):
        value, path = getattr(train, part), f"train.{part}"
        used = (*APPLYING.get(value.name, ()), *(("lr",) if part == "optimizer" else ()))
        plain[f"{path}.name"] = value.name
        plain |= _below(path, {name: getattr(value, name) for name in used}) | _below(path, value.options)
    for regularizer in settings.regularizers:
        path = f"regularizers.{regularizer.id}"
        plain |= {path: True, **_below(path, regularizer.plugin.options)}
    if train.select != "best":
        del plain["train.select_by"]
    return {path: value for path, value in plain.items() if path not in (*ENGINE, "data.source")}


PLACES = (
    "introduction", "method", "findings", "results", "training", "search", "images", "cost", "figures", "published",
    "discussion", "limitations", "conclusion", "acknowledgements",
)  # fmt: skip
"""Where the author's text can stand: sections of its own, and the beginning of the report's sections of these names."""

MOST_LETTERS = 20_000
"""The longest text of one place."""
MOST_BYTES = 2**20
_HEADING = re.compile(r"# +(.+?)(?: +#+)? *$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


def read_author_text(written: Any, problems: Problems, folder: Path | None) -> dict[str, str]:
    """Return the author's Markdown by its place, noting every problem in `problems`.

    `written` is a table of texts by place, or the name of a Markdown file in the study file's `folder`, whose headings
    `# PLACE` begin what stands there. Of a file that is named outside a folder nothing can be read.
    """
    if isinstance(written, str):
        text = _file(written, problems, folder)
        written = {} if text is None else by_place(text, problems)
    if not isinstance(written, Mapping):
        problems.add("report.text", f"got {quoted(written)}, expected a table of text or the name of a .md file")
        return {}
    texts = {}
    for place, text in written.items():
        if place not in PLACES:
            problems.unknown("report.text", place, PLACES)
        elif not isinstance(text, str):
            problems.add(f"report.text.{place}", f"got {quoted(text)}, expected text")
        elif len(text) > MOST_LETTERS:
            problems.add(f"report.text.{place}", f"has {len(text):,} letters, expected at most {MOST_LETTERS:,}")
        elif text.strip():
            texts[place] = text.strip()
    return {place: texts[place] for place in PLACES if place in texts}


def _file(name: str, problems: Problems, folder: Path | None) -> str | None:
    path = (folder / name).resolve() if folder else Path(name)
    if folder is None or Path(name).is_absolute() or path.suffix != ".md" or not path.is_relative_to(folder.resolve()):
        problems.add("report.text", f"got {quoted(name)}, expected the path of a .md file beside the study file")
        return None
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES:,} bytes")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        problems.add("report.text", f"{name} cannot be read: {error}")
        return None


def by_place(text: str, problems: Problems) -> dict[str, str]:
    """Return the parts of a Markdown text by the places that its headings of the first level name.

    `# Limitations` begins the part of the place `limitations`; within fenced code nothing is a heading.
    """
    parts: dict[str, list[str]] = {}
    part: list[str] = []
    before, fence = part, ""
    for line in text.splitlines():
        heading = _HEADING.match(line) if not fence else None
        if heading:
            place = heading[1].strip().lower()
            if place not in PLACES:
                problems.add("report.text", f"heading # {heading[1][:40]}{nearest(place, PLACES)}, expected one of "
                             f"{', '.join(PLACES)}")  # fmt: skip
            elif place in parts:
                problems.add("report.text", f"heading # {place} stands twice")
            part = parts.setdefault(place, []) if place in PLACES else []
            continue
        marks = _FENCE.match(line)
        if marks and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else marks[1]
        part.append(line)
    if "".join(before).strip():
        problems.add("report.text", "text before the first heading # PLACE")
    return {place: "\n".join(lines) for place, lines in parts.items()}
