"""Whether a report's parts have the sha256 that its capsule names, and the capsule the one that the report names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from benchkit.capsule.making import cells_digest, sha256
from benchkit.capsule.reading import Capsule
from benchkit.report.files.capsule_block import CAPSULE
from benchkit.verify.check import Check, judged
from benchkit.verify.opening import ReportFile


def digest_checks(report: ReportFile, capsule: Capsule) -> Iterator[Check]:
    """Yield the checks of the capsule itself, of the tables as shown, and of the files or data in the report."""
    yield _capsule(report)
    yield _members(capsule)
    if report.kind == "html":
        yield _tables(report, capsule)
        yield _data(report, capsule)
    else:
        yield _files(report, capsule)
    yield Check(
        name="figures",
        state="unchecked",
        told="drawings and pictures are not read; the data behind them are among the files checked above",
    )


def _capsule(report: ReportFile) -> Check:
    found = sha256(report.capsule)
    problems = [] if found in report.text else [f"the text does not name sha256 {found}"]
    return judged(
        "capsule", f"the report names its sha256, {found[:12]}", "the capsule is not the one that the report names",
        problems,
    )  # fmt: skip


def _members(capsule: Capsule) -> Check:
    named = capsule.head.members
    there = {name: content for name, content in capsule.members.items() if name != "capsule.json"}
    problems = [*_changed(named, there), *(f"{name} is not there" for name in named if name not in there)]
    good = f"the {len(named)} members of the capsule have the sha256 that it names"
    return judged("capsule's members", good, "members of the capsule were changed", problems)


def _tables(report: ReportFile, capsule: Capsule) -> Check:
    known = {table.anchor: table for table in capsule.head.shown.tables}
    problems = [f"{anchor} is not in the capsule" for anchor in report.tables if anchor not in known]
    for anchor, table in known.items():
        if anchor not in report.tables:
            problems.append(f"{anchor} (table {table.number}) is missing")
        elif cells_digest(report.tables[anchor]) != table.cells:
            problems.append(f"{anchor} (table {table.number}) was changed")
    good = f"the {len(known)} tables of the page have the sha256 that the capsule names"
    return judged("tables as shown", good, "tables of the page were changed", problems)


def _data(report: ReportFile, capsule: Capsule) -> Check:
    files = {digest for name, digest in capsule.head.shown.files.items() if name.endswith(".csv")}
    known = files | {table.csv for table in capsule.head.shown.tables}
    texts = [(where, text) for where, listed in report.data.items() for text in listed]
    changed = {where for where, text in texts if sha256(text.encode()) not in known}
    good = f"the {len(texts)} data sets behind tables and figures have the sha256 that the capsule names"
    return judged("data in the page", good, "data behind tables or figures were changed", sorted(changed))


def _files(report: ReportFile, capsule: Capsule) -> Check:
    """Compare the PDF's attachments with those that the capsule names; the PDF writes paths with hyphens."""
    shown = {name.replace("/", "-"): digest for name, digest in capsule.head.shown.files.items()}
    there = {name: content for name, content in report.files.items() if name != CAPSULE}
    kinds = {PurePosixPath(name).suffix for name in there}
    missing = [name for name in shown if name not in there and PurePosixPath(name).suffix in kinds]
    problems = [*_changed(shown, there), *(f"{name} is missing" for name in missing)]
    good = f"the {len(there)} attachments have the sha256 that the capsule names"
    return judged("attachments", good, "attachments were changed", problems)


def _changed(named: Mapping[str, str], there: Mapping[str, bytes]) -> list[str]:
    problems = [f"{name} was changed" for name in named if name in there and sha256(there[name]) != named[name]]
    return [*problems, *(f"{name} is not in the capsule's list" for name in there if name not in named)]
