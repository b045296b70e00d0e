"""What a sweep holds to where its study has trials already: the same data, start weights and sources of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchkit.analysis.wording import count
from benchkit.errors import LedgerError
from benchkit.ledger import Ledger
from benchkit.ledger.readback import plugin_sources
from benchkit.plan import Plan
from benchkit.registry import Registry
from benchkit.registry.kinds import kind_word
from benchkit.registry.registry import is_own
from benchkit.registry.sources import source_hash
from benchkit.results import Outcome

if TYPE_CHECKING:
    from benchkit.sweep.orchestration import Request


def refuse_changed_data(ledger: Ledger, plan: Plan, data: Mapping[str, Any]) -> None:
    """Raise `LedgerError` when trials of these conditions were trained on other data of the same name."""
    now = {one["fingerprint"] for one in data["sets"]}
    for outcome in ledger.outcomes(plan):
        if outcome.data_fingerprint and outcome.data_fingerprint not in now:
            raise LedgerError(
                f"{ledger.workspace}: {plan.study.name} was trained on other data: fingerprint "
                f"{outcome.data_fingerprint[:12]}, now {', '.join(one[:12] for one in sorted(now))}",
                hint="choose a new --workspace, or prepare the data as they were",
            )


def refuse_other_weights(ledger: Ledger, plan: Plan, now: Mapping[str, str]) -> None:
    """Raise `LedgerError` when trials started from other weights than `now`, sha256 by their condition's key.

    Of trials of earlier versions, which did not record it, nothing is known.
    """
    started = tuple(condition for condition in plan.conditions if condition.key in now)
    for trial in ledger.trials(replace(plan, conditions=started)) if started else ():
        key, before = trial.condition.key, trial.outcome.started_from if trial.outcome else ""
        if not now[key].startswith(before):
            model = trial.condition.settings["model"]
            raise LedgerError(
                f"{ledger.workspace}: {plan.study.name} was trained from other weights in "
                f"{model.get('weights') or model['name']}: sha256 {before}, now {now[key][:12]}",
                hint="choose a new --workspace, or put the file back as it was",
            )


def hold_to_sources(
    plan: Plan,
    registry: Registry,
    data: Mapping[str, Any],
    ledger: Ledger,
    request: Request,
    say: Callable[[str], None],
) -> None:
    """Raise `LedgerError` where conditions that lack trials have others of another source of a plugin.

    Where the request allows that, it is said. benchkit's own plugins may change with its version. Of trials of earlier
    versions, which did not record it, nothing is known.
    """
    conditions = {one.key: one for one in ledger.unfinished(plan)}
    trials = ledger.trials(plan) if request.retry else ()
    conditions |= {one.condition.key: one.condition for one in trials if one.state in request.retry}
    kept = (one.outcome for one in trials if one.condition.key in conditions and one.state not in request.retry)
    plan = replace(plan, conditions=tuple(conditions.values()))
    outcomes = filter(None, kept) if request.retry else ledger.outcomes(plan)
    lines = changed_sources(plan, registry, data, outcomes)
    if lines and not request.allow_changed_plugins:
        raise LedgerError(
            f"{ledger.workspace}: {plan.study.name} was trained with other sources of its plugins",
            problems=lines,
            hint="put the sources back as they were, choose a new --workspace, or let trials of several sources be put "
            "together, which the report then tells: --allow-changed-plugins",
        )
    for line in lines:
        say(f"warning: trials with several sources of a plugin are put together: {line}")


def changed_sources(plan: Plan, registry: Registry, data: Mapping[str, Any], outcomes: Iterable[Outcome]) -> list[str]:
    """Return a line for each plugin of a plan whose source is not that of some of its conditions' trials.

    The source of a data set is the one by which it was prepared, where that is known.
    """
    prepared = {("datasets", one["name"]): one["source"] for one in data["sets"] if one.get("source")}
    lines = []
    for (kind, name, source, distribution, file), trials in plugin_sources(plan.study, outcomes).items():
        entry = registry.resolve(kind, name)[0]
        now = prepared.get((kind, name)) or source_hash(entry)
        own = entry.is_own and is_own(distribution, file)
        if source and now and source != now and not own:
            lines.append(
                f"{kind_word(kind)} {name!r} of {file or distribution}: {count(trials, 'trial')} with source {source}, "
                f"now {now} ({entry.file.name if entry.file else entry.origin})"
            )
    return lines
