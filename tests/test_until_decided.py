"""Repeats that are added until it is decided which condition is best: how many, of which, and when it ends."""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from capsule_edits import edited
from tiny_study import METRICS, SEARCH, InlinePool, Listener, run_here, study_of, write

import benchkit.sweep.estimate
import benchkit.sweep.orchestration
from benchkit.analysis.candidates import looks_of, repeats_words, standing
from benchkit.analysis.estimates import planned_trials
from benchkit.analysis.summary import summarize
from benchkit.capsule import CapsuleError, Shown, make_capsule, read_capsule
from benchkit.capsule.making import commands_of, study_text
from benchkit.capsule.reading import results_of as capsule_results
from benchkit.errors import LedgerError, StudyError
from benchkit.ledger import Ledger, read_results
from benchkit.ledger.ledger import decide
from benchkit.plan import INTERIM_ANALYSES, make_plan, plan_of_looks, plan_text, planned_looks
from benchkit.registry import Registry
from benchkit.results import Cost, Decision, Outcome
from benchkit.storage import encode
from benchkit.study import Study
from benchkit.study.studyfile import parse_study
from benchkit.sweep.messages import Job, Said, Train, TrialFinished, WorkerIdle
from benchkit.sweep.orchestration import Request, sweep
from benchkit.sweep.status import status_of

LEVELS = '[factors]\n"train.optimizer.lr" = [0.1, 0.2, 0.3]\n'
CLEAR = {"0.1": 0.9, "0.2": 0.89, "0.3": 0.5}
EQUAL = dict.fromkeys(CLEAR, 0.8)

Score = Callable[[str, int], float]


def noisy(means: dict[str, float], spread: float = 0.002) -> Score:
    """Return an accuracy for each condition and repeat: its mean, and noise that conditions of one mean share."""
    return lambda label, index: means[label] + random.Random(f"{means[label]} {index}").gauss(0, spread)


class ScriptedPool(InlinePool):
    """Ends each trial at once with a score; after `patience` trials it is interrupted, as by Ctrl-C."""

    score: Score = staticmethod(noisy(CLEAR))
    patience = math.inf

    def do(self, order: Job | Train) -> None:
        if isinstance(order, Train):
            if type(self).patience <= 0:
                raise KeyboardInterrupt
            type(self).patience -= 1
            rate = str(order.settings["train"]["optimizer"]["lr"])
            label = {"search": "default, search", "confirm": "default, searched"}.get(order.phase, rate)
            score = self.score(label, order.index)
            finished = TrialFinished(trial=order.trial, lease=order.lease, outcome=ended(score))
            self._doing.append((order, (event for event in [finished])))
        elif order.task == "train":
            super().do(order)
        else:
            self._doing.append((order, (event for event in [WorkerIdle()])))


def ended(accuracy: float) -> Outcome:
    metrics = replace(METRICS, accuracy=accuracy, loss=1 - accuracy)
    cost = Cost(parameters=7, flops=1, seconds=2.0, images_per_second=1, peak_memory=1, device="cpu", precision="")
    return Outcome(state="done", metrics={"val": metrics, "test": metrics}, cost=cost)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedPool]:
    monkeypatch.setattr(ScriptedPool, "patience", math.inf)
    monkeypatch.setattr(ScriptedPool, "score", staticmethod(noisy(CLEAR)))
    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", ScriptedPool)
    return ScriptedPool


def run(workspace: Path, study: Study, **asked: Any) -> tuple[Counter[str], list[str]]:
    """Sweep; return the states and what was told of interim analyses."""
    view = Listener()
    request = Request(study=study, workspace=workspace, data_root=Path(), **{"jobs": 1, **asked})
    states = sweep(request, Registry.installed(), view)
    return +states, [event.words for event in view.events if isinstance(event, Said)]


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {
        "name": "digits", "fingerprint": "f", "class_names": ["a", "b"], "class_counts": {"train": [1, 1]},
        "image_shape": [8, 8, 1],
    }  # fmt: skip
    monkeypatch.setattr(benchkit.sweep.orchestration, "prepare", lambda *args: {**facts, "sets": [facts]})


def repeats(workspace: Path, **more: Any) -> dict[str, int]:
    """Return how many repeats each condition has."""
    return dict(
        Counter(trial.condition.label for trial in read_results(workspace, **more).trials if trial.state == "done")
    )


def levels(repeats: int = 3) -> Study:
    return study_of(LEVELS, repeats=repeats)


def test_only_what_may_be_the_best_gets_more_repeats(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    scripted.score = staticmethod(noisy({**CLEAR, "0.2": 0.8975}))
    run(tmp_path, levels())
    assert repeats(tmp_path) == dict.fromkeys(CLEAR, 3)
    states, told = run(tmp_path, levels(), until_decided=True, most=20)
    counts = repeats(tmp_path)
    assert counts["0.3"] == 3 and counts["0.1"] == counts["0.2"] > 3
    assert states == {"done": sum(counts.values())}
    assert told[-1].startswith("decided at look") and told[-1].endswith("“0.1” is the best")
    assert run(tmp_path, levels(), until_decided=True) == (states, [told[-1]])


def test_copies_of_one_condition_are_trained_to_the_most_and_not_decided(
    tmp_path: Path, scripted: type[ScriptedPool]
) -> None:
    scripted.score = staticmethod(noisy({**CLEAR, "0.2": 0.9}))
    _, told = run(tmp_path, levels(), until_decided=True, most=7)
    counts = repeats(tmp_path)
    assert counts == {"0.1": 7, "0.2": 7, "0.3": 3}
    assert told[-1].startswith("not decided at look")
    assert told[-1].endswith("at 7 repeats, the last: “0.1” and “0.2” may be the best")


def test_a_report_of_fixed_repeats_counts_as_the_first_look(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    plans = {}
    for name, first in (("reported", True), ("from the start", False)):
        if first:
            run(tmp_path / name, levels())
        run(tmp_path / name, levels(), until_decided=True)
        plans[name] = planned_looks(read_results(tmp_path / name).decisions)
    reported, new = plans["reported"], plans["from the start"]
    assert (reported[0].n, reported[0].alpha) == (3, 0.025)
    assert new[0].n == 3 and new[0].alpha < 0.025
    for plan in plans.values():
        assert plan[-1].n == 20 and sum(look.alpha for look in plan) <= 0.05 + 1e-12
        assert [look.n for look in plan] == sorted({look.n for look in plan})


def test_a_sweep_of_the_first_repeats_that_was_interrupted_does_not_become_a_look(
    tmp_path: Path, scripted: type[ScriptedPool]
) -> None:
    scripted.patience = 7  # two repeats of each condition are there, and a third of one
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, levels(), until_decided=True)
    scripted.patience = math.inf
    run(tmp_path, levels(), until_decided=True)
    assert planned_looks(read_results(tmp_path).decisions)[0].alpha < 0.025


def test_interrupted_again_and_again_it_ends_as_one_that_was_not(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    scripted.score = staticmethod(noisy({**CLEAR, "0.2": 0.8985}))
    _, told = run(tmp_path / "whole", levels(), until_decided=True)
    said: list[str] = []
    for _ in range(100):
        scripted.patience = 4
        try:
            _, last = run(tmp_path / "parts", levels(), until_decided=True)
            said += last
            break
        except KeyboardInterrupt:
            continue
    assert said[-1] == told[-1]
    assert repeats(tmp_path / "parts") == repeats(tmp_path / "whole")
    whole, parts = (read_results(tmp_path / name) for name in ("whole", "parts"))
    assert whole.decisions == parts.decisions
    assert all(trial.attempt == 0 for trial in parts.trials)
    plan = planned_looks(whole.decisions)
    assert standing(whole, plan) == standing(parts, plan)


def test_a_report_in_the_middle_of_a_look_has_the_last_complete_one(
    tmp_path: Path, scripted: type[ScriptedPool]
) -> None:
    scripted.score = staticmethod(noisy(EQUAL, spread=0.02))
    scripted.patience = 11
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, levels(), until_decided=True)
    assert repeats(tmp_path) == dict.fromkeys(CLEAR, 3)
    assert sum(repeats(tmp_path, upcoming=True).values()) == 11
    told = [line for line in read_results(tmp_path).left_out if "the last complete look" in line]
    assert told and told[0] == "0.1: 1 finished trial beyond the 3 that the last complete look used"
    status = status_of(read_results(tmp_path, upcoming=True))
    assert status.interim is not None and status.interim.taken == 1 and not status.interim.decided
    following = planned_looks(read_results(tmp_path).decisions)[1].n
    trials = 3 * following - 11
    assert status.interim.next is not None
    assert (status.interim.next.n, status.interim.trials) == (following, trials)
    assert status.interim.seconds == pytest.approx(2.0 * trials)
    assert f"the next, at {following} repeats, takes {trials} trials" in status.interim.words


def test_what_left_at_a_look_is_shown_with_the_repeats_that_counted(
    tmp_path: Path, scripted: type[ScriptedPool]
) -> None:
    """As merged halves have it, each of which went on for itself."""
    score = noisy(CLEAR)
    scripted.score = staticmethod(score)
    run(tmp_path, levels(repeats=4))
    decide(Ledger(tmp_path), "tiny", INTERIM_ANALYSES, "3: 0.025, 4: 0.025", "a test")
    run(tmp_path, levels())
    rows = {row.condition: row for row in status_of(read_results(tmp_path, upcoming=True)).rows}
    worst = min(CLEAR, key=lambda label: CLEAR[label])
    assert rows[worst].states == {"done": 3} and rows[worst].scored == 3
    assert rows[worst].score == pytest.approx(sum(score(worst, index) for index in range(3)) / 3)
    found = next(one for one in summarize(read_results(tmp_path)).findings if one.rule == "left-out")
    assert "another version" not in found.sentence
    assert found.evidence.endswith("beyond the 3 that the last complete look used.")


def test_what_was_decided_stands(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    scripted.score = staticmethod(noisy(EQUAL, spread=0.02))
    run(tmp_path, levels(), until_decided=True, most=6)
    before = read_results(tmp_path).decisions
    with pytest.raises(LedgerError, match=r"--most 9: tiny has been decided to have the interim analyses '3: 0.0125"):
        run(tmp_path, levels(), until_decided=True, most=9)
    with pytest.raises(LedgerError, match=r"repeats.most = 9: .* asked for is 'at most 9 repeats'"):
        run(tmp_path, replace(levels(), most=9))
    with pytest.raises(LedgerError, match=r"repeats.n = 5: .* asked for is '5 repeats first'"):
        run(tmp_path, levels(repeats=5))
    states, _ = run(tmp_path, levels())  # fixed repeats train nothing more and take nothing back
    assert read_results(tmp_path).decisions == before
    assert states == {"done": 9} and repeats(tmp_path) == dict.fromkeys(CLEAR, 6)


def test_what_a_search_chose_gets_more_repeats_too(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    score = noisy({"0.1": 0.8, "default, searched": 0.8}, spread=0.02)
    scripted.score = staticmethod(
        lambda label, index: index / 10 if label == "default, search" else score(label, index)
    )
    study = replace(study_of(SEARCH, repeats=3), confirm=2)
    run(tmp_path, study, until_decided=True, most=7)
    assert repeats(tmp_path) == {"default": 7, "search": 4, "best of search": 7}


def test_no_look_is_taken_while_a_search_is_under_way(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    scripted.score = staticmethod(lambda label, index: 0.8 + index / 100)
    study, taken = replace(study_of(SEARCH, repeats=2), confirm=2), []
    for patience in (3, 3, math.inf):  # two repeats and a trial of the search; the whole search, one of its best
        scripted.patience = patience
        with contextlib.suppress(KeyboardInterrupt):
            run(tmp_path, study, until_decided=True, most=2)
        status = status_of(read_results(tmp_path, upcoming=True))
        assert status.interim is not None
        taken.append((status.interim.taken, len(status.interim.open)))
    assert taken == [(0, 1), (0, 2), (1, 2)]


def test_a_trial_that_fails_counts_as_one_that_has_ended(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    def score(label: str, index: int) -> float:
        return math.nan if (label, index) == ("0.2", 4) else noisy(EQUAL, spread=0.02)(label, index)

    original = ended
    try:
        globals()["ended"] = lambda accuracy: (
            Outcome(state="failed", reason="x") if math.isnan(accuracy) else original(accuracy)
        )
        scripted.score = staticmethod(score)
        states, told = run(tmp_path, levels(), until_decided=True, most=6)
    finally:
        globals()["ended"] = original
    assert states == {"done": 17, "failed": 1} and told[-1].startswith("not decided")


def test_time_that_is_up_ends_a_sweep_that_can_be_gone_on_with(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    scripted.score = staticmethod(noisy(EQUAL, spread=0.02))
    states, told = run(tmp_path, levels(), until_decided=True, most=6, seconds=0.0)
    assert states["waiting"] and not told
    states, told = run(tmp_path, levels(), until_decided=True)
    assert states == {"done": 18} and told[-1].startswith("not decided")


def test_a_look_waits_for_conditions_that_the_sweep_leaves_out(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    scripted.score = staticmethod(noisy(EQUAL, spread=0.02))
    run(tmp_path, levels())
    only = {"train.optimizer.lr": ("0.1", "0.2")}
    _, told = run(tmp_path, levels(), until_decided=True, most=6, only=only)
    assert told[-1] == "the next look waits for conditions that this sweep leaves out"
    assert repeats(tmp_path) == dict.fromkeys(CLEAR, 3)
    run(tmp_path, levels(), until_decided=True)
    assert repeats(tmp_path) == dict.fromkeys(CLEAR, 6)


def test_a_look_waits_for_files_that_were_lost_and_comes_when_they_are_there_again(
    tmp_path: Path, scripted: type[ScriptedPool]
) -> None:
    scripted.score = staticmethod(noisy(EQUAL, spread=0.02))
    run(tmp_path, levels())
    lost = read_results(tmp_path).trials[0].folder / "result.json"
    lost.unlink()
    _, told = run(tmp_path, levels(), until_decided=True, most=4)
    assert told == ["the next look waits for 1 trial with missing files; benchkit status says what brings them"]
    assert planned_looks(read_results(tmp_path).decisions)[0].alpha == 0.025, "it may have been reported before"
    _, told = run(tmp_path, levels(), until_decided=True, retry=("missing files",))
    assert told[-1].startswith("not decided at look 2 of 2, at 4 repeats, the last")


def test_the_study_file_may_ask_for_it(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    text = levels().source.replace("n = 3", 'n = 3\nmost = 6\nuntil = "decided"')
    study = parse_study(text, name="tiny")
    assert (study.repeats, study.most) == (3, 6)
    assert parse_study(study_text(study), name="tiny").most == 6
    assert [c.key for c in make_plan(study).conditions] == [c.key for c in make_plan(levels()).conditions]
    scripted.score = staticmethod(noisy(EQUAL, spread=0.02))
    run(tmp_path, study)
    assert repeats(tmp_path) == dict.fromkeys(CLEAR, 6)
    assert parse_study(text.replace("most = 6\n", ""), name="tiny").most == 20
    assert levels().most == 0


def test_a_single_repeat_is_refused_as_the_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path / "one.toml", LEVELS, repeats=1)
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--until-decided", "--most", 1, "--dry-run") == 2
    assert "--most 1: expected a whole number from 2 to 1000" in capsys.readouterr().err
    study.write_text(study.read_text().replace("n = 1", 'n = 1\nmost = 1\nuntil = "decided"'))
    for command in (("studies", "check", study), ("sweep", study)):
        assert run_here(monkeypatch, tmp_path, *command) == 2
        assert "repeats.most: got 1, expected 2 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('most = 2\nuntil = "decided"', "repeats.most: got 2, expected a whole number from 3 (n) to 1000"),
        ('most = "x"\nuntil = "decided"', "repeats.most: got 'x', expected a whole number from 3 (n) to 1000"),
        ("most = 8", 'repeats.until: is missing beside most, expected "decided"'),
        ("until = 5", 'repeats.until: got 5, expected "decided"'),
        ('until = "decided"\nof = 3', "repeats: got {'n': 3, 'of': 3}, expected a table with n"),
    ],
)
def test_what_a_study_file_may_not_say(written: str, problem: str) -> None:
    with pytest.raises(StudyError) as refused:
        parse_study(levels().source.replace("n = 3", f"n = 3\n{written}"), name="tiny")
    assert any(line.startswith(problem) for line in refused.value.problems), refused.value.problems


def test_commands_tell_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scripted: type[ScriptedPool]
) -> None:
    scripted.score = staticmethod(noisy(EQUAL, spread=0.02))
    study = write(tmp_path / "tiny.toml", LEVELS, repeats=3)
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--most", 6, pool=scripted) == 2
    assert "--most 6 has no effect without --until-decided" in capsys.readouterr().err
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--until-decided", "--most", 2, pool=scripted) == 2
    assert "--most 2: expected a whole number from 3 (repeats.n) to 1000" in capsys.readouterr().err
    asking = write(tmp_path / "asking.toml", LEVELS, repeats=3)
    asking.write_text(asking.read_text().replace("n = 3", 'n = 3\nuntil = "decided"'))
    assert run_here(monkeypatch, tmp_path, "sweep", asking, "--most", 4, "--jobs", 1, pool=scripted) == 0
    assert max(trial.index for trial in read_results(tmp_path / "benchkit-runs", "asking").trials) == 3
    capsys.readouterr()
    assert run_here(monkeypatch, tmp_path, "sweep", study, "--jobs", 1, pool=scripted) == 0
    assert run_here(monkeypatch, tmp_path, "status") == 0
    assert "look 1 of" in (shown := capsys.readouterr().out) and "to go on until it is decided: benchkit sweep" in shown
    asked = ("sweep", study, "--until-decided", "--most", 6, "--json")
    assert run_here(monkeypatch, tmp_path, *asked, "--hours", 0, pool=scripted) == 143
    told = json.loads(capsys.readouterr().out)
    assert told["states"]["waiting"] == told["interim"]["trials"] > 0
    assert told["interim"]["taken"] == 1 and told["interim"]["open"] == ["0.1", "0.2", "0.3"]
    assert run_here(monkeypatch, tmp_path, *asked[:-1], pool=scripted) == 0
    assert run_here(monkeypatch, tmp_path, "status", "--json") == 0
    status = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert status["interim"]["next"] is None and not status["interim"]["decided"]
    assert INTERIM_ANALYSES in {decision.name for decision in read_results(tmp_path / "benchkit-runs").decisions}


def test_a_report_and_its_capsule_come_to_the_same_looks(tmp_path: Path, scripted: type[ScriptedPool]) -> None:
    scripted.score = staticmethod(noisy({**CLEAR, "0.2": 0.9}))
    run(tmp_path, levels())
    run(tmp_path, levels(), until_decided=True, most=7)
    results = replace(read_results(tmp_path), class_names=())
    capsule = read_capsule(make_capsule([results], Shown()))
    again = capsule_results(capsule, 0, tmp_path / "capsule")
    assert looks_of(again) == looks_of(results) and len(looks_of(again).taken) == 5
    assert [planned_trials(again, one) for one in again.conditions] == [7, 7, 3]
    assert repeats_words(again) == "3 to 7, until decided: look 5 of 5"
    assert repeats_words(replace(again, decisions=())) == "3 for each condition"
    # The first look had the error of a report of fixed repeats, which has to be there again before the looks are.
    assert capsule.head.studies[0].commands[:2] == (
        "benchkit sweep tiny.toml", "benchkit sweep tiny.toml --until-decided --most 7"
    )  # fmt: skip
    new = Decision(name=INTERIM_ANALYSES, value=plan_text(plan_of_looks(3, 7)), why="", version="")
    assert commands_of(replace(results, decisions=(new,)), "tiny.toml")[0].endswith("--until-decided --most 7")

    def spend_more(head: Any) -> None:
        head["studies"][0]["decisions"] = [{**encode(new), "value": "3: 0.9"}]

    with pytest.raises(CapsuleError, match="a plan of looks has rising repeats"):
        read_capsule(edited(capsule.content, {"capsule.json": spend_more}))


def test_a_preview_says_how_many_trials_there_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scripted: type[ScriptedPool]
) -> None:
    monkeypatch.setattr(benchkit.sweep.estimate, "_probes", lambda *args: ({}, "cpu", "not timed here"))
    study = write(tmp_path / "tiny.toml", LEVELS, repeats=3)
    preview = ("sweep", study, "--until-decided", "--dry-run")
    scripted.score = staticmethod(noisy({**CLEAR, "0.2": 0.9}))
    told = []
    for patience in (9, 1, math.inf):
        scripted.patience = patience
        assert run_here(monkeypatch, tmp_path, *preview, "--most", 7) == 0
        told.append(capsys.readouterr().out)
        run_here(monkeypatch, tmp_path, "sweep", study, "--until-decided", "--most", 7, pool=scripted)
    assert "tiny: 3 conditions, 9 trials, 9 to train\nthen at the most 12 more" in told[0]
    assert "tiny: 3 conditions, 11 trials, 2 to train\nthen at the most 6 more" in told[1]
    assert "tiny: 3 conditions, 11 trials, 1 to train\nthen at the most 6 more" in told[2]
    assert run_here(monkeypatch, tmp_path, *preview) == 0
    assert "tiny: 3 conditions, 17 trials, 0 to train" in (shown := capsys.readouterr().out) and "then" not in shown
    assert run_here(monkeypatch, tmp_path, *preview, "--most", 9) == 2
    assert "--most 9: tiny has been decided to have" in capsys.readouterr().err
