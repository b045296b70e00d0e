"""The script that draws charts in pages: Vega, Vega-Lite and Vega-Embed as one text, with their licences."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version

import vl_convert

from benchkit.report.figures.chart_worker import ChartCache
from benchkit.report.figures.drawing import VEGA_LITE_VERSION

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
