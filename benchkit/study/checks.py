"""The plugins and options of a plan, checked before anything is trained. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchkit.errors import PluginError, StudyError, nearest
from benchkit.metrics import asked_names, plugin_name
from benchkit.plan import Condition, Plan, extremes, typed_settings
from benchkit.protocols import clashes_of
from benchkit.registry import Registry
from benchkit.registry.description import Description, describe_all
from benchkit.registry.kinds import kind_word
from benchkit.registry.options import Option, check_options
from benchkit.registry.registry import Entry
from benchkit.study import SearchRange, Study
from benchkit.study.logo import read_logo
from benchkit.study.origin import APPLYING, compare_settings
from benchkit.study.settings import OWN_NAMES, USUAL_LOSS, DataSettings, ModelSettings, PluginRef, Settings
from benchkit.study.tree import Problems, changed, quoted, value_at

NAMING = ("data", "model", "regularizers", "train.loss")
"""The tables that name plugins."""
OWN_KINDS = {"train.optimizer": "optimizers", "train.schedule": "schedules"}
"""The tables that name a part of benchkit's own, or else a plugin of a kind."""
MOST_CHECKED = 200_000
"""The most searched values, times conditions that differ in what plugins they name, that a check goes through."""


@dataclass(frozen=True, slots=True)
class Use:
    """A plugin as a plan uses it: its kind, its reference, and the dotted path that names it.

    `searched` is the range whose search makes the plan use it so, or None.
    """

    kind: str
    ref: PluginRef
    where: str
    searched: SearchRange | None = None


def check_plan(plan: Plan, registry: Registry) -> tuple[str, ...]:
    """Return a warning for every setting that the plan varies without effect, as the plugins' cards or settings tell.

    Raises `StudyError` with every unknown or broken plugin and every wrong option of a plan, and an unusable logo. That
    holds for all levels, for the ends of every searched range and for every searched choice.
    """
    problems, hints = Problems(), dict[str, None]()
    uses = {repr(use): use for use in (*uses_of(plan), *searched_uses(plan))}
    resolved: dict[str, tuple[Entry, str | None]] = {}
    for key, use in uses.items():
        try:
            resolved[key] = registry.resolve(use.kind, use.ref.name)
        except PluginError as error:
            close = nearest(use.ref.name, OWN_NAMES.get(use.where, ()))
            told = PluginError(f"there is no {kind_word(use.kind)} {use.ref.name!r}{close}") if close else error
            problems.add(_prefix(use) + use.where, told.what)
            hints |= {told.hint: None} if told.hint else {}
    described = describe_all([entry for entry, _ in resolved.values()])
    for (key, (_, variant)), description in zip(resolved.items(), described, strict=True):
        for line in _problems(uses[key], description, variant):
            problems.add("", line)
    together = list(_together(plan, {uses[key].where: one.alone for key, one in zip(resolved, described, strict=True)}))
    for line in dict.fromkeys(line for methods, _ in together for line in clashes_of(methods)):
        problems.add("regularizers", line)
    if plan.study.most == 1:
        problems.add("repeats.most", "got 1, expected 2 or more: a single repeat decides nothing")
    _note_logo(plan.study.report.logo, problems)
    _note_departures(plan, problems)
    if problems:
        shown = plan.study.path or plan.study.name
        raise StudyError(f"{shown}: this study cannot be trained", problems=problems.first_lines, hint="; ".join(hints))
    used = [(uses[key], description) for key, description in zip(resolved, described, strict=True)]
    return tuple(dict.fromkeys((*_without_effect(plan, used), *_balanced_twice(together), *merged_words(plan))))


def _together(
    plan: Plan, alone: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[Mapping[str, tuple[str, ...]], Settings]]:
    """Yield, for each condition whose plugins differ, its regularizers' methods of which one can be there, by id."""
    for condition in _distinct(plan.conditions):
        settings = plan.settings_of(condition)
        named = [one.id for one in settings.regularizers]
        yield {name: alone.get(f"regularizers.{name}", ()) for name in named}, settings


def _balanced_twice(together: Iterable[tuple[Mapping[str, tuple[str, ...]], Settings]]) -> Iterator[str]:
    """Yield a sentence where rare classes count more by how images are drawn and by the loss, too."""
    for methods, settings in together:
        for name, there in methods.items():
            if "batch_sampling" in there and settings.train.loss.options.get("balanced"):
                yield (
                    f"regularizers.{name} draws images of rare classes more often, and train.loss weighs them more "
                    "(balanced = true): together they count twice"
                )


def merged_words(plan: Plan) -> Iterator[str]:
    """Yield a sentence on combinations of levels that are no conditions of their own; in a smoke test many may be."""
    if plan.merged and not plan.study.smoke:
        shown = [f"{label!r} those of {kept!r}" for label, kept in plan.merged[:3]]
        more = f" and {len(plan.merged) - 3} more" if len(plan.merged) > 3 else ""
        yield f"combinations of levels with the settings of an earlier one are no conditions: {', '.join(shown)}{more}"


def _without_effect(plan: Plan, used: Sequence[tuple[Use, Description]]) -> Iterator[str]:
    """Yield a sentence for each plugin that ignores a setting which the plan varies."""
    space = plan.study.search.space if plan.study.search else ()
    varied = {path for condition in plan.conditions for path in condition.levels} | {one.path for one in space}
    alone = "conditions that differ in it alone train the same"
    for path, beside in _unapplied(plan, varied, space):
        yield f"{path} has no effect beside {beside}: {alone}"
    for path in sorted({"data.name", "data.val_size"} & {one.path for one in space}):
        yield f"search.space.{path}: trials that differ in it are judged on other images: scores do not compare"
    for use, description in used:
        for ignored, when in ignored_settings(use.ref, description).items():
            for path in sorted(varied):
                if path == ignored or path.startswith(f"{ignored}."):
                    at = ", ".join(f"{use.where}.{name} = {_toml(value)}" for name, value in when.items())
                    at = f" at {at}" if at else ""
                    what = f"{use.where} = {use.ref.name!r}"
                    yield f"{path} has no effect beside {what}{at}: {alone}"


def _unapplied(plan: Plan, varied: Set[str], space: Sequence[SearchRange]) -> Iterator[tuple[str, str]]:
    """Yield each varied setting that benchkit's own optimizer or schedule, the same everywhere, never uses; and which.

    What a one-cycle reaches at the top is `max_lr`, where it is given, and never the optimizer's rate.
    """
    for part in OWN_KINDS:
        name = getattr(plan.settings_of(plan.conditions[0]).train, part.removeprefix("train.")).name
        if name not in OWN_NAMES[part] or varied & {part, f"{part}.name"}:
            continue
        used = {f"{part}.{key}" for key in APPLYING.get(name, ())} | {"train.optimizer.lr", "train.optimizer.decayed"}
        yield from ((path, f"{part} = {name!r}") for path in sorted(varied - used) if path.startswith(f"{part}."))
        tops = [value_at(condition.settings, "train.schedule.max_lr") for condition in plan.conditions]
        tops += [top for one in space if one.path == "train.schedule.max_lr" for top in extremes(one)]
        if name == "one-cycle" and "train.optimizer.lr" in varied and all(tops):
            yield "train.optimizer.lr", "train.schedule.max_lr"


def ignored_settings(ref: PluginRef, description: Description) -> dict[str, Mapping[str, Any]]:
    """Return the settings without effect beside a plugin as a study names it, each with the options that make it so."""
    options = {**{option.name: option.default for option in description.options}, **ref.options}
    return {
        ignored: when
        for ignored, when in description.ignores.items()
        if all(options.get(name) == value for name, value in when.items())
    }


def _note_logo(logo: Path | None, problems: Problems) -> None:
    if logo is not None:
        try:
            read_logo(logo)
        except StudyError as error:
            problems.add_error("report.logo", error)


def _note_departures(plan: Plan, problems: Problems) -> None:
    """Note where the study as written is not what its source states and does not say why.

    What --set or the smoke form changes is for the report to tell.
    """
    study = plan.study
    if study.origin is None or study.overrides or study.smoke:
        return
    trees = [condition.settings for condition in plan.conditions if condition.kind == "grid"]
    for pair in compare_settings(study.origin, trees):
        where = f'source.states."{pair.stated.path}"'
        if not pair.ours:
            problems.add(where, "the study leaves it to its default; write it out, so that no later default changes it")
        elif not pair.same and not pair.stated.departs:
            stated, ours = (quoted(list(values)) for values in (pair.stated.values, pair.ours))
            problems.add(
                where, f'the source has {stated}, the study {ours}; make it the same, or say why: departs = "..."'
            )
        elif pair.same and pair.stated.departs:
            problems.add(where, "departs says why ours is another value, but it is the same")


def uses_of(plan: Plan) -> Iterator[Use]:
    """Yield every plugin that the plan's conditions and its report name."""
    for condition in _distinct(plan.conditions):
        yield from uses_of_settings(plan.settings_of(condition))
    for name, options in plan.study.report.figures:
        yield Use("figures", PluginRef(name=name, options=options), f"report.figures.{name}")
    for name in plan.study.report.metrics:
        yield Use("metrics", PluginRef(name=name), f"report.metrics.{name}")


def data_sets(plan: Plan) -> list[PluginRef]:
    """Return every data set that the plan's conditions name, each once."""
    refs = (plan.settings_of(c).data.dataset for c in _distinct(plan.conditions))
    return list({repr(ref): ref for ref in refs}.values())


def _distinct(conditions: Iterable[Condition]) -> list[Condition]:
    """Return one condition of all that share the very tables which name plugins; most differ in others alone."""
    return list({_naming(c.settings): c for c in conditions}.values())


def _naming(tree: Mapping[str, Any]) -> tuple[int, ...]:
    """Return what two trees have in common that name the same plugins: the very tables that name them."""
    tables = [value_at(tree, path) for path in NAMING] + [foreign_table(tree, path) for path in OWN_KINDS]
    return tuple(map(id, tables))


def foreign_table(tree: Mapping[str, Any], path: str) -> Any:
    """Return what stands at one of the paths of `OWN_KINDS` where it names a plugin, else None."""
    value = value_at(tree, path)
    name = value.get("name", OWN_NAMES[path][0]) if isinstance(value, Mapping) else value
    return None if name in OWN_NAMES[path] else value


def _bears_on_plugins(path: str, tree: Mapping[str, Any]) -> bool:
    """Return whether what a search chooses for a path can change which plugins a tree names, or their options."""
    if any(f"{path}.".startswith(f"{named}.") for named in NAMING):
        return True
    return any(
        path in (named, f"{named}.name") or (path.startswith(f"{named}.") and foreign_table(tree, named) is not None)
        for named in OWN_KINDS
    )


def uses_of_settings(settings: Settings) -> Iterator[Use]:
    """Yield the plugins of one condition."""
    yield Use("datasets", settings.data.dataset, "data")
    yield Use("models", settings.model.model, "model")
    yield Use("norms", settings.model.norm, "model.norm")
    if settings.train.loss != USUAL_LOSS:
        yield Use("losses", settings.train.loss, "train.loss")
    for part, kind in OWN_KINDS.items():
        named = getattr(settings.train, part.removeprefix("train."))
        if named.name not in OWN_NAMES[part]:
            yield Use(kind, PluginRef(name=named.name, options=named.options), part)
    for regularizer in settings.regularizers:
        yield Use("regularizers", regularizer.plugin, f"regularizers.{regularizer.id}")


REPORTED = "report.metrics"
"""Where the metrics stand that the study asks for, and its training does not go by."""


def metrics_of(study: Study, settings: Settings, more: Iterable[str] = ()) -> Iterator[Use]:
    """Yield the metric plugins that a trial is measured by: those of its study and its training, and `more`."""
    reported, training = asked_names(study.named_metrics), asked_names((settings.train.select_by,))
    for name in dict.fromkeys((*reported, *training, *asked_names(tuple(more)))):
        plugin = plugin_name(name)
        where = REPORTED if name in reported and name not in training else "train.metrics"
        yield Use("metrics", PluginRef(name=plugin), f"{where}.{plugin}")


def searched_uses(plan: Plan) -> Iterator[Use]:
    """Yield every plugin as the ends of the searched ranges, and the searched choices, would use it.

    Raises `StudyError` where conditions and choices together are too many to be checked.
    """
    frames = _distinct(condition for condition in plan.conditions if condition.kind == "search")
    space = plan.study.search.space if plan.study.search else ()
    ranges = [one for one in space if any(_bears_on_plugins(one.path, frame.settings) for frame in frames)]
    values = sum(len(extremes(spanned)) for spanned in ranges)
    if len(frames) * values > MOST_CHECKED:
        raise StudyError(
            f"{plan.study.name}: {values:,} searched values in {len(frames):,} different conditions are more than can "
            f"be checked, expected at most {MOST_CHECKED:,} together"
        )
    for condition in frames:
        usual = {repr(use) for use in uses_of_settings(plan.settings_of(condition))}
        for spanned in ranges:
            yield from _at_extremes(condition, spanned, usual, plan.study.seed)


def _at_extremes(condition: Condition, spanned: SearchRange, usual: Set[str], seed: int) -> Iterator[Use]:
    for value in extremes(spanned):
        settings = typed_settings(changed(condition.settings, {spanned.path: value}), seed)
        for use in uses_of_settings(settings):
            if repr(use) not in usual or spanned.path.startswith(f"{use.where}."):
                yield replace(use, searched=spanned)


BESIDE: Mapping[str, tuple[str, ...]] = {
    "data": ("name", *(part.name for part in fields(DataSettings) if part.name not in ("dataset", "folds"))),
    "model": ("name", *(part.name for part in fields(ModelSettings) if part.name != "model")),
}
"""The keys of tables that stand there beside the options of the plugin that the table names."""


def _problems(use: Use, description: Description, variant: str | None) -> Iterator[str]:
    if description.status == "broken":
        yield f"{_prefix(use)}{use.where}: plugin {use.ref.name!r} is broken: {description.reason}"
        return
    given = {**use.ref.options, **({"variant": variant} if variant else {})}
    options = _of_use(use, description.options)
    for line in check_options(options, given, use.where, BESIDE.get(use.where, ())):
        yield _prefix(use) + line
    spanned = use.searched
    if (
        spanned
        and spanned.integer
        and any(spanned.path == f"{use.where}.{o.name}" and o.type == "float" for o in options)
    ):
        ends = f"low = {float(spanned.low or 0)}, high = {float(spanned.high or 0)}"
        yield f"{_prefix(use)}whole low and high search whole numbers only, and the option is a float: write {ends}"


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _prefix(use: Use) -> str:
    return f"search.space.{use.searched.path}: " if use.searched else ""


def _of_use(use: Use, options: tuple[Option, ...]) -> tuple[Option, ...]:
    """Return the options that a study may give: `weights` of a model comes from the model section itself."""
    return tuple(option for option in options if not (use.kind == "models" and option.name == "weights"))
