"""The benchmark's report, made by benchkit's own: goals, a figure, a table a workload, norms, and how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from answers import WORSE, Answer, Quantiles
from comparison import LENGTHS, QUEUE, Comparison, Spread
from kept import keep
from measurements import BOOKKEEPING, DEVICES, Part, Verdict, verdicts
from ratio_chart import RatioChart, fastest_words, ratio_data

from benchkit import __version__
from benchkit.analysis.wording import duration, listing
from benchkit.errors import ReportError
from benchkit.report.context.blocks import (
    Banner,
    Block,
    CodeBlock,
    Fact,
    FactsBlock,
    FindingBlock,
    Paragraph,
    ReportContext,
    numbered,
    section,
    table_block,
)
from benchkit.report.context.blocks import Section as ReportSection
from benchkit.report.figures.drawing import spec_to_svg
from benchkit.report.figures.figure_set import figure_block
from benchkit.report.files.html import font_files, render_html, render_print
from benchkit.report.files.pdf import Attached, render_pdf
from benchkit.report.tables.table import Cell, Column, Table, label, number_cell
from benchkit.storage import write_atomically

CONTENDERS = (
    ("script", "the loop of a tutorial: torchvision's transforms image by image, a DataLoader with worker processes, "
     "float32, the loss read at each step"),
    ("resident", "all images on the device, cropped and flipped as batches, bf16, channels-last, nothing read: the "
     "approach of cifar10-airbench"),
    ("lightning", "Lightning's Trainer on the script's loader"),
    ("timm", "timm's loader, with its own crop and flip, and optimizer around the script's loop"),
    ("NAME-best", "the same with the best settings that its documentation names: channels-last, bf16 where the device "
     "has it (fastai: on a GPU alone), worker processes that stay; NAME-compiled: with torch.compile as well"),
    ("fastai", "fastai's Learner on the script's loader"),
    ("timm-script", "timm's own train script as it is, in float32 on a folder of PNG files, with that crop and flip"),
    ("benchkit", "the public command `benchkit sweep`, with history, checkpoints and ledger, one trial at a time with "
     "all threads; with --jobs several at a time with a thread each, as many as cores being a processor's default, and "
     "the images/s of all of them"),
    ("benchkit-compiled", "the same with train.compile = \"always\" in the study; its first step includes compiling, "
     "anew in each round"),
)  # fmt: skip
WATCHING = "beside it: the sweep's process"
TONES = {"met": ("answer", "Met"), "missed": ("warning", "Missed"), "not measured": ("note", "Not measured")}


def write(folder: Path, parts: Mapping[str, Part]) -> list[Path]:
    """Write benchmarks.json, .html and .pdf into a folder; return those that were written."""
    told = keep(folder, parts)
    report, pictures = report_of(parts)
    written = {"html": render_html(report).encode()}
    attached = [Attached(name="benchmarks.json", description="everything that was measured", content=told)]
    try:
        written["pdf"] = render_pdf(render_print(report), {**pictures, **font_files()}, attached)
    except ReportError as error:
        print(f"no PDF: {error}")
    for ending, content in written.items():
        write_atomically(folder / f"benchmarks.{ending}", content)
    return [folder / f"benchmarks.{ending}" for ending in ("json", *written)]


def report_of(parts: Mapping[str, Part]) -> tuple[ReportContext, dict[str, bytes]]:
    """Return the report and its figures for print."""
    goals = list(verdicts(parts))
    pictures: dict[str, bytes] = {}
    sections = [_goals(goals)]
    sections += [_answers(device, part) for device, part in parts.items() if part.answers]
    for device, part in parts.items():
        blocks: list[Block] = []
        data = ratio_data(part)
        if data.rows:
            name, title = f"ratios-{device}", f"Against the script on {DEVICES[device]}"
            figure = figure_block(name, "ratios", title, RatioChart(), data)
            pictures[f"fig:{name}.svg"] = spec_to_svg(json.loads(figure.spec)).encode()
            blocks.append(replace(figure, print_source=f"fig:{name}.svg"))
        for one in part.comparisons:
            blocks += [_speeds(part, one), *_lengths(part, one)]
        blocks += _own(part) + _norms(part) + _growth(part)
        sections.append(section(f"measured-{device}", f"Measured on {DEVICES[device]}", blocks))
    sections.append(_method(parts))
    return _front(parts, goals, sections), pictures


def _front(parts: Mapping[str, Part], goals: Sequence[Verdict], sections: Sequence[ReportSection]) -> ReportContext:
    count = {state: sum(goal.state == state for goal in goals) for state in TONES}
    quick = any(part.quick for part in parts.values())
    ratios = {device: data for device, part in parts.items() if (data := ratio_data(part)).rows}
    trial = Banner(title="A trial run", text="Tiny workloads, to show that it runs. Its numbers say nothing.")
    return ReportContext(
        title="benchkit beside its peers",
        question="How fast does benchkit train, beside what people would write or take instead?",
        description="Every contender trains the same model on the same images with the same batch size, in a process "
        "of its own; contenders take turns in each round.",
        authors="",
        study_name="benchmarks",
        generator=f"benchkit {__version__}",
        dated=max(part.dated for part in parts.values()),
        banners=(trial,) if quick else (),
        answer=(
            *(words for part in parts.values() if part.answers for words in answer_words(part.answers)),
            f"Of {len(goals)} goals: {', '.join(f'{count[state]} {state}' for state in TONES)}{_by_variants(goals)}.",
            *(f"On {DEVICES[device]} {fastest_words(data)}" for device, data in ratios.items()),
            *(
                f"Goals are missed on {where} by {_missed(goals, device)}."
                for device, where in DEVICES.items()
                if _missed(goals, device)
            ),
        ),
        facts=tuple(
            Fact(
                name=DEVICES[name].removeprefix("the "),
                value=f"{part.name}, {part.cores} cores, PyTorch {part.torch}, Python {part.python}",
            )
            for name, part in parts.items()
        ),
        sections=numbered(sections),
    )


def _by_variants(goals: Sequence[Verdict]) -> str:
    """Return which of the goals that are met are met by a variant alone, in words."""
    variants = [goal.variant for goal in goals if goal.variant]
    if not variants:
        return ""
    return f"; {len(variants)} of them only by {listing(list(dict.fromkeys(variants)))}, which is not the default"


def _missed(goals: Sequence[Verdict], device: str) -> str:
    """Return the works that miss a goal on a device, in words."""
    missed = [goal.work for goal in goals if goal.state == "missed" and goal.device == device]
    return listing(list(dict.fromkeys(missed)))


def _goals(goals: Sequence[Verdict]) -> ReportSection:
    blocks: list[Block] = [Paragraph(text="A goal is met when the median over rounds reaches it.")]
    for goal in goals:
        tone, word = TONES[goal.state]
        blocks.append(
            FindingBlock(
                tone=tone,
                tone_word=word,
                sentence=f"{goal.work}, on {DEVICES[goal.device]}: {goal.goal}.",
                evidence=f"Found: {goal.found}." if goal.found else "Nothing has been measured there yet.",
            )
        )
    return section("goals", "Goals", blocks)


def _speeds(part: Part, one: Comparison) -> Block:
    limit = one.limit
    columns = (
        Column(key="contender", heading="Contender", align="left"),
        Column(key="n", heading="n"),
        Column(key="rate", heading="Speed", unit="images/s", parts=("low", "high")),
        Column(key="ratio", heading="Against the script", unit="times", parts=("low", "high")),
        Column(key="first_step", heading="First step", unit="s"),
        Column(key="hourly", heading="Trials an hour", parts=("low", "high")),
        Column(key="hourly_ratio", heading="Against the script", unit="times", parts=("low", "high")),
        Column(key="matrix_share", heading="Matrix rate", unit="%"),
        *([Column(key="limit_share", heading="Of the limit", unit="%")] if limit else []),
    )
    rows = [
        (
            label(row.contender, strong=row.contender.startswith("benchkit")),
            number_cell(str(row.n), row.n),
            _spread(row.rate, ",.0f"),
            _spread(row.ratio, ".2f"),
            number_cell(f"{row.first_step:.1f}", row.first_step),
            _spread(row.hourly, ",.0f"),
            _spread(row.hourly_ratio, ".2f"),
            number_cell(f"{100 * row.matrix_share:.0f}", 100 * row.matrix_share if row.matrix_share else None),
            *(
                [number_cell(f"{100 * row.rate.middle / limit.rate:.0f}", 100 * row.rate.middle / limit.rate)]
                if limit
                else []
            ),
        )
        for row in one.rows
    ]
    longer = (
        f" benchkit's trials have {one.longer} times the loops' epochs, which count as often." if one.longer > 1 else ""
    )
    scored = (
        "Every trial is scored on validation images after each epoch and on all images at the end (timm's script on "
        "validation images alone)"
        if one.scored
        else "benchkit's trials are scored on validation images after each epoch and on all images at the end, the "
        "others are not"
    )
    caption = (
        f"{one.title}: medians over n rounds of {one.epochs} epochs of {one.images:,} images in each process (the "
        "first epoch left out), brackets: least and greatest. Ratios are taken within rounds. First step: seconds from "
        "the start of the process to the end of its first step. Trials an hour: whole trainings, each process's start "
        f"counted once for {one.trials} trial{'s' if one.trials > 1 else ''}. {scored}. Matrix rate: the share that "
        f"training used of the rate at which the device multiplies large matrices in the same precision.{longer}"
        f"{f' Of the limit: {limit.text()}.' if limit else ''}"
    )
    return table_block(f"{part.device}-{one.name}", one.title, caption, Table(columns=columns, rows=tuple(rows)))


def _lengths(part: Part, one: Comparison) -> list[Block]:
    found = {name: one.hourly(seconds) for seconds, name in LENGTHS.items()}
    if one.limit is None or not found["10 s"]:
        return []
    columns = (
        Column(key="contender", heading="Contender", align="left"),
        *(
            Column(key=f"of_{seconds}", heading=f"Trials of {name}", unit="an hour")
            for seconds, name in LENGTHS.items()
        ),
    )
    rows = tuple(
        (
            label(row.contender, strong=row.contender.startswith("benchkit")),
            *(number_cell(f"{hourly[row.contender]:,.1f}", hourly[row.contender]) for hourly in found.values()),
        )
        for row in one.rows
    )
    caption = (
        f"{one.title}: trials an hour in a queue of {QUEUE}, of so many images that the script's steps take 10 s, "
        "1 min and 10 min of each; one after another, with --jobs as many at a time. From the measured medians: "
        "images/s, the first step (its start, and compiling) once for the queue, and what a trial takes beside its "
        f"steps. What benchkit does by default: {_defaults(one)}."
    )
    named = f"{part.device}-{one.name}-lengths", f"{one.title}: trials an hour by their length"
    return [table_block(*named, caption, Table(columns=columns, rows=rows))]


def _defaults(one: Comparison) -> str:
    """Return which row is benchkit's default at each length, in words."""
    ways: dict[str, list[str]] = {}
    for seconds, name in LENGTHS.items():
        ways.setdefault(one.default(seconds), []).append(name)
    return listing([f"{way} at {listing(lengths)}" for way, lengths in ways.items()])


def _spread(found: Spread | None, form: str) -> Cell:
    if found is None:
        return number_cell("", None)
    detail = f"[{found.low:{form}}, {found.high:{form}}]"
    return Cell(text=f"{found.middle:{form}}", detail=detail, value=found.middle, parts=(found.low, found.high))


def _answers(device: str, part: Part) -> ReportSection:
    columns = (
        Column(key="question", heading="Study", align="left"),
        Column(key="way", heading="Steps", align="left"),
        Column(key="rule", heading="Decided by", align="left"),
        Column(key="hours", heading="Until decided", unit="s", parts=("low", "high")),
        Column(key="spent", heading="Until decided or given up", unit="s", parts=("low", "high")),
        Column(key="decided", heading="Decided", unit="%"),
        Column(key="wrong", heading="For a worse one", unit="%"),
    )
    rows = tuple(
        (
            label(one.question),
            label(one.way),
            label(one.rule),
            _seconds(one.hours),
            _seconds(one.spent),
            number_cell(f"{100 * one.decided:.0f}", 100 * one.decided),
            number_cell(f"{100 * one.wrong:.1f}", 100 * one.wrong),
        )
        for one in part.answers
    )
    studies = " or ".join(f"{n:,}" for n in sorted({one.studies for one in part.answers}))
    caption = (
        f"{studies} studies for each way of deciding, drawn without replacement from real repeats: the time until the "
        "report's rule names one best condition, and until it does or the repeats end (median, brackets: 10 % and 90 % "
        "quantile); the share of studies decided, and the share decided for a condition that is worse than another by "
        f"more than {100 * WORSE:.1f} points in the pool. benchkit prunes trials of searches alone: pruned repeats are "
        "here for comparison."
    )
    table = table_block(f"{device}-answers", "Time to the answer", caption, Table(columns=columns, rows=rows))
    title = "Time to the answer" if device == "cpu" else f"Time to the answer on {DEVICES[device]}"
    return section(f"answers-{device}", title, [table, *(Paragraph(text=f"{words}.") for words in part.pools)])


def _seconds(hours: Quantiles | None) -> Cell:
    if hours is None:
        return number_cell("", None)
    middle, low, high = 3600 * hours.middle, 3600 * hours.low, 3600 * hours.high
    return Cell(text=f"{middle:,.0f}", detail=f"[{low:,.0f}, {high:,.0f}]", value=middle, parts=(low, high))


def answer_words(answers: Sequence[Answer]) -> tuple[str, ...]:
    """Return a sentence for each study, by the first way of its steps: how long it takes until decided, beside the
    fixed repeats that decide as often.
    """
    first = {one.question: one.way for one in reversed(answers)}
    found = [one for one in answers if one.rule == "until decided" and one.hours and first[one.question] == one.way]
    return tuple(_answer_words(one, answers) for one in found) or ("No study was decided.",)


def _answer_words(until: Answer, answers: Sequence[Answer]) -> str:
    others = [
        one for one in answers if (one.question, one.way) == (until.question, until.way) and "of each" in one.rule
    ]
    fixed = next((one for one in others if one.decided >= until.decided), others[-1] if others else None)
    assert until.hours is not None
    told = (
        f"Repeats added until decided rank {until.question} after {duration(3600 * until.hours.middle)} "
        f"({until.decided:.0%} of studies decided, {until.wrong:.1%} wrongly)"
    )
    if fixed is None:
        return f"{told}."
    return f"{told}; {fixed.rule} take {duration(3600 * fixed.spent.middle)} and decide {fixed.decided:.0%}."


def _own(part: Part) -> list[Block]:
    if not part.own:
        return []
    rounds = range(1, len(part.own) + 1)
    columns = (
        Column(key="phase", heading="Phase", align="left"),
        *(Column(key=f"round_{number}", heading=f"Round {number}", unit="s") for number in rounds),
    )
    phases = {
        **{name: [one.phases.get(name, 0.0) for one in part.own] for name in part.own[0].phases},
        "whole trial": [one.seconds for one in part.own],
        WATCHING: [one.watching for one in part.own],
    }
    rows = tuple(
        (label(name, strong=name in (*BOOKKEEPING, WATCHING)), *(number_cell(f"{one:.2f}", one) for one in found))
        for name, found in phases.items()
    )
    caption = (
        "Where a trial of about a minute (ResNet-14, batch 128) spends its time, by `benchkit sweep --profile`, on a "
        "GPU by the trial's own record. Bold: benchkit's own bookkeeping, the history and the events in the ledger's "
        "phase, and beside the trial the processor time of the sweep's process with its live view on a terminal. "
        "Scoring is on all splits, and in a worker's first trial measures the device's matrix rate."
    )
    named = f"{part.device}-own-cost", "Where the time of a trial goes"
    return [table_block(*named, caption, Table(columns=columns, rows=rows))]


def _norms(part: Part) -> list[Block]:
    columns = (
        Column(key="norm", heading="Norm", align="left"),
        Column(key="shape", heading="Maps", align="left"),
        Column(key="precision", heading="Precision", align="left"),
        Column(key="ours", heading="benchkit's", unit="\N{MICRO SIGN}s"),
        Column(key="theirs", heading="PyTorch's", unit="\N{MICRO SIGN}s"),
        Column(key="ratio", heading="Ratio", parts=("low", "high")),
    )
    rows = tuple(
        (
            label(row.norm),
            label("\N{MULTIPLICATION SIGN}".join(map(str, row.shape))),
            label(row.precision),
            number_cell(f"{row.ours:,.0f}", row.ours),
            number_cell(f"{row.theirs:,.0f}", row.theirs),
            _spread(row.ratio, ".2f"),
        )
        for row in part.norms
    )
    caption = (
        f"One forward and backward pass in training on channels-last maps (N, C, H, W), {part.threads} threads: "
        "medians over 15 interleaved rounds, and the ratio within rounds with its least and greatest. PyTorch has no "
        "bin: beside it stands one put together from PyTorch's two layers."
    )
    named = f"{part.device}-norms", "Norms beside the framework's layers"
    return [table_block(*named, caption, Table(columns=columns, rows=rows))] if rows else []


def _growth(part: Part) -> list[Block]:
    if not part.growth:
        return []
    columns = (
        Column(key="quantity", heading="Quantity", align="left"),
        Column(key="unit", heading="Unit", align="left"),
        Column(key="first", heading="At first"),
        Column(key="last", heading="At last"),
        Column(key="ratio", heading="Ratio"),
    )
    rows = tuple(
        (
            label(one.name),
            label(one.unit),
            number_cell(f"{one.first:.1f}", one.first),
            number_cell(f"{one.last:.1f}", one.last),
            number_cell(f"{one.ratio:.2f}", one.ratio),
        )
        for one in part.growth
    )
    caption = (
        f"One sweep of {part.growth[0].trials:,} trials of some milliseconds, one after another. Overhead: the median "
        "time between the ends of two trials, less the training, over the first and the last hundred. Memory: resident "
        "after the first hundred trials and at the end."
    )
    named = f"{part.device}-growth", "What a long sweep grows by"
    return [table_block(*named, caption, Table(columns=columns, rows=rows))]


def _method(parts: Mapping[str, Part]) -> ReportSection:
    blocks: list[Block] = [
        FactsBlock(title="Contenders", facts=tuple(Fact(name=name, value=words) for name, words in CONTENDERS)),
        Paragraph(
            text="Crop and flip are the only augmentation, none for the MLP. Images of 224 pixels are those of 32 with "
            "every pixel repeated. Random images have the real sets' shapes: arithmetic takes as long on noise as on "
            "photographs."
        ),
    ]
    for part in parts.values():
        blocks += [FactsBlock(title=part.name, facts=tuple(_facts(part)))]
        blocks += [Paragraph(text=f"Left out: {line}.") for line in part.skipped]
        blocks.append(CodeBlock(title="The same again", text="\n".join(dict.fromkeys(part.commands.values()))))
    return section("method", "How it was measured", blocks)


def _facts(part: Part) -> Iterator[Fact]:
    yield Fact(name="Date", value=part.dated)
    yield Fact(name="Images", value=part.images)
    if part.peers:
        yield Fact(name="Versions", value=", ".join(part.peers))
    yield Fact(name="Threads", value=str(part.threads))
    if part.allocator:
        yield Fact(name="Allocator of benchkit's workers", value=part.allocator)
    yield Fact(name="Load at the start", value=f"{part.load:.2f} on {part.cores} cores")
