"""Checks of norms inside larger things: compiled code, CUDA graphs, timm's models, pretrained weights."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from benchkit.testing.check import attempt, require, rule
from benchkit.testing.norm_numbers import move_parameters, trained
from benchkit.testing.specimens import SmallNetwork, run_of, settings
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import described, maps, require_close, require_equal, require_finite
from benchkit.testing.trained_rules import LIKELY, hold_to_recording
from benchkit.train.compiler import without_its_own_warnings
from benchkit.train.weights import load_weights


@rule("compile", likely="Python control flow reads a tensor's value (item(), if x.max() > 0), which breaks the graph")
def compiled(subject: Subject) -> None:
    """torch.compile captures it as one graph, forward and backward, with the results of eager code."""
    module = trained(subject, 6)
    x = maps(subject, (3, 6, 4, 4), purpose="compile")
    eager, inputs = copy.deepcopy(module), (x.clone().requires_grad_(), x.clone().requires_grad_())
    given = described(x, "torch.compile(fullgraph=True, backend='aot_eager')")
    with attempt(given, expected="one graph"), without_its_own_warnings():
        fast = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=False)
        y = fast(inputs[0])
        y.square().sum().backward()
    reference = eager(inputs[1])
    reference.square().sum().backward()
    require_close(y, reference, 1e-5, given=given, expected="the result of eager code")
    if inputs[0].grad is not None and inputs[1].grad is not None:
        require_close(inputs[0].grad, inputs[1].grad, 1e-5, given=given, expected="the gradient of eager code")
    torch.compiler.reset()


@rule(
    "cuda", likely="a tensor stays on the CPU: register it as a buffer, or make new ones with device=x.device", gpu=True
)
def cuda(subject: Subject) -> None:
    """On a GPU the results are those of the CPU."""
    module = trained(subject, 6)
    x = maps(subject, (4, 6, 5, 5), purpose="cuda")
    given = described(x, "on cuda")
    with attempt(given):
        y = copy.deepcopy(module).cuda()(x.cuda())
    require(y.is_cuda, given=given, expected="a result on the GPU", got=str(y.device))
    require_close(y.cpu(), module(x), 1e-4, given=given, expected="the result on the CPU")


@rule("cuda-graph", likely="the code synchronises (item(), .cpu()) or allocates from the host while captured", gpu=True)
def cuda_graph(subject: Subject) -> None:
    """A CUDA graph captures forward and backward, and its replay gives the results of eager code."""
    module = trained(subject, 6).cuda()
    x = maps(subject, (4, 6, 5, 5), purpose="graph").cuda().requires_grad_()
    given = described(x, "captured in a CUDA graph")
    with torch.no_grad():  # a graph of derivatives that outlives this would tie x to the usual stream
        reference = copy.deepcopy(module)(x)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            copy.deepcopy(module)(x).square().sum().backward()
    torch.cuda.current_stream().wait_stream(stream)
    x.grad = None
    graph = torch.cuda.CUDAGraph()
    with attempt(given), torch.cuda.graph(graph):
        y = module(x)
        y.square().sum().backward()
    graph.replay()
    torch.cuda.synchronize()
    require_close(y, reference, 1e-4, given=given, expected="the result of eager code")


@rule("recorded", likely=LIKELY)
def recorded(subject: Subject) -> None:
    """Recorded as a GPU records them, a network's steps with it do what they do one by one."""
    given, norm = settings(subject.seed_for("recorded")), functools.partial(subject.plugin, **subject.options)
    hold_to_recording(subject, lambda: run_of(given, model=lambda count, shape, _: SmallNetwork(count, shape, norm)))


TAKES = "timm calls norm_layer(channels, device=..., dtype=...): take both as keywords, with default None"


@rule("timm", likely=TAKES)
def timm_model(subject: Subject) -> None:
    """It fits timm's `norm_layer`: a ResNet-18 is built with it, trains a step and evaluates."""
    model = _resnet18_with(subject)
    images = maps(subject, (2, 3, 64, 64), purpose="timm")
    given = f"images {described(images)} through timm's resnet18"
    with attempt(given):
        logits = model(images)
        logits.square().sum().backward()
    require_finite(logits, given=given, what="logits")
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            require_finite(parameter.grad, given=given, what=f"gradients of {name}")
    with attempt(f"{given}, in evaluation"), torch.no_grad():
        require_finite(model.eval()(images), given=f"{given}, in evaluation", what="logits")


@rule("pretrained", likely="the norm's tensors are not told from other layers': keep them vectors of length C")
def pretrained(subject: Subject) -> None:
    """Put into a ResNet-18 with given weights, it leaves every convolution and the classifier as they were."""
    source = _resnet18(nn.BatchNorm2d, subject.seed_for("pretrained"))
    move_parameters(source)
    path = subject.scratch("pretrained") / "resnet18.safetensors"
    save_file(source.state_dict(), path)
    model = _resnet18_with(subject)
    with attempt("the weights of a ResNet-18 with batch norm"):
        load_weights(model, path)
    given = source.state_dict()
    kinds = (nn.Conv2d, nn.Linear)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    loaded = {f"{name}.{key}": tensor for name, layer in layers.items() for key, tensor in layer.state_dict().items()}
    for name, tensor in loaded.items():
        require_equal(
            tensor, given[name], given="the weights of a ResNet-18 with batch norm", expected=f"{name} as given"
        )


def _resnet18_with(subject: Subject) -> nn.Module:
    with attempt("timm.create_model('resnet18', norm_layer=...)", likely=TAKES):
        return _resnet18(functools.partial(subject.plugin, **subject.options), subject.seed_for("timm"))


def _resnet18(norm: Callable[..., Any], seed: int) -> nn.Module:
    import timm

    torch.manual_seed(seed)
    model: nn.Module = timm.create_model("resnet18", norm_layer=norm, num_classes=5)
    return model


RULES = (compiled, cuda, cuda_graph, recorded, timm_model, pretrained)
