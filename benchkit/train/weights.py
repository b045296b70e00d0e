"""Model weights in files: trained ones out (safetensors), given ones in (safetensors or pth, never executing code)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from benchkit.errors import DataError
from benchkit.train.weights_file import weights_digest
from benchkit.weight_names import matching_names

if TYPE_CHECKING:
    from benchkit.train.run import Run

State = dict[str, torch.Tensor]

SHOWN = 2
"""Differences of each kind that an error lists."""


def weights_of(run: Run) -> bytes:
    """Return the model's parameters and buffers, as they are now, as a safetensors file."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in run.model.state_dict().items()}
    return save_safetensors(state)


def read_weights(path: Path) -> tuple[State, list[str]]:
    """Return the tensors of a safetensors or PyTorch file on the CPU, and a note where the file has others, too.

    A PyTorch file may hold them bare or under `state_dict`, `model` or `weights`. Raise `DataError` when it cannot be
    read, or holds several tables of tensors under names that do not tell which is meant.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_safetensors(path.read_bytes())
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(f"the weights {path} cannot be read: {error}", hint="save them as safetensors") from error
    notes = []
    for wrapper in ("state_dict", "model", "weights"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            others = [name for name in _tables(content) if name != wrapper]
            notes += [f"the file also holds {', '.join(others)}: {wrapper} was taken"] if others else []
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        tables = _tables(content)
        several = f" that holds {', '.join(tables)}" if tables else ""
        raise DataError(
            f"the weights {path} are not a table of tensors, but {type(content).__name__}{several}",
            hint="save the one that is meant by itself, as safetensors" if tables else "",
        )
    return content, notes


def _tables(content: Any) -> list[str]:
    """Return what in a file's content is a table of tensors by itself."""
    return [
        str(name)
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(value, dict) and value and all(isinstance(one, torch.Tensor) for one in value.values())
    ]


def load_weights(model: nn.Module, path: str | Path) -> list[str]:
    """Load a file's weights into the model and return notes on what was not taken over.

    Names are matched as `benchkit.weight_names` tells. A classifier for another number of classes is left out, and norm
    layers of another kind keep their initial values; any other difference raises `DataError`, which counts the tensors
    that match and names some that do not.
    """
    file = Path(path)
    notes = [f"started from the weights {file.name} (sha256 {weights_digest(file)[:12]})"]
    read, wanted = read_weights(file), model.state_dict()
    names, renamed = matching_names(read[0], wanted)
    given = {names[name]: tensor for name, tensor in read[0].items()}
    notes += [*read[1], *([f"names of the file's tensors: {renamed}"] if renamed else [])]
    misfits = sorted(_misfits(given, wanted))
    head = _classifier(model)
    norms = [name for name in misfits if _is_norm(_owner(name), given, wanted)]
    heads = [name for name in misfits if _owner(name) == head and name in given and name in wanted]
    if wrong := [name for name in misfits if name not in {*norms, *heads}]:
        raise _misfit(file, given, wanted, wrong)
    if heads:
        classes = tuple(len(state[heads[0]]) for state in (given, wanted))
        notes.append(f"the classifier {head} starts afresh: the file's has {classes[0]} outputs, ours {classes[1]}")
        misfits = [name for name in wanted if _owner(name) == head] + misfits
    if norms:
        notes.append(f"norms of another kind: {len(norms)} of their tensors were not taken over, first {norms[0]}")
    taken = {name: given[name] for name in wanted if name in given and name not in misfits}
    model.load_state_dict(taken, strict=False)
    return [*notes, f"{len(taken)} of the model's {len(wanted)} tensors came from that file"]


def _misfits(given: State, wanted: State) -> set[str]:
    """Return the names that only one side has, or whose shapes differ."""
    shared = given.keys() & wanted.keys()
    return (given.keys() ^ wanted.keys()) | {name for name in shared if given[name].shape != wanted[name].shape}


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _is_norm(owner: str, *states: State) -> bool:
    """Return whether all tensors of a layer, on either side, have at most one dimension: only norms' have."""
    return all(tensor.ndim <= 1 for state in states for name, tensor in state.items() if _owner(name) == owner)


def _classifier(model: nn.Module) -> str:
    """Return the name of the last linear layer."""
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return linear[-1] if linear else ""


def _misfit(file: Path, given: State, wanted: State, wrong: list[str]) -> DataError:
    """Return the error for tensors that do not fit: how many match, and the first ones of each kind that do not."""
    matching = sum(name in given and given[name].shape == tensor.shape for name, tensor in wanted.items())
    kinds = (
        [
            f"{name}: {tuple(given[name].shape)} in the file, {tuple(wanted[name].shape)} in the model"
            for name in wrong
            if name in given and name in wanted
        ],
        [f"{name}: in the model, not in the file" for name in wrong if name not in given],
        [f"{name}: in the file, not in the model" for name in wrong if name not in wanted],
    )
    shown = [line for kind in kinds for line in kind[:SHOWN]]
    more = [f"and {len(wrong) - len(shown)} more"] if len(wrong) > len(shown) else []
    return DataError(
        f"the weights {file} do not fit the model: {matching} of its {len(wanted)} tensors match",
        problems=[*shown, *more],
        hint="model.weights and model.name must belong together",
    )
