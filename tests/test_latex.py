"""Tables as LaTeX: escaped, aligned, and set by a real LaTeX where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import HOSTILE, complete

from benchkit.analysis import estimate
from benchkit.report.tables.latex import MOST_ROWS, latex, to_latex
from benchkit.report.tables.table import Cell, Column, Table, estimate_cell, label, number_cell
from benchkit.report.write import write_report

needs_latex = pytest.mark.skipif(
    not (shutil.which("pdflatex") and shutil.which("pdftotext")),
    reason="needs pdflatex with booktabs (texlive-latex-recommended) and pdftotext (poppler-utils)",
)
ACCURACY = Column(key="accuracy", heading="test accuracy", unit="%", parts=("low", "high", "n"))
TABLE = Table(
    columns=(Column(key="condition", heading="Condition", align="left"), ACCURACY),
    rows=(
        (label("bn", "best"), estimate_cell("test.accuracy", estimate([0.7, 0.72, 0.71]), strong=True)),
        (label("50%", "tied"), estimate_cell("test.accuracy", estimate([0.05]))),
        (label("none"), estimate_cell("test.accuracy", None)),
    ),
)
LITERAL = (
    r"\input{/etc/passwd}",
    "50% of $x$ & #1 ^^5c",
    "}}{{ \\end{tabular} \\par",
    "[a] *b* | <c> \\\\",
    "a_b ~ \"q\" `q' ''r'' --set ,,x",
    "café Ærø λ=0.1 → ≤ \N{MULTIPLICATION SIGN}",
)


def pdf_of(body: str, folder: Path, *preamble: str) -> Path:
    """Return the PDF of a document with this body; a LaTeX error fails the test."""
    head = "\n".join([r"\documentclass{article}", r"\usepackage{booktabs,graphicx,longtable}", *preamble])
    (folder / "x.tex").write_text(f"{head}\n\\begin{{document}}\n{body}\n\\end{{document}}\n")
    return compiled(folder / "x.tex")


def compiled(source: Path) -> Path:
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", source.name],
        cwd=source.parent, capture_output=True, text=True, errors="replace", check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    return source.with_suffix(".pdf")


def words_of(pdf: Path, *options: str) -> str:
    return subprocess.run(
        ["pdftotext", *options, str(pdf), "-"], capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & $x_1^2$ \\", r"50\% \& \$x\_1\textasciicircum{}2\$ \textbackslash{}"),
        ("[6] a|b <c> *", r"{[}6{]} a\textbar{}b \textless{}c\textgreater{} {*}"),
        ("\N{MINUS SIGN}1.5 \N{EN DASH}", "$-$1.5 --"),
        ("--x''", "-{}-x'{}'"),
        ("λ", r"$\lambda$"),
        ("é", "é"),
        ("中", r"\ifdefined\Umathchar 中\else {[}U+4E2D{]}\fi{}"),
        ("a\x1b\u202eb", "a{[}U+001B{]}{[}U+202E{]}b"),
        (" a\n\nb\t", "a b"),
    ],
)
def test_text_is_escaped(text: str, expected: str) -> None:
    assert latex(text) == expected


def test_a_table_is_a_booktabs_float() -> None:
    text = to_latex(TABLE, "Accuracy in %", "ranking")
    assert r"\begin{tabular}{@{}lr@{}l@{ }r@{}l@{ }r@{}l@{}}" in text
    assert r"\caption{Accuracy in \%}" in text
    assert r"\label{tab:ranking}" in text
    rows = [line.strip() for line in text.splitlines() if line.endswith(r"\\")]
    assert rows == [
        r"Condition & \multicolumn{6}{c}{test accuracy (\%)} \\",
        r"bn (best) & \textbf{71} & \textbf{.00} & {[}68 & .52, & 73 & .48{]} \\",
        r"50\% (tied) & 5 & .00 &  & & & \\",
        r"none & \multicolumn{2}{r}{--} &  & & & \\",
    ]


def test_numbers_with_letters_and_texts_share_a_column() -> None:
    cells = [number_cell(text, 1.0) for text in ("175.3 k", "12", "< 0.001", "over 1,000")]
    table = Table(columns=(Column(key="x", heading="x"),), rows=tuple((cell,) for cell in cells))
    rows = [line.strip() for line in to_latex(table, "c", "i").splitlines() if line.endswith(r"\\")]
    assert rows[1:] == [
        r"175 & .3 k \\", r"12 &  \\", r"\textless{} 0 & .001 \\", r"\multicolumn{2}{r}{over 1,000} \\",
    ]  # fmt: skip


def test_long_tables_run_over_pages() -> None:
    text = to_latex(TABLE.with_rows([TABLE.rows[0]] * (MOST_ROWS + 1)), "c", "i")
    assert r"\begin{longtable}" in text
    assert r"\begin{table}" not in text


@needs_latex
def test_a_long_table_loses_no_column_where_it_is_wide_too(tmp_path: Path) -> None:
    columns = tuple(Column(key=f"c{place}", heading=f"heading of column {place}") for place in range(9))
    row = (label("a label of more words than a column of plain text can hold"), *[number_cell("12.5", 12.5)] * 8)
    many = Table(columns=(replace(columns[0], align="left"), *columns[1:]), rows=(row,) * (MOST_ROWS + 1))
    body = to_latex(many, "Wide", "wide") + "See Table \\ref{tab:wide}. " + to_latex(TABLE, "Next", "next")
    source = pdf_of(body, tmp_path).with_suffix(".tex")
    compiled(source)
    assert "Overfull" not in source.with_suffix(".log").read_text(errors="replace")
    shown = words_of(tmp_path / "x.pdf")
    assert shown.count("12.5") == 8 * (MOST_ROWS + 1) and shown.count("heading of column 8") == 3
    assert shown.count("Table 1: (continued)") == 2 and "See Table 1" in shown and "Table 2: Next" in shown


@needs_latex
@pytest.mark.parametrize("preamble", ["", r"\usepackage[T1]{fontenc}"])
def test_hostile_text_is_shown_as_it_is(preamble: str, tmp_path: Path) -> None:
    table = Table(
        columns=(Column(key="x", heading=LITERAL[0], align="left"),),
        rows=tuple((label(text, strong=place == 0),) for place, text in enumerate(LITERAL)),
    )
    long = table.with_rows([*table.rows, *[(label("中 \u202e \x1b"),)] * MOST_ROWS])
    body = "\\listoftables\n" + to_latex(table, " ".join(LITERAL), "a{b") + to_latex(long, "中 [x] %", "long")
    compiled(pdf_of(body, tmp_path, preamble).with_suffix(".tex"))  # again, now with the list of tables
    shown = words_of(tmp_path / "x.pdf")
    assert "List of Tables" in shown and shown.count("50% of $x$ & #1") == 4
    assert "root:" not in shown
    assert r"\input{/etc/passwd}" in shown
    assert "50% of $x$ & #1" in shown
    assert r"}}{{ \end{tabular} \par" in shown
    assert r"[a] *b* | <c> \\" in shown
    assert "\N{EN DASH}" not in shown  # two hyphens are no dash
    assert "λ=0.1" in shown
    assert preamble == "" or "café" in shown  # the oldest fonts draw an accent beside its letter
    assert "[U+4E2D] [U+202E] [U+001B]" in shown


@needs_latex
def test_decimal_points_stand_in_one_line(tmp_path: Path) -> None:
    texts = (("71.25", True), ("9.5", False), ("1,234.125", False), ("8.75", True))
    rows = tuple((Cell(text=text, value=1.0, strong=strong),) for text, strong in texts)
    pdf = pdf_of(to_latex(Table(columns=(Column(key="x", heading="x"),), rows=rows), "c", "i"), tmp_path)
    words = dict(
        (word, float(left)) for left, word in re.findall(r'xMin="([\d.]+)"[^>]*>([^<]+)</word', words_of(pdf, "-bbox"))
    )
    # Widths from the tables of Computer Modern, in points of 1/72.27 inch at 10 points: digits 5.00 and bold 5.75,
    # a comma 2.78; pdftotext counts 72 points an inch.
    before = {"71.25": 2 * 5.75, "9.5": 5.0, "1,234.125": 4 * 5.0 + 2.78, "8.75": 5.75}
    points = [words[text] + width * 72 / 72.27 for text, width in before.items()]
    assert max(points) - min(points) < 0.15, points


@needs_latex
def test_a_whole_report_is_set(tmp_path: Path) -> None:
    front = '[report]\nauthors = ["A. #1", "李雷"]\nabstract = "One \\\\ two.\\n\\nThree %."\nkeywords = ["a_b"]\n'
    results = complete(tmp_path / "trials", HOSTILE[:2], repeats=2, epochs=2, extra=front)
    write_report(results, tmp_path, "tables")
    shown = words_of(compiled(tmp_path / "synthetic-norms" / "tables" / "tables.tex"))
    assert "A. #1" in shown
    assert "Three %." in shown
    assert "<script>alert(1)</script>" in shown
    assert shown.count("Table ") >= 9
