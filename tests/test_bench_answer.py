"""The time to the answer: drawn studies against benchkit's own looks, seconds by hand, pruning, a small real pool."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from decision_rules import looked_at
from optuna.distributions import FloatDistribution
from optuna.pruners import MedianPruner
from optuna.study import create_study
from optuna.trial import TrialState
from synthetic_results import complete
from tiny_study import environment

from benchkit.analysis.candidates import image_variance, looks_taken, missing_repeats
from benchkit.plan import LEAVES_AT, InterimAnalysis, plan_of_looks

if TYPE_CHECKING:
    from answer_pools import Pool

PEERS = Path(__file__).parent / "peers"


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))


def pool(seconds: np.ndarray, wall: np.ndarray) -> Pool:
    """Return a pool of two conditions and four images; `seconds` are (n, 2, epochs), `wall` (n, 2)."""
    from answer_pools import Pool, Repeat

    repeats = tuple(
        Repeat(
            condition=name, index=index, accuracy=0.5 + 0.25 * place, wall=float(wall[index, place]),
            seconds=tuple(map(float, seconds[index, place])), losses=(1.0,) * seconds.shape[2], right="f0",
        )
        for index in range(len(seconds))
        for place, name in enumerate(("a", "b"))
    )  # fmt: skip
    about = {
        "question": "digits", "way": "eager", "jobs": 2, "conditions": ("a", "b"), "images": 4, "starts": (9.0,),
        "loads": (0.5,), "machine": "a processor", "cores": 2, "torch": "2", "dated": "2026-01-01",
    }  # fmt: skip
    return Pool(repeats=repeats, **about)  # type: ignore[arg-type]


def test_a_drawn_study_is_decided_as_a_real_one_is(tmp_path: Path) -> None:
    from answer_pools import pool_of
    from answers import _image_floor

    plans = [plan_of_looks(3, 8), plan_of_looks(3, 8, True), (InterimAnalysis(number=1, n=5, alpha=LEAVES_AT),)]
    told = []
    for labels in (("bn", "gn", "ln", "none"), ("ln", "none")):
        results = complete(tmp_path / "-".join(labels), labels, repeats=8)
        drawn = pool_of(results, "digits", "eager", 2, starts=[], loads=[])
        assert drawn.size == 8 and drawn.skipped == 0 and drawn.conditions == labels
        floor = _image_floor(drawn.right()[None])
        for plan in plans:
            found = looked_at(drawn.table("accuracy").astype(float)[None], plan, floor)
            counts = dict(zip(labels, found.counts[0].tolist(), strict=True))
            trained = tuple(trial for trial in results.trials if trial.index < counts[trial.condition.label])
            real = replace(results, trials=trained)
            taken = looks_taken(real, "test.accuracy", plan)
            assert not missing_repeats(real, plan, taken)
            decided = taken[-1].candidates.decided
            assert found.decided[0] == (taken[-1].analysis.n if decided else 0)
            assert found.best[0] == (labels.index(taken[-1].candidates.kept[0].label) if decided else -1)
            assert counts == {one.label: one.n for one in taken[-1].candidates.conditions}
            told.append((decided, len(taken)))
    assert {decided for decided, _ in told} == {True, False} and max(looks for _, looks in told) > 1


def test_the_images_share_of_the_spread_is_that_of_the_report() -> None:
    from answers import _image_floor

    right = np.random.default_rng(3).random((2, 6, 3, 50)) < 0.8
    found = _image_floor(right)(np.array([[2, 4, 6], [3, 3, 2]]))
    for study, counts in enumerate([[2, 4, 6], [3, 3, 2]]):
        for place, n in enumerate(counts):
            assert found[study, place] ** 2 == pytest.approx(image_variance(right[study, :n, place]))


def test_what_compiling_takes_is_paid_once_a_condition() -> None:
    # Three epochs of 2 s, 1 s beside them. The first repeat of a compiled in its first epoch, that of b before it.
    seconds = np.full((4, 2, 3), 2.0)
    seconds[0, 0, 0] = 32.0
    wall = seconds.sum(-1) + 1
    wall[0, 1] += 20
    whole, epochs, once = pool(seconds, wall).costs()
    assert whole.tolist() == [[7.0, 7.0]] * 4 and (epochs == 2.0).all()
    assert once.tolist() == [30.0, 20.0]


def test_hours_are_those_of_what_was_trained() -> None:
    from answers import answers_of

    one = pool(np.full((4, 2, 3), 2.0), np.full((4, 2), 7.0))
    found = {answer.rule: answer for answer in answers_of(one, 300)}
    # b is right on every image in every repeat, a on half of them: nothing varies, so nothing is ever tested.
    assert {answer.decided for answer in found.values()} == {0.0} and found["until decided"].hours is None
    assert found["3 repeats of each"].spent.middle == pytest.approx((2 * 3 * 7 / 2 + 9) / 3600)
    continued = found["3 repeats, reported, then until decided"]
    assert continued.spent.middle == pytest.approx((2 * 4 * 7 / 2 + 18) / 3600)
    assert "20 repeats of each" not in found and found["3 repeats of each"].studies == 300


def test_each_study_s_time_to_the_answer_is_a_sentence() -> None:
    from answers import Answer, Quantiles
    from pages import answer_words

    def answer(question: str, way: str, rule: str, seconds: float, decided: float = 1.0) -> Answer:
        hours = Quantiles(middle=seconds / 3600, low=0.0, high=1.0)
        return Answer(
            question=question, way=way, rule=rule, studies=2, repeats=9, hours=hours if decided else None, spent=hours,
            decided=decided, wrong=0.0,
        )  # fmt: skip

    told = (
        answer("digits", "eager", "10 repeats of each", 20.0, 0.9),
        answer("digits", "eager", "20 repeats of each", 35.0),
        answer("digits", "eager", "until decided", 15.4),
        answer("digits", "compiled", "until decided", 84.0),
        answer("cifar10", "eager", "3 repeats of each", 269.0, 0.86),
        answer("cifar10", "eager", "until decided", 274.0),
        answer("noise", "eager", "until decided", 9.0, 0.0),
    )
    assert answer_words(told) == (
        "Repeats added until decided rank digits after 15.4 s (100% of studies decided, 0.0% wrongly); 20 repeats of "
        "each take 35.0 s and decide 100%.",
        "Repeats added until decided rank cifar10 after 4 min 34 s (100% of studies decided, 0.0% wrongly); 3 repeats "
        "of each take 4 min 29 s and decide 86%.",
    )
    assert answer_words(told[-1:]) == ("No study was decided.",)


def test_a_study_decided_for_a_worse_condition_is_counted() -> None:
    from answers import answers_of

    base = pool(np.ones((12, 2, 2)), np.full((12, 2), 3.0))
    # a is ahead by 20 points in eight repeats and behind by 90 in four: worse in the pool, but best in many studies.
    scores = {"a": [0.9] * 8 + [0.0] * 4, "b": [0.7] * 12}
    wobble = np.linspace(-0.01, 0.01, 12)
    signs = {"a": 1, "b": -1}
    repeats = tuple(
        replace(one, accuracy=scores[one.condition][one.index] + signs[one.condition] * wobble[one.index])
        for one in base.repeats
    )
    found = answers_of(replace(base, repeats=repeats), 500)
    three = found[0]
    assert three.rule == "3 repeats of each"
    # Three of the eight: 56 of 220 draws; three of the four, for which b is best: 4 of 220. No other draw decides.
    assert three.wrong == pytest.approx(56 / 220, abs=0.06)
    assert three.decided - three.wrong == pytest.approx(4 / 220, abs=0.016)


def test_pruning_is_that_of_a_search() -> None:
    from answers import Pruning

    rng, epochs, k, n = np.random.default_rng(5), 8, 3, 6
    losses = np.linspace(1, 0.3, epochs) + rng.normal(0, 0.1, (1, n, k, epochs))
    losses[:, :, 2] += 0.05
    seconds = np.full((1, n, k, epochs), 2.0)
    pruning = Pruning(losses=losses, epochs=seconds, whole=seconds.sum(-1) + 1)
    left = pruning.up_to(3, np.ones((1, k), dtype=bool))
    left = pruning.up_to(n, left)

    study = create_study(pruner=MedianPruner(n_startup_trials=5, n_warmup_steps=2))
    stays, spent = [True] * k, 0.0
    for repeat in range(n):
        for place in [place for place in range(k) if stays[place]]:
            trial = study.ask({"x": FloatDistribution(0, 1)})
            for epoch in range(epochs):
                trial.report(losses[0, repeat, place, epoch], step=epoch + 1)
                spent += 2
                if trial.should_prune() and sum(stays) > 1:
                    stays[place] = False
                    break
            else:
                spent += 1
            if stays[place]:
                study.tell(trial, losses[0, repeat, place, -1])
            else:
                study.tell(trial, state=TrialState.PRUNED)
    assert left[0].tolist() == stays and sum(stays) < k
    assert pruning.spent[0] == pytest.approx(spent)


@pytest.mark.slow
def test_a_small_pool_is_gathered_in_pieces_and_told(tmp_path: Path) -> None:
    command = [sys.executable, str(PEERS / "bench_answer.py"), "--only", "digits", "--ways", "eager", "--jobs", "1"]
    command += ["--folder", str(tmp_path / "pools"), "--out", str(tmp_path / "out"), "--studies", "50"]

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *options], capture_output=True, text=True, env=environment(), timeout=500)

    early = run("--repeats", "2")
    assert early.returncode == 2 and "holds no pool with three repeats" in early.stderr, early.stdout + early.stderr
    done = run("--repeats", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads((tmp_path / "pools" / "digits-eager.json").read_text())
    assert len(kept["repeats"]) == 12 and len(kept["starts"]) == 2
    told = json.loads((tmp_path / "out" / "benchmarks.json").read_text())["parts"]["cpu"]
    assert {answer["rule"] for answer in told["answers"]} >= {"3 repeats of each", "until decided"}
    assert "Time to the answer" in (tmp_path / "out" / "benchmarks.html").read_text()
