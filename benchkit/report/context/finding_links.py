"""Where a finding can be seen: the first figure or table of the report that shows what its rule speaks of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from benchkit.report.context.blocks import Block, FigureBlock, FindingBlock, Link, Section, TableBlock

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
