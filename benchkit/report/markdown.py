"""The author's own text: Markdown from a study file, as HTML of which nothing can act."""

from __future__ import annotations

import re
from functools import cache

from markdown_it import MarkdownIt
from markupsafe import Markup

from benchkit.report.page_text import printable

TOP = 3
"""The level that the author's highest headings get: those above are the report's own."""


@cache
def _markdown() -> MarkdownIt:
    """Return the reader: CommonMark and tables, without HTML and images, links to web and mail addresses alone."""
    made = MarkdownIt("commonmark", {"html": False}).enable(["table"]).disable(["image", "html_block", "html_inline"])
    made.validateLink = lambda url: bool(re.match(r"(https?://|mailto:|#)", url, re.IGNORECASE))  # type: ignore[method-assign]
    return made


def rendered(source: str) -> Markup:
    """Return Markdown as HTML: headings from level `TOP` on, HTML within it as the letters that it is.

    Images are left as their text, and a link with another scheme than http, https or mailto as it was written: a report
    loads nothing.
    """
    reader = _markdown()
    tokens = reader.parse(printable(source))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + TOP - 1)}"
        for inner in token.children or ():
            if inner.type == "link_open" and str(inner.attrGet("href")).startswith(("http", "mailto")):
                inner.attrSet("rel", "noreferrer")
    return Markup(reader.renderer.render(tokens, reader.options, {}))
