"""Training some trials of a report again, from the study in its capsule: which ones, and where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchkit.capsule.archive import CapsuleTrial
from benchkit.capsule.reading import Capsule, CapsuleError
from benchkit.errors import LedgerError, PluginError
from benchkit.ledger import Ledger
from benchkit.ledger.ledger import decide
from benchkit.plan import Condition, Plan, typed_settings
from benchkit.registry import Registry
from benchkit.results import Decision, Trial
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


HEAR_EVERY = 0.25
"""Seconds without an event after which the worker is looked at again."""


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
    sources = {} if number is None else capsule.head.studies[sample.study].environments[number].get("sources", {})
    tables = [source for source in sources.values() if isinstance(source, dict)] if isinstance(sources, dict) else []
    return [
        (str(source.get("kind")), str(source.get("name")), str(source["file"]))
        for source in tables
        if source.get("file")
    ]


def _retrain_study(
    study: Study,
    sampled: Sequence[SampledTrial],
    registry: Registry,
    scratch: Scratch,
    decided: Sequence[Decision],
) -> tuple[Trial, ...]:
    study = bare(study)
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
        ledger.enqueue_again(study, sample.condition, sample.trial.index, sample.trial.params)
    if trained:
        with Pool(devices_here(scratch.device).seats(1), threads_of(plan), scratch.workspace / "logs") as pool:
            Coordinator(_job(study, scratch), ledger, pool, View(), Rules(any_seat=True)).train(plan, "")
    return ledger.trials(plan)


def bare(study: Study) -> Study:
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
