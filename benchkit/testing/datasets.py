"""Checks of data sets: contract, labels, disjoint splits, fingerprint, order, offline errors, kills, a tiny study."""

from __future__ import annotations

import random
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchkit.data import draft
from benchkit.errors import DataError
from benchkit.preparation import data_root, find_prepared, fingerprint_of, pixel_digests
from benchkit.protocols import Splits
from benchkit.testing.check import CheckFailure, NotApplicable, attempt, error_text, require, rule
from benchkit.testing.preparing import Prepared, no_network, prepared_elsewhere
from benchkit.testing.subject import Subject

MOST_SHARED = 0.1
"""The largest share of test images that may also be training images, if a note says so."""

MOST_CHANNELS = 4
"""Channels that images have at most where it is asked whether their channels stand first."""


class Unfit(NotApplicable):
    """The data set is here, and the draft refuses what was written; `error` says why."""

    def __init__(self, error: DataError) -> None:
        super().__init__("it cannot be prepared: the check 'contract' says why")
        self.error = error


@rule("offline", likely="network errors must become a DataError that names the file and what the user can do")
def offline(subject: Subject) -> None:
    """Without network it is prepared from what it has, or raises a `DataError` that says what is missing."""
    given = "a first preparation without network"
    try:
        with no_network():
            _ = subject.plugin(subject.scratch("offline"), **subject.options)
    except DataError as error:
        helps = error.hint or error.problems or _refused_by_draft(error)  # of the latter the check 'contract' tells
        require(helps, given=given, expected="a DataError with a hint or with problems", got=error_text(error))
    except Exception as error:
        expected = "a DataError with what is missing and what to do"
        raise CheckFailure(given=given, expected=expected, got=error_text(error)) from error


@rule("contract", likely="images and labels need astype(np.uint8) and astype(np.int64), and images a channel dimension")
def contract(subject: Subject) -> None:
    """Images are uint8 (N, H, W, C) of one shape, labels int64 (N,); licence and citation are stated."""
    try:
        splits = _splits(subject)
    except Unfit as unfit:
        likely = "the draft refuses it, as it does in a sweep: the message names the split and what is wrong with it"
        given, expected = "what is written when it is prepared", "train and test that fit together"
        got = error_text(unfit.error)
        raise CheckFailure(given=given, expected=expected, got=got, likely=likely) from unfit.error
    require(isinstance(splits, Splits), given="the data set", expected="benchkit.Splits", got=type(splits).__name__)
    shape = splits.train.images.shape[1:]
    for name, split in splits.named.items():
        images, labels = split.images, split.labels
        right = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
        given = f"the images of {name}"
        require(right, given=given, expected="a uint8 array (N, H, W, C)", got=_array(images))
        require(len(images), given=given, expected="at least one image", got="none")
        require(images.shape[1:] == shape, given=given, expected=f"{shape} as in train", got=str(images.shape[1:]))
        height, _, channels = shape
        last = not height <= MOST_CHANNELS < channels
        likely = "channels stand first: images.transpose(0, 2, 3, 1) puts them last"
        require(last, given=given, expected="(N, H, W, C)", got=str(images.shape), likely=likely)
        right = isinstance(labels, np.ndarray) and labels.dtype == np.int64 and labels.shape == (len(images),)
        require(right, given=f"the labels of {name}", expected=f"an int64 array ({len(images)},)", got=_array(labels))
    for name in ("licence", "citation"):
        text = getattr(splits, name)
        require(isinstance(text, str) and text.strip(), given=name, expected="text", got=repr(text))


@rule("labels", likely="labels start at 1, or class_names is not in the order of the labels")
def labels(subject: Subject) -> None:
    """Labels lie in 0..K-1 for the K class names, which differ, and every class occurs in train."""
    splits = _splits(subject)
    names = splits.class_names
    distinct = len(set(names)) == len(names) >= 2 and all(isinstance(name, str) and name for name in names)
    require(distinct, given="class_names", expected="at least two different names", got=repr(names[:12]))
    for name, split in splits.named.items():
        low, high = int(split.labels.min()), int(split.labels.max())
        expected = f"0..{len(names) - 1}, for {len(names)} class names"
        require(low >= 0 and high < len(names), given=f"the labels of {name}", expected=expected, got=f"{low}..{high}")
    absent = sorted(set(range(len(names))) - set(np.unique(splits.train.labels).tolist()))
    got = f"none of {', '.join(names[label] for label in absent[:5])}"
    require(not absent, given="the labels of train", expected="images of every class", got=got)


@rule("disjoint", likely="the splits were drawn with replacement, or from a source that repeats images")
def disjoint(subject: Subject) -> None:
    """No image is in two splits, pixel for pixel; the few that a published set shares are told in its notes."""
    splits = _splits(subject)
    digests = {name: pixel_digests(split.images) for name, split in splits.named.items()}
    known = set(digests["train"])
    for name in ("val", "test"):
        shared = sum(digest in known for digest in digests.get(name, ()))
        if not shared:
            continue
        given = f"the {len(digests[name]):,} images of {name}"
        got = f"{shared:,} of them also in train"
        noted = any(f"{shared:,}" in note for note in splits.notes)
        few = shared <= MOST_SHARED * len(digests[name])
        require(noted, given=given, expected="none in train, or a note with their number", got=got)
        require(few, given=given, expected=f"at most {MOST_SHARED:.0%} in train, even with a note", got=got)


@rule("fingerprint", likely="the fingerprint must come from benchkit.preparation (prepare, or fingerprint_of)")
def fingerprint(subject: Subject) -> None:
    """The fingerprint is the sha256 over content that `benchkit.preparation.fingerprint_of` computes."""
    splits = _splits(subject)
    computed = fingerprint_of(splits)
    given = "the fingerprint"
    require(splits.fingerprint == computed, given=given, expected=computed, got=repr(splits.fingerprint))


@rule("order", likely="the order comes from the global random generator, a set, or the file system's own order")
def order(subject: Subject) -> None:
    """Prepared anew, the images come in the same order, whatever state the global random generators are in."""
    first, second = _fresh(subject, "order-1", 1), _fresh(subject, "order-2", 2)
    for (name, before), (_, after) in zip(first.named.items(), second.named.items(), strict=True):
        same, got = False, "another number of images"
        if before.images.shape == after.images.shape:
            differ = (before.images != after.images).reshape(len(before.images), -1).any(1)
            differ |= before.labels != after.labels
            same, got = not differ.any(), f"other images or labels in {int(differ.sum()):,} of {len(differ):,} places"
        given = f"{name}, prepared twice with differently seeded generators"
        require(same, given=given, expected="the same images in the same order", got=got)


@rule("processes", likely="the content depends on hash(), set order, time or the process: sort, and seed from options")
def processes(subject: Subject) -> None:
    """Another process that prepares the data set from scratch gets the same fingerprint."""
    other, here = _elsewhere(subject), _splits(subject)
    given = "preparation in another process, with another PYTHONHASHSEED"
    require(other.fingerprint == here.fingerprint, given=given, expected=here.fingerprint, got=other.fingerprint)


@rule("prepared-once", likely="the data are written at each call: benchkit.preparation.prepare does it once")
def prepared_once(subject: Subject) -> None:
    """A second call opens what the first one prepared, and writes nothing."""
    again = _elsewhere(subject).writes_again
    require(not again, given="a second call", expected="no file written below root", got=f"{again} writes")


@rule("killed", likely="files are written in place: benchkit.preparation.prepare builds beside and renames at the end")
def killed(subject: Subject) -> None:
    """Killed at any write, a preparation leaves nothing that a later call would serve: it starts over."""
    whole = _elsewhere(subject)
    for kill in whole.killed:
        given = f"a preparation killed before write {kill.at} of {kill.writes}, then a second call"
        require(not kill.error, given=given, expected="the complete data set", got=kill.error)
        expected, got = f"content {whole.content[:12]}", f"content {kill.content[:12]}"
        require(kill.content == whole.content, given=given, expected=expected, got=got)


@rule("smoke", likely="too few images of some class, or images that are not what the contract check expects")
def smoke(subject: Subject) -> None:
    """A tiny study trains on it: a few images of each class, one epoch, finite losses."""
    from benchkit.testing.specimens import linear_model, losses, run_of, settings, trained

    splits, tiny = _splits(subject), settings(0, epochs=1)
    size = min(4 * len(splits.class_names), len(splits.train.labels) // 2)
    pool = len(splits.train.labels) if splits.val is None else len(splits.val.labels)
    data = replace(tiny.data, train_size=size, val_size=max(1, min(size, pool // 4)), test_size=1)
    given = f"{size} training images for one epoch of a linear model"
    with attempt(given):
        found = list(losses(trained(run_of(replace(tiny, data=data), splits, model=linear_model)).history))
    require(all(np.isfinite(found)), given=given, expected="finite losses", got=str(found))


def _splits(subject: Subject) -> Splits:
    """Return the data set for checks that read it: prepared by the user already, else prepared here."""
    return subject.once("splits", lambda: _already_prepared(subject) or _from_scratch(subject))


def _already_prepared(subject: Subject) -> Splits | None:
    try:
        manifest = find_prepared(subject.plugin, data_root(), subject.options)
        return subject.plugin(data_root(), **subject.options) if manifest is not None else None
    except DataError:
        return None  # preparing it below says why


def _from_scratch(subject: Subject) -> Splits:
    """Return the data set prepared here; raise `NotApplicable` when the original files are not here."""
    splits = subject.once("from scratch", lambda: _prepared(subject, "data"))
    if isinstance(splits, NotApplicable):
        raise splits
    return splits


def _elsewhere(subject: Subject) -> Prepared:
    _from_scratch(subject)
    return prepared_elsewhere(subject)


def _fresh(subject: Subject, name: str, seed: int) -> Splits:
    """Return the data set prepared in an empty folder, under global generators in a state of their own."""
    import torch

    _from_scratch(subject)
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    splits = _prepared(subject, name)
    if isinstance(splits, NotApplicable):
        raise splits
    return splits


def _prepared(subject: Subject, name: str) -> Splits | NotApplicable:
    root: Path = subject.scratch(name)
    try:
        with no_network():
            return subject.plugin(root, **subject.options)  # type: ignore[no-any-return]
    except DataError as error:
        if _refused_by_draft(error):
            return Unfit(error)
        takes_source = any(option.name == "source" for option in subject.known_options)
        hint = "; give them as the option source" if takes_source and not subject.given.get("source") else ""
        return NotApplicable(f"the original files are not here{hint} ({error.what})")


def _refused_by_draft(error: BaseException | None) -> bool:
    """Return whether an error, or the one behind it, comes from what was written, and not from what cannot be had."""
    files = []
    while error is not None:
        files += [frame.filename for frame in traceback.extract_tb(error.__traceback__)[-1:]]
        error = error.__cause__
    return draft.__file__ in files


def _array(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


RULES = tuple(
    # Each may be the one that prepares a data set of many images from scratch.
    replace(rule, seconds=600.0)
    for rule in (offline, contract, labels, disjoint, fingerprint, order, processes, prepared_once, killed, smoke)
)
