"""What the templates see: a tree of frozen values in which every number is text already. No field goes undocumented.

Last of each kind come what makes sections and tables that are yet to be numbered, and what numbers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from markupsafe import Markup

from benchkit.report.tables.table import Table, to_csv

MOST_DATA = 4_000_000
"""A longer CSV table behind a figure is not embedded in the page; it is among the files beside the report."""


CONDITION_COLUMNS = frozenset({"condition", "first", "second"})
"""The columns whose cells name a condition by its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """How one table or figure follows what the reader chooses.

    `views` is JSON: by `split.metric`, what to show instead. Without views, `fixed` says in words what is shown
    whatever is chosen, or is empty where the caption has to say it.
    """

    places: Mapping[str, int] = field(
        default_factory=dict,
        metadata={"help": "the place of every condition by its label"},
    )
    fixed: str = field(default="", metadata={"help": "what is shown whatever metric and split are chosen, in words"})
    views: str = field(default="", metadata={"help": "JSON of what other metrics and splits show, or nothing"})

    def place(self, column: str, value: object) -> int | None:
        """Return the place of the condition that a cell names, None for cells that name none."""
        return self.places.get(value) if column in CONDITION_COLUMNS and isinstance(value, str) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceEntry:
    """One entry of a list to choose from."""

    value: str = field(metadata={"help": "what the address of the view and the page's script call it"})
    label: str = field(metadata={"help": "the words shown"})
    chosen: bool = field(metadata={"help": "whether the report shows it first"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The chooser of one study: its lists, and the data of its trials."""

    metrics: tuple[ChoiceEntry, ...] = field(metadata={"help": "the metrics to choose from"})
    splits: tuple[ChoiceEntry, ...] = field(metadata={"help": "the splits to choose from"})
    conditions: tuple[ChoiceEntry, ...] = field(metadata={"help": "the conditions in report order"})
    data: str = field(metadata={"help": "JSON: main metric, looks of the conditions, configuration of charts"})
    trials: str = field(metadata={"help": "JSON: every condition's settings and trials, for the panel"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and its value, for the key facts and for lists of settings."""

    name: str = field(metadata={"help": "what is stated"})
    value: str = field(metadata={"help": "the statement"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """A warning over the whole report, such as that its numbers come from a smoke run."""

    title: str = field(metadata={"help": "one or two words"})
    text: str = field(metadata={"help": "one or two sentences"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """A paragraph of text."""

    kind: Literal["paragraph"] = field(metadata={"help": "which partial draws the block"}, default="paragraph")
    text: str = field(metadata={"help": "plain text"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A way to another place of the report."""

    text: str = field(metadata={"help": "what is linked to, such as Figure 2"})
    target: str = field(metadata={"help": "the anchor, without #"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkdownBlock:
    """The author's own text."""

    kind: Literal["markdown"] = field(metadata={"help": "which partial draws the block"}, default="markdown")
    text: str = field(metadata={"help": "Markdown, to be drawn by the filter `prose`"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingBlock:
    """A finding: the sentence, and what it rests on."""

    kind: Literal["finding"] = field(metadata={"help": "which partial draws the block"}, default="finding")
    tone: str = field(metadata={"help": "answer, note or warning"})
    tone_word: str = field(metadata={"help": "the tone as a word that is shown"})
    sentence: str = field(metadata={"help": "the finding"})
    evidence: str = field(metadata={"help": "the numbers behind it"})
    rule: str = field(metadata={"help": "the rule that made it"}, default="")
    links: tuple[Link, ...] = field(metadata={"help": "the figure or table that shows it"}, default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class TableBlock:
    """A numbered table with its caption."""

    kind: Literal["table"] = field(metadata={"help": "which partial draws the block"}, default="table")
    number: int = field(metadata={"help": "counted through the report from 1"})
    name: str = field(metadata={"help": "the identifier: anchor, file name, LaTeX label"})
    title: str = field(metadata={"help": "a few words, for the list of tables"})
    caption: str = field(metadata={"help": "what is shown, over how many repeats, what the brackets are"})
    table: Table = field(metadata={"help": "columns and cells"})
    csv: str = field(metadata={"help": "the same table as CSV at full precision"})
    omitted: str = field(metadata={"help": "which rows only the CSV has, or nothing"}, default="")
    cited: tuple[Link, ...] = field(metadata={"help": "the references that the caption rests on"}, default=())
    folded: bool = field(metadata={"help": "whether print leaves it to the CSV, and the page folds it"}, default=False)
    follow: Follow = field(metadata={"help": "how the table follows what a reader chooses"}, default=Follow())


MOST_ROWS = 500
"""A page shows at most this many rows of a table; more would make the PDF slow, and CSV has them all."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRow:
    """A row of an image grid: its caption and its pictures as data or resource addresses."""

    caption: str = field(metadata={"help": "what the row's pictures share"})
    sources: tuple[str, ...] = field(metadata={"help": "the address of each picture"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureBlock:
    """A numbered figure: a chart or a grid of images, its caption, its alternative text and the data behind it."""

    kind: Literal["figure"] = field(metadata={"help": "which partial draws the block"}, default="figure")
    number: int = field(metadata={"help": "counted through the report from 1"})
    name: str = field(metadata={"help": "the identifier: anchor and file name"})
    plugin: str = field(metadata={"help": "the figure plugin that made it"})
    title: str = field(metadata={"help": "a few words, for the list of figures"})
    caption: str = field(metadata={"help": "what is shown, over how many repeats, what bands or bars are"})
    alt_text: str = field(metadata={"help": "one sentence that states the result"})
    spec: str = field(metadata={"help": "the Vega-Lite spec as JSON, empty for an image grid"})
    print_source: str = field(metadata={"help": "the address of the picture for print, empty on screen"})
    columns: tuple[str, ...] = field(metadata={"help": "headings of an image grid"})
    pictures: tuple[PictureRow, ...] = field(metadata={"help": "rows of an image grid, none for a chart"})
    data: tuple[tuple[str, str], ...] = field(metadata={"help": "the data behind the figure: name and CSV"})
    shows: str = field(metadata={"help": "the metric or split that is drawn, in words, or nothing"}, default="")
    follow: Follow = field(metadata={"help": "how the figure follows what a reader chooses"}, default=Follow())
    cited: tuple[Link, ...] = field(metadata={"help": "the references that the caption rests on"}, default=())
    still: str = field(metadata={"help": "the chart as a data address, for pages without script"}, default="")

    @property
    def page_data(self) -> tuple[tuple[str, str], ...]:
        """Return the data that the page embeds: all but tables of more than `MOST_DATA` characters."""
        return tuple((name, csv) for name, csv in self.data if len(csv) <= MOST_DATA)

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the names of the tables that the page embeds."""
        return tuple(name for name, _ in self.page_data)

    @property
    def left_out(self) -> str:
        """Return the names of the tables that are too long for the page, or nothing."""
        return ", ".join(name for name, csv in self.data if len(csv) > MOST_DATA)


def picture_address(name: str, suffix: str = ".svg") -> str:
    """Return the address of a figure's picture in a report that is being made."""
    return f"fig:{name}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsentBlock:
    """A figure that is not there, and why."""

    kind: Literal["absent"] = field(metadata={"help": "which partial draws the block"}, default="absent")
    title: str = field(metadata={"help": "the figure's title"})
    reason: str = field(metadata={"help": "what is missing"})
    broken: bool = field(metadata={"help": "whether the plugin failed, rather than having nothing to draw"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBlock:
    """Text to be copied: a command or a file."""

    kind: Literal["code"] = field(metadata={"help": "which partial draws the block"}, default="code")
    title: str = field(metadata={"help": "what it is"})
    text: str = field(metadata={"help": "the text, line by line"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadBlock:
    """A file that is inside the report: a link to it on screen, an attachment of the PDF.

    Its digest is shown where someone may want to check it.
    """

    kind: Literal["download"] = field(metadata={"help": "which partial draws the block"}, default="download")
    title: str = field(metadata={"help": "what it is"})
    text: str = field(metadata={"help": "what it holds and is good for"})
    file: str = field(metadata={"help": "the file's name"})
    media_type: str = field(metadata={"help": "its media type, for example application/zip"})
    content: str = field(metadata={"help": "its bytes in base64"})
    size: str = field(metadata={"help": "its size in words"})
    digest: str = field(metadata={"help": "the sha256 of its bytes in hex, or nothing"}, default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsBlock:
    """A list of names and values."""

    kind: Literal["facts"] = field(metadata={"help": "which partial draws the block"}, default="facts")
    title: str = field(metadata={"help": "what is listed"})
    facts: tuple[Fact, ...] = field(metadata={"help": "the entries"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """An entry of the glossary or of the references."""

    name: str = field(metadata={"help": "the term, or the reference's number in brackets"})
    text: str = field(metadata={"help": "the explanation, or the citation"})
    url: str = field(metadata={"help": "an http or https address, or nothing"}, default="")
    origin: str = field(metadata={"help": "the plugin and its distribution, or nothing"}, default="")
    links: tuple[Link, ...] = field(metadata={"help": "the references of the explanation"}, default=())
    anchor: str = field(metadata={"help": "the identifier of a reference, or nothing"}, default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsBlock:
    """A glossary or a list of references."""

    kind: Literal["terms"] = field(metadata={"help": "which partial draws the block"}, default="terms")
    title: str = field(metadata={"help": "what is listed"})
    terms: tuple[Term, ...] = field(metadata={"help": "the entries"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadingBlock:
    """A heading within a section."""

    kind: Literal["heading"] = field(metadata={"help": "which partial draws the block"}, default="heading")
    text: str = field(metadata={"help": "the heading"})


Block = (
    Paragraph
    | MarkdownBlock
    | HeadingBlock
    | FindingBlock
    | TableBlock
    | FigureBlock
    | AbsentBlock
    | CodeBlock
    | DownloadBlock
    | FactsBlock
    | TermsBlock
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A numbered section of the report."""

    number: int = field(metadata={"help": "counted from 1"})
    name: str = field(metadata={"help": "the identifier: anchor"})
    title: str = field(metadata={"help": "the heading"})
    blocks: tuple[Block, ...] = field(metadata={"help": "what it holds, from top to bottom"})


def section(name: str, title: str, blocks: Sequence[Block]) -> Section:
    """Return a section that is yet to be numbered."""
    return Section(number=0, name=name, title=title, blocks=tuple(blocks))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Logo:
    """The picture on the first page."""

    source: str = field(metadata={"help": "the picture as a data address"})
    print_source: str = field(metadata={"help": "the same for print, where a drawing with gradients is pixels"})
    alt_text: str = field(metadata={"help": "what it is, for those who do not see it"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One study's whole report within a common one: its names are unique there, its numbers count on."""

    number: int = field(metadata={"help": "counted from 1"})
    name: str = field(metadata={"help": "the identifier: anchor"})
    report: ReportContext = field(metadata={"help": "the study's report"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """Everything that a report says, in the order in which it says it."""

    title: str = field(metadata={"help": "the study's title"})
    question: str = field(metadata={"help": "the study's question"})
    description: str = field(metadata={"help": "the study's description, or nothing beside an abstract"})
    authors: str = field(metadata={"help": "the authors as a phrase, or nothing"})
    study_name: str = field(metadata={"help": "the study's name"})
    language: str = field(metadata={"help": "the language of the text, as in HTML's lang"}, default="en")
    generator: str = field(metadata={"help": "name and version of what made the report"})
    dated: str = field(metadata={"help": "when the last trial finished, or nothing"})
    banners: tuple[Banner, ...] = field(metadata={"help": "warnings over the whole report"})
    answer: tuple[str, ...] = field(metadata={"help": "the short answer, sentence by sentence"})
    basis: str = field(metadata={"help": "the statistics that the answer rests on, or nothing"}, default="")
    facts: tuple[Fact, ...] = field(metadata={"help": "the key facts beside the answer"})
    sections: tuple[Section, ...] = field(metadata={"help": "the sections"})
    abstract: tuple[str, ...] = field(metadata={"help": "the paragraphs of the abstract"}, default=())
    keywords: str = field(metadata={"help": "the keywords, parted by commas, or nothing"}, default="")
    logo: Logo | None = field(metadata={"help": "the picture on the first page, or none"}, default=None)
    chapters: tuple[Chapter, ...] = field(metadata={"help": "the studies of a common report, each whole"}, default=())
    record: str = field(metadata={"help": "what a later report compares itself with, as JSON"}, default="")
    choices: Choices | None = field(metadata={"help": "what a reader can choose, HTML only"}, default=None)

    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks of all sections, those of chapters after the report's own."""
        own = [block for section in self.sections for block in section.blocks]
        return (*own, *(block for chapter in self.chapters for block in chapter.report.blocks()))

    @property
    def figures(self) -> tuple[FigureBlock, ...]:
        """Return the figures in their order."""
        return tuple(block for block in self.blocks() if isinstance(block, FigureBlock))

    @property
    def tables(self) -> tuple[TableBlock, ...]:
        """Return the tables in their order."""
        return tuple(block for block in self.blocks() if isinstance(block, TableBlock))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What surrounds the report's content in one medium."""

    medium: Literal["screen", "print"] = field(metadata={"help": "screen for HTML, print for the PDF's source"})
    policy: str = field(metadata={"help": "the content security policy, empty for print"})
    style: Markup = field(metadata={"help": "the style sheet, benchkit's own text"})
    scripts: tuple[Markup, ...] = field(metadata={"help": "the scripts, benchkit's own text; none for print"})
    templates: str = field(metadata={"help": "the sha256 of the templates, by which stale reports are found"})
