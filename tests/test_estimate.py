"""What a sweep would take, before and after parts of it are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_study import DATA, FACTOR, METRICS, SEARCH, finish_all, study_of

import benchkit.cli.preview
import benchkit.sweep.estimate
from benchkit.cli.preview import preview
from benchkit.errors import DataError
from benchkit.ledger import Ledger
from benchkit.ledger.readback import confirm_conditions
from benchkit.plan import Condition, Plan, make_plan
from benchkit.registry import Registry
from benchkit.results import Outcome
from benchkit.study import Study
from benchkit.sweep.devices import CPU, Devices
from benchkit.sweep.estimate import HISTORY_BYTES, MOST_SECONDS, SweepEstimate, estimate
from benchkit.sweep.messages import Event, Job, NetworksChecked, Probed
from benchkit.sweep.orchestration import Request
from benchkit.sweep.pool import Pool, answers


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let a probe say two seconds an epoch, without a worker; return the labels of what was timed."""
    labels: list[str] = []

    def probe(
        request: Request,
        plan: Plan,
        devices: Devices,
        left: Sequence[Condition],
        timed: Sequence[Condition],
        say: Callable[[str], None],
    ) -> tuple[dict[str, Probed], str]:
        labels.extend(condition.label for condition in timed)
        found = {c.key: Probed(key=c.key, seconds=2.0, checkpoint_bytes=1000, kept_bytes=100) for c in timed}
        return found, "cpu"

    monkeypatch.setattr(benchkit.sweep.estimate, "_probe", probe)
    return labels


def estimated(workspace: Path, study: Study, jobs: int = 1) -> SweepEstimate:
    request = Request(study=study, workspace=workspace, data_root=DATA, jobs=jobs, device="cpu")
    return estimate(request, Registry.installed())


def test_a_fresh_grid(tmp_path: Path, timed: list[str]) -> None:
    found = estimated(tmp_path / "runs", study_of(FACTOR, epochs=3, repeats=2), jobs=2)
    assert [(row.condition.label, row.trials, row.finished, row.seconds) for row in found.conditions] == [
        ("0.1", 2, 0, 6.0), ("0.3", 2, 0, 6.0),
    ]  # fmt: skip
    assert (found.left, found.confirms, found.seconds, found.probed) == (4, 0, 4 * 6.0 / 2, 2)
    assert found.bytes == 4 * 100 + 4 * HISTORY_BYTES + 2 * 1000
    assert timed == ["0.1", "0.3"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_preview_says_what_a_short_run_cannot_tell_of_a_gpu(
    tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    study = study_of(FACTOR)
    found = replace(estimated(tmp_path / "runs", study), device=device)
    monkeypatch.setattr(benchkit.cli.preview, "estimate", lambda request, registry, say: found)
    request = Request(study=study, workspace=tmp_path / "runs", data_root=DATA, device=device)
    preview(request, Registry.installed(), as_json=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"1 at once on {device}" in printed
    assert ("CUDA graph" in printed) == (device != "cpu")
    assert "train.compile" not in printed


@pytest.mark.parametrize(
    ("epochs", "compile", "told"), [(200, "auto", True), (200, "never", False), (2, "auto", False)]
)
def test_the_preview_of_long_trials_on_a_processor_tells_of_compiling(
    tmp_path: Path, timed: list[str], capsys: pytest.CaptureFixture[str], epochs: int, compile: str, told: bool
) -> None:
    study = study_of(FACTOR, epochs=epochs, overrides=(f"train.compile={compile}",))
    request = Request(study=study, workspace=tmp_path / "runs", data_root=DATA, device="cpu")
    preview(request, Registry.installed(), as_json=False)
    assert ("--set train.compile=always" in " ".join(capsys.readouterr().out.split())) == told


def test_of_a_finished_study_the_preview_says_that_nothing_is_left(
    tmp_path: Path, timed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(FACTOR)
    ledger, plan = Ledger(tmp_path), make_plan(study)
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(ledger, plan, lambda claim: Outcome(state="done", metrics={"val": METRICS, "test": METRICS}))
    preview(Request(study=study, workspace=tmp_path, data_root=DATA, jobs=1), Registry.installed(), as_json=False)
    shown = capsys.readouterr().out
    assert [line.endswith("none left") for line in shown.splitlines()[1:3]] == [True, True] and "?" not in shown


def test_a_fresh_search_will_be_confirmed(tmp_path: Path, timed: list[str]) -> None:
    found = estimated(tmp_path / "runs", study_of(SEARCH, epochs=1, repeats=2))
    assert (found.left, found.confirms) == (2 + 4 + 2, 2)
    assert found.seconds == pytest.approx(8 * 2.0)


def trained(workspace: Path, study: Study, best: int) -> tuple[Ledger, Plan]:
    ledger, plan = Ledger(workspace), make_plan(study)
    ledger.register(plan, {}, "")
    ledger.enqueue(plan)
    finish_all(
        ledger,
        plan,
        lambda claim: Outcome(
            state="done", metrics={"val": replace(METRICS, loss=0.0 if claim.index == best else 1.0)}
        ),
    )
    return ledger, plan


def test_trials_that_confirm_a_finished_search_are_listed_and_counted_once(tmp_path: Path, timed: list[str]) -> None:
    study = study_of(SEARCH, repeats=2)
    ledger, plan = trained(tmp_path, study, best=2)
    found = estimated(tmp_path, study)
    assert [(row.condition.kind, row.trials, row.finished) for row in found.conditions] == [
        ("grid", 2, 2), ("search", 4, 4), ("confirm-best", 2, 0),
    ]  # fmt: skip
    assert (found.left, found.confirms) == (2, 0)
    confirms = Plan(study=study, conditions=confirm_conditions(ledger, plan))
    ledger.enqueue(confirms)
    finish_all(ledger, confirms)
    found = estimated(tmp_path, study)
    assert (found.left, found.confirms, found.seconds) == (0, 0, 0.0)
    assert timed == ["default, searched"]


def test_a_search_whose_best_is_the_default_needs_no_confirmation(tmp_path: Path, timed: list[str]) -> None:
    study = study_of(SEARCH, repeats=2)
    trained(tmp_path, study, best=0)
    found = estimated(tmp_path, study)
    assert (found.left, found.confirms) == (0, 0) and timed == []


def test_a_raised_total_leaves_the_difference_and_a_new_confirmation(tmp_path: Path, timed: list[str]) -> None:
    trained(tmp_path, study_of(SEARCH, repeats=2), best=2)
    found = estimated(tmp_path, study_of(SEARCH.replace("trials = 4", "trials = 6"), repeats=2))
    assert (found.left, found.confirms) == (2 + 2, 2)
    assert timed == ["default, search"]


def test_what_stands_in_the_way_of_a_probe_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: object) -> None:
        raise DataError("the data set is not there", hint="fetch it")

    monkeypatch.setattr(benchkit.sweep.estimate, "prepare", absent)
    found = estimated(tmp_path, study_of(FACTOR))
    assert (found.seconds, found.bytes, found.left) == (None, None, 4)
    assert "the data set is not there" in found.problem


@pytest.mark.parametrize(("heard", "timed"), [(1, 1), (0, 0)])
def test_a_timed_run_says_what_it_tries_and_ends_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: int, timed: int
) -> None:
    def answers(pool: Pool, job: Job, seconds: float) -> Iterator[Event]:
        assert seconds == MOST_SECONDS == 60
        for condition in job.conditions[:heard]:
            yield Probed(key=condition.key, seconds=2.0, checkpoint_bytes=1000, kept_bytes=100)

    monkeypatch.setattr(benchkit.sweep.estimate, "answers", answers)
    fine = NetworksChecked(problems=(), checked=1, networks=1)
    monkeypatch.setattr(benchkit.sweep.estimate, "refuse_broken_networks", lambda pool, request, conditions: fine)
    request = Request(study=study_of(FACTOR), workspace=tmp_path / "runs", data_root=DATA, jobs=1, device="cpu")
    said: list[str] = []
    found = estimate(request, Registry.installed(), said.append)
    assert said == ["trying the networks, then timing a few steps of 0.1 and 1 more, for 60 seconds at the most"]
    assert found.probed == timed
    if timed:
        assert [row.seconds for row in found.conditions] == [2.0 * row.epochs for row in found.conditions]
    else:
        assert found.problem == "no condition was timed within 60 seconds" and found.seconds is None


def test_answers_are_awaited_for_a_time(tmp_path: Path) -> None:
    class Silent(Pool):
        def give(self, number: int, job: Job) -> None:
            """Start nothing."""

        def events(self, wait: float) -> Iterator[tuple[int, Event]]:
            raise AssertionError("the time is up")

    request = Request(study=study_of(FACTOR), workspace=tmp_path, data_root=DATA)
    assert list(answers(Silent((CPU,), 1, tmp_path), request.job("probe", ()), 0.0)) == []
