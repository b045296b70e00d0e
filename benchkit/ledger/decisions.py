"""What is decided once for a study and holds for all its trials: one record in the ledger for each, by name.

Whoever continues the study, reports it or checks its report reads the record; the first sweep's word stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import optuna

from benchkit import __version__
from benchkit.errors import LedgerError
from benchkit.ledger.ledger import Ledger
from benchkit.ledger.opening import storage_errors
from benchkit.results import Decision
from benchkit.storage import decode, encode, write_atomically

DECISIONS_FILE = "decisions.json"
"""The file in the folder of a study's trials from which a lost ledger has its decisions again."""

PREFIX = "decided "
"""What the names of the records in the ledger begin with."""


@storage_errors()
def decisions_of(ledger: Ledger, study: str) -> dict[str, Decision]:
    """Return what is decided of a study, by name; nothing of a study that is not registered."""
    return ledger.patience(lambda: _decisions(ledger, study))


def _decisions(ledger: Ledger, study: str) -> dict[str, Decision]:
    if study not in optuna.get_all_study_names(ledger.storage):
        return {}
    return _read(optuna.load_study(study_name=study, storage=ledger.storage).user_attrs)


def _read(attributes: Mapping[str, object]) -> dict[str, Decision]:
    records = {key: attributes[key] for key in sorted(attributes) if key.startswith(PREFIX)}
    return {key.removeprefix(PREFIX): decode(Decision, value, key, error=LedgerError) for key, value in records.items()}


@storage_errors()
def decide(ledger: Ledger, study: str, name: str, value: str, why: str) -> Decision:
    """Return what is decided: the ledger's record where it has one, else this value, recorded from now on.

    The study must be registered.
    """
    return ledger.patience(lambda: _decide(ledger, study, name, value, why))


def _decide(ledger: Ledger, study: str, name: str, value: str, why: str) -> Decision:
    with ledger.alone():
        known = decisions_of(ledger, study).get(name)
        if known is None:
            known = Decision(name=name, value=value, why=why, version=__version__)
            entry = optuna.load_study(study_name=study, storage=ledger.storage)
            entry.set_user_attr(f"{PREFIX}{name}", encode(known))
            decided = {key: value for key, value in entry.user_attrs.items() if key.startswith(PREFIX)}
            folder = ledger.workspace / "trials" / entry.user_attrs["folder"]
            write_atomically(folder / DECISIONS_FILE, json.dumps(decided).encode())
    return known


def refuse_otherwise(ledger: Ledger, study: str, name: str, asked: str, option: str) -> None:
    """Raise `LedgerError` when a study's record says otherwise than `option` asks for, both named."""
    known = decisions_of(ledger, study).get(name)
    if known is not None and known.value != asked:
        raise LedgerError(
            f"{option}: {study} has been decided to have the {name} {known.value!r} ({known.why}; benchkit "
            f"{known.version}), asked for is {asked!r}",
            hint="leave the option out, or choose a new --workspace: it holds for all trials of a study",
        )
