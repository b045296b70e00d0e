"""The sections of a report: what came out (results, training, search, images, cost), and where it comes from.

The latter are its trials, how to reproduce it, and its glossary. Tables come from `numbers.py`.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from benchkit.analysis.candidates import repeats_words, without_options
from benchkit.analysis.summary import Summary, recorded_data, recorded_environment, recorded_plugins
from benchkit.analysis.wording import count, duration, listing, metric_words, number, setting
from benchkit.metrics import epoch_readings
from benchkit.registry.kit_record import UNCHECKED
from benchkit.registry.registry import BUILT_IN
from benchkit.report.context.blocks import (
    AbsentBlock,
    Block,
    CodeBlock,
    DownloadBlock,
    Fact,
    FactsBlock,
    FigureBlock,
    Paragraph,
    Section,
    TermsBlock,
    section,
)
from benchkit.report.context.glossary import Literature, UsedPlugin, bibtex, glossary_terms, reference_terms
from benchkit.report.context.numbers import (
    confusion_tables,
    cost_tables,
    coverage_tables,
    model_tables,
    results_tables,
    search_tables,
    trial_tables,
)
from benchkit.report.files.exports import resolved
from benchkit.results import SPLITS, StudyResults

if TYPE_CHECKING:
    from benchkit.report.figures.figure_set import FigureSet

SEARCH_FIGURES = (
    "search-history",
    "search-budget",
    "search-pruning",
    "search-importances",
    "search-contours",
    "search-parallel",
    "search-slices",
)
STANDARD_FIGURES = ("results-forest", "learning-curves", *SEARCH_FIGURES, "confusion-matrix", "speed-cost")
"""The figures of every report; a study that names one of them with options gets it a second time, with these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionInputs:
    """What sections are made from: results, their summary and the figures."""

    results: StudyResults
    summary: Summary
    figure_set: FigureSet | None

    def figure(self, plugin: str, options: Mapping[str, Any] | None = None) -> list[FigureBlock | AbsentBlock]:
        """Return the figure of a plugin, or why it is absent; nothing where no figures are made."""
        return [self.figure_set.block(plugin, options)] if self.figure_set else []

    def figures_with_data(self, *plugins: str) -> list[FigureBlock | AbsentBlock]:
        """Return those of installed figures that have something to draw; nothing where no figures are made."""
        return self.figure_set.with_data(*plugins) if self.figure_set else []


def names_used(results: StudyResults, table: str) -> list[str]:
    """Return the names of the data sets or models (`table` is `data` or `model`) of the conditions, each once.

    Images of one's own are told by the name of their folder, archive or list: `birds (image-folder)`.
    """
    trees = [condition.settings for condition in results.conditions] or [results.study.settings]
    tables = [found for tree in trees if isinstance(found := tree.get(table), Mapping) and found.get("name")]
    return list(dict.fromkeys(_with_source(str(found["name"]), str(found.get("source", ""))) for found in tables))


def _with_source(name: str, source: str) -> str:
    place = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return name if place in ("", ".", "..", "~") else f"{place} ({name})"


def models_used(results: StudyResults) -> list[str]:
    """Return the models of the conditions, each once, with those of their options in which no conditions differ."""
    trees = [condition.settings for condition in results.conditions] or [results.study.settings]
    tables = [table for tree in trees if isinstance(table := tree.get("model"), Mapping) and table.get("name")]
    alike: dict[str, Mapping[str, object]] = {}
    for table in tables:
        name = str(table["name"])
        others = alike.get(name, table)
        alike[name] = {key: value for key, value in table.items() if key in others and others[key] == value}
    return [_with_options(name, options) for name, options in alike.items()]


def _with_options(name: str, options: Mapping[str, object]) -> str:
    said = {key: value for key, value in options.items() if isinstance(value, str | int | float) and value != ""}
    listed = ", ".join(f"{key} = {setting(value)}" for key, value in said.items() if key not in ("name", "norm"))
    return f"{name} ({listed})" if listed else name


def results_section(inputs: SectionInputs) -> Section:
    """Return the ranking, the forest plot, every metric of every split, marginal effects, and all pairs."""
    ranking, *others = results_tables(inputs.results, inputs.summary.numbers)
    figures = [*inputs.figure("results-forest"), *inputs.figures_with_data(*_figures_of_factors(inputs))]
    return section("results", "Results", [ranking, *figures, *others])


def _figures_of_factors(inputs: SectionInputs) -> list[str]:
    """Return the figures that a study may have for its looks and its factors: a ladder's levels set several things."""
    factors = inputs.results.study.factors
    asked = {
        "looks": bool(inputs.summary.numbers.looks.taken),
        "ladder": len(factors) == 1 and any(len(level.settings) > 1 for level in factors[0].levels),
        "grid-heatmap": len(factors) > 1,
    }
    return [name for name, wanted in asked.items() if wanted]


def training_section(inputs: SectionInputs) -> Section:
    """Return the learning curves, those of other metrics that epochs are read by, and the rate where it changes."""
    read = ["metric-curves"] * bool(epoch_readings(inputs.results.study.named_metrics))
    beside = inputs.figures_with_data(*read, "learning-rate")
    return section("training", "Training", [*inputs.figure("learning-curves"), *beside])


def search_section(inputs: SectionInputs) -> Section | None:
    """Return what the search spent, found and was worth, or None for a study without search."""
    search, searches = inputs.results.study.search, inputs.summary.numbers.searches
    if search is None or not searches:
        return None
    counted = {"condition": {search_summary.condition for search_summary in searches}, "sampler": set(search.samplers)}
    each = " and ".join(name for name, of in counted.items() if len(of) > 1)
    sampler = f"samplers {listing(search.samplers)}" if search.samplers else f"sampler {search.sampler}"
    goals = ", ".join(f"{metric_words(goal.metric)} ({goal.direction}d)" for goal in search.goals)
    blocks: list[Block] = [
        Paragraph(
            text=f"{count(search.trials, 'trial')}{f' for each {each}' if each else ''}, {sampler}, pruner "
            f"{search.pruner}, goal {goals}. Only validation images guide the search."
        ),
        *search_tables(inputs.results, inputs.summary.numbers),
    ]
    figures = [block for name in SEARCH_FIGURES for block in inputs.figure(name)]
    return section("search", "Search", [*blocks, *figures])


def images_section(inputs: SectionInputs) -> Section:
    """Return the uncertainty over test images, and what is confused with what."""
    evidence = inputs.summary.numbers
    blocks: list[Block] = [
        Paragraph(
            text="This section is about the trained models as they are and the test images as they happen to be. Its "
            "intervals say what other images would give, and nothing of other random seeds."
        ),
        *model_tables(evidence),
    ]
    if not evidence.model_pairs and len(evidence.ranking.rows) > 1:
        blocks.append(
            Paragraph(text="Models are not compared image by image: that needs the stored predictions of both.")
        )
    blocks += inputs.figures_with_data("data-sheet", *["repeated-images"] * bool(evidence.repeated))
    blocks += [*inputs.figure("confusion-matrix"), *inputs.figures_with_data("class-scores", "reliability")]
    return section("images", "Test images and classes", [*blocks, *confusion_tables(evidence)])


def cost_section(inputs: SectionInputs) -> Section:
    """Return speed and cost."""
    costs = inputs.summary.numbers.costs
    blocks: list[Block] = []
    energy = _energy(inputs.results)
    if costs:
        devices = list(dict.fromkeys(name for row in inputs.summary.numbers.devices for name in row.devices))
        precisions = sorted({precision for cost in costs for precision in cost.precisions})
        mixed = " Times on different devices do not compare: each has its rows." if len(devices) > 1 else ""
        blocks += [
            Paragraph(
                text=f"All trials of the study trained for {duration(inputs.summary.training_seconds)} in "
                f"all. Device: "
                f"{'; '.join(devices)}. Precision: {', '.join(precisions)}.{mixed}{energy}"
            ),
            *cost_tables(inputs.summary.numbers),
        ]
    return section("cost", "Speed and cost", [*blocks, *inputs.figure("speed-cost")])


def _energy(results: StudyResults) -> str:
    """Return in words what the trials' devices drew, where each tells it, with its carbon where the study states it."""
    drawn = [trial.outcome.cost.energy for trial in results.trials if trial.outcome and trial.outcome.cost]
    if not drawn or min(drawn) <= 0:
        return ""
    kwh = sum(drawn) / 3.6e6
    words = f" The devices of these {count(len(drawn), 'trial')} drew {number(kwh, 3)} kWh"
    carbon = results.study.report.carbon
    if carbon is None:
        return f"{words}."
    return f"{words}, {number(kwh * carbon, 3)} g of CO2 at the {number(carbon)} g a kWh that the study states."


def extra_section(inputs: SectionInputs) -> Section | None:
    """Return the figures that the study asks for beside the standard ones, or None when it asks for none."""
    asked = inputs.results.study.report.figures
    wanted = [(name, options) for name, options in asked if options or name not in STANDARD_FIGURES]
    blocks = [block for name, options in wanted for block in inputs.figure(name, options)]
    return section("figures", "Further figures", blocks) if wanted else None


def coverage_section(inputs: SectionInputs) -> Section:
    """Return what was planned and what came of it, failures with their reason, test reads, and every trial."""
    evidence = inputs.summary.numbers
    reads = evidence.reads
    planned, *troubles = coverage_tables(evidence)
    told = Paragraph(text=_reads(reads.reads, reads.trials, reads.repeated))
    left_out = [Paragraph(text=line) for line in evidence.left_out]
    return section("coverage", "Trials", [planned, told, *troubles, *left_out, *trial_tables(inputs.results)])


def _reads(reads: int, trials: int, repeated: int) -> str:
    if not trials:
        return "The test images have not been read: no trial is done."
    words = f"The test images were read {count(reads, 'time')}, by {count(trials, 'done trial')}"
    if repeated:
        return f"{words}; {count(repeated, 'trial')} read them more than once."
    return f"{words}; none read them more than once, and nothing was chosen by them."


def reproduce_section(inputs: SectionInputs, plugins: tuple[UsedPlugin, ...]) -> Section:
    """Return the command, the study as written and as resolved, versions, plugins, device, data and seeds."""
    results = inputs.results
    study = results.study
    blocks: list[Block] = [
        CodeBlock(title="Commands", text=commands(results)),
        FactsBlock(title="Random seeds", facts=_seeds(results)),
        FactsBlock(title="Data", facts=(*images_used(results), *_counts_named(_facts(recorded_data(results.data))))),
        FactsBlock(title="Versions and device", facts=_facts(recorded_environment(results))),
        FactsBlock(title="Plugins", facts=tuple(map(by_origin, plugin_facts(results, plugins)))),
        _file("Study file", "The study as it was written.", "study.toml", study.source),
        _file("Settings", "The base settings with every default; factors and search aside.", "settings.toml",
              resolved(results)),
    ]  # fmt: skip
    kept = [block for block in blocks if not isinstance(block, FactsBlock) or block.facts]
    return section("reproduce", "How to reproduce this", kept)


def by_origin(fact: Fact) -> Fact:
    """Return a fact on plugins, each a name with its origin in brackets, with the names of one origin together."""
    origins: dict[str, list[str]] = {}
    for plugin in fact.value.split("; "):
        name, bracket, origin = plugin.partition(" (")
        if origin.startswith(f"{BUILT_IN} "):  # whose tests put them through the kit, whatever was asked on a machine
            origin = origin.replace(f", {UNCHECKED}", "")
        origins.setdefault(f"{bracket}{origin}", []).append(name)
    return replace(fact, value="; ".join(f"{', '.join(names)}{origin}" for origin, names in origins.items()))


def _file(title: str, text: str, file: str, content: str) -> DownloadBlock:
    data = content.encode(errors="backslashreplace")
    return DownloadBlock(
        title=title,
        text=text,
        file=file,
        media_type=f"application/{'toml' if file.endswith('.toml') else 'x-bibtex'}",
        content=base64.b64encode(data).decode(),
        size=f"{len(data):,} bytes",
    )


PLACED = ("-w", "--workspace", "--plugin", "--allow-shadow")
"""The options of a sweep without which its report would not be found, or would lack what plugins say."""

VALUED = ("--retry", "--hours", "--stop-by", "--lease", "--patience")
SWITCHES = ("--json", "--watch", "--profile", "--requeue", "--allow-changed-plugins")
"""Options of a sweep, with a value and without, that bear on no result of a study that is trained from its start."""


def commands(results: StudyResults) -> str:
    """Return the commands that train the study and report it, where its sweep put it, one a line.

    Options that bear on no result, such as `--watch` and `--hours`, are left out.
    """
    sweep = results.command or shlex.join(["benchkit", "sweep", results.study.name])
    try:
        words = without_options(shlex.split(sweep), VALUED, SWITCHES)
    except ValueError:
        words = []
    where: list[str] = []
    for word, value in zip_longest(words, words[1:], fillvalue=""):
        if word.partition("=")[0] in PLACED:
            where += [word] if "=" in word or word == "--allow-shadow" else [word, value]
    return f"{shlex.join(words) if words else sweep}\n{shlex.join(['benchkit', 'report', results.study.name, *where])}"


def _seeds(results: StudyResults) -> tuple[Fact, ...]:
    study = results.study
    facts = [
        Fact(name="study seed", value=str(study.seed)),
        Fact(
            name="rule",
            value="each is a sha256 over study seed, repeat and purpose, never over a factor: the same repeat of two "
            "conditions starts from the same numbers and sees images in the same order",
        ),
        Fact(name="repeats", value=f"{repeats_words(results)}, numbered from 0"),
        *(
            Fact(name=f"decided: {one.name}", value=f"{one.value} ({one.why}; benchkit {one.version})")
            for one in results.decisions
        ),
    ]
    return tuple(facts)


def plugin_facts(results: StudyResults, known: tuple[UsedPlugin, ...]) -> tuple[Fact, ...]:
    """Return the plugins as the trials recorded them, or as they are installed now where no trial did.

    Figures of other distributions are named as well: no trial records what only draws.
    """
    facts = _facts(recorded_plugins(results))
    if not facts:
        return tuple(Fact(name=f"{plugin.kind}: {plugin.name}", value=plugin.origin) for plugin in known)
    others = (one for one in known if one.kind == "figures" and not one.origin.startswith("benchkit "))
    told = ((one, ", ".join(filter(None, (one.origin, one.checked)))) for one in others)
    return (*facts, *(Fact(name=f"figure {one.name}", value=f"{one.title} ({words})") for one, words in told))


def _facts(known: Iterable[tuple[str, str]]) -> tuple[Fact, ...]:
    return tuple(Fact(name=name, value=value) for name, value in known)


def images_used(results: StudyResults) -> tuple[Fact, ...]:
    """Return how many images of each split the done trials used, where that is known: a study may take a part."""
    used = {
        split: sorted({t.outcome.metrics[split].n for t in results.trials if t.outcome and split in t.outcome.metrics})
        for split in SPLITS
    }
    texts = [f"{split} {' to '.join(f'{n:,}' for n in (*ns[:1], *ns[1:][-1:]))}" for split, ns in used.items() if ns]
    return (Fact(name="images used", value=", ".join(texts)),) if texts else ()


def _counts_named(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Return the facts with counts said to be those of the whole set: a study may use fewer images."""
    return tuple(replace(one, name=one.name.replace("counts ", "images in the whole set, ", 1)) for one in facts)


def terms_section(known: Literature) -> Section | None:
    """Return the glossary, the references as BibTeX and in print, or None where the text needs none of them."""
    blocks: list[Block] = []
    if known.plugins or known.terms:
        blocks.append(TermsBlock(title="Glossary", terms=glossary_terms(known)))
    if known.works:
        blocks.append(_file("BibTeX", "The references for LaTeX.", "references.bib", bibtex(known.works)))
        blocks.append(TermsBlock(title="References", terms=reference_terms(known)))
    return section("terms", "Glossary and references", blocks) if blocks else None
