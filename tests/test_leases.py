"""Who holds a trial: leases by the database's clock, changed hands once, and told under a number that grows."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sqlalchemy import update
from tiny_study import PATIENCE, queue_of, study_of

from benchkit.ledger import Ledger, leases
from benchkit.ledger.claims import Claim, Queue
from benchkit.ledger.leases import KEPT, LEASE, Holder, sweeps_of
from benchkit.ledger.tables import STUDY_ATTRIBUTES
from benchkit.results import Outcome


def elsewhere(workspace: Path, **more: Any) -> Ledger:
    """Return a workspace's ledger as a machine sees it that has none of our locks and processes."""
    ledger = Ledger(workspace, **more)
    ledger.place = "elsewhere"
    return ledger


def test_each_hand_out_of_a_trial_has_a_greater_lease(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    leases = []
    for _ in range(3):
        claim = queue.next()
        assert claim is not None and claim.holds()
        leases.append(claim.lease)
        claim.release()
        assert not claim.holds()
    assert leases == [1, 2, 3]
    claim = queue.next()
    assert claim is not None and claim.finish(Outcome(state="failed", reason="x"))
    (trial,) = ledger.open(plan.study, plan.conditions[0]).trials
    assert trial.user_attrs["lease"] == {"number": 4, "owner": ""}


def test_what_the_holder_of_an_older_lease_tells_changes_nothing(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    old = queue.next()
    assert old is not None
    old.release()
    new = queue.next()
    assert new is not None and new.lease == old.lease + 1
    assert not old.note("starts", 1) and not old.finish(Outcome(state="failed", reason="late"))
    assert new.folder.read_outcome() is None and "starts" not in new.trial.user_attrs
    assert new.note("starts", 2)
    assert new.finish(Outcome(state="failed", reason="x"))
    assert ledger.open(plan.study, plan.conditions[0]).trials[0].user_attrs["starts"] == 2
    (trial,) = ledger.trials(plan)
    assert trial.outcome == Outcome(state="failed", reason="x")


def test_a_sweep_elsewhere_holds_its_trials_for_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEWALS", 60_000)  # a lease is renewed again at once, as where its time has come
    _, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    other = elsewhere(tmp_path)
    old = queue.next()
    assert old is not None
    assert Queue(other, plan).next() is None
    assert other.states(plan)["running"] == 1
    run_out(old)
    assert other.states(plan)["stale"] == 1
    new = Queue(other, plan).next()
    assert new is not None and new.lease == 2
    assert not old.holds() and not old.finish(Outcome(state="failed", reason="late"))
    assert new.finish(Outcome(state="failed", reason="x"))


def run_out(claim: Claim, ago: float = 1.0) -> None:
    """Let the lease of a claim's sweep be over, as when it was stopped for that long, and it does not know yet."""
    holder = claim._held.holder
    holder._ended.set()  # its thread would renew the lease
    holder._thread.join()
    with holder._storage.engine.begin() as connection:
        text = json.dumps({"until": time.time() - ago, "place": holder.place})
        connection.execute(update(STUDY_ATTRIBUTES).where(holder._record(holder.id)).values(value_json=text))
    holder._until = 1.0


def test_a_sweep_that_slept_keeps_what_nobody_took(tmp_path: Path) -> None:
    _, plan, queue = queue_of(tmp_path, study_of(repeats=2))
    first, second = queue.next(), queue.next()
    assert first is not None and second is not None
    run_out(first)
    taken = Queue(elsewhere(tmp_path), plan).next()
    assert taken is not None and taken.trial.number == first.trial.number
    assert (first.holds(), second.holds()) == (False, True)
    assert Queue(elsewhere(tmp_path), plan).next() is None


def test_a_sweep_that_wakes_up_before_another_takes_its_trial_keeps_it(tmp_path: Path) -> None:
    _, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    old = queue.next()
    assert old is not None
    run_out(old)
    other = Queue(elsewhere(tmp_path), plan)
    other._seen.extend(other._look())
    assert old.holds()  # its record is renewed
    assert other.next() is None and old.finish(Outcome(state="failed", reason="x"))


def test_a_trial_that_was_filled_since_it_was_seen_is_not_taken(tmp_path: Path) -> None:
    """As a merge fills those that wait, without a lease."""
    ledger, plan, _ = queue_of(tmp_path, study_of(repeats=1))
    (seen,) = ledger.attempts_at(plan.study, plan.conditions[0])
    for state in (TrialState.RUNNING, TrialState.FAIL):
        ledger.storage.set_trial_state_values(seen._trial_id, state)
    assert ledger.holder(plan.study).take(seen) is None
    assert ledger.storage.get_trial(seen._trial_id).state is TrialState.FAIL


def test_one_of_many_takes_a_trial(tmp_path: Path) -> None:
    _, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    old = queue.next()
    assert old is not None
    run_out(old)
    queues = [Queue(elsewhere(tmp_path), plan) for _ in range(8)]
    for other in queues:
        other._seen.extend(other._look())  # all have seen the stale trial
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda one: one.next(), queues))
    assert [claim.lease for claim in claims if claim] == [2]


def test_one_of_many_starts_a_trial_where_locks_keep_nobody_out(tmp_path: Path) -> None:
    _, plan, _ = queue_of(tmp_path, study_of(repeats=5))
    queues = []
    for _ in range(4):
        ledger = Ledger(tmp_path)
        ledger.place = ""
        queues.append(Queue(ledger, plan))
        queues[-1]._seen.extend(queues[-1]._look())

    def take(one: Queue) -> list[int]:
        taken = []
        while claim := one.next():
            taken.append(claim.index)
            claim.finish(Outcome(state="failed", reason="x"))
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [index for each in pool.map(take, queues) for index in each]
    assert sorted(taken) == [0, 1, 2, 3, 4]


def test_a_trial_that_a_version_without_leases_left_is_taken(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    (trial,) = ledger.attempts_at(plan.study, plan.conditions[0])
    ledger.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    claim = queue.next()
    assert claim is not None and claim.lease == 1


def test_a_lease_is_renewed_until_nobody_uses_its_sweep(tmp_path: Path) -> None:
    ledger, plan, _ = queue_of(tmp_path, study_of(repeats=1))

    def until(holder_id: str) -> float:
        return float(json.loads(sweeps_of(ledger.storage, plan.study.name, "")[holder_id].text)["until"])

    holder = Holder(ledger.storage, plan.study.name, "here", 0.2)
    first, deadline, name, thread = until(holder.id), time.monotonic() + PATIENCE, holder.id, holder._thread
    while until(name) <= first and time.monotonic() < deadline:
        time.sleep(0.01)
    assert until(name) > first
    del holder
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_records_of_sweeps_that_ended_long_ago_are_removed(tmp_path: Path) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(repeats=2))
    old = queue.next()
    assert old is not None
    run_out(old, KEPT + 1)
    Holder(ledger.storage, plan.study.name, "here")
    assert old._held.holder.id not in sweeps_of(ledger.storage, plan.study.name, "")


def test_times_are_those_of_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, plan, queue = queue_of(tmp_path, study_of(repeats=1))
    monkeypatch.setattr("benchkit.ledger.leases.now_of", lambda connection: 1_700_000_000.0)
    claim = queue.next()
    assert claim is not None
    claim.finish(Outcome(state="failed", reason="x"))
    (trial,) = ledger.trials(plan)
    assert (trial.started, trial.finished) == (1_700_000_000.0, 1_700_000_000.0)


def test_a_sweep_that_slept_lets_others_wake_up_before_it_takes_their_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a time in which the database was away for all of them."""
    _, plan, queue = queue_of(tmp_path, study_of(repeats=2))
    other = elsewhere(tmp_path)
    theirs, ours = queue.next(), Queue(other, plan).next()
    assert theirs is not None and ours is not None
    run_out(theirs)
    run_out(ours)
    assert Queue(other, plan).next() is None
    assert ours.holds()  # its record is renewed
    assert Queue(other, plan).next() is None
    now = leases._ticks()
    monkeypatch.setattr(leases, "_ticks", lambda: now + LEASE / 2)
    taken = Queue(other, plan).next()
    assert taken is not None and taken.trial.number == theirs.trial.number
