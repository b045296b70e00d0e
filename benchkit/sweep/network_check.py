"""Each different network of a sweep, built once and run on two images before anything is trained. Runs in a worker."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from benchkit.data.dataset import select
from benchkit.errors import BenchkitError, TrainingError, first_line, where_raised
from benchkit.metrics import Predictions, asked_metrics, name_problem, value_of
from benchkit.plan import Condition, typed_settings
from benchkit.protocols import Splits
from benchkit.study.checks import OWN_KINDS, foreign_table
from benchkit.study.settings import Settings
from benchkit.sweep.messages import NetworksChecked
from benchkit.sweep.rehearsal import rehearse, watched_norms
from benchkit.sweep.training import WorkerContext, bind_plugins, lacking
from benchkit.train.batches import InputTransform
from benchkit.train.hooks import Hooks, sampling_of, started
from benchkit.train.randomness import seeded
from benchkit.train.run import Plugins, build_model, loss_function, start_weights, training_parts, unrecorded

MOST_NETWORKS = 200
"""Different networks that are built at the most."""

MOST_SECONDS = 120.0
"""Seconds after which no further network is built."""

SIDES = (224, 64, 32)
"""Sides of images that are tried for a network that does not run on the study's, after its own."""

UNSEEN = ("train_size", "val_size", "test_size", "normalize")
"""Settings of the data that no network is made of."""

NAMED = 3
"""Conditions that an error names; the others are counted."""


def check_networks(context: WorkerContext) -> NetworksChecked:
    """Return what keeps the networks of a job's conditions from being trained: one problem for each that fails.

    Conditions that differ in nothing that a network is made of share one. What is left when `MOST_NETWORKS` or
    `MOST_SECONDS` are used up is not built. A network that takes too much memory is no problem yet: trials tell.
    """
    networks: dict[str, list[Condition]] = defaultdict(list)
    for condition in context.job.conditions:
        networks[_made_of(condition)].append(condition)
    began, problems, count, weights = time.monotonic(), [], 0, dict[str, str]()
    warnings: list[str] = []
    eager: list[str] = []
    for alike in list(networks.values())[:MOST_NETWORKS]:
        if time.monotonic() - began > MOST_SECONDS:
            break
        problem, started = network_problem(context, alike[0], warnings, eager)
        if problem:
            problems.append(f"{_shown(alike)}: {problem}")
        weights |= {condition.key: started for condition in alike if started}
        count += 1
    return NetworksChecked(
        problems=tuple(problems),
        checked=count,
        networks=len(networks),
        warnings=tuple(dict.fromkeys(warnings)),
        weights=weights,
        unrecorded=next(iter(eager), ""),
        unmeasured=metric_problems(context),
    )


def metric_problems(context: WorkerContext) -> tuple[str, ...]:
    """Return a line for each metric that the study asks for and no trial could be measured by.

    Each is tried on logits of chance for the validation images, with their labels.
    """
    if not context.job.conditions:
        return ()
    trains = [condition.settings.get("train", {}) for condition in context.job.conditions]
    names = (*context.job.study.named_metrics, *(str(train.get("select_by", "")) for train in trains))
    settings = typed_settings(context.job.conditions[0].settings, context.job.study.seed)
    found: list[str] = []
    scored: Predictions | None = None
    for name in dict.fromkeys(names):
        try:
            for metric in asked_metrics([name]):
                scored = scored or _by_chance(context.splits(settings.data.dataset), settings)
                found += filter(None, [name_problem(metric)])
                value_of(metric, scored)
        except BenchkitError as error:
            found.append(_line(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugins raise whatever they like
            if not lacking(error):
                told = f"{type(error).__name__}: {first_line(error)}{where_raised(error)}"
                found.append(f"the metric {name!r} cannot be computed: {told}")
    return tuple(dict.fromkeys(found))


def _line(error: BenchkitError) -> str:
    return "; ".join((error.what, *error.problems, *((f"hint: {error.hint}",) if error.hint else ())))


def _by_chance(splits: Splits, settings: Settings) -> Predictions:
    labels = select(splits, settings.data, settings.seed).val.labels
    noise = np.random.default_rng(settings.seed).normal(size=(len(labels), len(splits.class_names)))
    return Predictions(noise.astype(np.float32), labels)


def _made_of(condition: Condition) -> str:
    """Return all settings that a network and its input are made of, as text."""
    data = {name: value for name, value in condition.settings["data"].items() if name not in UNSEEN}
    loss = condition.settings.get("train", {}).get("loss")
    strange = [foreign_table(condition.settings, path) for path in OWN_KINDS]
    return repr((data, condition.settings["model"], condition.settings.get("regularizers"), loss, strange))


def _shown(conditions: Sequence[Condition]) -> str:
    names = "; ".join(condition.display_label for condition in conditions[:NAMED])
    return names + (f" and {len(conditions) - NAMED} more" if len(conditions) > NAMED else "")


def network_problem(
    context: WorkerContext, condition: Condition, warnings: list[str], eager: list[str]
) -> tuple[str, str]:
    """Return what is wrong with a condition's network in one line ("" for nothing), and its start weights' sha256.

    The line names the image size that cures it; the digest is empty where the network starts from no file. Add to
    `warnings` what its regularizers say of the training, and to `eager` what keeps steps in fp16 from being recorded.
    """
    settings, device = typed_settings(condition.settings, context.job.study.seed), torch.device(context.device)
    splits = context.splits(settings.data.dataset)
    model, doing, started = None, "be built", ""
    try:
        plugins = bind_plugins(context.registry, settings)
        with seeded(settings.seed, device):
            model = build_model(settings, plugins, splits, [])
        started = start_weights(settings, model)
        doing = "run on the study's images"
        with watched_norms(model, settings.model.norm.name, plugins.norm):
            run_on_two_images(model, splits, settings.data.image_size, device)
        doing = "be trained with its regularizers"
        found, obstacle, bound, steps = try_hooks(model, plugins, settings, splits)
        warnings.extend(found)
        eager.extend(filter(None, [obstacle or unrecorded(settings, plugins, model)]))
        doing = "be trained by its loss"
        loss_on_two_images(plugins.loss, splits, device)
        doing = "be trained"
        if plugins.regularizers or plugins.optimizer is not None or plugins.schedule is not None:
            parts = training_parts(settings, model, plugins, steps, device)
            rehearse(settings, plugins, model, splits, {**parts, "device": device, "hooks": bound})
    except BenchkitError as error:
        return _line(error), started
    except (Exception, SystemExit) as error:  # noqa: BLE001 - plugins raise whatever they like
        if lacking(error):
            return "", started
        cure = _cure(model, splits, device) if model is not None and "images" in doing else ""
        told = f"{type(error).__name__}: {first_line(error)}{where_raised(error)}{cure}"
        return f"it cannot {doing}: {told}", started
    return "", started


def run_on_two_images(model: nn.Module, splits: Splits, side: int, device: torch.device) -> None:
    """Run a network on two training images, resized to `side` (0: not), as training and as evaluation do.

    Raise `TrainingError` when it does not return logits (N, K), and whatever the network raises.
    """
    transform = InputTransform(scale=None, shift=None, size=side, memory_format=torch.contiguous_format)
    images = torch.from_numpy(splits.train.images[[0, -1]].copy()).permute(0, 3, 1, 2).to(device)
    model.to(device)
    with torch.no_grad(), seeded(0, device):
        for training in (True, False):
            model.train(training)
            logits = model(transform(images))
            if not isinstance(logits, torch.Tensor):
                raise TrainingError(f"its model returns a {type(logits).__name__}: return logits (N, K), one tensor")
            if logits.shape != (2, len(splits.class_names)) or not logits.is_floating_point():
                got = f"{logits.dtype} {tuple(logits.shape)}".removeprefix("torch.")
                raise TrainingError(
                    f"its model returns {got} for 2 images of {len(splits.class_names)} classes: return logits (N, K)"
                )


def try_hooks(
    model: nn.Module, plugins: Plugins, settings: Settings, splits: Splits
) -> tuple[list[str], str, Hooks, int]:
    """Make the states of a network's regularizers and draw an epoch's images; return what the states warn of.

    With that return what keeps steps with them from being recorded in fp16, in words, or nothing; the regularizers'
    hooks; and the steps of an epoch. Without plugins that would be told of these are not known, and 1.
    Raise `TrainingError` where regularizers do not go together, or not with the precision, and what plugins raise.
    """
    named, train = plugins.regularizers, settings.train
    if not named and plugins.optimizer is None and plugins.schedule is None:
        return [], "", Hooks(), 1
    sampling = sampling_of(named)[1]
    labels = torch.from_numpy(select(splits, settings.data, settings.seed).train.labels)
    steps = -(-len(labels) // (train.batch_size * train.accumulate))
    bound = started(named, model, steps, train.epochs)
    bound.obstacle(train.precision)
    if sampling is not None:
        sampling(labels, len(splits.class_names), len(labels), torch.Generator().manual_seed(settings.seed))
    try:
        return bound.warnings, bound.obstacle("fp16"), bound, steps
    except TrainingError as error:
        return bound.warnings, error.what, bound, steps


def loss_on_two_images(plugin: Any, splits: Splits, device: torch.device) -> None:
    """Ask a loss for its value on two images; raise `TrainingError` for no finite scalar, and whatever it raises."""
    labels = torch.from_numpy(splits.train.labels.astype("int64")).to(device)
    loss = loss_function(plugin, labels, splits.class_names)
    targets = torch.eye(len(splits.class_names), device=device)[labels[[0, -1]]]
    value = loss(torch.zeros_like(targets, requires_grad=True), targets)
    if not isinstance(value, torch.Tensor) or value.shape != () or not bool(torch.isfinite(value)):
        raise TrainingError(f"its loss returns {value!r}: return a finite scalar tensor")
    if not value.requires_grad:
        raise TrainingError("its loss returns a tensor without a gradient: compute it from the logits, not detached")


def _cure(model: nn.Module, splits: Splits, device: torch.device) -> str:
    """Return the image size at which a network runs, as words that end a sentence; nothing when none is found.

    The size is what the model says that it was made for, as timm's do, or a common one.
    """
    made_for = getattr(model, "default_cfg", {}).get("input_size", ())
    for side in dict.fromkeys([*made_for[-1:], *SIDES]):
        try:
            run_on_two_images(model, splits, side, device)
        except (Exception, SystemExit):  # noqa: BLE001 - whatever it raises, another size may do
            continue
        return f"; it runs with data.image_size = {side}"
    return ""
