"""A sweep: plan, check, prepare the data, queue what is missing, and let workers train it until all is done."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from benchkit.data.dataset import (
    TORN,
    check_selection,
    facts_of,
    load_data,
    maker_warning,
    naming,
    warnings_of,
)
from benchkit.errors import TrainingError
from benchkit.ledger import Ledger
from benchkit.ledger.leases import LEASE
from benchkit.ledger.readback import confirm_conditions
from benchkit.ledger.tables import PATIENCE, is_on_server
from benchkit.locks import shared_disk
from benchkit.plan import Condition, Plan, make_plan
from benchkit.registry import Registry
from benchkit.results import State
from benchkit.study import Study
from benchkit.study.checks import check_plan, data_sets, merged_words
from benchkit.sweep.clustered import check_cluster, pool_of_cluster
from benchkit.sweep.compiling import planned_work
from benchkit.sweep.concurrency_search import concurrency_search, trials_at_once
from benchkit.sweep.coordinator import Coordinator
from benchkit.sweep.decided import Rules, decide_as_trained, decided_device, refuse_other_decisions
from benchkit.sweep.devices import Device, Devices, available_cores, devices_here, devices_text
from benchkit.sweep.earlier_trials import hold_to_sources, refuse_changed_data, refuse_other_weights
from benchkit.sweep.messages import Job, NetworksChecked, WorkerFailed
from benchkit.sweep.pool import Pool, answers, cannot_go_on
from benchkit.sweep.progress import View
from benchkit.sweep.seat_lines import SeatLines, tell_of
from benchkit.sweep.until_decided import begin_analyses, train_until_decided
from benchkit.train.weights_file import weights_digest, weights_file

SHARED_WORDS = (
    "SQLite is safe there for one machine at a time; for several, give --storage postgresql://USER@HOST/NAME",
    "who holds a trial is told by the database alone",
)
"""What a workspace on a shared disk means, with a ledger in SQLite and with one on a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a sweep is asked for. `jobs` 0 takes as many trials at once as there are cores for, or as a GPU does best.

    `device_memory` is the most bytes that a trial's images take on the device, None half of what is free there.
    `until_decided` adds repeats until the best condition is known, as a study that says so itself has it, up to `most`
    of a condition (0: as the study says, or as is usual). `seconds` is all the time that the sweep may take.
    `cluster` names a Ray cluster that trains in the place of this machine: auto, HOST:PORT or local. Its nodes may be
    given the sources of plugins (`ship_code`), and have to have equal hardware (`same_hardware`).
    Up to `per_process` of the trials at once on a device are trained in turns in one process.
    With `allow_changed_plugins` conditions are gone on with whose trials have other sources of their plugins.
    Its trials are held for `lease` seconds after its last sign of life; a storage that does not answer is waited for
    `patience` seconds.
    """

    study: Study
    workspace: Path
    data_root: Path
    storage: str = ""
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    jobs: int = 0
    device: str = "auto"
    retry: tuple[State, ...] = ()
    command: str = ""
    plugins: tuple[Path, ...] = ()
    allow_shadow: bool = False
    profile: bool = False
    device_memory: int | None = None
    until_decided: bool = False
    most: int = 0
    seconds: float = math.inf
    cluster: str = ""
    ship_code: bool = False
    same_hardware: bool = False
    per_process: int = 1
    lease: float = LEASE
    patience: float = PATIENCE
    allow_changed_plugins: bool = False

    @property
    def adding(self) -> bool:
        """Return whether repeats are to be added until it is decided which condition is best."""
        return self.until_decided or self.study.most > 0

    def job(
        self,
        task: Literal["train", "check", "probe", "concurrency"],
        conditions: Sequence[Condition] = (),
        seconds: float = 0.0,
    ) -> Job:
        """Return what a worker is told to do with some conditions, for so many seconds where that matters."""
        return Job(
            task=task,
            study=self.study,
            conditions=tuple(conditions),
            data_root=self.data_root,
            device=self.device,
            plugins=self.plugins,
            allow_shadow=self.allow_shadow,
            profile=self.profile,
            device_memory=self.device_memory,
            seconds=seconds,
        )


def sweep(request: Request, registry: Registry, view: View) -> Counter[str]:
    """Train everything that a study lacks; return how many of its trials ended in each state.

    Raises `BenchkitError` for a study that cannot be trained as asked, before anything is trained.
    """
    check_options(request)
    plan = make_plan(request.study, only=request.only)
    check_plan(plan, registry)
    for words in merged_words(plan):
        view.say(f"warning: {words}")
    ledger = Ledger(request.workspace, request.storage or None, lease=request.lease, patience=request.patience)
    end = time.monotonic() + request.seconds
    if ledger.has(request.study):
        refuse_other_decisions(ledger, request)
        request = replace(request, device=decided_device(ledger, request))
    with ExitStack() as opened:
        devices = None if request.cluster else devices_told(request, view)
        ahead = None
        if devices and is_known_ahead(request, plan, devices) and (request.retry or ledger.missing(plan)):
            ahead = opened.enter_context(pool_here(request, ledger, plan, devices, view))
            ahead.start()
        plan, data = _registered(request, registry, ledger, plan, view.say)
        pool, memory = ahead, None
        if devices is None:
            pool, memory = opened.enter_context(pool_of_cluster(request, registry, ledger, plan, data, view.say))
        elif pool is None:
            pool = opened.enter_context(pool_here(request, ledger, plan, devices, view))
        if ahead is None and (request.retry or ledger.missing(plan)):
            pool.start()
        ledger.enqueue(plan, request.retry)
        checked = refuse_broken_networks(pool, request, ledger.unfinished(plan))
        for words in checked.warnings:
            view.say(f"warning: {words}")
        refuse_other_weights(ledger, plan, checked.weights)

        known: dict[str, Condition] = {}
        lines = SeatLines(
            view,
            request.workspace / "logs",
            plan.study.name,
            lambda key, n: ledger.folder(plan.study, known[key], n).log,
            tell_of(ledger, plan.study),
        )
        job = replace(request.job("train"), at_once=pool.size, per_process=request.per_process)
        works = planned_work(make_plan(request.study) if request.only else replace(plan, more={}), data)
        rules = Rules(patience=request.patience, memory=memory, works=works, unrecorded=checked.unrecorded)
        coordinator = Coordinator(job, ledger, pool, lines, rules)

        def train(part: Plan, title: str) -> bool:
            known.update({condition.key: condition for condition in part.conditions})
            return not ledger.missing(part) or coordinator.train(part, title, end)

        with closing(lines):
            plan, whole = _train_planned(ledger, plan, request.retry, train)
            if request.adding and whole:
                plan = train_until_decided(ledger, plan, view.say, train)
    return ledger.states(plan)


def _registered(
    request: Request, registry: Registry, ledger: Ledger, plan: Plan, say: Callable[[str], None]
) -> tuple[Plan, dict[str, Any]]:
    """Prepare a plan's data and write down what is to be trained; return all that is due, and the facts of the data.

    Raises `LedgerError` where data or start weights are not those of the trials so far.
    """
    if shared := shared_disk(request.workspace):
        say(f"the workspace is on a disk that machines share ({shared}): {SHARED_WORDS[is_on_server(request.storage)]}")
    data = prepare(plan, registry, request.data_root)
    told = (words for one in data["sets"] for words in warnings_of(one, plan.study.splits == "folds"))
    makers = (
        maker_warning(registry.resolve("datasets", one["name"])[0], one.get("source", "")) for one in data["sets"]
    )
    for words in filter(None, (*told, *dict.fromkeys(makers))):
        say(f"warning: {words}")
    weights, known = start_weights(plan), ledger.has(plan.study)
    if known:
        refuse_changed_data(ledger, plan, data)
        refuse_other_weights(ledger, plan, weights)
        confirms = confirm_conditions(ledger, plan, finished=True)
        hold_to_sources(replace(plan, conditions=(*plan.conditions, *confirms)), registry, data, ledger, request, say)
    ledger.register(plan, data, request.command, None if request.only else plan.conditions)
    if known:
        decide_as_trained(ledger, plan)
    if request.adding:
        before, plan = plan, replace(plan, more=begin_analyses(ledger, plan.study, request.most, say))
        grown = tuple(one for one in plan.conditions if known and plan.count(one) > before.count(one))
        if grown:
            hold_to_sources(replace(plan, conditions=grown), registry, data, ledger, request, say)
    return plan, data


def start_weights(plan: Plan) -> dict[str, str]:
    """Return the sha256 of the file that each condition starts from, by key; raise `DataError` for an unusable one."""
    files = {condition.key: condition.settings["model"].get("weights") for condition in plan.conditions}
    return {key: weights_digest(weights_file(file)) for key, file in files.items() if file}


def check_options(request: Request) -> None:
    """Raise `TrainingError` for options that do not go together, or that a cluster does not know."""
    if request.cluster:
        check_cluster(request)
    for option, asked in (("--ship-code", request.ship_code), ("--same-hardware", request.same_hardware)):
        if asked and not request.cluster:
            raise TrainingError(f"{option} has no effect without --cluster", hint="add it, or leave this out")
    for option, given in (("--cluster", request.cluster), ("--profile", request.profile)):
        if request.per_process > 1 and given:
            raise TrainingError(
                f"--per-process {request.per_process} does not go with {option}", hint="leave out one of them"
            )


def devices_told(request: Request, view: View) -> Devices:
    """Return the devices of this machine that a sweep trains on, told where there is anything to choose."""
    devices = devices_of(request)
    if devices.left_out or len(devices.used) > 1:
        view.say(devices_text(devices))
    return devices


def is_known_ahead(request: Request, plan: Plan, devices: Devices) -> bool:
    """Return whether the workers are known before the data are ready, and so can import what they need meanwhile.

    They are not where trials at once are timed first, nor where interim analyses may ask for more trials than workers.
    """
    few = worker_count(request, plan, devices) == len(plan.units())
    return bool(request.jobs or not devices.on_gpus) and not (request.adding and few)


def pool_here(request: Request, ledger: Ledger, plan: Plan, devices: Devices, view: View) -> Pool:
    """Return the workers that train a plan on this machine, none of them started."""
    seats = seats_of(request, ledger, plan, devices, view)
    return Pool(seats, threads_of(plan), request.workspace / "logs", per_process=request.per_process)


def _train_planned(
    ledger: Ledger, plan: Plan, retry: Sequence[State], train: Callable[[Plan, str], bool]
) -> tuple[Plan, bool]:
    """Train what a plan asks for and what confirms its searches; return all of it, and False where time was up."""
    if not train(plan, "training"):
        return plan, False
    confirms = confirm_conditions(ledger, plan)
    if not confirms:
        return plan, True
    ledger.enqueue(replace(plan, conditions=confirms), retry)
    plan = replace(plan, conditions=(*plan.conditions, *confirms))
    return plan, train(plan, "confirming the searches' best")


def refuse_broken_networks(pool: Pool, request: Request, conditions: Sequence[Condition]) -> NetworksChecked:
    """Let a worker build each different network of the conditions and run it on two images; return what it found.

    Raise `TrainingError` with all that fail, each once for all conditions that share it, and `BenchkitError` when no
    worker can go on. One that dies of it is no verdict: its trials tell.
    """
    for number in range(pool.size) if conditions else ():
        told = tuple(answers(pool, request.job("check", conditions), number=number))
        failed = next((event for event in told if isinstance(event, WorkerFailed)), None)
        if failed is None:
            break
        if number == pool.size - 1:
            raise cannot_go_on(f"a worker cannot go on: {failed.message}", request.workspace)
    else:
        told = ()
    nothing = NetworksChecked(problems=(), checked=0, networks=0, unrecorded="they could not be tried")
    checked = next((event for event in told if isinstance(event, NetworksChecked)), nothing)
    if checked.problems:
        raise TrainingError(
            f"{request.study.name}: {len(checked.problems)} of {checked.checked} different networks cannot be trained",
            problems=(*checked.problems, *checked.unmeasured),
            hint="nothing was trained; mend the study, or leave these conditions out with --only",
        )
    if checked.unmeasured:
        raise TrainingError(
            f"{request.study.name}: trials cannot be measured as the study asks",
            problems=checked.unmeasured,
            hint="nothing was trained; mend the metric, or leave it out of the study",
        )
    return checked


def check_networks(request: Request, plan: Plan, registry: Registry) -> tuple[str, ...]:
    """Prepare a plan's data and try its networks in a worker of their own, as `refuse_broken_networks` does."""
    prepare(plan, registry, request.data_root)
    with TemporaryDirectory() as logs, Pool(devices_of(request).seats(1), threads_of(plan), Path(logs)) as pool:
        return refuse_broken_networks(pool, request, plan.conditions).warnings


def threads_of(plan: Plan) -> int:
    """Return the number of CPU threads that the plan's trials take at the most."""
    return max(plan.settings_of(c).train.threads for c in plan.conditions)


def prepare(plan: Plan, registry: Registry, root: Path) -> dict[str, Any]:
    """Prepare every data set that a plan needs; return the facts of the first, and of all under `sets`.

    Raises `DataError` where one has fewer images than a condition asks for, before each of its trials does.
    """
    distinct = {repr(condition.settings["data"]): condition for condition in plan.conditions}
    asked = [plan.settings_of(condition).data for condition in distinct.values()]
    sets = []
    for ref in data_sets(plan):
        splits = load_data(registry, ref, root, plan.study.path)
        with naming(registry, ref.name):
            for settings in (settings for settings in asked if settings.dataset == ref):
                check_selection(splits, settings, plan.study.seed)
        own = registry.resolve("datasets", ref.name)[0].is_own
        facts = facts_of(ref, splits)
        if splits.val is None and splits.train.groups is not None and not all(one.folds for one in asked):
            facts["notes"].append(TORN)
        sets.append({**facts, **({"source": splits.source} if splits.source and not own else {})})
    return {**sets[0], "sets": sets}


def devices_of(request: Request) -> Devices:
    """Return the devices that a sweep asks for; raise `TrainingError` where they are not there or do not start."""
    return devices_here(request.device)


def worker_count(request: Request, plan: Plan, devices: Devices) -> int:
    """Return how many trials to train at once: as asked, else one a GPU, or on the CPU one for each trial's threads."""
    default = len(devices.used) if devices.on_gpus else max(1, available_cores() // threads_of(plan))
    return min(request.jobs or default, max(1, len(plan.units())))


def seats_of(request: Request, ledger: Ledger, plan: Plan, devices: Devices, view: View) -> tuple[Device, ...]:
    """Return the device of each worker: of as many as `worker_count` says, or as timing finds for each kind of GPU."""
    if request.jobs or not devices.on_gpus:
        return devices.seats(worker_count(request, plan, devices), per_process=request.per_process)
    ledger.enqueue(plan, request.retry)
    missing, cores, count = ledger.missing(plan), available_cores(), len(devices.used)
    job = replace(request.job("concurrency", plan.conditions), per_process=request.per_process)
    at_once = {}
    timed = [one for one in devices.used if one.kind != "mps" and (request.per_process > 1 or not one.exclusive)]
    for device in {one.name: one for one in timed}.values():
        search = concurrency_search(job, plan, device, missing=-(-missing // count), cores=max(1, cores // count))
        at_once[device.name] = trials_at_once(search, request.workspace, view)
    most = min(missing, count * max(at_once.values(), default=1)) or 1
    return devices.seats(most, at_once, request.per_process)
