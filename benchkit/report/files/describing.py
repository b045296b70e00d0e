"""What templates see, as a page: made from the dataclasses of the context, so that it cannot drift from them."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from typing import get_args, get_type_hints

from benchkit.report.context.blocks import ReportContext
from benchkit.report.files.html import Page
from benchkit.report.files.templates import template_names

INTRODUCTION = """\
# Templates of the report

`benchkit templates describe` prints this page. It is made from the code; do not edit it by hand.

`benchkit report STUDY --templates DIR` takes files from DIR in place of the shipped ones of the same name, for HTML and
PDF alike; what DIR lacks stays as it is. Any other name in DIR is an error. `benchkit templates copy NAME DIR` copies a
file to start from. The files are Jinja2 templates, style sheets and the parts of the script:

{names}

- `own.css` is empty: it is added after the other style sheets, which is all that colours, fonts and sizes need.
- `shipped/NAME` always is the shipped template. `{{% extends "shipped/report.html.j2" %}}` with the blocks `head`,
  `cover` and `sections` changes a part of the page; `{{% import "shipped/blocks.html.j2" as shipped %}}` keeps the
  macros that an own `blocks.html.j2` does not change (it needs `draw(block, medium)` and `lists(report)`).
- Every value is escaped, a name that does not exist is an error with file and line, and own templates run in Jinja's
  sandbox. `value | packed` makes JSON fit for a script element, deflated where it is long. Data are never
  read as templates.
- PDF: WeasyPrint prints the page of the medium `print`. It fetches nothing but the report's own pictures and fonts.

Templates see two names, `report` (a ReportContext) and `page` (a Page). Their fields, and all that lies below them:
"""


def describe_context() -> str:
    """Return the page, in Markdown: every class that templates meet, every field with its type and meaning."""
    names = "\n".join(f"- `{name}`" for name in template_names())
    return INTRODUCTION.format(names=names) + "".join(_class(found) for found in context_classes())


def context_classes() -> tuple[type, ...]:
    """Return the dataclasses that templates can reach from `report` and `page`, outermost first."""
    found: dict[type, None] = {}
    waiting: list[object] = [ReportContext, Page]
    while waiting:
        hint = waiting.pop(0)
        waiting += get_args(hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint not in found:
            found[hint] = None
            waiting += get_type_hints(hint, vars(sys.modules[hint.__module__])).values()
    return tuple(found)


def _class(found: type) -> str:
    rows = [f"| `{name}` | `{kind}` | {text} |\n" for name, kind, text in _fields(found)]
    summary = (inspect.getdoc(found) or "").partition("\n")[0]
    return f"\n## {found.__name__}\n\n{summary}\n\n| field | type | meaning |\n|---|---|---|\n{''.join(rows)}"


def _fields(found: type) -> Iterator[tuple[str, str, str]]:
    for field in dataclasses.fields(found):
        yield field.name, str(field.type).replace("|", "or"), str(field.metadata["help"])
    for name, value in vars(found).items():
        if isinstance(value, property):
            text = (inspect.getdoc(value) or "").rstrip(".").removeprefix("Return ")
            yield name, str(value.fget.__annotations__["return"]).replace("|", "or"), text
