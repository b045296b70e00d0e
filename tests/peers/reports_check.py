"""Which committed reports were made by other templates than those of this tree: `make reports-check`.

A page tells the digest of its templates, a PDF has it in its capsule. A PDF without one is as old as its page.
Exit code 1 with `--strict` where a report was made by other templates.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from benchkit.capsule import read_capsule
from benchkit.errors import BenchkitError
from benchkit.report.files.html import templates_digest
from benchkit.verify.opening import open_report

META = re.compile(r'<meta name="(generator|templates)" content="([^"]*)">')
REPORTS = Path(__file__).parents[2] / "reports"


def made_otherwise(report: Path) -> str:
    """Return in words by what the report was made, if not by the templates of this tree, else nothing."""
    if report.suffix == ".html":
        told = dict(META.findall(report.read_text(encoding="utf-8")[:20_000]))
        generator, digest = told.get("generator", "something else"), told.get("templates", "")
    else:
        try:
            made = read_capsule(open_report(report).capsule).head
        except BenchkitError:
            return made_otherwise(report.with_suffix(".html"))
        generator, digest = made.generator, made.shown.templates
    if digest == templates_digest():
        return ""
    return f"made by {generator} with {f'templates {digest[:12]}' if digest else 'templates of unknown digest'}"


def main() -> int:
    """Print a line for each report that was made otherwise, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a report was made otherwise")
    parser.add_argument("folder", type=Path, nargs="?", default=REPORTS, help="the folder of reports")
    options = parser.parse_args()
    found = sorted(path for path in options.folder.iterdir() if path.suffix in (".html", ".pdf"))
    told = {path.name: words for path in found if (words := made_otherwise(path))}
    print(f"{len(found) - len(told)} of {len(found)} reports were made by the templates of this tree")
    for name, words in told.items():
        print(f"{name}: {words}")
    return int(bool(told) and options.strict)


if __name__ == "__main__":
    sys.exit(main())
