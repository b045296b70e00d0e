"""Training some trials of a report again, from the study in its capsule: which, where, and what that then says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchkit.analysis.estimates import estimate_metric, prediction_interval, value_of, values_by_repeat
from benchkit.analysis.wording import bare, count, metric_unit, metric_words
from benchkit.capsule.making import CapsuleTrial, sha256, to_text
from benchkit.capsule.reading import Capsule, CapsuleError
from benchkit.errors import LedgerError, PluginError
from benchkit.ledger import Ledger
from benchkit.ledger.ledger import decide
from benchkit.metrics import SCORES, metric_of
from benchkit.plan import Condition, Plan, typed_settings
from benchkit.registry import Registry
from benchkit.results import PREDICTIONS, WAS_COMPILED, Decision, SplitMetrics, StudyResults, Trial, sources_of
from benchkit.study import Study
from benchkit.study.checks import check_plan
from benchkit.study.seeds import derive_seed
from benchkit.study.tree import changed
from benchkit.sweep.coordinator import Coordinator
from benchkit.sweep.decided import Rules
from benchkit.sweep.devices import devices_here
from benchkit.sweep.messages import Job
from benchkit.sweep.orchestration import prepare, threads_of
from benchkit.sweep.pool import Pool
from benchkit.sweep.progress import View
from benchkit.sweep.training_decisions import TRAINING
from benchkit.verify.check import ReportCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTrial:
    """A trial that is to be trained again: the place of its study in the capsule, its condition, and itself."""

    study: int
    condition: Condition
    trial: CapsuleTrial

    @property
    def name(self) -> str:
        """Return the trial in words."""
        return f"{self.condition.label}, {'slot' if self.trial.phase == 'search' else 'repeat'} {self.trial.index}"


def sample_trials(capsule: Capsule, n: int, seed: int) -> tuple[SampledTrial, ...]:
    """Return `n` done trials, or all when there are fewer; the same capsule and seed give the same sample.

    Conditions take turns, those whose trials took the least time first; within one, `seed` chooses.
    """
    groups: dict[tuple[int, str], list[SampledTrial]] = defaultdict(list)
    for index, (described, trials) in enumerate(zip(capsule.head.studies, capsule.trials, strict=True)):
        conditions = {condition.key: condition for condition in described.conditions}
        for trial in trials:
            if trial.state == "done" and trial.metrics:
                groups[index, trial.condition].append(
                    SampledTrial(study=index, condition=conditions[trial.condition], trial=trial)
                )
    for key, group in groups.items():
        group.sort(key=lambda sample: derive_seed(seed, "retrain", key[0], key[1], sample.trial.index))
    ordered = sorted(groups.values(), key=lambda group: fmean(sample.trial.seconds for sample in group))
    turns = max((len(group) for group in ordered), default=0)
    return tuple([group[turn] for turn in range(turns) for group in ordered if turn < len(group)][:n])


def seconds_of(sampled: tuple[SampledTrial, ...]) -> float:
    """Return how long the sampled trials took when the report's trials were trained."""
    return sum(sample.trial.seconds for sample in sampled)


def paths_of(capsule: Capsule, sampled: tuple[SampledTrial, ...]) -> tuple[str, ...]:
    """Return what looks like a path on this machine in the settings of the sampled trials: training would read it."""
    paths: dict[str, None] = {}
    for sample in sampled:
        settings = changed(sample.condition.settings, sample.trial.params)
        typed_settings(settings, capsule.studies[sample.study].seed)
        paths.update(dict.fromkeys(text for text in _texts(settings) if "/" in text or "\\" in text))
    return tuple(paths)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """Where and with what trials are trained again."""

    workspace: Path
    data_root: Path
    device: str = "auto"
    plugins: tuple[Path, ...] = ()
    allow_shadow: bool = False


def retrain(
    capsule: Capsule, sampled: Sequence[SampledTrial], registry: Registry, scratch: Scratch
) -> tuple[Trial | None, ...]:
    """Return the trial that comes of training each sample again, None where the data here are other ones.

    No code comes from the capsule: plugins are those installed here and the files that the user gives.

    Raises `PluginError` where that is not enough, `StudyError` for options that plugins here do not take, `LedgerError`
    for a workspace in use, and `BenchkitError` when the worker cannot go on.
    """
    if scratch.workspace.exists() and any(scratch.workspace.iterdir()):
        raise LedgerError(
            f"{scratch.workspace}: there is something in this folder already",
            hint="name an empty or a new folder with --workspace, so that nothing is mixed",
        )
    refuse_local_plugins(capsule, sampled, registry)
    trained: dict[tuple[int, str, int], Trial] = {}
    for study in sorted({sample.study for sample in sampled}):
        mine = [sample for sample in sampled if sample.study == study]
        inner = replace(scratch, workspace=scratch.workspace / str(study + 1)) if len(capsule.studies) > 1 else scratch
        decided = capsule.head.studies[study].decisions
        for trial in _retrain_study(capsule.studies[study], mine, registry, inner, decided):
            trained[study, trial.condition.key, trial.index] = trial
    return tuple(trained.get((sample.study, sample.condition.key, sample.trial.index)) for sample in sampled)


def refuse_local_plugins(capsule: Capsule, sampled: Sequence[SampledTrial], registry: Registry) -> None:
    """Raise `PluginError` when trials used plugins of a local file that the user has not given."""
    files: dict[str, None] = {}
    for sample in sampled:
        for kind, name, file in _local_plugins(capsule, sample):
            try:
                given = registry.resolve(kind, name)[0].file is not None
            except PluginError:
                given = False
            if not given:
                files[file] = None
    if files:
        raise PluginError(
            "these trials were trained with plugins from local files, which a report never brings with it",
            problems=list(files),
            hint="if you have such a file and trust it, give it with --plugin FILE",
        )


def _local_plugins(capsule: Capsule, sample: SampledTrial) -> list[tuple[str, str, str]]:
    number = sample.trial.environment
    environment = {} if number is None else capsule.head.studies[sample.study].environments[number]
    return [
        (source.get("kind", ""), source.get("name", ""), source["file"])
        for source in sources_of(environment).values()
        if source.get("file")
    ]


def _retrain_study(
    study: Study,
    sampled: Sequence[SampledTrial],
    registry: Registry,
    scratch: Scratch,
    decided: Sequence[Decision],
) -> tuple[Trial, ...]:
    study = _lean(study)
    conditions = tuple({sample.condition.key: sample.condition for sample in sampled}.values())
    counts = {one.key: max(s.trial.index for s in sampled if s.condition is one) + 1 for one in conditions}
    plan = Plan(study=study, conditions=conditions, more=counts)
    check_plan(plan, registry)
    data = prepare(plan, registry, scratch.data_root)
    here = {str(sample["fingerprint"]) for sample in data["sets"]}
    trained = [sample for sample in sampled if sample.trial.data_fingerprint in ("", *here)]
    ledger = Ledger(scratch.workspace)
    ledger.register(plan, data, "benchkit verify --retrain")
    for one in decided:
        if one.name in TRAINING:
            decide(ledger, study.name, one.name, one.value, one.why)
    for sample in trained:
        _refuse_unknown_settings(study, sample)
        ledger.queue_attempt(study, sample.condition, sample.trial.index, 0, sample.trial.params)
    if trained:
        with Pool(devices_here(scratch.device).seats(1), threads_of(plan), scratch.workspace / "logs") as pool:
            Coordinator(_job(study, scratch), ledger, pool, View(), Rules(any_seat=True)).train(plan, "")
    return ledger.trials(plan)


def _lean(study: Study) -> Study:
    """Return a study without what does not change a trial's numbers: figures that observe it, pruning, other levels."""
    search = replace(study.search, pruner="none") if study.search else None
    return replace(study, search=search, factors=(), published=(), report=replace(study.report, figures=()))


def _refuse_unknown_settings(study: Study, sample: SampledTrial) -> None:
    known = {item.path for item in study.search.space} if study.search else set()
    if sample.trial.phase == "search" and set(sample.trial.params) != known:
        raise CapsuleError(f"the capsule's {sample.name} has other settings than its study searches")


def _job(study: Study, scratch: Scratch) -> Job:
    return Job(
        task="train",
        study=study,
        data_root=scratch.data_root,
        device=scratch.device,
        plugins=tuple(path.resolve() for path in scratch.plugins),
        allow_shadow=scratch.allow_shadow,
    )


SAME = ("python", "system", "processor", "device", "versions")
"""Parts of two environments that must be equal for two trainings on a CPU to be bit-identical."""


def compare_retrained(sample: SampledTrial, again: Trial | None, results: StudyResults) -> ReportCheck:
    """Return what a trial trained again says; `results` are those that the capsule stands for.

    Identical metrics on every split hold. Others fail where the processor, versions, plugins and data are the same (on
    a CPU training is bit-identical, but for compiled models, whose bits hang on the C++ compiler, too); elsewhere the
    new value of the main metric is held against the 95 % prediction interval for one more repeat of the condition. With
    fewer than two repeats only identity can be judged.
    """
    name = f"retrained {sample.name}"
    if again is None:
        words = "not trained: the data set here has another fingerprint than the one it was trained on"
        return ReportCheck(name=name, state="unchecked", told=words)
    if again.state != "done" or again.outcome is None:
        return ReportCheck(name=name, state="fails", told=f"it ended as {again.state} here: {again.reason}")
    was, now = sample.trial.start_weights, again.outcome.start_weights
    if was and was != now:
        words = f"not comparable: it started from weights with the sha256 {was[:12]}, here from {now[:12] or 'none'}"
        return ReportCheck(name=name, state="unchecked", told=words)
    if identical(sample.trial, again):
        return ReportCheck(name=name, state="holds", told=_identical_words(sample, again))
    values = _values_words(sample, again, results)
    compiled = WAS_COMPILED in (*sample.trial.notes, *again.outcome.notes)
    if not compiled and equal_grounds(_environment(results, sample), again.outcome.environment):
        words = f"{values}; same processor and versions, where training is bit-identical"
        return ReportCheck(name=name, state="fails", told=words)
    return _against_repeats(name, values, sample, again, results)


def identical(trial: CapsuleTrial, again: Trial) -> bool:
    """Return whether every recorded metric of every split is the same to the last bit.

    Metrics of which one of the two knows nothing, because its version did not measure them, do not count.
    """
    was, now = dict(trial.metrics), dict(again.outcome.metrics if again.outcome else {})
    if was.keys() != now.keys():
        return False
    pairs = [(was[split], now[split]) for split in now]
    return all(to_text(_common(before, after)) == to_text(_common(after, before)) for before, after in pairs)


def _common(scored: SplitMetrics, other: SplitMetrics) -> SplitMetrics:
    """Return metrics without those that the other lacks."""
    return replace(scored, more={name: value for name, value in sorted(scored.more.items()) if name in other.more})


def equal_grounds(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two environments are those of bit-identical trainings: same processor (no card), same code."""
    on_processor = str(was.get("device", "")).startswith(str(was.get("processor", "?")))
    same = all(name in was and was[name] == now.get(name) for name in SAME)
    before, here = sources_of(was), sources_of(now)  # of metrics earlier versions recorded none
    plugins = all(here.get(where, {}).get("source") == one.get("source") for where, one in before.items())
    return on_processor and same and bool(before) and plugins


def _environment(results: StudyResults, sample: SampledTrial) -> Mapping[str, Any]:
    for trial in results.trials:
        if trial.number == sample.trial.number and trial.condition.key == sample.condition.key and trial.outcome:
            return trial.outcome.environment
    return {}


def _identical_words(sample: SampledTrial, again: Trial) -> str:
    splits = ", ".join(sample.trial.metrics)
    path = again.folder / PREDICTIONS
    if sample.trial.predictions and path.exists() and sha256(path.read_bytes()) == sample.trial.predictions:
        return f"identical: every metric on {splits}, and every logit, to the last bit"
    return f"identical: every metric on {splits} to the last bit"


def _metric(sample: SampledTrial, results: StudyResults) -> str:
    """Return the metric by which a trial is held against others: the main one, or the search's goal."""
    search = results.study.search
    if sample.trial.phase != "search" or search is None:
        return results.study.report.metric
    goal = search.goals[0].metric
    return goal if goal.startswith("val.") else "val.loss"


def _shown(metric: str, value: float | None) -> str:
    unit = metric_unit(metric)
    return f"{bare(metric, value)}{f' {unit}' if unit else ''}"


def _values_words(sample: SampledTrial, again: Trial, results: StudyResults) -> str:
    metric = _metric(sample, results)
    split, _, name = metric.partition(".")
    scored = sample.trial.metrics.get(split)
    was = scored.value(name) if scored else None
    now = value_of(again, metric)
    if was == now and (others := _differing(sample.trial, again)):
        metric, now, was = others[0]
    return f"{metric_words(metric)} {_shown(metric, now)}, the report has {_shown(metric, was)}: not identical"


def _differing(trial: CapsuleTrial, again: Trial) -> list[tuple[str, float | None, float | None]]:
    """Return the metrics of which both have other values, each with its value now and then."""
    measured = dict(again.outcome.metrics if again.outcome else {})
    pairs = [
        (f"{split}.{name}", measured[split].value(name), scored.value(name))
        for split, scored in trial.metrics.items()
        if split in measured
        for name in (*(one.name for one in SCORES), *sorted(scored.more.keys() & measured[split].more.keys()))
    ]
    return [pair for pair in pairs if to_text(pair[1]) != to_text(pair[2])]


def _against_repeats(name: str, values: str, sample: SampledTrial, again: Trial, results: StudyResults) -> ReportCheck:
    metric, now = _metric(sample, results), value_of(again, _metric(sample, results))
    repeats = list(values_by_repeat(results, sample.condition, metric).values())
    mean = estimate_metric(metric, repeats) if repeats else None
    interval = prediction_interval(mean, bounds=metric_of(metric).bounds) if mean else None
    if interval is None or now is None:
        words = f"{values}; with {count(len(repeats), 'repeat')} of its condition only identity could be judged"
        return ReportCheck(name=name, state="unchecked", told=words)
    low, high = interval
    inside = low <= now <= high
    words = (
        f"{values}, and {'inside' if inside else 'outside'} the 95 % prediction interval of its condition's repeats, "
        f"{_shown(metric, low)} to {_shown(metric, high)} (n = {len(repeats)})"
    )
    return ReportCheck(name=name, state="holds" if inside else "fails", told=words)
