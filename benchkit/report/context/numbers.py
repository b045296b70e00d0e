"""What a report says in numbers: its head with its warnings, and every table with its caption.

JSON alone has no more of a report than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from benchkit import __version__
from benchkit.analysis.estimates import CONFIDENCE, confidence_of, constant_words
from benchkit.analysis.ranking import Ranking, earlier_words, mean_intervals_words
from benchkit.analysis.search import SearchSummary
from benchkit.analysis.summary import StudyStatistics, Summary, dated_of, record_of, record_text
from benchkit.analysis.training import comparable_times
from benchkit.analysis.trials import coverage_words
from benchkit.analysis.wording import count, listing, metric_words, number, quoted
from benchkit.report.context.blocks import Banner, ReportContext, Section, TableBlock, numbered, section, table_block
from benchkit.report.context.source_section import source_section
from benchkit.report.tables.result_tables import (
    confirmation_table,
    confusions_table,
    cost_table,
    coverage_table,
    effects_table,
    efficiency_table,
    front_table,
    model_pairs_table,
    models_table,
    pairs_matrix,
    pairs_table,
    ranking_table,
    search_budget_table,
    search_space_table,
    split_table,
    trials_table,
    troubles_table,
    uncertainty_table,
)
from benchkit.results import SPLITS, StudyResults
from benchkit.study import Search

INTERVALS = mean_intervals_words(CONFIDENCE)
EFFICIENCY = (
    "Training time up to the end of the selected epoch; the share that training used of the rate at which the device "
    "multiplies large matrices in the same precision (three times the forward FLOPs an image, matrix products and "
    f"convolutions alone); and, where the device tells it, the energy of all that ran on it. {INTERVALS}"
)


def several_intervals_words(named: Iterable[tuple[str, float]]) -> str:
    """Return `mean_intervals_words` of several, each with its `resampled`, by name where they differ."""
    of: dict[str, list[str]] = {}
    for name, resampled in named:
        of.setdefault(mean_intervals_words(CONFIDENCE, resampled), []).append(name)
    return " ".join(words if len(of) == 1 else f"{listing(known)}: {words}" for words, known in of.items())


def in_numbers(results: StudyResults, summary: Summary, changes: Section | None = None) -> ReportContext:
    """Return what the report of these results says in numbers, without what only pages show.

    `changes` is the section about an earlier state of the study, where there is one to compare with.
    """
    numbers, study = summary.numbers, results.study
    quotes = study.origin is not None or study.published
    tables = [
        *_tables(changes),
        *results_tables(results, numbers),
        *search_tables(results, numbers),
        *model_tables(numbers),
        *confusion_tables(numbers),
        *cost_tables(numbers),
        *_tables(source_section(results, summary) if quotes else None),
        *coverage_tables(numbers),
        *trial_tables(results),
    ]
    return head(results, summary, numbered([section("numbers", "Numbers", tables)]))


def _tables(part: Section | None) -> list[TableBlock]:
    return [block for block in part.blocks if isinstance(block, TableBlock)] if part else []


def head(results: StudyResults, summary: Summary, sections: Sequence[Section]) -> ReportContext:
    """Return a report of these sections, under its title, its warnings and its answer."""
    report = results.study.report
    return ReportContext(
        title=results.study.title,
        question=results.study.question,
        description="",
        authors=listing(report.authors, most=20),
        study_name=results.study.name,
        generator=f"benchkit {__version__}",
        dated=dated_of(results),
        banners=banners(results, summary),
        answer=summary.answer,
        basis=summary.basis,
        facts=(),
        sections=tuple(sections),
        abstract=paragraphs(report.abstract),
        keywords=", ".join(" ".join(word.split()) for word in report.keywords),
        record=record_text(record_of(results)),
    )


def banners(results: StudyResults, summary: Summary, *, missing_in: str = "Trials") -> tuple[Banner, ...]:
    """Return the warnings over a whole report, or a page whose section `missing_in` says which trials are missing."""
    banners = []
    if results.study.smoke:
        banners.append(
            Banner(title="Smoke run", text="A tiny version of the study on other data. No number here is a result.")
        )
    variant = [change.replace("=", " = ", 1) for change in results.study.changed_protocol]
    if variant and not results.study.smoke:
        words = f"Settings differ from the study file: {listing(variant, most=8)}. Its numbers hold for these settings."
        banners.append(Banner(title="Variant", text=words))
    if results.data.get("synthetic"):
        banners.append(
            Banner(title="Synthetic numbers", text="Nothing was trained: a random generator made these numbers.")
        )
    if not all(row.complete for row in summary.numbers.coverage):
        words = f"{coverage_words(summary.numbers.coverage)}; section {missing_in} says what is missing."
        ended = all(row.ended for row in summary.numbers.coverage)
        banners.append(Banner(title="Trials without a score" if ended else "Not complete", text=words))
    return tuple(banners)


def paragraphs(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, which empty lines part."""
    return tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())


def results_tables(results: StudyResults, evidence: StudyStatistics) -> list[TableBlock]:
    """Return the ranking, every metric of every split, uncertainty, marginal effects, and all pairs."""
    metric = metric_words(evidence.metric)
    intervals = mean_intervals_words(confidence_of(results), results.resampled)
    select = str(results.study.settings.get("train", {}).get("select", "best"))
    blocks: list[TableBlock] = [
        table_block(
            "ranking",
            f"Conditions by {metric}",
            f"Conditions by mean {metric}, best first. {intervals} From the best: the difference, paired by repeat"
            f"{_looks_apart(evidence)}. "
            "P(best better): P(A > B), the share of pairs of runs in which the best does better. "
            "p (worse): of a one-sided Welch t test against the strongest rival, variances shrunk to a common one, "
            f"by Holm's correction; clearly worse below {number(evidence.ranking.alpha)}"
            f"{earlier_words(evidence.ranking)}.{_spread_words(evidence.ranking)}"
            f"{constant_words(evidence.balance, evidence.metric)}",
            ranking_table(evidence),
        ),
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
    return blocks


def _spread_words(ranking: Ranking) -> str:
    """Return why a condition is clearly worse though its interval holds 0, where one is."""
    ends = [row.pair.comparison.difference for row in ranking.worse if row.pair]
    if not any(one.low is not None and one.high is not None and one.low <= 0 <= one.high for one in ends):
        return ""
    return (
        " An interval rests on its own few differences and may hold 0 where the test decides, which learns the spread "
        "of repeats from all conditions."
    )


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
                    f"which is no test.{_selection(split, select, evidence)}"
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
                f"p of the paired t test after Holm's correction{_looks_apart(evidence)}. Bold: told apart by these "
                "few differences alone.",
                matrix,
            )
        )
    blocks.append(
        table_block(
            "pairs",
            "All pairs of conditions",
            f"Paired t tests of {metric} by repeat{_looks_apart(evidence)}. Better: in the repeats of both. "
            "Brackets: 95 % t interval of the difference. Detectable: the "
            "smallest true difference that these repeats find with 80 % power after correction. P(A > B): the share "
            "of all pairs of runs, one of each, in which the first does better. Bold: told apart.",
            shown,
            full,
            folded=matrix is not None or full is not shown,
        )
    )
    return blocks


def _looks_apart(numbers: StudyStatistics) -> str:
    """Return that tests and intervals of pairs do not allow for several looks, where looks are planned."""
    return " (for one look alone: verdicts allow for all looks)" if numbers.looks.planned else ""


def _selection(split: str, select: str, numbers: StudyStatistics) -> str:
    if split == "test":
        looks = bool(numbers.looks.planned) and numbers.metric.startswith("test.")
        more = "; the looks at them chose which conditions got more repeats" if looks else ""
        return f" The test images chose no epoch and no setting{more}."
    if split == "train":
        return " Scored without augmentation, by the same weights as the other splits."
    if select != "best":
        return " The weights of the last epoch are scored."
    return " The validation images chose the epoch whose weights are scored, so these numbers are a little too good."


def search_tables(results: StudyResults, evidence: StudyStatistics) -> list[TableBlock]:
    """Return what each search was given and found, and what it was worth; nothing for a study without search."""
    search, searches = results.study.search, evidence.searches
    if search is None or not searches:
        return []
    return [
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
        *_front_block(results, search, searches),
        table_block(
            "confirmation",
            "Search score and fresh repeats",
            "The best score of a search is one lucky draw among many. Fresh repeats of the same settings are free of "
            "that luck, but not of the validation images, which chose them and favour them still; by test images they "
            "stand among the conditions. Beside them the study's own settings. "
            f"{mean_intervals_words(confidence_of(results))}",
            confirmation_table(searches),
        ),
    ]


def _front_block(results: StudyResults, search: Search, searches: Sequence[SearchSummary]) -> list[TableBlock]:
    if not any(summary.front for summary in searches):
        return []
    goals = listing([metric_words(goal.metric) for goal in search.goals])
    caption = (
        f"Pareto front: the done trials that no other one beats, being as good in {goals} and better in one of these. "
        "One run each, so that luck is in the scores. Fresh repeats train only the trial that is best by "
        f"{metric_words(search.goals[0].metric)}, the first goal, again; it is the best trial elsewhere in this report."
    )
    front = front_table(search, searches, results.trials)
    return [table_block("search-front", "Pareto front of every search", caption, front)]


def model_tables(evidence: StudyStatistics) -> list[TableBlock]:
    """Return every trained model on the test images, and models beside each other on the same ones."""
    blocks: list[TableBlock] = []
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
    return blocks


def confusion_tables(evidence: StudyStatistics) -> list[TableBlock]:
    """Return what the best condition most often takes for what, if anything."""
    report = evidence.classes
    if report is None or not report.confusions:
        return []
    return [
        table_block(
            "confusions",
            "Most frequent confusions",
            f"What {quoted(report.label)} most often takes for what, {report.split} images, summed over "
            f"{count(report.repeats, 'repeat')}.",
            confusions_table(report),
            folded=True,
        )
    ]


def cost_tables(evidence: StudyStatistics) -> list[TableBlock]:
    """Return speed and cost, and what else of the cost some trials tell; nothing where no trial is done."""
    costs = evidence.costs
    if not costs:
        return []
    blocks = [
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
    return blocks


def coverage_tables(evidence: StudyStatistics) -> list[TableBlock]:
    """Return what was planned and what came of it, and the trials without a score, if any."""
    blocks = [
        table_block(
            "coverage",
            "Planned trials and what came of them",
            "Every planned trial by its state. Pruned, diverged and failed trials are results too; stale ones "
            "lost their worker or were under way when the sweep was stopped. A repeat that was tried again counts "
            "once.",
            coverage_table(evidence.coverage),
            folded=all(row.complete for row in evidence.coverage),
        ),
    ]
    if evidence.troubles:
        blocks.append(
            table_block(
                "troubles",
                "Trials that diverged, failed, went stale or lost files",
                "Trials without a score, and why. Retried: another attempt stands in their place.",
                troubles_table(evidence.troubles),
            )
        )
    return blocks


def trial_tables(results: StudyResults) -> list[TableBlock]:
    """Return the table of every trial, if there is any."""
    if not results.trials:
        return []
    every = table_block(
        "trials",
        "Every trial",
        "Every trial of the study in the order in which they were started. Scores are those of the weights that were "
        "chosen on validation images.",
        trials_table(results.trials, results.study.report.metric),
        folded=True,
    )
    return [every]
