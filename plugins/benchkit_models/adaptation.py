"""Changes to a ready-made network: another norm, a stem for small images, a frozen body."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchkit import DataError, NormFactory, PluginError


def for_images(
    built: Callable[..., tuple[nn.Module, tuple[str, ...]]], name: str, image_shape: tuple[int, int, int]
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the model that `built` makes, for images of (C, H, W), and its notes.

    Models that timm makes for one size of images, and that do not run on these, are built again with `img_size`. Raise
    `PluginError` when that is of no use, as where patches or windows do not divide the image.
    """
    model, notes = built()
    made_for = getattr(model, "pretrained_cfg", {})
    size = tuple(made_for.get("input_size", ()))[1:]
    if not made_for.get("fixed_input_size") or size == image_shape[1:] or _misfit(model, image_shape) is None:
        return model, notes
    wanted, made = (f"{side[1]} x {side[0]} pixels" for side in (image_shape[1:], size))
    try:
        resized, notes = built(img_size=image_shape[1:])
        misfit = _misfit(resized, image_shape)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - each architecture refuses a size in its own way
        misfit = error
    if misfit is not None:
        raise PluginError(
            f"timm's {name!r} is made for images of {made} and cannot be for {wanted}: {misfit}",
            hint=f"set data.image_size = {size[0]}, or choose another model",
        ) from misfit
    told = f"made for images of {made}, built for {wanted}: what it holds for each position is resized"
    return resized, (*notes, told)


def _misfit(model: nn.Module, image_shape: tuple[int, int, int]) -> Exception | None:
    """Return what a model raises for an image of (C, H, W), None where it runs; nothing of the model changes."""
    was = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *image_shape))
    except Exception as error:  # noqa: BLE001 - each architecture refuses a size in its own way
        return error
    finally:
        model.train(was)
    return None


def is_default(norm: NormFactory) -> bool:
    """Return whether the norm is PyTorch's 2-D batch norm with its default options."""
    made, plain = norm(8), nn.BatchNorm2d(8)
    return type(made) is nn.BatchNorm2d and str(made) == str(plain)


def swap_norms(model: nn.Module, name: str, norm: NormFactory) -> tuple[str, ...]:
    """Put `norm` in the place of every 2-D batch norm, and return notes on what was carried over.

    Parameters and buffers that both have, by name and shape, keep their values. Raise `PluginError` when the model
    has no 2-D batch norm.
    """
    norms = {path: layer for path, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    if not norms:
        raise PluginError(
            f"the norm of timm's {name!r} cannot be chosen: it has no 2-D batch norm to replace",
            hint="leave model.norm at torch-bn, which keeps the architecture as it is, or choose another model",
        )
    kept, total, made = 0, 0, list[nn.Module]()
    for path, old in norms.items():
        new = norm(old.num_features)
        state, ours = old.state_dict(), new.state_dict()
        shared = {key: state[key] for key in state if key in ours and ours[key].shape == state[key].shape}
        new.load_state_dict(shared, strict=False)
        kept, total = kept + len(shared), total + len(ours)
        made.append(new)
        model.set_submodule(path, _with_activation(old, new))
    notes = [f"{len(norms)} batch norms replaced: {kept} of the new norms' {total} tensors carried over"]
    known = ({str(vars(each)["eps"]) for each in some if "eps" in vars(each)} for some in (norms.values(), made))
    was, now = map(sorted, known)
    if now and was != now:
        notes.append(f"eps of the new norms is {', '.join(now)}, of those replaced it was {', '.join(was)}")
    return tuple(notes)


def _with_activation(old: nn.BatchNorm2d, new: nn.Module) -> nn.Module:
    """Return the new norm followed by what timm folds into some batch norms: drop and activation."""
    folded = [getattr(old, part) for part in ("drop", "act") if isinstance(getattr(old, part, None), nn.Module)]
    return nn.Sequential(new, *folded) if folded else new


def cifar_stem(model: nn.Module, name: str, *, keep_weights: bool) -> tuple[str, ...]:
    """Give a ResNet a 3x3 first convolution with stride 1 and no max-pooling, and return notes.

    With `keep_weights` the centre of the former kernel is kept, otherwise it starts from He's normal distribution
    (fan-out). Raise `PluginError` for other architectures.
    """
    from timm.models.resnet import ResNet

    if not isinstance(model, ResNet) or not isinstance(model.conv1, nn.Conv2d):
        raise PluginError(
            f"stem = 'cifar' is not defined for timm's {name!r}: only ResNets with one first convolution have it",
            hint="use stem = 'imagenet', and data.image_size to enlarge the images",
        )
    old = model.conv1
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    margin = (old.kernel_size[0] - 3) // 2
    if keep_weights:
        with torch.no_grad():
            new.weight.copy_(old.weight[:, :, margin : margin + 3, margin : margin + 3])
    model.conv1, model.maxpool = new, nn.Identity()
    return ("the first convolution keeps the 3x3 centre of its pretrained kernel",) if keep_weights else ()


def classifiers_of(model: nn.Module, name: str) -> tuple[nn.Module, ...]:
    """Return a timm model's classifier, or both where one learns from a teacher; raise `PluginError` without any."""
    get = getattr(model, "get_classifier", None)
    found = get() if callable(get) else None
    heads = found if isinstance(found, tuple | list) else (found,)
    if not heads or not all(isinstance(head, nn.Module) and list(head.parameters()) for head in heads):
        raise PluginError(f"trained = 'head' is not defined for timm's {name!r}: it has no classifier layer")
    return tuple(heads)


def freeze_all_but(model: nn.Module, heads: tuple[nn.Module, ...]) -> tuple[str, ...]:
    """Train `heads` alone, and return a note on their share: all other parameters are frozen.

    All other layers that own parameters or buffers stay in evaluation mode.
    """
    model.requires_grad_(False)
    for head in heads:
        head.requires_grad_(True)
    trained = {layer for head in heads for layer in head.modules()}
    body = [layer for layer in model.modules() if layer not in trained and _owns_tensors(layer)]
    model.register_forward_pre_hook(partial(_keep_in_evaluation, body))
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (False, True)]
    return (f"{counts[0]:,} of {counts[1]:,} parameters are trained: those of the classifier",)


def slow_early_parts(model: nn.Module, name: str, trained: str, decay: float) -> tuple[str, ...]:
    """Give each parameter the `rate_factor` decay ** -d, d stages or layers before the classifier, and return notes.

    They are those that timm groups the model's parameters into: its stages where `trained` is `discriminative`, its
    layers where it is `layers`. Raise `PluginError` when it does not group them.
    """
    from timm.models import group_parameters

    matcher = getattr(model, "group_matcher", None)
    if not callable(matcher):
        raise PluginError(f"trained = {trained!r} is not defined for timm's {name!r}: timm names no stages for it")
    coarse = trained == "discriminative"
    stages = group_parameters(model, matcher(coarse=coarse))
    parameters = dict(model.named_parameters())
    last = max(stages)
    for stage, members in stages.items():
        for member in members:
            vars(parameters[member])["rate_factor"] = decay ** (stage - last)
    first = decay ** (min(stages) - last)
    parts = f"{len(stages)} {'stages' if coarse else 'layers'}"
    return (f"learning rates from {first:.2g} (first of {parts}) to 1 (classifier) times the schedule's",)


def _owns_tensors(layer: nn.Module) -> bool:
    return bool([*layer.parameters(recurse=False), *layer.buffers(recurse=False)])


def _keep_in_evaluation(body: list[nn.Module], model: nn.Module, inputs: object) -> None:
    """Undo what `model.train()` did to the frozen layers; a hook, so that it holds wherever the model is used."""
    if model.training:
        for layer in body:
            layer.training = False
