"""The published site, opened from disk in a real browser: search, filter, faults of accessibility, no requests."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from benchkit.publish import publish, read_report
from benchkit.registry import Registry

pytest.importorskip("resource", reason="the browser is driven over pipes of a POSIX system")
from chromium_page import CHROMIUM, Page

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

REPORTS = sorted((Path(__file__).parents[2] / "reports").glob("*.html"))
SHOWN = "[...document.querySelectorAll('article')].filter(one => one.checkVisibility()).map(one => one.id)"
FAULTS = """
axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations.map(
  one => [one.id, one.nodes.slice(0, 3).map(node => node.html.slice(0, 120))]))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    publish(folder, [read_report(report) for report in REPORTS], title="Reports", registry=Registry.installed())
    return folder


def test_the_index_is_searched_from_disk(site: Path) -> None:
    everything = [report.stem for report in REPORTS]
    with Page() as page:
        page.open(site / "index.html")
        assert page.run(SHOWN) == everything
        page.run("words.value = 'cutmix'; words.dispatchEvent(new Event('input', { bubbles: true }))")
        assert page.run(SHOWN) == ["dropout-tiny-cifar10-cpu"]
        assert page.run("document.getElementById('count').textContent") == f"1 of {len(everything)}"
        page.run("words.value = ''; data.value = 'mnist'; data.dispatchEvent(new Event('input', { bubbles: true }))")
        assert page.run(SHOWN) == ["regularization-mnist"]
        page.run("document.querySelector('#regularization-mnist a').click()")
        page.wait_for("document.querySelector('h1')?.textContent === 'Regularisation of an MLP on MNIST'")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_have_no_faults_and_fit(width: int, dark: bool, site: Path) -> None:
    axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    report = next((site / "reports" / "norms-cifar10-cpu").iterdir())
    with Page(width=width, dark=dark) as page:
        for shown in (site / "index.html", report / "index.html", site / "plugins" / "norms-gn.html"):
            page.open(shown)
            page.run(axe)
            assert page.run(FAULTS) == []
            assert page.run("document.documentElement.scrollWidth") <= width
        assert page.console == [] and {request.partition(":")[0] for request in page.requests} == {"file"}
