"""The report as one HTML file that needs no network, with the script that draws its charts, and as what is printed."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jinja2
import vl_convert
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from benchkit.errors import ReportError, nearest
from benchkit.report.context.blocks import Page, ReportContext
from benchkit.report.figures.chart_worker import ChartCache
from benchkit.report.figures.drawing import VEGA_LITE_VERSION
from benchkit.report.page_text import packed, printable, rendered, shown
from benchkit.report.tables.table import table_layout

SUFFIXES = (".j2", ".css", ".js")
"""What of the shipped folder is a template, a style sheet or a script."""


def template_folder() -> Path:
    """Return the folder of the shipped templates, style sheets and fonts."""
    return Path(str(files("benchkit_templates")))


def template_names() -> tuple[str, ...]:
    """Return the names of the report's templates, style sheets and scripts: those that an own folder may hold."""
    return tuple(sorted(path.name for path in (template_folder() / "report").iterdir() if path.suffix in SUFFIXES))


def templates_digest(own: Path | None = None) -> str:
    """Return the sha256 of the templates of a report's pages, those of a folder `own` in place of the shipped."""
    return _digest((name, text_of(name, own).encode()) for name in template_names())


@cache
def wording_digest() -> str:
    """Return the sha256 of the code that makes a report's tables and sentences: the rooms analysis and report."""
    rooms = [Path(str(files("benchkit"))) / room for room in ("analysis", "report")]
    sources = sorted(path for room in rooms for path in room.rglob("*.py"))
    return _digest((path.relative_to(rooms[0].parent).as_posix(), path.read_bytes()) for path in sources)


def _digest(parts: Iterable[tuple[str, bytes]]) -> str:
    whole = hashlib.sha256()
    for name, content in parts:
        whole.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest()


@cache
def shipped() -> jinja2.Environment:
    """Return the shipped templates: every value is escaped, and a name that the context lacks is an error."""
    return _prepared(jinja2.Environment(loader=_folder(template_folder() / "report"), **_STRICT))


def environment(own: Path | None = None) -> jinja2.Environment:
    """Return the templates; a file of the folder `own` takes the place of the shipped one of its name.

    `shipped/NAME` always is the shipped one, to extend or import from. Own templates run in Jinja's sandbox: they see
    the report and nothing of Python.
    """
    if own is None:
        return shipped()
    ours = _folder(template_folder() / "report")
    loader = jinja2.ChoiceLoader([_folder(own), ours, jinja2.PrefixLoader({"shipped": ours})])
    return _prepared(ImmutableSandboxedEnvironment(loader=loader, **_STRICT))


_STRICT: dict[str, Any] = {
    "autoescape": True,
    "undefined": jinja2.StrictUndefined,
    "keep_trailing_newline": True,
    "finalize": lambda value: printable(value) if type(value) is str else value,
}


def _prepared(jinja: jinja2.Environment) -> jinja2.Environment:
    jinja.filters["embedded"] = embedded
    jinja.filters["printed"] = table_layout
    jinja.filters["shown"] = shown
    jinja.filters["prose"] = rendered
    jinja.filters["packed"] = lambda value: embedded(packed(value))
    return jinja


def _folder(path: Path) -> jinja2.FileSystemLoader:
    return jinja2.FileSystemLoader(path)


def embedded(json_text: str) -> Markup:
    """Return JSON that can stand inside a script element: no character of it can end the element."""
    return Markup(json_text.translate(_ESCAPES))


_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def text_of(name: str, own: Path | None = None) -> str:
    """Return a style sheet or script by its name, the own one if there is one."""
    if own is not None and (own / name).is_file():
        return (own / name).read_text(encoding="utf-8")
    return (template_folder() / "report" / name).read_text(encoding="utf-8")


def check_templates(own: Path) -> None:
    """Raise `ReportError` with all that is wrong with a folder of own templates before anything is rendered."""
    if not own.is_dir():
        raise ReportError(f"{own}: there is no such folder of templates")
    problems = [line for path in sorted(own.iterdir()) for line in _problems_of(path, own)]
    if problems:
        raise ReportError(
            f"{own}: these templates cannot be used",
            problems=problems,
            hint=f"known: {', '.join(template_names())}; `benchkit templates copy NAME {own}` copies one to start from",
        )


def _problems_of(path: Path, own: Path) -> Iterator[str]:
    if path.name.startswith("."):
        return
    if path.name not in template_names() or not path.is_file():
        yield f"{path.name}: no file of the report has this name{nearest(path.name, template_names())}"
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield f"{path.name}: cannot be read: {error}"
        return
    if path.suffix == ".j2":
        try:
            environment(own).parse(text, path.name, str(path))
        except jinja2.TemplateSyntaxError as error:
            yield f"{path.name}, line {error.lineno}: {error.message}"
    end = {".css": "</style", ".js": "</script"}.get(path.suffix, "")
    if end and (end in text.lower() or "<!--" in text):
        yield f"{path.name}: holds {end}> or <!--, which would end its element early"


def _rendered(report: ReportContext, page: Page, own: Path | None) -> str:
    """Return the page of a report.

    Raises `ReportError` with file and line when a template of the folder `own` fails; the fault of a shipped one is
    ours and stays an exception.
    """
    try:
        return environment(own).get_template("report.html.j2").render(report=report, page=page)
    except Exception as error:
        where = _place(error, own)
        if where is None:
            raise
        raise ReportError(
            f"{where}: this template failed",
            problems=[f"{type(error).__name__}: {error}"],
            hint="benchkit templates describe lists what templates see",
        ) from error


def _place(error: Exception, own: Path | None) -> str | None:
    """Return file and line of the innermost own template that an exception went through, or None."""
    if own is None:
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == own]
    if isinstance(error, jinja2.TemplateSyntaxError) and error.filename and Path(error.filename).parent == own:
        return f"{error.filename}, line {error.lineno}"
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None


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
  sandbox. `value | shown` is for text that may be long or run from right to left. `value | packed` makes JSON fit
  for a script element, deflated where it is long. Data are never read as templates.
- PDF: WeasyPrint prints the page of the medium `print`. It fetches nothing but the report's own pictures and fonts.

Templates see two names, `report` (a ReportContext) and `page` (a Page). Their fields, and all that lies below them:
"""


def describe_context() -> str:
    """Return the page, in Markdown: every class that templates meet, every field with its type and meaning."""
    names = "\n".join(f"- `{name}`" for name in template_names())
    return INTRODUCTION.format(names=names) + "".join(_class(seen) for seen in context_classes())


def context_classes() -> tuple[type, ...]:
    """Return the dataclasses that templates can reach from `report` and `page`, outermost first."""
    classes: dict[type, None] = {}
    waiting: list[object] = [ReportContext, Page]
    while waiting:
        hint = waiting.pop(0)
        waiting += get_args(hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint not in classes:
            classes[hint] = None
            waiting += get_type_hints(hint, vars(sys.modules[hint.__module__])).values()
    return tuple(classes)


def _class(seen: type) -> str:
    rows = [f"| `{name}` | `{kind}` | {text} |\n" for name, kind, text in _fields(seen)]
    summary = (inspect.getdoc(seen) or "").partition("\n")[0]
    return f"\n## {seen.__name__}\n\n{summary}\n\n| field | type | meaning |\n|---|---|---|\n{''.join(rows)}"


def _fields(seen: type) -> Iterator[tuple[str, str, str]]:
    for field in dataclasses.fields(seen):
        yield field.name, str(field.type).replace("|", "or"), str(field.metadata["help"])
    for name, value in vars(seen).items():
        if isinstance(value, property):
            text = (inspect.getdoc(value) or "").rstrip(".").removeprefix("Return ")
            yield name, str(value.fget.__annotations__["return"]).replace("|", "or"), text


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
    "elements", "embedded", "csv", "theme", "contents", "study", "address", "chooser", "swatches", "specs", "fit",
    "charts", "exports", "tables", "tableviews", "downloads", "behind", "history", "panel", "start",
)  # fmt: skip
"""The parts of the page's own script in their order: one module, each part uses what stands before it."""


def render_html(report: ReportContext, own: Path | None = None) -> str:
    """Return the report as one HTML file: styles, fonts, scripts, figures and data inside, nothing fetched.

    Its content security policy lets only the two scripts run whose hashes it names. Files of the folder `own` take the
    place of the shipped templates; `ReportError` says which of them failed, and where.
    """
    scripts = (_script(vega_bundle()), _script("\n".join(text_of(f"{name}.js", own) for name in SCRIPTS)))
    page = Page(
        medium="screen",
        policy=_policy(scripts),
        style=Markup(screen_style(own)),
        scripts=scripts,
        templates=templates_digest(own),
    )
    return _rendered(report, page, own)


def render_print(report: ReportContext, own: Path | None = None) -> str:
    """Return the report as the HTML that the PDF is made from; pictures and fonts are `fig:` addresses."""
    page = Page(medium="print", policy="", style=Markup(_print_style(own)), scripts=(), templates=templates_digest(own))
    return _rendered(report, page, own)


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


def screen_style(own: Path | None) -> str:
    """Return the style sheet of pages on screen, with its fonts inside."""
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
  const wide = single(spec) && typeof spec.width === "number" && spec.width !== spec.height;
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
  const svg = element.querySelector("svg.marks");
  if (!svg?.querySelector(".root [class*=role-]")) { // what fails while Vega draws it only logs
    result.finalize();
    throw new Error("nothing came of it, and the browser's console says why");
  }
  if (svg) Object.assign(svg.style, { maxWidth: "100%", height: "auto" });
  for (const group of element.querySelectorAll("[role^=graphics]:not([aria-label])")) // layers without a point to name
    for (const name of ["role", "aria-roledescription"]) group.removeAttribute(name);
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
    SVG: as wide as the element where the figure is a single view and not square, else at most that wide. Expressions
    are interpreted, never compiled, so that a content security policy without `unsafe-eval` suffices. To bundle takes
    two seconds: what came of it stays in the user's cache.
    """
    cache, key = ChartCache.of_user(), f"bundle-{vega_bundle_key()}"
    if (kept := cache.get(key)) is not None:
        return kept.decode()
    code: str = vl_convert.javascript_bundle(_SNIPPET, vl_version=VEGA_LITE_VERSION)
    bundle = f"/*!\n{BUNDLE_LICENCE}\n*/\n{code}"
    cache.put(key, bundle.encode())
    return bundle


def vega_bundle_key() -> str:
    """Return 64 hex digits that change with all that the bundle is made of, which takes no time, as the bundle does."""
    made_of = (_SNIPPET, BUNDLE_LICENCE, VEGA_LITE_VERSION, version("vl-convert-python"))
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()
