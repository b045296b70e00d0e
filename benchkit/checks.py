"""The plugins and options of a plan, checked before anything is trained. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchkit.description import Description
from benchkit.descriptions import describe_all
from benchkit.entries import Entry
from benchkit.errors import PluginError, StudyError
from benchkit.options import Option, check_options
from benchkit.plan import Plan, typed_settings
from benchkit.registry import Registry
from benchkit.settings import PluginRef, Settings
from benchkit.typed import Problems


@dataclass(frozen=True, slots=True)
class Use:
    """A plugin as a plan uses it: its kind, its reference, and the dotted path that names it."""

    kind: str
    ref: PluginRef
    where: str


def check_plan(plan: Plan, registry: Registry) -> None:
    """Raise `StudyError` with every unknown or broken plugin and every wrong option of a plan's conditions."""
    problems = Problems()
    uses = {repr(use): use for use in uses_of(plan)}
    found: dict[str, tuple[Entry, str | None]] = {}
    for key, use in uses.items():
        try:
            found[key] = registry.resolve(use.kind, use.ref.name)
        except PluginError as error:
            problems.add(use.where, f"{error.what}; {error.hint}" if error.hint else error.what)
    described = describe_all([entry for entry, _ in found.values()])
    for (key, (_, variant)), description in zip(found.items(), described, strict=True):
        for line in _problems(uses[key], description, variant):
            problems.add("", line)
    if problems.lines:
        raise StudyError(f"{plan.study.path or plan.study.name}: this study cannot be trained", problems=problems.lines)


def uses_of(plan: Plan) -> Iterator[Use]:
    """Yield every plugin that the plan's conditions and its report name."""
    for condition in plan.conditions:
        yield from uses_of_settings(typed_settings(condition.settings, plan.study.seed))
    for name, options in plan.study.report.figures:
        yield Use("figures", PluginRef(name=name, options=options), f"report.figures.{name}")


def uses_of_settings(settings: Settings) -> Iterator[Use]:
    """Yield the plugins of one condition."""
    yield Use("datasets", settings.data.dataset, "data")
    yield Use("models", settings.model.model, "model")
    yield Use("norms", settings.model.norm, "model.norm")
    for one in settings.regularizers:
        yield Use("regularizers", one.plugin, f"regularizers.{one.id}")


def _problems(use: Use, description: Description, variant: str | None) -> list[str]:
    if description.status == "broken":
        return [f"{use.where}: plugin {use.ref.name!r} is broken: {description.reason}"]
    given = {**use.ref.options, **({"variant": variant} if variant else {})}
    return check_options(_of_use(use, description.options), given, use.where)


def _of_use(use: Use, options: tuple[Option, ...]) -> tuple[Option, ...]:
    """Return the options that a study may give: `weights` of a model comes from the model section itself."""
    return tuple(option for option in options if not (use.kind == "models" and option.name == "weights"))
