"""The report as one HTML file that needs no network, and as the HTML that is printed."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from benchkit.report.context.blocks import Page, ReportContext
from benchkit.report.figures.vega_bundle import vega_bundle
from benchkit.report.files.templates import embedded, environment, render, template_folder, text_of

__all__ = [
    "FONTS",
    "Page",
    "embedded",
    "environment",
    "font_files",
    "render_html",
    "render_print",
    "template_folder",
]

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


SCRIPTS = (
    "elements", "embedded", "csv", "theme", "contents", "study", "address", "chooser", "swatches", "specs", "charts",
    "exports", "tables", "tableviews", "downloads", "behind", "history", "panel", "start",
)  # fmt: skip
"""The parts of the page's own script in their order: one module, each part uses what stands before it."""


def render_html(report: ReportContext, own: Path | None = None) -> str:
    """Return the report as one HTML file: styles, fonts, scripts, figures and data inside, nothing fetched.

    Its content security policy lets only the two scripts run whose hashes it names. Files of the folder `own` take the
    place of the shipped templates; `ReportError` says which of them failed, and where.
    """
    scripts = (_script(vega_bundle()), _script("\n".join(text_of(f"{name}.js", own) for name in SCRIPTS)))
    page = Page(medium="screen", policy=_policy(scripts), style=Markup(_screen_style(own)), scripts=scripts)
    return render("report.html.j2", own, report=report, page=page)


def render_print(report: ReportContext, own: Path | None = None) -> str:
    """Return the report as the HTML that the PDF is made from; pictures and fonts are `fig:` addresses."""
    page = Page(medium="print", policy="", style=Markup(_print_style(own)), scripts=())
    return render("report.html.j2", own, report=report, page=page)


def font_files() -> dict[str, bytes]:
    """Return the fonts of the PDF by the address that its style sheet names."""
    folder = template_folder() / "fonts"
    return {f"fig:{stem}.ttf": (folder / f"{stem}.ttf").read_bytes() for _, _, _, stem in FONTS}


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


def _screen_style(own: Path | None) -> str:
    folder = template_folder() / "fonts"
    faces = []
    for family, weight, style, stem in SCREEN_FONTS:
        data = base64.b64encode((folder / f"{stem}.woff2").read_bytes()).decode()
        faces.append(_face(family, weight, style, f"data:font/woff2;base64,{data}"))
    return "\n".join([*faces, text_of("screen.css", own), text_of("interactive.css", own), text_of("own.css", own)])


def _print_style(own: Path | None) -> str:
    faces = [_face(family, weight, style, f"fig:{stem}.ttf") for family, weight, style, stem in FONTS]
    return "\n".join([*faces, text_of("print.css", own), text_of("own.css", own)])


def _face(family: str, weight: int, style: str, source: str) -> str:
    weights = "600 700" if weight == 600 and source.startswith("data:") else str(weight)
    return (
        f'@font-face {{ font-family: "{family}"; font-weight: {weights}; font-style: {style}; src: url("{source}"); '
        "font-display: swap; }"
    )
