"""What can go from a workspace: files of ended trials that no report, check, resume or export needs any more.

All is decided from the ledger at that moment. What waits, runs or was interrupted keeps everything, and so does what no
trial left. Imports no torch.
"""

from __future__ import annotations

import math
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchkit.analysis.candidates import sweep_command
from benchkit.analysis.estimates import best_repeats_metric
from benchkit.errors import LedgerError
from benchkit.ledger.ledger import Ledger
from benchkit.ledger.readback import results_of
from benchkit.ledger.trials import TrialFolder, removed_files, write_removed
from benchkit.metrics import metric_of
from benchkit.results import StudyResults, Trial

KEPT_BEST = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """One file that can go: the trial's study, condition (label) and folder, the file's name and bytes, and why."""

    study: str
    condition: str
    folder: Path
    name: str
    size: int
    why: str

    @property
    def path(self) -> Path:
        """Return the file's path."""
        return self.folder / self.name


def removables(ledger: Ledger, studies: Sequence[str] = (), keep_best: int = KEPT_BEST) -> tuple[Removable, ...]:
    """Return what can go of some studies, all by default, in the ledger's order.

    Of a done trial that is its log, its trace, a checkpoint, and its weights, but for those of the `keep_best` best
    done trials of each condition by the study's goal on validation; equal scores stay together, and NaN is never best.
    Of a pruned one it is log and checkpoint. Links, and files in linked folders, are not looked at.

    Raises `LedgerError` for a study that the ledger does not hold.
    """
    return tuple(
        file
        for name in studies or ledger.studies()
        for file in _of_study(ledger.workspace, results_of(ledger, name, upcoming=True), keep_best)
    )


def clean(ledger: Ledger, files: Sequence[Removable], keep_best: int = KEPT_BEST) -> tuple[Removable, ...]:
    """Remove files, those alone that can still go, and return them; what goes is written down before it does.

    Raises `LedgerError` when a file cannot be removed, with its name.
    """
    studies = tuple(dict.fromkeys(file.study for file in files))
    still = {(file.path, file.size) for file in removables(ledger, studies, keep_best)} if studies else set()
    gone = [file for file in files if (file.path, file.size) in still]
    by_folder = defaultdict(list)
    for file in gone:
        by_folder[file.folder].append(file)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for folder, own in by_folder.items():
        try:
            write_removed(folder, {**removed_files(folder), **dict.fromkeys((file.name for file in own), now)})
            for file in own:
                file.path.unlink()
        except OSError as error:
            raise LedgerError(
                f"{folder}: cannot be cleaned: {error}", hint="nothing that is needed was removed"
            ) from error
    return tuple(gone)


def _of_study(workspace: Path, results: StudyResults, keep_best: int) -> Iterator[Removable]:
    kept = _best(results, keep_best)
    for trial in (*results.trials, *results.earlier):
        names = {}
        folder = TrialFolder(trial.folder)
        if trial.state in ("done", "pruned"):
            names = {folder.log: "log", folder.checkpoint: "checkpoint"}
        if trial.state == "done":
            names[folder.trace] = "trace"
            if (trial.condition.key, trial.number) not in kept:
                names[folder.weights] = f"weights beyond the best {keep_best}" if keep_best else "weights"
        for path, why in names.items():
            size = _own_size(workspace, path)
            if size is not None:
                yield Removable(
                    study=results.study.name,
                    condition=trial.condition.display_label,
                    folder=trial.folder,
                    name=path.name,
                    size=size,
                    why=why,
                )


def _best(results: StudyResults, keep_best: int) -> set[tuple[str, int]]:
    """Return condition key and number of the trials whose weights stay."""
    by_condition = defaultdict(list)
    for trial in (*results.trials, *results.earlier):
        if (score := val_score(results, trial)) is not None:
            by_condition[trial.condition.key].append((score, trial.number))
    kept = set()
    for key, scored in by_condition.items():
        limit = sorted(score for score, _ in scored)[:keep_best]
        kept |= {(key, number) for score, number in scored if limit and score <= limit[-1]}
    return kept


def val_score(results: StudyResults, trial: Trial) -> float | None:
    """Return by what a done trial is the best of its condition on validation, less is better; None without a number."""
    if trial.state != "done":
        return None
    metric = best_repeats_metric(results, trial.condition)
    score = trial.value(metric)
    if score is None or math.isnan(score):
        return None
    return score if metric_of(metric).lower_is_better else -score


def _own_size(workspace: Path, path: Path) -> int | None:
    """Return the bytes of a plain file whose folders, from the workspace down, are no links; else None."""
    try:
        between = path.relative_to(workspace).parents
        if any(stat.S_ISLNK(os.lstat(workspace / folder).st_mode) for folder in between if folder != Path()):
            return None
        facts = os.lstat(path)
    except (OSError, ValueError):
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def removed_words(results: StudyResults) -> str:
    """Return in words what `clean` took from the trials of a study, when, and how it comes back; empty without any."""
    found = [
        (name, when)
        for trial in (*results.trials, *results.earlier)
        for name, when in removed_files(trial.folder).items()
    ]
    if not found:
        return ""
    days = sorted({when[:10] for _, when in found})
    names = sorted({name for name, _ in found})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"removed by benchkit clean on {span}: {len(found)} files ({', '.join(names)}); the same come back by training "
        f"in another workspace: {sweep_command(results, workspace='OTHER')}"
    )
