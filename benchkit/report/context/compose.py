"""From results to the context of a report: its record, its sections in order, numbered, under a title and an answer.

With them the author's texts, and the findings with links to the figures and tables that show them.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchkit.analysis.candidates import repeats_words
from benchkit.analysis.estimates import searched_conditions
from benchkit.analysis.summary import (
    Summary,
)
from benchkit.analysis.trials import STATES
from benchkit.analysis.wording import Finding, count, duration, listing
from benchkit.errors import ReportError, StudyError
from benchkit.report.context import sections
from benchkit.report.context.blocks import (
    AbsentBlock,
    Block,
    Fact,
    FigureBlock,
    FindingBlock,
    Link,
    Logo,
    MarkdownBlock,
    Paragraph,
    ReportContext,
    Section,
    TableBlock,
    numbered,
    section,
)
from benchkit.report.context.glossary import UsedPlugin, cited, literature, used_plugins
from benchkit.report.context.numbers import head
from benchkit.report.context.sections import SectionInputs, models_used, names_used
from benchkit.report.context.source_section import source_section
from benchkit.results import StudyResults
from benchkit.study import Study
from benchkit.study.logo import Picture, read_logo

if TYPE_CHECKING:
    from benchkit.report.figures.figure_set import FigureSet


def compose(
    results: StudyResults, summary: Summary, figure_set: FigureSet | None = None, changes: Section | None = None
) -> ReportContext:
    """Return everything that the report of these results says; it works on empty and unfinished studies too.

    `changes` is the section about an earlier state of the study, where there is one to compare with. Without figures,
    what is on pages alone is left out, too: links, how to reproduce, glossary and references.
    """
    inputs = SectionInputs(results=results, summary=summary, figure_set=figure_set)
    facts = key_facts(results, summary)
    made = [part for part in _sections(inputs, changes) if part is not None]
    found = [with_data(part) for part in (figure_set.finished(made) if figure_set else made)]
    # Without a scored model nothing follows the words with which the section of test images begins.
    parts = with_author_text(inputs, [part for part in found if len(part.blocks) > (part.name == "images")])
    parts.append(sections.coverage_section(inputs))
    if figure_set:
        plugins = used_plugins(results, figure_set.registry)
        parts = _explained([*parts, sections.reproduce_section(inputs, plugins)], plugins, facts)
    shown = numbered(parts)
    study = results.study
    return replace(
        head(results, summary, linked(shown) if figure_set else shown),
        description="" if study.report.abstract else settings_in_words(study.description),
        facts=facts,
        logo=logo_of(study, figure_set.problems) if figure_set else None,
    )


def _sections(inputs: SectionInputs, changes: Section | None) -> Iterator[Section | None]:
    """Yield the sections of results, then those on where the results come from."""
    yield findings_section(inputs)
    yield changes
    yield sections.results_section(inputs)
    yield sections.training_section(inputs)
    yield sections.search_section(inputs)
    yield sections.images_section(inputs)
    yield sections.cost_section(inputs)
    yield sections.extra_section(inputs)
    study = inputs.results.study
    if study.origin is not None or study.published:
        yield source_section(inputs.results, inputs.summary)


def with_data(part: Section) -> Section:
    """Return a section without the figures that have nothing to draw, but for those that the study asked for."""
    if part.name == "figures":
        return part
    return replace(part, blocks=tuple(b for b in part.blocks if not isinstance(b, AbsentBlock) or b.broken))


def _explained(parts: Sequence[Section], plugins: Sequence[UsedPlugin], facts: Sequence[Fact]) -> list[Section]:
    """Return the sections with their references, and behind them the one that explains and lists what they use."""
    known = literature(plugins, parts, facts)
    terms = sections.terms_section(known)
    return [*cited(parts, known), *([terms] if terms else [])]


def key_facts(results: StudyResults, summary: Summary) -> tuple[Fact, ...]:
    """Return the key facts beside the short answer."""
    evidence = summary.numbers
    planned = sum(row.planned for row in evidence.coverage)
    counts = Counter(trial.state for trial in results.trials)
    states = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    images = sorted({model.accuracy.n for model in evidence.models})
    searched = len(searched_conditions(results))
    compared = [str(len(evidence.scores)), *([count(searched, "search", "searches")] if searched else [])]
    facts = [
        Fact(name="Conditions", value=listing(compared)),
        Fact(name="Repeats", value=repeats_words(results)),
        Fact(name="Trials", value=f"{listing(states) or 'none'} of {planned} planned"),
        Fact(name="Data", value=listing(names_used(results, "data"))),
        Fact(name="Model", value=listing(models_used(results))),
        Fact(name="Epochs", value=str(_epochs(results))),
        Fact(name="Test images", value=" or ".join(f"{n:,}" for n in images)),
        Fact(name="Training time", value=duration(summary.training_seconds) if summary.training_seconds else ""),
        Fact(name="Device", value="; ".join(dict.fromkeys(name for row in evidence.devices for name in row.devices))),
    ]
    return tuple(fact for fact in facts if fact.value)


def _epochs(results: StudyResults) -> str:
    """Return the planned number of epochs, or the range of it over conditions."""
    train = [condition.settings.get("train", {}) for condition in results.conditions]
    planned = sorted({int(table["epochs"]) for table in train if "epochs" in table})
    if not planned:
        return ""
    return str(planned[0]) if len(planned) == 1 else f"{planned[0]} to {planned[-1]}"


def settings_in_words(text: str) -> str:
    """Return a text with settings in place of the options that give them: a = 1, b = 2 for --set a=1 --set b=2."""
    return re.sub(
        r"--set\s+([\w.-]+)=(\S*[^\s.,;])", r"\1 = \2", re.sub(r"(--set\s+\S*[^\s.,;])(?=\s+--set\s)", r"\1,", text)
    )


def logo_of(study: Study, problems: list[str]) -> Logo | None:
    """Return the study's logo; where its file has gone since the sweep, None after adding a line to `problems`."""
    if study.report.logo is None:
        return None
    try:
        picture = read_logo(study.report.logo)
        printable = _printable(picture)
    except StudyError as error:
        problems.append(f"report.logo: {error.what}; the report is without it")
        return None
    return Logo(source=_address(picture), print_source=_address(printable), alt_text=f"Logo of {study.title}")


def _printable(picture: Picture) -> Picture:
    """Return the logo as pixels where it is an SVG with gradients: some PDF viewers leave those out at some sizes."""
    if b"Gradient" not in picture.content or picture.media_type != "image/svg+xml":
        return picture
    import vl_convert

    from benchkit.report.figures.drawing import converted

    try:
        return Picture(content=converted(vl_convert.svg_to_png, picture.content.decode()), media_type="image/png")
    except ReportError as error:
        raise StudyError(f"the logo cannot be drawn: {' '.join(error.problems)}") from error


def _address(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"


SHOWN_IN: Mapping[str, tuple[str, ...]] = {
    "looks": ("looks", "results-forest"),
    "winner": ("results-forest", "ranking"),
    "other-metric": ("metrics-test", "metrics-val"),
    "unfinished": ("coverage",),
    "failed-trials": ("troubles",),
    "stopped-trials": ("troubles",),
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
    "changed-study": ("changed-main",),
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


FEW = 100
"""Validation images below which the limits speak of them."""


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
        often = f"Each condition was trained {times} times on the same images: differences within the spread of random "
        often += "seeds stay open, and so does what other training images would change."
        if results.resampled:
            often = f"Each condition was trained on {times} folds: differences within their spread stay open."
    scored = (t.outcome.metrics.get("val") for t in results.trials if t.outcome)
    if (val := min((one.n for one in scored if one), default=FEW)) < FEW:
        of = f"{100 / val:.1f} points of accuracy"
        often += f" To choose epochs or settings by, {count(val, 'validation image')} are few: one is {of}."
    return [Paragraph(text=f"The numbers hold for {listing(trained)}; other images and models were not tried. {often}")]
