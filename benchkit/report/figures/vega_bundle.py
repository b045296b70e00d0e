"""The JavaScript that draws figures in the HTML report, as one self-contained module."""

from __future__ import annotations

from functools import cache

import vl_convert

VEGA_LITE_VERSION = "6.4"
"""The Vega-Lite version that draws figures everywhere; it is the one that Altair writes specs for."""

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
