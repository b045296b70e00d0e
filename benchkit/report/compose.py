"""From results to the report's context: the sections in order, numbered, under a title, an answer and key facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from benchkit import __version__
from benchkit.analysis.coverage import STATES, coverage_words
from benchkit.analysis.published import changed_protocol
from benchkit.analysis.record import record_text
from benchkit.analysis.summary import Summary
from benchkit.analysis.wording import duration, listing
from benchkit.report import origin_sections, sections
from benchkit.report.context import Banner, Block, Fact, FigureBlock, ReportContext, Section, TableBlock
from benchkit.report.figures import Gallery
from benchkit.report.finding_links import linked
from benchkit.report.front_matter import logo_of, paragraphs
from benchkit.report.glossary import UsedPlugin, used_plugins
from benchkit.report.record import dated_of, record_of
from benchkit.report.sections import Material
from benchkit.results import StudyResults


def compose(results: StudyResults, summary: Summary, gallery: Gallery, changes: Section | None = None) -> ReportContext:
    """Return everything that the report of these results says; it works on empty and unfinished studies too.

    `changes` is the section about an earlier state of the study, where there is one to compare with.
    """
    material = Material(results=results, summary=summary, gallery=gallery)
    plugins = used_plugins(results, gallery.registry)
    found = (*_shown(material, changes), *_origins(material, plugins, compared=changes is not None))
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
        sections=linked(numbered(part for part in found if part is not None)),
        abstract=paragraphs(study.report.abstract),
        keywords=", ".join(" ".join(word.split()) for word in study.report.keywords),
        logo=logo_of(study, gallery.problems),
        record=record_text(record_of(results)),
    )


def _shown(material: Material, changes: Section | None) -> tuple[Section | None, ...]:
    """Return the sections of results."""
    return (
        sections.findings_section(material),
        changes,
        sections.results_section(material),
        sections.training_section(material),
        sections.search_section(material),
        sections.images_section(material),
        sections.cost_section(material),
        sections.extra_section(material),
        sections.published_section(material),
    )


def _origins(material: Material, plugins: tuple[UsedPlugin, ...], *, compared: bool) -> tuple[Section | None, ...]:
    """Return the sections on where the results come from."""
    return (
        origin_sections.coverage_section(material),
        origin_sections.reproduce_section(material, plugins),
        origin_sections.terms_section(material, plugins, compared=compared),
        origin_sections.trials_section(material),
    )


def numbered(parts: Iterable[Section]) -> tuple[Section, ...]:
    """Return the sections with themselves, their tables and their figures counted through from 1."""
    tables = figures = 0
    result = []
    for place, part in enumerate(parts, 1):
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
        result.append(replace(part, number=place, blocks=tuple(blocks)))
    return tuple(result)


def _banners(results: StudyResults, summary: Summary) -> tuple[Banner, ...]:
    banners = []
    if results.study.smoke:
        banners.append(
            Banner(title="Smoke run", text="A tiny version of the study on other data. No number here is a result.")
        )
    variant = changed_protocol(results.study)
    if variant and not results.study.smoke:
        words = f"Settings differ from the study file: {listing(variant, most=8)}. Its numbers hold for these settings."
        banners.append(Banner(title="Variant", text=words))
    if results.data.get("synthetic"):
        banners.append(
            Banner(title="Synthetic numbers", text="Nothing was trained: a random generator made these numbers.")
        )
    if not all(row.complete for row in summary.evidence.coverage):
        words = f"{coverage_words(summary.evidence.coverage)}; section Failures and gaps says what is missing."
        banners.append(Banner(title="Not complete", text=words))
    return tuple(banners)


def _key_facts(results: StudyResults, summary: Summary) -> tuple[Fact, ...]:
    study, evidence = results.study, summary.evidence
    planned = sum(row.planned for row in evidence.coverage)
    counts = Counter(trial.state for trial in results.trials)
    states = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    images = sorted({model.accuracy.n for model in evidence.models})
    settings = study.settings
    facts = [
        Fact(name="Conditions", value=str(len(evidence.scores))),
        Fact(name="Repeats", value=f"{study.repeats} for each condition"),
        Fact(name="Trials", value=f"{listing(states) or 'none'} of {planned} planned"),
        Fact(name="Data", value=_name_of(settings.get("data"))),
        Fact(name="Model", value=_name_of(settings.get("model"))),
        Fact(name="Epochs", value=str(_epochs(results))),
        Fact(name="Test images", value=" or ".join(f"{n:,}" for n in images)),
        Fact(name="Training time", value=duration(summary.training_seconds) if summary.training_seconds else ""),
        Fact(name="Device", value="; ".join(sorted({d for cost in evidence.costs for d in cost.devices}))),
    ]
    return tuple(fact for fact in facts if fact.value)


def _name_of(table: object) -> str:
    return str(table.get("name", "")) if isinstance(table, dict) else ""


def _epochs(results: StudyResults) -> str:
    """Return the planned number of epochs, or the range of it over conditions."""
    train = [condition.settings.get("train", {}) for condition in results.conditions]
    planned = sorted({int(table["epochs"]) for table in train if "epochs" in table})
    if not planned:
        return ""
    return str(planned[0]) if len(planned) == 1 else f"{planned[0]} to {planned[-1]}"
