"""What the PDF's child process may touch and use: its own files, no network, bounded time and memory."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from synthetic_results import complete

from benchkit.errors import ReportError
from benchkit.report.files.html import font_files
from benchkit.report.files.pdf import Limits, PdfPrinter, render_pdf
from benchkit.report.write import write_report

WATCHED = """
import json, os, sys
import weasyprint  # which asks the system where its libraries are; from then on everything is watched
seen = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(path, int):  # a number is a file that is open already
            seen.append([event, os.fsdecode(path), bool(flags & (os.O_WRONLY | os.O_RDWR))])
    elif event.partition(".")[0] in ("socket", "subprocess", "urllib", "ftplib", "http") or event == "os.system":
        seen.append([event, repr(arguments), False])
sys.addaudithook(watch)
from benchkit.report.files.pdf_worker import main
out = os.dup(1)
code = main(6144)
os.write(out, ("\\n" + json.dumps(seen)).encode())
sys.exit(code)
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{}</svg>'


def page(body: str) -> str:
    return f'<!DOCTYPE html><html lang="en"><head><title>t</title></head><body>{body}</body></html>'


def test_the_child_opens_its_job_and_python_and_nothing_else(tmp_path: Path) -> None:
    """Of what Python does; the font library in C reads the system's font configuration beside."""
    resources = {}
    for place, (address, content) in enumerate({**font_files(), "fig:a.svg": SVG.format("").encode()}.items()):
        path = tmp_path / f"{place}{Path(address).suffix}"
        path.write_bytes(content)
        resources[address] = str(path)
    style = "<style>@font-face { font-family: Inter; src: url(fig:Inter-Regular.ttf) } body { font-family: Inter }"
    (tmp_path / "in.html").write_text(page(f'{style}</style><h1>Words</h1><img src="fig:a.svg" alt="a">'))
    job = {"html": str(tmp_path / "in.html"), "pdf": str(tmp_path / "out.pdf"), "resources": resources}
    (tmp_path / "job.json").write_text(json.dumps({**job, "attachments": [], "dated": 0.0}))
    command = [sys.executable, "-c", WATCHED]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    given = json.dumps(str(tmp_path / "job.json"))
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True, env=environment)
    told, seen = (json.loads(line) for line in done.stdout.strip().splitlines())
    assert told == {"refused": [], "errors": [], "missing": "", "undescribed": []}
    assert (tmp_path / "out.pdf").read_bytes().startswith(b"%PDF")
    assert any(path == job["html"] for _, path, _ in seen)  # the hook sees what is opened
    own = Path(__file__).parents[1]
    python = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), str(own / "benchkit"), str(own / "plugins")}
    for event, path, writes in seen:
        assert event == "open", (event, path)
        inside = Path(path).is_relative_to(tmp_path)
        known = any(Path(path).is_relative_to(folder) for folder in python) or path.startswith(("/dev/", "/proc/"))
        assert inside or (known and not writes) or path == os.devnull or "/__pycache__/" in path, path


@pytest.mark.parametrize(
    "body",
    [
        "<img src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>\">",
        '<embed src="http://127.0.0.1:9/x">',
        '<img src="FIG:../../etc/passwd" alt="x">',
        '<img src="fig:../../../etc/passwd" alt="x">',
        '<img src="//127.0.0.1:9/x.png" alt="x">',
        '<div style="list-style: url(ftp://127.0.0.1/x)"><li>x</li></div>',
    ],
)
def test_addresses_outside_the_report_are_refused(body: str) -> None:
    with pytest.raises(ReportError, match="lack something") as caught:
        render_pdf(page(body), {})
    assert caught.value.problems


@pytest.mark.parametrize(
    "bomb",
    [
        f"<table>{'<tr><td>1</td></tr>' * 1_000_000}</table>",
        "<div>" * 20_000,
        f'<div style="width: 1e9px; height: 1e9px; columns: 1000000">{"x " * 200_000}</div>',
    ],
    ids=["a table of a million rows", "deep nesting", "huge columns"],
)
def test_a_page_that_asks_for_too_much_is_one_error(bomb: str) -> None:
    with pytest.raises(ReportError) as caught:
        render_pdf(page(bomb), {}, limits=Limits(seconds=1.5, memory_mib=1500))
    assert "Traceback" not in str(caught.value)
    assert "the HTML report has everything too" in caught.value.hint


def test_a_child_that_is_ended_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    style = "<style>@font-face { font-family: Inter; src: url(fig:Inter-Regular.ttf) } body { font-family: Inter }"
    with pytest.raises(ReportError, match=r"longer than 1\.5 s"):
        render_pdf(page(f"{style}</style>{'<p>x</p>' * 300_000}"), font_files(), limits=Limits(seconds=1.5))
    assert list(tmp_path.iterdir()) == []


def test_a_huge_picture_is_one_error() -> None:
    svg = SVG.format('<path d="' + "M0,0L1,1" * 3_000_000 + '"/>')
    with pytest.raises(ReportError) as caught:
        render_pdf(page('<img src="fig:a.svg" alt="x">'), {"fig:a.svg": svg.encode()}, limits=Limits(seconds=1.5))
    assert "Traceback" not in str(caught.value)


def test_a_pdf_that_fails_leaves_the_html_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = complete(tmp_path / "trials", ("bn",), repeats=1, epochs=2)
    whole = write_report(results, tmp_path / "whole", "html")
    monkeypatch.setattr("benchkit.report.write.render_print", lambda report, own=None: page("<p>x</p>" * 1_000_000))
    monkeypatch.setattr("benchkit.report.write.PdfPrinter", functools.partial(PdfPrinter, Limits(seconds=1.5)))
    written = write_report(results, tmp_path / "out")
    assert written.error is not None
    assert "longer than 1.5 s" in written.error.what
    (html,) = [path for path in written.paths if path.suffix == ".html"]
    stills = r"<noscript>.*?</noscript>|<!-- sha256 .*"  # pictures for pages without script are drawn for print
    pages = [(tmp_path / folder / html.name).read_text() for folder in ("out", "whole")]
    assert re.sub(stills, "", pages[0], flags=re.S) == re.sub(stills, "", pages[1], flags=re.S)
    assert len(whole.paths) == len(written.paths) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["synthetic-norms", "synthetic-norms.html"]
