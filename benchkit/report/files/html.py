"""The report as one HTML file that needs no network, and as the HTML that is printed."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

import vl_convert
from markupsafe import Markup

from benchkit.report.context.blocks import Page, ReportContext
from benchkit.report.figures.drawing import VEGA_LITE_VERSION
from benchkit.report.files.templates import render, template_folder, text_of

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


_SNIPPET = """
const single = (spec) => "mark" in spec || "layer" in spec;
globalThis.drawFigure = async (element, spec, options = {}) => {
  const wide = single(spec) && typeof spec.width === "number";
  const fitted = wide ? { ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" } } : spec;
  const dark = globalThis.matchMedia?.("(prefers-color-scheme: dark)").matches;
  const result = await vegaEmbed(element, fitted, {
    mode: "vega-lite",
    renderer: "svg",
    ast: true,
    actions: { export: true, source: false, compiled: false, editor: false },
    tooltip: { theme: dark ? "dark" : "light" },
    ...options,
  });
  if (!wide) {
    const svg = element.querySelector("svg.marks");
    if (svg) Object.assign(svg.style, { maxWidth: "100%", height: "auto" });
  }
  return result;
};
"""

_BSD = """\
Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met: 1. Redistributions of source code must retain the above copyright notice, this
list of conditions and the following disclaimer. 2. Redistributions in binary form must reproduce the above
copyright notice, this list of conditions and the following disclaimer in the documentation and/or other
materials provided with the distribution. 3. Neither the name of the copyright holder nor the names of its
contributors may be used to endorse or promote products derived from this software without specific prior
written permission. THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS
OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR
A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY
DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO,
PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR
OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH
DAMAGE."""

_ISC = """\
Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby
granted, provided that the above copyright notice and this permission notice appear in all copies. THE SOFTWARE
IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED
WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS,
WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE
USE OR PERFORMANCE OF THIS SOFTWARE."""

BUNDLE_LICENCE = f"""Vega, Vega-Lite, Vega-Embed, Vega-Tooltip, Vega-Themes and the Vega interpreter (BSD-3-Clause):
Copyright (c) 2015, University of Washington Interactive Data Lab. Copyright (c) 2013, Trifacta Inc.
All rights reserved.
{_BSD}

D3 modules (ISC): Copyright 2010-2023 Mike Bostock.
{_ISC}

Small dependencies of these under permissive licences (ISC, MIT, Unlicense): delaunator, topojson-client, semver,
fast-json-patch, json-stringify-pretty-compact, lodash.debounce, robust-predicates."""
"""Whose work the bundle holds, and under which licences; it stands at the head of the bundle."""


@cache
def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as the text of one `<script type="module">` (about 0.9 MB).

    It defines `drawFigure(element, spec, options) -> Promise`, which draws a spec of `chart_spec` into an element as
    SVG: as wide as the element where the figure is a single view, at most that wide where it is composed. Expressions
    are interpreted, never compiled, so that a content security policy without `unsafe-eval` suffices.
    """
    code: str = vl_convert.javascript_bundle(_SNIPPET, vl_version=VEGA_LITE_VERSION)
    return f"/*!\n{BUNDLE_LICENCE}\n*/\n{code}"
