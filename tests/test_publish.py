"""`benchkit publish`: the site of reports, its links, its versions, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchkit.cli import main
from benchkit.publish import read_report
from benchkit.publish.reports import PublishedReport, comparable
from benchkit.publish.site import LARGE

ROOT = Path(__file__).parents[1]
COMMITTED = sorted((ROOT / "reports").glob("*.html"))
LINK = re.compile(r'(?:href|src)="([^"#]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert main(["publish", str(folder), *map(str, COMMITTED), "--title", "Ours"]) == 0
    return folder


def every_file(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dead_links(folder: Path) -> list[str]:
    pages = [page for page in folder.rglob("*.html") if page.name == "index.html" or page.parent.name == "plugins"]
    assert pages
    return [
        f"{page.relative_to(folder)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if target.startswith(("/", "http")) or not (page.parent / target).is_file()
    ]


def test_every_committed_report_is_there_and_no_link_is_dead(site: Path) -> None:
    assert dead_links(site) == []
    index = (site / "index.html").read_text(encoding="utf-8")
    for report in COMMITTED:
        (folder,) = (site / "reports" / report.stem).iterdir()
        assert (folder / report.name).read_bytes() == report.read_bytes()
        assert f'href="reports/{report.stem}/{folder.name}/index.html"' in index
    assert "“bin” leads with a test accuracy of 57.05" in index and "<title>Ours</title>" in index
    gn = (site / "plugins" / "norms-gn.html").read_text(encoding="utf-8")
    assert "Group normalisation" in gn and "Normalisation on CIFAR-10" in gn and "Wu and" in gn


def test_names_are_those_that_every_host_serves(site: Path) -> None:
    names = [part for path in site.rglob("*") for part in path.relative_to(site).parts]
    assert not [name for name in names if name.startswith("_") or ":" in name]
    paths = [path.relative_to(site).as_posix().lower() for path in site.rglob("*")]
    assert len(set(paths)) == len(paths) and (site / ".nojekyll").is_file()


def test_again_with_nothing_new_gives_the_same_bytes(site: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(site, again)
    assert main(["publish", str(again), *map(str, COMMITTED), "--title", "Ours"]) == 0
    assert every_file(again) == every_file(site)


def test_an_older_version_stays_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, folder = tmp_path / "quickstart.html", tmp_path / "site"
    shutil.copy(ROOT / "reports" / "quickstart.html", report)
    old = read_report(report).digest
    assert main(["publish", str(folder), str(report)]) == 0
    report.write_text(report.read_text(encoding="utf-8") + "<!-- made anew -->\n", encoding="utf-8")
    new = read_report(report).digest
    capsys.readouterr()
    assert main(["publish", str(folder), str(report)]) == 0
    assert "1 report, 1 older version," in capsys.readouterr().out
    before, after = (
        (folder / "reports" / "quickstart" / name / "index.html").read_text(encoding="utf-8") for name in (old, new)
    )
    assert "This is an older version" in before and f"../{new}/index.html" in before
    assert "This is an older version" not in after and f"../{old}/index.html" in after
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert new in index and old not in index and dead_links(folder) == []
    assert (folder / "reports" / "quickstart" / old / "quickstart.html").is_file()
    assert list(json.loads((folder / "site.json").read_text())) == ["quickstart"]


def test_a_site_that_grows_too_large_is_told_with_its_largest_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = ROOT / "reports" / "quickstart.html"
    assert 0.7 * 2**30 < LARGE <= 0.8 * 2**30, "hosts take 1 GB"
    for limit in (LARGE, report.stat().st_size):
        monkeypatch.setattr("benchkit.publish.site.LARGE", limit)
        assert main(["publish", str(tmp_path / "site"), str(report)]) == 0
        said = capsys.readouterr()
        assert ("is near the 1 GB that hosts of pages allow" in said.err) == (limit < LARGE)
        assert re.search(r"^largest: reports/quickstart/\w+/quickstart\.html \([\d.]+ MiB\)", said.out, re.MULTILINE)


def test_what_cannot_be_published_is_refused_and_nothing_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quickstart = ROOT / "reports" / "quickstart.html"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    hidden, twin = tmp_path / "_quickstart.html", tmp_path / "Quickstart.html"
    for copy in (hidden, twin):
        shutil.copy(quickstart, copy)
    page = tmp_path / "page.html"
    page.write_text("<html><title>Not ours</title></html>")
    for arguments, said in (
        (["mine", str(quickstart)], "holds files that are no site"),
        (["new", str(hidden)], "leading underscore"),
        (["new", str(quickstart), str(twin)], "reports of one name"),
        (["new", str(tmp_path / "absent.html")], "cannot be read"),
        (["new", str(ROOT / "reports" / "quickstart.pdf")], "expected the .html file"),
    ):
        assert main(["publish", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"] and not (tmp_path / "new").exists()


def test_studies_of_equal_data_and_protocol_stand_in_one_table(tmp_path: Path) -> None:
    report = read_report(ROOT / "reports" / "quickstart.html")
    (study,) = report.studies
    other = replace(report, name="other", studies=(replace(study, name="other", title="Another of it"),))
    longer = replace(report, name="longer", studies=(replace(study, name="longer", protocol="longer"),))
    assert comparable([report, longer]) == []
    assert comparable([report, other, longer]) == [[(report, study), (other, other.studies[0])]]
    twice: list[PublishedReport] = [report, replace(report, name="again")]
    assert comparable(twice) == []  # one study, shown twice
    assert comparable([report, replace(other, studies=(replace(other.studies[0], rows=()),))]) == []  # all diverged


def test_factors_are_no_part_of_the_protocol() -> None:
    norms, dropout = (
        read_report(ROOT / "reports" / f"{name}.html").studies[0] for name in ("quickstart", "norms-cifar10-cpu")
    )
    assert norms.protocol != dropout.protocol and "accuracy" in norms.protocol and "model.norm" not in norms.protocol
