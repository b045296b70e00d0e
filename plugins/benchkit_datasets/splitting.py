"""Which split a file belongs to: what a list says, else the file's own hash against the shares, whatever else is there.

A file that comes or goes moves no other one. Only where a split would lack a class are files taken from another one.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from benchkit import DataError
from benchkit.preparation import Draft, listed
from benchkit_datasets.image_files import SPLITS, Division, ImageFile, by_class

FILE_NAME = "split.csv"
"""The list of all files and their splits, beside the arrays of a prepared set."""
COLUMNS = ("path", "label", "split", "group")
"""The columns of tables that list images, in the order that they have without a header."""
LAYOUT = "the first line names the columns path, label and, where known, split and group, or they stand in this order"
_NUMBERED = re.compile(r"^(.+?)[ _-]\(?\d+\)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting:
    """The shares of test and val, 0 to 1; the seed of the hashes; and where a name's group ends ("": no groups)."""

    test_fraction: float
    val_fraction: float = 0.0
    seed: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitList:
    """What a list says of files by their names: the split of some, and the group of some."""

    splits: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Together:
    """Files that stay together: those of a group, else one alone. `rank` is their hash, 0 to 1."""

    files: list[ImageFile]
    rank: float
    split: str = ""
    listed: bool = False

    @property
    def labels(self) -> set[str]:
        """Return the classes of its files."""
        return {file.label for file in self.files}


def plain_name(path: Path, folder: Path) -> str:
    """Return the name by which a file is known: its path below `folder`, in the same letters on every system (NFC)."""
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix())


def alike(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return a line for each name that several files have, and notes on names that differ in case alone."""
    counts = Counter(names)
    twice = [f"{name!r}: {count} files of this name, in other Unicode letters" for name, count in counts.items()]
    folded = Counter(name.casefold() for name in counts)
    cased = sorted(name for name in counts if folded[name.casefold()] > 1)
    note = f"Names that differ in case alone, which some systems take for one: {', '.join(listed(cased, 4))}."
    return [line for line, count in zip(twice, counts.values(), strict=True) if count > 1], [note] * bool(cased)


def with_groups(files: Iterable[ImageFile], splitting: Splitting, known: SplitList) -> list[ImageFile]:
    """Return files with the group that is given with them, that the list tells, or that their names do."""
    return [replace(file, group=g) if (g := _group_of(file, splitting, known)) else file for file in files]


def divided(
    files: Sequence[ImageFile], splitting: Splitting, known: SplitList, *, test: bool = True, val: bool = True
) -> Division:
    """Return files by split, with their groups: a file in `known` as it says there, each other one by its own hash.

    The hash is SHA-256 of the seed and the name of the file, or of its group, as a fraction of its range: test if it is
    below `test_fraction`, val if it is below both shares, else train. A split that then lacks a class takes the file or
    group of the lowest hash (train: of the highest) from a split that can spare it; that is noted. Where there are
    groups and nothing says val's share, it is a tenth of the rest: what a study draws from train would tear them. With
    `test` or `val` False there is no such split.
    """
    files = with_groups(files, splitting, known)
    if not test:
        splitting = replace(splitting, test_fraction=0.0)
    if not val:
        splitting = replace(splitting, val_fraction=0.0)
    elif not splitting.val_fraction and any(file.group for file in files):
        splitting = replace(splitting, val_fraction=(1 - splitting.test_fraction) / 10)
    units, torn = _units(files, splitting, known.splits)
    shares = {"test": splitting.test_fraction, "val": splitting.val_fraction}
    wanted = (*(split for split, share in shares.items() if share), "train")
    placed = sum(len(u.files) for u in units if u.listed and u.split != _split_of(u.rank, splitting))
    filled, lacking = _filled(units, wanted)
    counts = Counter(file.label for file in files)
    problems = [f"class {name!r}: {_images(counts[name])}{why}" for name, why in lacking]
    splits = {
        split: by_class(chain.from_iterable(unit.files for unit in units if unit.split == split))
        for split in ("train", "test", "val")
    }
    notes = tuple(_notes(files, splits, splitting, filled, placed))
    least = 1 + max((counts[name] for name, _ in lacking), default=0)
    return Division(splits=splits, problems=tuple(problems), torn=tuple(torn), notes=notes, least=least)


def _units(
    files: Sequence[ImageFile], splitting: Splitting, known: Mapping[str, str]
) -> tuple[list[_Together], list[str]]:
    groups: dict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        groups[f"group {file.group}" if file.group else file.name].append(file)
    units, torn = [], []
    for name, members in sorted(groups.items()):
        given = sorted({known[file.name] for file in members if file.name in known})
        if len(given) > 1:
            torn.append(f"{name!r} is listed in {' and in '.join(given)}")
        rank = _rank(name, splitting.seed)
        split = given[0] if given else _split_of(rank, splitting)
        units.append(_Together(files=members, rank=rank, split=split, listed=bool(given)))
    return units, torn


def torn_groups(splits: Mapping[str, Iterable[ImageFile]]) -> list[str]:
    """Return a line for each group that is in more than one split."""
    found: dict[str, list[str]] = defaultdict(list)
    for split, files in splits.items():
        for group in sorted({file.group for file in files} - {""}):
            found[group].append(split)
    return [f"group {group!r} is in {' and in '.join(names)}" for group, names in found.items() if len(names) > 1]


def _group_of(file: ImageFile, splitting: Splitting, known: SplitList) -> str:
    by_name = _stem(file).partition(splitting.group)[0] if splitting.group else ""
    by_name = _folder(file) if splitting.group == "/" else by_name
    return file.group or known.groups.get(file.name, "") or by_name


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _folder(file: ImageFile) -> str:
    """Return the name of the folder that an image lies in, "" where that is its class's."""
    folder = file.name.rpartition("/")[0].rpartition("/")[2]
    return folder if folder != file.label else ""


def _stem(file: ImageFile) -> str:
    name = file.name.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _rank(name: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _split_of(rank: float, splitting: Splitting) -> str:
    if rank < splitting.test_fraction:
        return "test"
    return "val" if rank < splitting.test_fraction + splitting.val_fraction else "train"


def _filled(units: Sequence[_Together], wanted: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Let no split lack a class; return how many files came to each split for that, and classes that do not suffice."""
    having: dict[str, list[_Together]] = defaultdict(list)
    for unit in units:
        for label in unit.labels:
            having[label].append(unit)
    there = Counter((unit.split, label) for unit in units for label in unit.labels)
    filled, lacking = Counter[str](), []
    for label, own in sorted(having.items()):
        own.sort(key=lambda unit: unit.rank)
        for split in wanted:
            if there[split, label]:
                continue
            spare = [u for u in own if not u.listed and all(there[u.split, name] > 1 for name in u.labels)]
            if not spare:
                kept = f" in {len(own)} groups" if sum(len(u.files) for u in own) != len(own) else ""
                lacking.append((label, f"{kept} cannot be split into {', '.join(sorted(wanted, key=SPLITS.index))}"))
                break
            chosen = spare[-1] if split == "train" else spare[0]
            there.subtract((chosen.split, name) for name in chosen.labels)
            chosen.split = split
            there.update((split, name) for name in chosen.labels)
            filled[split] += len(chosen.files)
    return dict(filled), lacking


def _notes(
    files: Sequence[ImageFile],
    splits: Mapping[str, Sequence[ImageFile]],
    splitting: Splitting,
    filled: Mapping[str, int],
    placed: int,
) -> Iterator[str]:
    named = {"test": splitting.test_fraction, "val": splitting.val_fraction}
    shares = [f"{share:g} {split}" for split, share in named.items() if share]
    grouped = any(file.group for file in files)
    by = "group, each whole in one split," if grouped else "file"
    counts = ", ".join(f"{len(each):,} {split}" for split, each in splits.items() if each)
    yield (
        f"Split by the hash of each {by} with seed {splitting.seed} ({' and '.join(shares)}): {counts}; {FILE_NAME} "
        "beside the prepared set lists all files."
    )
    if placed:
        yield f"Images that are where the list of splits says, and not by their hash: {placed:,}."
    if filled:
        moved = ", ".join(f"{count:,} to {split}" for split, count in sorted(filled.items()))
        yield f"Images moved so that no split lacks a class: {moved}."
    if not grouped and _look_numbered(files):
        yield (
            "Names look numbered (NAME_1, NAME_2): pictures of one subject may be in several splits, for they are not "
            "grouped (data.group)."
        )
    folders = Counter((file.label, _folder(file)) for file in files if _folder(file))
    several = Counter(label for (label, _), count in folders.items() if count > 1)
    if not grouped and max(several.values(), default=0) >= 3:
        yield (
            f"Images lie in folders of their own ({min(folders)[1]}, ...): those of one subject may be in several "
            'splits, for they are not grouped (data.group = "/").'
        )


def _look_numbered(files: Sequence[ImageFile]) -> bool:
    """Return whether in some class three or more names before a number have several files each, and most files one."""
    stems: dict[str, Counter[str]] = defaultdict(Counter)
    total = Counter(file.label for file in files)
    for file in files:
        if numbered := _NUMBERED.match(_stem(file)):
            stems[file.label][numbered[1]] += 1
    several = {label: [n for n in counts.values() if n > 1] for label, counts in stems.items()}
    return any(len(each) >= 3 and 2 * sum(each) > total[label] for label, each in several.items())


def write_split_list(draft: Draft, division: Division) -> None:
    """Write all files with their splits beside the arrays, one a line: path, label, split, group."""
    grouped = any(file.group for each in division.splits.values() for file in each)
    rows = [
        (file.name, file.label, split, *([file.group] if grouped else []))
        for split, each in division.splits.items()
        for file in each
    ]
    with (draft.folder / FILE_NAME).open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "split", *(["group"] if grouped else [])))
        writer.writerows(sorted(rows))


def read_split_list(file: Path) -> SplitList:
    """Return what a list says of names: columns path, split (may be empty) and group.

    Raises:
        DataError: it cannot be read, says nothing, or a line names no split or a file twice; all are named.
    """
    found: dict[str, dict[str, str]] = {"split": {}, "group": {}}
    problems: list[str] = []
    for number, row in read_table(file, ("path",), headed=True):
        name = unicodedata.normalize("NFC", row["path"].replace("\\", "/"))
        if row["split"] not in ("", *SPLITS):
            problems.append(f"line {number}: split {row['split']!r}, expected train, val or test")
            continue
        for what, known in found.items():
            if row[what] and known.setdefault(name, row[what]) != row[what]:
                problems.append(f"line {number}: {name} has the {what}s {known[name]} and {row[what]}")
    if problems or not (found["split"] or found["group"]):
        raise DataError(
            f"{file} cannot be used as a list of splits",
            problems=listed(problems) or ["no line names a split or a group"],
            hint=LAYOUT,
        )
    return SplitList(splits=found["split"], groups=found["group"])


def read_table(path: Path, needed: Sequence[str], *, headed: bool = False) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a table by number, each with the fields path, label, split and group, "" where it has none.

    Commas, semicolons or tabs part fields. The first line is a header if it names a column that is `needed`; without
    one, fields stand in this order (`headed`: that is an error). Names that are not UTF-8 are kept as the system has
    them.

    Raises:
        DataError: it cannot be read, or its header lacks a column that is needed.
    """
    try:
        raw = path.read_bytes()
        coding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        text = raw.decode(coding, "surrogateescape" if headed else "strict")
        lines = [line for line in text[:100_000].splitlines() if line.strip()][:20]
        separator = max("\t;,", key=lambda sign: min((line.count(sign) for line in lines), default=0))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if any(row)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}", hint="save the list as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a list: {error}", hint=LAYOUT) from error
    names = [name.lower() for name in rows[0][1]] if rows else []
    columns: Sequence[str] = COLUMNS
    if headed or set(needed) & set(names):
        if missing := [name for name in needed if name not in names]:
            raise DataError(f"{path} has no column {missing[0]}: {', '.join(names)}", hint=LAYOUT)
        columns, rows = names, rows[1:]
    blank = dict.fromkeys(COLUMNS, "")
    return [(number, {**blank, **dict(zip(columns, row, strict=False))}) for number, row in rows]
