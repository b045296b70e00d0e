"""What is decided once for a study and what a sweep makes of it: obeyed, recorded with the first trial, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchkit.ledger import Ledger
from benchkit.ledger.ledger import decide, decisions_of, refuse_otherwise
from benchkit.ledger.tables import PATIENCE
from benchkit.plan import INTERIM_ANALYSES, Plan, planned_looks
from benchkit.study import Study
from benchkit.study.settings import TrainSettings
from benchkit.sweep.compiling import ConditionWork, choice
from benchkit.sweep.messages import Seat
from benchkit.sweep.starts import Memory
from benchkit.sweep.training_decisions import AS_TIMED, TRAINING

if TYPE_CHECKING:
    from benchkit.sweep.orchestration import Request

DEVICE_KIND = "device kind"
"""What the ledger calls the kind of device that all trials of a study train on: cpu, cuda or mps."""


def refuse_other_decisions(ledger: Ledger, request: Request) -> None:
    """Raise `LedgerError` when a sweep asks for something else than what is decided for its study."""
    study = request.study
    kind = request.device.partition(":")[0]
    if kind in ("cpu", "cuda", "mps"):  # what is no device is refused where devices are looked for
        refuse_otherwise(ledger, study.name, DEVICE_KIND, kind, f"--device {request.device}")
    for name, asked in asked_once(study).items():
        if asked != "auto":
            refuse_otherwise(ledger, study.name, name, asked, f"train.{TRAINING[name]} = {asked}")
    plan = planned_looks(decisions_of(ledger, study.name).values())
    for most, option in ((request.most, "--most"), (study.most, "repeats.most =")):
        if plan and most not in (0, plan[-1].n):
            refuse_otherwise(ledger, study.name, INTERIM_ANALYSES, f"at most {most} repeats", f"{option} {most}")
    if plan and study.repeats > plan[0].n:
        refuse_otherwise(
            ledger, study.name, INTERIM_ANALYSES, f"{study.repeats} repeats first", f"repeats.n = {study.repeats}"
        )


def asked_once(study: Study) -> dict[str, str]:
    """Return what a study asks of its training for all its trials, by the decision's name; not what it varies."""
    varied = {path for factor in study.factors for level in factor.levels for path in level.settings}
    varied |= {spanned.path for spanned in (study.search.space if study.search else ())}
    written: Mapping[str, Any] = study.settings.get("train", {})
    return {
        name: str(written.get(key, getattr(TrainSettings(), key)))
        for name, key in TRAINING.items()
        if f"train.{key}" not in varied and "train" not in varied
    }


def decided_device(ledger: Ledger, request: Request) -> str:
    """Return the device to ask for: `auto` is the kind that the study's trials so far were trained on."""
    known = decisions_of(ledger, request.study.name).get(DEVICE_KIND)
    return known.value if known and request.device == "auto" else request.device


def decide_as_trained(ledger: Ledger, plan: Plan) -> None:
    """Let precision and compiling be those of a registered study's trials, where an earlier version trained some."""
    once, known = asked_once(plan.study), decisions_of(ledger, plan.study.name)
    missing = [name for name in ("precision", "compiling") if name in once and name not in known]
    used = next((outcome.cost for outcome in ledger.outcomes(plan) if outcome.cost), None) if missing else None
    if used is None:
        return
    eager = "never" if used.device.startswith("cpu") else AS_TIMED
    took = {
        "precision": used.precision,
        "compiling": eager if once.get("compiling") == "auto" else once.get("compiling", ""),
    }
    for name in missing:
        decide(ledger, plan.study.name, name, took[name], "that of the trials that were there")


def _precision(seat: Seat, unrecorded: str) -> tuple[str, str]:
    """Return what precision `auto` is, and the words that follow where a GPU has no bf16.

    It is fp16 there where all steps are recorded: scaling the loss costs recorded steps nothing, and others a wait.
    """
    if seat.precision != "fp16":
        return seat.precision, ""
    if unrecorded:
        return "float32", f", which has no bf16, and fp16 is for recorded steps: {unrecorded}"
    return "fp16", ", which has no bf16; all steps can be recorded, as far as the networks tell"


def unfit(seat: Seat, decided: Mapping[str, str], study: Study) -> str:
    """Return what keeps a seat from training as it was decided for its study, in words; nothing when nothing does."""
    kind = decided.get(DEVICE_KIND, seat.kind)
    if seat.kind != kind:
        return f"its device is {seat.kind}, and {study.name} has been decided to have the {DEVICE_KIND} {kind!r}"
    chosen = asked_once(study).get("precision") == "auto"
    if chosen and decided.get("precision") == "bf16" and not seat.bf16:
        return f"{seat.device or seat.kind} computes no bf16 in hardware, in which {study.name} is trained"
    return ""


def decide_training(
    ledger: Ledger, study: Study, seat: Seat, option: str, *, works: Sequence[ConditionWork] = (), unrecorded: str = ""
) -> dict[str, str]:
    """Return what is decided of a study's training: now, by the first seat that is ready, where it was not before.

    `option` is how the device was asked for. By `works` and `unrecorded` is decided what is `auto`, as `Rules` says.
    """
    asked = {DEVICE_KIND: seat.kind, **asked_once(study)}
    best, halved = _precision(seat, unrecorded)
    compiling = choice(works, replace(seat, precision=best))
    automatic = {"precision": best, "compiling": compiling.value}
    told = {"precision": halved, "compiling": f": {compiling.why}"}
    for name, value in asked.items():
        why = option if name == DEVICE_KIND else f"train.{TRAINING[name]} = {value}"
        if value == "auto":
            why += f" on {seat.kind}{told[name]}"
        decide(ledger, study.name, name, automatic[name] if value == "auto" else value, why)
    return {name: decision.value for name, decision in decisions_of(ledger, study.name).items() if name in asked}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a coordinator goes by.

    A disk that does not answer is asked again for `patience` seconds, and for so long a trial waits for a seat of the
    model that it was begun on. With `any_seat`, seats train that cannot do so as it was decided for the study. `memory`
    tells under which limit of memory so many trials run together with the sweep, where that is not this machine's. What
    is `auto` is decided by all `works` that the study plans, and by whether its steps are recorded: `unrecorded` says
    in words why those of some network are not, in fp16 on a GPU.
    """

    patience: float = PATIENCE
    works: Sequence[ConditionWork] = ()
    unrecorded: str = ""
    any_seat: bool = False
    memory: Callable[[int], Memory] | None = None
