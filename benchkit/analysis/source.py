"""A study beside the source that it repeats: settings kept or departed from, and claims that hold or do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchkit.analysis.comparisons import ALPHA, PairedComparison, holm, paired_by_repeat
from benchkit.analysis.estimates import compared, done_repeats, values_by_repeat
from benchkit.analysis.published import sampling_margin
from benchkit.analysis.training import overfits
from benchkit.analysis.wording import TIE, Finding, amount, count, listing, lower_is_better, measured, p_value, quoted
from benchkit.errors import BenchkitError
from benchkit.metrics import metric_of
from benchkit.plan import Condition, typed_settings
from benchkit.results import StudyResults
from benchkit.study import PublishedRow, SourceClaim
from benchkit.study.origin import NOT_STATED, compare_settings, plain_settings, values_in_words

SettingKind = Literal["kept", "departed", "set for this run", "inferred", "ours"]
Verdict = Literal["holds", "does not hold", "cannot be told"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolSetting:
    """One setting that bears on results, as the source has it and as this study has it.

    kept: as stated. departed: another value, and `why`. set for this run: another value by --set or the smoke form.
    inferred: the source does not say, `why` tells from what it follows. ours: the source says nothing. `words` are the
    source's own, `place` says where they stand. Several values where conditions differ.
    """

    kind: SettingKind
    path: str
    stated: str
    ours: str
    words: str
    place: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """A source's claim held against the numbers that it prints itself (`printed`) and against ours (`ours`)."""

    claim: str
    words: str
    place: str
    printed: Verdict
    printed_why: str
    ours: Verdict
    ours_why: str


def protocol(results: StudyResults) -> tuple[ProtocolSetting, ...]:
    """Return the settings that bear on results beside what the study's source states; empty without a source."""
    origin = results.study.origin
    if origin is None:
        return ()
    grid = [condition for condition in results.conditions if condition.kind == "grid"]
    changed = bool(results.study.overrides) or results.study.smoke
    rows = []
    for pair in compare_settings(origin, [condition.settings for condition in grid]):
        stated = pair.stated
        kind: SettingKind = "inferred" if stated.inferred else "kept"
        if not pair.same:
            kind = "departed" if stated.departs or not changed else "set for this run"
        rows.append(
            ProtocolSetting(
                kind=kind,
                path=stated.path,
                stated=values_in_words(stated.values),
                ours=values_in_words(pair.ours),
                words=" ... ".join(stated.words),
                place=stated.place,
                why="; ".join(part for part in (stated.inferred, "" if pair.same else stated.departs) if part),
            )
        )
    named = {row.path for row in rows}
    return (*rows, *(row for row in _ours(grid, results.study.seed) if row.path not in named))


def _ours(grid: Sequence[Condition], seed: int) -> list[ProtocolSetting]:
    """Return all settings of the conditions that bear on results, defaults included, with their different values."""
    values: dict[str, list[Any]] = {}
    for condition in grid:
        try:
            plain = plain_settings(typed_settings(condition.settings, seed))
        except BenchkitError:  # a capsule may hold settings of plugins that this version does not know
            continue
        for path, value in plain.items():
            if value not in values.setdefault(path, []):
                values[path].append(value)
    return [
        ProtocolSetting(kind="ours", path=path, stated=NOT_STATED, ours=values_in_words(v), words="", place="", why="")
        for path, v in values.items()
    ]


def claim_verdicts(results: StudyResults) -> tuple[ClaimVerdict, ...]:
    """Return each claim of the study's source with its verdicts by the source's own numbers and by ours.

    By its own: a plain comparison of what it prints; where n is stated, a difference within 1.96 standard errors of two
    shares of n images cannot be told. By ours: the paired t test over repeats at the level 0.05, corrected for several
    where one condition is said to be the best (Holm) or several to be equal (Bonferroni); a rise is the over-fitting of
    the learning curves.
    """
    origin = results.study.origin
    verdicts = []
    for claim in origin.claims if origin else ():
        printed, ours = _judged(results, claim)
        verdicts.append(
            ClaimVerdict(
                claim=claim.claim,
                words=" ... ".join(claim.words),
                place=claim.place,
                printed=printed[0],
                printed_why=printed[1],
                ours=ours[0],
                ours_why=ours[1],
            )
        )
    return tuple(verdicts)


Judged = tuple[Verdict, str]


def _judged(results: StudyResults, claim: SourceClaim) -> tuple[Judged, Judged]:
    if claim.rises or claim.steady:
        return ("cannot be told", "it prints no curve"), _curve(results, claim)
    if claim.better and claim.than:
        sides = (claim.better, claim.than)
        return _printed_pair(results, claim.on, sides, equal=False), _our_pair(results, claim.on, sides, equal=False)
    if claim.equal:
        first, *others = claim.equal
        return _all(
            [_printed_pair(results, claim.on, (first, other), equal=True) for other in others],
        ), _all([_our_pair(results, claim.on, (first, other), equal=True, tests=len(others)) for other in others])
    if claim.best:
        return _printed_best(results, claim.on, claim.best), _our_best(results, claim.on, claim.best)
    return (claim.verdict, claim.against), (claim.verdict, claim.against)


def _all(judged: Sequence[Judged]) -> Judged:
    """Return the verdict of several comparisons that must all hold: the worst."""
    worst_first = ("does not hold", "cannot be told", "holds")
    nothing: Judged = ("cannot be told", "there is nothing to compare")
    return min(judged, key=lambda found: worst_first.index(found[0]), default=nothing)


def _printed_pair(results: StudyResults, metric: str, sides: tuple[Mapping[str, str], ...], *, equal: bool) -> Judged:
    rows = [_printed(results, metric, when) for when in sides]
    first, second = rows
    if first is None or second is None:
        return "cannot be told", "it prints no such numbers"
    words = f"it prints {_print(first)} and {_print(second)}"
    margin = sampling_margin(first, second) if metric_of(metric).of_images and first.n and second.n else 0.0
    if first.value == second.value:
        return ("holds" if equal else "does not hold"), words
    if abs(first.value - second.value) <= margin:
        return "cannot be told", f"{words}, which is within the noise of {first.n:,} images"
    if equal:
        return "does not hold", words
    return ("holds" if (first.value < second.value) == lower_is_better(metric) else "does not hold"), words


def _printed(results: StudyResults, metric: str, when: Mapping[str, str]) -> PublishedRow | None:
    rows = (row for source in results.study.published for row in source.rows)
    return next((row for row in rows if row.metric == metric and row.when == when), None)


def _print(row: PublishedRow) -> str:
    return row.printed or measured(row.metric, row.value)


def _printed_best(results: StudyResults, metric: str, when: Mapping[str, str]) -> Judged:
    best = _printed(results, metric, when)
    rows = [row for source in results.study.published for row in source.rows if row.metric == metric]
    others = [row for row in rows if row is not best]
    if best is None or not others:
        return "cannot be told", "it prints no such numbers"
    return _all([_printed_pair(results, metric, (when, other.when), equal=False) for other in others])


def _condition(results: StudyResults, when: Mapping[str, str]) -> Condition | None:
    grid = [condition for condition in compared(results) if condition.kind == "grid"]
    return next((c for c in grid if all(c.levels.get(path) == label for path, label in when.items())), None)


def _paired(results: StudyResults, metric: str, sides: tuple[Mapping[str, str], ...]) -> PairedComparison | None:
    """Return the comparison of two conditions over the repeats that both have, or None with fewer than two."""
    conditions = [_condition(results, when) for when in sides]
    first, second = (values_by_repeat(results, condition, metric) if condition else {} for condition in conditions)
    comparison = paired_by_repeat(first, second, results.resampled)
    return comparison if comparison is not None and comparison.n > 1 else None


def _our_pair(
    results: StudyResults, metric: str, sides: tuple[Mapping[str, str], ...], *, equal: bool, tests: int = 1
) -> Judged:
    """Return the verdict on two conditions; p is corrected for the number of `tests` of one claim (Bonferroni)."""
    comparison = _paired(results, metric, sides)
    if comparison is None:
        return "cannot be told", "ours have fewer than two repeats of both"
    better, size = _size(metric, comparison)
    if comparison.p is None:
        return "cannot be told", f"the first is {size}, in each of {comparison.n} repeats"
    p, corrected = min(1.0, tests * comparison.p), "corrected " if tests > 1 else ""
    words = f"the first is {size} (n = {comparison.n}, {corrected}p = {p_value(p)})"
    if p >= ALPHA:
        return "cannot be told", f"{words}: not told apart"
    return ("holds" if better and not equal else "does not hold"), words


def _size(metric: str, comparison: PairedComparison) -> tuple[bool, str]:
    """Return whether the first is the better one, and by how much in words: `1.2 points better`."""
    if abs(comparison.difference.mean) <= TIE:
        return False, "exactly as good on average"
    better = (comparison.difference.mean < 0) == lower_is_better(metric)
    return better, f"{amount(metric, abs(comparison.difference.mean))} {'better' if better else 'worse'}"


def _our_best(results: StudyResults, metric: str, when: Mapping[str, str]) -> Judged:
    best = _condition(results, when)
    rivals = [c for c in compared(results) if c.kind == "grid" and (best is None or c.key != best.key)]
    tested = []
    for rival in rivals:
        comparison = _paired(results, metric, (when, rival.levels))
        if comparison is None or comparison.p is None:
            return "cannot be told", f"{quoted(rival.label)} and it have fewer than two repeats, or do not vary"
        tested.append((rival, comparison, comparison.p))
    if not tested:
        return "cannot be told", "there is nothing to compare it with"
    adjusted = holm([p for _, _, p in tested])
    verdicts: list[Judged] = []
    for (rival, comparison, _), p in zip(tested, adjusted, strict=True):
        better, size = _size(metric, comparison)
        words = f"it is {size} than {quoted(rival.label)} (corrected p = {p_value(p)})"
        if p >= ALPHA:
            verdicts.append(("cannot be told", f"{words}: not told apart"))
        else:
            verdicts.append(("holds" if better else "does not hold", words))
    return _all(verdicts)


def _curve(results: StudyResults, claim: SourceClaim) -> Judged:
    when = claim.when or {}
    condition = _condition(results, when)
    trials = done_repeats(results, condition).values() if condition else ()
    histories = [trial.history for trial in trials if len(trial.history) > 2]
    if not histories:
        return "cannot be told", "ours have no learning curve of it yet"
    longest = max(len(history) for history in histories)
    if claim.start is not None and longest <= claim.start:
        return "cannot be told", f"ours ended with epoch {longest}, and the source has epoch {claim.start}"
    onsets = [record.epoch for history in histories if (record := overfits(history)) is not None]
    words = f"over-fitting follows in {len(onsets)} of {count(len(histories), 'repeat')}"
    if onsets:
        words += f", from epoch {listing([str(epoch) for epoch in sorted(set(onsets))])} on"
    if claim.start is not None:
        words += f"; the source has epoch {claim.start}"
    if 0 < len(onsets) < len(histories):
        return "cannot be told", words
    return ("holds" if bool(onsets) == bool(claim.rises) else "does not hold"), words


def claim_findings(claims: Sequence[ClaimVerdict]) -> list[Finding]:
    """Say which of the source's claims its own numbers do not bear out, and which of the others ours do not."""
    printed = [claim for claim in claims if claim.printed == "does not hold"]
    ours = [claim for claim in claims if claim.ours == "does not hold" and claim not in printed]
    return [
        Finding(
            rule="claims",
            sentence=f"{count(len(wrong), 'claim')} of the source "
            f"{'does' if len(wrong) == 1 else 'do'} not hold {where}: "
            f"{listing([claim.claim for claim in wrong], most=3)}.",
            evidence=f"{why[:1].upper()}{why[1:]}.",
        )
        for wrong, where, why in (
            (printed, "by what it prints itself", printed[0].printed_why if printed else ""),
            (ours, "by our results", ours[0].ours_why if ours else ""),
        )
        if wrong
    ]
