"""The author's own text at its places in a report, and what every report says of its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchkit.analysis.wording import listing
from benchkit.report.context.blocks import Block, MarkdownBlock, Paragraph, Section
from benchkit.report.context.sections import SectionInputs, names_used, section

BEFORE = ("introduction", "method")
"""Sections of the author's own that stand before the report's."""

BEHIND = ("discussion", "limitations", "conclusion", "acknowledgements")
"""Sections of the author's own behind the results; the report has something to say of limitations, too."""


def with_author_text(inputs: SectionInputs, parts: Sequence[Section]) -> list[Section]:
    """Return the sections of results with the author's text: at their beginning, before them and behind them."""
    text = inputs.results.study.report.text
    limits = _limits(inputs)
    own: Mapping[str, list[Block]] = {place: [MarkdownBlock(text=written)] for place, written in text.items()}
    lost = [place for place in own if place not in (*BEFORE, *BEHIND, *(part.name for part in parts))]
    behind = {place: [*(limits if place == "limitations" else ()), *own.get(place, ())] for place in BEHIND}
    return [
        *(section(place, place.capitalize(), own[place]) for place in BEFORE if place in own),
        *(replace(part, blocks=(*own.get(part.name, ()), *part.blocks)) for part in parts),
        *(section(place, place.capitalize(), own[place]) for place in lost),
        *(section(place, place.capitalize(), blocks) for place, blocks in behind.items() if blocks),
    ]


def _limits(inputs: SectionInputs) -> list[Block]:
    """Return what follows for every study from what it trained: on what data, which models, and how often."""
    results = inputs.results
    trained = [*names_used(results, "data"), *names_used(results, "model")]
    done = [row.estimate.n for row in inputs.summary.ranking.rows]
    if not trained or not done:
        return []
    if max(done) == 1:
        often = "Each condition was trained once, so nothing is known of the spread between random seeds."
    else:
        times = str(min(done)) if min(done) == max(done) else f"{min(done)} to {max(done)}"
        often = f"Each condition was trained {times} times: differences within the spread of random seeds stay open."
    return [Paragraph(text=f"The numbers hold for {listing(trained)}; other images and models were not tried. {often}")]
