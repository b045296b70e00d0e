"""The folder beside a report: tables, figures and data as files with stable names, the results as JSON, an index."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from benchkit.analysis.changes import Changes, change_findings
from benchkit.analysis.summary import Summary
from benchkit.capsule.making import CAPSULE
from benchkit.errors import BenchkitError
from benchkit.plan import typed_settings
from benchkit.report.context.blocks import (
    DownloadBlock,
    FigureBlock,
    ReportContext,
    Section,
    TableBlock,
    picture_address,
)
from benchkit.report.tables.latex import PACKAGES, latex, to_latex
from benchkit.report.tables.table import markdown, to_markdown
from benchkit.results import StudyResults
from benchkit.storage import encode, to_toml

if TYPE_CHECKING:
    from benchkit.report.figures.figure_set import FigureSet

Files = dict[str, bytes]
"""Content by path, relative to the report's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyBuild:
    """One study on its way into a report: results, summary, figures, content, and what has changed, if asked.

    For JSON alone it has no figures.
    """

    results: StudyResults
    summary: Summary
    figure_set: FigureSet | None
    report: ReportContext
    changes: Changes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportBuild:
    """What will be written: the content, files beside it by relative path, figures' pictures by `fig:` address.

    `dated` is when the last trial finished, in seconds since 1970.
    """

    stem: str
    report: ReportContext
    files: Files
    pictures: Mapping[str, bytes]
    dated: float


OURS = re.compile(r"(tables|figures)/\d{2,}-[A-Za-z0-9.-]+\.(csv|md|tex|svg|pdf|png)")
"""The numbered files of a report: those of an earlier one are removed when they are made anew."""


def export_files(
    report: ReportContext,
    sources: Files,
    content: Mapping[str, Any],
    exports: Collection[str],
    pictures: Mapping[str, bytes],
) -> Files:
    """Return the files asked for by their path in the report's folder.

    `exports` are any of `tables` (CSV, Markdown, LaTeX, data), `figures` (as files) and `json`; `capsule` tells that a
    capsule, which holds the digests of all these, will stand beside them. `sources` are the study files, which are
    always there, `content` is what the report says, for JSON, and `pictures` are the figures' files by their address.
    """
    files = dict(sources)
    sealed = (CAPSULE,) if "capsule" in exports else ()
    if "tables" in exports:
        files |= {name: encoded(text) for name, text in table_files(report).items()}
    if "figures" in exports:
        files |= {
            f"{stem_of(figure)}{suffix}": pictures[address]
            for figure in report.figures
            for suffix in (".svg", ".pdf", ".png")
            if (address := picture_address(figure.name, suffix)) in pictures
        }
    if "json" in exports:
        files["results.schema.json"] = (resources.files("benchkit_templates") / "results.schema.json").read_bytes()
        files["results.json"] = encoded(to_json({**content, "files": [*files, *sealed]}))
    digests = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    files["index.md"] = encoded(f"{index(report, (*files, *sealed))}\n<!-- sha256\n{digests}-->\n")
    return files


def study_files(part: StudyBuild) -> Files:
    """Return the files that a study's report offers: the study as written, its settings, and its references."""
    offered = {b.file: base64.b64decode(b.content) for b in part.report.blocks() if isinstance(b, DownloadBlock)}
    source, settings = (text.encode() for text in (part.results.study.source, resolved(part.results)))
    return {"study.toml": source, "settings.toml": settings, **offered}


def resolved(results: StudyResults) -> str:
    """Return the study's base settings with every default, as TOML."""
    try:
        return to_toml(encode(typed_settings(results.study.settings, results.study.seed)))
    except BenchkitError as error:
        return f"# the base settings stand only together with a factor's levels: {error.what}\n"


def encoded(text: str) -> bytes:
    r"""Return a text as UTF-8; what of a file's name was no text, a lone surrogate, is written as its code, \udc80."""
    return text.encode(errors="backslashreplace")


def table_files(report: ReportContext) -> dict[str, str]:
    """Return every table as CSV, Markdown and LaTeX, a LaTeX document that shows them all, and figures' data as CSV."""
    files: dict[str, str] = {}
    for block in report.tables:
        caption = f"{block.caption} {block.omitted}".strip()
        files[f"{stem_of(block)}.csv"] = block.csv
        head = f"{_quoted(report)}**Table {block.number}.** {markdown(caption)}\n\n"
        files[f"{stem_of(block)}.md"] = head + to_markdown(block.table)
        files[f"{stem_of(block)}.tex"] = _comment(report, block.number) + to_latex(block.table, caption, block.name)
    if report.tables:
        files["tables/tables.tex"] = latex_document(report)
    for figure in report.figures:
        for name, csv in figure.data:
            files[f"{stem_of(figure)}-{file_stem(name)}.csv"] = csv
    return files


def stem_of(block: TableBlock | FigureBlock) -> str:
    """Return the path of a table's or a figure's files without suffix: `tables/01-ranking`."""
    return f"{block.kind}s/{block.number:02d}-{block_stem(block.name)}"


def block_stem(name: str) -> str:
    """Return a table's or figure's name as a file's stem; the two hyphens after a chapter's name stay."""
    return "--".join(file_stem(part) for part in name.split("--"))


def file_stem(name: str) -> str:
    """Return a name as a file's stem: letters, digits, dots and hyphens, never empty and never a path."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "report"


def latex_document(report: ReportContext) -> str:
    """Return a LaTeX document with title, authors, abstract and every table, for any of its engines."""
    lines = [
        r"\documentclass{article}", r"\usepackage[margin=20mm]{geometry}",
        r"\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}",
        *(rf"\usepackage{{{name}}}" for name in PACKAGES),
        rf"\title{{{latex(report.title)}}}", rf"\author{{{latex(report.authors)}}}",
        rf"\date{{{latex(report.dated)}}}", r"\begin{document}", r"\maketitle",
    ]  # fmt: skip
    lines += [rf"\noindent\textbf{{{latex(b.title)}.}} {latex(b.text)}" + "\n" for b in report.banners]
    if report.abstract:
        lines += [r"\begin{abstract}", "\n\n".join(map(latex, report.abstract)), r"\end{abstract}"]
    if report.keywords:
        lines.append(rf"\noindent\textbf{{Keywords:}} {latex(report.keywords)}" + "\n")
    for block in report.tables:
        lines += [rf"\input{{{stem_of(block).removeprefix('tables/')}.tex}}", r"\clearpage"]
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def _comment(report: ReportContext, number: int) -> str:
    warnings = "".join(f" {b.title}: {b.text}" for b in report.banners)
    return f"% Table {number} of {' '.join(report.title.split())}, made by {report.generator}.{warnings}\n"


def _quoted(report: ReportContext) -> str:
    return "".join(f"> **{markdown(b.title)}.** {markdown(b.text)}\n\n" for b in report.banners)


def index(report: ReportContext, names: tuple[str, ...]) -> str:
    """Return the folder's table of contents as Markdown: front matter, then each table and figure with its files."""
    parts = [f"# {markdown(report.title)}\n"]
    byline = ", ".join(part for part in (report.authors, report.dated) if part)
    parts += [f"{markdown(byline)}\n"] if byline else []
    parts += [_quoted(report).rstrip("\n") + "\n"] if report.banners else []
    parts += [f"{markdown(paragraph)}\n" for paragraph in report.abstract]
    parts += [f"Keywords: {markdown(report.keywords)}\n"] if report.keywords else []
    parts.append(f"Made by {markdown(report.generator)} from the study `{file_stem(report.study_name)}`.\n")
    plain = [name for name in names if "/" not in name]
    parts.append("".join(f"- [{name}]({name}){_meaning(name)}\n" for name in plain))
    parts += _listed("Tables", report.tables, names, lambda block: block.caption)
    parts += _listed("Figures", report.figures, names, lambda block: block.alt_text)
    return "\n".join(parts)


def _listed(
    title: str,
    blocks: tuple[TableBlock, ...] | tuple[FigureBlock, ...],
    names: tuple[str, ...],
    words: Callable[..., str],
) -> Iterator[str]:
    lines = []
    for block in blocks:
        links = ", ".join(f"[{name.removeprefix(stem_of(block)).strip('-.')}]({name})" for name in _own(block, names))
        lines.append(
            f"{block.number}. {markdown(block.title)}{f' ({links})' if links else ''}: {markdown(words(block))}\n"
        )
    if lines:
        yield f"## {title}\n"
        yield "".join(lines)


def _own(block: TableBlock | FigureBlock, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if re.match(rf"{re.escape(stem_of(block))}[.-]", name)]


def _meaning(name: str) -> str:
    words = {
        "study.toml": ": the study file",
        "settings.toml": ": all settings of every condition, defaults included",
        "references.bib": ": the references as BibTeX",
        "results.json": ": every number at full precision, described by results.schema.json",
        "results.schema.json": ": the layout of results.json",
        CAPSULE: ": what `benchkit verify` checks the report against",
    }
    return words.get(name, "")


SCHEMA = 1
"""The version of the JSON's layout; it grows when a key changes its meaning or goes."""


def to_json(content: Mapping[str, Any]) -> str:
    """Return content as JSON; numbers that JSON lacks (NaN, infinities) become null.

    `templates/results.schema.json` documents the layout.
    """
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def study_content(part: StudyBuild) -> dict[str, Any]:
    """Return what a study's report says, for JSON: `record` is what a later report compares itself with."""
    report, summary, results, changes = part.report, part.summary, part.results, part.changes
    study = results.study
    content = {
        "schema": SCHEMA,
        "generator": report.generator,
        "study": {
            "name": study.name,
            "title": study.title,
            "question": study.question,
            "seed": study.seed,
            "repeats": study.repeats,
            "most": study.most,
            "authors": list(study.report.authors),
            "abstract": list(report.abstract),
            "keywords": list(study.report.keywords),
            "text": dict(study.report.text),
            "overrides": list(study.overrides),
            "smoke": study.smoke,
            "source": study.source,
        },
        "command": results.command,
        "decisions": encode(results.decisions),
        "data": encode(results.data),
        "banners": encode(report.banners),
        "answer": list(report.answer),
        "basis": report.basis,
        "findings": encode(summary.findings),
        "numbers": encode(summary.numbers),
        **blocks_content(report.sections),
        "conditions": [
            {"key": c.key, "label": c.label, "kind": c.kind, "levels": dict(c.levels), "chosen": encode(c.chosen)}
            for c in results.conditions
        ],
        "record": json.loads(report.record),
    }
    return content | ({"changes": {**encode(changes), "findings": encode(change_findings(changes))}} if changes else {})


def blocks_content(sections: Sequence[Section]) -> dict[str, Any]:
    """Return the tables and figures of sections, for JSON."""
    blocks = [block for section in sections for block in section.blocks]
    return {
        "tables": [_table(block) for block in blocks if isinstance(block, TableBlock)],
        "figures": [_figure(block) for block in blocks if isinstance(block, FigureBlock)],
    }


def _table(block: TableBlock) -> dict[str, Any]:
    keys = [column.key for column in block.table.columns]
    return {
        "number": block.number,
        "name": block.name,
        "caption": block.caption,
        "folded": block.folded,
        "columns": encode(block.table.columns),
        "rows": [
            {
                key: {"text": cell.text, "detail": cell.detail, "value": cell.value, "mark": cell.mark}
                | ({"reason": cell.reason} if cell.reason else {})
                for key, cell in zip(keys, row, strict=True)
            }
            for row in block.table.rows
        ],
        "csv": block.csv,
    }


def _figure(block: FigureBlock) -> dict[str, Any]:
    return {
        "number": block.number,
        "name": block.name,
        "plugin": block.plugin,
        "caption": block.caption,
        "alt_text": block.alt_text,
        "data": dict(block.data),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
