"""The benchmark's report: one table a workload, as JSON, as a page, and as PDF where WeasyPrint finds its libraries."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from comparison import Comparison

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>benchkit beside its peers</title><style>
@page { size: A4; margin: 18mm }
body { font: 10.5pt/1.45 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #1b1b1b }
@media print { body { margin: 0; padding: 0 } }
table { border-collapse: collapse; margin: .4em 0 1.6em; width: 100%; break-inside: avoid }
th, td { padding: .25em .6em; text-align: right; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #555 } h2 { font-size: 1.1em }
</style></head><body>
<h1>benchkit beside its peers</h1>
<p>{{ machine.device }}, {{ machine.cores }} cores; PyTorch {{ machine.torch }}, Python {{ machine.python }};
{{ setting.threads }} threads, {{ setting.rounds }} rounds of {{ setting.epochs }} epochs in a process each, contenders
taking turns{{ ". A trial run: its numbers say nothing" if setting.quick }}. Speed is that of an epoch once warm: the
median over rounds, and the least and greatest. Ratios are to the script within each round. Random images; every
contender trains the same model with the same batch size.</p>
{% for one in comparisons %}<h2>{{ one.title }}</h2>
<table><thead><tr><th>contender</th><th>n</th><th>images/s</th><th>least to greatest</th><th>against the script</th>
<th>least to greatest</th><th>first step (s)</th><th>trainings an hour</th></tr></thead><tbody>
{% for row in one.rows %}<tr><td>{{ row.contender }}</td><td>{{ row.n }}</td><td>{{ "{:,.0f}".format(row.rate) }}</td>
<td>{{ "{:,.0f} to {:,.0f}".format(row.low, row.high) }}</td>
<td>{{ "x{:.2f}".format(row.ratio) if row.ratio is not none }}</td>
<td>{{ "{:.2f} to {:.2f}".format(row.ratio_low, row.ratio_high) if row.ratio is not none }}</td>
<td>{{ "{:.1f}".format(row.first_step) }}</td><td>{{ "{:,.0f}".format(row.trials_per_hour) }}</td></tr>
{% endfor %}</tbody></table>{% endfor %}
{% for line in skipped %}<p>Left out: {{ line }}</p>{% endfor %}
<p>The table of norms, layer by layer: <code>python tests/peers/bench_norms.py</code>; what long sweeps cost:
<code>python tests/peers/bench_growth.py</code>.</p></body></html>
"""


def write(folder: Path, comparisons: Sequence[Comparison], told: Mapping[str, Any]) -> list[Path]:
    """Write benchmarks.json, .html and .pdf into a folder; return those that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"benchmarks.{ending}" for ending in ("json", "html", "pdf")]
    plain = {**told, "comparisons": [asdict(one) for one in comparisons]}
    names[0].write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    page = template.render(comparisons=comparisons, **told)
    names[1].write_text(page, encoding="utf-8")
    return names if _print(page, names[2]) else names[:2]


def _print(page: str, path: Path) -> bool:
    try:
        import weasyprint
    except OSError as error:
        sys.stderr.write(f"no PDF: {error}\n")
        return False
    weasyprint.HTML(string=page).write_pdf(path)
    return True
