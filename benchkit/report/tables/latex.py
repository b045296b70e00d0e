"""Text as LaTeX: every character that LaTeX gives a meaning is escaped, and none stops a run of any engine."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from benchkit.analysis.wording import MINUS, NONE
from benchkit.report.tables.table import Cell, Column, Table

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "`": r"\textasciigrave{}",
    '"': r"{\ttfamily\char34}", MINUS: "$-$", NONE: "--", "\N{EM DASH}": "---",
    "\N{LEFT SINGLE QUOTATION MARK}": "`", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``", "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$", "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{NOT EQUAL TO}": r"$\neq$", "\N{ALMOST EQUAL TO}": r"$\approx$", "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{LEFTWARDS ARROW}": r"$\leftarrow$", "\N{INFINITY}": r"$\infty$", "\N{SQUARE ROOT}": r"$\surd$",
    "\N{BULLET}": r"\textbullet{}", "\N{HORIZONTAL ELLIPSIS}": r"\dots{}", "\N{EURO SIGN}": r"\texteuro{}",
    "\N{TRADE MARK SIGN}": r"\texttrademark{}", "\N{NO-BREAK SPACE}": "~", "\N{MICRO SIGN}": r"$\mu$",
}  # fmt: skip

_LIGATURES = frozenset({"--", ",,", "''", "?`", "!`"})
"""Pairs that fonts draw as one other character; an empty group keeps them apart."""

_TYPED_BY_ALL = frozenset(range(0xA1, 0x180)) - {
    0xAB, 0xAD, 0xBB, 0xD0, 0xDE, 0xF0, 0xFE, 0x104, 0x105, 0x110, 0x111, 0x118, 0x119, 0x126, 0x127, 0x12E, 0x12F,
    0x138, 0x13F, 0x140, 0x149, 0x14A, 0x14B, 0x166, 0x167, 0x172, 0x173, 0x17F,
}  # fmt: skip
"""The characters beyond ASCII that pdfLaTeX sets in its oldest font encoding too, found by trying them."""

_SMALL_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi mathrm{o} pi rho varsigma sigma tau "
    "upsilon phi chi psi omega"
)
_CAPITAL_GREEK = (
    "mathrm{A} mathrm{B} Gamma Delta mathrm{E} mathrm{Z} mathrm{H} Theta mathrm{I} mathrm{K} Lambda mathrm{M} "
    "mathrm{N} Xi mathrm{O} Pi mathrm{P} Sigma mathrm{T} Upsilon Phi mathrm{X} Psi Omega"
)
_GREEK = dict(zip("αβγδεζηθικλμνξοπρςστυφχψω", _SMALL_GREEK.split(), strict=True)) | dict(
    zip("ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ", _CAPITAL_GREEK.split(), strict=True)
)


def latex(text: str) -> str:
    """Return text on one line with every character escaped that LaTeX gives a meaning.

    pdfLaTeX stops at characters that its fonts lack: it gets their code, such as [U+4E2D], and XeLaTeX and LuaLaTeX,
    which take any font, the character itself. Control characters are shown as their code everywhere.
    """
    parts: list[str] = []
    before = ""
    for letter in " ".join(text.split()):
        parts.append("{}" if before + letter in _LIGATURES else "")
        parts.append(_escaped(letter))
        before = letter
    return "".join(parts)


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if (letter.isascii() and letter.isprintable()) or ord(letter) in _TYPED_BY_ALL:
        return letter
    code = f"{{[}}U+{ord(letter):04X}{{]}}"
    if unicodedata.category(letter)[0] == "C":
        return code
    if letter in _GREEK:
        return rf"$\{_GREEK[letter]}$"
    return rf"\ifdefined\Umathchar {letter}\else {code}\fi{{}}"


PACKAGES = ("booktabs", "graphicx", "longtable")
"""What the exported tables need of LaTeX: the first always, the others where a comment at the table's head says so."""

LONG_TEXT = 44
"""Text columns with a longer cell than this are set as paragraphs."""

MOST_ROWS = 40
"""A table of more rows runs over pages (longtable)."""

SCALED_ROWS = 20
"""One that is too wide for that, too, becomes several of so many rows, each scaled to the line."""

_LINE = 70
"""About so many characters fit on a line at the normal size of a one-column article."""

_SIZES = ((1.0, ""), (1.12, "\\small"), (1.25, "\\footnotesize"), (1.43, "\\scriptsize"))
_AMOUNT = rf"(?:< )?[{MINUS}+-]?[\d,]+(?:\.\d+)?(?:e-?\d+)?(?: [kMGT])?"
_NUMBER = re.compile(_AMOUNT)
_INTERVAL = re.compile(rf"\[({_AMOUNT}), ({_AMOUNT})\](.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How one column is set: numbers parted at the point, intervals in four columns of their own, or one paragraph."""

    column: Column
    parted: bool
    interval: bool
    paragraph: bool

    @property
    def letters(self) -> str:
        """Return the column's part of the tabular's argument."""
        if self.paragraph:
            return r"p{0.3\linewidth}"
        main = ("r@{}l" if self.parted else "r") if self.column.align == "right" else "l"
        return f"{main}@{{ }}r@{{}}l@{{ }}r@{{}}l" if self.interval else main

    @property
    def width(self) -> int:
        """Return over how many columns of the tabular the column spreads."""
        return 1 + self.parted + 4 * self.interval


def to_latex(table: Table, caption: str, identifier: str) -> str:
    """Return the table as a LaTeX float, every cell escaped, with caption and label `tab:IDENTIFIER`.

    Wide tables are set smaller, the widest scaled to the line (graphicx), and those of more than `MOST_ROWS` rows run
    over pages (longtable; where they are that wide, in several floats). The first line names the packages.
    """
    layouts = [_layout(column, [row[index] for row in table.rows]) for index, column in enumerate(table.columns)]
    heads = " & ".join(_head(layout) for layout in layouts)
    rows = [" & ".join(_cell(layout, cell) for layout, cell in zip(layouts, row, strict=True)) for row in table.rows]
    letters = f"@{{}}{''.join(layout.letters for layout in layouts)}@{{}}"
    size = _characters(table) / _LINE
    command = next((name for limit, name in _SIZES if size <= limit), "\\scriptsize")
    captions = f"\\caption{{{latex(caption)}}}", f"\\label{{tab:{re.sub(r'[^A-Za-z0-9-]+', '-', identifier)}}}"
    scaled = size > _SIZES[-1][0]
    if len(rows) <= MOST_ROWS:
        return _float(captions, letters, heads, rows, command, scaled=scaled)
    if not scaled:
        return _long(captions, letters, heads, rows, command)
    # No longtable can be scaled, and one that is too wide would lose its last columns beyond the page.
    first, *others = (rows[at : at + SCALED_ROWS] for at in range(0, len(rows), SCALED_ROWS))
    again = "\\addtocounter{table}{-1}\\caption{(continued)}", ""
    floats = [_float(captions, letters, heads, first, command, scaled=True)]
    return "\n".join([*floats, *(_float(again, letters, heads, part, command, scaled=True) for part in others)])


def _float(captions: tuple[str, str], letters: str, heads: str, rows: Sequence[str], size: str, *, scaled: bool) -> str:
    body = [f"\\begin{{tabular}}{{{letters}}}", "  \\toprule", f"  {heads} \\\\", "  \\midrule"]
    body += [*(f"  {row} \\\\" for row in rows), "  \\bottomrule", "\\end{tabular}"]
    if scaled:
        body = ["\\resizebox{\\linewidth}{!}{%", *body[:-1], f"{body[-1]}}}"]
    inner = ["\\centering", *filter(None, captions), *([size] if size else []), *body]
    needed = "booktabs,graphicx" if scaled else "booktabs"
    lines = [f"% \\usepackage{{{needed}}}", "\\begin{table}", *(f"  {line}" for line in inner), "\\end{table}"]
    return "\n".join(lines) + "\n"


def _long(captions: tuple[str, str], letters: str, heads: str, rows: Sequence[str], size: str) -> str:
    lines = [
        "% \\usepackage{booktabs,longtable}", f"{{{size}", f"\\begin{{longtable}}{{{letters}}}",
        f"  {''.join(captions)}\\\\", "  \\toprule", f"  {heads} \\\\", "  \\midrule", "  \\endfirsthead",
        "  \\toprule", f"  {heads} \\\\", "  \\midrule", "  \\endhead", "  \\bottomrule", "  \\endfoot",
        *(f"  {row} \\\\" for row in rows), "\\end{longtable}}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _layout(column: Column, cells: Sequence[Cell]) -> _Layout:
    right = column.align == "right"
    return _Layout(
        column=column,
        parted=right and any("." in cell.text and _NUMBER.fullmatch(cell.text) for cell in cells),
        interval=right and any(_INTERVAL.fullmatch(cell.detail) for cell in cells),
        paragraph=not right and any(len(f"{cell.text} {cell.detail}") > LONG_TEXT for cell in cells),
    )


def _head(layout: _Layout) -> str:
    column = layout.column
    text = latex(f"{column.heading} ({column.unit})" if column.unit else column.heading)
    return f"\\multicolumn{{{layout.width}}}{{c}}{{{text}}}" if layout.width > 1 else text


def _cell(layout: _Layout, cell: Cell) -> str:
    mark = f" ({latex(cell.mark)})" if cell.mark else ""
    if not layout.interval:
        return _main(layout, cell, mark + (f" {latex(cell.detail)}" if cell.detail else ""))
    interval = _INTERVAL.fullmatch(cell.detail)
    if interval is None:
        rest = f"\\multicolumn{{4}}{{l}}{{{latex(cell.detail)}}}" if cell.detail else " & & &"
        return f"{_main(layout, cell, mark)} & {rest}"
    low, high = _parted(interval[1]), _parted(interval[2])
    return (
        f"{_main(layout, cell, mark)} & {{[}}{low[0]} & {low[1]}, & {high[0]} & {high[1]}{{]}}{latex_tail(interval[3])}"
    )


def latex_tail(text: str) -> str:
    """Return what follows an interval in its cell, escaped, with the blank that parts them."""
    return f"{' ' if text.startswith(' ') else ''}{latex(text)}" if text else ""


def _main(layout: _Layout, cell: Cell, after: str) -> str:
    """Return the cell's own text, in the one or two columns that its numbers have."""
    if layout.paragraph:
        return f"{{\\raggedright {_bold(latex(cell.text), cell.strong)}{after}\\par}}"
    if not layout.parted:
        return _bold(latex(cell.text), cell.strong) + after
    if _NUMBER.fullmatch(cell.text):
        whole, rest = _parted(cell.text)
        return f"{_bold(whole, cell.strong)} & {_bold(rest, cell.strong)}{after}"
    return f"\\multicolumn{{2}}{{r}}{{{_bold(latex(cell.text), cell.strong)}{after}}}"


def _parted(amount: str) -> tuple[str, str]:
    """Return a number's digits before its point, and the point with all that follows."""
    point = min((at for at in (amount.find("."), amount.rfind(" ")) if at > 0 and amount[at - 1] != "<"), default=-1)
    whole, rest = (amount, "") if point < 0 else (amount[:point], amount[point:])
    return latex(whole), latex(rest.strip()) if rest[:1] == "." else f"~{latex(rest)}" if rest else ""


def _bold(text: str, strong: bool) -> str:
    return rf"\textbf{{{text}}}" if strong and text else text


def _characters(table: Table) -> int:
    """Return about how many characters wide the table is, its longest cells side by side."""
    wide = 0
    for index, column in enumerate(table.columns):
        texts = [f"{row[index].text} {row[index].detail} {row[index].mark}".rstrip() for row in table.rows]
        longest = max(map(len, (f"{column.heading} {column.unit}", *texts)))
        wide += 2 + (min(longest, LONG_TEXT) if column.align == "left" else longest)
    return wide
