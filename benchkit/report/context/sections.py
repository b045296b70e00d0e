"""The sections of a report that show results: findings, results, training, search, images, cost, published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchkit.analysis.estimates import CONFIDENCE, confidence_of, constant_words
from benchkit.analysis.ranking import Ranking, earlier_words, mean_intervals_words
from benchkit.analysis.summary import StudyStatistics, Summary
from benchkit.analysis.training import comparable_times
from benchkit.analysis.wording import count, listing, metric_words, number, quoted, setting
from benchkit.duration import duration
from benchkit.report.context.blocks import AbsentBlock, Block, FigureBlock, Paragraph, Section, TableBlock
from benchkit.report.tables.result_tables import (
    confirmation_table,
    confusions_table,
    cost_table,
    effects_table,
    efficiency_table,
    model_pairs_table,
    models_table,
    pairs_matrix,
    pairs_table,
    ranking_table,
    search_budget_table,
    search_space_table,
    split_table,
    uncertainty_table,
)
from benchkit.report.tables.table import Table, to_csv
from benchkit.results import SPLITS, StudyResults

if TYPE_CHECKING:
    from benchkit.report.figures.figure_set import FigureSet

MOST_ROWS = 500
"""A page shows at most this many rows of a table; more would make the PDF slow, and CSV has them all."""

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

INTERVALS = mean_intervals_words(CONFIDENCE)
EFFICIENCY = (
    "Training time up to the end of the selected epoch; the share that training used of the rate at which the device "
    "multiplies large matrices in the same precision (three times the forward FLOPs an image, matrix products and "
    f"convolutions alone); and, where the device tells it, the energy of all that ran on it. {INTERVALS}"
)


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


def section(name: str, title: str, blocks: Sequence[Block]) -> Section:
    """Return a section that is yet to be numbered."""
    return Section(number=0, name=name, title=title, blocks=tuple(blocks))


def table_block(
    name: str, title: str, caption: str, table: Table, full: Table | None = None, *, folded: bool = False
) -> TableBlock:
    """Return a table that is yet to be numbered; `full` is what its CSV holds when the page shows a part.

    A `folded` one is a line in print, where its CSV is attached, and folded on the page.
    """
    whole = full or table
    shown = table.with_rows(table.rows[:MOST_ROWS])
    missing = len(whole.rows) - len(shown.rows)
    return TableBlock(
        number=0,
        name=name,
        title=title,
        caption=caption,
        table=shown,
        csv=to_csv(whole),
        omitted=f"{missing:,} of {len(whole.rows):,} rows are in the CSV file only." if missing else "",
        folded=folded,
    )


def _spread_words(ranking: Ranking) -> str:
    """Return why a condition is clearly worse though its interval holds 0, where one is."""
    ends = [row.pair.comparison.difference for row in ranking.worse if row.pair]
    if not any(one.low is not None and one.high is not None and one.low <= 0 <= one.high for one in ends):
        return ""
    return (
        " An interval rests on its own few differences and may hold 0 where the test decides, which learns the spread "
        "of repeats from all conditions."
    )


def results_section(inputs: SectionInputs) -> Section:
    """Return the ranking, the forest plot, every metric of every split, all pairs, and marginal effects."""
    evidence = inputs.summary.numbers
    metric, results = metric_words(evidence.metric), inputs.results
    intervals = mean_intervals_words(confidence_of(results), results.resampled)
    select = str(inputs.results.study.settings.get("train", {}).get("select", "best"))
    blocks: list[Block] = [
        table_block(
            "ranking",
            f"Conditions by {metric}",
            f"Conditions by mean {metric}, best first. {intervals} From the best: the difference, paired by repeat. "
            "P(best better): P(A > B), the share of pairs of runs in which the best does better. "
            "p (worse): of a one-sided Welch t test against the strongest rival, variances shrunk to a common one, "
            f"by Holm's correction; clearly worse below {number(evidence.ranking.alpha)}"
            f"{earlier_words(evidence.ranking)}.{_spread_words(evidence.ranking)}"
            f"{constant_words(evidence.balance, evidence.metric)}",
            ranking_table(evidence),
        ),
        *inputs.figure("results-forest"),
        *inputs.figures_with_data("looks", "ladder", *["grid-heatmap"] * (len(inputs.results.study.factors) > 1)),
    ]
    blocks += _metric_tables(evidence, select, intervals)
    if evidence.uncertainty:
        blocks.append(
            table_block(
                "uncertainty",
                "Test accuracy over other seeds and other images",
                "Where the mean would lie (95 %) with other seeds, the same models on other images, and with both: t "
                "intervals by the variances of repeats and images as crossed random effects, with Satterthwaite's "
                "degrees of freedom. Few repeats tell so little of the spread of seeds that their own interval may be "
                "wider than that of both, of which the many images tell as well.",
                uncertainty_table(evidence),
            )
        )
    if evidence.effects:
        blocks.append(
            table_block(
                "effects",
                "Marginal means of the factors",
                effects_caption(evidence.metric, results.resampled),
                effects_table(evidence.effects, evidence.metric),
            )
        )
    if any(pair.p_adjusted is not None for pair in evidence.ranking.pairs):
        blocks += _pair_tables(evidence)
    return section("results", "Results", blocks)


def effects_caption(metric: str, resampled: float) -> str:
    """Return the caption of the marginal means of a metric."""
    return (
        f"Mean {metric_words(metric)} of every level over all conditions that have it, using the repeats that all of "
        f"them finished. {mean_intervals_words(CONFIDENCE, resampled)}"
    )


def _metric_tables(evidence: StudyStatistics, select: str, intervals: str) -> list[TableBlock]:
    """Return every metric of every split, test first; the others are folded behind it."""
    blocks: list[TableBlock] = []
    for split in SPLITS[::-1]:
        table = split_table(evidence, split)
        if table is not None:
            blocks.append(
                table_block(
                    f"metrics-{split}",
                    f"All metrics on {split}",
                    f"Every metric on {split} images, mean over repeats. {intervals} Bold: best mean of the column, "
                    f"which is no test.{_selection(split, select)}"
                    f"{constant_words(evidence.balance, f'{split}.accuracy')}",
                    table,
                    folded=bool(blocks),
                )
            )
    return blocks


def _pair_tables(evidence: StudyStatistics) -> list[TableBlock]:
    """Return all pairs as a matrix, where it is not too wide, and each with its test."""
    metric = metric_words(evidence.metric)
    shown, full = pairs_table(evidence)
    matrix = pairs_matrix(evidence)
    blocks: list[TableBlock] = []
    if matrix is not None:
        blocks.append(
            table_block(
                "pairs-matrix",
                "Differences of all pairs of conditions",
                f"Mean {metric} of the row's condition minus the column's (by rank) over the repeats of both; below it "
                "p of the paired t test after Holm's correction. Bold: told apart by these few differences alone.",
                matrix,
            )
        )
    blocks.append(
        table_block(
            "pairs",
            "All pairs of conditions",
            f"Paired t tests of {metric} by repeat. Brackets: 95 % t interval of the difference. Detectable: the "
            "smallest true difference that these repeats find with 80 % power after correction. P(A > B): the share "
            "of all pairs of runs, one of each, in which the first does better. Bold: told apart.",
            shown,
            full,
            folded=matrix is not None or full is not shown,
        )
    )
    return blocks


def _selection(split: str, select: str) -> str:
    if split == "test":
        return " The test images were not used for any choice."
    if split == "train":
        return " Scored without augmentation, by the same weights as the other splits."
    if select != "best":
        return " The weights of the last epoch are scored."
    return " The validation images chose the epoch whose weights are scored, so these numbers are a little too good."


def training_section(inputs: SectionInputs) -> Section:
    """Return the learning curves, and the learning rate where it changes."""
    beside = inputs.figures_with_data("metric-curves", "learning-rate")
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
        table_block(
            "search-budget",
            "Budget of every search",
            "What each search was given and has spent, so that searches are compared at equal effort. Pruned: "
            "share of the finished trials that were ended early. Training time: sum over all its trials.",
            search_budget_table(searches),
        ),
        table_block(
            "search-space",
            "Searched settings",
            "Searched settings, their ranges, and what the best trial of each search chose.",
            search_space_table(search, searches),
        ),
        table_block(
            "confirmation",
            "Search score and fresh repeats",
            "The best score of a search is one lucky draw among many. Fresh repeats of the same settings give its "
            f"honest value, beside the study's own settings. {mean_intervals_words(confidence_of(inputs.results))}",
            confirmation_table(searches),
        ),
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
        )
    ]
    if evidence.models:
        blocks.append(
            table_block(
                "models",
                "Test accuracy of every trained model",
                "Each trained model's test accuracy. Brackets: 95 % Wilson interval over test images.",
                models_table(evidence.models),
                folded=True,
            )
        )
    if evidence.model_pairs:
        blocks.append(
            table_block(
                "model-pairs",
                "Models on the same test images",
                "The model of the best condition against the model of each other one, same repeat, same test images: "
                "exact McNemar test, p after Holm's correction within this table. Brackets: 95 % paired bootstrap "
                "interval over the test images.",
                model_pairs_table(evidence.model_pairs),
                folded=True,
            )
        )
    elif len(evidence.ranking.rows) > 1:
        blocks.append(
            Paragraph(text="Models are not compared image by image: that needs the stored predictions of both.")
        )
    blocks += inputs.figures_with_data("data-sheet", "repeated-images")
    blocks += [*inputs.figure("confusion-matrix"), *inputs.figures_with_data("class-scores", "reliability")]
    report = evidence.classes
    if report is not None and report.confusions:
        blocks.append(
            table_block(
                "confusions",
                "Most frequent confusions",
                f"What {quoted(report.label)} most often takes for what, {report.split} images, summed over "
                f"{count(report.repeats, 'repeat')}.",
                confusions_table(report),
                folded=True,
            )
        )
    return section("images", "Test images and classes", blocks)


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
            table_block(
                "cost",
                "Speed and cost",
                "Parameters, forward FLOPs per image, and means over repeats of training time, training speed "
                f"(evaluation excluded) and peak memory. {INTERVALS}",
                cost_table(costs),
                folded=len(costs) > 1 and not comparable_times(costs),
            ),
        ]
        efficiency = efficiency_table(costs)
        if efficiency:
            blocks.append(table_block("efficiency", "Time to best and use of the device", EFFICIENCY, efficiency))
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
