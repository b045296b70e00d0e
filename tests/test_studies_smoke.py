"""Every built-in study, in its smoke form, from the command to trials of every condition and to an HTML report."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest
import timm
from benchkit_regularizers.dropout import Dropout
from tiny_study import InlinePool, environment

import benchkit.sweep.orchestration
from benchkit.cli import main
from benchkit.ledger import read_results
from benchkit.plan import make_plan, typed_settings
from benchkit.registry import Registry
from benchkit.study.studyfile import find_study

REGISTRY = Registry.installed()
BUILT_IN = [entry.name for entry in REGISTRY.entries("studies") if entry.distribution == "benchkit"]

QUICK = {"quickstart", "regularization-mnist"}
"""The studies that every run of the tests takes: a search, and regularizers as a factor."""

NOT_IN_SMOKE = {"grad-cam"}
"""Figures whose images, of named classes, the smoke form's data do not have."""


def report_json(folder: Path, name: str) -> str:
    return (folder / "reports" / f"{name}-smoke" / "results.json").read_text()


def test_there_are_the_studies_of_the_five_source_reports() -> None:
    sources = {
        "norms-birds25 batch-size-birds25",
        "norms-cifar10 batch-size-cifar10 baseline-cifar10",
        "skip-coco5",
        "regularization-mnist scratch-cifar10 transfer-cifar10 dropout-tiny-cifar10",
        "ablation-cifar100 transfer-birds200 pretrain-cifar100",
    }
    assert {"quickstart", "transfer-lite0-cifar10", *" ".join(sources).split()} == set(BUILT_IN)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BUILT_IN]
)
def test_a_built_in_study_goes_from_smoke_to_report(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(benchkit.sweep.orchestration, "Pool", InlinePool)

    assert main(["sweep", name, "--smoke"]) == 0, capsys.readouterr()
    assert main(["report", f"{name}-smoke", "--format", "html"]) == 0, capsys.readouterr()

    study = find_study(name, REGISTRY, smoke=True)
    planned = {condition.key for condition in make_plan(study).conditions}
    trials = read_results(tmp_path / "benchkit-runs").trials
    assert {trial.state for trial in trials} <= {"done", "pruned"}
    assert planned <= {trial.condition.key for trial in trials if trial.state == "done"}
    page = unescape((tmp_path / "reports" / f"{name}-smoke.html").read_text())
    assert study.title in page and study.question in page
    drawn = {figure["plugin"] for figure in json.loads(report_json(tmp_path, name))["figures"]}
    assert {plugin for plugin, _ in study.report.figures} - drawn <= NOT_IN_SMOKE


def test_the_dropout_grid_drops_after_the_first_convolution_and_before_the_classifier_alone() -> None:
    study = find_study("dropout-tiny-cifar10", REGISTRY)
    conditions = {condition.label: condition for condition in make_plan(study).conditions}
    settings = typed_settings(conditions["dropout 0.6/0.2"].settings, study.seed)
    model = timm.create_model("resnet18", num_classes=10)
    for one in settings.regularizers:
        if one.plugin.name == "dropout":
            Dropout(**{**one.plugin.options, "after": tuple(one.plugin.options["after"])}).prepare(model)
    dropped = {
        name: hook.rate
        for name, module in model.named_modules()
        for hook in module._forward_hooks.values()
        if hasattr(hook, "rate")
    }
    assert dropped == {"conv1": 0.6, "global_pool": 0.2}
