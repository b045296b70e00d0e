"""What assistive technology needs: axe-core finds no fault; by hand names, contrast, targets, focus, widths, motion."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from synthetic_results import complete, rescored, with_search

from benchkit.report.files.html import template_folder
from benchkit.report.write import write_report

pytest.importorskip("resource", reason="the browser is driven over pipes of a POSIX system")
from chromium_page import CHROMIUM, Page

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

OPEN = "document.querySelector('#table-ranking button.condition').click()"
UNNAMED = """
[...document.querySelectorAll('button, a[href], select, input, summary, .chooser, [role=region], [role=group]')]
.filter(one => one.getClientRects().length)
.filter(one => !(one.ariaLabel || one.labels?.[0]?.textContent || one.textContent).trim())
.map(one => one.outerHTML.slice(0, 200))"""


FAULTS = """
axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations.map(
  one => [one.id, one.nodes.slice(0, 3).map(node => `${node.html.slice(0, 120)}: ${node.failureSummary}`)]))"""
# Every text of the chart at hand, its colour, and the fill of the uppermost shape below its middle (else the page's).
TEXTS = """
(figure => {
  const page = getComputedStyle(document.body).backgroundColor;
  figure.querySelector('.chart').scrollIntoView({ behavior: 'instant', block: 'center' });
  return [...figure.querySelectorAll('svg.marks text')].filter(one => one.textContent.trim()).map(one => {
    const box = one.getBoundingClientRect();
    const below = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2).find(other => {
      const { fill, fillOpacity, opacity } = getComputedStyle(other);
      return other.tagName === 'path' && fill.startsWith('rgb(') && fillOpacity > 0.5 && opacity > 0.5;
    });
    const own = getComputedStyle(one);
    return [one.textContent, own.fill, below ? getComputedStyle(below).fill : page, Number(own.fillOpacity)];
  });
})(document.querySelectorAll('figure.figure:has(.chart)')[%d])"""
# Controls and links lower or narrower than 24 px; a link that runs over two lines counts by its widest part.
SMALL = """
[...document.querySelectorAll('button, a[href], summary, select, label:has(input), input:not(label *)')]
.filter(one => one.checkVisibility() && !one.closest('.skip'))
.map(one => [one.outerHTML.slice(0, 120), [...one.getClientRects()].sort((a, b) => b.width - a.width)[0]])
.filter(([, box]) => Math.min(box.width, box.height) < 23.9)
.map(([words, box]) => `${words} ${box.width} x ${box.height}`)"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(with_search(folder / "trials"), folder, "html").paths[0]


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[Page]:
    with Page(width=390, height=800) as page:
        page.open(report)
        page.wait_for("document.querySelector('.chooser:not([hidden])') && !document.querySelector('.downloads:empty')")
        for top in range(0, page.run("document.documentElement.scrollHeight"), 600):
            page.run(f"scrollTo({{top: {top}, behavior: 'instant'}})")
            page.draw()
        page.wait_for("!document.querySelector('.chart:not([data-drawn])')")
        page.run(OPEN)
        page.wait_for("document.querySelector('dialog[open] .trial')")
        page.run("document.querySelector('dialog .trial summary').click()")
        page.wait_for("document.querySelector('dialog .trial-chart svg.marks')")
        yield page


def test_every_control_and_region_has_a_name(page: Page) -> None:
    assert page.run(UNNAMED) == []
    assert page.run("[...document.querySelectorAll('input, select')].filter(one => !one.labels.length).length") == 0


def test_every_picture_has_a_text(page: Page) -> None:
    named = "[aria-label]:is([role=img], [role=graphics-document])"
    wanted = f"[...document.querySelectorAll('img, svg')].filter(one => !one.closest('{named}')"
    unnamed = page.run(
        f"{wanted} && !one.closest('[aria-hidden=true]') && !one.alt).map(one => one.outerHTML.slice(0, 99))"
    )
    assert unnamed == []
    assert page.run("[...document.querySelectorAll('.chart, .trial-chart')].every(one => one.ariaLabel.length > 20)")


def test_tables_have_captions_and_headings_with_a_scope(page: Page) -> None:
    assert page.run("document.querySelectorAll('th:not([scope])').length") == 0
    assert page.run("[...document.querySelectorAll('table')].every(one => one.closest('[role=region][aria-label]'))")
    assert page.run("[...document.querySelectorAll('figure.table')].every(one => one.querySelector('figcaption'))")


def test_headings_do_not_skip_levels_and_ids_are_unique(page: Page) -> None:
    levels = page.run(
        "[...document.querySelectorAll('main :is(h1,h2,h3,h4,h5,h6)')].map(one => Number(one.tagName[1]))"
    )
    inside = page.run("[...document.querySelectorAll('dialog :is(h2,h3,h4)')].map(one => Number(one.tagName[1]))")
    for found in (levels, inside):
        assert all(second <= first + 1 for first, second in itertools.pairwise(found))
    assert levels.count(1) == 1
    ids = page.run("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))


def test_nothing_makes_a_narrow_page_scroll_sideways(page: Page) -> None:
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")


def test_what_scrolls_can_be_reached_by_keyboard(page: Page) -> None:
    stuck = page.run(
        "[...document.querySelectorAll('main *')].filter(one => one.scrollWidth > one.clientWidth + 1 &&"
        " ['auto', 'scroll'].includes(getComputedStyle(one).overflowX) && one.tabIndex < 0)"
        ".map(one => one.outerHTML.slice(0, 99))"
    )
    assert stuck == []


def test_no_handler_stands_in_the_markup(page: Page) -> None:
    assert (
        page.run(
            "[...document.querySelectorAll('*')].flatMap(one => one.getAttributeNames()).filter(n => /^on/.test(n))"
        )
        == []
    )


def test_the_focus_is_seen(report: Path) -> None:
    with Page() as page:
        page.open(report)
        page.wait_for("document.querySelector('.chooser:not([hidden])')")
        seen = []
        for _ in range(25):
            page.press("Tab")
            seen.append(page.run("getComputedStyle(document.activeElement).outlineStyle"))
        assert set(seen) == {"solid"} or set(seen) == {"solid", "auto"}


def test_reduced_motion_is_heeded(report: Path) -> None:
    with Page() as page:
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        page.open(report)
        assert page.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def seen(page: Page, report: Path) -> None:
    """Open a report and scroll through it until every chart is drawn."""
    page.open(report)
    page.wait_for("document.querySelector('.chooser:not([hidden])') && !document.querySelector('.downloads:empty')")
    for top in range(0, page.run("document.documentElement.scrollHeight"), 800):
        page.run(f"scrollTo({{top: {top}, behavior: 'instant'}})")
        page.draw(0.01)
    page.wait_for("!document.querySelector('.chart:not([data-drawn])')")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    scores = {"bn": [0.9, 0.9], "gn": [0.899, 0.899], "ln": [0.3, 0.3]}  # so that the leading ones are enlarged
    results = rescored(complete(folder / "trials", tuple(scores), repeats=2, epochs=4), scores)
    return write_report(results, folder, "html").paths[0]


@pytest.fixture(scope="module")
def small_page(small: Path) -> Iterator[Page]:
    with Page(width=1600) as page:
        seen(page, small)
        yield page


def wear(page: Page, theme: str) -> None:
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])


@pytest.mark.parametrize("width", [1600, 1024, 390])
def test_axe_finds_no_fault_in_either_theme(small_page: Page, width: int) -> None:
    pytest.importorskip("axe_core_python", reason="it ships axe-core")
    small_page.run(f"{(files('axe_core_python') / 'axe.min.js').read_text()}; 0")
    small_page.resize(width, 900)
    small_page.run("new Promise(done => setTimeout(done, 400))")  # charts are drawn anew after a pause
    small_page.wait_for("!document.querySelector('.chart:not([data-drawn])')")
    for theme in ("light", "dark"):
        wear(small_page, theme)
        assert small_page.run(FAULTS) == [], theme
    if width == 390:
        small_page.run(OPEN)
        small_page.wait_for("document.querySelector('dialog[open] .trial')")
        assert small_page.run(FAULTS) == [], "with the panel open"
        small_page.press("Escape")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_of_every_chart_stands_out(small_page: Page, theme: str) -> None:
    wear(small_page, theme)
    small_page.run(
        "document.head.append(Object.assign(document.createElement('style'),"
        " { textContent: 'svg.marks * { pointer-events: all !important }' }))"
    )
    faint, on_shapes = [], 0
    for place in range(small_page.run("document.querySelectorAll('figure.figure:has(.chart)').length")):
        for words, ink, ground, opacity in small_page.run(TEXTS % place):
            on_shapes += ground not in ("rgb(255, 255, 255)", "rgb(18, 22, 28)")
            if contrast(ink, ground) < 4.5 or opacity < 1:
                faint.append((place, words, ink, ground, round(contrast(ink, ground), 2), opacity))
    assert faint == []
    assert on_shapes > 20  # the numbers of the confusion matrices


def test_controls_are_large_enough_for_a_finger(page: Page) -> None:
    assert page.run(SMALL) == []


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb or rgb(r, g, b) (WCAG 2.2)."""
    decimal = colour.startswith("rgb")
    parts = re.findall(r"\d+", colour) if decimal else [colour[place : place + 2] for place in (1, 3, 5)]
    shares = (int(part, 10 if decimal else 16) / 255 for part in parts[:3])
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_controls_stand_out_in_both_themes() -> None:
    style = (template_folder() / "report" / "screen.css").read_text()
    themes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r"\{[^{}]*--page: #[^{}]*\}", style)
    ]
    assert len(themes) == 3
    assert themes[1] == themes[2]
    for theme in themes:
        for text, ground in itertools.product(("ink", "quiet", "accent"), ("page", "soft", "accent-soft")):
            assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        assert contrast(theme["caution"], theme["caution-soft"]) >= 4.5
        assert contrast(theme["control"], theme["page"]) >= 3


def test_names_do_not_break_within_a_word(page: Page) -> None:
    lines = page.run(
        "(() => { const name = document.querySelector('#table-ranking button.condition').firstChild;"
        " const before = name.data; name.data = 'gn(groups=16)'; const range = document.createRange();"
        " range.selectNodeContents(name); const found = range.getClientRects().length;"
        " name.data = before; return found })()"
    )
    assert lines == 1
