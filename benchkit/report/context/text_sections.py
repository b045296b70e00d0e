"""Sections of prose: the author's texts, and findings with links to the figures and tables that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from benchkit.analysis.wording import Finding, listing
from benchkit.report.context.blocks import (
    Block,
    FigureBlock,
    FindingBlock,
    Link,
    MarkdownBlock,
    Paragraph,
    Section,
    TableBlock,
)
from benchkit.report.context.sections import SectionInputs, names_used, section

SHOWN_IN: Mapping[str, tuple[str, ...]] = {
    "looks": ("looks", "results-forest"),
    "winner": ("results-forest", "ranking"),
    "other-metric": ("metrics-test", "metrics-val"),
    "unfinished": ("coverage",),
    "failed-trials": ("troubles",),
    "lost-files": ("troubles",),
    "files-elsewhere": ("troubles", "coverage"),
    "identical-conditions": ("results-forest", "ranking"),
    "one-class": ("confusion-matrix", "ranking"),
    "balanced-order": ("ranking", "metrics-test"),
    "repeated-images": ("repeated-images",),
    "unbalanced-classes": ("data-sheet", "ranking"),
    "divergence": ("troubles", "learning-curves"),
    "test-images": ("models",),
    "search": ("search-history", "search-budget"),
    "winner-bias": ("confirmation",),
    "samplers": ("search-budget", "table:search-budget"),
    "unequal-budgets": ("search-budget", "table:search-budget"),
    "batch-size-sensitivity": ("grid-heatmap", "results-forest"),
    "unstable-seeds": ("results-forest", "ranking"),
    "over-fitting": ("learning-curves", "loss-gap"),
    "train-val-gap": ("loss-gap", "learning-curves", "metrics-val"),
    "fastest": ("speed-cost", "learning-curves"),
    "speed": ("speed-cost", "cost"),
    "devices": ("trials", "cost"),
    "weak-classes": ("confusion-matrix", "class-scores", "class-accuracy", "confusions"),
    "dead-filters": ("activation-maps",),
    "silent-layer": ("activation-maps",),
    "published": ("table:published",),
    "implied-n": ("table:published",),
    "no-fraction": ("table:published",),
    "micro-f1": ("table:published", "metrics-test"),
    "loss-bound": ("table:published",),
    "softmax-twice": ("table:published",),
    "class-count": ("table:published",),
    "published-ties": ("table:published",),
    "claims": ("claims",),
    "test-reads": ("coverage",),
    "changed": ("changed-main", "changed-scores"),
    "changed-scores": ("changed-scores",),
    "changed-costs": ("changed-costs",),
    "changed-basis": ("changed-properties",),
    "agreement": ("agreement", "studies"),
    "friedman": ("agreement", "studies"),
    "contradiction": ("agreement", "studies"),
    "namesakes": ("table:study-differences", "studies"),
}
"""By rule, names of figure plugins and of tables, the best first; `table:` where a figure has the name too, and
`table:published` for the table of the source that the finding begins with. Rules that are not here have no picture."""


TONES = {"answer": "Answer", "note": "Finding", "warning": "Caution"}


def findings_section(inputs: SectionInputs) -> Section:
    """Return the findings: what named rules say of the numbers, with their evidence."""
    blocks = [finding_block(finding) for finding in inputs.summary.findings]
    lead = Paragraph(
        text="These sentences are made from the numbers by fixed rules. Each names what it rests on. Uncertainty over "
        "random seeds and uncertainty over test images are different things; where both are held together, it is said."
    )
    return section("findings", "Findings", [lead, *blocks])


def finding_block(finding: Finding) -> FindingBlock:
    """Return a finding as a block: its sentence, its evidence and the rule by which it gets its links."""
    return FindingBlock(
        tone=finding.tone,
        tone_word=TONES[finding.tone],
        sentence=finding.sentence,
        evidence=finding.evidence,
        rule=finding.rule,
    )


def linked(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Return numbered sections with each finding's link to the first figure or table that is there."""
    places = _places(block for section in sections for block in section.blocks)
    return tuple(
        replace(section, blocks=tuple(_linked(block, places) for block in section.blocks)) for section in sections
    )


def _places(blocks: Iterable[Block]) -> dict[str, Link]:
    links: dict[str, Link] = {}
    for block in blocks:
        if isinstance(block, FigureBlock):
            links.setdefault(block.plugin, Link(text=f"Figure {block.number}", target=f"figure-{block.name}"))
        elif isinstance(block, TableBlock):
            link = Link(text=f"Table {block.number}", target=f"table-{block.name}")
            links.setdefault(block.name, link)
            links[f"table:{block.name}"] = link
            if block.name.startswith("published-"):
                links[f"source:{block.title.removesuffix(' beside ours')}"] = link
    return links


def _linked(block: Block, places: Mapping[str, Link]) -> Block:
    if not isinstance(block, FindingBlock):
        return block
    for name in SHOWN_IN.get(block.rule, ()):
        if name == "table:published":
            name = next((key for key in places if key.startswith("source:") and _begins(block, key)), "")
        if name in places:
            return replace(block, links=(places[name],))
    return block


def _begins(block: FindingBlock, key: str) -> bool:
    return block.sentence.startswith(f"{key.removeprefix('source:')}:")


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
