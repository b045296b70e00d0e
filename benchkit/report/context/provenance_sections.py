"""The sections of a report that say where it comes from: its trials, how to reproduce it, its glossary."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest

from benchkit.analysis.candidates import repeats_words, without_options
from benchkit.analysis.estimates import value_of
from benchkit.analysis.summary import recorded_data, recorded_environment, recorded_plugins
from benchkit.analysis.training import device_names, several_nodes, where_trained
from benchkit.analysis.trials import STATES, Coverage, FailedTrial
from benchkit.analysis.wording import bare, count, duration, metric_unit, metric_words, setting
from benchkit.errors import BenchkitError
from benchkit.plan import typed_settings
from benchkit.registry.entries import BUILT_IN
from benchkit.registry.kit_record import UNCHECKED
from benchkit.report.context.blocks import (
    Block,
    CodeBlock,
    DownloadBlock,
    Fact,
    FactsBlock,
    Paragraph,
    Section,
    TableBlock,
    TermsBlock,
)
from benchkit.report.context.glossary import Literature, UsedPlugin, bibtex, glossary_terms, reference_terms
from benchkit.report.context.sections import SectionInputs, section, table_block
from benchkit.report.tables.result_tables import in_state
from benchkit.report.tables.table import Column, Table, TableOf, label
from benchkit.results import SPLITS, StudyResults, Trial
from benchkit.storage import encode, to_toml

PLACED = ("-w", "--workspace", "--plugin", "--allow-shadow")
"""The options of a sweep without which its report would not be found, or would lack what plugins say."""


def coverage_section(inputs: SectionInputs) -> Section:
    """Return what was planned and what came of it, failures with their reason, test reads, and every trial."""
    evidence = inputs.summary.numbers
    reads = evidence.reads
    blocks: list[Block] = [
        table_block(
            "coverage",
            "Planned trials and what came of them",
            "Every planned trial by its state. Pruned, diverged and failed trials are results too; stale ones "
            "lost their "
            "worker. A repeat that was tried again counts once.",
            coverage_table(evidence.coverage),
            folded=all(row.complete for row in evidence.coverage),
        ),
        Paragraph(text=_reads(reads.reads, reads.trials, reads.repeated)),
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
    blocks += [Paragraph(text=line) for line in evidence.left_out]
    if inputs.results.trials:
        blocks.append(_every_trial(inputs.results))
    return section("coverage", "Trials", blocks)


def _every_trial(results: StudyResults) -> TableBlock:
    return table_block(
        "trials",
        "Every trial",
        "Every trial of the study in the order in which they were started. Scores are those of the weights that were "
        "chosen on validation images.",
        trials_table(results.trials, results.study.report.metric),
        folded=True,
    )


def _reads(reads: int, trials: int, repeated: int) -> str:
    if not trials:
        return "The test images have not been read: no trial is done."
    words = f"The test images were read {count(reads, 'time')}, by {count(trials, 'done trial')}"
    if repeated:
        return f"{words}; {count(repeated, 'trial')} read them more than once."
    return f"{words}; none read them more than once, and nothing was chosen by them."


def coverage_table(rows: Sequence[Coverage]) -> Table:
    """Return planned trials and what became of them, states that never occur left out."""
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    table.text("stage", "Stage", lambda row: row.stage)
    table.number("planned", "Planned", lambda row: row.planned)
    for state in STATES:
        if state == "done" or any(row.states.get(state) for row in rows):
            table.number(state, state.capitalize(), in_state(state))
    table.number("missing", "Not started", lambda row: row.missing)
    table.text("complete", "Complete", lambda row: "yes" if row.complete else "no")
    return table.made()


def troubles_table(rows: Sequence[FailedTrial]) -> Table:
    """Return the trials that diverged, failed or lost their worker, with the reason."""
    table = TableOf(rows)
    table.text("condition", "Condition", lambda row: row.label)
    table.text("stage", "Stage", lambda row: row.stage)
    table.number("repeat", "Repeat or slot", lambda row: row.index)
    table.number("attempt", "Attempt", lambda row: row.attempt)
    state = Column(key="state", heading="State", align="left")
    table.add(state, lambda row: label(row.state, "retried" if row.retried else ""))
    table.number("epochs", "Epochs", lambda row: row.epochs)
    table.number("seconds", "Training time", lambda row: row.seconds if row.epochs else None, duration)
    table.text("reason", "Reason", lambda row: row.reason or "its worker is gone")
    return table.made()


def numbered_trials(trials: Iterable[Trial]) -> list[tuple[int, Trial]]:
    """Return trials in the order in which they were started, with the number from 1 that a report gives each."""
    return list(enumerate(sorted(trials, key=lambda trial: (trial.started or math.inf, trial.number)), 1))


def trials_table(trials: Sequence[Trial], metric: str) -> Table:
    """Return every trial of the study, in the order in which they were started."""
    table = TableOf(numbered_trials(trials))
    table.number("order", "No.", lambda item: item[0])
    table.text("condition", "Condition", lambda item: item[1].condition.label)
    table.text("stage", "Stage", lambda item: item[1].phase)
    table.number("repeat", "Repeat or slot", lambda item: item[1].index)
    table.text("state", "State", lambda item: item[1].state)
    table.number("epochs", "Epochs", lambda item: len(item[1].history))
    loss, score = partial(bare, "val.loss"), partial(bare, metric)
    table.number("val_loss", "val loss", lambda item: value_of(item[1], "val.loss"), loss, unit="nats")
    name = metric.replace(".", "_")
    table.number(name, metric_words(metric), lambda i: value_of(i[1], metric), score, unit=metric_unit(metric))
    table.number("seconds", "Training time", lambda item: sum(record.seconds for record in item[1].history), duration)
    nodes = several_nodes(trials)
    if nodes or len({device for trial in trials for device in device_names(trial)}) > 1:
        table.text("where", "Trained on", lambda item: where_trained(item[1], nodes=nodes))
    if any(trial.params for trial in trials):
        table.text("params", "Chosen settings", lambda item: _params(item[1]))
    return table.made()


def _params(trial: Trial) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} = {setting(value)}" for path, value in trial.params.items())


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


def resolved(results: StudyResults) -> str:
    """Return the study's base settings with every default, as TOML."""
    try:
        return to_toml(encode(typed_settings(results.study.settings, results.study.seed)))
    except BenchkitError as error:
        return f"# the base settings stand only together with a factor's levels: {error.what}\n"


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
