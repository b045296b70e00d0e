"""The benchmark beside other tools: its arithmetic by hand, its report, and a run of some seconds."""

from __future__ import annotations

import copy
import importlib
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_study import environment

from benchkit.results import WAS_COMPILED

PEERS = Path(__file__).parent / "peers"


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))


def test_ratios_are_taken_within_rounds() -> None:
    from comparison import Measured, Spread, compare
    from workloads import WORKLOADS

    def measured(first_step: float, *rates: float) -> list[Measured]:
        return [Measured(rate=rate, first_step=first_step, seconds=36.0) for rate in rates]

    each = {"script": measured(8.0, 100, 50, 200), "benchkit": measured(3.0, 300, 200, 400)}
    found = compare(replace(WORKLOADS[0], trials=4), 3, each)
    script, ours = found.rows
    assert script.rate == Spread(middle=100, low=50, high=200)
    assert script.ratio == Spread(middle=1.0, low=1.0, high=1.0)
    assert ours.ratio == Spread(middle=3.0, low=2.0, high=4.0)
    # A process of benchkit trains all four trials in 36 s. A script trains one in 28 s after 8 s of start, which four
    # in a row would share: 30 s each.
    assert (script.hourly.middle, ours.hourly.middle) == (120.0, 400.0)
    assert ours.hourly_ratio is not None and ours.hourly_ratio.middle == pytest.approx(400 / 120)
    assert ours.first_step == 3.0 and "x3.00 [2.00..4.00]" in found.text()


def test_a_model_that_is_not_compiled_in_every_round_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import rounds
    from workloads import WORKLOADS

    notes = {"always": iter([WAS_COMPILED, WAS_COMPILED, WAS_COMPILED, "compiled model not used: why"])}

    def swept(study: str, options: Sequence[str], *, shown: bool) -> SimpleNamespace:
        compile = tomllib.loads(study)["train"]["compile"]
        outcome = SimpleNamespace(notes=(next(notes.get(compile, iter([""]))),), cost=SimpleNamespace(matrix_share=0.5))
        history = [SimpleNamespace(images_per_second=rate) for rate in (10.0, 200.0, 300.0)]
        return SimpleNamespace(trials=[SimpleNamespace(outcome=outcome, history=history)], first_epoch=999, seconds=9.0)

    def limits(setting: object, *workload: str) -> dict[str, Any]:
        needs = {"images": 128, "kernels": 1, "flops": 1, "bytes": 1}
        return needs if workload else {"precision": "bf16", "matrix": 2.0, "copy": 1.0}

    monkeypatch.setattr(rounds, "_limits", limits)
    monkeypatch.setattr(rounds, "swept", swept)
    setting = rounds.Setting(rounds=2, epochs=3, threads=1, workers=0, device="cpu", quick=False)
    for contenders in (["benchkit", "benchkit-compiled"], ["benchkit"]):
        found = rounds.measure(WORKLOADS[0], ["benchkit", "benchkit-compiled"], setting)
        assert [row.contender for row in found.rows] == contenders
        assert all(row.rate.middle == 250.0 for row in found.rows)
        assert found.limit is not None and found.limit.rate == 128.0
    assert "left out: compiled model not used: why" in capsys.readouterr().out


def test_a_sweep_has_the_images_of_all_trials_at_a_time() -> None:
    import rounds
    from workloads import WORKLOADS

    outcome = SimpleNamespace(cost=SimpleNamespace(matrix_share=0.5))
    history = [SimpleNamespace(images_per_second=rate) for rate in (256.0, 200.0, 300.0)]
    trial = SimpleNamespace(outcome=outcome, history=history)
    done: Any = SimpleNamespace(trials=[trial, trial], first_epoch=17.0, seconds=40.0)
    found = rounds._measured(WORKLOADS[0], done, 2)
    # 2,560 images at 256 a second are 10 s of the 17 until the first epoch was there.
    assert (found.rate, found.jobs, found.first_step, found.seconds) == (500.0, 2, 7.0, 40.0)


def test_goals_are_judged_by_medians() -> None:
    from bench_growth import Growth
    from bench_norms import NormRow
    from comparison import Measured, Spread, compare
    from measurements import OwnCost, Part, Verdict, verdicts
    from workloads import WORKLOADS

    def measured(*rates: float) -> list[Measured]:
        return [Measured(rate=rate, first_step=0.0, seconds=10.0) for rate in rates]

    rows = {"script": measured(100, 100, 100), "benchkit": measured(240, 251, 260)}
    norm = {"precision": "bf16", "threads": 2, "ours": 1.0, "theirs": 1.0}
    part = Part(
        device="cpu", name="a processor", cores=2, torch="2", python="3", dated="2026-01-01", commands={}, threads=2,
        quick=False, load=0.0, images="random images", skipped=(),
        own=(OwnCost(phases={"forward": 57.0, "ledger": 1.0, "checkpoint": 2.0}, watching=0.6),),
        comparisons=(compare(WORKLOADS[0], 3, rows),),
        growth=(
            Growth(name="overhead of a trial", unit="ms", first=40.0, last=20.0, trials=2000),
            Growth(name="memory of the sweep", unit="MiB", first=100.0, last=151.0, trials=2000),
        ),
        norms=(
            NormRow(norm="bn", shape=(1, 2, 3, 4), ratio=Spread(middle=1.31, low=1.0, high=2.0), **norm),
            NormRow(norm="gn", shape=(1, 2, 3, 4), ratio=Spread(middle=0.5, low=0.4, high=1.5), **norm),
        ),
    )  # fmt: skip
    found: dict[tuple[str, str], Verdict] = {}
    for one in verdicts({"cpu": part}):
        found.setdefault((one.work, one.device), one)
    speed = found["ResNet-14, batch 128", "cpu"]
    assert (speed.state, speed.found) == ("met", "2.51 [2.40..2.60] times, n = 3")
    assert found["ResNet-14, batch 128", "cuda"].state == "not measured"
    norms = next(one for one in found.values() if one.work.startswith("bn") and one.device == "cpu")
    assert norms.state == "missed" and norms.found.endswith("above it in 1 of 2 cases: bn")
    own = next(one for one in found.values() if "minute" in one.work and one.device == "cpu")
    assert (own.state, own.found) == ("missed", "at most 6.00% of 60 s, n = 1")
    growth = next(one for one in found.values() if one.work.startswith("A long sweep") and one.device == "cpu")
    assert growth.state == "missed" and growth.found.startswith(
        "at most 1.51 times (memory of the sweep), 2,000 trials"
    )


def test_a_goal_that_a_variant_alone_meets_says_so() -> None:
    from comparison import Measured, compare
    from measurements import _speed
    from pages import _by_variants
    from workloads import WORKLOADS

    def part(default: float) -> SimpleNamespace:
        rates = {"script": 100.0, "benchkit": default, "benchkit-compiled": 300.0}
        rows = {name: [Measured(rate=rate, first_step=0.0, seconds=10.0)] for name, rate in rates.items()}
        compared = compare(WORKLOADS[0], 3, rows)
        return SimpleNamespace(rows=lambda workload: compared.rows)

    alone, both = (_speed(WORKLOADS[0], "cpu", part(default)) for default in (120.0, 280.0))  # type: ignore[arg-type]
    assert alone.state == both.state == "met"
    assert alone.found.endswith(
        "n = 1 (benchkit-compiled, which is not the default; by default 1.20 [1.20..1.20] times)"
    )
    assert (alone.variant, both.variant) == ("benchkit-compiled", "")
    assert _by_variants([alone, both]) == "; 1 of them only by benchkit-compiled, which is not the default"


def test_the_loops_score_what_benchkit_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    import contenders
    from benchmark_images import SCORED
    from workloads import workload_of

    workload = workload_of("resnet14-b128", "cpu", quick=True)
    given = SimpleNamespace(device="cpu", workers=0, epochs=2, best=False, compiled=False)
    scored: list[int] = []

    def score(model: object, batches: Any, device: object, *, fast: bool = False) -> None:
        scored.append(sum(len(labels) for _, labels in batches))

    monkeypatch.setattr(contenders, "_score", score)
    for loop in (contenders.script, contenders.resident, contenders.timm_loader):
        scored.clear()
        assert [sum(steps) for steps in loop(workload, given)] == [workload.count] * 2  # type: ignore[arg-type]
        # Validation images after each epoch, all of them at the end.
        assert scored == [SCORED, SCORED, workload.count, SCORED, SCORED]


def test_a_score_is_of_all_images_by_a_network_that_does_not_learn_from_them() -> None:
    import torch
    from contenders import _score

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 3), torch.nn.Dropout(0.9))
    images, labels = torch.randn(7, 1, 1, 2), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    logits = images.flatten(1) @ model[1].weight.T + model[1].bias
    loss, accuracy = _score(model, zip(images.split(3), labels.split(3), strict=True), torch.device("cpu"))
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert model.training and model[1].weight.grad is None


def test_what_is_between_epochs_is_in_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    import contenders
    import torch

    now = [0.0]
    monkeypatch.setattr(contenders.time, "perf_counter", lambda: now[0])

    def epoch(seconds: float) -> Any:
        now[0] += seconds
        yield 50
        yield 50

    def epochs() -> Any:
        for seconds in (10.0, 5.0):
            yield epoch(seconds)
            now[0] += 1000  # scoring

    device = torch.device("cpu")
    assert contenders.timed(epochs(), device, 0.0)["rates"] == [10.0, 20.0]
    told = contenders.Epochs(device)
    for seconds in (10.0, 5.0):
        now[0] += seconds
        told.validating()
        now[0] += 1000
        told.ended()
    told.validating()  # once more, after the last epoch
    told.ended()
    assert told.rates(100, 2) == [10.0, 20.0]


def test_another_benchmark_that_fails_ends_this_one() -> None:
    from rounds import told

    assert told([sys.executable, "-c", "print('warm'); print('[1, 2]')"]) == [1, 2]
    with pytest.raises(SystemExit, match="no room"):
        told([sys.executable, "-c", "print('[1, 2]'); raise SystemExit('no room')"])


def test_growth_counts_the_time_beyond_training() -> None:
    from bench_growth import Sample, grown

    def at(finished: float) -> SimpleNamespace:
        return SimpleNamespace(finished=finished, history=(SimpleNamespace(seconds=1.0),))

    # Three trials 1.5 s apart, then three 2 s apart, each of 1 s of training.
    trials = [at(moment) for moment in (1.5, 3.0, 4.5, 6.5, 8.5, 10.5)]
    samples = [Sample(when=float(when), sweep=100.0, workers=500.0 + 10 * when) for when in range(12)]
    overhead, sweep, workers = grown(trials, samples, 1)  # type: ignore[arg-type]
    assert (overhead.first, overhead.last) == (500.0, 1000.0)
    assert sweep.ratio == 1.0 and (workers.first, workers.last) == (550.0, 610.0)
    assert sweep.trials == len(trials)


def test_what_is_lost_is_all_but_epochs_from_the_first_trial_on() -> None:
    from bench_growth import Sample, Timed, lost

    # Two workers, four trials of 2 s in 10 s of the clock, 1.5 s of them epochs: 6 of 20; the sweep takes 1 s.
    trials = [SimpleNamespace(history=(SimpleNamespace(seconds=0.5), SimpleNamespace(seconds=1.0)))] * 4
    timed = [
        Timed(began=begin, ended=end, before=before, after=before + 2.0, epochs=1.5)
        for begin, end, before in ((100.0, 103.0, 7.0), (101.0, 104.0, 7.0), (104.0, 108.0, 9.5), (105.0, 110.0, 9.0))
    ]
    samples = [Sample(when=when, sweep=1.0, workers=1.0, processor=when / 10) for when in (90.0, 100.0, 110.0, 120.0)]
    clock, processor = lost(trials, timed, samples, 2)  # type: ignore[arg-type]
    assert clock == pytest.approx(14 / 20) and processor == pytest.approx(3 / 9)


@pytest.mark.slow
def test_a_trial_run_writes_the_report(tmp_path: Path) -> None:
    command = [sys.executable, str(PEERS / "bench.py"), "--quick", "--only", "mlp", "--workers", "0"]
    command += ["--contenders", "script,benchkit", "--out", str(tmp_path), "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "benchmarks.json").read_text())
    (comparison,) = told["parts"]["cpu"]["comparisons"]
    assert [row["contender"] for row in comparison["rows"]] == ["script", "benchkit"]
    assert all(row["rate"]["middle"] > 0 and row["first_step"] > 0 for row in comparison["rows"])
    page = (tmp_path / "benchmarks.html").read_text()
    assert "Its numbers say nothing" in page and "benchkit beside its peers" in page
    assert page.count("Not measured</") > page.count("Met</") + page.count("Missed</")


@pytest.mark.parametrize("name", ["bench", "bench_fused", "bench_growth", "bench_norms", "bench_stream"])
def test_a_device_that_is_not_there_is_one_clear_error(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--device", "cuda:99"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "argument --device: cuda:99: there is no such device here (known: auto, cpu" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--only", "resnet99"],
            "argument --only: resnet99 is in no name of a piece; expected (part of) one of resnet14-",
        ),
        (["--contenders", "script,keras"], "argument --contenders: keras cannot run here; expected some of script, "),
    ],
    ids=["only", "contenders"],
)
def test_a_name_that_fits_nothing_is_one_clear_error(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick", "--out", str(tmp_path / "new"), *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("bench").main()
    assert ended.value.code == 2 and told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


LOG = """\
Training with a single process on 1 device (cpu).
Train: 0 [   0/20 (  5%)]  Loss: 2.35 (2.35)  Time: 1.250s,  102.40/s  (1.250s,  102.40/s)  LR: 1e-02  Data: 0.9 (0.9)
Train: 0 [  19/20 (100%)]  Loss: 2.00 (2.20)  Time: 0.200s,  640.00/s  (0.256s,  500.00/s)  LR: 1e-02  Data: 0.0 (0.1)
Train: 1 [   0/20 (  5%)]  Loss: 1.99 (1.99)  Time: 1.250s,  102.40/s  (1.250s,  102.40/s)  LR: 5e-03  Data: 0.9 (0.9)
Train: 1 [  19/20 (100%)]  Loss: 1.80 (1.90)  Time: 0.200s,  640.00/s  (0.213s,  600.50/s)  LR: 5e-03  Data: 0.0 (0.1)
"""


def test_timms_train_script_is_read_by_its_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from timm_script import command_line, image_folder, run
    from workloads import workload_of

    workload = workload_of("mlp-b128", "cpu", quick=True)
    script = tmp_path / "train.py"
    script.write_text(f"import sys; print({LOG!r}, file=sys.stderr)")
    began = time.time()
    with image_folder(workload) as folder:
        assert len(list(folder.glob("train/*/*.png"))) == workload.count
        assert len(list(folder.glob("val/*/*.png"))) == 100
        line = command_line(script, workload, folder, 2, 0, "cpu")
        found = run(line, environment())
        assert found.rates == (500.0, 600.5) and began <= found.first_step <= time.time()
        script.write_text("print('no such option'); raise SystemExit(2)")
        with pytest.raises(SystemExit, match="no such option"):
            run(line, environment())
    assert not folder.exists()


def test_timm_builds_a_workloads_model_by_name() -> None:
    import timm_model  # noqa: F401  (makes it known)
    from timm import create_model
    from workloads import WORKLOADS

    workload = WORKLOADS[0]
    made = create_model("benchmark_model", num_classes=10, in_chans=3, drop_rate=0.0, workload=workload.name)
    shapes = [parameter.shape for parameter in made.parameters()]
    assert shapes == [parameter.shape for parameter in workload.build().parameters()]


def test_fused_trials_train_as_if_each_were_alone() -> None:
    import torch
    from benchkit_models.resnet import resnet
    from fused import WAYS, training_step

    torch.manual_seed(0)
    models = [resnet(10, (3, 8, 8), torch.nn.BatchNorm2d, n=1, width=4, shortcut="B") for _ in range(3)]
    images, labels = torch.randn(3, 8, 3, 8, 8), torch.randint(10, (3, 8))
    losses = {}
    for name, way in WAYS.items():
        forward, parameters = way(copy.deepcopy(models))
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        step = training_step(forward, optimizer, images, labels, bf16=False)
        losses[name] = torch.stack([step() for _ in range(4)])
    alone = losses.pop("one after another")
    assert alone.shape == (4, 3) and (alone[0] - alone[3]).min() > 0.05
    for found in losses.values():
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_a_report_keeps_what_was_measured_on_the_other_device(tmp_path: Path) -> None:
    from kept import known_parts
    from measurements import Part
    from pages import write

    about = {"cores": 2, "torch": "2", "python": "3", "dated": "2026-01-01", "commands": {"norms": "bench"},
             "threads": 2, "quick": False, "load": 0.5, "images": "random images", "skipped": (), "comparisons": (),
             "norms": (), "own": ()}  # fmt: skip
    gpu = Part(device="cuda", name="a GPU", **about)  # type: ignore[arg-type]
    write(tmp_path, {"cuda": gpu})
    assert known_parts(tmp_path) == {"cuda": gpu}
    assert known_parts(tmp_path / "nowhere") == {}


def test_a_later_run_of_some_workloads_keeps_the_others() -> None:
    from comparison import Measured, compare
    from measurements import Part
    from workloads import WORKLOADS

    def part(rate: float, command: str, *names: str, torch: str = "2") -> Part:
        found = {"benchkit": [Measured(rate=rate, first_step=0.0, seconds=1.0)]}
        compared = tuple(compare(one, 3, found) for one in WORKLOADS if one.name in names)
        return Part(
            device="cpu", name="a processor", cores=2, torch=torch, python="3", dated="2026-01-01",
            commands=dict.fromkeys(names, command), threads=2, quick=False, load=0.0, images="random images",
            skipped=(),
            comparisons=compared, norms=(), own=(),
        )  # fmt: skip

    first, again = part(1.0, "all", "mlp-b128", "resnet14-b8"), part(2.0, "again", "mlp-b128")
    both = again.after(first)
    rates = {one.name: one.rows[0].rate.middle for one in both.comparisons}
    assert rates == {"resnet14-b8": 1.0, "mlp-b128": 2.0}
    assert both.commands == {"mlp-b128": "again", "resnet14-b8": "all"}
    assert part(2.0, "again", "mlp-b128", torch="3").after(first).commands == {"mlp-b128": "again"}
    assert again.after(None) == again
