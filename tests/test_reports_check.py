"""`make reports-check`: which reports were made by other templates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchkit.report.files.html import template_folder, templates_digest

SCRIPT = Path(__file__).parent / "peers" / "reports_check.py"
PAGE = '<html><meta name="generator" content="benchkit 0.1.0">\n<meta name="templates" content="{}">'


def test_reports_of_other_templates_are_named(tmp_path: Path) -> None:
    (tmp_path / "now.html").write_text(PAGE.format(templates_digest()))
    (tmp_path / "other.html").write_text(PAGE.format("ab" * 32))
    (tmp_path / "old.html").write_text('<html><meta name="generator" content="benchkit 0.1.0">')
    ran = [subprocess.run([sys.executable, SCRIPT, *options, tmp_path], capture_output=True, text=True, check=False)
           for options in ((), ("--strict",))]  # fmt: skip
    assert [one.returncode for one in ran] == [0, 1]
    first, *named = ran[0].stdout.splitlines()
    assert first == "1 of 3 reports were made by the templates of this tree"
    assert named == [
        "old.html: made by benchkit 0.1.0 with templates of unknown digest",
        "other.html: made by benchkit 0.1.0 with templates abababababab",
    ]


@pytest.mark.parametrize("name", ["screen.css", "report.html.j2", "charts.js"])
def test_an_own_template_makes_another_digest(tmp_path: Path, name: str) -> None:
    shipped = (template_folder() / "report" / name).read_text()
    (tmp_path / name).write_text(shipped)
    assert templates_digest(tmp_path) == templates_digest()
    (tmp_path / name).write_text(f"{shipped}\n")
    assert templates_digest(tmp_path) != templates_digest()
