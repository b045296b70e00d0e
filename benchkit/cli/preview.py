"""`benchkit sweep --dry-run`: what would be trained, what is there already, and what it takes."""

from __future__ import annotations

from benchkit.analysis.wording import count, duration
from benchkit.cli.app import print_json, print_note, print_table, print_text
from benchkit.plan import typed_settings
from benchkit.registry import Registry
from benchkit.storage import mebibytes
from benchkit.sweep.estimate import ConditionEstimate, SweepEstimate, estimate
from benchkit.sweep.orchestration import Request

GPU = (
    "usually it takes less: long enough trials replay their steps from a CUDA graph, and without --jobs the sweep "
    "finds by timing how many trials to train at once"
)
"""What the timed run, of a few eager steps of one trial, cannot tell of a CUDA device."""

COMPILING = (
    "small networks usually train in less time on a processor with --set train.compile=always, most of all in small "
    "batches; it needs a C++ compiler, half a minute to a minute for each new network, and rounds differently"
)
"""What a study for a processor may not know of."""

LONG = 300.0
"""Seconds of a trial from which on compiling its steps on a processor is worth a try."""


def preview(request: Request, registry: Registry, *, as_json: bool) -> None:
    """Print a sweep's conditions, trials, what is done, and an estimate of time and disk; train nothing."""
    estimated = estimate(request, registry, print_note)
    if as_json:
        print_json(_json(request, estimated))
        return
    rows = [
        (
            row.condition.display_label,
            row.condition.kind,
            f"{row.finished}/{row.trials}",
            row.epochs,
            duration(row.seconds, whole=True) if row.seconds is not None else "?" if row.left else "none left",
        )
        for row in estimated.conditions
    ]
    print_table(("condition", "kind", "done", "epochs", "a trial"), rows)
    total = sum(row.trials for row in estimated.conditions) + estimated.confirms
    after = f", {estimated.confirms} of them after the searches" if estimated.confirms else ""
    conditions, trials = count(len(rows), "condition"), count(total, "trial")
    print_text(f"{request.study.name}: {conditions}, {trials}, {estimated.left} to train{after}")
    if estimated.further:
        print_text(f"then at the most {estimated.further} more, of what may still be the best, until it is decided")
    if estimated.seconds is None or estimated.bytes is None:
        print_text(f"no estimate: {estimated.problem}")
    elif estimated.left:
        print_text(
            f"about {duration(estimated.seconds, whole=True)} with {estimated.jobs} at once on {estimated.device}, and "
            f"{mebibytes(estimated.bytes)} in {request.workspace} (from a timed run of "
            f"{estimated.probed} conditions; nothing pruned)"
        )
        if estimated.device.startswith("cuda"):
            print_text(GPU)
        elif any(_may_compile(request, row) for row in estimated.conditions):
            print_text(COMPILING)


def _may_compile(request: Request, row: ConditionEstimate) -> bool:
    """Return whether a condition's trials are long, and its study leaves it open whether their steps are compiled."""
    asked = typed_settings(row.condition.settings, request.study.seed).train.compile
    return asked == "auto" and row.left > 0 and (row.seconds or 0.0) > LONG


def _json(request: Request, estimated: SweepEstimate) -> dict[str, object]:
    return {
        "study": request.study.name,
        "seconds": estimated.seconds,
        "bytes": estimated.bytes,
        "jobs": estimated.jobs,
        "device": estimated.device,
        "problem": estimated.problem,
        "left": estimated.left,
        "confirms": estimated.confirms,
        "further": estimated.further,
        "conditions": [
            {
                "label": row.condition.display_label,
                "kind": row.condition.kind,
                "key": row.condition.key,
                "trials": row.trials,
                "finished": row.finished,
                "epochs": row.epochs,
                "seconds": row.seconds,
            }
            for row in estimated.conditions
        ],
    }
