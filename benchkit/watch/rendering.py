"""The live page as HTML: its frame, its sections one by one, and the files that it links to, all with the report's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from benchkit import __version__
from benchkit.report.context.blocks import FigureBlock, Page, ReportContext, Section, TableBlock
from benchkit.report.files.html import environment, screen_style, template_folder, text_of, vega_bundle, vega_bundle_key

SCRIPTS = ("elements", "embedded", "theme", "contents", "specs", "fit", "tables", "live")
"""The parts of the page's own script in their order; all but the last are the report's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file that pages link to: its name, which changes with its content, its media type, and what makes its text."""

    name: str
    media_type: str
    text: Callable[[], str]


@cache
def templates() -> jinja2.Environment:
    """Return the templates of the live page, over those of the report."""
    return environment(template_folder() / "watch")


@cache
def assets() -> dict[str, Asset]:
    """Return the style sheet and the two scripts, by what the page calls them: style, charts, script."""
    own = template_folder() / "watch"
    style, script = screen_style(own), "\n".join(text_of(f"{name}.js", own) for name in SCRIPTS)
    return {
        "style": _asset("style", "css", style, lambda: style),
        "charts": _asset("charts", "js", vega_bundle_key(), vega_bundle),  # made when a browser asks for it
        "script": _asset("script", "js", script, lambda: script),
    }


def _asset(name: str, suffix: str, made_of: str, text: Callable[[], str]) -> Asset:
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    kind = "css" if suffix == "css" else "javascript"
    return Asset(name=f"{name}-{digest}.{suffix}", media_type=f"text/{kind}; charset=utf-8", text=text)


def rendered_cover(report: ReportContext) -> str:
    """Return the head of the page: title, question, short answer and key facts, as the report begins."""
    page = Page(medium="screen", policy="", style=Markup(), scripts=(), templates="")
    return _render("head.html.j2", report=report, page=page)


def rendered_section(section: Section, study: str) -> str:
    """Return a section; the data behind its tables and figures are the report's alone."""
    blocks = tuple(_slim(block) for block in section.blocks)
    return _render("section.html.j2", section=replace(section, blocks=blocks), study=study)


def _slim(block: Any) -> Any:
    if isinstance(block, TableBlock):
        return replace(block, csv="", cited=())
    return replace(block, data=(), still="", cited=()) if isinstance(block, FigureBlock) else block


def rendered_page(title: str, study: str, parts: dict[str, str], sections: dict[str, str], state: str) -> str:
    """Return the whole page: `parts` by their names, the titles of `sections` by theirs, `state` the version shown."""
    return _render("page.html.j2", title=title, study=study, parts=parts, sections=sections, state=state)


def rendered_list(studies: dict[str, str]) -> str:
    """Return the page that lists the studies of a workspace: their addresses by their names."""
    return _render("list.html.j2", title="Studies", studies=studies)


def rendered_note(title: str, text: str) -> str:
    """Return a page that says one thing, such as why there is none; it links to nothing."""
    return _render("note.html.j2", title=title, text=text)


def _render(name: str, **values: Any) -> str:
    files = {} if name == "note.html.j2" else {key: asset.name for key, asset in assets().items()}
    rendered: str = templates().get_template(name).render(generator=f"benchkit {__version__}", files=files, **values)
    return rendered
