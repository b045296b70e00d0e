"""The chooser, the panel of trials and the downloads of the HTML report in Chromium, by mouse and by keyboard."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import HOSTILE, complete

from benchkit.report.write import write_report
from benchkit.results import StudyResults

pytest.importorskip("resource", reason="the browser is driven over pipes of a POSIX system")
from chromium_page import CHROMIUM, Page

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

LABELS = (
    "bn",
    "gn",
    "ln",
    "none",
    "a name that goes on and on and " * 5 + "ends",
    '"><img src=x onerror="alert(1)">',
    *HOSTILE,
)
SAVING = """globalThis.saved = []; globalThis.blobs = new Map();
URL.createObjectURL = blob => { blobs.set('blob:' + blobs.size, blob); return 'blob:' + (blobs.size - 1) };
HTMLAnchorElement.prototype.click = function () {
  const { download, href } = this;
  blobs.get(href).text().then(text => saved.push([download, text]));
};"""
SHOWN = "[...document.querySelectorAll('#table-ranking tbody tr:not([hidden]) td:nth-child(2) button')]"


@dataclass(frozen=True)
class Made:
    """A report on disk and what it was made of."""

    results: StudyResults
    path: Path

    @property
    def folder(self) -> Path:
        return self.path.with_suffix("")

    def key(self, label: str) -> str:
        (found,) = [condition.key[:8] for condition in self.results.conditions if condition.label == label]
        return found

    def loss(self, label: str) -> float:
        found = [t.outcome.metrics["val"].loss for t in self.results.trials if t.outcome and t.condition.label == label]
        return sum(found) / len(found)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("report")
    results = complete(folder / "trials", LABELS, repeats=2, epochs=4)
    for trial in results.trials:
        (trial.folder / "log.txt").write_text("a warning: <script>alert(1)</script>\nthe last line\n")
    return Made(results, write_report(results, folder).paths[0])


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with Page() as page:
        yield page


@pytest.fixture
def page(made: Made, browser: Page) -> Page:
    """Return the report as it opens, in the browser that all tests share."""
    opened(browser, made)
    return browser


def opened(page: Page, made: Made, fragment: str = "") -> None:
    page.send("Page.navigate", url="about:blank")
    page.console.clear()
    page.requests.clear()
    page.open(made.path, fragment)
    page.wait_for("document.querySelector('.chooser:not([hidden])') && !document.querySelector('.downloads:empty')")
    page.run("document.querySelectorAll('details.folded').forEach(one => { one.open = true })")


def chosen(page: Page, name: str, value: str) -> None:
    page.run(
        f"(() => {{ const one = document.querySelector('.chooser [name={name}]'); one.value = '{value}';"
        " one.dispatchEvent(new Event('change', { bubbles: true })) })()"
    )


def text(page: Page, selector: str) -> str:
    return str(page.run(f"document.querySelector('{selector}').innerText"))


def drawn(page: Page, figure: str) -> list[str]:
    """Return the texts that a chart shows, once it is drawn."""
    page.run(f"document.querySelector('#{figure}').scrollIntoView({{ behavior: 'instant' }})")
    page.wait_for(f"document.querySelector('#{figure} .chart[data-drawn] svg.marks')")
    return list(
        page.run(f"[...document.querySelectorAll('#{figure} .chart svg.marks text')].map(one => one.textContent)")
    )


def quiet(page: Page) -> None:
    assert [line for line in page.console if "WARN" not in line] == []
    assert [one for one in page.requests if not one.startswith(("file:", "data:", "blob:", "about:"))] == []


def test_the_chooser_changes_tables_and_charts(made: Made, page: Page) -> None:
    assert "Accuracy (%)" in drawn(page, "figure-results-forest")
    chosen(page, "metric", "loss")
    chosen(page, "split", "val")
    page.wait_for("document.querySelector('#table-ranking th:nth-child(4)').innerText.startsWith('val loss')")
    cells = page.run(
        "[...document.querySelectorAll('#table-ranking tbody tr')].map(row => [row.cells[1].querySelector('button')"
        ".textContent, row.cells[3].firstChild.textContent])"
    )
    assert [value for _, value in cells] == [f"{made.loss(label):.4f}" for label, _ in cells]
    assert [value for _, value in cells] == sorted(value for _, value in cells)
    page.wait_for("/Validation loss/.test(document.querySelector('#figure-results-forest .chart').textContent)")
    assert "Validation loss (nats)" in drawn(page, "figure-results-forest")
    assert text(page, "#figure-results-forest .caption").startswith("Validation loss by condition")
    assert text(page, "#table-models .follows") == "Shows test accuracy, whatever metric and split are chosen."
    assert text(page, ".choice").startswith("Showing val loss of 11 of 11 conditions")
    quiet(page)


def test_conditions_leave_rows_and_charts(made: Made, page: Page) -> None:
    everyone = page.run(f"{SHOWN}.length")
    assert everyone == len(LABELS)
    page.run("document.querySelectorAll('.boxes input')[0].click()")
    assert "bn" not in page.run(f"{SHOWN}.map(one => one.textContent)")
    assert page.run("location.hash") == f"#?without={made.key('bn')}"
    labels = drawn(page, "figure-results-forest")
    assert "gn" in labels
    assert "bn" not in labels
    page.run("document.querySelector('.pick-none').click()")
    assert page.run(f"{SHOWN}.length") == 0
    page.wait_for("document.querySelector('#figure-results-forest .chart .absent')")
    page.run("document.querySelector('.chooser [type=reset]').click()")
    assert page.run(f"{SHOWN}.length") == everyone
    assert page.run("location.hash") in ("", "#?")
    quiet(page)


def test_a_link_brings_the_view_back(made: Made, browser: Page) -> None:
    fragment = f"#results?metric=loss&split=val&with={made.key('gn')}.{made.key('ln')}"
    opened(browser, made, fragment)
    browser.wait_for("document.querySelector('#table-ranking th:nth-child(4)').innerText.startsWith('val loss')")
    assert set(browser.run(f"{SHOWN}.map(one => one.textContent)")) == {"gn", "ln"}
    assert browser.run("[...document.querySelectorAll('.chooser select')].map(one => one.value)") == ["loss", "val"]
    browser.run("document.querySelector('.side a[href=\"#findings\"]').click()")
    browser.wait_for("location.hash.startsWith('#findings?metric=loss')")
    assert set(browser.run(f"{SHOWN}.map(one => one.textContent)")) == {"gn", "ln"}
    opened(browser, made, "#results?metric=%3Cscript%3E&split=nowhere&with=zz&condition=zz&trial=x")
    assert browser.run("[...document.querySelectorAll('.chooser select')].map(one => one.value)") == [
        "accuracy",
        "test",
    ]
    quiet(browser)


def test_tables_are_filtered_by_text(page: Page) -> None:
    page.run(
        "(() => { const one = document.querySelector('#table-trials .filter input'); one.value = 'LN';"
        " one.dispatchEvent(new Event('input')) })()"
    )
    rows = page.run("[...document.querySelectorAll('#table-trials tbody tr:not([hidden])')].map(row => row.innerText)")
    assert len(rows) == 2
    assert all("ln" in row.lower() for row in rows)
    assert text(page, "#table-trials .filter output") == f"2 of {2 * len(LABELS)} rows"
    page.run(
        "(() => { const one = document.querySelector('#table-trials .filter input'); one.value = ' grid  ln 1';"
        " one.dispatchEvent(new Event('input')) })()"
    )
    rows = page.run("[...document.querySelectorAll('#table-trials tbody tr:not([hidden])')].map(row => row.innerText)")
    assert rows
    assert all(word in row.lower() for row in rows for word in ("grid", "ln", "1"))


def test_sentences_say_what_they_are_about_when_something_else_is_chosen(page: Page) -> None:
    places = "div.answer:not(.finding) > .follows, #findings > .follows"
    notes = f"[...document.querySelectorAll('{places}')].map(one => one.innerText)"
    assert page.run(notes) == ["", ""]
    chosen(page, "metric", "loss")
    assert page.run(notes) == ["These sentences are about test accuracy, whatever is chosen."] * 2
    page.run("document.querySelectorAll('.boxes input')[0].click()")
    assert page.run(notes) == ["These sentences are about test accuracy of all conditions, whatever is chosen."] * 2
    page.run("document.querySelector('.chooser [type=reset]').click()")
    assert page.run(notes) == ["", ""]


def test_the_panel_opens_and_closes_by_keyboard(made: Made, page: Page) -> None:
    page.run(
        "[...document.querySelectorAll('#table-ranking button.condition')].find(b => b.textContent === 'gn').focus()"
    )
    page.press("Enter")
    page.wait_for("document.querySelector('dialog[open]')")
    assert page.run("location.hash") == f"#?condition={made.key('gn')}"
    assert text(page, "dialog h2") == "gn"
    for _ in range(12):
        page.press("Tab")
        assert page.run("document.activeElement === document.body || Boolean(document.activeElement.closest('dialog'))")
    page.run("document.querySelector('dialog .trial summary').focus()")
    page.press("Enter")
    page.wait_for("document.querySelector('dialog .trial-chart svg.marks path')")
    shown = text(page, "dialog .trial-body")
    trial = next(t for t in made.results.trials if t.condition.label == "gn" and t.index == 0)
    assert trial.outcome is not None
    assert f"{100 * trial.outcome.metrics['test'].accuracy:.2f}" in shown
    assert "the last line" in shown
    assert "initial weights" in shown
    assert "&trial=" in page.run("location.hash")
    page.press("Escape")
    page.wait_for("!document.querySelector('dialog')")
    assert page.run("document.activeElement.textContent") == "gn"
    assert page.run("location.hash") in ("", "#?")
    quiet(page)


def test_a_legend_opens_the_panel_and_the_back_button_closes_it(page: Page) -> None:
    drawn(page, "figure-results-forest")
    page.run("document.querySelector('#figure-results-forest .legend button').click()")
    page.wait_for("document.querySelector('dialog[open] h2')")
    assert text(page, "dialog h2") == "bn"
    page.run("history.back()")
    page.wait_for("!document.querySelector('dialog')")
    quiet(page)


def test_a_link_opens_the_panel_at_its_trial(made: Made, browser: Page) -> None:
    opened(browser, made, f"#?condition={made.key('ln')}&trial=3")
    browser.wait_for("document.querySelector('dialog .trial[open] .trial-body')")
    assert text(browser, "dialog .trial[open] summary").startswith("Trial 3 ")
    quiet(browser)


def test_downloads_hold_the_numbers_of_the_files_beside_the_report(made: Made, page: Page) -> None:
    page.run(SAVING)
    figure = "document.querySelector('#figure-results-forest .downloads')"
    names = page.run(f"[...{figure}.querySelectorAll('button')].map(one => one.textContent)")
    assert names[-3:] == ["JSON", "SVG", "PNG"]
    page.run(f"{figure}.querySelectorAll('button').forEach(one => one.click())")
    page.run("document.querySelectorAll('#table-ranking .downloads button').forEach(one => one.click())")
    page.wait_for(f"saved.length === {len(names) + 2}")
    saved: dict[str, Any] = dict(page.run("saved"))
    assert saved["table-1-ranking.csv"] == file_text(made, "tables/01-ranking.csv")
    beside = sorted(made.folder.glob("figures/01-results-forest-*.csv"))
    assert sorted(content for name, content in saved.items() if name.startswith("figure") and name.endswith("csv")) == (
        sorted(path.read_bytes().decode() for path in beside)
    )
    assert saved["figure-1-results-forest.svg"].startswith("<svg")
    assert "currentColor" not in saved["figure-1-results-forest.svg"]
    assert saved["figure-1-results-forest.png"][1:4] == "PNG"
    rows = list(csv.DictReader(io.StringIO(saved["table-1-ranking.csv"], newline="")))
    assert [row["mean"] for row in json.loads(saved["table-1-ranking.json"])["ranking"]] == [
        float(row["mean"]) for row in rows
    ]
    quiet(page)


def file_text(made: Made, name: str) -> str:
    return (made.folder / name).read_bytes().decode()


def test_downloads_follow_the_choice(made: Made, page: Page) -> None:
    page.run(SAVING)
    chosen(page, "metric", "loss")
    page.run("document.querySelector('#table-ranking .downloads button').click()")
    page.wait_for("saved.length === 1")
    ((name, content),) = page.run("saved")
    assert name == "table-1-ranking-test-loss.csv"
    first = next(csv.DictReader(io.StringIO(content, newline="")))
    found = [
        t.outcome.metrics["test"].loss
        for t in made.results.trials
        if t.outcome and t.condition.label == first["condition"]
    ]
    assert float(first["mean"]) == pytest.approx(sum(found) / 2, rel=1e-12)


def test_pointers_see_mean_interval_and_repeats(page: Page) -> None:
    drawn(page, "figure-results-forest")
    page.run("new Promise(done => setTimeout(done, 300))")
    spot = page.run(
        "(() => { const box = [...document.querySelectorAll('#figure-results-forest .mark-rule.role-mark line')]"
        ".find(one => one.getBoundingClientRect().width > 30).getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2] })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=spot[0], y=spot[1])
    page.wait_for("document.querySelector('#vg-tooltip-element.visible')")
    shown = text(page, "#vg-tooltip-element")
    assert all(word in shown for word in ("Mean", "Interval from", "Interval to", "Repeats"))


def test_hostile_names_never_break_out(page: Page) -> None:
    page.run("globalThis.alert = () => { globalThis.broken = true }")
    for place in range(len(LABELS)):
        page.run(f"document.querySelectorAll('#table-ranking button.condition')[{place}].click()")
        page.wait_for("document.querySelector('dialog[open] .trial')")
        page.run("document.querySelector('dialog .trial summary').click()")
        page.wait_for("document.querySelector('dialog .trial-body pre')")
        page.press("Escape")
        page.wait_for("!document.querySelector('dialog')")
    chosen(page, "metric", "loss")
    drawn(page, "figure-results-forest")
    drawn(page, "figure-learning-curves")
    assert page.run("globalThis.broken === undefined")
    assert page.run("document.querySelectorAll('img[src=x], [onerror], main script:not([type])').length") == 0
    assert set(page.run(f"{SHOWN}.map(one => one.textContent)")) == set(LABELS)
    quiet(page)


def test_without_scripts_the_page_is_the_plain_report(made: Made) -> None:
    with Page() as plain:
        plain.send("Emulation.setScriptExecutionDisabled", value=True)
        plain.open(made.path)
        assert plain.run("getComputedStyle(document.querySelector('.chooser')).display") == "none"
        assert plain.run("document.querySelectorAll('#table-trials tbody tr').length") == 2 * len(LABELS)
        assert plain.run("document.querySelectorAll('tr[hidden], dialog').length") == 0
        assert plain.run("[...document.images].filter(one => one.complete && one.naturalWidth > 100).length") >= 3


def test_two_studies_on_one_page_keep_apart(made: Made, browser: Page, tmp_path: Path) -> None:
    html = made.path.read_text()
    start, end = html.index("<main "), html.index("</main>") + len("</main>")
    main = html[start:end]
    both = tmp_path / "both.html"
    both.write_text(html[:end] + main.replace('data-study="synthetic-norms"', 'data-study="other"') + html[end:])
    browser.send("Page.navigate", url="about:blank")
    browser.console.clear()
    browser.open(both, "#?other.metric=loss")
    heads = "[...document.querySelectorAll('#table-ranking th:nth-child(4)')].map(one => one.innerText.split('\\n')[0])"
    browser.wait_for(f"{heads}[1] === 'test loss'")
    assert browser.run(heads) == ["test accuracy", "test loss"]
    chosen(browser, "metric", "macro_f1")
    browser.wait_for(f"{heads}[0] === 'test macro F1'")
    assert browser.run("location.hash") == "#?synthetic-norms.metric=macro_f1&other.metric=loss"
    quiet(browser)
