"""From results to the report's context: the sections in order, numbered, under a title, an answer and key facts."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from benchkit import __version__
from benchkit.analysis.summary import Summary, record_text
from benchkit.analysis.trials import STATES, coverage_words
from benchkit.analysis.wording import listing
from benchkit.duration import duration
from benchkit.errors import StudyError
from benchkit.report.context import provenance_sections, sections
from benchkit.report.context.blocks import Banner, Block, Fact, FigureBlock, Logo, ReportContext, Section, TableBlock
from benchkit.report.context.finding_links import linked
from benchkit.report.context.glossary import used_plugins
from benchkit.report.context.record import dated_of, record_of
from benchkit.report.context.sections import SectionInputs, names_used
from benchkit.report.context.source_section import source_section
from benchkit.report.figures.figure_set import FigureSet
from benchkit.results import StudyResults
from benchkit.study import Study
from benchkit.study.logo import Picture, read_logo


def compose(
    results: StudyResults, summary: Summary, figure_set: FigureSet, changes: Section | None = None
) -> ReportContext:
    """Return everything that the report of these results says; it works on empty and unfinished studies too.

    `changes` is the section about an earlier state of the study, where there is one to compare with. Where the figures
    have no registry, what explains and links to them is left out, too: how to reproduce, glossary and references.
    """
    inputs = SectionInputs(results=results, summary=summary, figure_set=figure_set)
    shown = numbered(part for part in _sections(inputs, changes) if part is not None)
    study = results.study
    return ReportContext(
        title=study.title,
        question=study.question,
        description="" if study.report.abstract else study.description,
        authors=listing(study.report.authors, most=20),
        study_name=study.name,
        generator=f"benchkit {__version__}",
        dated=dated_of(results),
        banners=_banners(results, summary),
        answer=summary.answer,
        facts=_key_facts(results, summary),
        sections=linked(shown) if figure_set.registry else shown,
        abstract=paragraphs(study.report.abstract),
        keywords=", ".join(" ".join(word.split()) for word in study.report.keywords),
        logo=logo_of(study, figure_set.problems) if figure_set.registry else None,
        record=record_text(record_of(results)),
    )


def _sections(inputs: SectionInputs, changes: Section | None) -> Iterator[Section | None]:
    """Yield the sections of results, then those on where the results come from."""
    yield sections.findings_section(inputs)
    yield changes
    yield sections.results_section(inputs)
    yield sections.training_section(inputs)
    yield sections.search_section(inputs)
    yield sections.images_section(inputs)
    yield sections.cost_section(inputs)
    yield sections.extra_section(inputs)
    yield source_section(inputs)
    yield provenance_sections.coverage_section(inputs)
    if inputs.figure_set.registry:
        plugins = used_plugins(inputs.results, inputs.figure_set.registry)
        yield provenance_sections.reproduce_section(inputs, plugins)
        yield provenance_sections.terms_section(inputs, plugins, compared=changes is not None)
    yield provenance_sections.trials_section(inputs)


def numbered(parts: Iterable[Section]) -> tuple[Section, ...]:
    """Return the sections with themselves, their tables and their figures counted through from 1."""
    tables = figures = 0
    result = []
    for number, part in enumerate(parts, 1):
        blocks: list[Block] = []
        for block in part.blocks:
            if isinstance(block, TableBlock):
                tables += 1
                blocks.append(replace(block, number=tables))
            elif isinstance(block, FigureBlock):
                figures += 1
                blocks.append(replace(block, number=figures))
            else:
                blocks.append(block)
        result.append(replace(part, number=number, blocks=tuple(blocks)))
    return tuple(result)


def _banners(results: StudyResults, summary: Summary) -> tuple[Banner, ...]:
    banners = []
    if results.study.smoke:
        banners.append(
            Banner(title="Smoke run", text="A tiny version of the study on other data. No number here is a result.")
        )
    variant = results.study.changed_protocol
    if variant and not results.study.smoke:
        words = f"Settings differ from the study file: {listing(variant, most=8)}. Its numbers hold for these settings."
        banners.append(Banner(title="Variant", text=words))
    if results.data.get("synthetic"):
        banners.append(
            Banner(title="Synthetic numbers", text="Nothing was trained: a random generator made these numbers.")
        )
    if not all(row.complete for row in summary.numbers.coverage):
        words = f"{coverage_words(summary.numbers.coverage)}; section Failures and gaps says what is missing."
        banners.append(Banner(title="Not complete", text=words))
    return tuple(banners)


def _key_facts(results: StudyResults, summary: Summary) -> tuple[Fact, ...]:
    study, evidence = results.study, summary.numbers
    planned = sum(row.planned for row in evidence.coverage)
    counts = Counter(trial.state for trial in results.trials)
    states = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    images = sorted({model.accuracy.n for model in evidence.models})
    facts = [
        Fact(name="Conditions", value=str(len(evidence.scores))),
        Fact(name="Repeats", value=f"{study.repeats} for each condition"),
        Fact(name="Trials", value=f"{listing(states) or 'none'} of {planned} planned"),
        Fact(name="Data", value=listing(names_used(results, "data"))),
        Fact(name="Model", value=listing(names_used(results, "model"))),
        Fact(name="Epochs", value=str(_epochs(results))),
        Fact(name="Test images", value=" or ".join(f"{n:,}" for n in images)),
        Fact(name="Training time", value=duration(summary.training_seconds) if summary.training_seconds else ""),
        Fact(name="Device", value="; ".join(sorted({d for cost in evidence.costs for d in cost.devices}))),
    ]
    return tuple(fact for fact in facts if fact.value)


def _epochs(results: StudyResults) -> str:
    """Return the planned number of epochs, or the range of it over conditions."""
    train = [condition.settings.get("train", {}) for condition in results.conditions]
    planned = sorted({int(table["epochs"]) for table in train if "epochs" in table})
    if not planned:
        return ""
    return str(planned[0]) if len(planned) == 1 else f"{planned[0]} to {planned[-1]}"


def paragraphs(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, which empty lines part."""
    return tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


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

    from benchkit.report.figures.drawing import register_fonts

    register_fonts()
    try:
        content: bytes = vl_convert.svg_to_png(picture.content.decode())
    except ValueError as error:
        raise StudyError(f"the logo cannot be drawn: {error}") from error
    return Picture(content=content, media_type="image/png")


def _address(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"
