"""The names of tensors in files of weights: what other programs put before them, and other layouts of one network."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.", "encoder.")
"""What data-parallel training, compiled models and wrappers put before every name, often one before another."""

_ORIGINAL = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_TORCHVISION = {
    "features.0.0": "conv_stem",
    "features.0.1": "bn1",
    "features.8.0": "conv_head",
    "features.8.1": "bn2",
    "classifier.1": "classifier",
}
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
    "0.0": "conv_dw",
    "0.1": "bn1",
    "2.0": "conv_pw",
    "2.1": "bn2",
}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    "0.0": "conv_pw",
    "0.1": "bn1",
    "1.0": "conv_dw",
    "1.1": "bn2",
    "3.0": "conv_pwl",
    "3.1": "bn3",
}
_SQUEEZE = {
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "1.fc1": "se.conv_reduce",
    "1.fc2": "se.conv_expand",
    "2.fc1": "se.conv_reduce",
    "2.fc2": "se.conv_expand",
}


def matching_names(given: Iterable[str], wanted: Collection[str]) -> tuple[dict[str, str], str]:
    """Return the model's name for each name of a file, and in words what was changed, empty where nothing was.

    Tried are the names as they are, without the known prefixes (`PREFIXES`, repeated), and those of EfficientNets in
    their authors' layout (`_blocks.3._bn0`) and torchvision's (`features.2.0.block.1.1`) as timm has them. What gives
    the most of the names `wanted` is taken, the first of equals; a name that nothing is known of stays as it is.
    """
    names = list(given)
    bare = _distinct({name: _without_prefixes(name, wanted) for name in names})
    taken = sorted({name.removesuffix(short) for name, short in bare.items() if name != short})
    stripped = f"{', '.join(map(repr, taken[:3]))} was taken off" if taken else ""
    tried = [({name: name for name in names}, ""), (bare, stripped)]
    for layout, renamed in _LAYOUTS.items():
        blocks = _blocks(wanted)
        words = "; ".join(filter(None, (stripped, f"{layout} layout")))
        tried.append((_distinct({name: renamed(short, blocks) for name, short in bare.items()}), words))
    return max(tried, key=lambda one: sum(name in wanted for name in one[0].values()))


def _without_prefixes(name: str, wanted: Collection[str]) -> str:
    """Return a name without known prefixes, as many as it takes until the model has it or none is left."""
    while name not in wanted and (prefix := next((one for one in PREFIXES if name.startswith(one)), "")):
        name = name.removeprefix(prefix)
    return name


def _distinct(names: dict[str, str]) -> dict[str, str]:
    """Return the renaming, or none where two names of the file would become one."""
    return names if len({*names.values()}) == len(names) else {name: name for name in names}


def _blocks(wanted: Collection[str]) -> dict[str, str]:
    """Return the blocks of timm's EfficientNets by their number through all stages, and by stage and place."""
    found = {match.groups() for name in wanted if (match := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
    places = sorted((int(stage), int(place)) for stage, place in found)
    blocks = {str(number): f"blocks.{stage}.{place}" for number, (stage, place) in enumerate(places)}
    return blocks | {f"{stage + 1}.{place}": f"blocks.{stage}.{place}" for stage, place in places}


def _original(name: str, blocks: Mapping[str, str]) -> str:
    layer, _, tensor = name.rpartition(".")
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)", layer):
        return _in_block(match[1], match[2], tensor, blocks) or name
    return f"{_ORIGINAL[layer]}.{tensor}" if layer in _ORIGINAL else name


def _torchvision(name: str, blocks: Mapping[str, str]) -> str:
    layer, _, tensor = name.rpartition(".")
    if match := re.fullmatch(r"features\.(\d+\.\d+)\.block\.(\d+\.\w+)", layer):
        return _in_block(match[1], match[2], tensor, blocks) or name
    return f"{_TORCHVISION[layer]}.{tensor}" if layer in _TORCHVISION else name


def _in_block(number: str, layer: str, tensor: str, blocks: Mapping[str, str]) -> str:
    """Return a layer's tensor as timm names it; the first stage's blocks have no layer that widens."""
    block = blocks.get(number, "")
    widening = not block.startswith("blocks.0.")
    renamed = (_BLOCK if widening else _FIRST_BLOCK).get(layer) or _SQUEEZE.get(layer)
    return f"{block}.{renamed}.{tensor}" if block and renamed else ""


_LAYOUTS: Mapping[str, Callable[[str, Mapping[str, str]], str]] = {
    "EfficientNet's authors'": _original,
    "torchvision's": _torchvision,
}
