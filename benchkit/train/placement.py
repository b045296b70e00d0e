"""Where the images of a run are: on its device as far as the budget there goes, streamed to it beyond that."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchkit.data.dataset import Selected, Selection, select
from benchkit.protocols import Splits
from benchkit.study.settings import Settings
from benchkit.train.batches import ImageSet, Statistics, channel_statistics, image_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What a run has of a data set: its images, placed, and the training images' statistics if it normalises any.

    `notes` tell which are not on the device. It belongs to these `splits` and what they were `made_for`, and may serve
    any number of runs of the same.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    notes: tuple[str, ...]
    statistics: Statistics | None
    splits: Splits
    made_for: tuple[object, ...]

    def serve(
        self, settings: Settings, splits: Splits, device: torch.device, limit: int | None, repeat: int = 0
    ) -> bool:
        """Return whether a run of these settings would make the same of these splits."""
        return splits is self.splits and _made_for(settings, device, limit, repeat) == self.made_for


def _made_for(settings: Settings, device: torch.device, limit: int | None, repeat: int) -> tuple[object, ...]:
    return settings.data, settings.seed, device, limit, repeat if settings.data.folds else 0


def images_for(
    settings: Settings, splits: Splits, device: torch.device, limit: int | None = None, repeat: int = 0
) -> Images:
    """Return the images that a run trains, selects and tests on, on the device or streamed to it (see `place_all`).

    With folds they are those of the `repeat`.

    Raise `DataError` when the data do not fit together or do not suffice.
    """
    placed, notes = place_all(select(splits, settings.data, settings.seed, repeat), device, limit)
    return Images(
        **placed,
        notes=notes,
        statistics=None if settings.data.normalize in (False, "none") else channel_statistics(placed["train"]),
        splits=splits,
        made_for=_made_for(settings, device, limit, repeat),
    )


def place_all(
    selection: Selection, device: torch.device, limit: int | None = None
) -> tuple[dict[str, ImageSet], tuple[str, ...]]:
    """Return a run's images by split for use on `device`, and notes on those that are not there.

    They take `limit` bytes there at the most, train first; without a limit half of CUDA's free memory, and on the CPU
    they stay where they are. Batches under way are not counted. The limit changes no image and no order.
    """
    budget = half_of_free(device) if limit is None else limit
    placed: dict[str, ImageSet] = {}
    streamed: dict[str, int] = {}
    for name in ("train", "val", "test"):
        selected: Selected = getattr(selection, name)
        placed[name] = image_set(selected, device, budget)
        if placed[name].streamed:
            streamed[name] = selected.nbytes
        elif budget is not None:
            budget -= selected.nbytes
    return placed, _notes(streamed, device, limit)


def half_of_free(device: torch.device) -> int | None:
    """Return half of the free memory of a CUDA device in bytes, None for the CPU.

    What earlier trials of this process gave back to PyTorch's allocator is free, too.
    """
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + kept) // 2


def _notes(streamed: dict[str, int], device: torch.device, limit: int | None) -> tuple[str, ...]:
    """Return a line on what was streamed, without numbers that change from trial to trial."""
    if not streamed:
        return ()
    names = " and ".join(streamed) if len(streamed) < 3 else "train, val and test"
    where = "gathered ahead by a thread" if device.type == "cpu" else "streamed to the device"
    why = "half of the device's free memory" if limit is None else f"--device-memory, {shown_bytes(limit)}"
    return (f"the {names} images ({shown_bytes(sum(streamed.values()))}) were {where}: they exceed {why}",)


def shown_bytes(count: int) -> str:
    """Return bytes with a decimal prefix: 1,500,000 is `1.5 MB`."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count / factor:,.4g} {unit}"
    return f"{count} B"
