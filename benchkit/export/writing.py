"""A trial's model as a folder: weights, description, a card, a script that predicts, and what it got wrong."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from safetensors.torch import load_file
from scipy.special import softmax

from benchkit import __version__
from benchkit.data.dataset import load_data, select
from benchkit.data.decoding import DECODING
from benchkit.data.prepared import EARLIER
from benchkit.errors import BenchkitError, DataError, PluginError
from benchkit.export.choice import ChosenTrial
from benchkit.export.described import DESCRIPTION, ONNX, PRETRAINED, WEIGHTS, Exported, ImageRule, network_of, ready
from benchkit.export.source import ModelSource, source_of
from benchkit.ledger.trials import TrialFolder
from benchkit.metrics import OVER_CLASSES, UNDEFINED
from benchkit.protocols import Splits
from benchkit.registry import Registry
from benchkit.registry.options import options_of
from benchkit.report.files.html import template_folder
from benchkit.report.tables.table import markdown
from benchkit.results import Normalization, StudyResults
from benchkit.storage import encode
from benchkit.study.settings import PluginRef, Settings
from benchkit.train.evaluate import images_at_once
from benchkit.train.placement import images_for

USUAL_SCORES = ("val.accuracy", "test.accuracy", "test.loss")
"""What a card says of the very model, beside the study's main metric."""
CARD, SCRIPT, WRONG = "README.md", "predict.py", "misclassified.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written: the description, the files, and lines on what could not be."""

    exported: Exported
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export(results: StudyResults, choice: ChosenTrial, registry: Registry, root: Path, out: Path) -> Export:
    """Write the chosen trial's model into the folder `out` and return what was written.

    Data prepared under `root` are needed for the list of misclassified images alone, and for the normalisation of
    trials of earlier versions, which did not record it. The script's network is held to the study's on random images
    before it is written.

    Raises:
        DataError: `out` holds other files, or the weights are not the network's.
        PluginError: the network's plugins are not installed, or cannot be imported by a script.
    """
    if out.exists() and any(out.iterdir()) and not (out / DESCRIPTION).is_file():
        raise DataError(f"{out}: there are other files in this folder", hint="name a new folder with --out")
    splits, missing = _data(choice.settings, results, registry, root)
    exported = describe(results, choice, registry, splits)
    weights = load_file(TrialFolder(choice.trial.folder).weights)
    model = ready(network_of(exported, registry), exported, weights)
    source = source_of(exported, registry, model, weights)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TrialFolder(choice.trial.folder).weights, out / WEIGHTS)
    (out / DESCRIPTION).write_text(json.dumps(encode(exported), indent=2) + "\n", encoding="utf-8")
    (out / SCRIPT).write_text(_rendered("predict.py.j2", exported, source), encoding="utf-8")
    notes = list(missing)
    for other in (WRONG, ONNX):  # of a model that was here before
        (out / other).unlink(missing_ok=True)
    if splits is not None:
        notes += _wrong_images(choice, exported, splits, _folder(choice.settings, results, registry, root), out / WRONG)
    (out / CARD).write_text(_rendered("README.md.j2", exported, source), encoding="utf-8")
    files = [out / name for name in (WEIGHTS, DESCRIPTION, SCRIPT, CARD, WRONG) if (out / name).is_file()]
    return Export(exported=exported, files=tuple(files), notes=tuple(notes))


def describe(results: StudyResults, choice: ChosenTrial, registry: Registry, splits: Splits | None) -> Exported:
    """Return what a chosen trial's model is; `splits` are its data, where they are here."""
    settings, outcome = choice.settings, choice.trial.outcome
    data = _facts_of_data(results, choice)
    height, width, channels = data["image_shape"]
    options = {k: v for k, v in settings.model.model.options.items() if k not in PRETRAINED}
    cost = outcome.cost if outcome else None
    return Exported(
        model=PluginRef(name=settings.model.model.name, options=options),
        norm=settings.model.norm,
        class_names=tuple(data["class_names"]),
        image=ImageRule(
            height=height,
            width=width,
            channels=channels,
            fit=_fit(settings.data.dataset, registry),
            side=settings.data.image_size,
            rules=_rules(settings.data.dataset, data, splits),
        ),
        normalization=_normalization(choice, splits),
        precision=cost.precision if cost else "float32",
        channels_last=settings.train.channels_last,
        batch=images_at_once(
            settings.train.batch_size,
            (height, width),
            "cpu" if cost is None or cost.device.startswith("cpu") else "cuda",
        ),
        facts=_facts(results, choice, data),
    )


def _normalization(choice: ChosenTrial, splits: Splits | None) -> Normalization | None:
    """Return what images are normalised by: as recorded, else as the training images say."""
    settings, outcome = choice.settings, choice.trial.outcome
    if outcome is not None and outcome.normalization is not None:
        return outcome.normalization
    if settings.data.normalize in (False, "none"):
        return None
    if splits is None:
        raise DataError(
            "the trial did not record what its images were normalised by, and its data are not here",
            hint="prepare them with benchkit data prepare",
        )
    found = images_for(settings, splits, torch.device("cpu"), repeat=choice.trial.index).statistics
    return found and Normalization(source="data", mean=tuple(found[0].tolist()), std=tuple(found[1].tolist()))


def _fit(dataset: PluginRef, registry: Registry) -> str:
    """Return how the data set makes images of another shape fit; squash where it has no say in it."""
    plugin: Any = registry.load("datasets", dataset.name)
    options = options_of(plugin, "datasets")
    usual = next((option.default for option in options if option.name == "fit"), "squash")
    return str(dataset.options.get("fit", usual))


def _rules(dataset: PluginRef, data: Mapping[str, Any], splits: Splits | None) -> int:
    """Return the rules by which the set's files were read: as its option says, or as its notes tell."""
    same = splits is not None and splits.fingerprint == data.get("fingerprint")
    notes = [*data.get("notes", ()), *(splits.notes if splits and same else ())]
    given = dataset.options.get("rules") or 0
    return 1 if given == 1 or (given == 0 and EARLIER in notes) else DECODING


def _facts_of_data(results: StudyResults, choice: ChosenTrial) -> Mapping[str, Any]:
    """Return the facts of the data that a trial was trained on."""
    sets = [results.data, *results.data.get("sets", ())]
    trained = choice.trial.outcome.data_fingerprint if choice.trial.outcome else ""
    return next((one for one in sets if one.get("fingerprint") == trained), sets[0])


def _facts(results: StudyResults, choice: ChosenTrial, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people want to know of a model: where it is from, how well it does, on what."""
    mean, outcome = choice.estimate, choice.trial.outcome
    environment = dict(outcome.environment) if outcome else {}
    return {
        "title": results.study.title or results.study.name,
        "study": results.study.name,
        "condition": choice.condition.label,
        "key": choice.condition.key,
        "repeat": choice.trial.index,
        "why": choice.why,
        "chosen_among": choice.among,
        "metric": choice.metric,
        "mean": mean.mean,
        "low": mean.low,
        "high": mean.high,
        "n": mean.n,
        "confidence": mean.confidence,
        "scores": {name: choice.trial.value(name) for name in dict.fromkeys((choice.metric, *USUAL_SCORES))},
        "test_images": outcome.metrics["test"].n if outcome and "test" in outcome.metrics else 0,
        "epochs": len(choice.trial.history),
        "selected_epoch": outcome.selected_epoch if outcome else 0,
        "start_weights": outcome.start_weights if outcome else "",
        "notes": list(outcome.notes) if outcome else [],
        "data": {name: data.get(name) for name in ("name", "counts", "licence", "citation", "fingerprint")},
        "benchkit": __version__,
        "versions": environment.get("versions", {}),
    }


def _data(
    settings: Settings, results: StudyResults, registry: Registry, root: Path
) -> tuple[Splits | None, tuple[str, ...]]:
    """Return the data that a trial was trained on, or None, and why."""
    try:
        return load_data(registry, settings.data.dataset, root, results.study.path), ()
    except (DataError, PluginError) as error:
        return None, (f"no list of misclassified images: {error.what}",)


def _folder(settings: Settings, results: StudyResults, registry: Registry, root: Path) -> Path | None:
    """Return the folder of a prepared data set, None for one that is made anew each time."""
    from benchkit.sweep.shipping import prepared_in

    try:
        return prepared_in(registry, settings.data.dataset, root, results.study.path)
    except BenchkitError:
        return None


def _wrong_images(
    choice: ChosenTrial, exported: Exported, splits: Splits, folder: Path | None, file: Path
) -> list[str]:
    """Write the misclassified test images, surest first, and return a line where their paths are not known.

    `image` counts the images of the prepared test split from 0, `path` is the file's name where the data set that was
    prepared in `folder` is one of own images. Nothing is written where the data are others than the trial's.
    """
    trial = choice.trial
    if trial.outcome is not None and trial.outcome.data_fingerprint not in ("", splits.fingerprint):
        return ["no list of misclassified images: the data here are others than those of the trial"]
    logits, labels = trial.predictions("test").astype(np.float64), trial.labels("test")
    rows = select(splits, choice.settings.data, choice.settings.seed, trial.index).test.rows
    chances = softmax(logits, axis=1)
    said = logits.argmax(1)
    wrong = np.flatnonzero(said != labels)
    names = [] if choice.settings.data.folds else _names(folder, len(splits.test.labels))
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", "path", "class", "predicted", "probability", "probability_of_class"))
        for place in wrong[np.argsort(-chances[wrong, said[wrong]], kind="stable")]:
            true, called = labels[place], said[place]
            writer.writerow(
                (
                    rows[place],
                    names[rows[place]] if names else "",
                    exported.class_names[true],
                    exported.class_names[called],
                    f"{chances[place, called]:.6f}",
                    f"{chances[place, true]:.6f}",
                )
            )
    return [] if names else ["the data set does not tell which files its images came from: the list has their numbers"]


def _names(folder: Path | None, count: int) -> list[str]:
    """Return the names of a prepared set's test files in the order of its images, none where it has none."""
    try:
        names = json.loads((folder / "test-files.json").read_text(encoding="utf-8")) if folder else []
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) and len(names) == count else []


def _rendered(name: str, exported: Exported, source: ModelSource) -> str:
    folder = template_folder() / "model"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["one_line"] = environment.filters["one_line"] = lambda text: markdown(str(text))
    environment.tests["of_scores"] = lambda note: UNDEFINED in note or OVER_CLASSES in note
    return environment.get_template(name).render(exported=exported, facts=exported.facts, source=source)
