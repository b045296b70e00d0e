"""What a trial cost: parameters, FLOPs, seconds, throughput, memory and energy."""

from __future__ import annotations

import hashlib

import torch

from benchkit.results import FORWARD_PASSES, Cost
from benchkit.train.compiler import skip_dynamo_import
from benchkit.train.device import device_name
from benchkit.train.processor import processor
from benchkit.train.rates import known_matrix_rate
from benchkit.train.run import Run


def cost(run: Run) -> Cost:
    """Return the cost of a run so far. Seconds add up all epochs, validation included; images/s is over training."""
    history = run.history
    images = run.train.images_per_epoch * len(history)
    training = sum(run.train.images_per_epoch / record.images_per_second for record in history)
    flops, speed = _known_flops(run), images / training
    return Cost(
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        flops=flops,
        seconds=sum(record.seconds for record in history),
        images_per_second=speed,
        peak_memory=max(record.peak_memory for record in history),
        device=device_name(run.device),
        precision=run.precision.name,
        best_seconds=sum(record.seconds for record in history[: run.best.epoch or len(history)]),
        energy=sum(record.energy for record in history),
        matrix_rate=reachable_rate(run, FORWARD_PASSES * flops * speed),
    )


def reachable_rate(run: Run, reached: float = 0.0) -> float:
    """Return the operations per second of large matrix products on the run's device, in its precision; 0 if unknown.

    `reached` are those of its training.
    """
    name = f"{device_name(run.device)}, {processor()}"
    return known_matrix_rate(run.device, name, run.precision.name, busy=run.shares_device, reached=reached)


KNOWN: dict[str, int] = {}
"""The operations of networks that this process has counted, by a digest of what makes them."""


def _known_flops(run: Run) -> int:
    """Return `forward_flops`, counted once for trials of one network: for a small one it takes longer than a step."""
    made_by = (run.settings.model, run.settings.data, run.settings.regularizers, run.model)
    digest = hashlib.sha256(repr(made_by).encode()).hexdigest()
    if digest not in KNOWN:
        KNOWN[digest] = forward_flops(run)
    return KNOWN[digest]


def forward_flops(run: Run) -> int:
    """Return the floating-point operations of one image's forward pass: matrix products and convolutions.

    A multiplication and its addition are two operations; norms, activations and pooling are not counted.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    skip_dynamo_import(*(mode.__torch_dispatch__ for mode in TorchDispatchMode.__subclasses__()))
    run.model.eval()
    image = run.val.take(torch.zeros(1, dtype=torch.int64))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run.model(run.input_transform(image))
    return int(counter.get_total_flops())
