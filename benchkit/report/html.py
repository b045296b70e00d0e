"""The report as one HTML file that needs no network, and as the HTML that is printed."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import jinja2
from markupsafe import Markup

from benchkit.report.bundle import vega_bundle
from benchkit.report.column_widths import table_layout
from benchkit.report.context import ReportContext

FONTS = (
    ("Inter", 400, "normal", "Inter-Regular"),
    ("Inter", 600, "normal", "Inter-SemiBold"),
    ("Inter", 700, "normal", "Inter-SemiBold"),
    ("Inter", 400, "italic", "Inter-Italic"),
    ("JetBrains Mono", 400, "normal", "JetBrainsMono-Regular"),
)
"""The shipped fonts: family, weight, style, file stem."""

SCREEN_FONTS = tuple(font for font in FONTS if font[1] != 700 and font[2] == "normal")
"""The fonts that HTML embeds: browsers make bold of semibold, and only figures' titles could be italic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What surrounds the report's content in one medium."""

    medium: Literal["screen", "print"] = field(metadata={"help": "screen for HTML, print for the PDF's source"})
    policy: str = field(metadata={"help": "the content security policy, empty for print"})
    style: Markup = field(metadata={"help": "the style sheet, benchkit's own text"})
    scripts: tuple[Markup, ...] = field(metadata={"help": "the scripts, benchkit's own text; none for print"})


def template_folder() -> Path:
    """Return the folder of the shipped templates, style sheets and fonts."""
    return Path(str(files("benchkit_templates")))


@cache
def environment() -> jinja2.Environment:
    """Return the templates: every value is escaped, and a name that the context lacks is an error."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_folder() / "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    found.filters["embedded"] = embedded
    found.filters["printed"] = table_layout
    return found


def render_html(report: ReportContext) -> str:
    """Return the report as one HTML file: styles, fonts, scripts, figures and data inside, nothing fetched.

    Its content security policy lets only the two scripts run whose hashes it names.
    """
    scripts = (_script(vega_bundle()), _script(_text("report.js")))
    page = Page(medium="screen", policy=_policy(scripts), style=Markup(_screen_style()), scripts=scripts)
    return environment().get_template("report.html.j2").render(report=report, page=page)


def render_print(report: ReportContext) -> str:
    """Return the report as the HTML that the PDF is made from; pictures and fonts are `fig:` addresses."""
    page = Page(medium="print", policy="", style=Markup(_print_style()), scripts=())
    return environment().get_template("report.html.j2").render(report=report, page=page)


def font_files() -> dict[str, bytes]:
    """Return the fonts of the PDF by the address that its style sheet names."""
    folder = template_folder() / "fonts"
    return {f"fig:{stem}.ttf": (folder / f"{stem}.ttf").read_bytes() for _, _, _, stem in FONTS}


def embedded(json_text: str) -> Markup:
    """Return JSON that can stand inside a script element: no character of it can end the element."""
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return Markup("".join(escapes.get(letter, letter) for letter in json_text))


def _script(code: str) -> Markup:
    """Return a script's text; a closing tag within it would end the element early."""
    assert "</script" not in code.lower() and "<!--" not in code, "a script must not hold its own end"
    return Markup(code)


def _policy(scripts: tuple[Markup, ...]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _text(name: str) -> str:
    return (template_folder() / "report" / name).read_text(encoding="utf-8")


def _screen_style() -> str:
    folder = template_folder() / "fonts"
    faces = []
    for family, weight, style, stem in SCREEN_FONTS:
        data = base64.b64encode((folder / f"{stem}.woff2").read_bytes()).decode()
        faces.append(_face(family, weight, style, f"data:font/woff2;base64,{data}"))
    return "\n".join([*faces, _text("screen.css")])


def _print_style() -> str:
    faces = [_face(family, weight, style, f"fig:{stem}.ttf") for family, weight, style, stem in FONTS]
    return "\n".join([*faces, _text("print.css")])


def _face(family: str, weight: int, style: str, source: str) -> str:
    weights = "600 700" if weight == 600 and source.startswith("data:") else str(weight)
    return (
        f'@font-face {{ font-family: "{family}"; font-weight: {weights}; font-style: {style}; src: url("{source}"); '
        "font-display: swap; }"
    )
