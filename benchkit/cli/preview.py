"""`benchkit sweep --dry-run`: what would be trained, what is there already, and what it takes."""

from __future__ import annotations

from benchkit.cli.printing import print_json, print_note, print_table, print_text
from benchkit.duration import duration
from benchkit.plan import typed_settings
from benchkit.registry import Registry
from benchkit.sweep import Request
from benchkit.sweep.estimate import ConditionEstimate, SweepEstimate, estimate

GPU = (
    "usually it takes less: long enough trials replay their steps from a CUDA graph, and without --jobs the sweep "
    "finds by timing how many trials to train at once"
)
"""What the timed run, of a few eager steps of one trial, cannot tell of a CUDA device."""

COMPILING = (
    "small networks usually train in less time on a processor with --set train.compile=always, most of all in small "
    "batches; it needs a C++ compiler, up to half a minute for each new network, and rounds differently"
)
"""What a study for a processor may not know of."""

LONG = 300.0
"""Seconds of a trial from which on compiling its steps on a processor is worth a try."""


def preview(request: Request, registry: Registry, *, as_json: bool) -> None:
    """Print a sweep's conditions, trials, what is done, and an estimate of time and disk; train nothing."""
    found = estimate(request, registry, print_note)
    if as_json:
        print_json(_json(request, found))
        return
    rows = [
        (
            one.condition.display_label,
            one.condition.kind,
            f"{one.finished}/{one.trials}",
            one.epochs,
            duration(one.seconds, whole=True) if one.seconds is not None else "?",
        )
        for one in found.conditions
    ]
    print_table(("condition", "kind", "done", "epochs", "a trial"), rows)
    total = sum(one.trials for one in found.conditions) + found.confirms
    after = f", {found.confirms} of them after the searches" if found.confirms else ""
    print_text(f"{request.study.name}: {len(rows)} conditions, {total} trials, {found.left} to train{after}")
    if found.seconds is None or found.bytes is None:
        print_text(f"no estimate: {found.problem}")
    elif found.left:
        print_text(
            f"about {duration(found.seconds, whole=True)} with {found.jobs} at once on {found.device}, and "
            f"{found.bytes / 2**20:,.1f} MiB in {request.workspace} (from a timed run of {found.probed} conditions; "
            "nothing pruned)"
        )
        if found.device.startswith("cuda"):
            print_text(GPU)
        elif any(_may_compile(request, one) for one in found.conditions):
            print_text(COMPILING)


def _may_compile(request: Request, one: ConditionEstimate) -> bool:
    """Return whether a condition's trials are long, and its study leaves it open whether their steps are compiled."""
    asked = typed_settings(one.condition.settings, request.study.seed).train.compile
    return asked == "auto" and one.left > 0 and (one.seconds or 0.0) > LONG


def _json(request: Request, found: SweepEstimate) -> dict[str, object]:
    return {
        "study": request.study.name,
        "seconds": found.seconds,
        "bytes": found.bytes,
        "jobs": found.jobs,
        "device": found.device,
        "problem": found.problem,
        "left": found.left,
        "confirms": found.confirms,
        "conditions": [
            {
                "label": one.condition.display_label,
                "kind": one.condition.kind,
                "key": one.condition.key,
                "trials": one.trials,
                "finished": one.finished,
                "epochs": one.epochs,
                "seconds": one.seconds,
            }
            for one in found.conditions
        ],
    }
