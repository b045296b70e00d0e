"""A step of a benchmark as one CUDA graph, as benchkit's own trials on a GPU take theirs."""

from __future__ import annotations

from collections.abc import Callable

import torch


def recorded(step: Callable[[], object]) -> Callable[[], None]:
    """Return a step's replay on the current device, recorded after steps that give libraries and optimizers memory."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    replay: Callable[[], None] = graph.replay
    return replay
