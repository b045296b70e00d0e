"""Trials of other machines: never counted in silence, and taken in whole, each once."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage
from tiny_study import (
    DONE,
    FACTOR,
    RECORD,
    SEARCH,
    all_facts,
    finish_all,
    queue_of,
    run_here,
    study_of,
    sweep_here,
    write,
)

from benchkit.analysis.summary import summarize
from benchkit.cli import main
from benchkit.errors import LedgerError, ReportError
from benchkit.ledger import Ledger, read_results
from benchkit.ledger import merge as merging
from benchkit.ledger.claims import Queue
from benchkit.ledger.merge import merge
from benchkit.ledger.trials import LIST, trial_files
from benchkit.plan import make_plan
from benchkit.report.write import check_folder
from benchkit.results import Outcome, StudyResults
from benchkit.study import Study


def halves(monkeypatch: pytest.MonkeyPatch, folder: Path, study: Study) -> tuple[Path, Path]:
    """Return two workspaces of which each has trained one condition of a study of two."""
    found = (folder / "a", folder / "b")
    for workspace, level in zip(found, ("0.1", "0.3"), strict=True):
        sweep_here(monkeypatch, workspace, study, only={"train.optimizer.lr": [level]})
    return found


def states(results: StudyResults) -> list[str]:
    return sorted(trial.state for trial in results.trials)


def test_two_machines_workspaces_become_one_study_with_the_numbers_of_one_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(FACTOR)
    here, other = halves(monkeypatch, tmp_path, study)
    merged = merge(Ledger(here), [other])
    assert (merged.taken, merged.there, merged.conflicts, merged.broken) == ({"tiny": 2}, 0, [], [])
    results = read_results(here)
    assert states(results) == ["done"] * 4
    sweep_here(monkeypatch, tmp_path / "whole", study)
    assert all_facts(results) == all_facts(read_results(tmp_path / "whole"))
    times = {trial.number: (trial.started, trial.finished) for trial in read_results(other).trials}
    assert all(
        (trial.started, trial.finished) == pytest.approx(times[trial.number], abs=1)
        for trial in results.trials
        if trial.condition.label == "0.3"
    )
    assert sweep_here(monkeypatch, here, study) == {"done": 4}
    assert all_facts(read_results(here)) == all_facts(results), "nothing is trained again"
    again = merge(Ledger(here), [other])
    assert (again.taken, again.there) == ({"tiny": 0}, 2)


def test_an_empty_workspace_takes_in_a_study_with_its_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(FACTOR, SEARCH)
    sweep_here(monkeypatch, tmp_path / "other", study)
    merge(Ledger(tmp_path / "here"), [tmp_path / "other"])
    before, after = read_results(tmp_path / "other"), read_results(tmp_path / "here")
    assert all_facts(after) == all_facts(before) and len(after.trials) >= 8
    assert [one.key for one in after.conditions] == [one.key for one in before.conditions]
    assert after.decisions == before.decisions and after.data == before.data
    (tmp_path / "here" / "ledger.db").unlink()
    assert run_here(monkeypatch, tmp_path, "ledger", "rebuild", "--workspace", "here") == 0
    assert all_facts(read_results(tmp_path / "here")) == all_facts(before)


def test_waiting_trials_are_filled_and_those_that_both_trained_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(FACTOR)
    plan, here, other = make_plan(study), Ledger(tmp_path / "here"), Ledger(tmp_path / "other")
    for ledger in (here, other):
        ledger.register(plan, {}, "")
        ledger.enqueue(plan)
    first = Queue(here, plan).next()
    assert first is not None
    first.finish(Outcome(state="failed", reason="here"))
    finish_all(other, plan)
    merged = merge(here, [tmp_path / "other"])
    assert merged.taken == {"tiny": 3}
    assert merged.conflicts == [
        f"tiny: 0.1, repeat 0: trained in {tmp_path / 'other'} and here; the one that was here stays"
    ]
    assert here.states(plan) == {"done": 3, "failed": 1, "missing": 0}


def test_a_trial_that_is_trained_here_just_now_is_left_to_its_sweep(tmp_path: Path) -> None:
    plan, here, other = make_plan(study_of(FACTOR)), Ledger(tmp_path / "here"), Ledger(tmp_path / "other")
    for ledger in (here, other):
        ledger.register(plan, {}, "")
        ledger.enqueue(plan)
    ours = Queue(here, plan).next()
    assert ours is not None
    finish_all(other, plan)
    merged = merge(here, [tmp_path / "other"])
    assert merged.taken == {"tiny": 3} and [words[:20] for words in merged.conflicts] == ["tiny: 0.1, repeat 0:"]
    assert ours.finish(Outcome(state="failed", reason="here"))


def test_files_that_are_not_what_their_list_says_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, other = halves(monkeypatch, tmp_path, study_of(FACTOR))
    changed = next(path for path in (other / "trials").rglob("result.json") if "0.3@" in str(path))
    changed.write_text(changed.read_text().replace('"state"', '"State"'))
    merged = merge(Ledger(here), [other])
    assert merged.taken == {"tiny": 1}
    assert len(merged.broken) == 1 and "changed after the trial had ended: result.json" in merged.broken[0]
    assert states(read_results(here)) == ["done"] * 3


def test_a_copy_is_held_against_its_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, other = halves(monkeypatch, tmp_path, study_of(FACTOR))
    copied = shutil.copyfile

    def short(source: Path, target: Path, **more: Any) -> None:
        copied(source, target, **more)
        if Path(source).name == "result.json":
            Path(target).write_bytes(Path(source).read_bytes()[:-10])

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", short)
        with pytest.raises(LedgerError, match=r"its files changed while they were copied: result\.json"):
            merge(Ledger(here), [other])
    assert states(read_results(here)).count("done") == 2
    assert merge(Ledger(here), [other]).taken == {"tiny": 2} and states(read_results(here)) == ["done"] * 4


@pytest.mark.parametrize(
    ("part", "words"),
    [({"epochs": 4}, "they differ in settings"), ({"repeats": 2, "seed": True}, "they differ in seed")],
)
def test_another_study_of_the_same_name_is_refused(tmp_path: Path, part: dict[str, Any], words: str) -> None:
    seed = part.pop("seed", False)
    for name, more in (("here", {}), ("other", part)):
        study = study_of(FACTOR, **more)
        if seed and name == "other":
            study = replace(study, seed=99)
        ledger, plan = Ledger(tmp_path / name), make_plan(study)
        ledger.register(plan, {}, "")
        ledger.enqueue(plan)
        finish_all(ledger, plan)
    with pytest.raises(LedgerError, match="is not the study of that name") as caught:
        merge(Ledger(tmp_path / "here"), [tmp_path / "other"])
    assert words in caught.value.problems


def test_two_studies_of_one_name_are_refused_where_neither_is_here(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 99)):
        ledger, plan, _ = queue_of(tmp_path / name, replace(study_of(FACTOR), seed=seed))
        finish_all(ledger, plan)
    here = Ledger(tmp_path / "here")
    with pytest.raises(LedgerError, match=r"b: its tiny is not the study of that name in .*a") as caught:
        merge(here, [tmp_path / "a", tmp_path / "b"])
    assert caught.value.problems == ("they differ in seed",) and here.studies() == ()


def test_trials_that_started_from_other_weights_are_refused(tmp_path: Path) -> None:
    for name, repeats, digit in (("here", 1, "a"), ("same", 2, "a"), ("other", 3, "b")):
        ledger, plan, _ = queue_of(tmp_path / name, study_of(repeats=repeats))
        finish_all(ledger, plan, lambda claim: replace(DONE, start_weights=digit * 64))  # noqa: B023
    here = Ledger(tmp_path / "here")
    with pytest.raises(LedgerError, match="its tiny was trained from other weights") as caught:
        merge(here, [tmp_path / "other"], changed_plugins=True)
    assert f"sha256 {'b' * 12} there, {'a' * 12} here" in caught.value.problems[0]
    noted = "started from the weights /w.pth (sha256 cccccccccccc)"  # as earlier versions told it
    ledger, plan, _ = queue_of(tmp_path / "earlier", study_of(repeats=4))
    finish_all(ledger, plan, lambda claim: replace(DONE, notes=(noted,)))
    with pytest.raises(LedgerError, match="its tiny was trained from other weights") as caught:
        merge(here, [tmp_path / "earlier"])
    assert f"sha256 {'c' * 12} there, {'a' * 12} here" in caught.value.problems[0]
    assert merge(here, [tmp_path / "same"]).taken == {"tiny": 1}


def test_files_that_were_here_are_lost_and_not_elsewhere_when_the_machine_has_another_name(tmp_path: Path) -> None:
    ledger, plan, _ = queue_of(tmp_path, study_of(repeats=1))
    finish_all(ledger, plan)
    (trial,) = ledger.trials(plan)
    kept = {"sha256": "0" * 64, "host": "the name it had", "workspace": (tmp_path / "workspace.id").read_text()}
    (trial.folder / LIST).unlink()
    assert [file.state for file in trial_files(trial.folder, kept)] == ["lost"]
    (trial.folder / "result.json").unlink()
    assert [file.state for file in trial_files(trial.folder, kept)] == ["elsewhere"]


@pytest.mark.parametrize("name", ["nothing", "empty", "here"])
def test_what_is_no_other_workspace_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LedgerError, match=r"expected the folder of another workspace|there are no trials here"):
        merge(Ledger(tmp_path / "here"), [tmp_path / name])


def test_files_on_another_machine_leave_a_study_unfinished_until_they_are_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two machines, each with a disk of its own, and one storage: half of the trials were trained on the other."""
    study, storage = write(tmp_path / "tiny.toml", FACTOR), f"sqlite:///{tmp_path / 'shared.db'}"
    sweep = ("sweep", study, "--storage", storage, "--jobs", 1)
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "other")
        assert run_here(patch, tmp_path, *sweep, "--workspace", "b", "--only", "train.optimizer.lr=0.3") == 0
    capsys.readouterr()
    assert run_here(monkeypatch, tmp_path, *sweep, "--workspace", "a") == 0
    told = capsys.readouterr()
    assert told.out == "tiny: 2 done, 2 files elsewhere\n"
    assert "2 trials ended on other machines: benchkit merge brings their files here" in told.err
    results = read_results(tmp_path / "a", "tiny", storage)
    findings = {finding.rule: finding.sentence for finding in summarize(results).findings}
    assert "The study is not finished here: 2 trials have ended on another machine" in findings["files-elsewhere"]
    assert run_here(monkeypatch, tmp_path, "status", "tiny", "--storage", storage, "--workspace", "a") == 1
    assert "benchkit merge WORKSPACE" in capsys.readouterr().out
    assert run_here(monkeypatch, tmp_path, "merge", "b", "--storage", storage, "--workspace", "a") == 0
    assert capsys.readouterr().out == "tiny: 2 trials taken in\n"
    assert states(read_results(tmp_path / "a", "tiny", storage)) == ["done"] * 4
    assert run_here(monkeypatch, tmp_path, "status", "tiny", "--storage", storage, "--workspace", "a") == 0
    shutil.rmtree(tmp_path / "b")


def test_a_trial_that_was_begun_in_what_is_a_copy_now_and_ended_on_another_machine_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where jobs on several machines go on in copies of one workspace: both have its id, and the beginning."""
    storage, plan = f"sqlite:///{tmp_path / 'shared.db'}", make_plan(study_of(repeats=1))
    first = Ledger(tmp_path / "a", storage)
    first.register(plan, {"sets": []}, "")
    first.enqueue(plan)
    begun = Queue(first, plan).next()
    assert begun is not None
    begun.folder.append_epoch(RECORD)
    begun.release()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "other")
        finish_all(Ledger(tmp_path / "b", storage), plan)
    assert states(read_results(tmp_path / "a", "tiny", storage)) == ["files elsewhere"]
    assert merge(Ledger(tmp_path / "a", storage), [tmp_path / "b"]).taken == {"tiny": 1}
    assert states(read_results(tmp_path / "a", "tiny", storage)) == ["done"]


class Killed(BaseException):
    """The process is gone."""


def killed_at(patch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Let the process die at one step of what it does to disk and ledger, a file half written; return the steps."""
    steps: list[str] = []

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            steps.append(name)
            if len(steps) == step:
                if name == "copyfile":
                    Path(args[1]).write_bytes(Path(args[0]).read_bytes()[:10])
                raise Killed
            return original(*args, **kwargs)

        patch.setattr(owner, name, called)

    for owner, name in ((shutil, "copyfile"), (Path, "rename"), (Path, "replace"), (RDBStorage, "set_trial_user_attr"),
                        (RDBStorage, "set_trial_state_values"), (merging, "set_times")):  # fmt: skip
        counted(owner, name)
    return steps


@pytest.mark.parametrize("shared", [False, True], ids=["ledgers of their own", "one ledger"])
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["last", "every"])
def test_a_merge_that_is_killed_leaves_nothing_half_and_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool, every: bool
) -> None:
    """It dies at the last step of each kind, or at every one."""
    plan, url = make_plan(study_of(repeats=1)), f"sqlite:///{tmp_path / 'base.db'}" if shared else None
    theirs = Ledger(tmp_path / "theirs", url)
    theirs.register(plan, {"sets": []}, "")
    theirs.enqueue(plan)
    finish_all(theirs, plan)
    (expected,) = theirs.trials(plan)

    def merged(step: int) -> list[str]:
        if shared:
            shutil.copy(tmp_path / "base.db", tmp_path / f"{step}.db")
        ours = Ledger(tmp_path / str(step), f"sqlite:///{tmp_path / f'{step}.db'}" if shared else None)
        with monkeypatch.context() as patch:
            steps = killed_at(patch, step)
            with suppress(Killed):
                merge(ours, [tmp_path / "theirs"])
        for trial in ours.trials(plan):
            assert trial.state in ("done", "waiting", "stale", "files elsewhere"), steps
            assert trial.state != "done" or trial.outcome == expected.outcome
        merge(ours, [tmp_path / "theirs"])
        (trial,) = ours.trials(plan)
        assert (trial.state, trial.outcome) == ("done", expected.outcome), steps
        assert [path.name for path in trial.folder.parent.iterdir() if path.is_dir()] == ["0000"]
        return steps

    steps = merged(0)
    last = {name: step for step, name in enumerate(steps, 1)}
    assert "copyfile" in last and (shared or "set_trial_user_attr" in last)
    for step in range(1, len(steps) + 1) if every else last.values():
        merged(step)


def test_a_refused_merge_leaves_no_workspace_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert main(["merge", str(tmp_path / "none"), "--workspace", str(tmp_path / "new")]) == 2
    assert "there are no trials here" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_stands_in_the_place_of_a_workspace_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"it is a link to .*gone, which is not there"):
        Ledger(tmp_path / "link")
    with pytest.raises(LedgerError, match="it is a file, expected"):
        Ledger(tmp_path / "file")
    with pytest.raises(ReportError, match=r"is a link to .*gone, which is not there"):
        check_folder(tmp_path / "link")
