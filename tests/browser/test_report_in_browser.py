"""The HTML report in Chromium: no error, no request, charts drawn, controls that work with mouse and keyboard."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pypdf
import pytest
from synthetic_results import complete, rescored, with_search

from benchkit.report.write import write_report

pytest.importorskip("resource", reason="the browser is driven over pipes of a POSIX system")
from chromium_page import CHROMIUM, Page

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

CELLS = "[...document.querySelectorAll('#table-trials tbody tr')].map(row => row.cells[{at}].innerText.trim())"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (path, _) = write_report(with_search(folder / "trials"), folder, "html").paths
    return path


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[Page]:
    with Page() as found:
        found.open(report)
        yield found


def scroll_through(page: Page) -> None:
    height = page.run("document.documentElement.scrollHeight")
    for top in range(0, height, 500):
        page.run(f"scrollTo({{top: {top}, behavior: 'instant'}})")
        page.draw()
    page.wait_for("!document.querySelector('.chart:not([data-drawn])')")


def test_charts_are_drawn_when_they_come_into_sight(page: Page) -> None:
    all_charts = page.run("document.querySelectorAll('.chart').length")
    assert all_charts == 15
    assert page.run("document.querySelectorAll('.chart[data-drawn]').length") < all_charts
    scroll_through(page)
    assert page.run("document.querySelectorAll('.chart svg.marks').length") == all_charts
    empty = "[...document.querySelectorAll('.chart svg.marks')].filter(svg => !svg.querySelector('path')).length"
    assert page.run(empty) == 0


def test_no_error_and_no_request(page: Page) -> None:
    scroll_through(page)
    assert [line for line in page.console if "WARN" not in line] == []
    assert page.run("['View', 'vega', 'VEGA_DEBUG', 'vegaEmbed'].filter(name => name in globalThis)") == []
    assert [address for address in page.requests if not address.startswith(("file:", "data:", "blob:"))] == []
    assert len([address for address in page.requests if address.startswith("file:")]) == 1


def test_a_table_sorts_by_number_and_says_so(page: Page) -> None:
    page.run("document.querySelector('details.folded:has(#table-trials)').open = true")
    heads = page.run("[...document.querySelectorAll('#table-trials th')].map(h => h.innerText.trim())")
    at = heads.index("Epochs")
    button = f"document.querySelectorAll('#table-trials th')[{at}].querySelector('button')"
    page.run(f"{button}.click()")
    ascending = [int(value) for value in page.run(CELLS.format(at=at))]
    assert ascending == sorted(ascending)
    assert page.run(f"{button}.parentElement.getAttribute('aria-sort')") == "ascending"
    page.run(f"{button}.click()")
    assert [int(value) for value in page.run(CELLS.format(at=at))] == sorted(ascending, reverse=True)
    assert page.run(f"{button}.parentElement.getAttribute('aria-sort')") == "descending"


def test_the_keyboard_reaches_and_uses_the_controls(page: Page) -> None:
    page.run("scrollTo(0, 0); document.activeElement.blur(); document.querySelector('.skip').focus()")
    page.press("Tab")
    assert page.run("document.activeElement.className") == "theme"
    before = page.run("document.activeElement.textContent")
    page.press("Enter")
    assert page.run("document.activeElement.textContent") != before
    page.run("document.querySelector('#table-ranking th:nth-child(2) button').focus()")
    page.press("Enter")
    assert page.run("document.querySelector('#table-ranking th:nth-child(2)').getAttribute('aria-sort')") == "ascending"


def test_the_theme_can_be_chosen(report: Path) -> None:
    with Page() as page:
        page.open(report)
        assert page.run(BACKGROUND) == "rgb(255, 255, 255)"
        toggle = "document.querySelector('.theme').click()"
        page.run(toggle)
        assert page.run("document.documentElement.dataset.theme") == "light"
        page.run(toggle)
        assert page.run(BACKGROUND) == "rgb(18, 22, 28)"
        page.run("document.querySelector('.chart').scrollIntoView()")
        page.wait_for("document.querySelector('.chart svg.marks text')")
        colour = "getComputedStyle(document.querySelector('.chart svg.marks text')).fill"
        assert page.run(colour) == page.run("getComputedStyle(document.body).color")


def test_dark_is_followed_without_asking(report: Path) -> None:
    with Page(dark=True) as page:
        page.open(report)
        assert page.run(BACKGROUND) == "rgb(18, 22, 28)"


def test_the_data_behind_a_figure_is_shown_and_can_be_saved(page: Page) -> None:
    page.run("document.querySelector('#figure-results-forest details.behind').open = true")
    page.wait_for("document.querySelector('#figure-results-forest .behind-tables table')")
    rows = page.run("document.querySelectorAll('#figure-results-forest .behind-tables tbody tr').length")
    assert rows >= 2
    page.run(
        "globalThis.saved = []; URL.createObjectURL = blob => "
        "{ blob.text().then(t => saved.push(t)); return 'blob:x' };"
        "HTMLAnchorElement.prototype.click = function () { saved.push(this.download) }"
    )
    page.run("document.querySelectorAll('#table-ranking .downloads button').forEach(one => one.click())")
    page.wait_for("saved.length === 4")
    saved = page.run("saved")
    assert {"table-1-ranking.csv", "table-1-ranking.json"} < set(saved)
    (as_json,) = [json.loads(text) for text in saved if text.startswith("{")]
    (as_csv,) = [text for text in saved if text.startswith("rank,")]
    first = next(csv.DictReader(io.StringIO(as_csv, newline="")))
    assert as_json["ranking"][0]["mean"] == float(first["mean"])


def test_a_narrow_page_does_not_scroll_sideways(report: Path) -> None:
    with Page(width=390, height=800) as page:
        page.open(report)
        scroll_through(page)
        assert page.run("document.documentElement.scrollWidth") <= 390


def test_the_first_screen_answers_the_question(page: Page) -> None:
    page.run("scrollTo({top: 0, behavior: 'instant'})")
    bottom = page.run("document.querySelector('div.answer').getBoundingClientRect().bottom")
    assert 0 < bottom < 900


def test_what_was_never_in_sight_is_printed_too(report: Path) -> None:
    with Page() as page:
        page.open(report)
        page.wait_for("!document.querySelector('.downloads:empty')")
        assert page.run("document.querySelectorAll('.chart[data-drawn]').length") < 3
        content = base64.b64decode(page.send("Page.printToPDF")["data"])
        printed = " ".join(one.extract_text() for one in pypdf.PdfReader(io.BytesIO(content)).pages)
        titles = page.run(
            "[...document.querySelectorAll('.chart svg.marks')].map("
            "one => (one.querySelector('.role-axis-title') ?? one.querySelector('text')).textContent)"
        )
        assert len([title for title in titles if title]) == len(titles) == 15
        assert [title for title in titles if title not in printed] == []


@pytest.mark.parametrize("width", [390, 1024, 1600])
def test_charts_are_as_wide_as_their_place_and_letters_keep_their_size(report: Path, width: int) -> None:
    with Page(width=width, height=900) as page:
        page.open(report)
        scroll_through(page)
        page.wait_for("[...document.querySelectorAll('.chart')].every(one => one.querySelector('svg.marks'))")
        found = page.run(
            "[...document.querySelectorAll('.chart')].map(one => { const svg = one.querySelector('svg.marks');"
            " return [one.closest('figure').id, one.scrollWidth - one.clientWidth,"
            " svg.getBoundingClientRect().width / Number(svg.getAttribute('width'))] })"
        )
        assert [one for one in found if one[1] > 0 or one[2] < 0.8] == []
        panels = page.run(
            "[...document.querySelectorAll('#figure-search-slices svg.marks .role-scope[class*=concat_]')].map(one =>"
            " [one.getBoundingClientRect().width, one.querySelectorAll('[aria-label^=\"Y-axis\"] text').length])"
        )
        assert len(panels) == 2
        if width == 390:  # they stand under each other, so that each names its axis and has the page's width
            assert all(wide > 250 and texts > 2 for wide, texts in panels)


def test_on_a_phone_leading_conditions_have_their_axis_below_and_colours_of_groups_no_swatches(tmp_path: Path) -> None:
    scores = {f"a condition, number {place}": [0.9 - 0.0005 * place] * 2 for place in range(2)}
    scores |= {f"a condition, number {place}": [0.3 - 0.02 * place] * 2 for place in range(2, 9)}
    given = rescored(complete(tmp_path / "trials", tuple(scores), repeats=2, epochs=2), scores)
    (path, _) = write_report(given, tmp_path, "html").paths
    with Page(width=390, height=800) as page:
        page.open(path)
        page.run("document.getElementById('figure-results-forest').scrollIntoView({behavior: 'instant'})")
        forest = "document.querySelector('#figure-results-forest %s')"
        page.wait_for(f"{forest % '.chart[data-drawn] svg.marks'}")
        svg = forest % "svg.marks"
        assert page.run(f"{svg}.getBoundingClientRect().width / Number({svg}.getAttribute('width'))") >= 0.8
        assert page.run(f"{svg}.textContent.includes('The leading ones, enlarged')")
        assert page.run(f"{forest % '.legend'} !== null") and page.run(f"{forest % '.legend svg.look'} === null")


def test_contents_stand_beside_the_page_where_there_is_room(report: Path) -> None:
    with Page(width=1024) as page:
        page.open(report)
        assert page.run("document.querySelector('.side').checkVisibility()")
        assert page.run("document.querySelector('.side').getBoundingClientRect().right") <= (
            page.run("document.querySelector('main h1').getBoundingClientRect().left")
        )
        assert page.run("document.documentElement.scrollWidth") <= 1024
        page.resize(1000, 900)
        assert not page.run("document.querySelector('.side').checkVisibility()")
        assert page.run("document.querySelector('.way summary').checkVisibility()")


def test_a_chart_that_fails_while_it_is_drawn_says_so_in_its_place(report: Path, tmp_path: Path) -> None:
    spec = {
        "data": {"values": [{"a": 1}]},
        "transform": [{"calculate": "test(regexp('['), 'x')", "as": "b"}],
        "mark": "point",
        "encoding": {"x": {"field": "b"}},
    }
    text = report.read_text(encoding="utf-8")
    begin, end = re.search(r'class="spec">(.*?)</script>', text, re.DOTALL).span(1)  # type: ignore[union-attr]
    (tmp_path / "broken.html").write_text(text[:begin] + json.dumps(spec) + text[end:], encoding="utf-8")
    with Page() as page:
        page.open(tmp_path / "broken.html")
        scroll_through(page)
        told = page.run("[...document.querySelectorAll('.chart .error')].map(one => one.innerText)")
        assert len(told) == 1 and told[0].startswith("This chart could not be drawn: nothing came of it")
