"""Checks of models: class counts, image shapes, the study's norm everywhere, gradients, initial values, training."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchkit.errors import BenchkitError
from benchkit.protocols import NormFactory, card_of
from benchkit.testing.check import CheckFailure, NotApplicable, attempt, error_text, require, rule
from benchkit.testing.specimens import images_and_labels, losses, run_of, settings, trained
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import NOT_A_MODULE, described, maps, require_close, require_equal, require_finite
from benchkit.testing.trained_rules import LIKELY, hold_to_recording
from benchkit.train.evaluate import finish
from benchkit.train.run import Run

Shape = tuple[int, int, int]

_SHAPES: tuple[Shape, ...] = ((3, 32, 32), (1, 28, 28), (3, 48, 40), (1, 8, 8), (3, 64, 64), (3, 224, 224))
_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()),
)


class Probe(nn.Module):
    """A batch norm that insists on what norms are promised: maps (N, C, H, W) of the C it was made for."""

    def __init__(self, num_channels: int, **_: object) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with weight and bias; fail for another shape."""
        right = x.ndim == 4 and x.shape[1] == self.num_channels
        expected = f"maps (N, {self.num_channels}, H, W)"
        likely = "the norm was made for another number of channels, or stands where features are not maps"
        require(right, given="what reaches the norm", expected=expected, got=described(x), likely=likely)
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


@rule("classes", likely="the last layer has a fixed number of outputs, or its output is not flattened")
def classes(subject: Subject) -> None:
    """It gives logits (N, K) for any number of classes K."""
    shape = _shape(subject)
    for count in (2, 10, 101):
        model = _build(subject, count, shape).eval()
        images = maps(subject, (2, *shape), purpose="classes")
        given = f"{count} classes, images {described(images)}"
        with attempt(given), torch.no_grad():
            logits = model(images)
        require(isinstance(logits, Tensor), given=given, expected="a tensor", got=type(logits).__name__)
        require(logits.shape == (2, count), given=given, expected=f"logits (2, {count})", got=described(logits))
        require_finite(logits, given=given, what="logits")


@rule("image-shapes", likely="a layer's size was computed for one image shape: derive it from image_shape, or pool")
def image_shapes(subject: Subject) -> None:
    """Colour and grey images, small and not square, give logits, or are refused with a `BenchkitError`."""
    accepted = 0
    for shape in _SHAPES[:-1]:
        given = f"images of shape {shape}"
        try:
            model = _build(subject, 3, shape).train()
            logits = model(maps(subject, (4, *shape), purpose="shapes"))
        except BenchkitError:
            continue
        except CheckFailure as failure:
            if not isinstance(failure.__cause__, BenchkitError):
                raise
            continue
        except Exception as error:
            expected = "logits, or a BenchkitError that says why not"
            raise CheckFailure(given=given, expected=expected, got=error_text(error)) from error
        require(logits.shape == (4, 3), given=given, expected="logits (4, 3)", got=described(logits))
        require_finite(logits, given=given, what="logits")
        accepted += 1
    if not accepted:
        _shape(subject)  # a larger shape may do; where none does, this says so


@rule("norm-everywhere", likely="a layer makes its own norm: call the factory that the model is given instead")
def norm_everywhere(subject: Subject) -> None:
    """Every norm in it comes from the study's factory and gets maps of the channels it was made for."""
    shape = _shape(subject)
    model = _build(subject, 3, shape, Probe)
    left = {name: layer for name, layer in model.named_modules() if isinstance(layer, _NORMS)}
    noted = any("norm" in str(note).lower() for note in getattr(model, "notes", ()))
    got = ", ".join(f"{name} is {type(layer).__name__}" for name, layer in list(left.items())[:5])
    given = "a model built with a norm of the kit's own"
    require(not left or noted, given=given, expected="no norm of another kind, or a note of the model's", got=got)
    when = card_of(subject.plugin).ignores.get("model.norm")
    options = {**{option.name: option.default for option in subject.known_options}, **subject.options}
    if when is not None and all(options.get(name) == value for name, value in when.items()):
        used = sum(isinstance(layer, Probe) for layer in model.modules())
        expected = "none of the study's norms: the card says that model.norm has no effect"
        require(not used, given=given, expected=expected, got=f"{used} of them")
    images = maps(subject, (2, *shape), purpose="norms")
    with attempt(f"images {described(images)} through it"):
        model(images)


@rule("gradients", likely="a parameter is registered and not used in forward, or used under no_grad or detach")
def gradients(subject: Subject) -> None:
    """The gradient of the loss reaches every parameter and is finite."""
    shape = _shape(subject)
    model = _build(subject, 3, shape).train()
    images = maps(subject, (6, *shape), purpose="gradients")
    loss = nn.functional.cross_entropy(model(images), torch.arange(6) % 3)
    loss.backward()  # type: ignore[no-untyped-call]
    given = f"the loss of images {described(images)}"
    require(any(p.requires_grad for p in model.parameters()), given=given, expected="parameters to train", got="none")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            reached = parameter.grad is not None
            require(reached, given=given, expected=f"a gradient of {name}", got="none")
            require_finite(parameter.grad, given=given, what=f"gradients of {name}")  # type: ignore[arg-type]


@rule("initial-values", likely="initial weights are drawn with numpy or random; PyTorch's seeded generator is the one")
def initial_values(subject: Subject) -> None:
    """Under one seed it starts from the same weights, and its state dict makes another instance equal to it."""
    shape, seed = _shape(subject), subject.seed_for("initial values")
    first, second = (_build(subject, 3, shape, seed=seed) for _ in range(2))
    for name, tensor in first.state_dict().items():
        given = "built twice under one seed of PyTorch's generator"
        require_equal(second.state_dict()[name], tensor, given=given, expected=f"equal {name}")
    other = _build(subject, 3, shape, seed=seed + 1)
    with attempt("the state dict of another instance"):
        other.load_state_dict(first.state_dict())
    images = maps(subject, (2, *shape), purpose="initial values")
    with torch.no_grad():
        logits, reference = other.eval()(images), first.eval()(images)
    require_equal(logits, reference, given="the state dict of another instance", expected="its logits")


@rule("evaluation", likely="dropout or a batch statistic stays active: look at self.training")
def evaluation(subject: Subject) -> None:
    """In evaluation each image's logits depend on that image alone, and copies give the same."""
    shape = _shape(subject)
    model = _build(subject, 3, shape).eval()
    images = maps(subject, (4, *shape), purpose="evaluation")
    given = f"images {described(images)}, in evaluation"
    with torch.no_grad():
        together = model(images)
        require_equal(model(images), together, given=given, expected="the same logits a second time")
        alone = torch.cat([model(image[None]) for image in images])
        require_close(alone, together, 1e-4, given=given, expected="the logits that each image gives alone")
        copied = copy.deepcopy(model)(images)
    require_equal(copied, together, given=given, expected="the logits of the original from a deep copy")


@rule("trains", likely="forward changes something in place, or depends on more than its input")
def trains(subject: Subject) -> None:
    """The engine trains it for an epoch, scores it, and counts its parameters and FLOPs."""
    run, given = _run(subject, "trains", 1e-4), f"one epoch on 40 images of shape {_shape(subject)}"
    with attempt(given):
        finished = finish(trained(run))
    require_finite(torch.tensor(list(losses(run.history))), given=given, what="losses")
    cost = finished.cost
    got = f"{cost.parameters} parameters, {cost.flops} FLOPs"
    require(cost.parameters > 0 and cost.flops > 0, given=given, expected="positive counts", got=got)


@rule("recorded", likely=LIKELY)
def recorded(subject: Subject) -> None:
    """Recorded as a GPU records them, its training steps do what they do one by one."""
    hold_to_recording(subject, lambda: _run(subject, "recorded", 2**-13))


def _run(subject: Subject, purpose: str, lr: float) -> Run:
    """Return a run of one epoch with the model, on images of a shape that it accepts."""
    seed, built = subject.seed_for(purpose), functools.partial(_build, subject, seed=None)
    return run_of(settings(seed, lr=lr, epochs=1), images_and_labels(seed, _shape(subject)), model=built)


def _shape(subject: Subject) -> Shape:
    """Return the first image shape, of those the kit tries, that the model accepts."""
    return subject.once("shape", lambda: _first_accepted(subject))


def _first_accepted(subject: Subject) -> Shape:
    reasons = []
    for shape in _SHAPES:
        try:
            with torch.no_grad():
                subject.plugin(3, shape, nn.BatchNorm2d, **subject.options).eval()(torch.zeros(1, *shape))
        except BenchkitError as error:
            reasons.append(error.what)
        except Exception:  # noqa: BLE001 - the checks meet the same error and tell it
            return shape
        else:
            return shape
    raise NotApplicable(f"it refuses every image shape that the kit tries: {reasons[-1]}")


def _build(
    subject: Subject, count: int, shape: Shape, norm: NormFactory = nn.BatchNorm2d, *, seed: int | None = 0
) -> nn.Module:
    given = f"{count} classes, images of shape {shape}"
    if seed is not None:
        torch.manual_seed(seed)
    with attempt(given, expected="an nn.Module"):
        model = subject.plugin(count, shape, norm, **subject.options)
    got = type(model).__name__
    require(isinstance(model, nn.Module), given=given, expected="an nn.Module", got=got, likely=NOT_A_MODULE)
    return model  # type: ignore[no-any-return]


RULES = tuple(
    # A large network at 224 pixels takes a processor minutes.
    replace(rule, seconds=600.0)
    for rule in (classes, image_shapes, norm_everywhere, gradients, initial_values, evaluation, trains, recorded)
)
