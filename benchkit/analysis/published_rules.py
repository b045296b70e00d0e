"""Rules about published numbers: which agree with ours, and what their digits say of the images behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchkit.analysis.findings import Evidence, Finding
from benchkit.analysis.published import ImpliedN, PublishedComparison
from benchkit.analysis.wording import amount, count, listing, measured, metric_words, names, number, quoted, span


def published(evidence: Evidence) -> Sequence[Finding]:
    """Say, source by source, which published numbers agree with ours."""
    findings = []
    for source in dict.fromkeys(row.source for row in evidence.published):
        rows = [row for row in evidence.published if row.source == source and row.ours is not None]
        findings.append(_beside(source, rows) if rows else _no_counterpart(source))
    return findings


def _no_counterpart(source: str) -> Finding:
    return Finding(
        rule="published",
        tone="note",
        sentence=f"No number of {source} has a counterpart among our results yet.",
        evidence="None of its conditions has a done repeat here.",
    )


def _beside(source: str, rows: Sequence[PublishedComparison]) -> Finding:
    off = [row for row in rows if row.verdict in ("ours higher", "ours lower")]
    verdicts = Counter(row.verdict for row in rows)
    single, few, doubted = verdicts["one repeat"], verdicts["few images"], verdicts["in doubt"]
    total = count(len(rows), "published number")
    if verdicts["other protocol"]:
        return _other_protocol(source, rows, total)
    sentence = f"{source}: {verdicts['consistent']} of {total} lie where one more repeat of ours could fall"
    if off:
        sentence += f"; {listing([_off_words(row) for row in off], most=4)}"
    if single:
        stand = "stands" if single == 1 else "stand"
        sentence += f"; {count(single, 'number')} {stand} beside a single repeat of ours, too few to judge"
    if few:
        sentence += f"; {count(few, 'number')} {'rests' if few == 1 else 'rest'} on too few images to judge"
    if doubted:
        sentence += f"; {count(doubted, 'number')} cannot be what {'it claims' if doubted == 1 else 'they claim'} to be"
    worst = max(rows, key=lambda row: abs(row.difference or 0.0))
    return Finding(
        rule="published",
        tone="warning" if off else "note",
        sentence=f"{sentence}.",
        evidence=f"Largest difference: {_worst_words(worst)}",
        about=tuple(dict.fromkeys(row.label for row in rows)),
    )


def _other_protocol(source: str, rows: Sequence[PublishedComparison], total: str) -> Finding:
    worst = max(rows, key=lambda row: abs(row.difference or 0.0))
    return Finding(
        rule="published",
        tone="note",
        sentence=f"{source}: none of {total} can be judged by ours, which were trained by another protocol.",
        evidence=f"Settings were changed with --set. Largest difference: {_worst_words(worst)}",
        about=tuple(dict.fromkeys(row.label for row in rows)),
    )


def _off_words(row: PublishedComparison) -> str:
    higher = "higher" if row.verdict == "ours higher" else "lower"
    return (
        f"our {metric_words(row.metric)} of {quoted(row.label)} is {amount(row.metric, row.difference or 0.0)} {higher}"
    )


def _worst_words(row: PublishedComparison) -> str:
    assert row.ours is not None
    words = f"{quoted(row.label)}, {metric_words(row.metric)}, published {measured(row.metric, row.published)}, ours "
    words += measured(row.metric, row.ours.mean)
    if row.low is None or row.high is None:
        return f"{words} from one repeat."
    return f"{words}; one more repeat of ours would fall within {span(row.metric, row.low, row.high)} (95 %)."


def implied_n(evidence: Evidence) -> Sequence[Finding]:
    """Say when published shares look like fractions of a handful of images."""
    return [
        Finding(
            rule="implied-n",
            tone="warning",
            sentence=f"{row.source}: its values of {metric_words(row.metric)} look like fractions of only "
            f"{row.n} images.",
            evidence=f"{_fractions(row)}{_stated(row)}; random "
            f"numbers with these digits would fit so small an n in {100 * row.chance:.2g} % of cases at most. "
            f"One image "
            f"more or less moves such a share by {amount('accuracy', 1 / row.n)}.",
        )
        for row in evidence.implied
    ]


def _stated(row: ImpliedN) -> str:
    if row.stated is None:
        return ""
    return " (as the study file notes)" if row.stated == row.n else f" (the study file notes {row.stated:,} images)"


def _fractions(row: ImpliedN) -> str:
    return listing([f"{number(value)} = {text}" for value, text in zip(row.values, row.fractions, strict=True)])


def published_ties(evidence: Evidence) -> Sequence[Finding]:
    """Say which published conditions are not told apart by the images behind them."""
    return [
        Finding(
            rule="published-ties",
            tone="note",
            sentence=f"{row.source}: {row.n:,} images do not tell {names(row.tied)} from the best "
            f"{metric_words(row.metric)}, that of {quoted(row.best)}.",
            evidence=f"Shares of {row.n:,} images each differ by chance by up to {amount('accuracy', row.margin)} "
            "(95 %, taken as separate samples; predictions of the same images tell more); random seeds add to it.",
            about=(row.best, *row.tied),
        )
        for row in evidence.ties
    ]
