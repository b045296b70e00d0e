"""Trials of one condition by several sources of a plugin: refused, or allowed and then told by the report."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import complete
from tiny_study import Listener, run_here, study_of, sweep_here, write

import benchkit.metrics
from benchkit.analysis.summary import summarize
from benchkit.capsule import read_capsule
from benchkit.capsule.reading import restored
from benchkit.cli import main
from benchkit.data.dataset import maker_warning
from benchkit.errors import LedgerError
from benchkit.ledger import read_results
from benchkit.metrics import Metric, asked_names, declaration_of, know_recorded, metric_of, plugin_metrics
from benchkit.registry import Registry
from benchkit.registry.kit_record import KIT_VERSION, KitResult, keep
from benchkit.registry.registry import Entry
from benchkit.registry.sources import source_hash
from benchkit.report.context.glossary import used_plugins
from benchkit.report.context.sections import by_origin, plugin_facts
from benchkit.report.write import write_report
from benchkit.results import StudyResults
from benchkit.verify.machine import plugin_differences
from benchkit.verify.opening import open_report

FILE = """
from dataclasses import dataclass

from benchkit.metrics import Metric, declared
from torch import nn


class Scaled(nn.Module):
    def __init__(self, num_channels):
        super().__init__()

    def forward(self, x):
        return x * 1.5


@dataclass(frozen=True)
class Patient:
    def stop(self, history):
        return False


@declared(Metric(name="part_right", words="part right", unit="%", factor=100.0, decimals=2, high=1.0))
def part_right(scored):
    return float((scored.logits.argmax(1) == scored.labels).mean()) * 1.0


PLUGINS = {
    "benchkit.norms": {"scaled": Scaled},
    "benchkit.regularizers": {"patient": Patient},
    "benchkit.metrics": {"part-right": part_right},
}
"""
NORM = '[factors]\n"model.norm" = ["scaled", "none"]\n'
METRIC = '[report]\nmetrics = ["part-right"]\n'
HOPELESS = ("train.optimizer.lr=0.000001",)
"""The study's own settings, which the random ones of a search beat."""
REFUSED = "was trained with other sources of its plugins"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    monkeypatch.setattr(benchkit.metrics, "_OF_FILES", {})
    Registry.installed((path,))  # its metric is one that a study may name
    return path


def edited(file: Path, old: str = "x * 1.5", new: str = "x / 1.5") -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def rules(results: StudyResults) -> list[str]:
    return [one.sentence for one in summarize(results).findings if one.rule == "changed-plugins"]


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (NORM, "norm 'scaled'"),
        ('[[regularizers]]\nname = "patient"\n', "regularizer 'patient'"),
        (METRIC, "metric 'part-right'"),
        ('[report]\nmetric = "test.part_right"\n', "metric 'part-right'"),
    ],
    ids=["norm", "regularizer", "metric", "main metric"],
)
def test_a_changed_plugin_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path, part: str, named: str
) -> None:
    def sweep(repeats: int, **more: Any) -> Any:
        sweep_here(monkeypatch, tmp_path / "runs", study_of(part, repeats=repeats), plugins=(file,), **more)

    sweep(1)
    before = [trial.number for trial in read_results(tmp_path / "runs").trials]
    edited(file)
    with pytest.raises(LedgerError, match=REFUSED) as refused:
        sweep(2)
    (line,) = refused.value.problems
    assert line.startswith(f"{named} of mine.py: 1 trial with source ") and line.endswith(" (mine.py)")
    assert "new --workspace" in refused.value.hint and "--allow-changed-plugins" in refused.value.hint
    assert [trial.number for trial in read_results(tmp_path / "runs").trials] == before
    edited(file, "x / 1.5", "x * 1.5")
    sweep(2)
    assert rules(read_results(tmp_path / "runs")) == []


def test_trials_of_a_changed_plugin_are_merged_only_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    sweep_here(monkeypatch, tmp_path / "here", study_of(NORM, repeats=1), plugins=(file,))
    sweep_here(monkeypatch, tmp_path / "same", study_of(NORM, repeats=2), plugins=(file,))
    edited(file)
    sweep_here(monkeypatch, tmp_path / "other", study_of(NORM, repeats=3), plugins=(file,))
    merge = ("merge", "--workspace", "here")
    assert run_here(monkeypatch, tmp_path, *merge, "same", "other") == 2
    said = capsys.readouterr().err
    assert (
        "other: its tiny was trained with other sources of its plugins\n  - norm 'scaled' of mine.py: source " in said
    )
    assert "--allow-changed-plugins" in said and len(read_results(tmp_path / "here").trials) == 2, "nothing was taken"
    assert run_here(monkeypatch, tmp_path, "merge", "--workspace", "new", "same", "other") == 2, "nor into a new one"
    assert run_here(monkeypatch, tmp_path, *merge, "same") == 1, "one was trained twice"
    assert run_here(monkeypatch, tmp_path, *merge, "other", "--allow-changed-plugins") == 1
    capsys.readouterr()
    assert run_here(monkeypatch, tmp_path, *merge, "other") == 1 and "sources" not in capsys.readouterr().err


def test_what_is_allowed_is_said_and_told_by_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    sweep_here(monkeypatch, tmp_path / "runs", study_of(NORM, METRIC, repeats=1), plugins=(file,))
    edited(file)
    told: list[str] = []
    monkeypatch.setattr(Listener, "say", lambda self, words: told.append(words))
    study = study_of(NORM, METRIC, repeats=2)
    sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(file,), allow_changed_plugins=True)
    assert sum("norm 'scaled' of mine.py: 1 trial with source" in words for words in told) == 1
    results = read_results(tmp_path / "runs")
    assert rules(results) == [
        "Trials that are averaged were trained with 2 sources of the norm \u201cscaled\u201d: \u201cscaled\u201d.",
        "Trials that are averaged were measured with 2 sources of the metric \u201cpart-right\u201d: "
        "\u201cscaled\u201d and \u201cnone\u201d.",
    ]
    recorded = [trial.outcome.environment["sources"] for trial in results.trials if trial.outcome]
    assert {one["report.metrics.part-right"]["file"] for one in recorded} == {"mine.py"}


def test_other_trials_go_on_with_a_changed_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Complete conditions, those of other plugins, and trials that failed and are trained again bear any source."""
    failing = FILE.replace("return x * 1.5", "return x * 1.5 if not self.training else x.no_such_thing")
    file.write_text(failing.replace("return False", "raise ValueError('no good')"))
    patient = '[[regularizers]]\nname = "patient"\n'
    sweep_here(monkeypatch, tmp_path / "runs", study_of(patient, repeats=1), plugins=(file,))
    file.write_text(FILE)
    states = sweep_here(
        monkeypatch, tmp_path / "runs", study_of(patient, repeats=2), plugins=(file,), retry=("failed",)
    )
    assert states == {"done": 2}
    edited(file)
    assert sweep_here(monkeypatch, tmp_path / "runs", study_of(patient, repeats=2), plugins=(file,)) == {"done": 2}
    only = {"model.norm": ["none"]}
    sweep_here(
        monkeypatch, tmp_path / "norm", study_of(NORM, repeats=1), plugins=(file,), only={"model.norm": ["scaled"]}
    )
    edited(file, "x / 1.5", "x * 1.5")
    assert sweep_here(monkeypatch, tmp_path / "norm", study_of(NORM, repeats=2), plugins=(file,), only=only)


def test_trials_that_are_trained_again_must_fit_those_that_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    sweep_here(monkeypatch, tmp_path / "runs", study_of(NORM, repeats=2), plugins=(file,))
    trials = [trial for trial in read_results(tmp_path / "runs").trials if trial.condition.label == "scaled"]
    edited(file)
    asked: dict[str, Any] = {"plugins": (file,), "retry": ("missing files",)}
    (trials[0].folder / "result.json").unlink()
    with pytest.raises(LedgerError, match=REFUSED) as refused:
        sweep_here(monkeypatch, tmp_path / "runs", study_of(NORM, repeats=2), **asked)
    assert "1 trial with" in refused.value.problems[0]
    (trials[1].folder / "result.json").unlink()
    assert sweep_here(monkeypatch, tmp_path / "runs", study_of(NORM, repeats=2), **asked) == {"done": 4}
    assert rules(read_results(tmp_path / "runs")) == []


def test_the_confirmation_of_a_search_keeps_its_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    searching = '[search]\ntrials = 2\nsampler = "random"\nspace."train.optimizer.lr" = { low = 0.01, high = 1.0 }\n'
    patient = '[[regularizers]]\nname = "patient"\n'

    def sweep(confirms: int) -> Any:
        study = study_of(searching, patient, f"[confirm]\nn = {confirms}\n", repeats=2, overrides=HOPELESS)
        return sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(file,))

    sweep(1)
    assert [one.kind for one in read_results(tmp_path / "runs").conditions] == ["grid", "search", "confirm-best"]
    edited(file)
    with pytest.raises(LedgerError, match=REFUSED):
        sweep(2)


def test_looks_that_ask_for_more_keep_their_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    asked: dict[str, Any] = {"plugins": (file,)}
    sweep_here(monkeypatch, tmp_path / "runs", study_of(NORM, repeats=2), **asked)
    edited(file)
    with pytest.raises(LedgerError, match=REFUSED):
        sweep_here(monkeypatch, tmp_path / "runs", study_of(NORM, repeats=2), until_decided=True, most=4, **asked)


def test_the_command_line_refuses_and_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "mine.toml", NORM, epochs=1, repeats=1)
    sweep = ("sweep", "mine.toml", "--plugin", "mine.py", "--jobs", "1", "--device", "cpu")
    assert run_here(monkeypatch, tmp_path, *sweep) == 0
    edited(file)
    write(tmp_path / "mine.toml", NORM, epochs=1, repeats=2)
    capsys.readouterr()
    assert run_here(monkeypatch, tmp_path, *sweep) == 2
    assert REFUSED in " ".join(capsys.readouterr().err.split())
    assert run_here(monkeypatch, tmp_path, *sweep, "--allow-changed-plugins") == 0


def test_a_metric_that_is_measured_later_tells_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    """The first repeat is trained without the metric and measured when it is read, the second while it is trained."""
    runs = tmp_path / "runs"
    sweep_here(monkeypatch, runs, study_of(repeats=1), plugins=(file,))
    sweep_here(monkeypatch, runs, study_of(METRIC, repeats=2), plugins=(file,))
    assert rules(read_results(runs)) == []
    edited(file)
    Registry.installed((file,))
    (sentence,) = rules(read_results(runs))
    assert "measured with 2 sources of the metric" in sentence


LINES = """
import numpy as np
from benchkit.preparation import About, prepare


def lines(root):
    def build(draft):
        for split in ("train", "test"):
            labels = np.arange(200) % 2
            images = np.where(labels[:, None, None, None] == 1, 200 + 0 * np.indices((200, 8, 8, 1))[2], 30)
            draft.write(split, images=images.astype(np.uint8), labels=labels)
        return About(class_names=("dark", "light"), licence="CC0-1.0", citation="none")

    return prepare(root, "lines", build)


PLUGINS = {"benchkit.datasets": {"lines": lines}}
"""


def test_prepared_images_are_told_from_a_changed_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are served as they were prepared, so their source is the one that is recorded; a note says what to do."""
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "data"))
    file = tmp_path / "lines.py"
    file.write_text(LINES)
    told: list[str] = []
    monkeypatch.setattr(Listener, "say", lambda self, words: told.append(words))

    def swept(runs: str) -> tuple[str, str]:
        study = study_of(repeats=1, overrides=('data.name="lines"',))
        sweep_here(monkeypatch, tmp_path / runs, study, plugins=(file,), data_root=tmp_path / "data")
        (trial,) = read_results(tmp_path / runs).trials
        assert trial.outcome is not None
        return trial.outcome.environment["sources"]["data"]["source"], trial.outcome.data_fingerprint

    before = swept("before")
    assert told == []
    old = source_hash(Registry.installed((file,)).find("datasets", "lines"))
    edited(file, "== 1, 200", "== 1, 100")
    new = source_hash(Registry.installed((file,)).find("datasets", "lines"))
    assert swept("after") == before and before[0] == old != new
    assert [f"another source of the data set ({old}) than is here ({new})" in words for words in told] == [True]
    record = {"sources": {"data": {"kind": "datasets", "name": "lines", "source": old, "file": "lines.py"}}}
    assert len(plugin_differences(record, Registry.installed((file,)))) == 1
    assert main(["data", "prepare", "lines", "--plugin", str(file)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "prepared already" in said and "`benchkit data prepare lines --replace --plugin lines.py`" in said
    assert main(["data", "prepare", "lines", "--plugin", str(file), "--replace"]) == 0
    told.clear()
    source, fingerprint = swept("anew")
    assert told == [] and source == new and fingerprint != before[1]


def test_a_set_prepared_by_an_earlier_version_is_of_no_known_source(tmp_path: Path) -> None:
    file = tmp_path / "lines.py"
    file.write_text(LINES)
    entry = Registry.installed((file,)).find("datasets", "lines")
    own = Registry.installed().find("datasets", "digits")
    assert maker_warning(entry, "") == maker_warning(own, "000000000000") == ""


CARDS = FILE.replace(
    "class Scaled",
    """from benchkit import card


@card(title="Scaling", summary="Times a half more.", reference="A. Author, Scaling, ICML 2021", url="https://a.org")
class Scaled""",
)


def test_cards_are_told_where_the_plugins_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text(CARDS)
    sweep_here(monkeypatch, tmp_path / "runs", study_of(NORM, METRIC, repeats=1), plugins=(file,))
    results = read_results(tmp_path / "runs")
    known = used_plugins(results, Registry.installed((file,)))
    elsewhere = used_plugins(results, Registry.installed())
    assert known == elsewhere
    (norm,) = [one for one in elsewhere if one.name == "scaled"]
    assert (norm.origin, norm.title, norm.summary) == ("mine.py", "Scaling", "Times a half more.")
    assert (norm.reference, norm.url) == ("A. Author, Scaling, ICML 2021", "https://a.org")
    twice = Registry(plugins=tuple(replace(norm_of(file), distribution=name) for name in ("one", "two")))
    assert [one.title for one in used_plugins(results, twice) if one.name == "scaled"] == ["Scaling"]


def norm_of(file: Path) -> Entry:
    return Registry.installed((file,)).find("norms", "scaled")


def test_a_plugin_of_which_nothing_is_known_is_named_as_such(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn",), repeats=1)
    (norm,) = [one for one in used_plugins(results, Registry(plugins=())) if one.kind == "norms"]
    assert (norm.origin, norm.title) == ("not available here", "There is no norm 'bn'")


def test_declarations_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchkit.metrics, "_OF_FILES", {})
    metric = Metric(
        name="odd", words="oddness", lower_is_better=True, unit="nats", low=-math.inf, axis=("odd", "nats", 2.0),
        every_epoch=True, undefined="never",
    )  # fmt: skip
    recorded = json.loads(json.dumps({"metrics": {"odd": declaration_of(metric)}}, allow_nan=False))
    know_recorded(recorded)
    assert metric_of("test.odd") == metric and asked_names(["odd"]) == ("odd",)
    for wrong in ({"words": 3}, {"words": "w", "low": "much"}, "text", {"axis": []}):
        know_recorded({"metrics": {"worse": wrong}})
    know_recorded({"metrics": ["odd"]})
    know_recorded({"metrics": {"accuracy": {"words": "w"}, "brier": {"words": "w"}}})
    assert "worse" not in plugin_metrics()
    assert metric_of("accuracy").words == "accuracy" and metric_of("brier").words != "w"


def test_a_report_by_a_metric_that_is_not_here_is_read_with_its_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    file.write_text(FILE.replace("high=1.0", "high=1.0, lower_is_better=True"))
    Registry.installed((file,))
    study = study_of(NORM, '[report]\nmetric = "test.part_right"\n', repeats=2)
    sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(file,))
    results = read_results(tmp_path / "runs")
    write_report(results, tmp_path, "html", registry=Registry.installed((file,)))
    ranking = summarize(results).ranking
    for forgotten in ("capsule", "ledger"):
        monkeypatch.setattr(benchkit.metrics, "_OF_FILES", {})
        benchkit.metrics._plugin.cache_clear()
        if forgotten == "ledger":
            assert summarize(read_results(tmp_path / "runs")).ranking == ranking
            continue
        with restored(read_capsule(open_report(tmp_path / "tiny.html").capsule)) as (again,):
            assert [one.label for one in summarize(again).ranking.rows] == [one.label for one in ranking.rows]
            assert metric_of("test.part_right").lower_is_better and metric_of("part_right").words == "part right"


FIGURE = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Nothing:
    caption = "Nothing."
    alt_text = "Nothing."

    def data(self, results):
        return ()

    def draw(self, data):
        return None


PLUGINS = {"benchkit.figures": {"nothing": Nothing}}
"""


def test_plugins_are_told_with_the_kits_result_but_for_benchkits_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    """Of what trials record, and of a figure, which no trial does; benchkit's own tests put its plugins through it."""
    figure = tmp_path / "nothing.py"
    figure.write_text(FIGURE)
    study = study_of(NORM, '[report]\nfigures = ["nothing"]\n', repeats=1)
    sweep_here(monkeypatch, tmp_path / "runs", study, plugins=(file, figure))
    results, registry = read_results(tmp_path / "runs"), Registry.installed((file, figure))
    drawn = registry.find("figures", "nothing")

    def told() -> dict[str, str]:
        known = used_plugins(results, registry)
        return {fact.name: by_origin(fact).value for fact in plugin_facts(results, known)}

    digest = hashlib.sha256(b"nothing.py\n" + hashlib.sha256(figure.read_bytes()).digest()).hexdigest()[:12]
    assert told()["figure nothing"].endswith(f" (nothing.py, source {digest}, not checked by the kit)")
    assert "mine.py, source " in told()["model.norm"] and "not checked by the kit" in told()["model.norm"]
    assert "source " in told()["model"] and "by the kit" not in told()["model"] and told()["model"].endswith(")")
    keep(drawn, KitResult(kit=KIT_VERSION, passed=7, skipped=0, failed=(), known={}, when=0.0))
    assert f"source {digest}, passed all 7 checks of kit {KIT_VERSION})" in told()["figure nothing"]


def sourced(results: StudyResults, *digests: str, distribution: str = "other") -> StudyResults:
    """Return results whose trials of one index have the norm's source of this digest."""
    trials = []
    for trial in results.trials:
        assert trial.outcome is not None
        record = {"kind": "norms", "name": "mine", "distribution": distribution, "version": "1", "file": ""}
        sources = {"model.norm": {**record, "source": digests[trial.index % len(digests)]}}
        trials.append(replace(trial, outcome=replace(trial.outcome, environment={"sources": sources})))
    return replace(results, trials=tuple(trials))


def test_findings_tell_third_partys_sources_from_benchkits(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn", "gn"), repeats=2)
    assert rules(results) == rules(sourced(results, "aa")) == []
    (theirs,) = rules(sourced(results, "aa", "bb"))
    assert theirs.startswith("Trials that are averaged were trained with 2 sources of the norm")
    (ours,) = rules(sourced(results, "aa", "bb", distribution="benchkit"))
    assert "several versions of benchkit" in ours
    one_each = {trial.condition.key: replace(trial, index=place) for place, trial in enumerate(results.trials)}
    apart = replace(results, trials=tuple(one_each.values()))
    (between,) = rules(sourced(apart, "aa", "bb"))
    assert between.startswith("Conditions that are compared were trained with 2 sources")
    assert rules(sourced(apart, "aa", "bb", distribution="benchkit")) == []
