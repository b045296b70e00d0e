"""Compiled code, kept for trials and sweeps to come: found by its content, and never half of it.

A step's code is one archive. Its name is a digest of the traced step, which holds what model, norm, loss, regularizers
and optimizer really do, whatever version they say they are, and of what else its machine code hangs on. A process
compiles in a folder of its own, which starts with the archive's files if there are any, and puts a new archive in
place whole. Of several processes that lack the same code one compiles, and the others wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchkit.locks import held
from benchkit.storage import write_atomically
from benchkit.train.compiler import CAPABILITIES, cpp_compiler

logger = logging.getLogger(__name__)

OWN = "own-"
"""What the names of folders begin with in which processes compile."""

ABANDONED = 24 * 3600.0
"""Seconds after which such a folder is its process's no more: that was killed."""


def kept_code(
    compile_graph: Callable[[], Callable[..., Any]], graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]
) -> Callable[..., Any]:
    """Return what `compile_graph` makes of a traced step on inputs like these, from what was kept if it was.

    Where nothing can be kept, it is compiled for this process alone. Raise what `compile_graph` raises, and `OSError`
    where no folder at all can be written.
    """
    from torch._inductor.runtime import cache_dir_utils

    store = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or cache_dir_utils.default_cache_dir())
    archive = store / f"{code_key(graph, inputs)}.zip"
    with _folder_in(store) as folder:
        with contextlib.ExitStack() as stack:
            if not (found := _unpacked(archive, folder)):
                with contextlib.suppress(OSError):  # a folder that cannot be written, or has no locks
                    stack.enter_context(held(archive.with_suffix(".lock")))
                found = _unpacked(archive, folder)
            with cache_dir_utils.temporary_cache_dir(str(folder)):
                code = compile_graph()
            if _graphs(folder) != found:
                _keep(folder, archive)
    return code


def code_key(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> str:
    """Return the digest of a traced step, the form of its inputs, and all else that its machine code hangs on."""
    parts = [part for part in graph.modules() if isinstance(part, torch.fx.GraphModule)]
    constants = {**dict(graph.named_buffers()), **dict(graph.named_parameters())}
    constants |= {name: value for name, value in vars(graph).items() if isinstance(value, torch.Tensor)}
    facts = {
        "steps": [part.code for part in parts],
        "constants": {name: _digest(value) for name, value in sorted(constants.items())},
        "inputs": [_form(tensor) for tensor in inputs],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "asked": {name: os.environ.get(name, "") for name in CAPABILITIES},
        "compiler": _compiler_version(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _form(tensor: torch.Tensor) -> list[str]:
    return [str(tuple(tensor.shape)), str(tensor.stride()), str(tensor.dtype), tensor.device.type]


def _digest(constant: torch.Tensor) -> str:
    content = constant.detach().cpu().contiguous().flatten().view(torch.uint8) if constant.numel() else constant
    return hashlib.sha256(content.numpy().tobytes()).hexdigest() + "".join(_form(constant))


def _compiler_version() -> str:
    """Return what the C++ compiler says that it is, with its place."""
    compiler = cpp_compiler()
    if not compiler:
        return ""
    told = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True, check=False)
    return f"{shutil.which(compiler.split()[0])} {told.stdout}"


@contextlib.contextmanager
def _folder_in(store: Path) -> Iterator[Path]:
    """Yield a new folder in the store, or among temporary files where that cannot be written; it is gone afterwards."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=OWN, dir=store)
    except OSError as error:
        logger.warning("compiled code is not kept: %s cannot be written (%s)", store, error.strerror)
        folder = tempfile.mkdtemp(prefix=f"benchkit-{OWN}")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpacked(archive: Path, folder: Path) -> Mapping[str, bytes]:
    """Put what was kept into a folder and return its graphs; a damaged archive counts as none.

    Every file's checksum is looked at before the first is written.
    """
    try:
        with zipfile.ZipFile(archive) as kept:
            if kept.testzip() is not None:
                return {}
            kept.extractall(folder)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("compiled code is compiled anew: %s cannot be read (%s)", archive, error)
        return {}
    return _graphs(folder)


def _graphs(folder: Path) -> Mapping[str, bytes]:
    """Return the compiler's record of each graph that it has in a folder."""
    found = (path for path in (folder / "fxgraph").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _keep(folder: Path, archive: Path) -> None:
    """Put the archive of a folder in place of an older one, and remove what killed processes left beside it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as kept:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".lock" and not re.match(r"\.|.*\.tmp$", path.name):
                kept.write(path, path.relative_to(folder))
    try:
        write_atomically(archive, content.getvalue())
        for left in archive.parent.glob(f"{OWN}*"):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        logger.warning("compiled code is not kept: %s cannot be written (%s)", archive, error.strerror)
