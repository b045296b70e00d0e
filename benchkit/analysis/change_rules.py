"""Rules about a study then and now: what changed beyond chance, what could have been seen, what no longer compares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchkit.analysis.changes import Change, Changes
from benchkit.analysis.findings import Finding, Tone
from benchkit.analysis.wording import (
    MINUS,
    count,
    difference,
    difference_unit,
    listing,
    metric_words,
    names,
    quoted,
    within_range,
)

INCOMPARABLE = ("fingerprint", "smoke")
"""Properties whose change makes then and now different experiments, by the last word of their name."""


def change_findings(changes: Changes) -> tuple[Finding, ...]:
    """Return the sentences about what has changed: the main metric, other scores and costs, conditions, cautions."""
    found = [_main(changes), *_others("scores", "other score", changes.scores)]
    found += [*_others("costs", "cost", changes.costs), *_conditions(changes), *_cautions(changes)]
    return tuple(found)


def pairing_words(changes: Changes) -> str:
    """Return which test compares then and now, and why."""
    if not changes.same_seed:
        return (
            f"The study seeds differ ({changes.seeds[0]} then, {changes.seeds[1]} now), so no repeat shares its random "
            "numbers with one of then: the groups are compared unpaired (Welch's t test, Welch 1947)."
        )
    words = (
        f"Then and now have the study seed {changes.seeds[0]}, so the same repeat started from the same random numbers "
        "both times: repeats are compared in pairs (paired t test)."
    )
    if any(row.method != "paired" for row in changes.main):
        return f"{words} Where fewer than two repeats are common, Welch's t test compares the groups, if it can."
    return words


def _main(changes: Changes) -> Finding:
    rows, metric = changes.main, metric_words(changes.metric)
    moved = [row for row in rows if row.told_apart]
    tone: Tone = "warning" if any(row.verdict == "worse" for row in moved) else "note"
    evidence = f"{pairing_words(changes)} Holm's correction spans {count(len(rows), 'condition')}."
    if not rows:
        sentence = f"No condition has a {metric} both then and now."
    elif moved:
        rest = len(rows) - len(moved)
        others = f"; {count(rest, 'other condition')} {'is' if rest == 1 else 'are'} not told apart" if rest else ""
        sentence = f"Beyond chance, {metric} has changed for {_moved_words(moved)}{others}."
    elif all(row.verdict == "identical" for row in rows):
        sentence = (
            f"Nothing has changed in {metric}: every repeat of {count(len(rows), 'condition')} has exactly the value "
            "it had."
        )
    else:
        sentence = _unmoved(rows, metric)
    return Finding(rule="changed", tone=tone, sentence=sentence, evidence=evidence, about=_labels(moved))


def _unmoved(rows: Sequence[Change], metric: str) -> str:
    """Return that no change is beyond chance, and which changes these repeats could have shown."""
    seen = sorted(row.detectable for row in rows if row.detectable is not None)
    if not seen:
        return f"No change in {metric} can be tested: that needs two repeats or more whose values vary."
    least, most = (within_range(rows[0].metric, size) for size in (seen[0], seen[-1]))
    size = f"{most if most == least else f'{least} to {most}'} {difference_unit(rows[0].metric)}".rstrip()
    return (
        f"No change in {metric} is beyond chance in {count(len(rows), 'condition')}; these repeats would have shown a "
        f"true change of {size} (80 % power)."
    )


def _moved_words(rows: Sequence[Change]) -> str:
    return listing([f"{quoted(row.label)} ({_signed(row)})" for row in rows], most=6)


def _signed(row: Change) -> str:
    text = difference(row.metric, row.difference)
    if row.metric == "cost.seconds" or text in ("0", MINUS):
        share = 100 * row.difference / row.old.mean if row.old.mean else 0.0
        return f"{share:+.0f} %".replace("-", MINUS)
    return f"{text} {difference_unit(row.metric)}".rstrip()


def _others(rule: str, noun: str, rows: Sequence[Change]) -> Iterable[Finding]:
    """Say what changed beyond chance in one of the further families, or that nothing did."""
    if not rows:
        return []
    moved = [row for row in rows if row.told_apart]
    compared = count(len(rows), f"{noun}")
    if not moved:
        tested = sum(row.p is not None for row in rows)
        told = f"none has changed beyond chance; {tested} could be tested"
        if all(row.verdict == "identical" for row in rows):
            told = "all are exactly what they were"
        elif not tested:
            told = "none can be tested: that needs two repeats or more whose values vary"
        return [_note(f"changed-{rule}", f"Of {compared} compared, {told}.")]
    shown = [f"{metric_words(row.metric)} of {quoted(row.label)} ({_signed(row)})" for row in moved]
    have = "has" if len(moved) == 1 else "have"
    sentence = f"Of {compared} compared, {len(moved)} {have} changed beyond chance: {listing(shown, most=5)}."
    return [_note(f"changed-{rule}", sentence, about=_labels(moved))]


def _conditions(changes: Changes) -> Iterable[Finding]:
    parts = []
    if changes.gone:
        parts.append(f"gone: {names(changes.gone, most=12)}")
    if changes.added:
        parts.append(f"new: {names(changes.added, most=12)}")
    return [_note("changed-conditions", f"Conditions {'; '.join(parts)}.")] if parts else []


def _cautions(changes: Changes) -> Iterable[Finding]:
    """Warn where other data or a smoke run stands behind one of the two."""
    found = [
        one for one in changes.properties
        if one.name.rpartition(" ")[2] in INCOMPARABLE and one.old is not None and one.new is not None
    ]  # fmt: skip
    if not found:
        return []
    what = listing([one.name for one in found])
    return [
        Finding(
            rule="changed-basis",
            tone="warning",
            sentence=f"Then and now do not rest on the same data ({what} differ): their scores are of two experiments.",
            evidence=" ".join(f"{one.name}: {one.old} then, {one.new} now." for one in found),
        )
    ]


def _note(rule: str, sentence: str, about: tuple[str, ...] = ()) -> Finding:
    return Finding(rule=rule, tone="note", sentence=sentence, evidence="", about=about)


def _labels(rows: Sequence[Change]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.label for row in rows))
