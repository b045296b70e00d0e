"""What the ledger queues, remembers and tells, without training anything."""

from __future__ import annotations

import gc
import os
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from tiny_study import (
    FACTOR,
    METRICS,
    SEARCH,
    command,
    environment,
    finish_all,
    optunas_storage,
    study_of,
    write,
)

from benchkit.errors import LedgerError
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.claims import Claim, Queue
from benchkit.ledger.ledger import Attempts
from benchkit.ledger.readback import confirm_conditions, results_of
from benchkit.plan import Plan, make_plan
from benchkit.results import Outcome
from benchkit.study import Study

FACTS = {"class_names": ["a", "b"], "sets": []}


def queued(workspace: Path, study: Study, **only: list[str]) -> tuple[Ledger, Plan]:
    ledger, plan = Ledger(workspace), make_plan(study, only={"train.optimizer.lr": only["lr"]} if only else None)
    ledger.register(plan, FACTS, "benchkit sweep tiny")
    ledger.enqueue(plan)
    return ledger, plan


def test_missing_trials_are_queued_once(tmp_path: Path) -> None:
    ledger, plan = queued(tmp_path, study_of(FACTOR))
    assert ledger.states(plan) == {"waiting": 4, "missing": 0}
    assert ledger.enqueue(plan) == 0
    more = make_plan(study_of(FACTOR, repeats=5))
    assert ledger.states(more) == {"waiting": 4, "missing": 6}
    assert ledger.enqueue(more) == 6


def test_a_study_is_there_from_its_first_condition_on(tmp_path: Path) -> None:
    """A sweep that was killed while it registered a study, and a ledger half rebuilt, have conditions alone."""
    ledger, plan = Ledger(tmp_path), make_plan(study_of(FACTOR))
    assert not ledger.has(plan.study)
    ledger.open(plan.study, plan.conditions[0])
    assert ledger.has(plan.study)
    assert not any(ledger.has(replace(plan.study, name=name)) for name in ("tin", "tiny2", plan.conditions[0].label))
    ledger.register(make_plan(study_of(SEARCH, name="other")), FACTS, "benchkit sweep other")
    assert ledger.has(replace(plan.study, name="other"))


def test_raising_a_searchs_total_adds_the_difference(tmp_path: Path) -> None:
    ledger, plan = queued(tmp_path, study_of(SEARCH))
    finish_all(ledger, plan)
    more = make_plan(study_of(SEARCH.replace("trials = 4", "trials = 7")))
    assert ledger.enqueue(more) == 3
    assert ledger.states(more) == {"done": 6, "waiting": 3, "missing": 0}


@pytest.mark.parametrize("state", ["failed", "diverged", "pruned"])
def test_retry_queues_a_new_attempt_and_the_latest_counts(tmp_path: Path, state: str) -> None:
    ledger, plan = queued(tmp_path, study_of(FACTOR, repeats=1))
    finish_all(ledger, plan, lambda claim: Outcome(state=state, reason="x") if claim.index == 0 else None)  # type: ignore[arg-type]
    assert ledger.states(plan) == {state: 2, "missing": 0}
    assert ledger.enqueue(plan) == 0
    assert ledger.enqueue(plan, ["done"]) == 0
    assert ledger.enqueue(plan, [state]) == 2  # type: ignore[list-item]
    assert ledger.states(plan) == {"waiting": 2, "missing": 0}
    finish_all(ledger, plan)
    assert ledger.states(plan) == {"done": 2, "missing": 0}
    assert [trial.attempt for trial in results_of(ledger).trials] == [1, 1]


def test_results_hold_what_was_recorded(tmp_path: Path) -> None:
    study = study_of(FACTOR, repeats=2)
    ledger, plan = queued(tmp_path, study)
    finish_all(ledger, plan)
    results = read_results(tmp_path)
    assert results.study == study and results.conditions == plan.conditions
    assert (results.class_names, results.command, results.left_out) == (("a", "b"), "benchkit sweep tiny", ())
    assert [(t.condition.label, t.index, t.state, t.phase) for t in results.trials] == [
        ("0.1", 0, "done", "grid"), ("0.1", 1, "done", "grid"), ("0.3", 0, "done", "grid"), ("0.3", 1, "done", "grid"),
    ]  # fmt: skip
    assert results.trials[0].score("val.loss") == METRICS.loss
    assert results.trials[0].finished >= results.trials[0].started > 0


def test_optunas_own_interface_opens_the_ledger(tmp_path: Path) -> None:
    ledger, plan = queued(tmp_path, study_of(SEARCH))
    finish_all(ledger, plan)
    with optunas_storage(tmp_path) as storage:
        names = optuna.get_all_study_names(storage)
        searched = next(name for name in names if name.startswith("tiny/default, search@"))
        opened = optuna.load_study(study_name=searched, storage=storage)
        assert len(opened.trials) == 4 and opened.best_value == METRICS.loss
        assert opened.trials[0].user_attrs["outcome"]["val.accuracy"] == METRICS.accuracy
        assert set(opened.trials[0].params) == {"train.optimizer.lr"}


def test_a_changed_study_leaves_old_trials_out_and_says_so(tmp_path: Path) -> None:
    finish_all(*queued(tmp_path, study_of(FACTOR)))
    queued(tmp_path, study_of(FACTOR, epochs=4))
    results = read_results(tmp_path)
    assert {trial.state for trial in results.trials} == {"waiting"}
    assert [line.partition(" (key")[0] for line in results.left_out] == [
        "0.1: 2 finished trials of another version of this study",
        "0.3: 2 finished trials of another version of this study",
    ]
    queued(tmp_path, study_of(FACTOR))
    back = read_results(tmp_path)
    assert {trial.state for trial in back.trials} == {"done"} and back.left_out == ()


def test_fewer_repeats_leave_the_surplus_out_and_say_so(tmp_path: Path) -> None:
    finish_all(*queued(tmp_path, study_of(FACTOR, repeats=3)))
    queued(tmp_path, study_of(FACTOR, repeats=1))
    results = read_results(tmp_path)
    assert [trial.index for trial in results.trials] == [0, 0]
    assert results.left_out == tuple(
        f"{label}: 2 finished trials beyond the 1 that the study asks for" for label in ("0.1", "0.3")
    )


def test_only_adds_to_a_study_and_takes_nothing_from_it(tmp_path: Path) -> None:
    study = study_of(FACTOR)
    queued(tmp_path, study, lr=["0.3"])
    assert [c.label for c in read_results(tmp_path).conditions] == ["0.3"]
    queued(tmp_path, study)
    queued(tmp_path, study, lr=["0.3"])
    assert [c.label for c in read_results(tmp_path).conditions] == ["0.1", "0.3"]


def test_a_level_that_only_named_stays_until_the_study_changes(tmp_path: Path) -> None:
    study = study_of('[factors]\n"model.norm" = ["bn", "gn"]\n')
    ledger = Ledger(tmp_path)
    for one, only in ((study, {"model.norm": ["ln"]}), (study, None)):
        ledger.register(make_plan(one, only=only), FACTS, "")
    assert [c.label for c in read_results(tmp_path).conditions] == ["bn", "gn", "ln"]
    ledger.register(make_plan(replace(study, title="Other")), FACTS, "")
    assert [c.label for c in read_results(tmp_path).conditions] == ["bn", "gn"]


def test_several_studies_share_a_workspace_and_the_latest_is_the_default(tmp_path: Path) -> None:
    finish_all(*queued(tmp_path, study_of(FACTOR, name="first")))
    finish_all(*queued(tmp_path, study_of(FACTOR, name="second")))
    assert Ledger(tmp_path).studies() == ("second", "first")
    assert read_results(tmp_path).study.name == "second"
    assert read_results(tmp_path, "first").study.name == "first"
    with pytest.raises(LedgerError, match=r"no study 'frist' \(did you mean 'first'\?\)"):
        read_results(tmp_path, "frist")


def test_smoke_results_never_mix_with_real_ones(tmp_path: Path) -> None:
    finish_all(*queued(tmp_path, study_of(FACTOR)))
    finish_all(*queued(tmp_path, study_of(FACTOR, smoke=True)))
    real, smoke = read_results(tmp_path, "tiny"), read_results(tmp_path, "tiny-smoke")
    assert {t.condition.key for t in real.trials}.isdisjoint({t.condition.key for t in smoke.trials})
    assert (real.left_out, smoke.left_out, smoke.study.smoke) == ((), (), True)


def losses(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def searched(workspace: Path, values: dict[int, float]) -> tuple[Ledger, Plan]:
    ledger, plan = queued(workspace, study_of(SEARCH))

    def outcome(claim: object) -> Outcome | None:
        if claim.phase != "search":  # type: ignore[attr-defined]
            return None
        return Outcome(state="done", metrics={"val": replace(METRICS, loss=values[claim.index])})  # type: ignore[attr-defined]

    finish_all(ledger, plan, outcome)
    return ledger, plan


def test_the_best_of_a_search_is_confirmed(tmp_path: Path) -> None:
    ledger, plan = searched(tmp_path, losses(0.5, 0.2, 0.4, 0.2))
    (confirm,) = confirm_conditions(ledger, plan)
    trials = {trial.index: trial for trial in ledger.trials(plan) if trial.phase == "search"}
    assert confirm.chosen == trials[1].params and confirm.kind == "confirm-best"  # the first of equals
    assert confirm_conditions(ledger, plan, finished=True) == (confirm,)
    assert ledger.enqueue(Plan(study=plan.study, conditions=(*plan.conditions, confirm))) == 2
    assert [c.label for c in results_of(ledger).conditions] == ["default", "search", "best of search"]


def test_a_best_that_is_the_default_is_not_trained_again(tmp_path: Path) -> None:
    ledger, plan = searched(tmp_path, losses(0.1, 0.2, 0.4, 0.2))
    assert next(t for t in ledger.trials(plan) if t.phase == "search").params == {"train.optimizer.lr": 0.1}
    assert confirm_conditions(ledger, plan) == ()


def test_an_unfinished_search_is_told_from_a_finished_one(tmp_path: Path) -> None:
    ledger, _ = searched(tmp_path, losses(0.5, 0.2, 0.4, 0.2))
    more = make_plan(study_of(SEARCH.replace("trials = 4", "trials = 5")))
    assert len(confirm_conditions(ledger, more)) == 1
    assert confirm_conditions(ledger, more, finished=True) == ()


def test_a_best_that_was_overtaken_is_left_out_with_the_reason(tmp_path: Path) -> None:
    ledger, plan = searched(tmp_path, losses(0.5, 0.2, 0.4, 0.3))
    confirms = Plan(study=plan.study, conditions=confirm_conditions(ledger, plan))
    ledger.enqueue(confirms)
    finish_all(ledger, confirms)
    more = make_plan(study_of(SEARCH.replace("trials = 4", "trials = 5")))
    ledger.register(more, FACTS, "")
    ledger.enqueue(more)
    finish_all(ledger, more, lambda claim: Outcome(state="done", metrics={"val": replace(METRICS, loss=0.01)}))
    (line,) = read_results(tmp_path).left_out
    assert line.startswith("best of search: 2 finished trials of what was the best of its search at the time")


def test_the_best_of_fewer_trials_is_confirmed_where_fewer_are_asked_for(tmp_path: Path) -> None:
    ledger, plan = searched(tmp_path, losses(0.5, 0.4, 0.3, 0.2))
    trials = {trial.index: trial for trial in ledger.trials(plan) if trial.phase == "search"}
    fewer = make_plan(study_of(SEARCH.replace("trials = 4", "trials = 2")))
    assert confirm_conditions(ledger, fewer)[0].chosen == trials[1].params
    assert confirm_conditions(ledger, plan)[0].chosen == trials[3].params


def test_a_goal_to_maximise_has_its_best_at_the_top(tmp_path: Path) -> None:
    text = SEARCH.replace('sampler = "tpe"', 'sampler = "tpe"\ngoal = "val.accuracy"')
    ledger, plan = queued(tmp_path, study_of(text))
    finish_all(
        ledger, plan, lambda claim: Outcome(state="done", metrics={"val": replace(METRICS, accuracy=claim.index / 10)})
    )
    (confirm,) = confirm_conditions(ledger, plan)
    trials = {trial.index: trial for trial in ledger.trials(plan) if trial.phase == "search"}
    assert confirm.chosen == trials[3].params


def test_a_workspace_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="the workspace cannot be written") as caught:
        Ledger(tmp_path / "file" / "runs")
    assert "--workspace" in caught.value.hint


def test_reading_leaves_a_workspace_as_it_is(tmp_path: Path) -> None:
    ledger, plan = queued(tmp_path, study_of(FACTOR))
    finish_all(ledger, plan)
    for name in ("workspace.id", "place.lock", "open.lock"):
        (tmp_path / name).unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert read_results(tmp_path).trials
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(LedgerError, match="there is no ledger here"):
        read_results(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_workspace_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LedgerError, match="the workspace cannot be written"):
        Ledger(tmp_path)


@pytest.fixture
def never_written(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A workspace that may only be read, and what a command is begun by for which that holds: also one of root's.

    Two of its trials have ended, a third one is running.
    """
    runs = tmp_path / "runs"
    ledger, plan = queued(runs, study_of(repeats=2))
    finish_all(ledger, plan)
    running = Queue(*queued(runs, study_of(repeats=3))).next()
    assert running is not None
    mounted = 'mount --bind runs runs && mount -o remount,ro,bind runs runs && exec "$@"'
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, "sh"] if os.getuid() == 0 else []
    if apart and subprocess.run([*apart, "true"], cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("root can be kept from writing only by a mount of its own")
    modes = {} if apart else {path: path.stat().st_mode for path in (runs, *runs.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    yield runs, apart
    for path, mode in modes.items():
        path.chmod(mode)
    running.release()


def test_what_may_only_be_read_is_read(tmp_path: Path, never_written: tuple[Path, list[str]]) -> None:
    """As a snapshot or another user's workspace is."""
    runs, apart = never_written
    before = sorted(path.name for path in runs.rglob("*"))

    def run(*arguments: object) -> tuple[int, str]:
        done = subprocess.run(
            [*apart, *command(*arguments)], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    code, said = run("status", "-w", "runs")
    assert code == 0 and "2 done, 1 running" in said
    code, said = run("merge", "runs", "-w", "mine")
    assert (code, said) == (0, "tiny: 2 trials taken in\n")
    code, said = run("sweep", write(tmp_path / "tiny.toml", repeats=4), "-w", "runs", "--jobs", 1)
    assert code == 2 and "runs: the workspace cannot be written" in said
    assert sorted(path.name for path in runs.rglob("*")) == before


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "no-such-dialect://x/y",
        "sqlite:////no/such/folder/x.db",
        "postgresql+nodriver://me:secret@h/d",
        "postgresql+nodriver://me:a/secret@h/d",
        "postgresql+nodriver://h/d?user=me&password=secret&sslmode=require",
    ],
)
def test_a_storage_that_cannot_be_opened_is_told_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(LedgerError, match="the ledger cannot be opened") as caught:
        Ledger(tmp_path, url)
    assert "secret" not in str(caught.value) and "--storage" in caught.value.hint


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database" * 100)
    with pytest.raises(LedgerError, match="the ledger cannot be opened"):
        Ledger(tmp_path)
    with warnings.catch_warnings():  # Optuna forgets the connection to what it cannot open
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_an_absent_ledger_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger here"):
        read_results(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    Ledger(tmp_path)
    with pytest.raises(LedgerError, match="holds no studies yet"):
        read_results(tmp_path)


def test_workspaces_and_labels_may_have_hostile_names(tmp_path: Path) -> None:
    workspace = tmp_path / "a {b} %20 'c\" # d?e=f"
    factor = '[factors]\n"train.epochs" = [{ label = "../../x/\\u001b[31m@y\\n' + "z" * 300 + '", value = 1 }]\n'
    finish_all(*queued(workspace, study_of(factor, name=".. [bold] x")))
    (condition,) = read_results(workspace).conditions
    assert condition.label.startswith("../../x/\x1b[31m@y\n")
    assert (workspace / "ledger.db").exists()
    assert [path.parent for path in tmp_path.rglob("result.json") if workspace not in path.parents] == []


def test_trials_beyond_the_asked_number_are_not_counted_as_ended() -> None:
    """Three repeats have ended and a fourth waits; of the first two, two have ended, of the first four, three."""
    from optuna.trial import TrialState, create_trial

    plan = make_plan(study_of())
    trials = [
        create_trial(
            state=TrialState.COMPLETE if index < 3 else TrialState.WAITING,
            value=0.5 if index < 3 else None,
            user_attrs={"index": index, "attempt": 0},
        )
        for index in range(4)
    ]
    attempts = Attempts(lambda condition: trials, {})
    assert [attempts.ended(plan.conditions[0], count) for count in (0, 2, 3, 4)] == [0, 2, 3, 3]


def test_two_conditions_with_one_best_are_confirmed_each(tmp_path: Path) -> None:
    text = """
[factors]
"train.optimizer" = [{ name = "sgd", lr = 0.1 }, { name = "sgd", lr = 0.2 }]
[search]
trials = 3
sampler = "random"
space."train.optimizer.lr" = [0.7, 0.5]
"""
    ledger, plan = queued(tmp_path, study_of(text))
    frames = [condition for condition in plan.conditions if condition.kind == "search"]
    assert len(frames) == 2

    def outcome(claim: Claim) -> Outcome | None:
        if claim.phase != "search":
            return None
        loss = 0.1 if claim.params["train.optimizer.lr"] == 0.7 else 0.2
        return Outcome(state="done", metrics={"val": replace(METRICS, loss=loss)})

    finish_all(ledger, plan, outcome)
    confirms = confirm_conditions(ledger, plan)
    assert [confirm.parent for confirm in confirms] == [frame.key for frame in frames]
    assert [confirm.chosen for confirm in confirms] == [{"train.optimizer.lr": 0.7}] * 2
    assert len({confirm.key for confirm in confirms}) == 2
    assert ledger.enqueue(Plan(study=plan.study, conditions=confirms)) == 4
