"""Whether a report's parts have the digests that its capsule names, and the capsule fits itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from benchkit.analysis.wording import count
from benchkit.capsule.making import CAPSULE, CapsuleStudy, CapsuleTrial, cells_digest, sha256
from benchkit.capsule.reading import Capsule
from benchkit.errors import StudyError
from benchkit.plan import Condition, fingerprint, make_plan, typed_settings
from benchkit.report.files.html import wording_digest
from benchkit.report.page_text import HOME
from benchkit.study import Study
from benchkit.study.seeds import trial_seeds
from benchkit.verify.check import ReportCheck, check_of
from benchkit.verify.opening import ReportFile


def digest_checks(report: ReportFile, capsule: Capsule) -> Iterator[ReportCheck]:
    """Yield the checks of the capsule itself, of the tables as shown, and of the files or data in the report."""
    yield _capsule(report)
    yield _members(capsule)
    if report.kind == "html":
        yield from _page(report, capsule)
        yield _tables(report, capsule)
        yield _data(report, capsule)
    else:
        yield _files(report, capsule)
    yield from _beside(report, capsule)
    yield ReportCheck(
        name="figures",
        state="unchecked",
        told="drawings and pictures are not read; the data behind them are among the files checked above",
    )


def _capsule(report: ReportFile) -> ReportCheck:
    digest = sha256(report.capsule)
    problems = [] if digest in report.text else [f"the text does not name sha256 {digest}"]
    return check_of(
        "capsule", f"the report names its sha256, {digest[:12]}", "the capsule is not the one that the report names",
        problems,
    )  # fmt: skip


def _members(capsule: Capsule) -> ReportCheck:
    named = capsule.head.members
    there = {name: content for name, content in capsule.members.items() if name != "capsule.json"}
    problems = [*_changed(named, there), *(f"{name} is not there" for name in named if name not in there)]
    good = f"the {len(named)} members of the capsule have the sha256 that it names"
    return check_of("capsule's members", good, "members of the capsule were changed", problems)


def _page(report: ReportFile, capsule: Capsule) -> Iterator[ReportCheck]:
    """Yield whether the page as a whole is as it was written, which earlier versions did not note."""
    if report.sealed is None and capsule.head.shown.wording != wording_digest():
        return
    lost = "the sha256 at its end is missing" if report.sealed is None else "it does not have the sha256 at its end"
    bad = "the page was changed after it was written"
    yield check_of("page", "the page has the sha256 at its end", bad, [] if report.sealed else [lost])


def _beside(report: ReportFile, capsule: Capsule) -> Iterator[ReportCheck]:
    """Yield whether the files in the report's folder are those that were written with it, where there are any.

    Their index has the sha256 of what the last command wrote, of whatever formats: files of a later report are told
    from changed ones by it.
    """
    folder = report.path.with_suffix("")
    shown = {**capsule.head.shown.files, CAPSULE: sha256(report.capsule)}
    there = {name: folder / name for name in shown if name != "index.md" and (folder / name).is_file()}
    other = {name: digest for name, path in there.items() if (digest := sha256(path.read_bytes())) != shown[name]}
    later = _of_later_report(folder, shown) if other else {}
    changed = [name for name, digest in other.items() if later.get(name) not in (digest, LATER)]
    if other and not changed:
        yield ReportCheck(
            name="files beside it",
            state="differs",
            told=f"{len(other)} of the {len(there)} files in {folder} were written by a later `benchkit report`, as "
            "index.md there says, and this report's are gone: they say nothing against it. `--format all` makes page "
            "and files together, --out or --name keeps reports apart",
        )
    elif there:
        good = f"the {len(there)} files in {folder} have the sha256 that the capsule names"
        bad = "files in the report's folder are not as they were written with it"
        yield check_of("files beside it", good, bad, [f"{there[name]} was changed" for name in changed])


LATER = "of a later report"


def _of_later_report(folder: Path, shown: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of the files in a folder by an index that is of a later report, which names no capsule's."""
    try:
        index = (folder / "index.md").read_bytes()
    except OSError:
        return {}
    listed = re.findall(r"^([0-9a-f]{64})  (.+)$", index.decode(errors="replace"), re.MULTILINE)
    of_files = {name: digest for digest, name in listed}
    return {CAPSULE: LATER, **of_files} if of_files and sha256(index) != shown.get("index.md") else {}


def _tables(report: ReportFile, capsule: Capsule) -> ReportCheck:
    known = {table.anchor: table for table in capsule.head.shown.tables}
    problems = [f"{anchor} is not in the capsule" for anchor in report.tables if anchor not in known]
    for anchor, table in known.items():
        if anchor not in report.tables:
            problems.append(f"{anchor} (table {table.number}) is missing")
        elif cells_digest(report.tables[anchor]) != table.cells:
            problems.append(f"{anchor} (table {table.number}) was changed")
    good = f"the {len(known)} tables of the page have the sha256 that the capsule names"
    return check_of("tables as shown", good, "tables of the page were changed", problems)


def _data(report: ReportFile, capsule: Capsule) -> ReportCheck:
    files = {digest for name, digest in capsule.head.shown.files.items() if name.endswith(".csv")}
    known = files | {table.csv for table in capsule.head.shown.tables}
    texts = [(where, text) for where, listed in report.data.items() for text in listed]
    changed = {where for where, text in texts if sha256(text.encode()) not in known}
    good = f"the {len(texts)} data sets behind tables and figures have the sha256 that the capsule names"
    return check_of("data in the page", good, "data behind tables or figures were changed", sorted(changed))


def _files(report: ReportFile, capsule: Capsule) -> ReportCheck:
    """Compare the PDF's attachments with those that the capsule names; the PDF writes paths with hyphens."""
    shown = {name.replace("/", "-"): digest for name, digest in capsule.head.shown.files.items()}
    there = {name: content for name, content in report.files.items() if name != CAPSULE}
    kinds = {PurePosixPath(name).suffix for name in there}
    missing = [name for name in shown if name not in there and PurePosixPath(name).suffix in kinds]
    problems = [*_changed(shown, there), *(f"{name} is missing" for name in missing)]
    good = f"the {len(there)} attachments have the sha256 that the capsule names"
    return check_of("attachments", good, "attachments were changed", problems)


def _changed(named: Mapping[str, str], there: Mapping[str, bytes]) -> list[str]:
    problems = [f"{name} was changed" for name in named if name in there and sha256(there[name]) != named[name]]
    return [*problems, *(f"{name} is not in the capsule's list" for name in there if name not in named)]


MOST_CONDITIONS = 5000
"""A study of strangers with more combinations of levels is not planned anew."""


def consistency_checks(capsule: Capsule) -> Iterator[ReportCheck]:
    """Yield whether a capsule fits itself: the keys of conditions by their settings, the seeds of trials by repeat."""
    pairs = list(zip(capsule.head.studies, capsule.studies, strict=True))
    grid = [(c, study.seed) for described, study in pairs for c in described.conditions if c.kind == "grid"]
    checked = [(condition, seed) for condition, seed in grid if HOME not in str(condition.settings)]
    problems = [f"{c.label}: key {c.key}" for c, seed in checked if not _fits(c, seed)]
    good = f"the keys of {count(len(checked), 'condition')} follow from their settings"
    yield check_of("settings", good, "conditions have settings that do not give their key", problems)
    yield from _planned(pairs)
    wrong, trials = [], 0
    for study, listed in zip(capsule.studies, capsule.trials, strict=True):
        trials += len(listed)
        wrong += [
            f"trial {trial.number} ({trial.phase} {trial.index})" for trial in listed if not _seeded(trial, study.seed)
        ]
    yield check_of(
        "seeds", f"the seeds of {count(trials, 'trial')} follow from the study's", "trials have other seeds", wrong
    )


def _planned(pairs: list[tuple[CapsuleStudy, Study]]) -> Iterator[ReportCheck]:
    """Yield whether the study files describe the conditions that were trained."""
    problems, count = [], 0
    for described, study in pairs:
        if math.prod(len(factor.levels) for factor in study.factors) > MOST_CONDITIONS:
            reason = f"{described.name} has more combinations of levels than are looked at"
            yield ReportCheck(name="study files", state="unchecked", told=reason)
            continue
        try:
            planned = {condition.key for condition in make_plan(study).conditions}
        except StudyError as error:  # a sweep with --only trains some of a study that is no plan as a whole
            yield ReportCheck(name="study files", state="unchecked", told=error.what)
            continue
        levels = {factor.path: {level.label for level in factor.levels} for factor in study.factors}
        for one in described.conditions:
            # Levels that the study lacks were asked for with --only.
            asked = any(label not in levels.get(path, ()) for path, label in one.levels.items())
            if one.kind == "confirm-best" or asked or HOME in str(one.settings):
                continue
            count += 1
            problems += [f"{described.name}: {one.label}"] if one.key not in planned else []
    good = f"the study files describe {count} of the conditions that were trained"
    yield check_of("study files", good, "conditions do not follow from the study file of the capsule", problems)


def _fits(condition: Condition, seed: int) -> bool:
    try:
        return fingerprint(typed_settings(condition.settings, seed)) == condition.key
    except StudyError:
        return False


def _seeded(trial: CapsuleTrial, seed: int) -> bool:
    derived = trial_seeds(seed, trial.phase, trial.index)
    return all(derived.get(purpose) == recorded for purpose, recorded in trial.seeds.items())
