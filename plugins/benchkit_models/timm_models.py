"""Every model of timm, with the study's norm in it and, on request, pretrained weights."""

from __future__ import annotations

import hashlib
import pickle
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from torch import nn

from benchkit import (
    BenchkitError,
    DataError,
    NormFactory,
    PluginError,
    Range,
    card,
    first_line,
    matching_names,
    sent_file,
)
from benchkit_models.adaptation import (
    cifar_stem,
    classifiers_of,
    for_images,
    freeze_all_but,
    is_default,
    slow_early_parts,
    swap_norms,
)

TRAINED = ("all", "head", "discriminative", "layers")

SHOWN = 3
"""Names of tensors of each kind that an error lists."""


@card(
    title="timm",
    summary="Any image classifier of the timm library, by its name there: timm:resnet18.",
    reference="Wightman, PyTorch Image Models, 2019",
    url="https://github.com/huggingface/pytorch-image-models",
    ranges={"rate_decay": Range(low=1.0, high=10.0)},
    choices={"stem": ("imagenet", "cifar"), "trained": TRAINED},
)
def timm_model(
    num_classes: int,
    image_shape: tuple[int, int, int],
    norm: NormFactory,
    /,
    *,
    variant: str,
    pretrained: bool = False,
    pretrained_url: str = "",
    stem: str = "imagenet",
    trained: str = "all",
    rate_decay: float = 2.6,
    weights: str = "",
) -> nn.Module:
    """Return timm's model `variant` for C input channels and `num_classes` outputs.

    norm: PyTorch's batch norm with its defaults leaves the architecture as it is. Any other norm takes the place of
    every 2-D batch norm; what it has in common with the batch norm it replaces (scale, shift, running statistics) is
    carried over, and no other weight changes. Architectures without 2-D batch norms raise `PluginError`.

    pretrained: timm's own weights, downloaded once through its hub, or from `pretrained_url`. weights: a local
    safetensors or pth file instead. In both cases timm adapts the first convolution to C channels, and a classifier
    for another number of classes starts afresh. Raise `DataError` when they cannot be had or do not fit.

    Models of one image size are built for that of the images, where the architecture can be: what they learnt for each
    position is interpolated. Raise `PluginError` where it cannot.

    stem: `cifar` makes a ResNet's first convolution 3x3 with stride 1 (pretrained 7x7 weights keep their centre) and
    takes out the max-pooling, for images of about 32 pixels.

    trained: `head` trains the classifier alone; the rest is frozen, its norms in evaluation mode. `discriminative`
    trains each stage at the rate of the next deeper one over `rate_decay` (Howard and Ruder, ULMFiT, ACL 2018: 2.6).
    `layers` does so layer by layer, as timm's layer decay does (BEiT, ICLR 2022): its 0.75 is a `rate_decay` of 1.33.
    """
    import timm

    _check(timm, variant, stem, trained)
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": image_shape[0]}

    def built(**more: Any) -> tuple[nn.Module, tuple[str, ...]]:
        if weights:
            return _with_weights(timm, variant, Path(weights), {**options, **more})
        if pretrained:
            return _pretrained(timm, variant, pretrained_url, {**options, **more}), ()
        return timm.create_model(variant, **options, **more), ()

    model, taken = for_images(built, variant, image_shape)
    digest, notes = _source(model, weights, pretrained_url) if weights or pretrained else ("", ())
    notes += taken
    if stem == "cifar":
        notes += cifar_stem(model, variant, keep_weights=pretrained or bool(weights))
    if not is_default(norm):
        notes += swap_norms(model, variant, norm)
    if trained == "head":
        notes += freeze_all_but(model, classifiers_of(model, variant))
    elif trained != "all":
        notes += slow_early_parts(model, variant, trained, rate_decay)
    sites = ("act1", "global_pool") if hasattr(model, "act1") and hasattr(model, "global_pool") else ()
    vars(model).update(notes=notes, dropout_sites=sites, start_weights=digest)
    return model


def _check(timm: Any, variant: str, stem: str, trained: str) -> None:
    problems = []
    if not timm.is_model(variant):
        close = get_close_matches(variant, timm.list_models(), n=3)
        problems.append(f"timm has no model {variant!r}" + (f"; near it: {', '.join(close)}" if close else ""))
    if stem not in ("imagenet", "cifar"):
        problems.append(f"stem = {stem!r}: expected 'imagenet' or 'cifar'")
    if trained not in TRAINED:
        problems.append(f"trained = {trained!r}: expected one of {', '.join(TRAINED)}")
    if problems:
        raise PluginError(f"the model 'timm:{variant}' cannot be built", problems=problems)


def _source(model: nn.Module, weights: str, url: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of the file that the model started from, and its name; of timm's own its tag and hub's id."""
    file = Path(weights) if weights else _downloaded(model)
    digest = _digest(file) if file else ""
    told = f"sha256 {digest[:12]}" if digest else "its digest is not known"
    if weights:
        return digest, (f"started from the weights {Path(weights).name} ({told})",)
    about: Any = getattr(model, "pretrained_cfg", {})
    tagged = ".".join(filter(None, (about.get("architecture"), about.get("tag"))))
    where = url or about.get("hf_hub_id") or about.get("url") or "timm"
    return digest, (f"started from pretrained weights {tagged} of {where} ({told})",)


def _downloaded(model: nn.Module) -> Path | None:
    """Return the file of pretrained weights that timm has just loaded, None where it is not among the known ones."""
    import torch
    from huggingface_hub import try_to_load_from_cache

    about: Any = getattr(model, "pretrained_cfg", {})
    if about.get("file"):
        return Path(about["file"])
    if hub := about.get("hf_hub_id"):
        name, _, revision = hub.partition("@")
        usual = about.get("hf_hub_filename") or "pytorch_model.bin"
        for file in ("model.safetensors", Path(usual).with_suffix(".safetensors").name, usual):
            found = try_to_load_from_cache(name, file, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    elif url := about.get("url"):
        there = Path(torch.hub.get_dir(), "checkpoints", urlparse(url).path.rpartition("/")[2])
        return there if there.is_file() else None
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _pretrained(timm: Any, variant: str, url: str, options: dict[str, Any]) -> nn.Module:
    """Return the model with timm's weights, or those at `url`; whatever keeps them away becomes a `DataError`."""
    from huggingface_hub.errors import HfHubHTTPError

    elsewhere: dict[str, Any] | None = {"url": url, "hf_hub_id": None, "source": "url"} if url else None
    if (sent := sent_file(_called(timm, variant, url))) is not None:
        elsewhere = {"file": str(sent)}
    try:
        model: nn.Module = timm.create_model(variant, pretrained=True, pretrained_cfg_overlay=elsewhere, **options)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, HfHubHTTPError) as error:
        raise _unavailable(variant, error) from error
    return model


def _called(timm: Any, variant: str, url: str) -> str:
    """Return the address of a model's pretrained weights, by which a sweep on a cluster knows them."""
    known = timm.get_pretrained_cfg(variant)
    return url or (f"hub:{known.hf_hub_id}" if known.hf_hub_id else str(known.url))


def fetch(
    *, variant: str, pretrained: bool = False, pretrained_url: str = "", weights: str = "", **options: Any
) -> tuple[str, Path] | None:
    """Return the address of the pretrained weights that a model starts from, and the file they were downloaded into.

    None for a model that starts from none, or from a local file. Raises `DataError` where they cannot be had.
    """
    if weights or not pretrained:
        return None
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    from timm.models import _hub

    address = _called(timm, variant, pretrained_url)
    try:
        if not address.startswith("hub:"):
            return address, Path(_hub.download_cached_file(address))
        name, revision = _hub.hf_split(address.removeprefix("hub:"))
        try:
            return address, Path(hf_hub_download(name, "model.safetensors", revision=revision))
        except EntryNotFoundError:
            return address, Path(hf_hub_download(name, "pytorch_model.bin", revision=revision))
    except (OSError, RuntimeError, HfHubHTTPError) as error:
        raise _unavailable(variant, error) from error


vars(timm_model).update(fetch=fetch)


def _unavailable(variant: str, error: Exception) -> BenchkitError:
    return DataError(
        f"the pretrained weights of timm's {variant!r} cannot be loaded: {first_line(error)}",
        hint="download them where the network allows it and name the file in model.weights (safetensors or pth)",
    )


def _with_weights(timm: Any, variant: str, path: Path, options: dict[str, Any]) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the model with a local file's tensors, which timm adapts as it does its own, and notes on what was taken.

    Where the file's names are not timm's, they are matched as `benchkit.weight_names` tells. No pickle is executed.
    """
    if not path.is_file():
        raise DataError(f"no weights at {path}", hint="model.weights names a local safetensors or pth file")
    import torch
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    tensors: dict[str, Any] = {}
    drawn = torch.get_rng_state()
    wrong = (RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError, AttributeError, TypeError, KeyError)
    try:
        tensors = load_state_dict(str(path), weights_only=True)
        model, notes = _filled(timm, variant, options, tensors, int(timm.get_pretrained_cfg(variant).num_classes))
    except wrong as error:
        if not tensors or not isinstance(tensors, dict):
            raise _unreadable(path, error) from error
        renamed, words = _renamed(timm, variant, options, tensors)
        torch.set_rng_state(drawn)
        try:
            model, notes = _filled(timm, variant, options, renamed, 0)
        except wrong as second:
            raise _misfit(timm, variant, path, options, renamed) from second
        notes += (f"names of the file's tensors: {words}",) if words else ()
    return model, notes + _averaged(path)


def _filled(
    timm: Any, variant: str, options: dict[str, Any], tensors: dict[str, Any], headless: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the model with the tensors in it, and notes; where no classifier is among them, it had `headless` classes.

    With as many classes as the file has, timm insists on every tensor; otherwise it would overlook missing ones.
    """
    outputs, wanted = _outputs(timm, variant, tensors, headless), options["num_classes"]
    overlay = {"state_dict": tensors, "num_classes": outputs}
    given = {**options, "num_classes": outputs}
    model: Any = timm.create_model(variant, pretrained=True, pretrained_cfg_overlay=overlay, **given)
    notes = [f"all {len(tensors)} tensors of the file were taken"]
    if outputs != wanted:
        model.reset_classifier(wanted)
        had = f"the file's has {outputs} outputs, ours {wanted}" if outputs else "the file has none"
        notes.append(f"the classifier starts afresh: {had}")
    network: nn.Module = model
    return network, tuple(notes)


def _renamed(timm: Any, variant: str, options: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], str]:
    names, words = matching_names(tensors, timm.create_model(variant, **options).state_dict())
    return {names[name]: tensor for name, tensor in tensors.items()}, words


def _averaged(path: Path) -> tuple[str, ...]:
    """Return a note where a file holds averaged weights beside the last ones: timm takes the former."""
    import torch

    content = {} if path.suffix == ".safetensors" else torch.load(path, map_location="meta", weights_only=True)
    both = isinstance(content, dict) and {"state_dict_ema", "model_ema"} & content.keys()
    return (f"of the file's weights the averaged ones were taken: {min(both)}",) if both else ()


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"the weights {path} cannot be read: {first_line(error)}", hint="save them as safetensors")


def _misfit(timm: Any, variant: str, path: Path, options: dict[str, Any], tensors: dict[str, Any]) -> DataError:
    """Return the error for a file whose tensors are not the model's: how many are, and the first that are not."""
    outputs = _outputs(timm, variant, tensors, 0) or options["num_classes"]
    wanted = timm.create_model(variant, **{**options, "num_classes": outputs}).state_dict()
    fitting = {name for name in wanted if getattr(tensors.get(name), "shape", None) == wanted[name].shape}
    theirs, ours = ([name for name in names if name not in fitting] for names in (tensors, wanted))
    return DataError(
        f"the weights {path} do not fit timm's {variant!r}: {len(fitting)} of its {len(wanted)} tensors match",
        problems=[
            f"{where}: {', '.join(names[:SHOWN])}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            for where, names in (("not matched in the file", theirs), ("not matched in the model", ours))
            if names
        ],
        hint="model.weights and model.variant must belong together",
    )


def _outputs(timm: Any, variant: str, tensors: dict[str, Any], headless: int) -> int:
    """Return how many classes the classifier among the tensors has; without one, `headless`."""
    classifier = timm.get_pretrained_cfg(variant).classifier
    names = (f"{classifier}.bias", f"{classifier}.weight") if isinstance(classifier, str) else ()
    return next((len(tensors[name]) for name in names if name in tensors), headless)
