"""The benchmark's limits: a machine's rates, shares of what they allow, and trials an hour, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

PEERS = Path(__file__).parent / "peers"


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))


def limit(matrix: tuple[float, float] = (2e9, 2e9), copy: tuple[float, float] = (1e9, 1e9)) -> Any:
    """Return that of a step of 100 images with 1 GFLOP and 0.25 GB, on a machine with rates before and after."""
    from limits import Limit, Needs, Rates

    before, after = (Rates(precision="bf16", matrix=matrix[at], copy=copy[at]) for at in (0, 1))
    return Limit(needs=Needs(images=100, kernels=7, flops=10**9, bytes=10**9 // 4), before=before, after=after)


def test_the_limit_is_the_larger_of_both_times() -> None:
    # A step takes 0.5 s by its products and 0.25 s by its bytes; at half the copy rate 0.5, at a quarter 1 s.
    assert limit().rate == pytest.approx(200) and limit(copy=(0.25e9, 0.25e9)).rate == pytest.approx(100)
    # The better one of two rates counts, and rates that differ by more than a tenth tell of a loaded machine.
    assert limit(matrix=(2e9, 2.19e9)).rate == pytest.approx(219) and not limit(matrix=(2e9, 2.19e9)).loaded
    assert limit(matrix=(2.21e9, 2e9)).loaded and limit(copy=(1e9, 1.2e9)).loaded
    assert "(loaded machine" in limit(copy=(1e9, 1.2e9)).text() and "loaded" not in limit().text()
    assert "1.00 GFLOP and reads and writes 250.0 MB in bf16" in limit().text()


def with_limit(rates: dict[str, float], name: str = "resnet14-b128", **changes: Any) -> Any:
    """Return a comparison of processes of three epochs, whose first step takes 8 s and whose end 1 s."""
    from comparison import Measured, compare
    from workloads import workload_of

    workload = workload_of(name, "cpu", quick=False)
    jobs = {contender: int(contender.partition("--jobs ")[2] or 1) for contender in rates}
    found = {
        contender: [
            Measured(
                rate=rate, first_step=8.0, jobs=jobs[contender],
                seconds=8.0 + jobs[contender] * 3 * workload.count / rate + 1.0,
            )
        ]
        for contender, rate in rates.items()
    }  # fmt: skip
    return replace(compare(workload, 3, found), limit=limit(**changes))


def test_trials_an_hour_by_their_length() -> None:
    found = with_limit({"script": 100.0, "timm-best": 200.0, "benchkit": 400.0})
    # A sixteenth of 8 s of start, 1 s beside the steps, and 10 s of the script's steps: 5 and 2.5 s of the others'.
    ten = found.hourly(10)
    assert ten["script"] == pytest.approx(3600 / 11.5) and ten["timm-best"] == pytest.approx(3600 / 6.5)
    assert ten["benchkit"] == pytest.approx(3600 / 4)
    assert found.hourly(600)["benchkit"] == pytest.approx(3600 / 151.5)
    assert with_limit({"timm-best": 200.0}).hourly(10) == {}
    assert "200% of the limit" in found.text()


def test_a_queue_is_trained_as_benchkit_does_by_default() -> None:
    rates = {"script": 100.0, "timm-best": 200.0, "benchkit": 400.0, "benchkit --jobs 2": 500.0}
    found = with_limit(rates)
    # Two at a time: a sixteenth of 8 s of start, and for two trials 1 s beside their steps and 4 s of these.
    assert found.hourly(10)["benchkit --jobs 2"] == pytest.approx(3600 / (0.5 + 5 / 2))
    row = found.rows[-1]
    assert row.hourly.middle == pytest.approx(3600 / ((9 + 2 * 3 * 2560 / 500) / 2)) and row.jobs == 2
    assert {found.default(seconds) for seconds in (10, 60, 600)} == {"benchkit --jobs 2"}
    assert with_limit({"script": 1.0, "benchkit": 2.0}).default(10) == "benchkit"
    compiled = {"benchkit-compiled": 450.0, "benchkit-compiled --jobs 2": 700.0}
    long = replace(with_limit({**rates, **compiled}), compiled=(600,))
    assert (long.default(60), long.default(600)) == ("benchkit --jobs 2", "benchkit-compiled --jobs 2")
    told = judged(long)["ResNet-14, batch 128", "trials"].found
    # 10 min: 60,000 images; 301.5 s with timm's loader, 0.5 + (1 + 171.4) / 2 compiled.
    assert "3.48 times timm-best's at 10 min (by default: benchkit --jobs 2 and benchkit-compiled --jobs 2)" in told
    speed = judged(long)["ResNet-14, batch 128", "2.5"]
    assert (
        speed.variant == "" and "benchkit-compiled --jobs 2, which is not the default; by default 5.00" in speed.found
    )


def test_steps_of_a_long_queue_are_compiled_where_the_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import rounds
    from workloads import workload_of

    from benchkit.sweep.messages import Seat

    seat = Seat(kind="cpu", precision="bf16", bf16=True, instructions="avx512-bf16")
    monkeypatch.setattr(rounds, "seat_of", lambda device: seat)
    eight, mlp = (workload_of(name, "cpu", quick=False) for name in ("resnet14-b8", "mlp-b128"))
    # By the table 16 trials of 1,200 steps save 88 s of 345 and take 99 to compile, of 18,000 steps fifteen times that.
    assert [rounds.compiled_by_default(eight, images) for images in (9_600, 144_000, rounds.LONG)] == [
        False,
        True,
        True,
    ]
    assert not rounds.compiled_by_default(mlp, rounds.LONG)


def judged(*compared: Any) -> dict[tuple[str, str], Any]:
    from measurements import Part, verdicts

    part = Part(
        device="cpu", name="a processor", cores=2, torch="2", python="3", dated="2026-01-01", commands={}, threads=2,
        quick=False, load=0.0, images="random images", skipped=(), comparisons=compared,
    )  # fmt: skip
    goals = [one for one in verdicts({"cpu": part}) if one.device == "cpu"]
    return {(one.work, one.goal.partition(" ")[0]): one for one in goals}


def test_goals_in_shares_of_the_limit() -> None:
    title = "ResNet-14, batch 128"
    missed = judged(with_limit({"script": 100.0, "benchkit": 139.0}))[title, "at"]
    assert (missed.state, missed.found) == ("missed", "69.5%, n = 1")
    met = judged(with_limit({"script": 100.0, "benchkit": 130.0, "benchkit-compiled": 141.0}, copy=(1e9, 2e9)))[
        title, "at"
    ]
    assert (met.state, met.variant) == ("met", "benchkit-compiled")
    assert "by default 65.0%" in met.found and met.found.endswith("differ by more than a tenth")
    eight = judged(with_limit({"script": 10.0, "benchkit": 91.0}, "resnet14-b8"))["ResNet-14, batch 8", "at"]
    assert eight.state == "met" and eight.goal.startswith("at least 45%")
    assert judged()[title, "at"].state == judged()[title, "trials"].state == "not measured"


def test_the_goal_of_trials_an_hour_holds_at_every_length() -> None:
    title = "ResNet-14, batch 128"
    rates = {"script": 100.0, "timm-best": 200.0, "benchkit": 280.0}
    found = judged(with_limit(rates))[title, "trials"]
    # 10 s: 6.5 s against 5.07; 10 min: 301.5 against 215.8.
    assert found.state == "missed" and found.found.startswith("1.28 times timm-best's at 10 s, 1.3")
    assert judged(with_limit({**rates, "benchkit": 300.0}))[title, "trials"].state == "met"


def test_a_page_tells_the_limit_and_the_lengths(tmp_path: Path) -> None:
    from measurements import Part
    from pages import report_of

    from benchkit.report.files.html import render_html

    compared = (with_limit({"script": 100.0, "benchkit": 150.0}, copy=(1e9, 1.2e9)),)
    part = Part(
        device="cpu", name="a processor", cores=2, torch="2", python="3", dated="2026-01-01", commands={}, threads=2,
        quick=False, load=0.0, images="random images", skipped=(), comparisons=compared,
    )  # fmt: skip
    page = render_html(report_of({"cpu": part})[0])
    assert "Of the limit" in page and "loaded machine" in page and "trials an hour by their length" in page
    assert "at most 200 images/s" in page


@pytest.mark.slow
def test_the_machines_rates_and_a_steps_needs_are_told() -> None:
    from limits import Needs, Rates
    from rounds import Setting, _limits

    from benchkit.storage import decode

    setting = Setting(rounds=1, epochs=2, threads=1, workers=0, device="cpu", quick=True)
    assert decode(Rates, _limits(setting)).matrix > 1e9
    needs = decode(Needs, _limits(setting, "mlp-b128"))
    # 784-500-500-10 on 8 images, two operations each for three passes.
    assert needs.images == 8 and needs.flops == 3 * 2 * 8 * (784 * 500 + 500 * 500 + 500 * 10)


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        # Of an image, stage by stage: kernel x channels in x channels out x places, and the layer to ten classes.
        ("resnet14-b128", 9 * 3 * 16 * 32**2 + 4 * 9 * 16**2 * 32**2 + 2 * (9 * 16**2 * 32**2 // 2 * 7) + 640),
        ("mlp-b128", 784 * 500 + 500 * 500 + 500 * 10),
        ("resnet18-b128", 9 * 3 * 64 * 32**2 + 4 * 9 * 64**2 * 32**2 + 3 * (9 * 64**2 * 32**2 * 7 // 2 + 2**21) + 5120),
        (
            "resnet18-224",
            49 * 3 * 64 * 112**2 + 4 * 9 * 64**2 * 56**2 + 3 * (9 * 64**2 * 56**2 * 7 // 2 + 6422528) + 5120,
        ),
    ],
)
def test_operations_are_those_of_the_layers_counted_by_hand(name: str, macs: int) -> None:
    import torch
    from step_counts import counted_step
    from workloads import workload_of

    workload = workload_of(name, "cpu", quick=False)
    images, labels = torch.rand(2, workload.channels, workload.side, workload.side), torch.tensor([0, 1])
    assert counted_step(workload.build(), images, labels, bytes_of_a_number=4).flops == 3 * 2 * 2 * macs


def test_a_loop_of_its_own_is_told_from_one_end_of_an_epoch_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    import contenders
    import torch

    clock = iter((10.0, 14.0, 24.0, 26.0, 30.0))
    monkeypatch.setattr(contenders.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(contenders.time, "time", lambda: next(clock, 99.0))
    told = contenders.Epochs(torch.device("cpu"))
    for _ in range(2):
        told.validating()
        told.ended()
    assert told.rates(100, 2) == [25.0, 50.0]
    told.stepped()
    monkeypatch.setattr(contenders.time, "time", lambda: 100.0)
    told.stepped()
    assert told.first == 99.0
