"""Where the images of a run are: on its device as far as the budget there goes, streamed to it beyond that."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchkit.protocols import Splits
from benchkit.study.settings import DataSettings, Settings
from benchkit.train.batches import ImageSet, Statistics, channel_statistics, image_set
from benchkit.train.selection import Selected, Selection, select


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The images of the splits, and notes on those that are not on the device."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What a run has of a data set: its images, placed, and the training images' statistics if it normalises any.

    It belongs to these `splits`, settings, seed, device and limit, and may serve any number of runs that have them.
    """

    placed: Placed
    statistics: Statistics | None
    splits: Splits
    data: DataSettings
    seed: int
    device: torch.device
    limit: int | None
    repeat: int = 0

    def serve(
        self, settings: Settings, splits: Splits, device: torch.device, limit: int | None, repeat: int = 0
    ) -> bool:
        """Return whether a run of these settings would make the same of these splits."""
        asked = (settings.data, settings.seed, device, limit, repeat if settings.data.folds else 0)
        return splits is self.splits and asked == (self.data, self.seed, self.device, self.limit, self.repeat)


def images_for(
    settings: Settings, splits: Splits, device: torch.device, limit: int | None = None, repeat: int = 0
) -> Images:
    """Return the images that a run trains, selects and tests on, on the device or streamed to it (see `place_all`).

    With folds they are those of the `repeat`.

    Raise `DataError` when the data do not fit together or do not suffice.
    """
    placed = place_all(select(splits, settings.data, settings.seed, repeat), device, limit)
    return Images(
        placed=placed,
        statistics=None if settings.data.normalize in (False, "none") else channel_statistics(placed.train),
        splits=splits,
        data=settings.data,
        seed=settings.seed,
        device=device,
        limit=limit,
        repeat=repeat if settings.data.folds else 0,
    )


def place_all(selection: Selection, device: torch.device, limit: int | None = None) -> Placed:
    """Return a run's images for use on `device`, where they take `limit` bytes at the most; train comes first.

    Without a limit that is half of CUDA's free memory; on the CPU images then stay where they are. Batches under way
    are not counted. The limit changes no image and no order.
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
    return Placed(train=placed["train"], val=placed["val"], test=placed["test"], notes=_notes(streamed, device, limit))


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
