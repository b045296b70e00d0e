"""A ledger that is only looked at, beside the sweeps that write it: no byte of it changes, no lock is taken."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import optuna
from optuna.trial import FrozenTrial

from benchkit.errors import LedgerError
from benchkit.ledger.files import TrialFolder
from benchkit.ledger.leases import LEASE, Sweep
from benchkit.ledger.ledger import Ledger, optuna_name
from benchkit.ledger.opening import Patience, is_on_server, open_read_only
from benchkit.plan import Condition
from benchkit.results import Trial
from benchkit.study import Study


class SeenFolder(TrialFolder):
    """The files of a trial that is only looked at."""

    __slots__ = ()

    def owned(self) -> bool:
        """Return whether a trial of a version without leases wrote something lately: its lock is not touched."""
        try:
            return time.time() - (self.path / "history.jsonl").stat().st_mtime < 10 * LEASE
        except OSError:
            return False


class LedgerReader(Ledger):
    """A workspace's trials as they stand. What a finished trial left is read once, and kept.

    Whether a sweep lives is told by its lease alone, as this process sees no locks.
    """

    def __init__(self, workspace: Path, storage: str | None = None) -> None:
        """Look at the ledger of `workspace`, or at the `storage` of this URL; raise `LedgerError` where none is."""
        self.workspace = workspace
        self.on_server = is_on_server(storage)
        self.place = ""
        self.lease = LEASE
        self.patience = Patience(0.0)
        self._holders, self._handles, self._folders = {}, {}, {}
        self._read: dict[tuple[Path, str], Trial] = {}
        file = workspace / "ledger.db"
        if not storage and not file.is_file():
            raise LedgerError(
                f"{workspace}: there is no ledger here",
                hint="name its folder with --workspace, or run benchkit sweep first",
            )
        self.storage = open_read_only(storage, file)

    def folder(self, study: Study, condition: Condition, number: int) -> TrialFolder:
        """Return the folder of an Optuna trial of a condition, whose lock is never taken."""
        return SeenFolder(super().folder(study, condition, number).path)

    def _create(self, study: Study, condition: Condition) -> optuna.Study:
        return optuna.load_study(study_name=optuna_name(study, condition), storage=self.storage)

    def read_trial(
        self,
        study: Study,
        condition: Condition,
        frozen: FrozenTrial,
        sweeps: Mapping[str, Sweep] = MappingProxyType({}),
    ) -> Trial:
        """Return a trial as it stands now; one that has ended as it was when it was first read."""
        key = self.folder(study, condition, frozen.number).path, condition.key
        if key in self._read:
            return self._read[key]
        trial = super().read_trial(study, condition, frozen, sweeps)
        if frozen.state.is_finished() and trial.state not in ("missing files", "changed files", "files elsewhere"):
            self._read[key] = trial
        return trial
