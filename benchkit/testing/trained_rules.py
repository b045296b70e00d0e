"""What all kinds share whose plugins are trained with: resuming, ends of ranges, choices, recorded steps."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch

from benchkit.errors import BenchkitError
from benchkit.protocols import is_frozen
from benchkit.registry.options import Option, bind_options
from benchkit.testing.check import RAISED, CheckRule, NotApplicable, attempt, require, rule
from benchkit.testing.specimens import losses, trained
from benchkit.testing.subject import Subject
from benchkit.testing.tensors import require_finite
from benchkit.train.checkpoint import load_checkpoint, save_checkpoint
from benchkit.train.evaluate import logits_of
from benchkit.train.fit import fit
from benchkit.train.run import Run

LIKELY = (
    "a step looks at its own numbers, keeps count in Python or puts a new tensor in an old one's place: compute on "
    "tensors alone, or say so with the class attribute capturable = False"
)
"""The likely reason why steps cannot be recorded."""

ROUNDING = 1e-6
"""By how much the losses of recorded and single steps may differ, relative."""

OTHERWISE = re.compile(r"\.is_cuda\b|\.is_cpu\b|\bdevice\.type\b")


def hold_to_recording(subject: Subject, make: Callable[[], Run]) -> None:
    """Train `make()` in recorded and in single steps, both in the way of a GPU, and require the same losses.

    Raise `NotApplicable` for a plugin that says `capturable = False`, or decides by a tensor's device itself.
    """
    from benchkit.testing.stand_in_gpu import stand_in_gpu

    given = "training in steps recorded as on a GPU"
    with attempt(given, likely=RAISED), stand_in_gpu() as gpu:
        recorded, single = make(), make()
        histories = [list(losses(list(steps))) for steps in (fit(recorded, gpu), fit(single))]
    if recorded.eager:
        raise NotApplicable(f"on a GPU its steps run one operation at a time: {recorded.eager}")
    reasons = [note for note in recorded.notes if note.startswith("CUDA graph not used")]
    require(not reasons, given=given, expected="steps that can be recorded", got="; ".join(reasons))
    got = f"losses {histories[0]} instead of {histories[1]}"
    # Where memory lies decides by which of a processor's paths sums are taken: the last bits may differ.
    same = all(math.isclose(one, other, rel_tol=ROUNDING) for one, other in zip(*histories, strict=True))
    require(same, given=given, expected="the losses of single steps", got=got)
    if asked := _asks_otherwise(subject):
        raise NotApplicable(f"what it does on a GPU was not tried: it asks {asked}, and not benchkit.is_cpu(tensor)")


def _asks_otherwise(subject: Subject) -> str:
    """Return by what a plugin's module decides by a tensor's device, empty where it does not or asks benchkit."""
    module = sys.modules.get(str(getattr(subject.plugin, "__module__", None)))
    try:
        found = OTHERWISE.search(inspect.getsource(module)) if module else None
    except (OSError, TypeError):
        return ""
    return found.group().lstrip(".") if found else ""


def hold_to_seed(make: Callable[[], Run]) -> Run:
    """Train `make()` twice and require the same to the bit; return the first run."""
    first, second = (trained(make()) for _ in range(2))
    apart = difference(second, first)
    require(not apart, given="two runs under one seed", expected="equal weights and losses", got=apart)
    return first


def hold_to_resuming(make: Callable[[], Run], path: Path) -> None:
    """Train `make()` of four epochs in one go, and saved to `path` after two and continued anew; require the same."""
    whole, first, second = trained(make()), make(), make()
    for record in fit(first):
        if record.epoch == 2:
            save_checkpoint(path, first)
            break
    if path.exists():
        with attempt("a checkpoint after epoch 2, loaded into a new run"):
            load_checkpoint(path, second)
    trained(second)
    given = "four epochs, saved after two and continued by a new instance"
    got = difference(second, whole)
    require(not got, given=given, expected="the weights and losses of four epochs in one go", got=got)


def difference(run: Run, reference: Run) -> str:
    """Return how two runs differ, an empty string when they are equal bit for bit."""
    pairs = list(zip(losses(run.history), losses(reference.history), strict=False))
    for position, (loss, expected) in enumerate(pairs):
        if loss != expected:
            what = "validation" if position % 2 else "training"
            return f"{what} loss {loss!r} instead of {expected!r} in epoch {position // 2 + 1}"
    if len(run.history) != len(reference.history):
        return f"{len(run.history)} epochs instead of {len(reference.history)}"
    logits = [logits_of(loss, loss.val) for loss in (run, reference)]
    return "" if torch.equal(*logits) else "other validation logits after training"


Train = Callable[[Any], Run]
"""A run of one epoch with an instance of the plugin."""


def instance_of(subject: Subject) -> Any:
    """Return an instance of the plugin, with the options that were given to the kit."""
    with attempt(f"the options {dict(subject.given) or 'by default'}"):
        return subject.plugin(**subject.options)


def require_frozen(subject: Subject, expected: str = "a frozen dataclass") -> None:
    """Fail unless the plugin is a frozen dataclass."""
    got = "a dataclass that is not frozen" if is_dataclass(subject.plugin) else "no dataclass"
    likely = "write @dataclass(frozen=True, slots=True, kw_only=True) above the class"
    require(is_frozen(subject.plugin), given="the plugin", expected=expected, got=got, likely=likely)


def hold_to_ranges(subject: Subject, train: Train) -> None:
    """Require a range of an option, where there are numbers, and that both ends of every range can be trained with."""
    numeric = [option for option in subject.known_options if option.type in ("int", "float")]
    ranged = [option for option in numeric if option.low is not None and option.high is not None]
    got = f"none for {', '.join(option.name for option in numeric)}"
    likely = "give the card ranges={'NAME': Range(low=..., high=...)}"
    require(ranged or not numeric, given="the card", expected="the range of an option", got=got, likely=likely)
    for end in ("low", "high"):
        together = {option.name: _end(option, end) for option in ranged}
        for option in ranged:
            given = f"{option.name} = {together[option.name]}, an end of its range"
            _trained(train, _at(subject, {option.name: together[option.name]}, together, given), given)


def hold_to_choices(subject: Subject, train: Train) -> None:
    """Require that every choice of an option, and both values of a bool, can be trained with."""
    for option in subject.known_options:
        for value in option.choices or ((False, True) if option.type == "bool" else ()):
            given = f"{option.name} = {value!r}"
            with attempt(given, expected="a run of one epoch"):
                made = subject.plugin(**bind_options(subject.known_options, {**subject.given, option.name: value}))
            _trained(train, made, given)


def _trained(train: Train, made: Any, given: str) -> None:
    with attempt(given, expected="a run of one epoch"):
        run = train(made)
    require_finite(torch.tensor(list(losses(run.history))), given=given, what="losses")


def _end(option: Option, end: str) -> int | float:
    value: float = getattr(option, end)
    return int(value) if option.type == "int" else value


def _at(subject: Subject, alone: dict[str, Any], together: dict[str, Any], given: str) -> Any:
    """Return an instance at an end of one range, or of all ranges where options bound one another."""
    try:
        return subject.plugin(**{**subject.options, **alone})
    except (BenchkitError, ValueError):
        with attempt(given, expected="an instance, at least when other options are at that end too"):
            return subject.plugin(**{**subject.options, **together})


RunOf = Callable[[Subject, Any, int], Run]
"""A subject, an instance of its plugin and a number of epochs to a run."""


def trained_rules(
    run_of: RunOf, *, forgets: str, seen: Callable[[Subject], Subject] = lambda subject: subject
) -> tuple[CheckRule, ...]:
    """Return `resume`, `search-range`, `choices` and `recorded` of a kind whose runs `run_of` makes.

    `forgets` is the likely reason why a run does not go on as it was; `seen` gives the subject whose plugin is called
    with its options alone, where a kind's own is called with more.
    """

    @rule("resume", likely=forgets)
    def resume(subject: Subject) -> None:
        """A run that is saved after two epochs and continued by a new instance ends as one that was not."""
        shown = seen(subject)
        hold_to_resuming(lambda: run_of(shown, instance_of(shown), 4), subject.scratch("resume") / "checkpoint.pt")

    @rule(
        "search-range",
        likely="the card's range allows values that the constructor refuses, or at which training breaks",
    )
    def search_range(subject: Subject) -> None:
        """The card gives a range for what a search would vary, and both ends of every range can be trained with."""
        shown = seen(subject)
        hold_to_ranges(shown, lambda made: trained(run_of(shown, made, 1)))

    @rule(
        "choices", likely="the code for this value is seldom run: the card or the annotation allows what it cannot do"
    )
    def choices(subject: Subject) -> None:
        """Every choice of an option, and both values of a bool, can be trained with."""
        shown = seen(subject)
        hold_to_choices(shown, lambda made: trained(run_of(shown, made, 1)))

    @rule("recorded", likely=LIKELY)
    def recorded(subject: Subject) -> None:
        """Recorded as a GPU records them, steps with it do what they do one by one."""
        shown = seen(subject)
        hold_to_recording(shown, lambda: run_of(shown, instance_of(shown), 2))

    return resume, search_range, choices, recorded
