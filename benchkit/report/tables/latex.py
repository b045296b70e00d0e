"""Text as LaTeX: every character that LaTeX gives a meaning is escaped, and none stops a run of any engine."""

from __future__ import annotations

import unicodedata

from benchkit.analysis.wording import MINUS, NONE

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
