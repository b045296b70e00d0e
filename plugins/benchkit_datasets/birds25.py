"""Twenty-five species of Indian birds, in class folders as people download them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from benchkit import DataError, Range, Splits, card
from benchkit.preparation import (
    SPLIT_SYNONYMS,
    About,
    ClassFolders,
    Draft,
    find_class_folders,
    listed,
    prepare,
    treatment_notes,
    unpacked,
)
from benchkit_datasets.published import PARTIAL, Files, decode_splits, shared_images

SPECIES = (
    "Asian Green Bee Eater", "Brown Headed Barbet", "Cattle Egret", "Common Kingfisher", "Common Myna",
    "Common Rosefinch", "Common Tailorbird", "Coppersmith Barbet", "Forest Wagtail", "Gray Wagtail", "Hoopoe",
    "House Crow", "Indian Grey Hornbill", "Indian Peacock", "Indian Pitta", "Indian Roller", "Jungle Babbler",
    "Northern Lapwing", "Red Wattled Lapwing", "Ruddy Shelduck", "Rufous Treepie", "Sarus Crane",
    "White Breasted Kingfisher", "White Breasted Waterhen", "White Wagtail",
)  # fmt: skip
CITATION = "Basandrai, A. 25 Indian bird species with 22.6k images. Kaggle data set; photographs collected from eBird."
LICENCE = "The photographs belong to their photographers; see the data set's page on Kaggle."
PAGE = "Kaggle, 'arjunbasandrai/25-indian-bird-species-with-226k-images'"


@card(
    title="Birds-25 (India)",
    summary="Photographs of 25 species of Indian birds, about 22,600, resized to squares.",
    reference=CITATION,
    url="https://www.kaggle.com/datasets/arjunbasandrai/25-indian-bird-species-with-226k-images",
    ranges={"size": Range(low=8, high=1024)},
)
def birds25(root: Path, *, source: Path | None = None, size: int = 64, partial: bool = False) -> Splits:
    """Return the photographs as (size, size, 3), resized bilinearly without keeping the aspect.

    `source` is a folder, or an archive of one, with a folder for each split: train (or training, training_set), val
    (or valid, validation, validation_set), test. Each holds a folder for every species; capitals, spaces, hyphens and
    underscores in its name do not matter, nor grey for gray. Without test folders, the val folders become test.
    `partial` accepts splits that lack species.

    Raises:
        DataError: the set is neither prepared nor given, species are missing, unknown or twice there, or images cannot
            be read; all are named.
    """

    def build(draft: Draft) -> About:
        if source is None:
            raise DataError(
                "birds25 is not prepared, and it cannot be downloaded without an account",
                hint=f"fetch it from {PAGE}, then run `benchkit data import birds25 PATH`",
            )
        with unpacked(Path(source).expanduser(), draft.scratch) as folder:
            layouts, notes = _layouts(folder)
            files, lacking = _files(layouts, partial=partial)
            notes = [*lacking, *notes, *_write(draft, files, size)]
        return About(class_names=SPECIES, licence=LICENCE, citation=CITATION, notes=notes)

    if not 8 <= size <= 1024:
        raise DataError(f"birds25: size = {size}, expected 8 to 1024 pixels")
    return prepare(Path(root), "birds25", build, options={"size": size})


def _layouts(folder: Path) -> tuple[dict[str, ClassFolders], list[str]]:
    """Return the class folders of each split, and notes."""
    layouts = {split: find_class_folders(path) for split, path in _split_folders(folder).items()}
    notes = []
    if "test" not in layouts:
        layouts["test"] = layouts.pop("val")
        notes.append("The files name no test images: their validation images are the test split.")
    notes += [f"{split}: {note}" for split, layout in layouts.items() for note in layout.notes]
    return layouts, notes


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each split, at most three wrapping folders down.

    Raises:
        DataError: no train folder, or neither a test nor a val folder, or two for one split.
    """
    for _ in range(4):
        inner = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
        named = [(split, path) for path in inner if (split := _split_of(path.name))]
        twice = [split for split, _ in named if [other for other, _ in named].count(split) > 1]
        if twice:
            raise DataError(f"{folder} has two folders for the split {twice[0]}")
        by_split = dict(named)
        if "train" in by_split and by_split.keys() & {"val", "test"}:
            return by_split
        if len(inner) != 1:
            break
        folder = inner[0]
    raise DataError(
        f"{folder} does not hold the bird species",
        problems=[f"folders: {', '.join(path.name for path in inner) or 'none'}"],
        hint="expected folders train, val and test (or training_set and validation_set) with a folder for each species",
    )


def _split_of(name: str) -> str:
    return SPLIT_SYNONYMS.get(re.sub(r"[^a-z]|set$|data$", "", name.lower()), "")


def _files(layouts: Mapping[str, ClassFolders], *, partial: bool) -> tuple[Files, list[str]]:
    """Return files and labels of each split, and notes.

    Raises:
        DataError: folders that are no species or one that another folder is already, or (unless `partial`) species
            without a folder; all are named.
    """
    problems: list[str] = []
    missing: list[str] = []
    files: dict[str, tuple[list[Path], list[int]]] = {}
    for split, layout in layouts.items():
        if len(layout.splits) > 1:
            problems.append(f"{layout.folder}: holds folders for splits, expected one for each species")
            continue
        (classes,) = layout.splits.values()
        labels, wrong = match_names(tuple(classes), SPECIES)
        problems += [f"{layout.folder}: {line}" for line in wrong]
        gone = [name for at, name in enumerate(SPECIES) if at not in labels.values()]
        missing += [f"{split}: no folder for {name!r} in {layout.folder}" for name in gone]
        pairs = sorted((label, file) for name, label in labels.items() for file in classes[name])
        files[split] = ([file for _, file in pairs], [label for label, _ in pairs])
    if problems or (missing and not partial):
        hint = "" if problems else PARTIAL
        raise DataError("these are not the 25 bird species", problems=listed(problems + missing), hint=hint)
    parts = [f"This is only a part of the set: {len(missing):,} folders of species are missing."] if missing else []
    return files, parts


def _write(draft: Draft, files: Files, size: int) -> list[str]:
    """Decode all images into the draft and return notes; raise `DataError` naming those that cannot be read."""
    hint = "fetch them again, or remove them from their folders"
    decoded = decode_splits(draft, files, size, what="decoding birds25", hint=hint)
    notes = treatment_notes(list(decoded.values()))
    shared = shared_images(decoded["train"].digests, decoded["test"].digests)
    if shared:
        notes.append(f"{shared:,} of the {len(files['test'][0]):,} test images also occur among the training images.")
    return notes


def plain(name: str) -> str:
    """Return a name in lower case without spaces, hyphens, underscores and the like; `grey` is `gray`."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).replace("grey", "gray")


def match_names(names: Sequence[str], known: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Return for each found name the index of the known one that it spells, and a line for each that fails.

    A name fails when it spells none of the known ones, or one that another found name spells too.
    """
    wanted = {plain(name): index for index, name in enumerate(known)}
    labels: dict[str, int] = {}
    owners: dict[int, str] = {}
    problems = []
    for name in names:
        index = wanted.get(plain(name))
        if index is None:
            close = get_close_matches(plain(name), wanted, n=1)
            meant = f" (did you mean {known[wanted[close[0]]]!r}?)" if close else ""
            problems.append(f"unknown class {name!r}{meant}")
        elif index in owners:
            problems.append(f"class {known[index]!r} has two folders, {owners[index]!r} and {name!r}")
        else:
            labels[name] = index
            owners[index] = name
    return labels, problems
